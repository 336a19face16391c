"""The two ways from a model server to tcd: the Triton ensemble with its windows handed back, and the shim's /diagnose.

Both take what the server has at a step (logits, token, hidden states) and return an `Answer`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from tcd import signals
from tcd.calibration.assets import AssetSet
from tcd.contract import (
    COMPONENTS,
    DECODERS,
    DIAGNOSE_RAW,
    SUP_START,
    TIERS,
    Length,
    detector_key,
    temperature_bucket,
)
from tcd.demo.records import Answer, Receipt, Route
from tcd.demo.sampler import Setting
from tcd.errors import ScoringError

Tensors = dict[str, NDArray[np.generic]]
Infer = Callable[[Tensors], Mapping[str, NDArray[np.generic]]]

#: The detector key of the demo: the model that the shipped assets were fitted on.
MODEL_ID: Final = "smollm2-135m"
#: Outputs of the ensemble that the demo asks for.
OUTPUTS: Final = tuple(t.name for t in DIAGNOSE_RAW.outputs)
_OK: Final = 200


class WatchError(ScoringError):
    """tcd did not answer a step."""

    code = "watch"


@dataclass(frozen=True, slots=True)
class Seen:
    """A step as the model server sees it.

    Attributes:
        step: 0 for the first emitted token.
        logits: FP32 (V,), the prediction that the token was drawn from.
        token: the emitted token.
        hidden: FP32 (≤ 32, D), newest final hidden states, oldest first.
        base: setting asked for the next token.
        left: tokens that may follow.
    """

    step: int
    logits: NDArray[np.float32]
    token: int
    hidden: NDArray[np.float32]
    base: Setting
    left: int


class Watcher(Protocol):
    """Who is asked at every step."""

    def observe(self, seen: Seen) -> Answer:
        """Answer one step.

        Raises:
            WatchError: when there is no answer; the session can go on.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class EnsembleWatcher:
    """Calls `tcd_diagnose_raw` with the windows and running maxima of the previous answer."""

    def __init__(self, infer: Infer, *, temperature: float) -> None:
        """Start a session.

        Args:
            infer: runs the ensemble: BLS in Triton, `tcd.scoring.diagnose_raw` in one process.
            temperature: of the session's start; it chooses the bucket of the detector key.
        """
        self._infer = infer
        key = detector_key(MODEL_ID, "gpu0", "chat", "en", temperature_bucket(temperature))
        self._key = np.array([key], np.uint64)
        self._windows: Tensors = dict(signals.start(1))
        self._sup = np.full((1, 2), SUP_START)

    def observe(self, seen: Seen) -> Answer:
        """Score one step and keep what the next one needs.

        Raises:
            WatchError: from `infer`; the windows stay as they were.
        """
        base = (seen.base.temperature, seen.base.top_p, float(max(seen.left, 1)), 0.0)
        out = self._infer(
            {
                "LOGITS": seen.logits[None],
                "TOKEN": np.array([[seen.token]], np.int32),
                "HIDDEN": seen.hidden[None],
                **self._windows,
                "KEY": self._key,
                "POLICY": np.zeros((1, 1), np.uint64),
                "ALPHA": np.zeros((1, 1)),
                "SUP": self._sup,
                "BASE": np.array([base], np.float32),
            }
        )
        self._windows = {
            name.replace("NEXT", "PREV"): np.asarray(out[name])
            for name in ("NEXT_TRACE", "NEXT_ENTROPY", "NEXT_FEATURES", "NEXT_LENGTHS")
        }
        self._sup = np.asarray(out["SUP_OUT"], np.float64)
        return answer_of(out)

    def close(self) -> None:
        """Nothing is held."""


def answer_of(out: Mapping[str, NDArray[np.generic]]) -> Answer:
    """The answer in the first row of the ensemble's outputs."""
    first = {name: array[0].tolist() for name, array in out.items() if not name.startswith("NEXT_")}
    temperature, top_p, max_tokens, decoder = first["ROUTE"]
    return Answer(
        score=first["SCORE"][0],
        p_value=first["P_VALUE"][0],
        tier=first["TIER"][0],
        verdict=bool(first["VERDICT"][0]),
        trigger=bool(first["TRIGGER"][0]),
        status=first["STATUS"][0],
        route=Route(temperature, top_p, max_tokens, int(decoder)),
        components={name: row[0] for name, row in zip(COMPONENTS, first["COMPONENTS"], strict=True)}
        | {"multivariate": 1.0 - first["MV"][3]},
    )


class ShimWatcher:
    """Makes the signals itself and posts the newest step to `/diagnose`; the shim keeps the windows."""

    def __init__(self, session: ShimSession, assets: AssetSet) -> None:
        """Start a session.

        Args:
            session: where to post.
            assets: for the recorded projection of hidden states.
        """
        self._session = session
        self._assets = assets
        self._windows: Tensors = dict(signals.start(1))

    def observe(self, seen: Seen) -> Answer:
        """Post one step.

        Raises:
            WatchError: no connection, or an error answer of the shim.
        """
        made = signals.raw_step(
            seen.logits[None], np.array([seen.token], np.int32), seen.hidden[None], self._windows, self._assets
        )
        self._windows = {n.replace("NEXT", "PREV"): a for n, a in made.items() if n.startswith("NEXT")}
        return self._session.post(seen.step, newest(made), base=seen.base, left=seen.left)

    def close(self) -> None:
        """Close the session's connection."""
        self._session.close()


class ShimSession:
    """One session of `/diagnose` over one kept connection."""

    def __init__(
        self, url: str, *, session: str, temperature: float, tenant: str = "demo", timeout: float = 90.0
    ) -> None:
        """Prepare a session; nothing is sent yet.

        Args:
            url: base URL of the shim, plain HTTP.
            session: name of the session, one per generation.
            temperature: of the session's start; it chooses the bucket of the detector key, which a session keeps.
            tenant: the tenant whose budget is spent.
            timeout: seconds to wait for an answer.
        """
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=timeout)
        self._subject = {"tenant": tenant, "user": "demo", "session": session, "model_id": MODEL_ID}
        self._temperature = temperature

    def post(self, step: int, values: Mapping[str, Any], *, base: Setting, left: int) -> Answer:
        """Post the signals of one step, as `newest` names them.

        Raises:
            WatchError: no connection, or an error answer of the shim.
        """
        context = {
            "temperature": self._temperature,
            "top_p": base.top_p,
            "max_tokens": max(left, 1),
            "decoder": DECODERS[base.decoder],
        }
        body = {**self._subject, **values, "window": "step", "step_id": step, "context": context, "tokens_delta": 1}
        try:
            self._connection.request("POST", "/diagnose", json.dumps(body), {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            data = response.read()
        except (OSError, HTTPException) as error:
            self._connection.close()
            msg = f"the shim does not answer: {type(error).__name__}: {error}"
            raise WatchError(msg) from error
        try:
            members = json.loads(data)
            if response.status != _OK:
                msg = f"HTTP {response.status} {members.get('code', '')}: {members.get('detail', '')}"
                raise WatchError(msg)
            return shim_answer(members, base=base, left=left)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"HTTP {response.status}, not an answer of the shim: {type(error).__name__}: {error}"
            raise WatchError(msg) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def newest(made: Mapping[str, NDArray[np.generic]]) -> dict[str, Any]:
    """The newest step of `tcd_signals`' outputs as members of a /diagnose request.

    Raises:
        WatchError: when the step could not be turned into signals (a NaN in logits or hidden states).
    """
    counts = made["NEXT_LENGTHS"][0].tolist()
    if min(counts[: Length.FLAGS]) < 0:
        msg = "the step has no finite signals"
        raise WatchError(msg)
    rows, cols = counts[Length.FEATURE_ROWS], counts[Length.FEATURE_COLS]
    return {
        "trace_vector": [float(made["NEXT_TRACE"][0, counts[Length.TRACE] - 1])],
        "entropy": float(made["NEXT_ENTROPY"][0, counts[Length.ENTROPY] - 1]),
        "spectrum": made["SPECTRUM"][0, : counts[Length.SPECTRUM]].astype(float).tolist(),
        "features": made["NEXT_FEATURES"][0, (rows - 1) * cols : rows * cols].astype(float).tolist(),
    }


def shim_answer(members: Mapping[str, Any], *, base: Setting, left: int) -> Answer:
    """An answer of `/diagnose`; a member of the route that is null leaves what was asked for."""
    route = members["route"]
    tier = route.get("tier", 0)
    limit = route["max_tokens"]
    decoder = route.get("decoder") or DECODERS[0]
    receipt = None
    if members.get("receipt"):
        receipt = Receipt(
            members["receipt"], members["receipt_body"], members["receipt_sig"], members.get("verify_key") or ""
        )
    return Answer(
        score=members["score"],
        p_value=members["p_value"],
        tier=TIERS.index(tier) if isinstance(tier, str) else tier,
        verdict=members["verdict"],
        trigger=bool(members["trigger"]),
        route=Route(
            base.temperature if route["temperature"] is None else route["temperature"],
            base.top_p if route["top_p"] is None else route["top_p"],
            left if limit is None else limit,
            DECODERS.index(decoder),
        ),
        threshold=members.get("threshold"),
        action=members.get("enforced") or members["action"],
        cause=members.get("cause", ""),
        budget=members["budget_remaining"],
        alpha=members.get("alpha_alloc"),
        e_value=members.get("e_value"),
        guarantee=members["guarantee"],
        components={
            name: part["severity"]
            for name, part in members["components"].items()
            if name in {*COMPONENTS, "multivariate"}
        },
        receipt=receipt,
    )
