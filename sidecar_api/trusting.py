"""The trust graph in the dataplane: evidence of durable decisions in, distrust of whoever takes part out.

Evidence is taken, made durable and propagated in a thread of its own; a step reads a table that is at most a second
old. Users are known by their keyed digest.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from tcd.config import Settings
from tcd.errors import TcdError
from tcd.inbox import Inbox
from tcd.journal import Journal
from tcd.trust import Node, Params, TrustGraph

_LOG: Final = logging.getLogger(__name__)
FILE: Final = "trust.journal"
_REFRESH: Final = 1.0
_BATCH: Final = 4096
_WAITING: Final = 100_000
#: Lines after which the file is replaced by the state.
_COMPACT: Final = 200_000
#: kind, name, good, id, seconds since 1970.
Line = tuple[str, str, bool, str, float]
#: An operator's dependency: "edge", who, on whom, weight; 0 takes it back.
EdgeLine = tuple[str, str, str, float]
_EDGE: Final = "edge"


def restored(values: Iterable[Any], params: Params) -> TrustGraph:
    """The graph of a journal: its last state, and the evidence after it; without dependencies."""
    graph = TrustGraph(params)
    for value in values:
        if isinstance(value, dict):
            graph = TrustGraph.from_json(value, params)
            continue
        if value[0] == _EDGE:
            continue
        kind, name, good, evidence, at = value
        graph.observe(Node(kind, name), good=good, evidence=evidence, at=at, now=at)
    return graph


def params_of(settings: Settings) -> Params:
    """The settings' parameters of trust."""
    return Params(prior=settings.trust_prior, half_life=settings.trust_half_life_s)


def edges_of(values: Iterable[Any]) -> dict[tuple[Node, Node], float]:
    """The dependencies that operators added, as a journal has them."""
    found: dict[tuple[Node, Node], float] = {}
    for value in values:
        if not isinstance(value, dict) and value[0] == _EDGE:
            _, node, on, weight = value
            found[Node.parse(node), Node.parse(on)] = weight
    return {pair: weight for pair, weight in found.items() if weight > 0}


def connected(settings: Settings, values: Iterable[Any]) -> TrustGraph:
    """The graph of a journal with the settings' dependencies and the operators', and no others."""
    values = list(values)
    graph = restored(values, params_of(settings))
    graph.clear_edges()
    for edge in settings.trust_depends:
        graph.depend(Node.parse(edge.node), Node.parse(edge.on), edge.weight)
    for (node, on), weight in edges_of(values).items():
        graph.depend(node, on, weight)
    return graph


def parties(model: str, tenant: str, user: str, context: Mapping[str, Any]) -> tuple[Node, ...]:
    """Whoever takes part in a step; `context.tool` names a tool."""
    tool = context.get("tool")
    found = (Node("model", model), Node("tenant", tenant), Node("user", user))
    return (*found, Node("tool", tool)) if isinstance(tool, str) and tool else found


class TrustFeed:
    """Keeps a graph up to date.

    Attributes:
        graph: with all dependencies.
        fixed: dependencies of the settings.
        edges: dependencies that operators added, by weight.
        dropped: evidence for which there was no room.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.time,
        compact: int = _COMPACT,
    ) -> None:
        """A feed that is not started; without a journal the graph ends with the process."""
        self._journal, self._clock, self._compact = journal, clock, compact
        self._lines = len(journal.values) if journal is not None else 0
        self.graph = connected(settings, journal.values if journal is not None else ())
        self.fixed = {(Node.parse(edge.node), Node.parse(edge.on)) for edge in settings.trust_depends}
        self.edges = edges_of(journal.values if journal is not None else ())
        self._inbox: Inbox[Line | EdgeLine] = Inbox("tcd-trust", self._run, limit=_WAITING)
        self._scores: Mapping[Node, float] = self.graph.scores(clock())
        self.dropped = 0

    def start(self) -> None:
        """Begin to take evidence."""
        self._inbox.start()

    def stop(self, *, timeout: float = 5.0) -> None:
        """Take what waits, make it durable, end."""
        self._inbox.stop(timeout=timeout)
        if self._journal is not None:
            self._journal.close()

    def seen(self, nodes: Iterable[Node], *, good: bool, evidence: str) -> None:
        """Evidence about nodes; the same id counts once for each. Never blocks."""
        for node in nodes:
            try:
                self.tell(node, good=good, evidence=f"{evidence}/{node.kind}")
            except queue.Full:  # noqa: PERF203 - each one counts
                self.dropped += 1

    def tell(self, node: Node, *, good: bool, evidence: str) -> None:
        """Evidence about one node, with an id that no other evidence has; it counts within a second.

        Raises:
            queue.Full: too much waits.
        """
        self._inbox.put((node.kind, node.name, good, evidence, self._clock()))

    def depend(self, node: Node, on: Node, weight: float) -> None:
        """Add an operator's dependency, or take it back with the weight 0; it counts within a second.

        Raises:
            queue.Full: too much waits.
        """
        self._inbox.put((_EDGE, str(node), str(on), weight))

    def distrust(self, nodes: Iterable[Node]) -> float:
        """Of the least trusted, 0 to 1; 0 for those that are not known."""
        scores = self._scores
        return 1.0 - min((scores.get(node, 1.0) for node in nodes), default=1.0)

    def take(self, lines: list[Line | EdgeLine]) -> None:
        """Make evidence durable, then count it."""
        if self._journal is not None and lines:
            try:
                self._journal.append(lines)
            except TcdError as error:
                # it counts until the process ends: what lowers trust must not be lost to a full disk
                _LOG.error("evidence is not durable: %s", error.detail)
        now = self._clock()
        for line in lines:
            if len(line) == 4:  # noqa: PLR2004 - an `EdgeLine`
                self._connect(line)
                continue
            kind, name, good, evidence, at = line
            self.graph.observe(Node(kind, name), good=good, evidence=evidence, at=at, now=max(now, at))  # type: ignore[arg-type] # a kind
        self._lines += len(lines)
        if self._journal is not None and self._lines > self._compact:
            try:
                own = [(_EDGE, str(node), str(on), weight) for (node, on), weight in self.edges.items()]
                self._journal.replace([self.graph.to_json(), *own])
                self._lines = 1 + len(own)
            except TcdError as error:
                _LOG.warning("the trust journal stays as it is: %s", error.detail)
                self._lines = 0

    def _connect(self, line: EdgeLine) -> None:
        node, on, weight = Node.parse(line[1]), Node.parse(line[2]), line[3]
        if weight > 0:
            self.edges[node, on] = weight
            self.graph.depend(node, on, weight)
        else:
            self.edges.pop((node, on), None)
            self.graph.independent(node, on)

    def refresh(self) -> None:
        """Propagate, for the steps from now on."""
        self._scores = self.graph.scores(self._clock())

    def _run(self) -> None:
        last = time.monotonic()
        for lines in self._inbox.batches(most=_BATCH, seconds=_REFRESH):
            self.take(lines)
            if time.monotonic() - last >= _REFRESH:
                self.refresh()
                last = time.monotonic()
        self.refresh()
