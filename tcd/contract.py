"""The tensor contract of the ensemble: names, dtypes, dims, order of components, status bits.

This module is the single source. `tcd.triton.pbtxt` renders every `config.pbtxt` from it, the models, the
shim and the clients read their names from it, and a test holds the repository to it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

MAX_BATCH: Final = 256
#: Padded widths of TRACE, ENTROPY and SPECTRUM. A row's width follows from its own length only.
BUCKETS: Final = (64, 256, 1024, 4096)
#: Padded widths of FEATURES (flattened rows x cols).
FEATURE_BUCKETS: Final = (256, 1024, 4096, 16384)
MAX_WINDOW: Final = 4096
MAX_FEATURE_VALUES: Final = 16384
MAX_FEATURE_ROWS: Final = 112
MAX_FEATURE_COLS: Final = 2048
#: Running maximum before the first step of a hypothesis (KServe JSON has no infinity).
SUP_START: Final = -1e300
#: Singular values kept by `tcd_signals`.
SPECTRUM_RANK: Final = 16

#: Order of the first axis of COMPONENTS; the second axis is (severity, p, z).
COMPONENTS: Final = ("invertibility", "entropy_drop", "sigma_cut", "recurrence")
#: Name of the detail that carries a component's z in HTTP answers.
COMPONENT_DETAIL: Final = ("trace_z_low", "entropy_z_low", "spread_z", "recurrence_z")

#: Decoder codes of ROUTE[3].
DECODERS: Final = ("default", "sample", "greedy", "no_repeat")
TIERS: Final = ("normal", "cautious", "strict")


class Length(IntEnum):
    """Columns of LENGTHS."""

    TRACE = 0
    ENTROPY = 1
    SPECTRUM = 2
    FEATURE_ROWS = 3
    FEATURE_COLS = 4
    FLAGS = 5


class Flag(IntFlag):
    """LENGTHS[5]: bit 0 controller on, bits 1-2 unit of the hypothesis."""

    CONTROLLER = 1
    UNIT_REQUEST = 2
    UNIT_BLOCK = 4


#: All bits that LENGTHS[5] may carry.
FLAG_MASK: Final = 0b111


class Signal(IntFlag):
    """The signal mask of a row: which signals it carries. Calibrations are made per mask."""

    TRACE = 1
    ENTROPY = 2
    SPECTRUM = 4
    FEATURES = 8


class Status(IntFlag):
    """Why a step of the ensemble answered p = 1, or with a caveat. One byte per step, see `pack_status`."""

    OK = 0
    WARMUP = 1  # fewer tokens than the statistic needs: p = 1
    NO_CALIBRATION = 2  # no asset for any level of the key: p = 1
    FALLBACK = 4  # the exact key has no asset, a coarser level or the default answered
    NONFINITE = 8  # a NaN or infinity in the row: p = 1
    BAD_INPUT = 16  # counts that do not fit the tensors, or an input out of range: p = 1
    UNKNOWN_MASK = 32  # the asset has no calibration for this signal mask (or dimension): p = 1
    ABSENT = 64  # the step's signal is not in the row: p = 1
    FAILED = 128  # an exception inside the step: p = 1


#: Routing's own use of two bits.
UNKNOWN_POLICY: Final = Status.NO_CALIBRATION


def pack_status(detector: int, multivariate: int, routing: int) -> int:
    """STATUS of the ensemble: detector in bits 0-7, multivariate in 8-15, routing in 16-23."""
    return detector | (multivariate << 8) | (routing << 16)


def unpack_status(status: int) -> tuple[Status, Status, Status]:
    """Inverse of `pack_status`."""
    return Status(status & 0xFF), Status((status >> 8) & 0xFF), Status((status >> 16) & 0xFF)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a model: KServe dtype without the TYPE_ prefix, dims without the batch dimension."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    doc: str

    @property
    def ragged(self) -> bool:
        """Whether requests of different widths may share a batch."""
        return -1 in self.dims


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an ensemble: a model and its tensor names mapped to ensemble tensor names."""

    model: str
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True, slots=True)
class Model:
    """Inputs and outputs of a model; an ensemble also has steps."""

    name: str
    doc: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...] = ()


TRACE = Tensor("TRACE", "FP32", (-1,), "newest log-probabilities of sampled tokens, oldest first")
ENTROPY = Tensor("ENTROPY", "FP32", (-1,), "newest next-token entropies, nats, oldest first")
SPECTRUM = Tensor("SPECTRUM", "FP32", (-1,), "singular values of the newest hidden-state window, any order")
FEATURES = Tensor("FEATURES", "FP32", (-1,), "newest feature vectors, row-major rows x cols, oldest first")
LENGTHS = Tensor(
    "LENGTHS",
    "INT32",
    (6,),
    "valid counts: trace, entropy, spectrum, feature rows, feature cols; flags (bit 0 controller on, "
    "bits 1-2 unit: 0 session, 1 request, 2 block)",
)
KEY = Tensor(
    "KEY", "UINT64", (3,), "detector key with temperature bucket, without it, of the model alone; 0 skips a level"
)
POLICY = Tensor("POLICY", "UINT64", (1,), "id of the routing table; 0 = default")
ALPHA = Tensor("ALPHA", "FP64", (1,), "the reserved level of the hypothesis")
SUP = Tensor("SUP", "FP64", (2,), "running maxima of the hypothesis (detector, multivariate); start -1e300")
BASE = Tensor("BASE", "FP32", (4,), "temperature, top_p, max_tokens, drift (drift only tightens)")

DETECTOR_P = Tensor("DETECTOR_P", "FP64", (2,), "detector: p of this step, p of the hypothesis")
DETECTOR_SUP = Tensor("DETECTOR_SUP", "FP64", (1,), "detector: running maximum of its statistic")
DETECTOR_ASSET = Tensor("DETECTOR_ASSET", "UINT64", (1,), "detector: id of the calibration used, 0 = none")
DETECTOR_STATUS = Tensor("DETECTOR_STATUS", "INT32", (1,), "detector: status bits")
DETECTOR_LEVEL = Tensor("DETECTOR_LEVEL", "FP64", (1,), "merged step p at or under which the fast alarm sounds")
COMPONENTS_T = Tensor(
    "COMPONENTS", "FP32", (len(COMPONENTS), 3), "per component (severity, p, z): " + ", ".join(COMPONENTS)
)
MULTIVARIATE_P = Tensor("MULTIVARIATE_P", "FP64", (2,), "multivariate: p of this step, p of the hypothesis")
MULTIVARIATE_SUP = Tensor("MULTIVARIATE_SUP", "FP64", (1,), "multivariate: running maximum of its distance")
MULTIVARIATE_ASSET = Tensor("MULTIVARIATE_ASSET", "UINT64", (1,), "multivariate: id of the reference used, 0 = none")
MULTIVARIATE_STATUS = Tensor("MULTIVARIATE_STATUS", "INT32", (1,), "multivariate: status bits")
MV = Tensor("MV", "FP32", (4,), "multivariate: distance, threshold, trigger, p")

SCORE = Tensor("SCORE", "FP32", (1,), "1 - merged p of this step")
P_STEP = Tensor("P_STEP", "FP64", (2,), "p of this step: detector, multivariate")
SUP_OUT = Tensor("SUP_OUT", "FP64", (2,), "running maxima after this step (detector, multivariate)")
P_VALUE = Tensor("P_VALUE", "FP64", (1,), "merged p of the hypothesis")
TRIGGER = Tensor("TRIGGER", "INT32", (1,), "1 when the controller is on and P_VALUE <= ALPHA")
VERDICT = Tensor("VERDICT", "INT32", (1,), "1 = unsafe: trigger or fast alarm")
TIER = Tensor("TIER", "INT32", (1,), "routing tier: 0 normal, 1 cautious, 2 strict")
STATUS = Tensor("STATUS", "INT32", (1,), "status bits: detector 0-7, multivariate 8-15, routing 16-23")
ROUTE = Tensor("ROUTE", "FP32", (4,), "temperature, top_p, max_tokens, decoder code")
ASSETS = Tensor("ASSETS", "UINT64", (3,), "ids of the detector, multivariate and policy assets used")

LOGITS = Tensor("LOGITS", "FP32", (-1,), "next-token logits of this step, vocabulary-wide")
TOKEN = Tensor("TOKEN", "INT32", (1,), "the token sampled from them")
HIDDEN = Tensor("HIDDEN", "FP32", (-1, -1), "newest final hidden states, window x width, oldest first")
PREV_TRACE = Tensor("PREV_TRACE", "FP32", (-1,), "NEXT_TRACE of the previous step")
PREV_ENTROPY = Tensor("PREV_ENTROPY", "FP32", (-1,), "NEXT_ENTROPY of the previous step")
PREV_FEATURES = Tensor("PREV_FEATURES", "FP32", (-1,), "NEXT_FEATURES of the previous step")
PREV_LENGTHS = Tensor("PREV_LENGTHS", "INT32", (6,), "NEXT_LENGTHS of the previous step; counts 0 at the start")
NEXT_TRACE = Tensor("NEXT_TRACE", "FP32", (-1,), "the trace window with this step")
NEXT_ENTROPY = Tensor("NEXT_ENTROPY", "FP32", (-1,), "the entropy window with this step")
NEXT_FEATURES = Tensor("NEXT_FEATURES", "FP32", (-1,), "the feature window with this step")
NEXT_LENGTHS = Tensor("NEXT_LENGTHS", "INT32", (6,), "counts of the NEXT_ windows, flags copied")

SIGNALS = Model(
    "tcd_signals",
    "logits and hidden states to trace, entropy, spectrum and features windows",
    (LOGITS, TOKEN, HIDDEN, PREV_TRACE, PREV_ENTROPY, PREV_FEATURES, PREV_LENGTHS, KEY),
    (NEXT_TRACE, NEXT_ENTROPY, SPECTRUM, NEXT_FEATURES, NEXT_LENGTHS),
)
DETECTOR = Model(
    "tcd_detector",
    "windows to components, statistic, step p and hypothesis p",
    (TRACE, ENTROPY, SPECTRUM, FEATURES, LENGTHS, KEY, SUP),
    (DETECTOR_P, DETECTOR_SUP, COMPONENTS_T, DETECTOR_LEVEL, DETECTOR_ASSET, DETECTOR_STATUS),
)
MULTIVARIATE = Model(
    "tcd_multivariate",
    "newest feature vector to its distance from the key's reference",
    (FEATURES, LENGTHS, KEY, SUP),
    (MULTIVARIATE_P, MULTIVARIATE_SUP, MV, MULTIVARIATE_ASSET, MULTIVARIATE_STATUS),
)
ROUTING = Model(
    "tcd_routing",
    "p-values, level and policy to trigger, verdict, tier and route",
    (
        *(DETECTOR_P, DETECTOR_SUP, DETECTOR_LEVEL, DETECTOR_ASSET, DETECTOR_STATUS),
        *(MULTIVARIATE_P, MULTIVARIATE_SUP, MULTIVARIATE_ASSET, MULTIVARIATE_STATUS),
        *(LENGTHS, POLICY, ALPHA, BASE),
    ),
    (SCORE, P_STEP, SUP_OUT, P_VALUE, TRIGGER, VERDICT, TIER, STATUS, ROUTE, ASSETS),
)


def _same(tensors: tuple[Tensor, ...], **renamed: str) -> dict[str, str]:
    return {t.name: renamed.get(t.name, t.name) for t in tensors}


_WINDOWS = {"TRACE": "NEXT_TRACE", "ENTROPY": "NEXT_ENTROPY", "FEATURES": "NEXT_FEATURES", "LENGTHS": "NEXT_LENGTHS"}

DIAGNOSE = Model(
    "tcd_diagnose",
    "the ensemble: detector and multivariate side by side, then routing",
    (TRACE, ENTROPY, SPECTRUM, FEATURES, LENGTHS, KEY, POLICY, ALPHA, SUP, BASE),
    (SCORE, P_STEP, SUP_OUT, COMPONENTS_T, MV, P_VALUE, TRIGGER, VERDICT, TIER, STATUS, ROUTE, ASSETS),
    (
        Step(DETECTOR.name, _same(DETECTOR.inputs), _same(DETECTOR.outputs)),
        Step(MULTIVARIATE.name, _same(MULTIVARIATE.inputs), _same(MULTIVARIATE.outputs)),
        Step(ROUTING.name, _same(ROUTING.inputs), _same(ROUTING.outputs)),
    ),
)
FUSED = Model(
    "tcd_fused",
    "tcd_diagnose as one model, the same bits: one process where the ensemble has three; not loaded by default",
    DIAGNOSE.inputs,
    DIAGNOSE.outputs,
)
DIAGNOSE_RAW = Model(
    "tcd_diagnose_raw",
    "the ensemble with tcd_signals in front: logits and hidden states in",
    (
        *(LOGITS, TOKEN, HIDDEN, PREV_TRACE, PREV_ENTROPY, PREV_FEATURES, PREV_LENGTHS),
        *(KEY, POLICY, ALPHA, SUP, BASE),
    ),
    (*DIAGNOSE.outputs, NEXT_TRACE, NEXT_ENTROPY, NEXT_FEATURES, NEXT_LENGTHS),
    (
        Step(SIGNALS.name, _same(SIGNALS.inputs), _same(SIGNALS.outputs)),
        Step(DETECTOR.name, _same(DETECTOR.inputs, **_WINDOWS), _same(DETECTOR.outputs)),
        Step(MULTIVARIATE.name, _same(MULTIVARIATE.inputs, **_WINDOWS), _same(MULTIVARIATE.outputs)),
        Step(ROUTING.name, _same(ROUTING.inputs, **_WINDOWS), _same(ROUTING.outputs)),
    ),
)

#: Every model of numbers of the repository but the demo LLM, which is documented with its own code.
MODELS: Final = {m.name: m for m in (SIGNALS, DETECTOR, MULTIVARIATE, ROUTING, FUSED, DIAGNOSE, DIAGNOSE_RAW)}


BODY = Tensor(
    "BODY", "BYTES", (1,), "a request body: OpenAI chat or prompt, Anthropic messages, Triton text_input; JSON"
)
OPTIONS = Tensor(
    "OPTIONS",
    "BYTES",
    (1,),
    'empty, or a JSON object: members of tcd.spotlight.Policy, and "boundary", the value of X-TCD-Data-Boundary',
)
REWRITTEN = Tensor("REWRITTEN", "BYTES", (1,), "the body to forward; in shadow mode, the default, the one that came")
OUTCOME = Tensor("OUTCOME", "BYTES", (1,), "what was done, JSON: tcd.spotlight.Outcome.to_json")
SPOTLIGHT = Model(
    "tcd_spotlight", "untrusted text of a request body marked as data", (BODY, OPTIONS), (REWRITTEN, OUTCOME)
)
#: Models whose tensors are text: they share no batch and no codec with the ensemble's.
TEXT_MODELS: Final = {SPOTLIGHT.name: SPOTLIGHT}


def bucket(length: int, buckets: tuple[int, ...] = BUCKETS) -> int:
    """Smallest bucket that holds `length` values.

    Raises:
        ValueError: if `length` is negative or above the largest bucket.
    """
    if length < 0:
        msg = f"length {length} is negative"
        raise ValueError(msg)
    for width in buckets:
        if length <= width:
            return width
    msg = f"length {length} is above {buckets[-1]}"
    raise ValueError(msg)


def temperature_bucket(temperature: float | None) -> str:
    """Temperature bucket of a detector key: `greedy` (< 0.05), else the nearest 0.25, `default` when unknown."""
    if temperature is None:
        return "default"
    if temperature < 0.05:  # noqa: PLR2004
        return "greedy"
    return f"{round(temperature * 4) / 4:.2f}"


def _key(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:8], "big")


def detector_key(model_id: str, gpu_id: str, task: str, lang: str, bucket_name: str) -> tuple[int, int, int]:
    """KEY of a row: SHA-256 (first 8 bytes, big-endian) of the full key, without the bucket, of the model."""
    return (
        _key(model_id, gpu_id, task, lang, bucket_name),
        _key(model_id, gpu_id, task, lang),
        _key(model_id),
    )
