"""Recording labelled generations of the demo's model, in the format that calibrations are fitted from."""

from __future__ import annotations
