"""How much of the payloads of indirect injections ends up in Data, and how much of people's own words wrongly does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.spotlight.corpus import Labelled, data_within, read, segments, wilson
from tests.unit.spotlight.kit import chat, messages, run

DOCUMENTS = read("documents.txt")
PROMPTS = read("prompts.txt")
PAGE = " ".join((Path(__file__).resolve().parents[3] / "docs" / "spotlight.md").read_text("utf-8").split())
ASK = "Please summarise this:\n\n"

Shape = Callable[[str], dict[str, Any]]
TOOL_RESULTS: dict[str, Shape] = {
    "openai tool": lambda t: {"messages": [{"role": "user", "content": ASK}, {"role": "tool", "content": t}]},
    "openai tool parts": lambda t: {"messages": [{"role": "tool", "content": [{"type": "text", "text": t}]}]},
    "openai function": lambda t: {"messages": [{"role": "function", "name": "f", "content": t}]},
    "anthropic tool_result": lambda t: {
        "system": "s",
        "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": t}]}],
    },
    "anthropic tool_result blocks": lambda t: {
        "messages": [
            {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": t}]}]},
        ]
    },
    "anthropic document": lambda t: {
        "messages": [
            {"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": t}}]},
        ]
    },
}


def payload(document: Labelled) -> int:
    return sum(end - start for start, end in document.spans)


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert len(DOCUMENTS) >= 40
    assert len(PROMPTS) >= 20
    assert len({d.name for d in DOCUMENTS}) == len(DOCUMENTS)
    assert all(payload(d) for d in DOCUMENTS)
    assert {d.kind for d in DOCUMENTS} == {"json", "html-table", "html", "mail", "csv", "code", "text"}


@pytest.mark.parametrize("shape", TOOL_RESULTS)
def test_payloads_of_tool_results_are_data(shape: str) -> None:
    inside = total = 0
    for document in DOCUMENTS:
        found = [s for s in segments(TOOL_RESULTS[shape](document.text)) if s.text != ASK]
        inside += data_within(found, 0, document.spans)
        total += payload(document)
    assert inside / total >= 0.99, (inside, total)


def test_what_is_asked_beside_a_tool_result_is_not_data() -> None:
    for document in DOCUMENTS:
        asked = [s for s in segments(TOOL_RESULTS["openai tool"](document.text)) if s.message == 0]
        assert [s.kind for s in asked] == ["instruction"]


def test_no_payload_reaches_the_model_unmarked() -> None:
    for document in DOCUMENTS:
        outcome = run(chat(("user", ASK), ("tool", document.text)))
        text = messages(outcome)[2]["content"]
        assert text.startswith(f"<tcd-untrusted:{outcome.nonce}>")
        assert text.endswith(f"</tcd-untrusted:{outcome.nonce}>")
        assert not any(c.isspace() for c in text), document.name


def pasted(kinds: set[str]) -> tuple[int, int]:
    inside = total = 0
    for document in DOCUMENTS:
        if document.kind in kinds:
            found = list(segments({"messages": [{"role": "user", "content": ASK + document.text}]}))
            inside += data_within(found, len(ASK), document.spans)
            total += payload(document)
    return inside, total


def test_payloads_that_a_user_pastes_are_data_where_a_heuristic_knows_the_kind() -> None:
    inside, total = pasted({"json", "html-table", "mail", "csv", "code"})
    assert inside / total >= 0.99


def test_peoples_own_words_are_not_data() -> None:
    wrong = own = prompts = 0
    for prompt in PROMPTS:
        found = list(segments({"messages": [{"role": "user", "content": prompt.text}]}))
        material = payload(prompt)
        extra = sum(s.end - s.start for s in found if s.kind == "data") - data_within(found, 0, prompt.spans)
        own += len(prompt.text) - material
        wrong += extra
        prompts += bool(extra)
    assert wrong / own <= 0.01, (wrong, own)
    low, high = wilson(prompts, len(PROMPTS))
    said = f"{wrong} of {own} characters ({wrong / own:.2%}), in {prompts} of {len(PROMPTS)} prompts"
    assert f"{said} (95 % interval {low:.1%} to {high:.1%})" in PAGE


def test_the_page_has_the_measured_numbers() -> None:
    total = sum(map(payload, DOCUMENTS))
    low, _ = wilson(len(DOCUMENTS), len(DOCUMENTS))
    assert (
        f"{total} of {total} payload characters in {len(DOCUMENTS)} of {len(DOCUMENTS)} documents "
        f"(95 % interval from {low:.1%})" in PAGE
    )
    known, all_known = pasted({"json", "html-table", "mail", "csv", "code"})
    inside, everything = pasted({d.kind for d in DOCUMENTS})
    assert f"{known} of {all_known} characters" in PAGE
    assert f"{inside} of {everything}" in PAGE
