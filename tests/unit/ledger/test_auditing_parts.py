"""Parts of an audit by themselves: decisions that are signed and wrong, memory that spills, figures, the page."""

from __future__ import annotations

import copy
import json
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tcd.bench.audit.synthetic import Writer, keyset
from tcd.bench.audit.writing import write as write_log
from tcd.bench.controller.shim import synthetic_assets
from tcd.ledger.auditing.budgets import Budgets
from tcd.ledger.auditing.decisions import Assets, Decisions
from tcd.ledger.auditing.page import render
from tcd.ledger.auditing.run import Asked, run
from tcd.ledger.auditing.sources import Row, sqlite_store
from tcd.ledger.auditing.spill import Spill
from tcd.ledger.auditing.statistics import MOST_NAMES, OTHERS, TIMES, Histogram, Statistics, Times, counted
from tcd.ledger.auditing.tips import Tips
from tcd.ledger.findings import Audit
from tcd.ledger.sqlite import FILE
from tcd.receipts import Receipt, VerifyPolicy
from tcd.receipts.records import Risk
from tcd.risk_av.exact import hex64, unhex64
from tcd.trust import Defaults, load
from tests.unit.ledger.drills import Ledger, make

HEX = "3fe0000000000000"  # 0.5


def row(at: int, receipt: Receipt) -> Row:
    chain, prev = bytes.fromhex(receipt.chain.removeprefix("sha256:")), bytes.fromhex(receipt.prev)
    return Row(
        at, receipt.head, receipt.sig, receipt.kid, receipt.typ, receipt.tenant, chain, receipt.seq, prev,
        receipt.ts_us, receipt.body,
    )  # fmt: skip


def recomputed(change: Callable[[int, dict[str, Any]], None], assets: Assets | None = None) -> tuple[Audit, Decisions]:
    """An honest session of decisions 0..17 of which `change` may change members, as an issuer could that signs them."""
    audit = Audit()
    tips, budgets = Tips(audit), Budgets(audit)
    made = Decisions(audit, assets or Assets.of(calibrations=synthetic_assets()), budgets)
    number = 0
    for at, receipt in enumerate(Writer(3).session(0)):
        body = copy.deepcopy(json.loads(receipt.body))
        here = row(at, receipt)
        tip = tips.link(here)
        if body["typ"] == "open":
            made.opened(body, tip)
            if body["open"]["scope"] == "epoch":
                budgets.opened(here, body)
        elif body["typ"] == "decision":
            change(number, body)
            rejected = made.decided(here, body, tip)
            budgets.decided(here, body["av"], rejected=rejected)
            number += 1
        elif body["typ"] == "close":
            change(number, body)
            made.step(f"receipt {at}", body["eproc"])
    return audit, made


def at(number: int, **members: Any) -> Callable[[int, dict[str, Any]], None]:
    """Change members (`part__name`) of one decision."""

    def change(here: int, body: dict[str, Any]) -> None:
        if here == number and body["typ"] == ("close" if number == 18 else "decision"):
            for name, value in members.items():
                part, _, member = name.partition("__")
                body[part][member] = value(body[part][member]) if callable(value) else value

    return change


def test_an_honest_session_is_recomputed_whole() -> None:
    audit, made = recomputed(lambda *_: None)
    assert audit.findings == []
    assert (made.counts["trigger"], made.counts["p-value"], made.counts["e-process step"]) == (18, 17, 2)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        # a session of the null whose p is above its level
        ("a trigger without evidence", at(5, decision__trigger=True), {"trigger_mismatch", "decision_mismatch"}),
        ("evidence without a trigger", at(17, av__p=hex64(1e-9)), {"trigger_mismatch"}),
        ("a p-value that rises", at(9, av__p=hex64(1.0)), {"p_mismatch"}),
        ("a p-value of another table", at(9, av__p=lambda p: hex64(unhex64(p) * 0.99)), {"p_mismatch"}),
        ("a level of its own", at(4, av__alloc=HEX), {"level_mismatch"}),
        ("a budget that was spent less", at(4, av__spent=hex64(0.0)), {"level_mismatch"}),
        ("a budget that is overspent", at(4, av__spent=HEX), {"level_mismatch", "budget_overspent"}),
        ("wealth", at(4, av__wealth=HEX), {"level_mismatch"}),
        ("a step of the e-process", at(18, eproc__e=HEX), {"replay_mismatch"}),
        ("a latch of the e-process", at(18, eproc__trigger=True), {"replay_mismatch"}),
        ("a step that was left out", at(18, eproc__step=2), set()),
    ],
)
def test_what_is_signed_and_does_not_follow(name: str, change: Any, expected: set[str]) -> None:
    audit, _ = recomputed(change)
    assert {finding.code for finding in audit.findings} == expected, (name, audit.findings)
    assert all(re.fullmatch(r"receipt \d+", finding.where) for finding in audit.findings)


def test_decisions_of_many_kinds_are_counted_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are counted by kind and put together later: the figures are those of counting each at once."""

    def counts() -> dict[str, Any]:
        made = Statistics()
        for session in range(3):
            for at, receipt in enumerate(Writer(5).session(session)):
                body = json.loads(receipt.body)
                if body["typ"] == "decision":
                    body["model"]["id"] = f"m{at % 5}"
                    body["guarantee"] = f"supfdr<=0.05|unit=session|epoch={at}" if at % 3 else "none"
                    body["decision"]["cause"] = ("", "policy", "degraded")[at % 3]
                made.record(row(at, receipt), body)
        made.finish()
        return made.to_json() | {"coverage": dict(made.coverage)}

    monkeypatch.setattr("tcd.ledger.auditing.statistics._KINDS", 0)
    at_once = counts()
    monkeypatch.undo()
    assert counts() == at_once
    assert at_once["coverage"]["decisions"] == sum(at_once["models"].values()) == 54
    assert at_once["coverage"]["scored"] == 54 - at_once["causes"]["degraded"]


def test_memory_of_an_audit_is_bounded_however_many_receipts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small bounds, so that few receipts fill them: four times as many receipts take no more."""
    for name, most in (("spill.KEPT", 16), ("sources.PAGE", 64), ("decisions._REMEMBERED", 64)):
        monkeypatch.setattr(f"tcd.ledger.auditing.{name}", most)
    peaks = []
    # the first one fills what the program keeps for good
    for count in (200, 400, 1600):
        folder = tmp_path / str(count)
        write_log(folder, count)
        asked = Asked(VerifyPolicy(keyset()), assets=Assets.of(calibrations=synthetic_assets()))
        with sqlite_store(folder / FILE) as store:
            tracemalloc.start()
            found = run(store, asked)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert found.audit.ok
        assert found.audit.counts["chains"] > 16
    assert peaks[2] < 1.15 * peaks[1] + 64 * 1024, peaks


def test_without_the_calibration_p_values_are_not_recomputed_and_that_is_said() -> None:
    audit, made = recomputed(lambda *_: None, Assets())
    assert audit.findings == []
    assert (made.counts["p-value"], made.counts["p-value absent"]) == (0, 17)


POLICY = load({"p.toml": '[[policy]]\nname = "all"\nversion = 1\n'})


def by_policy(**members: Any) -> Callable[[int, dict[str, Any]], None]:
    """Decisions by a table that see a risk; the fifth has other members."""
    (policy,) = POLICY
    risk = Risk(tier=0, alarm=False, floor=False, failed=False, spent=0.0, distrust=0.0, pressure=0.0).to_json()

    def change(here: int, body: dict[str, Any]) -> None:
        if body["typ"] == "decision":
            body["risk"] = dict(risk)
            body["policy"] = policy.digest
            if here == 4:
                for name, value in members.items():
                    part, _, member = name.partition("__")
                    body[part][member] = value

    return change


@pytest.mark.parametrize(
    ("members", "wrong"),
    [
        ({}, False),
        ({"risk__alarm": True}, True),
        ({"risk__alarm": True, "decision__verdict": True}, True),
        (
            {
                "risk__alarm": True, "decision__verdict": True, "decision__action": "degrade",
                "decision__enforced": "degrade", "decision__cause": "detector",
            },
            False,
        ),
        ({"decision__action": "block", "decision__enforced": "block"}, True),
        ({"decision__cause": "slo"}, True),
        ({"decision__enforced": "degrade"}, True),
    ],
)  # fmt: skip
def test_actions_follow_from_the_policy(members: dict[str, Any], *, wrong: bool) -> None:
    assets = Assets.of(policies=POLICY, defaults=Defaults(), config="sha256:" + "d" * 64)
    audit, made = recomputed(by_policy(**members), assets)
    assert bool(audit.findings) is wrong, audit.findings
    assert {(f.code, f.where) for f in audit.findings} <= {("decision_mismatch", "receipt 6")}
    assert made.counts["action"] == 18
    # under other settings, or without the bundle, it cannot be told
    for less in (replace(assets, config="sha256:" + "e" * 64), Assets()):
        _, made = recomputed(by_policy(**members), less)
        assert (made.counts["action"], made.counts["action absent"]) == (0, 18)


class Entry(msgspec.Struct, array_like=True):
    n: int


def test_what_spills_is_found_again_and_memory_is_bounded() -> None:
    rng = np.random.default_rng(0)
    spill: Spill[Entry] = Spill(Entry, kept=64)
    model: dict[bytes, int] = {}
    for _ in range(20_000):
        key = int(rng.integers(0, 3000)).to_bytes(4, "big")
        if rng.random() < 0.5:
            found = spill.get(key)
            assert (None if found is None else found.n) == model.get(key)
            if found is not None:
                found.n += 1
                model[key] += 1
        else:
            model[key] = int(rng.integers(0, 1000))
            spill.put(key, Entry(model[key]))
        assert len(spill._near) <= 64
    assert len(spill) == len(model)
    assert [(key, entry.n) for key, entry in spill.items()] == sorted(model.items())
    spill.close()


def test_an_audit_that_spills_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make(tmp_path / "ledger")
    whole = ledger.audit().to_json()
    monkeypatch.setattr("tcd.ledger.auditing.spill.KEPT", 4)
    monkeypatch.setattr(Spill.__init__, "__kwdefaults__", {"kept": 4})
    monkeypatch.setattr("tcd.ledger.auditing.sources.PAGE", 7)
    small = ledger.audit().to_json()
    for report in (whole, small):
        report["audit"]["seconds"] = report["audit"]["began_us"] = 0
    assert small == whole


def test_quantiles_are_within_a_bin() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 10_000_000, 5000).tolist()
    found = Histogram()
    for value in (*values, 0, 1):
        found.add(value)
    for share in (0.5, 0.9, 0.99):
        exact = float(np.quantile(values, share))
        assert exact * 0.99 <= found.quantile(share) <= exact * 1.25
    assert found.quantile(1.0) == max(values)
    assert Histogram().quantile(0.5) == 0.0


def test_a_series_over_time_keeps_its_sums_while_its_bins_double() -> None:
    times = Times()
    for second in range(0, 100_000, 7):
        times.add(1_000_000 * second, ("decisions",))
    found = times.to_json()
    assert sum(found["series"]["decisions"]) == len(range(0, 100_000, 7))
    assert len(found["series"]["decisions"]) <= TIMES
    assert found["width_s"] * TIMES >= 100_000
    # before the beginning is the beginning
    times.add(-5, ("gaps",))
    assert times.to_json()["series"]["gaps"][0] == 1


def test_names_are_bounded() -> None:
    statistics = Statistics()
    for number in range(MOST_NAMES + 10):
        counted(statistics.tenants, f"tenant {number}")
    assert len(statistics.tenants) == MOST_NAMES + 1
    assert statistics.tenants[OTHERS] == 10


class _Page(HTMLParser):
    """Every opened element is closed; nothing is loaded; each figure says what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> _Page:
    page = _Page()
    page.feed(text)
    assert page.open == []
    return page


def test_the_page_is_self_contained_and_escapes(tmp_path: Path) -> None:
    ledger: Ledger = make(tmp_path / "ledger")
    index = ledger.decision(3)
    ledger.do("UPDATE receipt SET sig = zeroblob(64) WHERE idx = :at", at=index)
    report = ledger.audit().to_json()
    report["statistics"]["tenants"] = {"<script>alert(1)</script>": 3}
    text = render(report)
    page = parsed(text)
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "link", "img", "iframe", "object", "form"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not re.search(r"https?:|url\(|@import", text)
    figures = [attrs for tag, attrs in page.seen if tag == "svg" and attrs.get("role") == "img"]
    assert len(figures) == 7
    assert all(attrs["aria-labelledby"] for attrs in figures)
    assert f"receipt {index}" in text
    assert "1 finding" in text
    assert sum(tag == "rect" and attrs.get("class") == "wrong" for tag, attrs in page.seen) == 1


def test_a_page_of_nothing(tmp_path: Path) -> None:
    """A ledger without a receipt."""
    ledger = make(tmp_path / "ledger", writer=None, seed=0)
    ledger.do(
        "DELETE FROM receipt", "DELETE FROM body", "DELETE FROM chain", "DELETE FROM checkpoint", "DELETE FROM event"
    )
    report = ledger.audit().to_json()
    assert report["ok"]
    assert "No check failed." in render(report)
    parsed(render(report))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
