"""Conditions in CEL: of subject and context only, bounded, refused with the reason, towards the stricter side."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest

from tcd.trust import BadBundle, PolicySet, Risk, decide, load
from tcd.trust.cel import MAX_EXPRESSION, Condition
from tcd.trust.policies import MATCH_NAMES, ROW_NAMES

HEAD = '[[policy]]\nname = "p"\nversion = 1\n'
needs = pytest.mark.skipif(importlib.util.find_spec("cel") is None, reason="cel: pip install tcd[cel]")


def one(text: str) -> PolicySet:
    return load({"a.toml": text})


@needs
def test_a_row_with_an_expression_holds_for_whom_it_says() -> None:
    [policy] = list(
        one(
            HEAD + '[[policy.decision]]\nname = "hot"\naction = "throttle"\nwhen = { score = 0.5 }\n'
            "cel = \"task == 'chat' && context.temperature > 1.0\"\n"
        )
    )
    table, hot = policy.table(), {"task": "chat", "context": {"temperature": 1.5}}
    assert decide(table, Risk(score=0.6), whose=hot).action == "throttle"
    assert decide(table, Risk(score=0.4), whose=hot).action == "allow"
    assert decide(table, Risk(score=0.6), whose={**hot, "task": "code"}).action == "allow"
    assert decide(table, Risk(score=0.6), whose={**hot, "context": {"temperature": 0.5}}).action == "allow"


@needs
@pytest.mark.parametrize("context", [{}, {"temperature": "hot"}, {"temperature": None}])
def test_where_it_cannot_say_the_row_holds(context: Any) -> None:
    [policy] = list(
        one(HEAD + '[[policy.decision]]\nname = "r"\naction = "block"\ncel = "context.temperature > 1.0"\n')
    )
    assert decide(policy.table(), Risk(), whose={"context": context}).action == "block"


@needs
def test_a_match_with_an_expression() -> None:
    policies = one(
        '[[policy]]\nname = "all"\nversion = 1\n[[policy]]\nname = "some"\nversion = 1\n[policy.match]\n'
        "cel = \"tenant.startsWith('ac') && lang in ['en', 'de']\"\n"
    )
    names = [
        found.name
        for subject in ({"tenant": "acme", "lang": "de"}, {"tenant": "acme", "lang": "fr"}, {"tenant": "x"})
        if (found := policies.of(subject)) is not None
    ]
    assert names == ["some", "all", "all"]


BAD = {
    "syntax": ("tenant ==", "<input>:1:10: Syntax error"),
    "a risk": ("score > 0.5", "score is not there"),
    "unknown": ("nobody == 'x'", "nobody is not there"),
    "a function": ("foo(tenant)", "foo is not there"),
    "a loop": ("context.all(k, context.exists(l, k == l))", "all() is a loop"),
    "a regular expression": ("tenant.matches('(a+)+$')", "matches is not there"),
    "too long": ("true || " * 200 + "true", "an expression has at most 1024"),
    "too deep": ("(" * 500 + "true" + ")" * 500, ""),
}


@needs
@pytest.mark.parametrize("name", BAD)
def test_refused_with_file_line_and_reason(name: str) -> None:
    source, reason = BAD[name]
    text = HEAD + f'[[policy.decision]]\nname = "r"\naction = "block"\ncel = "{source}"\n'
    with pytest.raises(BadBundle) as caught:
        one(text)
    assert caught.value.detail.startswith(f"a.toml:7: decision.0.cel: {reason}"), caught.value.detail


@needs
def test_a_match_is_of_strings() -> None:
    with pytest.raises(BadBundle, match=r"a\.toml:5: match\.cel: not a condition of strings"):
        one(HEAD + '[policy.match]\ncel = "tenant > 1"\n')
    with pytest.raises(BadBundle, match="context is not there"):
        one(HEAD + '[policy.match]\ncel = "context.x == 1"\n')


@needs
def test_the_longest_expression_on_the_largest_context_ends() -> None:
    source = " && ".join(["context.a + context.b != tenant"] * 29)
    assert len(source) <= MAX_EXPRESSION
    condition = Condition(source, ROW_NAMES)
    assert condition({"tenant": "t", "context": {"a": "x" * 4000, "b": "y" * 4000}}) is True


def test_without_the_extra_a_bundle_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cel", None)
    with pytest.raises(ValueError, match=r"needs the extra cel .*pip install 'tcd\[cel\]'"):
        Condition("true", MATCH_NAMES)
    with pytest.raises(BadBundle, match=r"a\.toml:7: decision\.0\.cel: a CEL condition needs the extra cel"):
        one(HEAD + '[[policy.decision]]\nname = "r"\naction = "block"\ncel = "true"\n')
    one(HEAD)
