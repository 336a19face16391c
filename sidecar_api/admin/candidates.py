"""Files beside a candidate's assets: what its fit said, and digests of the names of the sessions that it used."""

from __future__ import annotations

from typing import Final

FIT_FILE: Final = "fit.json"
USED_FILE: Final = "used.json"
