"""The decision writer's bytes are those of the plain way, and both refuse the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcd.contract import COMPONENTS, DECODERS, TIERS
from tcd.native import build
from tcd.native.decision import Filler
from tcd.native.library import open_library
from tcd.receipts import ChainState, Issuer, SigningKey, canonical, filling, jcs, records, segment, segments
from tcd.receipts.body import NO_PREV, check_body, head_of
from tcd.receipts.decisions import Av, Numbers, Subject, route_text
from tcd.receipts.errors import BadString, LimitExceeded, SchemaMismatch
from tcd.receipts.filling import Objects
from tcd.receipts.members import ACTIONS, CAUSES
from tcd.risk_av import EprocSnapshot, Reservation
from tcd.risk_av.exact import Scaled, hex64

SIGNALS = ("trace", "entropy", "spectrum", "features")
ISSUER = Issuer(SigningKey(bytes(range(32))), origin='tcd "é" \U0001f600')
CONFIG, POLICY = "sha256:" + "a" * 64, "sha256:" + "b" * 64
REALS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, -0.0, 1.0, -1e300, 5e-324, 1.7e308])
)
COUNTS = st.one_of(st.integers(0, 5), st.integers(0, 2**53 - 1))
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=16)
DIGESTS = st.binary(min_size=32, max_size=32).map(lambda raw: "sha256:" + raw.hex())
HEADS = DIGESTS.filter(lambda digest: digest[7:] != NO_PREV)
FLOAT32 = st.floats(-(2.0**99), 2.0**99, width=32)


@st.composite
def snapshots(draw: Any) -> EprocSnapshot:
    scaled = st.builds(Scaled, st.floats(1.0, 1.9), st.integers(-2000, 2000))
    return EprocSnapshot(
        *(draw(DIGESTS), draw(DIGESTS), draw(COUNTS), draw(COUNTS), draw(DIGESTS), draw(st.floats(0, 1))),
        *(draw(scaled), draw(scaled), draw(scaled), draw(st.floats(1, 1e6)), draw(st.booleans())),
        *(
            draw(COUNTS),
            draw(COUNTS),
            draw(COUNTS),
            draw(st.floats(0, 1)),
            draw(st.floats(0, 1)),
            draw(st.floats(0, 1)),
        ),
    )


@st.composite
def reservations(draw: Any) -> Reservation:
    counts = [draw(COUNTS) for _ in range(4)]
    return Reservation(
        *(draw(NAMES), draw(NAMES), counts[0], counts[1], counts[2], draw(st.floats(0, 1)), 0.0, counts[3]),
        *(draw(st.floats(0, 1)), draw(st.floats(0, 1)), draw(st.booleans()), False),
    )


def risks() -> st.SearchStrategy[records.Risk]:
    flags = [st.booleans()] * 3
    return st.builds(records.Risk, st.integers(0, 2), *flags, *[st.floats(0, 1)] * 3)


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    return {
        "chain": ChainState(draw(DIGESTS), draw(st.integers(1, 2**40)), draw(HEADS)[7:], False, draw(COUNTS)),
        "tenant": draw(NAMES.filter(bool)),
        "model": records.Model(*(draw(NAMES) for _ in range(4))),
        "request": draw(st.dictionaries(NAMES, st.one_of(NAMES, REALS, st.lists(REALS, max_size=3)), max_size=4)),
        "answer": {"av": {"a": draw(REALS), "details": {}}, "b": draw(REALS)},
        "caller": draw(st.one_of(st.just(""), DIGESTS)),
        "decision": records.Decision(
            *(draw(st.booleans()), draw(st.booleans()), draw(REALS), draw(REALS)),
            *(draw(st.sampled_from(ACTIONS)), draw(st.sampled_from(ACTIONS)), draw(st.sampled_from(CAUSES))),
            *(draw(COUNTS), draw(COUNTS), tuple(draw(st.lists(NAMES.filter(bool), max_size=3)))),
        ),
        "route": records.Route(
            *(draw(st.floats(0, 1000)), draw(st.floats(0, 1)), draw(st.integers(0, 10**7))),
            *(draw(st.sampled_from(DECODERS)), draw(st.sampled_from(TIERS))),
        ),
        "components": {
            name: records.Component(draw(st.booleans()), draw(REALS), draw(REALS), draw(REALS))
            for name in (*COMPONENTS, "multivariate")
        },
        "reservation": draw(st.one_of(st.none(), reservations())),
        "p": draw(st.floats(0, 1)),
        "p_floor": draw(st.floats(0, 1)),
        "sup": (draw(REALS), draw(REALS)),
        "unit": draw(st.sampled_from(["session", "request", "block"])),
        "eproc": draw(snapshots()),
        "windows": {name: np.array(draw(st.lists(FLOAT32, max_size=9)), np.float32) for name in SIGNALS},
        "salts": draw(st.binary(min_size=64, max_size=64)),
        "nonce": draw(st.binary(min_size=16, max_size=16)),
        "guarantee": draw(NAMES.filter(bool)),
        "assets": tuple(draw(st.integers(0, 2**64 - 1)) for _ in range(3)),
        "risk": draw(st.one_of(st.none(), risks())),
        "ts_us": draw(COUNTS),
    }


def plainly(case: dict[str, Any]) -> Any:
    """The receipt as the builders of members and the issuer make it."""
    reservation = case["reservation"]
    if reservation is None:
        av = records.av_off("stream")
    else:
        av = records.av_members(reservation, None, unit=case["unit"], p_floor=case["p_floor"], sup=case["sup"])
        av["p"] = hex64(case["p"])
    present = [(name, values) for name, values in case["windows"].items() if values.size]
    salts = [case["salts"][16 * i : 16 * i + 16] for i in range(4)]
    members = records.decision_members(
        subject="sha256:" + "c" * 64,
        model=case["model"],
        req=case["caller"] or jcs.digest(case["request"]),
        comp=jcs.digest(case["answer"]),
        e=jcs.digest(case["answer"]["av"]),
        decision=case["decision"],
        route=case["route"],
        components=case["components"],
        av=av,
        eproc=case["eproc"],
        witness=[segment(name, values, salt) for (name, values), salt in zip(present, salts, strict=False)],
        guarantee=case["guarantee"],
        assets=case["assets"],
        evidence="caller" if case["caller"] else "shim",
        risk=case["risk"],
    )
    return ISSUER.issue(
        chain=case["chain"],
        typ="decision",
        tenant=case["tenant"],
        config=CONFIG,
        policy=POLICY,
        members=members,
        ts_us=case["ts_us"],
        nonce=case["nonce"],
    )


WRITER = ISSUER.writer(config=CONFIG, policy=POLICY)


def fast(case: dict[str, Any], writer: Any = WRITER) -> Any:
    decision, reservation = case["decision"], case["reservation"]
    ts_us = max(case["ts_us"], case["chain"].ts_us)
    off = reservation is None
    names = (*COMPONENTS, "multivariate")
    parts = [case["components"][name] for name in names]
    head, body = writer.write(
        case["chain"],
        ts_us=ts_us,
        random=case["nonce"] + case["salts"],
        subject=Subject.of(case["model"], "sha256:" + "c" * 64, case["tenant"]),
        objects=Objects(None if case["caller"] else jcs.encode(case["request"]), jcs.encode(case["answer"]), 1),
        verdict=(
            *(decision.action, decision.enforced, decision.cause, decision.tags),
            *(decision.trigger, decision.verdict),
        ),
        numbers=Numbers(
            [
                *(value for part in parts for value in (part.severity, part.p, part.z)),
                *(decision.score, decision.threshold, 1.0 if off else case["p"]),
                *((-1e300, -1e300) if off else case["sup"]),
            ],
            decision.step,
            decision.status,
            tuple(part.triggered for part in parts),
        ),
        route=route_text(case["route"]),
        av=Av.of(reservation, stream="stream", unit=case["unit"], p_floor=case["p_floor"]),
        eproc=case["eproc"],
        windows=tuple(case["windows"].values()),
        guarantee=case["guarantee"],
        assets=case["assets"],
        caller=case["caller"],
        risk=case["risk"],
    )
    return ISSUER.seal(body, head=head, chain=case["chain"], typ="decision", tenant=case["tenant"], ts_us=ts_us)


@pytest.fixture(params=["kernels", "python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways to fill a template."""
    if request.param == "python":
        monkeypatch.setattr(filling, "_filler", lambda: None)
    elif build.compiler() is None:
        pytest.skip("compiler: there is no C compiler")
    else:
        filler = Filler(open_library(build.ensure()))
        monkeypatch.setattr(filling, "_filler", lambda: filler)


@pytest.mark.usefixtures("way")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(cases())
def test_the_same_bytes(case: dict[str, Any]) -> None:
    receipt = fast(case)
    assert receipt == plainly(case)
    assert receipt.head == head_of(receipt.body)
    check_body(canonical.parse(receipt.body))


@pytest.mark.usefixtures("way")
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(cases(), st.sampled_from(["guarantee", "tenant", "model", "score", "step", "assets", "tags", "caller", "chain"]))
def test_what_the_schema_refuses_is_refused(case: dict[str, Any], what: str) -> None:
    decision = case["decision"]
    bad: dict[str, Any] = {
        "guarantee": "\x01",
        "tenant": "x" * 129,
        "model": records.Model("m" * 129),
        "score": records.Decision(*(True, True, float("nan"), 0.0, "allow", "allow", "", 0)),
        "step": records.Decision(*(True, True, 0.0, 0.0, "allow", "allow", "", 2**53)),
        "tags": records.Decision(*(True, True, 0.0, 0.0, "allow", "allow", "", 0, 0, ("",))),
        "assets": (0, 0, 2**64),
        "caller": "nobody",
        "chain": ChainState("sha256:" + "a" * 64, 5, NO_PREV),
    }
    name = "decision" if what in {"score", "step", "tags"} else what
    assert decision is not bad[what]
    case = {**case, name: bad[what]}
    for made in (fast, plainly):
        with pytest.raises((SchemaMismatch, BadString, LimitExceeded, ValueError)):
            made(case)


def test_segments_as_text() -> None:
    rng = np.random.default_rng(5)
    for size in (1, 2, 15, 16, 17, 255, 4096):
        values = (rng.normal(0, 10.0 ** rng.integers(-20, 20), size)).astype(np.float32)
        values[rng.random(size) < 0.2] = rng.choice([0.0, -0.0, values[0]])
        salts = rng.bytes(32)
        text = segments.written(
            (("trace", values), ("entropy", values[:0]), ("features", values.reshape(1, -1))), salts
        )
        plain = [segment("trace", values, salts[:16]), segment("features", values, salts[16:])]
        assert text.encode() == canonical.write(plain)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_segments_refuse_what_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        segments.written((("trace", np.array([1.0, value, 2.0], np.float32)),), bytes(16))


def test_segments_refuse_unknown_and_double_names() -> None:
    one = np.ones(3, np.float32)
    for signals, salts in (((("x", one),), bytes(16)), ((("trace", one),) * 2, bytes(32)), ((("trace", one),), b"")):
        with pytest.raises(ValueError, match="salt"):
            segments.written(signals, salts)
