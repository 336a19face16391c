"""What `tcd serve` chooses for speed by the machine it is on."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tcd.cli import serve


@pytest.mark.parametrize(("cores", "calls"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (64, 4)])
def test_a_server_on_few_cores_is_asked_once_at_a_time(cores: int, calls: int) -> None:
    assert serve._eager(cores) == calls


def test_threads_wait_for_the_interpreter_less_than_for_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    nothing: Any = None

    async def serving(*_: Any) -> None:
        seen.append(sys.getswitchinterval())

    monkeypatch.setattr(serve, "_serve", serving)
    before = sys.getswitchinterval()
    try:
        serve._run(nothing, nothing, nothing)
    finally:
        sys.setswitchinterval(before)
    assert seen == [pytest.approx(serve._SWITCH)]
    assert before > serve._SWITCH
