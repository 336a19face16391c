"""The simulations of the plan, small: bounds are held, what is done wrong is seen, changed proofs are refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tcd.errors import VerificationError
from tcd.receipts.merkle import MerkleTree
from tests.scale import report
from tests.scale.__main__ import REPORTS, numbers, simulate
from tests.scale.guarantee import BROKEN, SOUND, broken, power, sound
from tests.scale.logs import Rooted, entry, proof_bytes
from tests.scale.spread import spread


@pytest.mark.parametrize("name", ["split over 4 cells", "4 cells, everything dies and moves, callers repeat"])
def test_false_alarms_over_cells(name: str) -> None:
    found = sound(name, epochs=300, seed=1)
    assert found.n == 300
    assert found.ok, found


def test_a_tenant_with_its_whole_alpha_in_each_cell_is_seen() -> None:
    found = broken("whole alpha in each cell", epochs=300, seed=1)
    assert found.ok, found


@pytest.mark.long
@pytest.mark.parametrize("name", SOUND)
def test_false_alarms_over_cells_at_length(name: str) -> None:
    found = sound(name, epochs=4_000, seed=2)
    assert found.ok, found


@pytest.mark.long
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_done_wrong_is_seen(name: str) -> None:
    found = broken(name, epochs=1_000, seed=2)
    assert found.ok, found


def test_a_split_keeps_the_level_and_most_of_the_power() -> None:
    # the standard error of each is 0.016
    assert power(8, sessions=3_000, share=0.3, seed=3) > power(1, sessions=3_000, share=0.3, seed=3) - 0.15


def test_load_spreads_once_large_tenants_are_split() -> None:
    found = spread(100, tenants=50_000, exponent=1.1, seed=1, piece=0.02)
    assert found.most > 10
    assert found.split < 1.6
    assert found.moved < 0.02
    # what is placed is everything
    assert found.subjects >= 1e9 / 100


def test_a_proof_through_two_trees_and_every_change_of_it() -> None:
    shards = [MerkleTree(entry(n, i) for i in range(5 + n)) for n in range(7)]
    rooted = Rooted.over(shards)
    root = rooted.upper.root()
    for shard in range(7):
        for index in range(5 + shard):
            rooted.proof(shard, index).check(entry(shard, index), root)
    proof = rooted.proof(3, 4)
    wrong = [
        dataclasses.replace(proof, shard=4),
        dataclasses.replace(proof, index=3),
        dataclasses.replace(proof, size=9),
        dataclasses.replace(proof, root=bytes(32)),
        dataclasses.replace(proof, path=proof.path[1:]),
        dataclasses.replace(proof, upper_path=(bytes(32), *proof.upper_path[1:])),
    ]
    for changed in wrong:
        with pytest.raises(VerificationError):
            changed.check(entry(3, 4), root)
    with pytest.raises(VerificationError):
        proof.check(entry(3, 3), root)
    # 3 hashes up to 8 leaves, 3 up to 7 shards, the shard's root
    assert proof.hash_bytes == proof_bytes(shards=7, leaves=8) == 32 * 7


def test_the_published_page_is_of_its_data_and_its_plan_of_the_reports() -> None:
    published = json.loads((REPORTS / "scale.json").read_text())
    assert (REPORTS / "scale.md").read_text() == report.markdown(published, images="scale-")
    assert published["plan"] == numbers()
    assert all(row["ok"] for row in published["guarantee"])


@pytest.mark.long
def test_the_whole_report() -> None:
    found = simulate(epochs=200, broken_epochs=400, sessions=2_000)
    assert report.plots(found)["simulation"].startswith("<svg")
    assert "held" in report.markdown({**found, "plan": numbers()})
