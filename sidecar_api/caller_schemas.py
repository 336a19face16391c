"""Requests and answers of /v1/reserve and /v1/settle: for callers that query the ensemble themselves."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from sidecar_api.schemas import MAX_SAFE, MAX_TOKENS_DELTA, Label, Name, Real, RequestId, SafeInt
from tcd.contract import COMPONENTS, MAX_FEATURE_COLS, MAX_WINDOW

SignalName = Literal["trace", "entropy", "spectrum", "features"]
DIGEST_PATTERN: Final = r"^(?!.*\n)sha256:[0-9a-f]{64}$"
_Any64 = Annotated[float, Meta(ge=-1.7e308, le=1.7e308)]
_Unsigned = Annotated[int, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=0, le=MAX_SAFE)]
_CELLS: Final = 3 * len(COMPONENTS)


class ReserveRequest(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """Which generation a level is for, and which signals its rows will carry."""

    signals: Annotated[list[SignalName], Meta(min_length=1, max_length=4, description="what the rows will carry")]
    feature_cols: Annotated[int, Meta(ge=0, le=MAX_FEATURE_COLS, description="width of a feature vector")] = 0
    spectrum_values: Annotated[int, Meta(ge=0, le=MAX_WINDOW, description="singular values per row")] = 16
    tokens: Annotated[_Count, Meta(description="tokens of the generation up to this step")] = 0
    step_id: Annotated[_Count | None, Meta(description="0 starts a session")] = None
    model_id: Name = "model0"
    gpu_id: Label = "gpu0"
    task: Label = "chat"
    lang: Label = "en"
    tenant: Name = "tenant0"
    user: Name = "user0"
    session: Name = "sess0"
    temperature: Annotated[float, Meta(ge=0, le=1000)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] = 1.0
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS_DELTA)] = 0
    tokens_delta: Annotated[int, Meta(ge=-MAX_TOKENS_DELTA, le=MAX_TOKENS_DELTA)] = 50
    drift_score: Real = 0.0
    request_id: RequestId | None = None
    idempotency_key: RequestId | None = None
    deadline_ms: Annotated[float, Meta(gt=0, le=600_000)] | None = None


class ReserveResponse(Struct, kw_only=True, frozen=True):
    """The level of the generation's hypothesis, and the tensors that go with it."""

    reservation: Annotated[str, Meta(description="hand it back with the outputs; a secret of the caller")]
    controller: Annotated[bool, Meta(description="false: no hypothesis, the guarantee is none")]
    alpha: Annotated[float, Meta(description="ALPHA")]
    sup: Annotated[list[float], Meta(description="SUP")]
    key: Annotated[list[_Unsigned], Meta(description="KEY")]
    policy: Annotated[int, Meta(ge=0, description="POLICY")]
    flags: Annotated[int, Meta(description="the sixth value of LENGTHS")]
    base: Annotated[list[float], Meta(description="BASE")]
    unit: str
    epoch: int
    cost: Annotated[float, Meta(description="debited by this call; 0 when the generation had its level")]
    exhausted: bool
    p_floor: float
    guarantee: str
    request_id: str


class Outputs(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True, rename="upper"):
    """The outputs of `tcd_diagnose` for one row: flat data by tensor name, as Triton's JSON has them."""

    score: Annotated[list[_Any64], Meta(min_length=1, max_length=1)]
    p_step: Annotated[list[_Any64], Meta(min_length=2, max_length=2)]
    sup_out: Annotated[list[_Any64], Meta(min_length=2, max_length=2)]
    components: Annotated[list[Real], Meta(min_length=_CELLS, max_length=_CELLS)]
    mv: Annotated[list[Real], Meta(min_length=4, max_length=4)]
    p_value: Annotated[list[_Any64], Meta(min_length=1, max_length=1)]
    trigger: Annotated[list[Annotated[int, Meta(ge=0, le=1)]], Meta(min_length=1, max_length=1)]
    verdict: Annotated[list[Annotated[int, Meta(ge=0, le=1)]], Meta(min_length=1, max_length=1)]
    tier: Annotated[list[SafeInt], Meta(min_length=1, max_length=1)]
    status: Annotated[list[SafeInt], Meta(min_length=1, max_length=1)]
    route: Annotated[list[Real], Meta(min_length=4, max_length=4)]
    assets: Annotated[list[_Unsigned], Meta(min_length=3, max_length=3)]


class SettleRequest(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """What the ensemble answered to a row that was sent with a reservation."""

    reservation: Annotated[str, Meta(min_length=1, max_length=64, extra_json_schema={"pattern": "^[0-9a-f]+$"})]
    inputs: Annotated[str, Meta(pattern=DIGEST_PATTERN, description="tcd.inputs.inputs_digest of the row")]
    sup: Annotated[list[_Any64], Meta(min_length=2, max_length=2, description="the SUP that was sent")]
    outputs: Outputs
    step_id: _Count | None = None
    tokens: Annotated[_Count, Meta(description="tokens of the generation up to this step")] = 0
    end: Annotated[bool, Meta(description="the generation is over: close its hypothesis")] = False
    request_id: RequestId | None = None
    idempotency_key: RequestId | None = None
    deadline_ms: Annotated[float, Meta(gt=0, le=600_000)] | None = None


reserve_decoder: Final = msgspec.json.Decoder(ReserveRequest, strict=True)
settle_decoder: Final = msgspec.json.Decoder(SettleRequest, strict=True)
