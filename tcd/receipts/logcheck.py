"""What a log proves of a receipt: inclusion, the checkpoint's signatures, the quorum of witnesses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from tcd.errors import VerificationError
from tcd.receipts.checkpoint import LogHead, TlogProof
from tcd.receipts.cosign import COSIGNATURE, ML_DSA_44, MlDsaVerifier, time_of
from tcd.receipts.errors import (
    BadString,
    KeyNotValid,
    LeafMismatch,
    MissingSignature,
    NoQuorum,
    UnknownKey,
    WrongOrigin,
)
from tcd.receipts.keys import ALG
from tcd.receipts.keyset import PinnedKey
from tcd.receipts.merkle import check_inclusion, leaf_hash
from tcd.receipts.note import LineVerifier, NoteVerifier, Verified, parse_note, verify_lines
from tcd.receipts.report import Checks, VerifyPolicy

_MICRO: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class OpenedLog:
    """A checkpoint whose signatures were verified.

    Attributes:
        head: origin, size and root.
        algorithms: with which pinned keys of the log signed it.
        witnesses: names in the policy of the witnesses that cosigned it, each with its time in seconds since 1970.
    """

    head: LogHead
    algorithms: frozenset[str]
    witnesses: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LogEvidence:
    """A receipt that was shown to be in a log.

    Attributes:
        index: of its leaf.
        log: the checkpoint that the proof leads to.
    """

    index: int
    log: OpenedLog


@lru_cache(maxsize=256)
def log_verifier(key: PinnedKey) -> NoteVerifier | MlDsaVerifier:
    """The signature line that a pinned checkpoint key makes; its origin is the line's name.

    Raises:
        MalformedNote: an origin that no note can carry.
    """
    return NoteVerifier(key.origin, key.public) if key.alg == ALG else MlDsaVerifier(key.origin, key.public)


def open_log(note: bytes, *, origin: str, policy: VerifyPolicy, since_us: int = 0) -> OpenedLog:
    """Verify a checkpoint by the pinned keys of its log.

    Args:
        note: the signed note.
        origin: name of the log that is asked for.
        policy: pinned keys, the algorithms that the log must sign with, the witnesses.
        since_us: the checkpoint is not older than this (a receipt of it is of this time).

    Raises:
        BadSignature: a known key's line is wrong.
        KeyNotValid: keys that were retired before, or compromised.
        MalformedCheckpoint, MalformedNote: the form.
        MissingSignature: an algorithm that the policy demands did not sign.
        UnknownKey: no key of this log is pinned.
        WrongOrigin: a checkpoint of another log.
    """
    head = LogHead.from_note(note)
    if head.origin != origin:
        msg = "the checkpoint is of another log"
        raise WrongOrigin(msg)
    pinned = policy.keys.of("checkpoint", origin)
    if not pinned:
        msg = "no key of this log is pinned"
        raise UnknownKey(msg)
    own = [(key, log_verifier(key)) for key in pinned]
    trusted = {} if policy.witnesses is None else policy.witnesses.witnesses
    verifiers: list[LineVerifier] = [*(verifier for _, verifier in own), *trusted.values()]
    signed = _verified(note, tuple(verifiers))
    witnesses = _witnesses(signed, trusted)
    times = [*witnesses.values(), *_own_times(signed)]
    quorum = policy.witnesses is not None and policy.witnesses.quorum != "none"
    witnessed = quorum and policy.witnesses is not None and policy.witnesses.satisfied(witnesses)
    keys = [key for key, verifier in own if any(found.verifier == verifier for found in signed)]
    usable = [key for key in keys if _usable(key, head.size, max(times, default=0) * _MICRO, since_us, witnessed)]
    algorithms = frozenset(key.alg for key in usable)
    if keys and not usable:
        msg = "the log's keys were retired before, or are compromised and no quorum saw the log before"
        raise KeyNotValid(msg)
    missing = policy.log_algorithms - algorithms
    if missing or not usable:
        msg = f"the log did not sign with {', '.join(sorted(missing)) or 'a pinned key'}"
        raise MissingSignature(msg)
    return OpenedLog(head, algorithms, witnesses)


@lru_cache(maxsize=64)
def _verified(note: bytes, verifiers: tuple[LineVerifier, ...]) -> tuple[Verified, ...]:
    """Lines of known keys. Many receipts are shown under one checkpoint, whose signatures need one look."""
    text, lines = parse_note(note)
    return verify_lines(text, lines, verifiers)


def _witnesses(signed: tuple[Verified, ...], trusted: Mapping[str, LineVerifier]) -> dict[str, int]:
    lines = {(found.verifier.name, found.verifier.hash): time_of(found.signature) for found in signed if _timed(found)}
    selectors = {name: (verifier.name, verifier.hash) for name, verifier in trusted.items()}
    return {name: lines[selector] for name, selector in selectors.items() if selector in lines}


def _timed(found: Verified) -> bool:
    return found.verifier.algorithm in {COSIGNATURE, ML_DSA_44}


def _own_times(signed: tuple[Verified, ...]) -> list[int]:
    return [time_of(found.signature) for found in signed if _timed(found)]


def _usable(key: PinnedKey, size: int, time_us: int, since_us: int, witnessed: bool) -> bool:  # noqa: FBT001
    at = max(time_us, since_us)
    if key.not_after_us is not None and at > key.not_after_us:
        return False
    if key.not_before_us is not None and time_us and time_us < key.not_before_us - _MICRO:
        return False
    return key.compromised_after_size is None or (size <= key.compromised_after_size and witnessed)


def check_log(
    checks: Checks, proof: str | bytes, *, head: bytes, value: Mapping[str, Any], policy: VerifyPolicy
) -> LogEvidence | None:
    """Run inclusion, checkpoint and witness_quorum; what was shown, or None.

    Args:
        checks: where the results go.
        proof: `tlog-proof@v1`.
        head: of the receipt, computed from its received bytes.
        value: the body.
        policy: pinned keys and witnesses.
    """
    parsed: TlogProof | None = None
    included = False
    try:
        parsed = TlogProof.parse(_bytes(proof))
        found = LogHead.from_note(parsed.checkpoint)
        if parsed.extra is not None and parsed.extra != head:
            msg = "the proof is of another receipt"
            raise LeafMismatch(msg)
        check_inclusion(parsed.index, found.size, leaf_hash(head), parsed.path, found.root)
    except VerificationError as error:
        checks.failed("inclusion", error)
    else:
        checks.passed("inclusion")
        included = True
    if parsed is None:
        return None
    try:
        opened = open_log(parsed.checkpoint, origin=value["origin"], policy=policy, since_us=value["ts_us"])
    except VerificationError as error:
        checks.failed("checkpoint", error)
        return None
    checks.passed("checkpoint")
    if policy.witnesses is not None:
        try:
            policy.witnesses.check(opened.witnesses)
        except NoQuorum as error:
            checks.failed("witness_quorum", error)
            return None
        checks.passed("witness_quorum")
    return LogEvidence(parsed.index, opened) if included else None


def _bytes(proof: str | bytes) -> bytes:
    if isinstance(proof, bytes):
        return proof
    try:
        return proof.encode("utf-8")
    except UnicodeEncodeError as error:
        msg = "lone surrogate"
        raise BadString(msg) from error
