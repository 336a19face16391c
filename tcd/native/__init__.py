"""Scoring by compiled kernels: the same bits as the numpy code, several times as fast.

The C sources are beside this file; `python -m tcd.native.build` compiles them, and so does building the wheel where
a C compiler is there.
"""

from __future__ import annotations

__all__: list[str] = []
