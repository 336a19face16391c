"""The trust graph through the plane: who is trusted how far and why, evidence of operators, dependencies.

What lowers trust takes one person; what gives some back, or takes a dependency away, takes two.
"""

from __future__ import annotations

import hashlib
import json
import queue
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, field_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from sidecar_api.admin.bodies import ASKED, STRICT, Name, asked, parsed
from sidecar_api.admin.describe import says
from sidecar_api.admin.plane import Mutation, Plane, Requires
from sidecar_api.admin.tokens import Caller
from sidecar_api.http.runtime import Runtime
from sidecar_api.schemas import TEXT_PATTERN
from sidecar_api.trusting import TrustFeed
from tcd.errors import Conflict, NotFound, Unavailable
from tcd.trust import Node

READING: Final = Requires("policy:read", everywhere=True)
LOWERING: Final = Requires("trust:write", mutates=True, everywhere=True)
RAISING: Final = Requires("trust:write", mutates=True, pair=True, everywhere=True)
_Text = Annotated[str, Field(min_length=3, max_length=160, pattern=TEXT_PATTERN)]


def _node(text: str) -> str:
    Node.parse(text)
    return text


class TrustQuery(BaseModel):
    """Which nodes."""

    model_config = ASKED

    below: Annotated[float, Field(ge=0, le=1)] = 1.0
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000


class NodeQuery(BaseModel):
    """One node, `kind:name`."""

    model_config = ASKED

    node: _Text

    _parses = field_validator("node")(_node)


class Evidence(BaseModel):
    """What an operator has seen: about whom, and an id of it (a receipt's head, a ticket) that counts once for it."""

    model_config = STRICT

    node: _Text
    evidence: Name

    _parses = field_validator("node")(_node)


class Dependency(BaseModel):
    """Who depends on whom, and how much, in (0, 1]."""

    model_config = STRICT

    node: _Text
    on: _Text
    weight: Annotated[float, Field(gt=0, le=1, strict=False)] = 1.0

    _parses = field_validator("node", "on")(_node)


class Ends(BaseModel):
    """A dependency that is no more."""

    model_config = STRICT

    node: _Text
    on: _Text

    _parses = field_validator("node", "on")(_node)


class Scores(TypedDict):
    """Nodes, least trusted first, and dependencies."""

    nodes: list[dict[str, Any]]
    known: int
    edges: list[dict[str, Any]]


class Told(TypedDict):
    """Why a node is trusted as it is."""

    node: str
    trust: float
    own: float
    good: float
    bad: float
    paths: list[dict[str, Any]]


class TrustArea:
    """The trust graph of a running shim."""

    def __init__(self, runtime: Runtime) -> None:
        """Show and change that of `runtime`."""
        self._runtime = runtime

    def _feed(self) -> TrustFeed:
        found = self._runtime.service.judge.trust
        if found is None:
            msg = "the trust graph is off (TCD_TRUST_ENABLE)"
            raise NotFound(msg)
        return found

    def scores(self, below: float, limit: int) -> dict[str, Any]:
        """Least trusted first."""
        feed = self._feed()
        every = sorted((trust, str(node)) for node, trust in feed.graph.scores(time.time()).items())
        nodes = [{"node": node, "trust": trust} for trust, node in every if trust <= below]
        edges = [
            {"node": str(a), "on": str(b), "weight": w, "by": "settings" if (a, b) in feed.fixed else "operators"}
            for a, b, w in feed.graph.edges()[:limit]
        ]
        return {"nodes": nodes[:limit], "known": len(every), "edges": edges}

    def explain(self, node: str) -> dict[str, Any]:
        """Why; the worst chains of dependencies first."""
        told = self._feed().graph.explain(Node.parse(node), time.time())
        paths = [{"path": [str(n) for n in nodes], "leaves": left} for nodes, left in told.paths]
        return {
            "node": node, "trust": told.trust, "own": told.own, "good": told.good, "bad": told.bad, "paths": paths
        }  # fmt: skip

    def observe(self, args: Any, *, good: bool) -> dict[str, Any]:
        """Take evidence; it counts within a second, and the same id once for each node.

        Raises:
            Unavailable: too much waits; it does not count.
        """
        try:
            # a digest of both: a ticket about two users is evidence about each
            self._feed().tell(Node.parse(args["node"]), good=good, evidence=f"operator/{_object(args)}")
        except queue.Full:
            raise _waits() from None
        return args  # type: ignore[no-any-return]

    def depend(self, args: Any, weight: float) -> dict[str, Any]:
        """Add a dependency, or with 0 take an operator's back.

        Raises:
            Conflict: it is of the settings, or of a node on itself.
            NotFound: there is none to take back.
        """
        feed, pair = self._feed(), (Node.parse(args["node"]), Node.parse(args["on"]))
        if pair in feed.fixed or pair[0] == pair[1]:
            msg = "this dependency is of the settings (TCD_TRUST_DEPENDS), or of a node on itself"
            raise Conflict(msg)
        if 0 < weight < feed.edges.get(pair, 0.0):
            msg = "the dependency weighs more now: it takes two people to forget it first"
            raise Conflict(msg)
        if not weight and pair not in feed.edges:
            msg = "no such dependency"
            raise NotFound(msg)
        try:
            feed.depend(*pair, weight)
        except queue.Full:
            raise _waits() from None
        return args  # type: ignore[no-any-return]


def _waits() -> Unavailable:
    return Unavailable("too much evidence waits", retry_after=1.0)


def _object(value: Any) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def add_trust(made: APIRouter, plane: Plane, area: TrustArea) -> None:
    """Add the routes."""
    _scores(made, area)
    _evidence(made, plane, area)
    _dependencies(made, plane, area)


def _scores(made: APIRouter, area: TrustArea) -> None:
    @made.get("/trust", **says("Who is trusted how far", asks=TrustQuery, gives=Scores, refuses=(404,)))
    async def trust(request: Request, _: Annotated[Caller, Depends(READING)]) -> Response:
        query = asked(request, TrustQuery)
        return JSONResponse(area.scores(query.below, query.limit))

    @made.get("/trust/node", **says("Why a node is trusted so far", asks=NodeQuery, gives=Told, refuses=(404,)))
    async def explain(request: Request, _: Annotated[Caller, Depends(READING)]) -> Response:
        return JSONResponse(area.explain(asked(request, NodeQuery).node))


def _evidence(made: APIRouter, plane: Plane, area: TrustArea) -> None:
    @made.post("/trust:distrust", **says("Evidence against a node", takes=Evidence, refuses=(404,)))
    async def distrust(request: Request, caller: Annotated[Caller, Depends(LOWERING)]) -> Response:
        args = (await parsed(request, Evidence)).model_dump()

        async def work(_: str) -> Any:
            return area.observe(args, good=False)

        return await plane.mutate(request, caller, LOWERING, Mutation("trust.distrust", _object(args), None, work))

    @made.post("/trust:vouch", **says("Propose evidence for a node", takes=Evidence, refuses=(404,)))
    async def vouch(request: Request, caller: Annotated[Caller, Depends(RAISING)]) -> Response:
        args = (await parsed(request, Evidence)).model_dump()
        shown = {**args, "now": area.explain(args["node"])}
        return await plane.mutate(request, caller, RAISING, Mutation("trust.vouch", _object(args), shown, args=args))

    async def vouched(args: Any, _: str) -> Any:
        return area.observe(args, good=True)

    plane.perform("trust.vouch", vouched)


def _dependencies(made: APIRouter, plane: Plane, area: TrustArea) -> None:
    @made.post("/trust/edges", **says("A node depends on another", takes=Dependency, refuses=(404,)))
    async def depend(request: Request, caller: Annotated[Caller, Depends(LOWERING)]) -> Response:
        args = (await parsed(request, Dependency)).model_dump()

        async def work(_: str) -> Any:
            return area.depend(args, args["weight"])

        return await plane.mutate(request, caller, LOWERING, Mutation("trust.depend", _object(args), None, work))

    @made.post("/trust/edges:remove", **says("Propose to forget a dependency", takes=Ends, refuses=(404,)))
    async def forget(request: Request, caller: Annotated[Caller, Depends(RAISING)]) -> Response:
        args = (await parsed(request, Ends)).model_dump()
        return await plane.mutate(request, caller, RAISING, Mutation("trust.forget", _object(args), args, args=args))

    async def forgotten(args: Any, _: str) -> Any:
        return area.depend(args, 0.0)

    plane.perform("trust.forget", forgotten)
