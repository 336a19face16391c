"""tcd: an anytime-valid, verifiable safety sidecar for LLM inference."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("tcd")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
