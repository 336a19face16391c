"""Checks of this implementation against files of reference vectors: one checker per format, in `registry`."""

from __future__ import annotations

from tcd.conformance.findings import Finding, Malformed
from tcd.conformance.loading import load
from tcd.conformance.registry import CHECKERS, Report, check

__all__ = ["CHECKERS", "Finding", "Malformed", "Report", "check", "load"]
