"""How to run a Triton server, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import tcd
from tcd.contract import DETECTOR, DIAGNOSE, DIAGNOSE_RAW, MULTIVARIATE, ROUTING, SIGNALS, SPOTLIGHT

#: The models of the two ensembles, steps first, and the one that rewrites requests.
DEFAULT_MODELS: Final = tuple(
    m.name for m in (SIGNALS, DETECTOR, MULTIVARIATE, ROUTING, DIAGNOSE, DIAGNOSE_RAW, SPOTLIGHT)
)
#: The models that ship with tcd.
DEFAULT_REPOSITORY: Final = Path(tcd.__file__).parent.parent / "model_repository"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """How to run the server.

    Attributes:
        host: address of all three ports.
        http_port: KServe over HTTP; 0 picks a free port, here and below.
        grpc_port: KServe over gRPC.
        metrics_port: Prometheus metrics.
        models: models to load; others of the repositories stay out.
        repositories: model repositories, by default the one that ships with tcd.
        assets: directory of calibration assets for the models, by default the packaged ones.
        spotlight_key: 32 bytes under which `tcd_spotlight` knows nonces; by default it has one of its own.
        log_path: file for the server's log; by default one in a temporary directory that goes with the server.
        verbose: Triton's verbosity, 0 to 3.
        start_timeout: seconds until the server must be ready.
        stop_timeout: seconds for a clean stop before the whole group is killed.
        restrict_admin: put loading, shared memory, tracing and logging behind a random key (it is on the server's
            command line: it keeps the network out, not this machine's users).
        cuda_devices: CUDA_VISIBLE_DEVICES of the server unless the environment has one; Triton starts an instance
            of each model on every GPU that it sees.
        auto_complete: let Triton ask every model for its configuration first: slower, and not needed.
        cuda_pool: bytes of device memory that Triton keeps on each GPU for the tensors between the steps; a pool that
            is too small gives wrong or empty outputs.
        pinned_pool: bytes of page-locked host memory that copies to and from a GPU go through.
        gpu_break_even: logits of a batch from which `tcd_signals` on a GPU takes those there that come from the host;
            0 = never. `make bench-gpu` measures it.
        extra_args: more arguments of `tritonserver`.
    """

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    models: tuple[str, ...] = DEFAULT_MODELS
    repositories: tuple[Path, ...] = (DEFAULT_REPOSITORY,)
    assets: Path | None = None
    spotlight_key: bytes | None = field(default=None, repr=False)
    log_path: Path | None = None
    verbose: int = 0
    start_timeout: float = 120.0
    stop_timeout: float = 15.0
    restrict_admin: bool = True
    cuda_devices: str = "0"
    auto_complete: bool = False
    cuda_pool: int = 256 * 2**20
    pinned_pool: int = 256 * 2**20
    gpu_break_even: int = 0
    extra_args: tuple[str, ...] = field(default=())
