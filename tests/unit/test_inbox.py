"""A queue and its thread: order, bounds, and that a stop loses nothing that waits."""

from __future__ import annotations

import queue
import threading

import pytest

from tcd.inbox import Inbox


def test_what_waited_before_the_start_is_taken_in_order_and_the_stop_waits_for_it() -> None:
    taken: list[int] = []
    inbox: Inbox[int] = Inbox("test", lambda: taken.extend(inbox), limit=3)
    for number in range(3):
        inbox.put(number)
    with pytest.raises(queue.Full):
        inbox.put(3)
    inbox.start()
    inbox.start()
    inbox.stop(timeout=60)
    assert taken == [0, 1, 2]
    assert inbox.empty


def test_batches_are_bounded_and_go_on_to_the_end() -> None:
    taken: list[list[int]] = []
    inbox: Inbox[int] = Inbox("test", lambda: taken.extend(inbox.batches(most=4, seconds=60)), limit=100)
    for number in range(10):
        inbox.put(number)
    inbox.start()
    inbox.stop(timeout=60)
    assert [number for batch in taken for number in batch] == list(range(10))
    assert max(map(len, taken)) == 4


def test_silence_is_an_empty_batch() -> None:
    silent = threading.Event()

    def work() -> None:
        for batch in inbox.batches(most=4, seconds=0.001):
            if not batch:
                silent.set()

    inbox: Inbox[int] = Inbox("test", work, limit=1)
    inbox.start()
    assert silent.wait(60)
    inbox.stop(timeout=60)


def test_a_thread_that_is_stuck_is_left_alone() -> None:
    go, taken = threading.Event(), threading.Event()

    def work() -> None:
        for _ in inbox:
            taken.set()
            go.wait(60)

    inbox: Inbox[int] = Inbox("test", work, limit=1)
    inbox.start()
    inbox.put(0)
    assert taken.wait(60)
    inbox.put(1)
    inbox.stop(timeout=0.01)
    assert not inbox.empty
    go.set()
    inbox.stop(timeout=60)
    assert inbox.empty
