"""The setting is taken where there is a glibc; elsewhere nothing happens."""

from __future__ import annotations

import platform
import sys

import pytest

from tcd.demo.recording.memory import release_large_blocks


def test_glibc_takes_the_setting() -> None:
    assert release_large_blocks() is (platform.libc_ver()[0] == "glibc")


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not release_large_blocks()
