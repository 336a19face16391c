"""Calibration-conditional p-values as served: table, floor, claim, receipt, replay from the asset's bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tcd.calibration import AssetSet, default_asset_dir, load_assets
from tcd.calibration.assets import Binding, DetectorAsset, MultivariateAsset
from tcd.calibration.codec import decode, encode
from tcd.calibration.conditional import conditional_table, with_confidence
from tcd.contract import detector_key
from tcd.errors import AssetError
from tcd.receipts import KeySet, VerifyPolicy, verify_single
from tcd.routing import DEFAULT_POLICY
from tcd.rows import ScoreResult, ScoreRow
from tcd.scoring import LibraryScorer

N, DELTA = 4000, 0.01
KEY = detector_key("m", "gpu0", "chat", "en", "default")


def conditional_assets() -> AssetSet:
    """The demonstration's weights with 4,000 made-up session maxima per table, as a store would read them."""
    demo = load_assets(default_asset_dir())
    detector, monitor = next(iter(demo.detectors.values())), next(iter(demo.multivariates.values()))
    rng = np.random.default_rng(1)
    maxima, far = np.sort(rng.normal(2.0, 1.0, N)), np.sort(rng.normal(6.0, 1.0, N))
    provenance = replace(detector.provenance, n_sessions=N, demo=False)
    masks = {number: replace(detector.masks[number], sessions=maxima) for number in (1, 15)}
    made = with_confidence(
        replace(detector, provenance=provenance, masks=masks),
        replace(monitor, provenance=provenance, sessions=far),
        DELTA,
    )
    read = [decode(encode(asset)) for asset in made if asset is not None]
    assert isinstance(read[0], DetectorAsset)
    assert isinstance(read[1], MultivariateAsset)
    binding = Binding(KEY[2], 2, read[0].digest, read[1].digest)
    return replace(
        demo,
        detectors={read[0].digest: read[0]},
        multivariates={read[1].digest: read[1]},
        bindings={KEY[2]: binding},
        default=None,
    )


class Recording(LibraryScorer):
    """Scores and remembers the rows."""

    def __init__(self, assets: AssetSet) -> None:
        super().__init__(assets)
        self.seen: list[ScoreRow] = []

    async def score(self, row: ScoreRow, *, timeout: float) -> ScoreResult:
        self.seen.append(row)
        return await super().score(row, timeout=timeout)


async def test_a_served_hypothesis_has_the_adjusted_p_and_says_so(make_client: Any) -> None:
    assets = conditional_assets()
    scorer = Recording(assets)
    client = make_client(scorer, assets=assets)
    policy = VerifyPolicy(KeySet([client.app.runtime.service.judge.receipts.issuer.pinned()]))
    # three tables are in use, so each has a third of delta
    adjusted = conditional_table(N, delta=DELTA / 3)
    table = next(iter(assets.detectors.values())).masks[1].sessions
    rng = np.random.default_rng(4)
    seen = set()
    for t in range(60):
        # a blow-up of the temperature from step 30 on
        trace = -float(rng.exponential(1.0 if t < 30 else 8.0))
        answer = (await client.post({"trace_vector": [trace], "model_id": "m", "step_id": t, "tenant": "t"})).json()
        # a mask without features has the detector's table alone, at the policy's weight
        assert answer["p_floor"] == adjusted[0] / DEFAULT_POLICY.weight
        body = json.loads(answer["receipt_body"])
        assert body["guarantee"] == answer["guarantee"]
        report = verify_single(answer["receipt_body"], head=answer["receipt"], sig=answer["receipt_sig"], policy=policy)
        assert report.ok
        # replay: the same row and the same asset give the same bits
        again = LibraryScorer(assets).score_rows([scorer.seen[-1]])[0]
        assert float.fromhex(again.p_value.hex()) == answer["p_value"]
        if t >= 15:
            assert answer["guarantee"].startswith("supfdr<=0.05|unit=session|epoch=1|calibration=sha256:")
            assert answer["guarantee"].endswith("|csu|confidence=0.99|ledger=memory")
            count = N - int(np.searchsorted(table, again.sup[0]))
            assert answer["p_value"] == min(1.0, adjusted[count] / DEFAULT_POLICY.weight)
            seen.add(answer["p_value"])
    assert len(seen) > 1


async def test_one_marginal_table_in_the_set_makes_every_claim_marginal(make_client: Any) -> None:
    assets = conditional_assets()
    monitor = next(iter(assets.multivariates.values()))
    mixed = replace(assets, multivariates={monitor.digest: replace(monitor, adjusted=None, delta=0.0)})
    client = make_client(LibraryScorer(mixed), assets=mixed)
    for t in range(17):
        answer = await client.step(model_id="m", step_id=t)
    assert answer["guarantee"].endswith("|prds|marginal|ledger=memory")
    assert (assets.confidence, mixed.confidence) == (0.99, None)


async def test_the_unit_block_claims_no_confidence(make_client: Any) -> None:
    assets = conditional_assets()
    client = make_client(LibraryScorer(assets), assets=assets, unit="block", rule="e_lond")
    for t in range(17):
        answer = await client.step(model_id="m", step_id=t)
    assert "csu" not in answer["guarantee"]


def test_the_floor_at_a_thousand_carries_one_session_of_an_epoch() -> None:
    """Statistics.md 2.2: n=1000, alpha=.05 carries one hypothesis alone; with all 15 masks in use it is none."""
    alone = conditional_table(1000)[0]
    assert int(0.05 / (5 * alone)) == 1
    shared = conditional_table(1000, tables=16)[0]
    assert shared / alone == pytest.approx(1.34, abs=0.02)


@pytest.mark.parametrize("spoil", ["short", "last", "under", "falling"])
def test_an_adjusted_table_that_is_none_is_refused(spoil: str) -> None:
    assets = conditional_assets()
    monitor = next(iter(assets.multivariates.values()))
    assert monitor.adjusted is not None
    table = monitor.adjusted.copy()
    if spoil == "short":
        table = table[1:]
    elif spoil == "last":
        table[-1] = 1.5
    elif spoil == "under":
        table[0] = 1e-9
    else:
        table[3] = 0.9
    with pytest.raises(AssetError, match="adjusted"):
        decode(encode(replace(monitor, adjusted=table)))
