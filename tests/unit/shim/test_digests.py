"""The objects of a record have RFC 8785 digests for whatever a request or an answer can hold, by either way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar_api.digests import canonical, components_json, objects, request_json
from sidecar_api.schemas import Av, Component, Components, DiagnoseRequest, Input, Multivariate
from tcd.native import build
from tcd.native.decision import Filler, Refused
from tcd.native.library import open_library
from tcd.receipts import filling, jcs
from tcd.receipts.filling import COMPONENTS, E_OBJECT, REQUEST, Objects

FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=64),
    st.floats(-1e3, 1e3),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 10.0, 100.0, 1e-4, 1e-5, 1e-6, 1e-7, 1e15, 1e16, 1e20, 1e21, 1e22, 5e-324]),
    st.integers(-(10**6), 10**6).map(float),
    st.floats(-1, 1, width=32),
)
TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["1.0", "1.0,", "1e5", "-0", "\u007f", "\U0001f600", "\ue000", "a\\b", '"'])
)
SCALARS = st.one_of(TEXTS, FLOATS, st.booleans(), st.none(), st.integers(-(2**53) + 1, 2**53 - 1))

ZEROS, RANDOM = [0.0] * filling.REALS, bytes(filling.RANDOM_BYTES)


@pytest.fixture(scope="module")
def filler() -> Filler:
    if build.compiler() is None:
        pytest.skip("compiler: there is no C compiler")
    return Filler(open_library(build.ensure()))


def digests(filler: Filler, template: str, exact: Objects, raw: Objects) -> set[str]:
    """What a record says by the kernels, which may refuse a text, and by Python."""
    found = {filling.by_python(template.encode(), exact, filling.NO_WINDOWS, ZEROS, RANDOM)[1].decode()}
    try:
        made = filler(template.encode(), *raw, filling.NO_WINDOWS, ZEROS, RANDOM)
    except Refused:
        assert raw.request is not None
        assert not raw.request.isascii() or b"\\" in raw.request
        made = filler(template.encode(), *exact, filling.NO_WINDOWS, ZEROS, RANDOM)
    return found | {made[1].decode()}


@settings(max_examples=500, deadline=None)
@given(st.booleans(), FLOATS, FLOATS, st.dictionaries(st.sampled_from(["z", "a", "trace_z_low"]), FLOATS, max_size=3))
def test_components(triggered: Any, severity: float, p: float, details: dict[str, float]) -> None:
    value = Component(triggered=triggered, severity=severity, p_value=p, details=details)
    assert canonical(value) == jcs.encode(msgspec.to_builtins(value))


@settings(max_examples=500, deadline=None)
@given(
    st.lists(FLOATS, max_size=6),
    st.one_of(st.none(), FLOATS),
    st.dictionaries(TEXTS, SCALARS, max_size=5),
    TEXTS,
    TEXTS,
    st.one_of(st.none(), st.integers(0, 2**53 - 1)),
)
@example([], None, {"a": "10.0"}, "x", "y", None)
@example([-0.0], None, {}, "x", "y", None)
@example([], None, {"\ue000": 1, "\U0001f600": 2}, "x", "y", 0)
@example([], None, {"k": "1.0"}, "x.0", "y", 0)
def test_requests(
    filler: Filler,
    trace: list[float],
    entropy: float | None,
    context: dict[str, Any],
    tenant: str,
    session: str,
    step: int | None,
) -> None:
    request = DiagnoseRequest(
        trace_vector=trace, entropy=entropy, context=context, tenant=tenant, session=session, step_id=step
    )
    exact = Objects(request_json(request, exact=True), b'{"av":{}}', 1)
    raw = Objects(request_json(request, exact=False), b'{"av":{}}', 0)
    assert digests(filler, REQUEST, exact, raw) == {jcs.digest(msgspec.to_builtins(request))}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_components_and_their_e_object(filler: Filler, data: st.DataObject) -> None:
    def real() -> float:
        return data.draw(FLOATS)

    def filled(kind: Any, **fixed: Any) -> Any:
        made: dict[str, Any] = {
            "float": real,
            "bool": lambda: data.draw(st.booleans()),
            "int": lambda: data.draw(st.integers(0, 9)),
        }
        members = {f.name: made[f.type.__name__]() for f in msgspec.structs.fields(kind) if f.name not in fixed}
        return kind(**members, **fixed)

    details = data.draw(st.dictionaries(st.sampled_from(["z", "a_z", "entropy_drop"]), FLOATS, max_size=2))
    parts = {name: filled(Component, details=details) for name in ("invertibility", "entropy_drop", "sigma_cut")}
    components = Components(
        **parts,
        recurrence=filled(Component, details={}),
        multivariate=filled(Multivariate, details=details),
        av=filled(Av, unit=data.draw(st.sampled_from(["session", "request", "block"])), details={}),
        input=filled(Input, details=details),
    )
    value = msgspec.to_builtins(components)
    exact, raw = (objects(None, components, exact=exact) for exact in (True, False))
    assert digests(filler, COMPONENTS, exact, raw) == {jcs.digest(value)}
    assert digests(filler, E_OBJECT, exact, raw) == {jcs.digest(value["av"])}
    assert components_json(components, exact=True) == jcs.encode(value)


@pytest.mark.parametrize("value", [0.1, 1.0, 123.456, 1e-4, 9007199254740991.0, 999999999999999.9, 1e-7, 1e16, -0.0])
def test_the_fast_way_is_taken_where_it_should(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jcs, "encode", None)
    canonical(Component(triggered=False, severity=value, p_value=-value, details={}))
