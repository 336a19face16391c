"""A stand-alone witness of logs, and the client that asks one: the I/O around `tcd.receipts.witnessing`."""

from __future__ import annotations

from tcd.witness.client import collect, submit
from tcd.witness.server import WitnessServer
from tcd.witness.store import WitnessStore

__all__ = ["WitnessServer", "WitnessStore", "collect", "submit"]
