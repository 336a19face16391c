"""An admin plane in process, three operators, and a log of what was recorded."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import httpx2

from sidecar_api.admin.app import AdminApp, create_admin, served
from sidecar_api.admin.areas import Areas
from sidecar_api.admin.budgets import BudgetQuery
from sidecar_api.admin.calibrations import Calibrations
from sidecar_api.admin.openapi import routes
from sidecar_api.admin.plane import Limits, Plane, Requires
from sidecar_api.admin.principals import SCOPES, KeySet, Principals
from sidecar_api.admin.receipts import ReceiptSearch
from sidecar_api.admin.replays import Replays
from sidecar_api.admin.routes import Outside
from sidecar_api.admin.store import AdminStore, memory_store
from sidecar_api.http.runtime import Runtime
from tcd.client.admin import OperatorKey, sign
from tcd.config import Settings
from tcd.errors import NotFound, Unavailable
from tcd.ledger import MemoryLedger
from tcd.ledger.search import ReceiptIndex
from tcd.rate_limit import Limit

HOST = "admin.test:8081"
URL = f"http://{HOST}"
BASE = "/admin/v1"
WIDE = Limit(1e9, 1e9)
SETTINGS: dict[str, Any] = {"ledger": "memory"}
#: The inventory: every route and what it requires; None is the enrolment.
ROUTES: dict[tuple[str, str], Requires | None] = {
    (method, path.removeprefix(BASE)): gate if isinstance(gate, Requires) else None
    for (method, path), (_, gate) in served(routes()).items()
}


class Acts:
    """What was recorded, in order."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, str]] = []
        self.reasons: list[str] = []
        self.broken = False

    async def record(self, action: str, actor: str, digest: str, *, reason: str = "") -> str:
        if self.broken:
            msg = "the ledger is away"
            raise Unavailable(msg)
        self.made.append((action, actor, digest))
        self.reasons.append(reason)
        return f"{len(self.made):064x}"


class Nothing:
    """Areas of a shim that has nothing: their own tests have a shim (tests/integration/admin)."""

    def __getattr__(self, _: str) -> Nothing:
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        msg = "no such thing"
        raise NotFound(msg)


class Shim:
    """What the plane shows and changes of a shim."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.kept = MemoryLedger()
        self.index = ReceiptIndex(":memory:", self.kept)
        self.replays: Replays | None = None
        self.calibrations: Calibrations | None = None

    def put(self, files: dict[str, str]) -> dict[str, Any]:
        self.files = files
        return self.check(files)

    @staticmethod
    def check(files: dict[str, str]) -> dict[str, Any]:
        digest = "sha256:" + hashlib.sha256(json.dumps(files).encode()).hexdigest()
        return {"digest": digest, "policies": [], "remarks": [], "loosens": [], "refs": sorted(files)}

    def show(self, asked: BudgetQuery, *, tenant: str) -> dict[str, Any]:
        return {"tenant": asked.tenant, "asked_by": tenant}

    async def ledger(self) -> dict[str, Any]:
        return {"receipts": 0}

    def outside(self) -> Outside:
        return Outside(
            config=lambda: {"config_hash": "sha256:x", "settings": {"alpha": "0.05"}},
            policies=lambda: {"digest": "sha256:y", "policies": []},
            check_policies=self.check,
            put_policies=self.put,
            receipts=ReceiptSearch(self.kept, self.index, digest=lambda *_: "sha256:" + "ab" * 32),
            budgets=self,
            replays=self.replays,
            areas=cast("Areas", Nothing()),
            calibrations=self.calibrations,
        )


class Admin:
    """An app, its operators, and requests to it."""

    def __init__(
        self,
        folder: Path,
        *,
        enrolled: bool = True,
        limits: Limits | None = None,
        store: AdminStore | None = None,
        acts: Acts | None = None,
        like: Admin | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        """A plane in `folder`; `like` another one's operators, shim and log."""
        self.folder = folder
        made = [OperatorKey.generate(name) for name in ("alice", "bob", "carol")] if like is None else like.operators
        self.operators: list[OperatorKey] = made
        self.alice, self.bob, self.carol = made
        self.acts: Acts = acts or (Acts() if like is None else like.acts)
        self.shim: Shim = Shim() if like is None else like.shim
        if runtime is not None:
            self.shim.calibrations = Calibrations(runtime, folder)
        self.shim.replays = Replays(folder, lambda: Settings(**SETTINGS))
        self.skew = 0.0
        if enrolled:
            Principals(self.keys()).save(folder / "principals.json")
        self.plane = Plane(
            folder,
            acts=self.acts,
            store=store or memory_store(),
            random=lambda n: uuid.uuid4().bytes[:n].ljust(n, b"\7"),
            now=lambda: time.time() + self.skew,
            limits=limits or Limits(WIDE, WIDE, WIDE),
        )
        # signatures that a test makes now are not from before the start
        self.plane.signatures._since -= 1
        self.app: AdminApp = create_admin(self.plane, self.shim.outside(), hosts=[HOST])

    @classmethod
    def at(cls, folder: Path, *, store: AdminStore, acts: Acts | None = None) -> Admin:
        """The plane of a folder that another one with `save_keys` was in."""
        like = cls.__new__(cls)
        like.operators = [OperatorKey.load(folder / f"{name}.key") for name in ("alice", "bob", "carol")]
        like.acts, like.shim = acts or Acts(), Shim()
        return cls(folder, enrolled=False, store=store, like=like)

    def save_keys(self) -> None:
        """Keep the operators' keys for `at`."""
        for key in self.operators:
            key.save(self.folder / f"{key.principal}.key")

    def keys(self, *more: OperatorKey) -> KeySet:
        """Alice and Bob may do everything, Carol reads, for one tenant only."""
        every = [key.public(SCOPES) for key in (self.alice, self.bob, *more)]
        return KeySet.model_validate_json(
            json.dumps({"keys": [*every, self.carol.public(["policy:read", "policy:write"], tenant="acme")]})
        )

    async def send(self, method: str, path: str, *, content: bytes = b"", headers: dict[str, str] | None = None) -> Any:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=self.app)) as client:
            return await client.request(method, URL + path, content=content or None, headers=headers)

    async def get(self, path: str, by: OperatorKey, scopes: Sequence[str] = SCOPES) -> Any:
        return await self.send("GET", BASE + path, headers={"authorization": f"Bearer {by.token(scopes)}"})

    async def call(
        self,
        method: str,
        path: str,
        by: OperatorKey,
        body: Any = None,
        *,
        scopes: Sequence[str] = SCOPES,
        key: str | None = None,
        bearer: str | None = None,
    ) -> Any:
        """A signed request."""
        content = b"" if body is None else json.dumps(body).encode()
        headers = {
            "authorization": f"Bearer {bearer or by.token(scopes)}",
            "idempotency-key": key or uuid.uuid4().hex,
        }
        headers = sign(by, method, URL + BASE + path, headers, content)
        return await self.send(method, BASE + path, content=content, headers=headers)
