"""What goes into and comes out of a watched generation: parameters, tcd's answer, one record per token.

All of it crosses Triton as JSON, so reading is strict: a wrong member is refused, never guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, get_args

from tcd.contract import DECODERS
from tcd.demo.sampler import Setting
from tcd.errors import InvalidRequest

Via = Literal["triton", "shim", "none"]
Stop = Literal["", "end of text", "length", "ended by tcd"]

#: Longest generation that the demo model accepts.
MAX_TOKENS: Final = 512
#: What a server does when tcd does not answer: its own fixed, cautious setting.
STATIC: Final = Setting(temperature=0.7, top_p=0.95, decoder=DECODERS.index("no_repeat"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """How to generate and who watches.

    Attributes:
        seed: of the sampler.
        max_tokens: tokens at most, 1 to 512.
        temperature: asked for from the start; under 0.05 decoding is greedy.
        top_p: asked for, throughout.
        change_at: step from which `then_temperature` is asked for instead, -1 = never. This is the fault to provoke.
        then_temperature: see `change_at`.
        via: `triton` calls the ensemble through BLS, `shim` posts to /diagnose, `none` watches nothing.
        shim_url: base URL of the shim.
        session: the session's name, one per generation.
        obey: whether the returned route is applied to the next token.
        hold: calm tokens for which a tightened route stays in force, the server's own hysteresis.
    """

    seed: int = 0
    max_tokens: int = 128
    temperature: float = 0.8
    top_p: float = 0.95
    change_at: int = -1
    then_temperature: float = 0.8
    via: Via = "triton"
    shim_url: str = "http://127.0.0.1:8080"
    session: str = "demo"
    obey: bool = True
    hold: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be generated."""
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) is not (kind is bool) or not isinstance(value, kind):
                msg = f"{name}: {value!r} is not a {kind if isinstance(kind, type) else 'number'}"
                raise InvalidRequest(msg, pointer=f"/{name}")
        heat = (self.temperature, self.then_temperature)
        if (
            not 1 <= self.max_tokens <= MAX_TOKENS
            or min(self.seed, self.hold) < 0
            or not 0 < self.top_p <= 1
            or not all(math.isfinite(t) and 0 <= t <= 100 for t in heat)  # noqa: PLR2004 - hotter is uniform
            or self.via not in get_args(Via)
            or not self.shim_url.startswith("http://")
        ):
            msg = f"parameters out of range: {asdict(self)}"
            raise InvalidRequest(msg)

    def asked(self, step: int) -> Setting:
        """The setting asked for at `step`."""
        hot = 0 <= self.change_at <= step
        return Setting(self.then_temperature if hot else self.temperature, self.top_p)

    def to_json(self) -> str:
        """As the PARAMS tensor carries it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Params:
        """Read the PARAMS tensor; members left out have their defaults.

        Raises:
            InvalidRequest: when it is no JSON object, or a member is unknown, mistyped or out of range.
        """
        try:
            members = json.loads(text)
            return cls(**members)
        except (ValueError, TypeError, RecursionError) as error:
            msg = f"PARAMS: {error}"
            raise InvalidRequest(msg) from error


_KINDS: Final[Mapping[str, Any]] = {
    "seed": int,
    "max_tokens": int,
    "temperature": (int, float),
    "top_p": (int, float),
    "change_at": int,
    "then_temperature": (int, float),
    "via": str,
    "shim_url": str,
    "session": str,
    "obey": bool,
    "hold": int,
}


@dataclass(frozen=True, slots=True)
class Route:
    """What tcd says about the next token; `max_tokens` is how many more may follow, 0 ends the generation."""

    temperature: float
    top_p: float
    max_tokens: float
    decoder: int = 0

    @property
    def setting(self) -> Setting:
        """For the sampler."""
        return Setting(self.temperature, self.top_p, self.decoder)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt as the shim hands it out: body as JSON text, the rest as hex."""

    head: str
    body: str
    signature: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """tcd's answer to one step; members that the Triton ensemble alone does not know keep their defaults."""

    score: float
    p_value: float
    tier: int
    verdict: bool
    route: Route
    trigger: bool = False
    status: int = 0
    threshold: float | None = None
    action: str = ""
    cause: str = ""
    budget: float | None = None
    alpha: float | None = None
    e_value: float | None = None
    guarantee: str = "none (controller off)"
    components: Mapping[str, float] = field(default_factory=dict)
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One emitted token and all that is known about its step.

    Attributes:
        step: 0 for the first emitted token.
        token: its id.
        text: the text that it completes.
        lp: its log-probability at temperature 1, nats.
        entropy: of the prediction it was drawn from, at temperature 1, nats.
        temperature: it was drawn at, `top_p` and `decoder` likewise.
        asked: temperature that was asked for.
        answer: tcd's, None when it failed or nobody watches.
        error: why tcd did not answer.
        llm_ms: milliseconds of the language model.
        tcd_ms: milliseconds of tcd.
        stop: why nothing follows, empty otherwise.
    """

    step: int
    token: int
    text: str
    lp: float
    entropy: float
    temperature: float
    top_p: float
    decoder: int
    asked: float
    answer: Answer | None = None
    error: str = ""
    llm_ms: float = 0.0
    tcd_ms: float = 0.0
    stop: Stop = ""

    def to_json(self) -> str:
        """As the STEP tensor carries it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Token:
        """Read a STEP tensor.

        Raises:
            InvalidRequest: when it is not one.
        """
        try:
            members = json.loads(text)
            answer = members["answer"]
            if answer is not None:
                receipt = answer["receipt"]
                route = Route(**answer["route"])
                answer = Answer(**answer | {"route": route, "receipt": Receipt(**receipt) if receipt else None})
            return cls(**members | {"answer": answer})
        except (ValueError, TypeError, KeyError) as error:
            msg = f"STEP: {error}"
            raise InvalidRequest(msg) from error

    @property
    def alarmed(self) -> bool:
        """Whether tcd called the generation unsafe at this step."""
        return self.answer is not None and self.answer.verdict


assert set(_KINDS) == {f.name for f in fields(Params)}  # noqa: S101 - the table is complete
