"""The trust graph: how far a model, tool, tenant or user is trusted, by its own evidence and by what it depends on.

Trust starts at 1 and is only ever lowered, so it can only tighten decisions: a node's own trust is the share of good
evidence, which fades with a half-life, and a dependency can lower it but never raise it. Hence nobody gains by adding
nodes or edges (sybils), by pointing at himself, or by sending the same evidence twice.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

NodeKind = Literal["model", "tool", "tenant", "user"]
F64 = NDArray[np.float64]
_TOLERANCE: Final = 1e-12


class Node(NamedTuple):
    """A node."""

    kind: NodeKind
    name: str

    @classmethod
    def parse(cls, text: str) -> Node:
        """From `kind:name`.

        Raises:
            ValueError: the kind is none.
        """
        kind, colon, name = text.partition(":")
        if kind not in get_args(NodeKind) or not colon or not name:
            msg = f"{text!r} is not kind:name with one of {', '.join(get_args(NodeKind))}"
            raise ValueError(msg)
        return cls(cast("NodeKind", kind), name)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Params:
    """How evidence and dependencies count.

    Attributes:
        prior: good evidence that every node begins with.
        half_life: seconds after which evidence counts half.
        damping: how much of a dependency's distrust reaches a node, in [0, 1).
        window: seconds for which an id of evidence is remembered; older evidence is refused.
        max_nodes, max_edges, max_ids: bounds; what is over them is refused.
    """

    prior: float = 20.0
    half_life: float = 86_400.0
    damping: float = 0.8
    window: float = 3_600.0
    max_nodes: int = 100_000
    max_edges: int = 1_000_000
    max_ids: int = 1_000_000

    def __post_init__(self) -> None:
        """Refuse parameters under which trust would not converge.

        Raises:
            ValueError: one is out of its range.
        """
        if not (self.prior > 0 and self.half_life > 0 and 0 <= self.damping < 1 and self.window > 0):
            msg = "prior, half_life and window are positive, damping is in [0, 1)"
            raise ValueError(msg)


@dataclass(slots=True)
class _Evidence:
    """Faded counts at a time."""

    good: float = 0.0
    bad: float = 0.0
    at: float = -math.inf

    def faded(self, now: float, half_life: float) -> tuple[float, float]:
        # time does not run backwards: evidence never grows
        kept = 0.0 if math.isinf(self.at) else 2.0 ** (-max(0.0, now - self.at) / half_life)
        return self.good * kept, self.bad * kept


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a node is trusted as it is.

    Attributes:
        node: which.
        trust: its trust.
        own: by its own evidence alone.
        good, bad: that evidence, faded.
        paths: the chains of dependencies that lower it most, worst first: nodes from this one on, and the trust that
            the first of them alone would leave.
    """

    node: Node
    trust: float
    own: float
    good: float
    bad: float
    paths: tuple[tuple[tuple[Node, ...], float], ...]


class TrustGraph:
    """Nodes, dependencies and evidence. Thread-safe; time is an argument."""

    def __init__(self, params: Params | None = None) -> None:
        """An empty graph."""
        self.params = params or Params()
        self._lock = threading.RLock()
        self._index: dict[Node, int] = {}
        self._evidence: list[_Evidence] = []
        self._edges: dict[tuple[int, int], float] = {}
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._cached: tuple[float, F64] | None = None

    def __len__(self) -> int:
        """Nodes."""
        return len(self._index)

    def depend(self, node: Node, on: Node, weight: float = 1.0) -> bool:
        """A node depends on another; whether it was taken. A node cannot depend on itself.

        Args:
            node: who depends.
            on: on whom.
            weight: how much, in (0, 1]; replaces an earlier weight.

        Raises:
            ValueError: the weight is out of its range.
        """
        if not 0 < weight <= 1:
            msg = f"weight {weight} is not in (0, 1]"
            raise ValueError(msg)
        if node == on:
            return False
        with self._lock:
            if len(self._edges) >= self.params.max_edges:
                return False
            source, target = self._node(node), self._node(on)
            if source is None or target is None:
                return False
            self._edges[source, target] = weight
            self._cached = None
            return True

    def independent(self, node: Node, on: Node) -> None:
        """Forget a dependency."""
        with self._lock:
            pair = self._index.get(node, -1), self._index.get(on, -1)
            if self._edges.pop(pair, None) is not None:
                self._cached = None

    def edges(self) -> list[tuple[Node, Node, float]]:
        """All dependencies: who, on whom, how much."""
        with self._lock:
            names = list(self._index)
            return [(names[source], names[target], weight) for (source, target), weight in self._edges.items()]

    def clear_edges(self) -> None:
        """Forget all dependencies."""
        with self._lock:
            self._edges.clear()
            self._cached = None

    def observe(self, node: Node, *, good: bool, evidence: str, at: float, now: float, weight: float = 1.0) -> bool:
        """Take evidence; whether it counts.

        Args:
            node: about whom.
            good: whether it speaks for the node.
            evidence: its id, a receipt's head for example; a second time it does not count.
            at: seconds when it was made.
            now: seconds now; what is older than the window, or newer than now, does not count.
            weight: how much it counts.

        Raises:
            ValueError: the weight is not positive and finite.
        """
        if not 0 < weight < math.inf:
            msg = f"weight {weight} is not positive and finite"
            raise ValueError(msg)
        with self._lock:
            self._forget(now)
            if not now - self.params.window <= at <= now or evidence in self._seen:
                return False
            index = self._node(node) if len(self._seen) < self.params.max_ids else None
            if index is None:
                return False
            self._seen[evidence] = now
            known = self._evidence[index]
            when = max(now, known.at)
            kept_good, kept_bad = known.faded(when, self.params.half_life)
            added = weight * 2.0 ** (-(when - at) / self.params.half_life)
            self._evidence[index] = _Evidence(kept_good + added * good, kept_bad + added * (not good), when)
            self._cached = None
            return True

    def trust(self, node: Node, now: float) -> float:
        """Trust of a node in [0, 1]; 1 for one that is not known."""
        with self._lock:
            index = self._index.get(node)
            return 1.0 if index is None else float(self._all(now)[index])

    def scores(self, now: float) -> dict[Node, float]:
        """Trust of every node."""
        with self._lock:
            values = self._all(now).tolist()
            return dict(zip(self._index, values, strict=True))

    def explain(self, node: Node, now: float, *, paths: int = 3, depth: int = 8) -> Explanation:
        """Why a node is trusted as it is.

        Args:
            node: which.
            now: seconds.
            paths: how many chains at most.
            depth: nodes of a chain at most.
        """
        with self._lock:
            index = self._index.get(node)
            if index is None:
                return Explanation(node, 1.0, 1.0, 0.0, 0.0, ())
            trust = self._all(now)
            good, bad = self._evidence[index].faded(now, self.params.half_life)
            names = list(self._index)
            found = [
                (tuple(names[i] for i in (index, *self._chain(target, trust, depth - 1, {index}))), left)
                for left, target in sorted(self._dependencies(index, trust))[:paths]
                if left < 1.0
            ]
            return Explanation(node, float(trust[index]), _own(good, bad, self.params.prior), good, bad, tuple(found))

    def _node(self, node: Node) -> int | None:
        index = self._index.get(node)
        if index is None and len(self._index) < self.params.max_nodes:
            index = self._index[node] = len(self._index)
            self._evidence.append(_Evidence())
            self._cached = None
        return index

    def _forget(self, now: float) -> None:
        # what is older than the window is refused by its time, so its id need not be kept
        while self._seen and next(iter(self._seen.values())) < now - self.params.window:
            self._seen.popitem(last=False)

    def _all(self, now: float) -> F64:
        if self._cached is None or self._cached[0] != now:
            prior, half_life = self.params.prior, self.params.half_life
            own = np.array([_own(*e.faded(now, half_life), prior) for e in self._evidence], np.float64)
            self._cached = (now, propagate(own, self._edges, damping=self.params.damping))
        return self._cached[1]

    def _dependencies(self, index: int, trust: F64) -> list[tuple[float, int]]:
        """Of a node: the trust that each would leave, and which."""
        damping = self.params.damping
        return [
            (1.0 - damping * weight * (1.0 - float(trust[target])), target)
            for (source, target), weight in self._edges.items()
            if source == index
        ]

    def _chain(self, index: int, trust: F64, depth: int, seen: set[int]) -> list[int]:
        """From a node on, the dependency that lowers each; ends where a node's own evidence does."""
        chain = [index]
        while len(chain) < depth:
            seen.add(chain[-1])
            worst = min(((left, i) for left, i in self._dependencies(chain[-1], trust) if i not in seen), default=None)
            if worst is None or worst[0] > float(trust[chain[-1]]) + _TOLERANCE:
                break
            chain.append(worst[1])
        return chain

    def to_json(self) -> dict[str, Any]:
        """All of it, for a store."""
        with self._lock:
            names = list(self._index)
            return {
                "v": 1,
                "nodes": [
                    [n.kind, n.name, e.good, e.bad, None if math.isinf(e.at) else e.at]
                    for n, e in zip(names, self._evidence, strict=True)
                ],
                "edges": [[source, target, weight] for (source, target), weight in self._edges.items()],
                "seen": list(self._seen.items()),
            }

    def nodes(self) -> list[Node]:
        """All nodes, in the order in which they became known."""
        with self._lock:
            return list(self._index)

    @classmethod
    def from_json(cls, value: Mapping[str, Any], params: Params | None = None) -> TrustGraph:
        """Back from `to_json`.

        Raises:
            ValueError: it is of another version.
        """
        if value.get("v") != 1:
            msg = "not a trust graph of version 1"
            raise ValueError(msg)
        graph = cls(params)
        for kind, name, good, bad, at in value["nodes"]:
            graph._index[Node(kind, name)] = len(graph._index)
            graph._evidence.append(_Evidence(good, bad, -math.inf if at is None else at))
        graph._edges = {(source, target): weight for source, target, weight in value["edges"]}
        graph._seen = OrderedDict((evidence, at) for evidence, at in value["seen"])
        return graph


def _own(good: float, bad: float, prior: float) -> float:
    return (prior + good) / (prior + good + bad)


def propagate(
    own: F64, edges: Mapping[tuple[int, int], float] | Iterable[tuple[int, int, float]], *, damping: float
) -> F64:
    """The largest trust that every dependency allows: t[u] = min(own[u], 1 - damping w (1 - t[v])) for all u on v.

    The map is monotone and contracts by `damping` in the largest norm, so iteration from `own` falls to its one fixed
    point, bounded by [0, 1].

    Args:
        own: (nodes,) in [0, 1].
        edges: weights in (0, 1] by (source, target).
        damping: in [0, 1).
    """
    listed = [(*pair, w) for pair, w in edges.items()] if isinstance(edges, Mapping) else list(edges)
    if not listed:
        return own.copy()
    array = np.array(listed, np.float64)
    source, target = array[:, 0].astype(np.int64), array[:, 1].astype(np.int64)
    order = np.argsort(source, kind="stable")
    source, target, weight = source[order], target[order], damping * array[order, 2]
    starts = np.flatnonzero(np.r_[True, source[1:] != source[:-1]])
    nodes = source[starts]
    trust = own.copy()
    for _ in range(iterations(damping)):
        left = np.minimum.reduceat(1.0 - weight * (1.0 - trust[target]), starts)
        lower = np.minimum(own[nodes], left)
        if np.max(np.abs(trust[nodes] - lower), initial=0.0) <= _TOLERANCE:
            break
        trust[nodes] = lower
    return trust


def iterations(damping: float) -> int:
    """Rounds after which a contraction by `damping` is within the tolerance, whatever the graph."""
    return 1 if damping == 0 else math.ceil(math.log(_TOLERANCE * (1 - damping)) / math.log(damping)) + 1
