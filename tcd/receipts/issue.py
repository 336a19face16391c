"""Issuing receipts: members in, canonical body, head and signature out. No clock and no randomness inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tcd.errors import VerificationError
from tcd.receipts import canonical
from tcd.receipts.body import CONTEXT, check_body, check_issued_size, fits, head_of, signature_input
from tcd.receipts.chain import ChainState
from tcd.receipts.decisions import DecisionWriter
from tcd.receipts.keys import Signer
from tcd.receipts.keyset import PinnedKey
from tcd.receipts.members import VERSION


@dataclass(frozen=True, slots=True)
class Receipt:
    """An issued receipt.

    Attributes:
        head: 32 bytes, see `body.head_of`.
        body: canonical bytes.
        sig: 64 bytes, or 2,484 with the suite Ed25519+ML-DSA-44.
        kid: id of the signing key, hex.
        typ, tenant, chain, seq, prev, ts_us: members of the body, for stores.
    """

    head: bytes
    body: bytes
    sig: bytes
    kid: str
    typ: str
    tenant: str
    chain: str
    seq: int
    prev: str
    ts_us: int

    @property
    def head_hex(self) -> str:
        """The head as an answer carries it (`receipt`)."""
        return self.head.hex()

    @property
    def body_text(self) -> str:
        """The body as an answer carries it (`receipt_body`)."""
        return self.body.decode("utf-8")

    @property
    def sig_hex(self) -> str:
        """The signature as an answer carries it (`receipt_sig`)."""
        return self.sig.hex()

    def next(self) -> ChainState:
        """State of its chain after it."""
        return ChainState(self.chain, self.seq + 1, self.head.hex(), self.typ == "close", self.ts_us)


def _written(value: dict[str, Any]) -> bytes:
    """Canonical bytes of a body; its schema is checked on them where they tell."""
    try:
        body = canonical.write(value)
    except (TypeError, ValueError, RecursionError, VerificationError):
        check_body(value)
        raise
    if not fits(value, body.decode()):
        check_body(value)
    return body


class Issuer:
    """Signs receipts of one origin with one key."""

    __slots__ = ("_key", "_signed", "origin")

    def __init__(self, key: Signer, *, origin: str) -> None:
        """An issuer.

        Args:
            key: signing key of purpose `receipt`: Ed25519 or Ed25519+ML-DSA-44.
            origin: name of the issuer, 1..128 characters.
        """
        self._key = key
        self._signed = signature_input(suite=key.alg, kid=key.kid, head=b"")
        self.origin = origin

    @property
    def kid(self) -> str:
        """Id of the signing key."""
        return self._key.kid

    @property
    def verify_key_hex(self) -> str:
        """Public key as an answer carries it (`verify_key`): a hint, never a trust root."""
        return self._key.public.hex()

    def pinned(self, **restrictions: Any) -> PinnedKey:
        """The public key for a verifier's key set; `restrictions` are options of `PinnedKey`."""
        return PinnedKey(self._key.public, "receipt", self.origin, alg=self._key.alg, **restrictions)

    def issue(
        self,
        *,
        chain: ChainState,
        typ: str,
        tenant: str,
        config: str,
        policy: str,
        members: Mapping[str, Any],
        ts_us: int,
        nonce: bytes,
    ) -> Receipt:
        """Issue the next record of a chain; `receipt.next()` is the chain's state after it.

        Args:
            chain: state of the chain before this record.
            typ: open, decision, gap, close, admin or ack.
            tenant: whose record it is.
            config: digest of the settings in force.
            policy: digest of the policy in force.
            members: the other members of this type, see `tcd.receipts.members` and `tcd.receipts.records`.
            ts_us: now, in microseconds since 1970; an earlier time than the last record's is replaced by that.
            nonce: 16 random bytes, never used before.

        Raises:
            ChainMismatch: the record cannot come next in its chain.
            BadNumber, BadString, LimitExceeded, NotCanonical, SchemaMismatch: it cannot be written.
        """
        chain.check_next(typ)
        ts_us = max(ts_us, chain.ts_us)
        value = {
            **members,
            "v": VERSION,
            "typ": typ,
            "suite": self._key.alg,
            "kid": self._key.kid,
            "origin": self.origin,
            "chain": {"id": chain.id, "seq": chain.seq, "prev": chain.prev},
            "ts_us": ts_us,
            "nonce": nonce.hex(),
            "tenant": tenant,
            "config": config,
            "policy": policy,
        }
        return self.seal(_written(value), chain=chain, typ=typ, tenant=tenant, ts_us=ts_us)

    def writer(self, *, config: str, policy: str) -> DecisionWriter:
        """A writer of the bodies of decisions that `seal` takes.

        Raises:
            VerificationError: a digest is none.
        """
        return DecisionWriter(suite=self._key.alg, kid=self._key.kid, origin=self.origin, config=config, policy=policy)

    def seal(
        self, body: bytes, *, chain: ChainState, typ: str, tenant: str, ts_us: int, head: bytes | None = None
    ) -> Receipt:
        """Head and signature of a body that is canonical and of the schema; the other arguments are its members.

        Where `head_of` the body is known, it is not computed again, and the body's size was checked, too.

        Raises:
            LimitExceeded: it is too long.
        """
        if head is None:
            check_issued_size(body)
            head = head_of(body)
        sig = self._key.sign(self._signed + head, CONTEXT)
        return Receipt(head, body, sig, self._key.kid, typ, tenant, chain.id, chain.seq, chain.prev, ts_us)
