"""All experiments at one scale."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from typing import Any, Final

from tcd import __version__
from tcd.bench.controller import alarm, cost, metamorphic, null, shim, supfdr
from tcd.bench.controller.rate import Rate
from tcd.risk_av import RULES


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is run.

    Attributes:
        null: (streams, length) of the vectorised null.
        epochs: through the controller, per concurrency; `shim_epochs` through the shim.
        streams: of experiments 2 and 3; `rule_streams` through the real rules.
        histories: per rule and relation.
        subjects: idle subjects whose memory is measured, 0 = none.
        concurrencies: of experiment 1; `alarm_concurrencies` of experiment 3.
    """

    null: tuple[tuple[int, int], ...] = ((1_000_000, 200), (100_000, 1000))
    epochs: int = 20_000
    shim_epochs: int = 4_000
    streams: int = 20_000
    rule_streams: int = 400
    histories: int = 500
    subjects: int = 1_000_000
    concurrencies: tuple[int, ...] = (1, 4, 16, 64, 256)
    alarm_concurrencies: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)

    @classmethod
    def small(cls) -> Scale:
        """Seconds instead of minutes: what CI runs."""
        return cls(
            null=((20_000, 200),),
            epochs=600,
            shim_epochs=40,
            streams=1000,
            rule_streams=10,
            histories=6,
            subjects=0,
            concurrencies=(1, 64),
            alarm_concurrencies=(1, 8, 128),
        )


SMALL: Final = Scale.small()


def run(scale: Scale) -> dict[str, Any]:
    """Run everything; the report as JSON values."""
    began = time.perf_counter()
    rates: list[Rate] = []
    rates += null.experiment(scale.epochs, scale.null, scale.concurrencies)
    rates += shim.experiment(scale.shim_epochs, scale.concurrencies)
    rates += supfdr.experiment(scale.streams, scale.rule_streams)
    rates += alarm.experiment(scale.streams, 1000, scale.alarm_concurrencies)
    equal = {
        "levels and decisions of 100 streams x 200": null.equal_to_the_controller(100, 200, seed=2),
        "e-process maxima of 40 streams x 200, 32 at once": alarm.equal_to_the_controller(40, 200, 32, seed=2),
    }
    broken = {
        relation: {rule: metamorphic.violations(rule, relation, histories=scale.histories, seed=21) for rule in RULES}
        for relation in metamorphic.RELATIONS
    }
    mean, cut = alarm.cusum_run_length(scale.streams // 10, 5000, 1000.0)
    agreement = supfdr.agreement(max(2, scale.rule_streams // 4), 1000, seed=22)
    out = {
        "version": __version__,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "confidence": 0.999,
        "rates": [rate.to_json() for rate in rates],
        "numpy_equals_the_controller": equal,
        "violations": {"histories": scale.histories, "of": broken},
        "cusum": {"level": 1000.0, "streams": scale.streams // 10, "mean_at_least": mean, "cut_at_5000": cut},
        "delay": {"streams": scale.streams // 10, "change": 1000, "median": alarm.delay(scale.streams // 10, 1000)},
        "online_fdr": {name: {"decisions": n, "different": other} for name, (n, other) in agreement.items()},
        "cost": cost.measure(subjects=scale.subjects),
    }
    fine = [rate.ok for rate in rates] + list(equal.values())
    fine += [not n for by_rule in broken.values() for n in by_rule.values()]
    fine.append(mean >= 1000.0)  # noqa: PLR2004 - the level of the e-CUSUM is its run length
    fine += [not other for _, other in agreement.values()]
    out["ok"] = all(fine)
    out["seconds"] = round(time.perf_counter() - began, 1)
    return out
