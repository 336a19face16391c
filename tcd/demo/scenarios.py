"""What the demo shows, and the prompts it may be shown on: none of them is in the recordings the assets were fitted on.

The first prompt that qualifies is the default; `tcd.demo.survey` runs them all, so that nobody has to trust one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from tcd.demo.records import Params, Via

Kind = Literal["healthy", "loop", "blowup"]

#: Unseen prompts, in order of use. Which of them loop under greedy decoding is the text's verdict, not tcd's.
PROMPTS: Final = (
    "Glaciers are rivers of ice that move very slowly. As a glacier slides down a valley, it",
    "The history of the bicycle begins in the early nineteenth century. The first machines had no pedals, and",
    "Honey bees live in large colonies. Each colony has one queen, whose task is",
    "To plant a tomato seedling, start by digging a hole that is twice as wide as the roots. Then",
    "The museum opened its new wing on Saturday. Visitors waited in a long line to see",
    "Dear Professor Lindqvist,\n\nThank you for your letter about the expedition. I would like to",
    "Every evening the ferryman tied his boat to the same wooden post and looked across the lake, where",
    "Q: Why is the sky blue?\nA: Sunlight is made of many colours. When it enters the atmosphere,",
    'def mean(values):\n    """Return the arithmetic mean of a list of numbers."""\n',
    "Recipe: potato soup for four people. Ingredients:\n-",
    "The orchestra had rehearsed for three weeks when the conductor suddenly stopped and said,",
    "Trip report. We left the hut at five in the morning and followed the ridge until",
)
#: The default of each kind: the first prompt, and for the loop the first on which greedy decoding loops.
DEFAULTS: Final[dict[Kind, str]] = {"healthy": PROMPTS[0], "loop": PROMPTS[1], "blowup": PROMPTS[0]}
#: Tokens of a generation.
LENGTH: Final = 144
#: Temperature of the healthy generations, and before the blow-up.
TEMPERATURE: Final = 0.8
#: The blow-up: from this step on, this temperature.
CHANGE_AT: Final = 48
HOT: Final = 2.0
#: Calm tokens for which a tightened route is held: by the demo's server on the direct way, by the shim on the other.
HOLD: Final = 16
#: A fault counts as caught within this many tokens of its onset.
CAUGHT_WITHIN: Final = 32


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of generation on a prompt."""

    kind: Kind
    title: str
    prompt: str
    params: Params

    def run(self, *, via: Via, obey: bool, session: str, shim_url: str = "http://127.0.0.1:8080") -> Params:
        """Parameters of one run of it."""
        hold = HOLD if via == "triton" else 0
        return replace(self.params, via=via, obey=obey, session=session, shim_url=shim_url, hold=hold)


TITLES: Final[dict[Kind, str]] = {
    "healthy": "A healthy generation",
    "loop": "A greedy loop",
    "blowup": "A temperature blow-up",
}


def scenario(kind: Kind, prompt: str | None = None, *, seed: int = 0, length: int = LENGTH) -> Scenario:
    """A scenario of a kind, on its default prompt unless another is given."""
    prompt = DEFAULTS[kind] if prompt is None else prompt
    params = Params(seed=seed, max_tokens=length, temperature=TEMPERATURE, then_temperature=TEMPERATURE)
    if kind == "loop":
        params = replace(params, temperature=0.0, then_temperature=0.0)
    elif kind == "blowup":
        params = replace(params, change_at=CHANGE_AT, then_temperature=HOT)
    return Scenario(kind, TITLES[kind], prompt, params)
