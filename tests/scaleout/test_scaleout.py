"""Three Tritons and three shims on PostgreSQL behind HAProxy: every part dies under load once, and nothing is lost."""

from __future__ import annotations

import pytest

pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")

from tests.scaleout.report import markdown, plots
from tests.scaleout.run import with_faults


@pytest.mark.long
def test_each_part_dies_under_load_and_nothing_is_lost() -> None:
    found = with_faults(seconds=4.0, calm=4.0, callers=24)
    # what is lost, decided twice, unsigned or overspent ends the run: see check
    after, faults = found["failover"]["afterwards"], found["failover"]["faults"]
    assert after["answered"] > 0
    assert after["sent_again"] > 0
    assert after["most_spent_of_alpha"] <= 1.0 + 1e-12
    assert found["failover"]["gave_up"] == 0
    assert found["failover"]["statuses"].keys() <= {"200"}
    assert [row["part"] for row in faults] == ["triton-a", "shim-a", "haproxy", "postgres"]
    for row in faults:
        # it comes back by itself
        assert row["after"]["per_second"] > 0, row
    # sessions of a shim that went begin anew elsewhere; who goes where is `test_balancer`'s
    assert faults[1]["joined"] > 0
    # the others score: a Triton that dies under a row costs no decision
    assert faults[0]["degraded"] == 0
    whole = {**found, "down_s": 3.0, "single": found["whole"], "machine": {"cores": 2, "cpu": "x", "load": 0.0}}
    assert "postgres" in markdown(whole, images="scaleout-")
    assert plots(whole)["faults"].startswith("<svg")
