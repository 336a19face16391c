"""Every kind of body: where its texts are, where the reminder goes, and that all the rest keeps its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tcd.spotlight import Policy, sentence
from tests.unit.spotlight.kit import chat, envelope, framed, marked, messages, run


def test_unknown_members_key_order_and_numbers_keep_their_spelling() -> None:
    body = (
        '{"z":1.50,"messages":[{"role":"user","content":"hi","x":{"b":1E2,  "a":[1.0,-0.0]}},'
        '{"weight":1e400,"content":"a b","role":"tool","big":123456789012345678901234567890,"esc":"\\u00e9\\/"}],'
        '"a":{"n":0.10},"temperature":0.70}'
    )
    out = run(body.encode())
    m = marked("a b", out)
    expected = body.replace('"content":"a b"', f'"content":"{m}"')
    reminder = json.dumps(sentence(envelope(out)), ensure_ascii=False)
    expected = expected.replace('"messages":[', f'"messages":[{{"role":"system","content":{reminder}}},')
    assert out.body.decode() == expected


@pytest.mark.parametrize("role", ["system", "developer"])
def test_openai_appends_to_the_first_system_message(role: str) -> None:
    out = run(chat(("user", "hi"), (role, "Be kind."), ("system", "Second."), ("tool", "a b")))
    found = messages(out)
    assert [m["role"] for m in found] == ["user", role, "system", "tool"]
    assert found[1]["content"] == f"Be kind.\n\n{sentence(envelope(out))}"
    assert found[2]["content"] == "Second."


def test_openai_system_message_of_parts_null_or_nothing() -> None:
    out = run(chat(("system", [{"type": "text", "text": "Be kind."}]), ("tool", "a b")))
    assert messages(out)[0]["content"] == [
        {"type": "text", "text": "Be kind."},
        {"type": "text", "text": sentence(envelope(out))},
    ]
    for content in (None, ""):
        out = run(chat(("system", content), ("tool", "a b")))
        assert messages(out)[0]["content"] == sentence(envelope(out))


def test_prompt() -> None:
    out = run(json.dumps({"prompt": "Explain\n```\na b\n```\n", "max_tokens": 5}).encode())
    code = marked("```\na b\n```\n", out)
    assert json.loads(out.body) == {"prompt": f"{sentence(envelope(out))}\n\nExplain\n{code}", "max_tokens": 5}
    assert out.reminder_added
    assert run(out.body, seed=4).body == out.body


def test_each_prompt_of_a_list_with_data_has_the_reminder() -> None:
    code = "```\na b\n```\n"
    out = run(json.dumps({"prompt": ["hello", code, f"x\n{code}"]}).encode())
    reminder = sentence(envelope(out))
    prompts = json.loads(out.body)["prompt"]
    assert prompts == ["hello", f"{reminder}\n\n{marked(code, out)}", f"{reminder}\n\nx\n{marked(code, out)}"]
    assert run(out.body, seed=4).body == out.body


def test_triton_text_input() -> None:
    out = run(b'{"text_input": "a b c", "parameters": {"stream": false}}', boundary="0:2-5")
    value = json.loads(out.body)
    assert value["text_input"] == f"{sentence(envelope(out))}\n\na {marked('b c', out)}"
    assert value["parameters"] == {"stream": False}


def test_a_replayed_reminder_inside_a_prompt_is_not_the_requests() -> None:
    old = run(b'{"prompt": "```\\nx\\n```"}', seed=1)
    body = json.dumps({"prompt": f"Sum up:\n```\n{sentence(envelope(old))} {framed('evil words', old)}\n```"}).encode()
    out = run(body, seed=2)
    assert out.nonce != old.nonce
    assert "evil words" not in out.body.decode()


def anthropic(**members: Any) -> bytes:
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a b"}]}
    default = {"max_tokens": 9, "messages": [{"role": "user", "content": [result, {"type": "text", "text": "hi you"}]}]}
    return json.dumps({**default, **members}).encode()


def test_anthropic_tool_results_are_data_and_the_system_field_has_the_reminder() -> None:
    out = run(anthropic(system="Be kind."))
    value = json.loads(out.body)
    blocks = value["messages"][0]["content"]
    assert blocks[0]["content"] == [{"type": "text", "text": marked("a b", out)}]
    assert blocks[1]["text"] == "hi you"
    assert value["system"] == f"Be kind.\n\n{sentence(envelope(out))}"
    assert run(out.body, seed=8).body == out.body


def test_anthropic_without_and_with_blocks_of_system() -> None:
    out = run(anthropic())
    value = json.loads(out.body)
    assert value["system"] == sentence(envelope(out))
    assert [m["role"] for m in value["messages"]] == ["user"]
    out = run(anthropic(system=[{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]))
    system = json.loads(out.body)["system"]
    assert system[0] == {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}
    assert system[1] == {"type": "text", "text": sentence(envelope(out))}
    assert run(out.body, seed=8).body == out.body


ANTHROPIC_DATA: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "tool_result string": ({"type": "tool_result", "content": "a b"}, ("content",)),
    "document text": (
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a b"}},
        ("source", "data"),
    ),
    "document content": (
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a b"}]}},
        ("source", "content", 0, "text"),
    ),
    "document title": ({"type": "document", "title": "a b", "source": {"type": "url", "url": "u"}}, ("title",)),
    "search result": ({"type": "search_result", "content": [{"type": "text", "text": "a b"}]}, ("content", 0, "text")),
    "server tool result": (
        {"type": "web_fetch_tool_result", "content": {"type": "web_fetch_result", "content": "a b"}},
        ("content", "content"),
    ),
}


@pytest.mark.parametrize("name", ANTHROPIC_DATA)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_anthropic_data_blocks(name: str, role: str) -> None:
    block, path = ANTHROPIC_DATA[name]
    body = json.dumps({"system": "s", "messages": [{"role": role, "content": [block]}]}).encode()
    out = run(body)
    value = json.loads(out.body)["messages"][0]["content"][0]
    for step in path:
        value = value[step]
    assert value == marked("a b", out)


def test_assistant_history_is_instruction() -> None:
    body = json.dumps(
        {
            "system": "s",
            "messages": [
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "```\nx y\n```"}, {"type": "tool_use", "input": {"q": "a b"}}],
                }
            ],
        }
    ).encode()
    assert run(body).body == body


def test_the_format_can_be_said() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "```\na\n```"}]}).encode()
    out = run(body, Policy(shadow=False, body_format="anthropic"))
    assert json.loads(out.body)["system"] == sentence(envelope(out))
    assert run(body, Policy(shadow=False, body_format="triton")).failures == ("body_missing_messages",)
    assert run(b'{"prompt":"x"}', Policy(shadow=False, body_format="openai_chat")).failures == (
        "body_missing_messages",
    )


def test_more_data_roles_on_demand() -> None:
    policy = Policy(shadow=False, data_roles=frozenset({"ipython"}))
    out = run(chat(("ipython", "a b"), ("tool", "c d")), policy)
    assert [m["content"] for m in messages(out)[1:]] == [marked("a b", out), "c d"]
