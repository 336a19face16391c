"""Servers that the tests of this folder may hurt, and one that they leave healthy."""

from __future__ import annotations

from tests.integration.conftest import healed, own_triton, triton_server

__all__ = ["healed", "own_triton", "triton_server"]
