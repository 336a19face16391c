"""Bundles: refused whole with file, line and reason; resolved through `extends`; precedence; diff and lint."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tcd.trust import (
    ACTIONS,
    BadBundle,
    Logged,
    PolicySet,
    Risk,
    decide,
    decisions_that_change,
    lint,
    load,
    reachable,
    subjects_that_change,
)
from tcd.trust.policies import glob

BASE = """
[[policy]]
name = "base"
version = 1
[policy.rewrite]
shadow = false
[policy.failure]
on_failure = "closed"

[[policy]]
name = "acme"
version = 2
extends = "base"
mode = "monitor"
[policy.match]
tenant = "acme"
[policy.rewrite]
marking = "delimit"
[[policy.decision]]
name = "distrusted"
when = { distrust = 0.5 }
action = "ask_for_review"
cause = "trust"
"""


def one(text: str) -> PolicySet:
    return load({"a.toml": text})


def test_extends_inherits_sections_and_rows_but_not_the_match() -> None:
    policies = one(BASE)
    acme, other = policies.of({"tenant": "acme"}), policies.of({"tenant": "other"})
    assert acme is not None
    assert other is not None
    assert (acme.name, other.name) == ("acme", "base")
    assert (acme.rewrite().marking, acme.rewrite().shadow) == ("delimit", False)
    assert acme.sections["failure"] == {"on_failure": "closed"}
    assert [row.name for row in acme.table()][-1] == "distrusted"
    assert decide(acme.table(), Risk(distrust=0.7), mode=acme.mode or "enforce").action == "ask_for_review"
    assert decide(acme.table(), Risk(distrust=0.7), mode=acme.mode or "enforce").enforced == "allow"


def test_a_reference_is_of_all_that_is_resolved() -> None:
    before = one(BASE).of({"tenant": "acme"})
    after = one(BASE.replace('"closed"', '"open"')).of({"tenant": "acme"})
    assert before is not None
    assert after is not None
    assert before.ref != after.ref
    assert before.ref.startswith("acme@2#")
    assert len(before.ref.partition("#")[2]) == 12
    assert one(BASE).digest == one(BASE).digest != one(BASE.replace('"closed"', '"open"')).digest


BAD = {
    "syntax": ('[[policy]]\nname = "a"\nversion = \n', "a.toml:3: "),
    "unknown member": ('[[policy]]\nname = "a"\nversion = 1\ncolour = "red"\n', "a.toml:4: colour: "),
    "unknown table": ("[other]\nx = 1\n", "a.toml:1: other is no member"),
    "nothing": ("", "a.toml:1: a bundle has"),
    "bool for a number": ('[[policy]]\nname = "a"\nversion = true\n', "a.toml:3: version: "),
    "nested": ('[[policy]]\nname = "a"\nversion = 1\n\n[policy.av]\nalpha = 2.0\n', "a.toml:6: av.alpha: "),
    "second policy": (
        '[[policy]]\nname = "a"\nversion = 1\n[[policy]]\nname = "b"\nversion = 1\n[policy.match]\nplanet = "x"\n',
        "a.toml:8: match.planet: ",
    ),
    "row": (
        '[[policy]]\nname = "a"\nversion = 1\n[[policy.decision]]\nname = "r"\naction = "explode"\n',
        "a.toml:6: decision.0.action: ",
    ),
    "not monotone": (
        '[[policy]]\nname = "a"\nversion = 1\n[[policy.decision]]\nname = "r"\naction = "block"\nwhen.alarm = false\n',
        "a.toml:4: decision.0: ",
    ),
    "rewrite": (
        '[[policy]]\nname = "a"\nversion = 1\n[policy.rewrite]\nmarking = "bold"\n',
        "a.toml:5: rewrite.marking: marking is not one",
    ),
    "unknown parent": ('[[policy]]\nname = "a"\nversion = 1\nextends = "z"\n', "a.toml:1: policy a extends z"),
    "cycle": (
        '[[policy]]\nname = "a"\nversion = 1\nextends = "b"\n[[policy]]\nname = "b"\nversion = 1\nextends = "a"\n',
        "a.toml:1: policy a extends itself",
    ),
    "twice": (
        '[[policy]]\nname = "a"\nversion = 1\n[[policy]]\nname = "a"\nversion = 2\n',
        "a.toml:4: policy a is already in a.toml:1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_bundle_is_refused_whole_with_file_line_and_reason(name: str) -> None:
    text, begins = BAD[name]
    with pytest.raises(BadBundle) as caught:
        load({"good.toml": BASE.replace('"base"', '"good"').replace('"acme"', '"g2"', 1), "a.toml": text})
    assert caught.value.detail.startswith(begins), caught.value.detail


def named(name: str, match: str = "", priority: int = 0) -> str:
    return f'[[policy]]\nname = "{name}"\nversion = 1\npriority = {priority}\n[policy.match]\n{match}\n'


def test_precedence_is_specificity_then_priority_then_name() -> None:
    policies = one(
        named("all", priority=99)
        + named("glob", 'tenant = "ac*"')
        + named("longer", 'tenant = "acm*"')
        + named("literal", 'tenant = "acme"')
        + named("two", 'tenant = "acme"\nmodel_id = "m"')
        + named("tie-b", 'tenant = "tie"')
        + named("tie-a", 'tenant = "tie"')
        + named("tie-first", 'tenant = "tie2"', 1)
        + named("a-later", 'tenant = "tie2"')
    )
    expected = {"x": "all", "acx": "glob", "acmx": "longer", "acme": "literal", "tie": "tie-a", "tie2": "tie-first"}
    for tenant, name in expected.items():
        found = policies.of({"tenant": tenant, "model_id": "other"})
        assert found is not None
        assert found.name == name
    found = policies.of({"tenant": "acme", "model_id": "m"})
    assert found is not None
    assert found.name == "two"


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("a*", "abc", True),
        ("*c", "abc", True),
        ("a*c", "abc", True),
        ("a*b*c", "aXbYc", True),
        ("a*", "ba", False),
        ("ab*ba", "aba", False),
        ("*", "", True),
        ("a.c", "abc", False),
        ("a*b", "a\nb", True),
    ],
)
def test_globs_are_anchored(pattern: str, value: str, expected: bool) -> None:  # noqa: FBT001
    assert glob(pattern, value) is expected


def test_the_dry_run_names_what_changes_and_nothing_else() -> None:
    old, new = one(BASE), one(BASE.replace("distrust = 0.5", "distrust = 0.9").replace('mode = "monitor"', ""))
    subjects = [{"tenant": "acme"}, {"tenant": "other"}]
    [changed] = subjects_that_change(old, new, subjects)
    assert changed.subject == {"tenant": "acme"}
    assert set(changed.changes) == {"mode", "decision.distrusted"}
    log = [Logged(s, Risk(distrust=d, trigger=t)) for s in subjects for d in (0.0, 0.7, 0.95) for t in (False, True)]
    found = {(r.index, r.before, r.after, r.enforced_after, r.milder) for r in decisions_that_change(old, new, log)}
    assert found == {
        (1, "block", "block", "block", False),
        (2, "ask_for_review", "allow", "allow", True),
        (3, "block", "block", "block", False),
        (4, "ask_for_review", "ask_for_review", "ask_for_review", False),
        (5, "block", "block", "block", False),
    }
    assert decisions_that_change(old, old, log) == []


def test_lint() -> None:
    rows = '[[policy.decision]]\nname = "trigger"\nwhen = { trigger = true }\naction = "degrade"\n'
    always = '[[policy.decision]]\nname = "x"\naction = "throttle"\n'
    policies = one(
        named("a", 'tenant = "t"', 1)
        + named("b", 'tenant = "t"')
        + rows
        + named("c", 'tenant = "u"')
        + '[policy.failure]\non_failure = "open"\n'
        + always
    )
    assert {(r.policy, r.code) for r in lint(policies)} == {
        ("b", "shadowed"),
        ("b", "trigger_not_blocked"),
        ("c", "fails_open"),
        ("c", "always"),
        ("c", "no_default"),
    }
    assert all(r.file == "a.toml" and r.line > 1 for r in lint(policies) if r.policy != "a")
    assert lint(one(named("d"))) == []


def test_every_action_is_reachable_by_a_table() -> None:
    rows = "".join(
        f'[[policy.decision]]\nname = "r{i}"\nwhen = {{ score = 0.{i} }}\naction = "{action}"\n'
        for i, action in enumerate(ACTIONS)
    )
    [policy] = list(one(named("all") + rows))
    assert reachable(policy) == set(ACTIONS)


def test_the_bundles_of_the_page_load() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "policies.md").read_text("utf-8")
    first, conditions = re.findall(r"(?ms)^```toml\n(.*?)^```", page)
    policies = one(first)
    found = policies.of({"tenant": "acme", "model_id": "llama-3"})
    assert found is not None
    assert (found.name, found.rewrite().shadow) == ("acme", False)
    assert decide(found.table(), Risk(distrust=0.6)).action == "ask_for_review"
    assert decide(found.table(), Risk(pressure=1.2, score=0.6)).action == "throttle"
    assert lint(policies) == []
    if importlib.util.find_spec("cel") is None:
        pytest.skip("cel: pip install tcd[cel]")
    [hot] = list(one(conditions))
    assert hot.applies({"tenant": "acme", "lang": "de"})
    assert not hot.applies({"tenant": "other", "lang": "de"})
