"""WebSocket `/v1/stream`: one session per socket, one message per step."""

from __future__ import annotations

from sidecar_api.stream.socket import Stream

__all__ = ["Stream"]
