"""From one receipt key to the next: what the old key still signs, and the swap in a running shim."""

from __future__ import annotations

from collections.abc import Callable

from sidecar_api.log.keyring import Keys
from tcd.ledger import Batch, Ledger
from tcd.receipts import ChainState, Issuer, PinnedKey, Receipt, Signer, chain_id, records
from tcd.receipts.rotation import rotate_members

_PAGE = 65_536


def handover(
    old: tuple[PinnedKey, Signer],
    new: tuple[PinnedKey, Signer],
    *,
    config: str,
    policy: str,
    now_us: int,
    random: Callable[[int], bytes],
) -> tuple[Receipt, ...]:
    """A chain by itself, all signed by the old key: open, `rotate` (which the new key signed too), close.

    Args:
        old: the key that hands over. Where its validity is over, the records are of its last moment.
        new: the key that takes over.
        config: digest of the settings in force.
        policy: digest of the policy in force.
        now_us: microseconds since 1970.
        random: random bytes.
    """
    pinned, signer = old
    issuer = Issuer(signer, origin=pinned.origin)
    ts_us = now_us if pinned.not_after_us is None else min(now_us, pinned.not_after_us)
    from_us = new[0].not_before_us if new[0].not_before_us is not None else now_us
    opened = records.open_plain_members(chain_id("keys", pinned.kid))
    rotated = rotate_members(origin=pinned.origin, old=pinned, new=new[1], from_us=from_us)
    chain = ChainState(chain_id("keys", pinned.kid, random(8).hex()))
    out: list[Receipt] = []
    for typ, members in (
        ("open", opened),
        ("rotate", rotated),
        ("close", records.close_members(reason="end", count=3)),
    ):
        made = issuer.issue(
            chain=chain,
            typ=typ,
            tenant="-",
            config=config,
            policy=policy,
            members=members,
            ts_us=ts_us,
            nonce=random(16),
        )
        out.append(made)
        chain = made.next()
    return tuple(out)


def successor(keys: Keys, kid: str) -> tuple[tuple[PinnedKey, Signer], tuple[PinnedKey, Signer]] | None:
    """Both keys of a hand-over from key `kid` to the one in use; None where there is nothing to hand over, or no key.

    A compromised key hands over nothing: whoever stole it could do that too.
    """
    new = keys.pinned.get(keys.receipt.kid)
    if new is None or kid == new.kid:
        return None
    old = keys.retired(kid)
    return None if old is None else (old, (new, keys.receipt))


async def newest_kid(ledger: Ledger) -> str:
    """Id of the key that signed the newest receipt of a ledger; empty where there is none or nothing is kept of it."""
    checkpoint = await ledger.checkpoint()
    first, last = (0 if checkpoint is None else checkpoint.size - 1), b""
    while page := await ledger.heads(first=first, limit=_PAGE):
        first, last = first + len(page), page[-1]
        if len(page) < _PAGE:
            break
    stored = await ledger.get(last.hex()) if last else None
    return "" if stored is None or stored.kept is None else stored.kept.kid


async def after_restart(
    ledger: Ledger, keys: Keys, *, config: str, policy: str, now_us: int, random: Callable[[int], bytes]
) -> str:
    """Let the key that signed last hand over, before the one in use signs anything; what was done, for the log.

    Raises:
        tcd.errors.Unavailable: the ledger cannot be read or written.
    """
    kid = await newest_kid(ledger)
    if kid in {"", keys.receipt.kid}:
        return ""
    both = successor(keys, kid)
    if both is None:
        return f"receipts were signed by {kid} before, whose seed is not here: nobody hands over"
    made = handover(*both, config=config, policy=policy, now_us=now_us, random=random)
    await ledger.append(Batch(receipts=made), now_us=now_us)
    return f"{kid} handed over to {keys.receipt.kid}"
