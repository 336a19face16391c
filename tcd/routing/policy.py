"""The routing policy that ships with tcd, used for policy id 0 when a manifest names none."""

from __future__ import annotations

from typing import Final

from tcd.calibration.assets import Provenance, RoutingPolicy, TierRule
from tcd.contract import DECODERS, Status

#: Cautious: a clamp that takes a greedy loop and a temperature blow-up back to where text is healthy, and no
#: repeated n-grams. Strict: end the generation.
DEFAULT_POLICY: Final = RoutingPolicy(
    digest="sha256:" + "0" * 64,
    provenance=Provenance(
        source="tcd", n_steps=0, n_sessions=0, horizon=0, software="tcd", demo=False, notes="built-in default"
    ),
    name="default",
    # half the level for a monitor that sees little would cost most of the power (docs/detection.md)
    weight=0.9,
    drift=0.5,
    failed=int(Status.FAILED | Status.NONFINITE | Status.BAD_INPUT),
    tiers=(
        TierRule(),
        TierRule(temperature=(0.6, 0.8), top_p=0.95, max_tokens=512, decoder=DECODERS.index("no_repeat")),
        TierRule(temperature=(0.6, 0.8), top_p=0.9, max_tokens=0, decoder=DECODERS.index("no_repeat")),
    ),
)
