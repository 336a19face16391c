"""The three scenarios over all the demo's prompts, in one process: catch rate, delay and false alarms.

The same functions as in Triton, hence the same bits; nothing is obeyed, so that the faults run their course.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tcd.calibration.assets import AssetSet
from tcd.demo.generate import generate
from tcd.demo.labels import degeneration, verbatim_loop
from tcd.demo.llm import LanguageModel
from tcd.demo.records import Token
from tcd.demo.scenarios import CAUGHT_WITHIN, CHANGE_AT, PROMPTS, Kind, scenario
from tcd.demo.watch import EnsembleWatcher
from tcd.scoring import diagnose_raw


@dataclass(frozen=True, slots=True)
class Labels:
    """What should have happened: first faulty token (-1 without a fault), and tokens before any degeneration."""

    onset: int
    healthy: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One generation of the survey.

    Attributes:
        kind: of the scenario.
        prompt: its prompt.
        tokens: emitted.
        onset: first faulty token, -1 without a fault.
        delay: tokens from the onset to the first alarm at or after it, None when there was none.
        healthy: tokens before any degeneration.
        false_alarms: alarmed steps among them.
    """

    kind: Kind
    prompt: str
    tokens: int
    onset: int
    delay: int | None
    healthy: int
    false_alarms: int

    @property
    def caught(self) -> bool:
        """Whether a fault was caught within 32 tokens."""
        return self.onset >= 0 and self.delay is not None and self.delay <= CAUGHT_WITHIN


def label(kind: Kind, tokens: Sequence[Token]) -> Labels:
    """Label a generation whose route was ignored: by the change of temperature and by what the text rules say.

    A text may also degenerate by itself where no fault was asked for; then it is no false alarm to say so.
    """
    ids = [t.token for t in tokens]
    onset = -1
    if kind == "loop":
        loop = verbatim_loop(ids)
        onset = -1 if loop is None else loop.onset
    elif kind == "blowup" and len(tokens) > CHANGE_AT:
        onset = CHANGE_AT
    first = degeneration(ids)
    ends = [len(tokens), *([onset] if onset >= 0 else []), *([first.onset] if first else [])]
    return Labels(onset, min(ends))


def outcome(kind: Kind, prompt: str, tokens: Sequence[Token]) -> Outcome:
    """Judge one unobeyed generation."""
    labels = label(kind, tokens)
    alarms = [t.step for t in tokens if t.alarmed]
    late = [step - labels.onset for step in alarms if 0 <= labels.onset <= step]
    return Outcome(
        kind=kind,
        prompt=prompt,
        tokens=len(tokens),
        onset=labels.onset,
        delay=min(late, default=None),
        healthy=labels.healthy,
        false_alarms=sum(step < labels.healthy for step in alarms),
    )


def survey(
    model: LanguageModel, assets: AssetSet, *, prompts: Iterable[str] = PROMPTS, length: int | None = None
) -> Iterator[tuple[Outcome, list[Token]]]:
    """Run the three scenarios on every prompt, one after the other."""
    for prompt in prompts:
        for kind in ("healthy", "loop", "blowup"):
            chosen = scenario(kind, prompt, **({} if length is None else {"length": length}))
            params = chosen.run(via="triton", obey=False, session="survey")
            watcher = EnsembleWatcher(lambda t: diagnose_raw(t, assets), temperature=params.temperature)
            tokens = list(generate(model, prompt, params, watcher))
            yield outcome(kind, prompt, tokens), tokens


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Rates over a survey, as JSON members."""
    faults = {
        kind: [o for o in outcomes if o.kind == kind and o.onset >= 0 and o.onset + CAUGHT_WITHIN < o.tokens]
        for kind in ("loop", "blowup")
    }
    healthy = sum(o.healthy for o in outcomes)
    alarms = sum(o.false_alarms for o in outcomes)
    quiet = [o for o in outcomes if o.kind == "healthy" and o.healthy == o.tokens]
    return {
        "healthy_tokens": healthy,
        "false_alarms": alarms,
        "healthy_generations": len(quiet),
        "healthy_generations_alarmed": sum(o.false_alarms > 0 for o in quiet),
        **{
            kind: {
                "faults": len(group),
                "caught": sum(o.caught for o in group),
                "median_delay": median([o.delay for o in group if o.delay is not None] or [0]) if group else None,
            }
            for kind, group in faults.items()
        },
        "outcomes": [asdict(o) for o in outcomes],
    }
