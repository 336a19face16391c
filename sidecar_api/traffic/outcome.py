"""What one side said to one request: the part of an answer that is compared, or why there is none."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct


class Path(Struct, frozen=True):
    """The route of an answer, as far as it changes decoding."""

    temperature: float
    top_p: float
    decoder: str
    max_tokens: int
    tier: str


class Decided(Struct, frozen=True):
    """Members of an answer of `/diagnose`; the receipt's are kept as they came."""

    verdict: bool
    trigger: bool
    action: str
    enforced: str
    cause: str
    score: float
    p_value: float
    route: Path
    policy_ref: str
    guarantee: str
    step: int
    components: msgspec.Raw = msgspec.Raw()
    receipt: str | None = None
    receipt_body: str | None = None
    receipt_sig: str | None = None
    verify_key: str | None = None


_decode: Final = msgspec.json.Decoder(Decided)
#: What makes two decisions different ones. Scores and p-values are compared too, and counted apart.
COMPARED: Final = ("action", "enforced", "verdict", "trigger", "cause", "route")


class Outcome(Struct, frozen=True):
    """One request, answered or not.

    Attributes:
        decided: the answer; None where there is none.
        problem: code of the problem then, `transport` where nothing came; else empty.
        detail: of the problem, for people.
        receipt: empty = not asked for or none there, `ok`, else the code that its verification failed with.
        seconds: until the answer.
        retries: how often it was sent again.
    """

    decided: Decided | None
    problem: str = ""
    detail: str = ""
    receipt: str = ""
    seconds: float = 0.0
    retries: int = 0

    @property
    def action(self) -> str:
        """What was decided, or the problem."""
        return self.decided.action if self.decided is not None else f"problem:{self.problem}"

    @property
    def verdict(self) -> str:
        """`failed` or `passed`, or the problem."""
        if self.decided is None:
            return f"problem:{self.problem}"
        return "failed" if self.decided.verdict else "passed"

    def shown(self) -> dict[str, Any]:
        """For people and machines: no receipt, no components."""
        if self.decided is None:
            return {"problem": self.problem, "detail": self.detail}
        names = ("action", "enforced", "verdict", "trigger", "cause", "score", "p_value", "policy_ref", "guarantee")
        return {name: getattr(self.decided, name) for name in names} | {
            "route": msgspec.to_builtins(self.decided.route)
        }


def decided_of(body: bytes) -> Decided:
    """The compared part of an answer.

    Raises:
        msgspec.DecodeError: it is no answer of `/diagnose`.
    """
    return _decode.decode(body)


def different(a: Outcome, b: Outcome) -> tuple[str, ...]:
    """Names of the members in which two outcomes are different decisions."""
    if a.decided is None or b.decided is None:
        return () if a.decided is b.decided and a.problem == b.problem else ("problem",)
    return tuple(name for name in COMPARED if getattr(a.decided, name) != getattr(b.decided, name))


def moved(a: Outcome, b: Outcome) -> bool:
    """Whether the numbers behind the decisions differ."""
    return (
        a.decided is not None
        and b.decided is not None
        and (a.decided.score, a.decided.p_value) != (b.decided.score, b.decided.p_value)
    )
