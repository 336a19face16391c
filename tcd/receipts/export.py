"""A log as lines for other pipelines (post-quantum, zero-knowledge): heads, subtrees, and who signed what.

Everything is public: heads and hashes, no bodies, but for lines that somebody wants beside the heads. The lines are
streamed; memory does not grow with the log. Nothing is written that does not fit: the heads must lead to the root of
every checkpoint, and its signatures must verify.
`docs/log-export.md` says what each line is and how to check it without this code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tcd.errors import ConfigError
from tcd.receipts import mldsa
from tcd.receipts.cosign import time_of
from tcd.receipts.errors import InconsistentLog
from tcd.receipts.keyset import PinnedKey
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.logcheck import log_verifier, open_log
from tcd.receipts.merkle import CompactRange, MerkleTree
from tcd.receipts.note import parse_note
from tcd.receipts.report import VerifyPolicy

VERSION: Final = "tcd.export/1"
WIDTHS: Final = tuple(1 << level for level in range(17))
_TIME: Final = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What is exported.

    Attributes:
        origin: of the log.
        policy: pinned checkpoint keys and the algorithms that must have signed.
        size: leaves, those of the newest checkpoint.
        first: index of the first leaf that is written, a multiple of `width`.
        width: leaves of a subtree, a power of two up to 65,536; the last one may have fewer.
        signer: signs the subtrees too; None = nobody does.
    """

    origin: str
    policy: VerifyPolicy
    size: int
    first: int = 0
    width: int = 256
    signer: LogSigner | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be exported.

        Raises:
            tcd.errors.ConfigError: a width or a first leaf out of range.
        """
        if self.width not in WIDTHS or not 0 <= self.first <= self.size or self.first % self.width:
            msg = f"the width is a power of two up to {WIDTHS[-1]}, the first leaf a multiple of it up to {self.size}"
            raise ConfigError(msg)


def export_lines(
    plan: Plan,
    heads: Iterable[Sequence[bytes]],
    checkpoints: Iterator[tuple[int, bytes]],
    *,
    beside: Callable[[int], Iterable[dict[str, Any]]] | None = None,
) -> Iterator[dict[str, Any]]:
    """The lines, each a JSON object.

    Args:
        plan: what is exported.
        heads: of the log from leaf 0 on, in pages.
        checkpoints: size and signed note, by size, above `plan.first` and up to `plan.size`.
        beside: more lines after the head of a leaf.

    Raises:
        InconsistentLog: the heads are fewer than the checkpoint says, or do not lead to its root.
        VerificationError: a checkpoint's signatures, see `logcheck.open_log`.
    """
    walk = _Walk(plan, checkpoints, beside)
    yield from walk.start()
    for page in heads:
        for head in page:
            yield from walk.take(head)
    if walk.whole.size != plan.size:
        msg = f"{walk.whole.size} heads, the newest checkpoint has {plan.size}"
        raise InconsistentLog(msg)


class _Walk:
    """What is kept while the heads pass: the roots so far, the leaves of one subtree, the next checkpoint."""

    def __init__(
        self,
        plan: Plan,
        checkpoints: Iterator[tuple[int, bytes]],
        beside: Callable[[int], Iterable[dict[str, Any]]] | None,
    ) -> None:
        self._plan = plan
        self._beside = beside
        self._checkpoints = checkpoints
        self._next = next(checkpoints, None)
        self._block = MerkleTree()
        self.whole = CompactRange()

    def start(self) -> Iterator[dict[str, Any]]:
        if self.whole.size == self._plan.first:
            yield _opening(self._plan, self.whole)

    def take(self, head: bytes) -> Iterator[dict[str, Any]]:
        plan, whole = self._plan, self.whole
        whole.extend((head,))
        if whole.size <= plan.first:
            yield from self.start()
            return
        self._block.append(head)
        yield {"t": "head", "index": whole.size - 1, "head": head.hex()}
        if self._beside is not None:
            yield from self._beside(whole.size - 1)
        if len(self._block) == plan.width or whole.size == plan.size:
            yield _subtree(plan, whole.size - len(self._block), self._block)
            self._block = MerkleTree()
        if self._next is not None and self._next[0] == whole.size:
            yield _checkpoint(plan, self._next[1], whole)
            self._next = next(self._checkpoints, None)


def _opening(plan: Plan, whole: CompactRange) -> dict[str, Any]:
    keys = plan.policy.keys.of("checkpoint", plan.origin)
    return {
        "t": "log",
        "v": VERSION,
        "origin": plan.origin,
        "first": plan.first,
        "size": plan.size,
        "width": plan.width,
        "before": [root.hex() for root in whole.roots],
        "keys": [{"alg": key.alg, "kid": key.kid, "pub": key.public.hex()} for key in keys],
    }


def _subtree(plan: Plan, start: int, block: MerkleTree) -> dict[str, Any]:
    sigs: list[dict[str, Any]] = []
    if plan.signer is not None:
        algorithms = {key.kid: key.alg for key in plan.signer.pinned()}
        for signed in plan.signer.subtrees(start, start + len(block), lambda *_: block.root()):
            sigs += [{"alg": algorithms[kid], "kid": kid, "sig": sig.hex()} for kid, sig in signed.sigs]
    line: dict[str, Any] = {"t": "subtree", "start": start, "end": start + len(block), "root": block.root().hex()}
    return {**line, "sigs": sigs}


def _checkpoint(plan: Plan, note: bytes, whole: CompactRange) -> dict[str, Any]:
    opened = open_log(note, origin=plan.origin, policy=plan.policy)
    if (opened.head.size, opened.head.root) != (whole.size, whole.root()):
        msg = f"the heads do not lead to the checkpoint of {whole.size}"
        raise InconsistentLog(msg)
    keys = plan.policy.keys.of("checkpoint", plan.origin)
    return {
        "t": "checkpoint",
        "size": whole.size,
        "root": opened.head.root.hex(),
        "note": note.decode(),
        "sigs": _signatures(note, keys),
    }


def _signatures(note: bytes, keys: Sequence[PinnedKey]) -> list[dict[str, Any]]:
    """Those of the log's own keys; `open_log` verified them."""
    own = {(key.origin, log_verifier(key).hash): key for key in keys}
    found: list[dict[str, Any]] = []
    for line in parse_note(note)[1]:
        key = own.get((line.name, line.hash))
        if key is None:
            continue
        line_of = {"alg": key.alg, "kid": key.kid}
        if key.alg == mldsa.ALG:
            found.append({**line_of, "time": time_of(line), "sig": line.signature[_TIME:].hex()})
        else:
            found.append({**line_of, "sig": line.signature.hex()})
    return found
