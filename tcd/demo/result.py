"""What a demo run found out: the runs, their judgement and the receipts' verification. Input of report and summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tcd.demo.records import Token, Via
from tcd.demo.scenarios import CAUGHT_WITHIN, TITLES, Kind


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked, whether it held, and what was found."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One watched generation.

    Attributes:
        kind: of the scenario.
        prompt: its prompt.
        via: the way to tcd.
        obey: whether the route was applied.
        tokens: as emitted.
        onset: first faulty token had nothing been done, -1 without a fault.
        healthy: tokens before any degeneration had nothing been done.
        checks: the verification of the receipts, empty without any.
    """

    kind: Kind
    prompt: str
    via: Via
    obey: bool
    tokens: Sequence[Token]
    onset: int = -1
    healthy: int = 0
    checks: Sequence[Check] = ()

    @property
    def title(self) -> str:
        """For people."""
        return f"{TITLES[self.kind]}, {VIAS[self.via]}, route {'obeyed' if self.obey else 'ignored'}"

    @property
    def text(self) -> str:
        """The generated text."""
        return "".join(t.text for t in self.tokens)

    @property
    def caught(self) -> int | None:
        """First alarmed step at or after the onset."""
        return next((t.step for t in self.tokens if t.alarmed and 0 <= self.onset <= t.step), None)

    @property
    def delay(self) -> int | None:
        """Tokens from the onset to the alarm."""
        return None if self.caught is None else self.caught - self.onset

    @property
    def false_alarms(self) -> int:
        """Alarmed steps of healthy text."""
        return sum(t.alarmed and t.step < self.healthy for t in self.tokens)

    @property
    def errors(self) -> int:
        """Steps that tcd did not answer."""
        return sum(bool(t.error) for t in self.tokens)

    @property
    def receipts(self) -> int:
        """Steps that came with a receipt."""
        return sum(t.answer is not None and t.answer.receipt is not None for t in self.tokens)

    def expectation(self) -> Check:
        """What this run has to show: a fault is caught within 32 tokens, healthy text is left alone."""
        name = self.title
        problems = []
        if not self.tokens:
            problems.append("no token came")
        if self.errors:
            problems.append(f"{self.errors} steps were not answered")
        if self.false_alarms:
            problems.append(f"{self.false_alarms} false alarms")
        if self.kind != "healthy":
            if self.onset < 0:
                problems.append("the fault did not show")
            elif self.delay is None or self.delay > CAUGHT_WITHIN:
                problems.append(f"not caught within {CAUGHT_WITHIN} tokens")
        problems += [f"{check.name}: {check.detail}" for check in self.checks if not check.ok]
        return Check(name, not problems, "; ".join(problems) or self._good())

    def _good(self) -> str:
        if self.kind == "healthy":
            return f"{len(self.tokens)} tokens, left alone"
        return f"caught at token {self.caught}, {self.delay} after the onset"


#: The ways to tcd, for people.
VIAS: dict[Via, str] = {"triton": "Triton ensemble", "shim": "HTTP shim", "none": "unwatched"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """All of it.

    Attributes:
        source: `live` (SmolLM2 in Triton) or `replay` (a recorded trace).
        about: facts for people, label to text.
        runs: in order of presentation.
        survey: `survey.summary`, None when it was not asked for.
    """

    source: Literal["live", "replay"]
    about: Mapping[str, str]
    runs: Sequence[Run] = ()
    survey: Mapping[str, Any] | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def expectations(self) -> list[Check]:
        """One per run."""
        return [run.expectation() for run in self.runs]

    @property
    def ok(self) -> bool:
        """Whether there are runs and all expectations hold."""
        return bool(self.runs) and all(check.ok for check in self.expectations)

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "ok": self.ok,
            "source": self.source,
            "about": dict(self.about),
            "notes": list(self.notes),
            "runs": [_summary(run) for run in self.runs],
            **({"survey": dict(self.survey)} if self.survey is not None else {}),
        }


def _summary(run: Run) -> dict[str, Any]:
    answers = [t.answer for t in run.tokens if t.answer is not None]
    check = run.expectation()
    return {
        "kind": run.kind,
        "via": run.via,
        "obey": run.obey,
        "prompt": run.prompt,
        "ok": check.ok,
        "detail": check.detail,
        "tokens": len(run.tokens),
        "stop": run.tokens[-1].stop if run.tokens else "",
        "onset": run.onset,
        "caught": run.caught,
        "delay": run.delay,
        "false_alarms": run.false_alarms,
        "errors": run.errors,
        "receipts": run.receipts,
        "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in run.checks],
        "guarantee": answers[-1].guarantee if answers else "",
        "budget": answers[-1].budget if answers else None,
        "llm_ms": _mean([t.llm_ms for t in run.tokens]),
        "tcd_ms": _mean([t.tcd_ms for t in run.tokens]),
        "text": run.text,
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 3) if values else 0.0
