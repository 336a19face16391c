"""A proxy before an OpenAI-compatible server, as ASGI middleware and as a reverse proxy. Needs the extra `proxy`."""

from __future__ import annotations

from tcd.proxy.judge import Judge
from tcd.proxy.metrics import ProxyMetrics
from tcd.proxy.middleware import ROUTES, Options, ProxyMiddleware
from tcd.proxy.policies import Policies, Resolved
from tcd.proxy.rewriting import Rewriting
from tcd.proxy.upstream import Limits, Upstream
from tcd.proxy.watch import Watching

__all__ = [
    "ROUTES",
    "Judge",
    "Limits",
    "Options",
    "Policies",
    "ProxyMetrics",
    "ProxyMiddleware",
    "Resolved",
    "Rewriting",
    "Upstream",
    "Watching",
]
