"""Keys of receipts and of the log through the plane: those in use, rotation, retirement, compromise.

They are the files of `tcd keys` (TCD_KEYS_DIR); the shim uses the changed set at once, as after `tcd keys` itself.
Nothing here can make a key more trusted, and no key can be taken away that nothing takes the place of.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from sidecar_api.admin.bodies import STRICT, parsed
from sidecar_api.admin.describe import says
from sidecar_api.admin.plane import Mutation, Plane, Requires
from sidecar_api.admin.tokens import Caller
from sidecar_api.http.runtime import Runtime
from sidecar_api.reload import Reloader
from tcd.errors import ConfigError, Conflict, NotFound, ValidationFailed
from tcd.keystore import KeyStore
from tcd.receipts import PinnedKey

_T = TypeVar("_T")
READING: Final = Requires("receipts:audit", everywhere=True)
CHANGING: Final = Requires("keys:rotate", mutates=True, pair=True, everywhere=True)
_US: Final = 1_000_000


class Rotation(BaseModel):
    """A rotation: for how long receipts of the old key are still taken as of now."""

    model_config = STRICT

    overlap_minutes: Annotated[int, Field(ge=0, le=60 * 24 * 365)] = 5


class Compromise(BaseModel):
    """A theft: leaves that the log had before it; only receipts among these stay valid."""

    model_config = STRICT

    size: Annotated[int, Field(ge=0, le=2**53 - 1)]


class Retirement(BaseModel):
    """Nothing to say."""

    model_config = STRICT


class KeyList(TypedDict):
    """The pinned keys, those in use, and why receipts would not verify (empty: they would)."""

    digest: str
    source: str
    problem: str
    keys: list[dict[str, Any]]


class KeyArea:
    """The keys of a running shim."""

    def __init__(self, runtime: Runtime) -> None:
        """Change those of `runtime`."""
        self._runtime = runtime

    def known(self) -> dict[str, Any]:
        """Public keys, with what each is used for now."""
        ring = self._runtime.keyring
        if ring is None:
            msg = "receipts are off: there are no keys"
            raise NotFound(msg)
        keys = ring.keys
        shown = [{**key.to_json(), "in_use": key.kid in keys.kids} for key in keys.pinned]
        source = "seed" if self._runtime.settings.keys_dir is None else "directory"
        return {"digest": keys.pinned.digest, "source": source, "problem": ring.problem(), "keys": shown}

    def _store(self) -> KeyStore:
        directory = self._runtime.settings.keys_dir
        ring = self._runtime.keyring
        if directory is None or ring is None:
            msg = "the keys follow from one seed (TCD_ATTEST_SK_HEX): only keys of a directory (TCD_KEYS_DIR) change"
            raise Conflict(msg)
        return KeyStore(directory, os.urandom, ring.now_us)

    def look(self, kid: str) -> dict[str, Any]:
        """One key of the directory.

        Raises:
            NotFound: it is not there.
            Conflict: there is no directory.
        """
        return self._found(self._store(), kid).to_json()

    @staticmethod
    def _found(store: KeyStore, kid: str) -> PinnedKey:
        found = store.keyset().get(kid)
        if found is None or found.purpose == "admin":
            msg = "no such key"
            raise NotFound(msg)
        return found

    def rotate(self, args: Any) -> dict[str, Any]:
        """Make a key's successor, and retire the key after `overlap_minutes`."""
        store = self._store()
        old, new = _changed(lambda: store.rotate(args["kid"], overlap_us=args["overlap_minutes"] * 60 * _US))
        return self._used(old.to_json(), new.to_json())

    def retire(self, args: Any) -> dict[str, Any]:
        """End a key's validity now; not the last one that can do what it does."""
        store = self._store()
        key = self._found(store, args["kid"])
        if not self._others(store, key):
            msg = "no other key could sign in its place: rotate it"
            raise Conflict(msg)
        return self._used(_changed(lambda: store.change(key.kid, not_after_us=store.now_us())).to_json())

    async def reached(self, size: int) -> None:
        """See that the log has so many leaves: up to a larger size whoever stole the key could still sign.

        Raises:
            ValidationFailed: it has fewer.
        """
        now = (await self._runtime.ledger.extent()).receipts
        if size > now:
            msg = f"the log has {now} leaves: a larger size would leave the key trusted for those to come"
            raise ValidationFailed(msg, pointer="/size")

    async def compromise(self, args: Any) -> dict[str, Any]:
        """Distrust a key from a size of the log on; a successor is made first where there is none."""
        await self.reached(args["size"])
        store = self._store()
        key = self._found(store, args["kid"])
        made: list[dict[str, Any]] = []
        if key.kid in self._kids() and not self._others(store, key):
            # a compromised key hands over nothing, so the new one begins by itself
            fresh = _changed(
                lambda: store.generate(
                    purpose=key.purpose, origin=key.origin, alg=key.alg, not_before_us=store.now_us()
                )
            )
            made.append(fresh.to_json())
        return self._used(_changed(lambda: store.change(key.kid, compromised_after_size=args["size"])).to_json(), *made)

    def _kids(self) -> frozenset[str]:
        ring = self._runtime.keyring
        return frozenset() if ring is None else ring.keys.kids

    @staticmethod
    def _others(store: KeyStore, key: PinnedKey) -> list[PinnedKey]:
        """Keys that could sign in its place: of its kind, for all tenants, valid as long, with a seed that is here."""
        now, found = store.now_us(), []
        for other in store.keyset().of(key.purpose, key.origin):
            same = other.kid != key.kid and (key.purpose == "receipt" or other.alg == key.alg)
            usable = other.tenants is None and other.compromised_after_size is None and other.valid_at(now)
            lasts = other.not_after_us is None or (key.not_after_us or math.inf) <= other.not_after_us
            if same and usable and lasts and store.holds(other.kid):
                found.append(other)
        return found

    def _used(self, *keys: dict[str, Any]) -> dict[str, Any]:
        try:
            Reloader(self._runtime).keys(source="admin plane")
        except ConfigError as error:
            raise Conflict(error.detail) from None
        return {"keys": list(keys), "in_use": sorted(self._kids())}


def _changed(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except ConfigError as error:
        raise Conflict(error.detail) from None


def add_keys(made: APIRouter, plane: Plane, area: KeyArea) -> None:
    """Add the routes."""

    @made.get("/keys", **says("Keys of receipts and of the log", gives=KeyList, refuses=(404,)))
    async def keys(_: Annotated[Caller, Depends(READING)]) -> Response:
        return JSONResponse(area.known())

    async def propose(request: Request, caller: Caller, action: str, kid: str, told: dict[str, Any]) -> Response:
        shown = {"key": area.look(kid), **told}
        digest = "sha256:" + hashlib.sha256(kid.encode()).hexdigest()
        return await plane.mutate(request, caller, CHANGING, Mutation(action, digest, shown, args={"kid": kid, **told}))

    @made.post("/keys/{kid}:rotate", **says("Propose a key's successor", takes=Rotation))
    async def rotate_key(request: Request, kid: str, caller: Annotated[Caller, Depends(CHANGING)]) -> Response:
        return await propose(request, caller, "keys.rotate", kid, (await parsed(request, Rotation)).model_dump())

    @made.post("/keys/{kid}:retire", **says("Propose the end of a key's validity", takes=Retirement))
    async def retire_key(request: Request, kid: str, caller: Annotated[Caller, Depends(CHANGING)]) -> Response:
        return await propose(request, caller, "keys.retire", kid, (await parsed(request, Retirement)).model_dump())

    @made.post("/keys/{kid}:compromise", **says("Propose to distrust a stolen key", takes=Compromise))
    async def compromise_key(request: Request, kid: str, caller: Annotated[Caller, Depends(CHANGING)]) -> Response:
        told = (await parsed(request, Compromise)).model_dump()
        area.look(kid)
        await area.reached(told["size"])
        return await propose(request, caller, "keys.compromise", kid, told)

    async def rotate(args: Any, _: str) -> Any:
        return area.rotate(args)

    async def retire(args: Any, _: str) -> Any:
        return area.retire(args)

    async def compromise(args: Any, _: str) -> Any:
        return await area.compromise(args)

    plane.perform("keys.rotate", rotate)
    plane.perform("keys.retire", retire)
    plane.perform("keys.compromise", compromise)
