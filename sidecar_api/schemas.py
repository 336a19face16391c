"""Requests and answers of the public surface: the one schema source (msgspec structs).

Types are strict: a bool is no number, a string is no number, unknown members are refused. What the types
cannot say (finite after rounding to FP32, control characters, `window` rules) is in `sidecar_api.decode`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from tcd.contract import MAX_FEATURE_COLS, MAX_FEATURE_ROWS, MAX_WINDOW

MAX_SAFE: Final = 2**53 - 1
MAX_CONTEXT_BYTES: Final = 8192
MAX_CONTEXT_MEMBERS: Final = 64
MAX_TOKENS_DELTA: Final = 10_000_000
#: ASCII without space and control characters: what may be echoed in a header.
ID_PATTERN: Final = r"^[\x21-\x7e]+$"
#: No control characters: what receipts can carry and keys are joined with.
TEXT_PATTERN: Final = r"^[^\x00-\x1f\x7f]*$"
#: The same for Python's `re`, whose `$` also matches before a line feed at the end.
WHOLE_TEXT: Final = r"^(?!.*\n)[^\x00-\x1f\x7f]*$"

_text = {"extra_json_schema": {"pattern": TEXT_PATTERN}}
_token = {"extra_json_schema": {"pattern": ID_PATTERN}}
Name = Annotated[str, Meta(min_length=1, max_length=128, **_text)]
Label = Annotated[str, Meta(max_length=128, **_text)]
RequestId = Annotated[str, Meta(min_length=1, max_length=128, **_token)]
Real = Annotated[float, Meta(ge=-3.4e38, le=3.4e38)]
NonNegative = Annotated[float, Meta(ge=0, le=3.4e38)]
SafeInt = Annotated[int, Meta(ge=-MAX_SAFE, le=MAX_SAFE)]
Scalar = str | SafeInt | float | bool | None
Decoder = Literal["default", "sample", "greedy", "no_repeat"]
Tier = Literal["normal", "cautious", "strict"]
Action = Literal["allow", "degrade", "block", "throttle", "ask_for_review", "escalate_to_human"]
Cause = Literal["detector", "av", "policy", "budget", "degraded", "trust", "slo", ""]


class DiagnoseRequest(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """One step of one generation: the newest signals, whose they are, how the model decodes."""

    trace_vector: Annotated[list[Real], Meta(max_length=MAX_WINDOW, description="log-probabilities, oldest first")] = (
        msgspec.field(default_factory=list)
    )
    entropy: Annotated[NonNegative | None, Meta(description="entropy of the newest distribution, nats")] = None
    spectrum: Annotated[list[NonNegative], Meta(max_length=MAX_WINDOW, description="singular values, any order")] = (
        msgspec.field(default_factory=list)
    )
    features: Annotated[list[Real], Meta(max_length=MAX_FEATURE_COLS, description="one feature vector")] = (
        msgspec.field(default_factory=list)
    )
    window: Annotated[
        Literal["step", "full"], Meta(description="step: values since the last call; full: the whole windows")
    ] = "step"
    entropy_window: Annotated[list[NonNegative], Meta(max_length=MAX_WINDOW, description="with window=full")] = (
        msgspec.field(default_factory=list)
    )
    feature_window: Annotated[
        list[Annotated[list[Real], Meta(min_length=1, max_length=MAX_FEATURE_COLS)]],
        Meta(max_length=MAX_FEATURE_ROWS, description="with window=full: rows of equal length, <= 16384 values"),
    ] = msgspec.field(default_factory=list)
    token_ids: Annotated[list[Annotated[int, Meta(ge=0, le=2**31 - 1)]], Meta(max_length=MAX_WINDOW)] = msgspec.field(
        default_factory=list
    )
    step_id: Annotated[Annotated[int, Meta(ge=0, le=MAX_SAFE)] | None, Meta(description="0 starts a session")] = None
    model_id: Name = "model0"
    gpu_id: Label = "gpu0"
    task: Label = "chat"
    lang: Label = "en"
    tenant: Name = "tenant0"
    user: Name = "user0"
    session: Name = "sess0"
    context: Annotated[
        dict[Annotated[str, Meta(max_length=128)], Scalar],
        Meta(
            max_length=MAX_CONTEXT_MEMBERS,
            description="temperature, top_p, decoder, max_tokens, ...; scalars, at most 8 KiB",
        ),
    ] = msgspec.field(default_factory=dict)
    tokens_delta: Annotated[int, Meta(ge=-MAX_TOKENS_DELTA, le=MAX_TOKENS_DELTA)] = 50
    drift_score: Annotated[Real, Meta(description="only ever tightens")] = 0.0
    request_id: RequestId | None = None
    idempotency_key: RequestId | None = None
    deadline_ms: Annotated[float, Meta(gt=0, le=600_000)] | None = None


class Opening(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """The subject of a stream, from its query string."""

    tenant: Name = "tenant0"
    user: Name = "user0"
    session: Name = "sess0"


class Component(Struct, kw_only=True, frozen=True):
    """One component of the detector."""

    triggered: bool
    severity: float
    p_value: float
    details: dict[str, float]


class Multivariate(Struct, kw_only=True, frozen=True):
    """The multivariate monitor."""

    triggered: bool
    severity: float
    p_value: float
    distance: float
    threshold: float
    trigger: bool
    details: dict[str, float]


class Av(Struct, kw_only=True, frozen=True):
    """The always-valid controller; the e-object of the receipt."""

    triggered: bool
    severity: float
    p_value: float
    e_value: float
    e_value_log10: float
    e_process: float
    e_process_log10: float
    e_cusum: float
    alarm: bool
    alarm_threshold: float
    cusum_alarm: bool
    cusum_threshold: float
    alpha: float
    alpha_alloc: float
    alpha_spent: float
    alpha_wealth: float
    budget_remaining: float
    exhausted: bool
    p_floor: float
    unit: str
    epoch: int
    index: int
    rejections: int
    details: dict[str, float]


class Input(Struct, kw_only=True, frozen=True):
    """What came in: tokens seen, signal mask, values that a `sanitize=zero` policy replaced by 0."""

    triggered: bool
    severity: float
    p_value: float
    sanitized: int
    mask: int
    tokens: int
    details: dict[str, float]


class Components(Struct, kw_only=True, frozen=True):
    """Map of component name to what it found."""

    invertibility: Component
    entropy_drop: Component
    sigma_cut: Component
    recurrence: Component
    multivariate: Multivariate
    av: Av
    input: Input


class Route(Struct, kw_only=True, frozen=True):
    """How to decode from here on."""

    temperature: float
    top_p: float
    decoder: Decoder
    max_tokens: int
    tags: list[str]
    tier: Tier
    route_id: str


class Check(Struct, kw_only=True, frozen=True):
    """A configured check and whether it ran."""

    name: str
    status: Literal["ran", "skipped", "failed"]
    reason: str = ""


class Calibration(Struct, kw_only=True, frozen=True):
    """Digests of the assets in use; null where none is."""

    manifest: str
    detector: str | None
    multivariate: str | None
    routing: str | None


class RiskResponse(Struct, kw_only=True, frozen=True):
    """The decision about one step."""

    verdict: Annotated[bool, Meta(description="true = unsafe: trigger or fast alarm")]
    score: float
    threshold: float
    budget_remaining: float
    alpha_alloc: float
    alpha_spent: float
    alpha_wealth: float
    e_value: float
    e_value_log10: float
    e_process: float
    alarm: bool
    alarm_threshold: float
    trigger: bool
    p_value: float
    p_floor: float
    components: Components
    step: int
    cause: Cause
    action: Action
    enforced: Action
    route: Route
    guarantee: str
    unit: str
    epoch: int
    checks: list[Check]
    request_id: str
    policy_ref: str
    config_hash: str
    calibration: Calibration
    receipt: str | None = None
    receipt_body: str | None = None
    receipt_sig: str | None = None
    verify_key: str | None = None
    receipt_proof: str | None = None


Hex = Annotated[str, Meta(max_length=8192)]
Body = Annotated[str, Meta(max_length=512_000)]
Json = Any


class Segment(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """A disclosed witness segment."""

    name: Annotated[str, Meta(max_length=32)]
    salt: Annotated[str, Meta(max_length=64)]
    values: Annotated[list[float], Meta(max_length=16_384)]


class AnchorIn(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """A record of a chain that the caller already trusts."""

    seq: Annotated[int, Meta(ge=0, le=MAX_SAFE)]
    head: Annotated[str, Meta(max_length=64)]


#: `tlog-proof@v1`: a note of 64 KiB and a path.
Proof = Annotated[str, Meta(max_length=81_920)]


class VerifyRequest(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """One receipt (`receipt_head_hex`, `receipt_body_json`) or a chain (`heads`, `bodies`).

    Of a receipt whose body this shim's log has erased, `receipt_head_hex` and `receipt_sig_hex` are enough.
    """

    receipt_head_hex: Hex | None = None
    receipt_body_json: Body | None = None
    verify_key_hex: Hex | None = None
    receipt_sig_hex: Hex | None = None
    req_obj: dict[str, Json] | None = None
    comp_obj: dict[str, Json] | None = None
    e_obj: dict[str, Json] | None = None
    witness_segments: Annotated[list[Segment], Meta(max_length=8)] | None = None
    proof: Proof | None = None
    previous_body_json: Body | None = None
    terms: dict[str, Json] | None = None
    heads: Annotated[list[Hex], Meta(max_length=1024)] | None = None
    bodies: Annotated[list[Body], Meta(max_length=1024)] | None = None
    sigs: Annotated[list[Hex], Meta(max_length=1024)] | None = None
    proofs: Annotated[list[Proof], Meta(max_length=1024)] | None = None
    start: AnchorIn | None = None
    end: AnchorIn | None = None


class VerifyCheck(Struct, kw_only=True, frozen=True):
    """One check of a verification."""

    name: str
    status: Literal["pass", "fail", "skipped", "absent"]
    code: str


class BodyErased(Struct, frozen=True):
    """A receipt whose body was erased from this shim's log: its head and leaf, and head and leaf of the `erase` record.

    `record` and `record_index` are null where no record of the log says so.
    """

    receipt: str
    index: int
    record: str | None = None
    record_index: int | None = None


class BodiesKept(Struct, kw_only=True, frozen=True):
    """Of how many of the verified receipts this shim's log has the body, and which were erased: at most 64 of them."""

    kept: int
    erased: int
    erasures: list[BodyErased] = []


class VerifyResponse(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Whether it verifies; a failed verification is `ok=false` with the code of the first failed check.

    `bodies` is there where what was shown is signed by a pinned key, or a chain that verifies, and the log can be read.
    """

    ok: bool
    code: str
    checks: list[VerifyCheck]
    policy: str
    trust: Literal["server", "caller", "none"]
    first_bad: int | None = None
    bodies: BodiesKept | None = None


class BatchResult(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The decision about one request of a batch, or why there is none: one of the two."""

    response: RiskResponse | None = None
    problem: Problem | None = None


class BatchResponse(Struct, kw_only=True, frozen=True):
    """Results in the order of the requests."""

    results: list[BatchResult]


class Problem(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """RFC 9457 problem."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    pointer: str | None = None
    retry_after: float | None = None
    violated_policies: list[str] | None = msgspec.field(name="violated-policies", default=None)
