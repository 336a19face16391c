"""What `tcd doctor` looks at: each check takes what it judges and gives findings, each with what to do."""

from __future__ import annotations

from tcd.doctor.finding import Finding, Status, worst

__all__ = ["Finding", "Status", "worst"]
