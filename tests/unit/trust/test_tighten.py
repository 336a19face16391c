"""What a bundle loosens: exact on tables, member by member, for everybody whom two bundles tell apart."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from tcd.trust import ACTIONS, SEVERITY, Base, Defaults, PolicySet, Risk, decide, load, loosenings
from tcd.trust.engine import FLAGS, RISKS

HEAD = '[[policy]]\nname = "p"\nversion = 1\n'


def one(text: str) -> PolicySet:
    return load({"a.toml": text})


PAIRS = {
    "mode": ('mode = "enforce"\n', 'mode = "monitor"\n', "mode"),
    "failure": (
        '[policy.failure]\non_failure = "closed"\n',
        '[policy.failure]\non_failure = "static"\n',
        "decision.failed",
    ),
    "floor": ("[policy.detector]\nentropy_floor = 0.5\n", "", "detector.entropy_floor"),
    "threshold": (
        "[policy.detector]\nhysteresis_on = 0.95\n",
        "[policy.detector]\nhysteresis_on = 0.99\n",
        "detector.hysteresis_on",
    ),
    "cap": ("[policy.routing]\ntop_p_max = 0.5\n", "[policy.routing]\ntop_p_max = 0.6\n", "routing.normal.top_p_max"),
    "cap of a tier": ("[policy.routing.strict]\nmax_tokens = 0\n", "", "routing.strict.max_tokens"),
    "tier": (
        '[policy.routing.tier_of]\nthrottle = "strict"\nask_for_review = "strict"\n',
        "",
        "routing.tier_of.throttle",
    ),
    "receipt": ("", "[policy.receipt]\nenable = false\n", "receipt.enable"),
    "shadow": ("[policy.rewrite]\nshadow = false\n", "", "rewrite.shadow"),
    "zones": ("", '[policy.rewrite]\nzones = "operator"\n', "rewrite.zones"),
    "roles": ("", '[policy.rewrite]\ndata_roles = ["tool"]\n', "rewrite.data_roles"),
    "row": (
        '[[policy.decision]]\nname = "r"\nwhen = { score = 0.5, distrust = 0.2 }\naction = "throttle"\n',
        '[[policy.decision]]\nname = "s"\nwhen = { score = 0.6 }\naction = "block"\n',
        "decision.r",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_each_direction(name: str) -> None:
    strict, mild, what = PAIRS[name]
    found = loosenings(one(HEAD + strict), one(HEAD + mild), Base())
    assert any(f.what.startswith(what) for f in found), found
    if name != "row":
        assert loosenings(one(HEAD + mild), one(HEAD + strict), Base()) == []


def test_a_bundle_against_the_settings_alone() -> None:
    assert loosenings(None, one(HEAD), Base()) == []
    assert loosenings(one(HEAD), None, Base()) == []
    assert loosenings(None, one(HEAD + 'mode = "monitor"\n'), Base())
    assert loosenings(None, one(HEAD + 'mode = "monitor"\n'), Base(Defaults(mode="monitor"))) == []


def named(name: str, match: str, rest: str = "") -> str:
    return f'[[policy]]\nname = "{name}"\nversion = 1\n{rest}[policy.match]\n{match}\n'


def test_whom_another_policy_reaches_is_seen() -> None:
    old = named("all", "", 'mode = "enforce"\n') + named("acme", 'tenant = "acme*"')
    # a more specific policy takes some of acme's subjects away into monitor mode
    new = old + named("hole", 'tenant = "acme*"\nmodel_id = "*-beta"', 'mode = "monitor"\n')
    [found] = loosenings(one(old), one(new), Base())
    assert found.subject["tenant"].startswith("acme")
    assert found.subject["model_id"].endswith("-beta")
    assert (found.before.partition("@")[0], found.after.partition("@")[0]) == ("acme", "hole")
    assert loosenings(one(new), one(old), Base()) == []
    both = named("a", 'tenant = "ac*"', 'mode = "enforce"\n') + named("b", 'tenant = "*me"', 'mode = "enforce"\n')
    assert loosenings(
        one(both), one(both.replace('"b"\nversion = 1\nmode = "enforce"', '"b"\nversion = 1\nmode = "monitor"')), Base()
    )


def test_what_cannot_be_compared_counts_as_looser() -> None:
    if importlib.util.find_spec("cel") is None:
        pytest.skip("cel: pip install tcd[cel]")
    old = named("a", "cel = \"tenant == 'x'\"")
    assert loosenings(one(old), one(old), Base()) == []
    [found] = loosenings(one(old), one(old + named("b", 'tenant = "y"')), Base())
    assert "cannot be compared" in found.what
    many = "".join(named(f"p{i}", f'tenant = "t{i}"\nuser = "u{i}"\nmodel_id = "m{i}"') for i in range(60))
    [found] = loosenings(one(many), one(many + HEAD), Base())
    assert "226981 kinds of subjects are too many" in found.what


def test_a_thousand_tenants_can_be_compared() -> None:
    many = "".join(named(f"p{i}", f'tenant = "t{i}"') for i in range(1000)) + named("all", "")
    milder = many.replace('name = "p7"\nversion = 1\n', 'name = "p7"\nversion = 1\nmode = "monitor"\n')
    [found] = loosenings(one(many), one(milder), Base())
    assert found.subject["tenant"] == "t7"
    assert [p.name for p in [one(many).of({"tenant": t}) for t in ("t7", "x")] if p] == ["p7", "all"]


ROWS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(RISKS), st.integers(0, 3).map(lambda i: i / 3), max_size=2),
        st.sampled_from(ACTIONS),
    ),
    max_size=4,
)
LEVELS = st.integers(0, 4).map(lambda i: i / 4)
RISK = st.builds(
    Risk,
    **{name: st.booleans() if name in FLAGS else st.integers(0, 2) if name == "tier" else LEVELS for name in RISKS},
)


def bundle(rows: Any) -> PolicySet:
    made = []
    for index, (when, action) in enumerate(rows):
        floors = {n: True if n in FLAGS else round(f * 2) / 1.0 if n == "tier" else f for n, f in when.items()}
        inner = ", ".join(f"{n} = {str(f).lower()}" for n, f in floors.items())
        made.append(f'[[policy.decision]]\nname = "r{index}"\nwhen = {{ {inner} }}\naction = "{action}"\n')
    return one(HEAD + "".join(made))


@seed(4)
@settings(max_examples=60, deadline=None, database=None)
@given(ROWS, ROWS, st.lists(RISK, min_size=30, max_size=30))
def test_the_comparison_of_tables_is_sound_and_complete(old: Any, new: Any, risks: list[Risk]) -> None:
    """Not looser: then no risk is decided milder. Looser: then one is, the least risk of the row that is named."""
    before, after = bundle(old), bundle(new)
    [p], [q] = list(before), list(after)
    found = loosenings(before, after, Base())
    milder = [r for r in risks if SEVERITY[decide(q.table(), r).action] < SEVERITY[decide(p.table(), r).action]]
    if not found:
        assert milder == []
    for loosening in found:
        row = next(row for row in p.table() if loosening.what.startswith(f"decision.{row.name}:"))
        at = dataclasses.replace(Risk(), **row.when)
        assert SEVERITY[decide(q.table(), at).action] < SEVERITY[decide(p.table(), at).action]
