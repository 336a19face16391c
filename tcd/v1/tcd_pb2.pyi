from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Features(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class DiagnoseRequest(_message.Message):
    __slots__ = ("trace_vector", "entropy", "spectrum", "features", "step_id", "model_id", "gpu_id", "task", "lang", "tenant", "user", "session", "context", "tokens_delta", "drift_score", "window", "entropy_window", "feature_window", "token_ids", "request_id", "idempotency_key", "deadline_ms")
    TRACE_VECTOR_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    SPECTRUM_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LANG_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_DELTA_FIELD_NUMBER: _ClassVar[int]
    DRIFT_SCORE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_WINDOW_FIELD_NUMBER: _ClassVar[int]
    FEATURE_WINDOW_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    trace_vector: _containers.RepeatedScalarFieldContainer[float]
    entropy: float
    spectrum: _containers.RepeatedScalarFieldContainer[float]
    features: _containers.RepeatedScalarFieldContainer[float]
    step_id: int
    model_id: str
    gpu_id: str
    task: str
    lang: str
    tenant: str
    user: str
    session: str
    context: _struct_pb2.Struct
    tokens_delta: int
    drift_score: float
    window: str
    entropy_window: _containers.RepeatedScalarFieldContainer[float]
    feature_window: _containers.RepeatedCompositeFieldContainer[Features]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    request_id: str
    idempotency_key: str
    deadline_ms: float
    def __init__(self, trace_vector: _Optional[_Iterable[float]] = ..., entropy: _Optional[float] = ..., spectrum: _Optional[_Iterable[float]] = ..., features: _Optional[_Iterable[float]] = ..., step_id: _Optional[int] = ..., model_id: _Optional[str] = ..., gpu_id: _Optional[str] = ..., task: _Optional[str] = ..., lang: _Optional[str] = ..., tenant: _Optional[str] = ..., user: _Optional[str] = ..., session: _Optional[str] = ..., context: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., tokens_delta: _Optional[int] = ..., drift_score: _Optional[float] = ..., window: _Optional[str] = ..., entropy_window: _Optional[_Iterable[float]] = ..., feature_window: _Optional[_Iterable[_Union[Features, _Mapping]]] = ..., token_ids: _Optional[_Iterable[int]] = ..., request_id: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., deadline_ms: _Optional[float] = ...) -> None: ...

class Component(_message.Message):
    __slots__ = ("triggered", "severity", "p_value", "details", "multivariate", "av", "input")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TRIGGERED_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    MULTIVARIATE_FIELD_NUMBER: _ClassVar[int]
    AV_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    triggered: bool
    severity: float
    p_value: float
    details: _containers.ScalarMap[str, float]
    multivariate: Multivariate
    av: Av
    input: Input
    def __init__(self, triggered: _Optional[bool] = ..., severity: _Optional[float] = ..., p_value: _Optional[float] = ..., details: _Optional[_Mapping[str, float]] = ..., multivariate: _Optional[_Union[Multivariate, _Mapping]] = ..., av: _Optional[_Union[Av, _Mapping]] = ..., input: _Optional[_Union[Input, _Mapping]] = ...) -> None: ...

class Multivariate(_message.Message):
    __slots__ = ("distance", "threshold", "trigger")
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    distance: float
    threshold: float
    trigger: bool
    def __init__(self, distance: _Optional[float] = ..., threshold: _Optional[float] = ..., trigger: _Optional[bool] = ...) -> None: ...

class Av(_message.Message):
    __slots__ = ("e_value", "e_value_log10", "e_process", "e_process_log10", "e_cusum", "alarm", "alarm_threshold", "cusum_alarm", "cusum_threshold", "alpha", "alpha_alloc", "alpha_spent", "alpha_wealth", "budget_remaining", "exhausted", "p_floor", "unit", "epoch", "index", "rejections")
    E_VALUE_FIELD_NUMBER: _ClassVar[int]
    E_VALUE_LOG10_FIELD_NUMBER: _ClassVar[int]
    E_PROCESS_FIELD_NUMBER: _ClassVar[int]
    E_PROCESS_LOG10_FIELD_NUMBER: _ClassVar[int]
    E_CUSUM_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    ALARM_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    CUSUM_ALARM_FIELD_NUMBER: _ClassVar[int]
    CUSUM_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    ALPHA_ALLOC_FIELD_NUMBER: _ClassVar[int]
    ALPHA_SPENT_FIELD_NUMBER: _ClassVar[int]
    ALPHA_WEALTH_FIELD_NUMBER: _ClassVar[int]
    BUDGET_REMAINING_FIELD_NUMBER: _ClassVar[int]
    EXHAUSTED_FIELD_NUMBER: _ClassVar[int]
    P_FLOOR_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REJECTIONS_FIELD_NUMBER: _ClassVar[int]
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
    def __init__(self, e_value: _Optional[float] = ..., e_value_log10: _Optional[float] = ..., e_process: _Optional[float] = ..., e_process_log10: _Optional[float] = ..., e_cusum: _Optional[float] = ..., alarm: _Optional[bool] = ..., alarm_threshold: _Optional[float] = ..., cusum_alarm: _Optional[bool] = ..., cusum_threshold: _Optional[float] = ..., alpha: _Optional[float] = ..., alpha_alloc: _Optional[float] = ..., alpha_spent: _Optional[float] = ..., alpha_wealth: _Optional[float] = ..., budget_remaining: _Optional[float] = ..., exhausted: _Optional[bool] = ..., p_floor: _Optional[float] = ..., unit: _Optional[str] = ..., epoch: _Optional[int] = ..., index: _Optional[int] = ..., rejections: _Optional[int] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ("sanitized", "mask", "tokens")
    SANITIZED_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    sanitized: int
    mask: int
    tokens: int
    def __init__(self, sanitized: _Optional[int] = ..., mask: _Optional[int] = ..., tokens: _Optional[int] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("temperature", "top_p", "decoder", "max_tokens", "tags", "tier", "route_id")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ROUTE_ID_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    decoder: str
    max_tokens: int
    tags: _containers.RepeatedScalarFieldContainer[str]
    tier: str
    route_id: str
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., decoder: _Optional[str] = ..., max_tokens: _Optional[int] = ..., tags: _Optional[_Iterable[str]] = ..., tier: _Optional[str] = ..., route_id: _Optional[str] = ...) -> None: ...

class Check(_message.Message):
    __slots__ = ("name", "status", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    status: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Calibration(_message.Message):
    __slots__ = ("manifest", "detector", "multivariate", "routing")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    MULTIVARIATE_FIELD_NUMBER: _ClassVar[int]
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    manifest: str
    detector: str
    multivariate: str
    routing: str
    def __init__(self, manifest: _Optional[str] = ..., detector: _Optional[str] = ..., multivariate: _Optional[str] = ..., routing: _Optional[str] = ...) -> None: ...

class RiskResponse(_message.Message):
    __slots__ = ("verdict", "score", "threshold", "budget_remaining", "components", "cause", "action", "step", "e_value", "alpha_alloc", "alpha_spent", "receipt_head", "receipt_body", "receipt_sig", "verify_key", "policy_ref", "config_hash", "trigger", "p_value", "p_floor", "alpha_wealth", "e_value_log10", "e_process", "alarm", "alarm_threshold", "enforced", "route", "guarantee", "unit", "epoch", "checks", "request_id", "calibration", "receipt_proof")
    class ComponentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Component
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Component, _Mapping]] = ...) -> None: ...
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    BUDGET_REMAINING_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    E_VALUE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_ALLOC_FIELD_NUMBER: _ClassVar[int]
    ALPHA_SPENT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_HEAD_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_BODY_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_SIG_FIELD_NUMBER: _ClassVar[int]
    VERIFY_KEY_FIELD_NUMBER: _ClassVar[int]
    POLICY_REF_FIELD_NUMBER: _ClassVar[int]
    CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    P_FLOOR_FIELD_NUMBER: _ClassVar[int]
    ALPHA_WEALTH_FIELD_NUMBER: _ClassVar[int]
    E_VALUE_LOG10_FIELD_NUMBER: _ClassVar[int]
    E_PROCESS_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    ALARM_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ENFORCED_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    GUARANTEE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_PROOF_FIELD_NUMBER: _ClassVar[int]
    verdict: bool
    score: float
    threshold: float
    budget_remaining: float
    components: _containers.MessageMap[str, Component]
    cause: str
    action: str
    step: int
    e_value: float
    alpha_alloc: float
    alpha_spent: float
    receipt_head: str
    receipt_body: str
    receipt_sig: str
    verify_key: str
    policy_ref: str
    config_hash: str
    trigger: bool
    p_value: float
    p_floor: float
    alpha_wealth: float
    e_value_log10: float
    e_process: float
    alarm: bool
    alarm_threshold: float
    enforced: str
    route: Route
    guarantee: str
    unit: str
    epoch: int
    checks: _containers.RepeatedCompositeFieldContainer[Check]
    request_id: str
    calibration: Calibration
    receipt_proof: str
    def __init__(self, verdict: _Optional[bool] = ..., score: _Optional[float] = ..., threshold: _Optional[float] = ..., budget_remaining: _Optional[float] = ..., components: _Optional[_Mapping[str, Component]] = ..., cause: _Optional[str] = ..., action: _Optional[str] = ..., step: _Optional[int] = ..., e_value: _Optional[float] = ..., alpha_alloc: _Optional[float] = ..., alpha_spent: _Optional[float] = ..., receipt_head: _Optional[str] = ..., receipt_body: _Optional[str] = ..., receipt_sig: _Optional[str] = ..., verify_key: _Optional[str] = ..., policy_ref: _Optional[str] = ..., config_hash: _Optional[str] = ..., trigger: _Optional[bool] = ..., p_value: _Optional[float] = ..., p_floor: _Optional[float] = ..., alpha_wealth: _Optional[float] = ..., e_value_log10: _Optional[float] = ..., e_process: _Optional[float] = ..., alarm: _Optional[bool] = ..., alarm_threshold: _Optional[float] = ..., enforced: _Optional[str] = ..., route: _Optional[_Union[Route, _Mapping]] = ..., guarantee: _Optional[str] = ..., unit: _Optional[str] = ..., epoch: _Optional[int] = ..., checks: _Optional[_Iterable[_Union[Check, _Mapping]]] = ..., request_id: _Optional[str] = ..., calibration: _Optional[_Union[Calibration, _Mapping]] = ..., receipt_proof: _Optional[str] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("type", "title", "status", "detail", "code", "request_id", "pointer", "retry_after", "violated_policies")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POINTER_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    VIOLATED_POLICIES_FIELD_NUMBER: _ClassVar[int]
    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    pointer: str
    retry_after: float
    violated_policies: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, type: _Optional[str] = ..., title: _Optional[str] = ..., status: _Optional[int] = ..., detail: _Optional[str] = ..., code: _Optional[str] = ..., request_id: _Optional[str] = ..., pointer: _Optional[str] = ..., retry_after: _Optional[float] = ..., violated_policies: _Optional[_Iterable[str]] = ...) -> None: ...

class DiagnoseReply(_message.Message):
    __slots__ = ("response", "problem")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    response: RiskResponse
    problem: Problem
    def __init__(self, response: _Optional[_Union[RiskResponse, _Mapping]] = ..., problem: _Optional[_Union[Problem, _Mapping]] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("name", "salt", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    salt: str
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., salt: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Anchor(_message.Message):
    __slots__ = ("seq", "head")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    seq: int
    head: str
    def __init__(self, seq: _Optional[int] = ..., head: _Optional[str] = ...) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ("receipt_head_hex", "receipt_body_json", "verify_key_hex", "receipt_sig_hex", "req_obj", "comp_obj", "e_obj", "witness_segments", "proof", "previous_body_json", "terms", "heads", "bodies", "sigs", "start", "end", "proofs")
    RECEIPT_HEAD_HEX_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_BODY_JSON_FIELD_NUMBER: _ClassVar[int]
    VERIFY_KEY_HEX_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_SIG_HEX_FIELD_NUMBER: _ClassVar[int]
    REQ_OBJ_FIELD_NUMBER: _ClassVar[int]
    COMP_OBJ_FIELD_NUMBER: _ClassVar[int]
    E_OBJ_FIELD_NUMBER: _ClassVar[int]
    WITNESS_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_BODY_JSON_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    BODIES_FIELD_NUMBER: _ClassVar[int]
    SIGS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    PROOFS_FIELD_NUMBER: _ClassVar[int]
    receipt_head_hex: str
    receipt_body_json: str
    verify_key_hex: str
    receipt_sig_hex: str
    req_obj: _struct_pb2.Struct
    comp_obj: _struct_pb2.Struct
    e_obj: _struct_pb2.Struct
    witness_segments: _containers.RepeatedCompositeFieldContainer[Segment]
    proof: str
    previous_body_json: str
    terms: _struct_pb2.Struct
    heads: _containers.RepeatedScalarFieldContainer[str]
    bodies: _containers.RepeatedScalarFieldContainer[str]
    sigs: _containers.RepeatedScalarFieldContainer[str]
    start: Anchor
    end: Anchor
    proofs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, receipt_head_hex: _Optional[str] = ..., receipt_body_json: _Optional[str] = ..., verify_key_hex: _Optional[str] = ..., receipt_sig_hex: _Optional[str] = ..., req_obj: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., comp_obj: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., e_obj: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., witness_segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., proof: _Optional[str] = ..., previous_body_json: _Optional[str] = ..., terms: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., heads: _Optional[_Iterable[str]] = ..., bodies: _Optional[_Iterable[str]] = ..., sigs: _Optional[_Iterable[str]] = ..., start: _Optional[_Union[Anchor, _Mapping]] = ..., end: _Optional[_Union[Anchor, _Mapping]] = ..., proofs: _Optional[_Iterable[str]] = ...) -> None: ...

class VerifyCheck(_message.Message):
    __slots__ = ("name", "status", "code")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    status: str
    code: str
    def __init__(self, name: _Optional[str] = ..., status: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class BodyErased(_message.Message):
    __slots__ = ("receipt", "index", "record", "record_index")
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    RECORD_INDEX_FIELD_NUMBER: _ClassVar[int]
    receipt: str
    index: int
    record: str
    record_index: int
    def __init__(self, receipt: _Optional[str] = ..., index: _Optional[int] = ..., record: _Optional[str] = ..., record_index: _Optional[int] = ...) -> None: ...

class BodiesKept(_message.Message):
    __slots__ = ("kept", "erased", "erasures")
    KEPT_FIELD_NUMBER: _ClassVar[int]
    ERASED_FIELD_NUMBER: _ClassVar[int]
    ERASURES_FIELD_NUMBER: _ClassVar[int]
    kept: int
    erased: int
    erasures: _containers.RepeatedCompositeFieldContainer[BodyErased]
    def __init__(self, kept: _Optional[int] = ..., erased: _Optional[int] = ..., erasures: _Optional[_Iterable[_Union[BodyErased, _Mapping]]] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("ok", "code", "checks", "policy", "trust", "first_bad", "bodies")
    OK_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    FIRST_BAD_FIELD_NUMBER: _ClassVar[int]
    BODIES_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    code: str
    checks: _containers.RepeatedCompositeFieldContainer[VerifyCheck]
    policy: str
    trust: str
    first_bad: int
    bodies: BodiesKept
    def __init__(self, ok: _Optional[bool] = ..., code: _Optional[str] = ..., checks: _Optional[_Iterable[_Union[VerifyCheck, _Mapping]]] = ..., policy: _Optional[str] = ..., trust: _Optional[str] = ..., first_bad: _Optional[int] = ..., bodies: _Optional[_Union[BodiesKept, _Mapping]] = ...) -> None: ...

class GetStateRequest(_message.Message):
    __slots__ = ("model_id", "gpu_id", "task", "lang")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LANG_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    gpu_id: str
    task: str
    lang: str
    def __init__(self, model_id: _Optional[str] = ..., gpu_id: _Optional[str] = ..., task: _Optional[str] = ..., lang: _Optional[str] = ...) -> None: ...

class GetStateResponse(_message.Message):
    __slots__ = ("detector_json",)
    DETECTOR_JSON_FIELD_NUMBER: _ClassVar[int]
    detector_json: bytes
    def __init__(self, detector_json: _Optional[bytes] = ...) -> None: ...

class LoadStateRequest(_message.Message):
    __slots__ = ("detector_json", "model_id", "gpu_id", "task", "lang")
    DETECTOR_JSON_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LANG_FIELD_NUMBER: _ClassVar[int]
    detector_json: bytes
    model_id: str
    gpu_id: str
    task: str
    lang: str
    def __init__(self, detector_json: _Optional[bytes] = ..., model_id: _Optional[str] = ..., gpu_id: _Optional[str] = ..., task: _Optional[str] = ..., lang: _Optional[str] = ...) -> None: ...

class LoadStateResponse(_message.Message):
    __slots__ = ("ok", "sessions", "digest")
    OK_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    sessions: int
    digest: str
    def __init__(self, ok: _Optional[bool] = ..., sessions: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class ReserveRequest(_message.Message):
    __slots__ = ("signals", "feature_cols", "spectrum_values", "tokens", "step_id", "temperature", "top_p", "max_tokens", "model_id", "gpu_id", "task", "lang", "tenant", "user", "session", "tokens_delta", "drift_score", "request_id", "idempotency_key", "deadline_ms")
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    FEATURE_COLS_FIELD_NUMBER: _ClassVar[int]
    SPECTRUM_VALUES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LANG_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TOKENS_DELTA_FIELD_NUMBER: _ClassVar[int]
    DRIFT_SCORE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    signals: _containers.RepeatedScalarFieldContainer[str]
    feature_cols: int
    spectrum_values: int
    tokens: int
    step_id: int
    temperature: float
    top_p: float
    max_tokens: int
    model_id: str
    gpu_id: str
    task: str
    lang: str
    tenant: str
    user: str
    session: str
    tokens_delta: int
    drift_score: float
    request_id: str
    idempotency_key: str
    deadline_ms: float
    def __init__(self, signals: _Optional[_Iterable[str]] = ..., feature_cols: _Optional[int] = ..., spectrum_values: _Optional[int] = ..., tokens: _Optional[int] = ..., step_id: _Optional[int] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., max_tokens: _Optional[int] = ..., model_id: _Optional[str] = ..., gpu_id: _Optional[str] = ..., task: _Optional[str] = ..., lang: _Optional[str] = ..., tenant: _Optional[str] = ..., user: _Optional[str] = ..., session: _Optional[str] = ..., tokens_delta: _Optional[int] = ..., drift_score: _Optional[float] = ..., request_id: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., deadline_ms: _Optional[float] = ...) -> None: ...

class ReserveResponse(_message.Message):
    __slots__ = ("reservation", "controller", "alpha", "sup", "key", "policy", "flags", "base", "unit", "epoch", "cost", "exhausted", "p_floor", "guarantee", "request_id")
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    SUP_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    EXHAUSTED_FIELD_NUMBER: _ClassVar[int]
    P_FLOOR_FIELD_NUMBER: _ClassVar[int]
    GUARANTEE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    reservation: str
    controller: bool
    alpha: float
    sup: _containers.RepeatedScalarFieldContainer[float]
    key: _containers.RepeatedScalarFieldContainer[int]
    policy: int
    flags: int
    base: _containers.RepeatedScalarFieldContainer[float]
    unit: str
    epoch: int
    cost: float
    exhausted: bool
    p_floor: float
    guarantee: str
    request_id: str
    def __init__(self, reservation: _Optional[str] = ..., controller: _Optional[bool] = ..., alpha: _Optional[float] = ..., sup: _Optional[_Iterable[float]] = ..., key: _Optional[_Iterable[int]] = ..., policy: _Optional[int] = ..., flags: _Optional[int] = ..., base: _Optional[_Iterable[float]] = ..., unit: _Optional[str] = ..., epoch: _Optional[int] = ..., cost: _Optional[float] = ..., exhausted: _Optional[bool] = ..., p_floor: _Optional[float] = ..., guarantee: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class Outputs(_message.Message):
    __slots__ = ("score", "p_step", "sup_out", "components", "mv", "p_value", "trigger", "verdict", "tier", "status", "route", "assets")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    P_STEP_FIELD_NUMBER: _ClassVar[int]
    SUP_OUT_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    MV_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    ASSETS_FIELD_NUMBER: _ClassVar[int]
    score: _containers.RepeatedScalarFieldContainer[float]
    p_step: _containers.RepeatedScalarFieldContainer[float]
    sup_out: _containers.RepeatedScalarFieldContainer[float]
    components: _containers.RepeatedScalarFieldContainer[float]
    mv: _containers.RepeatedScalarFieldContainer[float]
    p_value: _containers.RepeatedScalarFieldContainer[float]
    trigger: _containers.RepeatedScalarFieldContainer[int]
    verdict: _containers.RepeatedScalarFieldContainer[int]
    tier: _containers.RepeatedScalarFieldContainer[int]
    status: _containers.RepeatedScalarFieldContainer[int]
    route: _containers.RepeatedScalarFieldContainer[float]
    assets: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, score: _Optional[_Iterable[float]] = ..., p_step: _Optional[_Iterable[float]] = ..., sup_out: _Optional[_Iterable[float]] = ..., components: _Optional[_Iterable[float]] = ..., mv: _Optional[_Iterable[float]] = ..., p_value: _Optional[_Iterable[float]] = ..., trigger: _Optional[_Iterable[int]] = ..., verdict: _Optional[_Iterable[int]] = ..., tier: _Optional[_Iterable[int]] = ..., status: _Optional[_Iterable[int]] = ..., route: _Optional[_Iterable[float]] = ..., assets: _Optional[_Iterable[int]] = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ("reservation", "inputs", "sup", "outputs", "step_id", "tokens", "end", "request_id", "idempotency_key", "deadline_ms")
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    SUP_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    reservation: str
    inputs: str
    sup: _containers.RepeatedScalarFieldContainer[float]
    outputs: Outputs
    step_id: int
    tokens: int
    end: bool
    request_id: str
    idempotency_key: str
    deadline_ms: float
    def __init__(self, reservation: _Optional[str] = ..., inputs: _Optional[str] = ..., sup: _Optional[_Iterable[float]] = ..., outputs: _Optional[_Union[Outputs, _Mapping]] = ..., step_id: _Optional[int] = ..., tokens: _Optional[int] = ..., end: _Optional[bool] = ..., request_id: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., deadline_ms: _Optional[float] = ...) -> None: ...

class RewriteRequest(_message.Message):
    __slots__ = ("body_json", "boundary", "body_format", "marking", "keep_newlines", "active", "model_id", "gpu_id", "task", "lang", "tenant", "user", "session")
    BODY_JSON_FIELD_NUMBER: _ClassVar[int]
    BOUNDARY_FIELD_NUMBER: _ClassVar[int]
    BODY_FORMAT_FIELD_NUMBER: _ClassVar[int]
    MARKING_FIELD_NUMBER: _ClassVar[int]
    KEEP_NEWLINES_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LANG_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    body_json: bytes
    boundary: str
    body_format: str
    marking: str
    keep_newlines: bool
    active: bool
    model_id: str
    gpu_id: str
    task: str
    lang: str
    tenant: str
    user: str
    session: str
    def __init__(self, body_json: _Optional[bytes] = ..., boundary: _Optional[str] = ..., body_format: _Optional[str] = ..., marking: _Optional[str] = ..., keep_newlines: _Optional[bool] = ..., active: _Optional[bool] = ..., model_id: _Optional[str] = ..., gpu_id: _Optional[str] = ..., task: _Optional[str] = ..., lang: _Optional[str] = ..., tenant: _Optional[str] = ..., user: _Optional[str] = ..., session: _Optional[str] = ...) -> None: ...

class ByteRange(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class ZoneRanges(_message.Message):
    __slots__ = ("message", "part", "ranges")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    message: int
    part: int
    ranges: _containers.RepeatedCompositeFieldContainer[ByteRange]
    def __init__(self, message: _Optional[int] = ..., part: _Optional[int] = ..., ranges: _Optional[_Iterable[_Union[ByteRange, _Mapping]]] = ...) -> None: ...

class ZoneCount(_message.Message):
    __slots__ = ("kind", "origin", "count")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    origin: str
    count: int
    def __init__(self, kind: _Optional[str] = ..., origin: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class RewriteResponse(_message.Message):
    __slots__ = ("body_json", "body_rewritten", "shadow_mode", "zones_marked", "byte_delta_total", "marker_collisions", "marking", "marker", "nonce", "reminder_added", "failures", "zone_byte_ranges_per_message", "zones", "removed_characters", "findings", "digest", "request_id", "policy_ref", "receipt_head", "receipt_body", "receipt_sig", "verify_key")
    class RemovedCharactersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    BODY_JSON_FIELD_NUMBER: _ClassVar[int]
    BODY_REWRITTEN_FIELD_NUMBER: _ClassVar[int]
    SHADOW_MODE_FIELD_NUMBER: _ClassVar[int]
    ZONES_MARKED_FIELD_NUMBER: _ClassVar[int]
    BYTE_DELTA_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MARKER_COLLISIONS_FIELD_NUMBER: _ClassVar[int]
    MARKING_FIELD_NUMBER: _ClassVar[int]
    MARKER_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    REMINDER_ADDED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    ZONE_BYTE_RANGES_PER_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ZONES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_REF_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_HEAD_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_BODY_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_SIG_FIELD_NUMBER: _ClassVar[int]
    VERIFY_KEY_FIELD_NUMBER: _ClassVar[int]
    body_json: bytes
    body_rewritten: bool
    shadow_mode: bool
    zones_marked: int
    byte_delta_total: int
    marker_collisions: int
    marking: str
    marker: str
    nonce: str
    reminder_added: bool
    failures: _containers.RepeatedScalarFieldContainer[str]
    zone_byte_ranges_per_message: _containers.RepeatedCompositeFieldContainer[ZoneRanges]
    zones: _containers.RepeatedCompositeFieldContainer[ZoneCount]
    removed_characters: _containers.ScalarMap[str, int]
    findings: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    digest: str
    request_id: str
    policy_ref: str
    receipt_head: str
    receipt_body: str
    receipt_sig: str
    verify_key: str
    def __init__(self, body_json: _Optional[bytes] = ..., body_rewritten: _Optional[bool] = ..., shadow_mode: _Optional[bool] = ..., zones_marked: _Optional[int] = ..., byte_delta_total: _Optional[int] = ..., marker_collisions: _Optional[int] = ..., marking: _Optional[str] = ..., marker: _Optional[str] = ..., nonce: _Optional[str] = ..., reminder_added: _Optional[bool] = ..., failures: _Optional[_Iterable[str]] = ..., zone_byte_ranges_per_message: _Optional[_Iterable[_Union[ZoneRanges, _Mapping]]] = ..., zones: _Optional[_Iterable[_Union[ZoneCount, _Mapping]]] = ..., removed_characters: _Optional[_Mapping[str, int]] = ..., findings: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., digest: _Optional[str] = ..., request_id: _Optional[str] = ..., policy_ref: _Optional[str] = ..., receipt_head: _Optional[str] = ..., receipt_body: _Optional[str] = ..., receipt_sig: _Optional[str] = ..., verify_key: _Optional[str] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthResponse(_message.Message):
    __slots__ = ("ok", "ready", "config_hash", "otel", "prom", "receipts", "trust_os", "checks")
    class ChecksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    OK_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    OTEL_FIELD_NUMBER: _ClassVar[int]
    PROM_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    TRUST_OS_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    ready: bool
    config_hash: str
    otel: bool
    prom: bool
    receipts: bool
    trust_os: bool
    checks: _containers.ScalarMap[str, str]
    def __init__(self, ok: _Optional[bool] = ..., ready: _Optional[bool] = ..., config_hash: _Optional[str] = ..., otel: _Optional[bool] = ..., prom: _Optional[bool] = ..., receipts: _Optional[bool] = ..., trust_os: _Optional[bool] = ..., checks: _Optional[_Mapping[str, str]] = ...) -> None: ...

class VersionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VersionResponse(_message.Message):
    __slots__ = ("version", "config_version", "alpha", "slo_latency_ms", "config_hash", "triton")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    SLO_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    TRITON_FIELD_NUMBER: _ClassVar[int]
    version: str
    config_version: str
    alpha: float
    slo_latency_ms: float
    config_hash: str
    triton: _struct_pb2.Struct
    def __init__(self, version: _Optional[str] = ..., config_version: _Optional[str] = ..., alpha: _Optional[float] = ..., slo_latency_ms: _Optional[float] = ..., config_hash: _Optional[str] = ..., triton: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...
