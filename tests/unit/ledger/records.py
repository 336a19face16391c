"""Receipts and answers to put into ledgers."""

from __future__ import annotations

from collections.abc import Sequence

from tcd.ledger import Idempotent
from tcd.receipts import ChainState, Issuer, Receipt, SigningKey, chain_id
from tcd.receipts.erasure import erase_members
from tcd.receipts.records import Model, close_members, gap_members, open_plain_members, open_session_members
from tcd.risk_av import Controller, Event

D = "sha256:" + "d" * 64
ISSUER = Issuer(SigningKey(bytes(32)), origin="o")


def issue(chain: ChainState, typ: str = "gap", tag: int = 0) -> Receipt:
    if typ == "open":
        model = Model("m")
        members = open_session_members(
            subject=D, model=model, unit="session", keys=(1, 2, 3), mask=1, assets=(1, 2, 3), weight=0.5
        )
    elif typ == "close":
        members = close_members(reason="end", count=chain.seq + 1)
    else:
        members = gap_members(first=tag, last=tag, reason="test")
    return ISSUER.issue(
        chain=chain, typ=typ, tenant="t", config=D, policy=D, members=members, ts_us=1, nonce=tag.to_bytes(16, "big")
    )


def records(name: str, count: int, *, close: bool = False) -> list[Receipt]:
    out = [issue(ChainState(chain_id("session", name)), "open")]
    while len(out) < count:
        out.append(issue(out[-1].next(), "gap", len(out)))
    if close:
        out.append(issue(out[-1].next(), "close"))
    return out


def erasing(places: Sequence[int], heads: Sequence[bytes], name: str = "") -> tuple[Receipt, Receipt]:
    """The opening of a chain and the record in it that erases what is at these places."""
    chain = ChainState(chain_id("erase", f"{name}{places[0]}"))
    members = erase_members(actor="a + b", reason="subject", places=places, heads=heads)
    out = []
    for typ, what in (("open", open_plain_members(D)), ("erase", members)):
        out.append(
            ISSUER.issue(chain=chain, typ=typ, tenant="-", config=D, policy=D, members=what, ts_us=1, nonce=bytes(16))
        )
        chain = out[-1].next()
    return out[0], out[1]


def answer(key: str = "k", *, expires: int = 100, payload: str = "p") -> Idempotent:
    return Idempotent("t", key, payload, b"answer", "", expires)


def some_events(name: str = "h") -> tuple[Event, ...]:
    controller = Controller()
    controller.reserve(stream="s", hypothesis=name)
    return controller.take_events()
