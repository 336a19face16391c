"""The rows of a session log: one per step, one per session, or requests of `/diagnose` as they were sent. Pure.

`docs/calibration.md` describes the members. Types are strict and unknown members are refused, so that a misspelt
signal is not silently a missing one.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from tcd.contract import MAX_FEATURE_COLS, MAX_WINDOW, SPECTRUM_RANK

#: Most steps of one session.
MAX_STEPS: Final = 65_536
_MAX_SAFE: Final = 2**53 - 1

Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^(?!.*\n)[^\x00-\x1f\x7f]*$")]
Label = Annotated[str, Meta(max_length=128, pattern=r"^(?!.*\n)[^\x00-\x1f\x7f]*$")]
Real = Annotated[float, Meta(ge=-3.4e38, le=3.4e38)]
NonNegative = Annotated[float, Meta(ge=0, le=3.4e38)]
LogProb = Annotated[float, Meta(ge=-3.4e38, le=1e-3)]
Index = Annotated[int, Meta(ge=0, le=_MAX_SAFE)]
Spectrum = Annotated[list[NonNegative], Meta(min_length=SPECTRUM_RANK, max_length=MAX_WINDOW)]
Features = Annotated[list[Real], Meta(min_length=1, max_length=MAX_FEATURE_COLS)]
_Steps = Meta(min_length=1, max_length=MAX_STEPS)
#: What a generation or a step is; `control` is neither healthy nor faulty and is used for nothing.
Kind = Literal["healthy", "greedy", "loop", "soft", "temperature", "shift", "severe", "mild", "control"]


class Row(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """Whose generation a row is of.

    Attributes:
        session: name of the generation, unique in the log.
        group: what data are split by, so that near-copies are on one side: the prompt; left out, the session itself.
        model_id, gpu_id, task, lang: parts of the key, as in `/diagnose`.
        temperature: that it was sampled with; it decides the key's bucket.
        weight: likelihood ratio of the session under the traffic to come, for weighted p-values in a report.
    """

    session: Name
    model_id: Name
    group: Name | None = None
    gpu_id: Label = "gpu0"
    task: Label = "chat"
    lang: Label = "en"
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    weight: Annotated[float, Meta(gt=0, le=1e6)] = 1.0


class StepRow(Row, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """One step. `step` counts from 0; without it the order of the file counts. `label` is of the step."""

    log_prob: LogProb
    step: Index | None = None
    entropy: NonNegative | None = None
    spectrum: Spectrum | None = None
    features: Features | None = None
    label: Kind | None = None


class SessionRow(Row, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """A whole generation. A faulty `label` needs `onset`, the first step that shows the fault."""

    log_prob: Annotated[list[LogProb], _Steps]
    entropy: Annotated[list[NonNegative], _Steps] | None = None
    spectrum: Annotated[list[Spectrum], _Steps] | None = None
    features: Annotated[list[Features], _Steps] | None = None
    label: Kind | None = None
    onset: Index | None = None
    complete: bool | None = None


class RequestRow(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """A request of `/diagnose` with one new token, `window: step`. Members that say nothing here are only known."""

    trace_vector: Annotated[list[LogProb], Meta(min_length=1, max_length=1)]
    entropy: NonNegative | None = None
    spectrum: Annotated[list[NonNegative], Meta(max_length=MAX_WINDOW)] = msgspec.field(default_factory=list)
    features: Annotated[list[Real], Meta(max_length=MAX_FEATURE_COLS)] = msgspec.field(default_factory=list)
    window: Literal["step"] = "step"
    step_id: Index | None = None
    model_id: Name = "model0"
    gpu_id: Label = "gpu0"
    task: Label = "chat"
    lang: Label = "en"
    tenant: Name = "tenant0"
    user: Name = "user0"
    session: Name = "sess0"
    context: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)
    entropy_window: msgspec.Raw = msgspec.Raw()
    feature_window: msgspec.Raw = msgspec.Raw()
    token_ids: msgspec.Raw = msgspec.Raw()
    tokens_delta: msgspec.Raw = msgspec.Raw()
    drift_score: msgspec.Raw = msgspec.Raw()
    request_id: msgspec.Raw = msgspec.Raw()
    idempotency_key: msgspec.Raw = msgspec.Raw()
    deadline_ms: msgspec.Raw = msgspec.Raw()


AnyRow = StepRow | SessionRow | RequestRow


class _Probe(Struct, frozen=True):
    trace_vector: msgspec.Raw = msgspec.Raw()
    log_prob: msgspec.Raw = msgspec.Raw()


def kind_of(line: bytes) -> type[AnyRow]:
    """Which kind of row a line of JSON is.

    Raises:
        msgspec.DecodeError: it is no JSON object.
    """
    probe = msgspec.json.decode(line, type=_Probe)
    if bytes(probe.trace_vector):
        return RequestRow
    return SessionRow if bytes(probe.log_prob)[:1] == b"[" else StepRow


def temperature_of(row: RequestRow) -> float | None:
    """`context.temperature`, which is what the shim makes the key's bucket of."""
    raw = row.context.get("temperature")
    try:
        return None if raw is None else msgspec.json.decode(raw, type=float | None)
    except msgspec.DecodeError:
        return None
