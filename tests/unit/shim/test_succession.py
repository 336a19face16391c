"""Who counts as lost: by the watcher's own clock, and only while it looks."""

from __future__ import annotations

from sidecar_api.succession import Watched
from tcd.ledger.shared import Member


def test_a_member_is_lost_after_a_time_without_a_sign_in_which_it_was_looked_for() -> None:
    watched = Watched()
    steady, silent = [Member(1, "", str(n)) for n in range(9)], Member(2, "", "x")
    found = [watched.lost([steady[n], silent], 100.0 + n, 4.0) for n in range(9)]
    assert found == [[], [], [], [], [], [2], [2], [2], [2]]
    assert watched.lost([steady[8], Member(2, "", "y")], 109.0, 4.0) == []


def test_a_watcher_that_was_away_judges_nobody_by_that_time() -> None:
    watched = Watched()
    member = [Member(1, "", "x")]
    assert watched.lost(member, 100.0, 4.0) == []
    assert watched.lost(member, 190.0, 4.0) == []
    assert [watched.lost(member, 191.0 + n, 4.0) for n in range(5)] == [[], [], [], [], [1]]
