"""Metrics and logs of the shim."""

from __future__ import annotations

from tcd.telemetry.exporter import Exporter
from tcd.telemetry.logs import LogWriter

__all__ = ["Exporter", "LogWriter"]
