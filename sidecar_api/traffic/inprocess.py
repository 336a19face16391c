"""The shim without a server: its own dataplane over the library's scoring, in this process, one request at a time.

Everything that is not a decision is out of the way: no rate limits, no SLO pressure, no deadlines, a clock that
counts requests, randomness from a seed. So the same lines under the same settings give the same decisions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from sidecar_api.app import Edges, create_app
from sidecar_api.outcome import Call
from sidecar_api.pins import FixedAssets
from sidecar_api.service import Service
from sidecar_api.traffic.lines import Line
from sidecar_api.traffic.outcome import Outcome, decided_of
from sidecar_api.traffic.receipts import Receipts
from tcd.calibration.assets import AssetSet
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.config import Settings
from tcd.errors import TcdError
from tcd.ledger import Limits, MemoryLedger
from tcd.rows import ScoreResult, ScoreRow
from tcd.scoring import LibraryScorer

_BEGIN_US: Final = 1_700_000_000_000_000
_STEP_US: Final = 1000
_NEVER: Final = 1e9
#: Generations under way: the one that was quiet longest ends when there is another one. Time ends none.
SESSIONS: Final = 4096
#: What a replay has otherwise than a deployment.
_STILL: Final[dict[str, Any]] = {
    "ledger": "memory",
    "ledger_url": None,
    "replica": "",
    "admin_enable": False,
    "http_rate_cap": _NEVER,
    "http_rate_refill": _NEVER,
    "rate_overrides": (),
    "rate_subjects": SESSIONS,
    "sessions_max": SESSIONS,
    "sessions_max_bytes": 1 << 28,
    "session_idle_s": _NEVER,
    "session_min_idle_s": 0.0001,
    "deadline_ms": _NEVER,
    "deadline_max_ms": _NEVER,
    "slo_ms": _NEVER,
    "log_enable": False,
    "log_witnesses": None,
    "log_no_quorum": "publish",
    "log_dir": None,
    "log_decisions": False,
    "log_level": "error",
    "decision_log": None,
    "signal_log": None,
    "otel_enable": False,
    "keys_dir": None,
    "witness": False,
}


def still(settings: Settings, *, receipts: bool, seed: int) -> Settings:
    """Settings of a deployment as a replay uses them."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    key = hashlib.sha256(f"tcd replay {seed}".encode()).hexdigest()
    return Settings(**{**values, **_STILL, "receipts_enable": receipts, "attest_sk_hex": key})


class Remembering:
    """`tcd.rows.Scorer` of sides that have the same assets: a row that was just scored for one is not for the other."""

    def __init__(self, place: Path | AssetSet) -> None:
        """Score with a fixed set of assets, which may be loaded from `place`."""
        self.place = place
        self.assets = place if isinstance(place, AssetSet) else load_assets(place)
        self._scorer = LibraryScorer(self.assets)
        self._last: tuple[tuple[Any, ...], ScoreResult, float] | None = None
        self._spared = 0.0

    def clock(self) -> float:
        """Seconds, of which those that were spared have passed too: every side takes the time it would take alone."""
        return perf_counter() + self._spared

    async def score(self, row: ScoreRow, *, timeout: float) -> ScoreResult:
        """See `tcd.rows.Scorer`; the same bits as those of a row scored again."""
        arrays = (row.trace, row.entropy, row.spectrum, row.features)
        rest = (row.key, row.policy, row.alpha, row.sup, row.base, row.controller, row.unit)
        # copies: a window may be written to once its row was scored
        asked = (*(array.tobytes() for array in arrays), row.features.shape, rest)
        if self._last is not None and self._last[0] == asked:
            self._spared += self._last[2]
            return self._last[1]
        began = perf_counter()
        result = await self._scorer.score(row, timeout=timeout)
        self._last = asked, result, perf_counter() - began
        return result


class InProcess:
    """A `Side` that decides here."""

    concurrent = False

    def __init__(self, name: str, service: Service, receipts: Receipts | None, scorer: Remembering) -> None:
        """Decide by `service`, which runs and scores by `scorer`."""
        self.name = name
        self.scorer = scorer
        self._service = service
        self._receipts = receipts
        self._number = 0

    async def decide(self, line: Line) -> Outcome:
        """See `Side`."""
        self._number += 1
        began = self.scorer.clock()
        # nothing waits here, and what has a deadline is remembered until it has passed
        call = Call(request_id=f"replay-{self._number}", given=False, deadline=math.inf)
        try:
            answer = await self._service.diagnose(line.request, call)
        except TcdError as error:
            return Outcome(None, error.code, error.detail, seconds=self.scorer.clock() - began)
        decided = decided_of(answer.body)
        receipt = "" if self._receipts is None else self._receipts.check(line.request, decided)
        return Outcome(decided, receipt=receipt, seconds=self.scorer.clock() - began)


@asynccontextmanager
async def in_process(
    name: str,
    settings: Settings,
    *,
    assets: Path | AssetSet | None = None,
    verify: bool = False,
    seed: int = 0,
    beside: InProcess | None = None,
) -> AsyncIterator[InProcess]:
    """A shim in this process.

    Args:
        name: for people.
        settings: of the deployment; its bundle of policies too.
        assets: calibration; None = that of the settings, else the demonstration's.
        verify: make receipts and verify each.
        seed: of keys and names.
        beside: a side that is asked the same; with the same assets, what it has scored is not scored again.

    Raises:
        ConfigError, AssetError: the settings, the policies or the assets cannot be used.
    """
    place = assets or settings.assets or default_asset_dir()
    shared = beside is not None and isinstance(place, Path) and beside.scorer.place == place
    scorer = beside.scorer if beside is not None and shared else Remembering(place)
    used = still(settings, receipts=verify, seed=seed)
    ledger = MemoryLedger(
        Limits(bodies=1, heads=1, events=1, chains=used.sessions_max + used.max_streams + 1, answers=1)
    )
    app = create_app(
        used,
        scorer=scorer,
        assets=FixedAssets(scorer.assets),
        edges=Edges(now_us=_clock(), random=_random(seed), ledger=ledger),
    )
    keeper = app.runtime.service.judge.receipts
    receipts = None if keeper is None else Receipts.of_issuer(keeper.issuer.pinned())
    async with app.router.lifespan_context(app):
        yield InProcess(name, app.runtime.service, receipts, scorer)


def _clock() -> Callable[[], int]:
    now = _BEGIN_US

    def tick() -> int:
        nonlocal now
        now += _STEP_US
        return now

    return tick


def _random(seed: int) -> Callable[[int], bytes]:
    number = 0

    def draw(size: int) -> bytes:
        nonlocal number
        number += 1
        return hashlib.shake_256(f"{seed} {number}".encode()).digest(size)

    return draw
