"""What the shared ledger has to say afterwards about everything that callers were answered."""

from __future__ import annotations

import json
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import aiohttp

from tcd.ledger.postgres_connect import connect
from tcd.ledger.postgres_reader import Reader
from tcd.receipts import KeySet, PinnedKey, SigningKey, VerifyPolicy, verify_chain
from tcd.risk_av.events import EpochOpened, Leased
from tests.faults.shims import all_events, check_log
from tests.scaleout.load import Step
from tests.scaleout.parts import SEED

ORIGIN = "tcd.localhost"


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows of the log."""

    heads: list[str]
    bodies: list[str]
    sigs: list[str]

    @classmethod
    async def of(cls, url: str) -> Kept:
        """All receipts in the order of the log."""
        connection = await connect(url)
        try:
            rows = await connection.fetch(
                "SELECT r.head, r.sig, b.body FROM tcd_receipt r JOIN tcd_body b USING (idx) ORDER BY r.idx"
            )
        finally:
            await connection.close()
        return cls([r["head"].hex() for r in rows], [r["body"].decode() for r in rows], [r["sig"].hex() for r in rows])


async def check(url: str, steps: list[Step], *, seed: str = SEED) -> dict[str, Any]:
    """Counts of what was looked at.

    Raises:
        AssertionError: an answered decision is lost or there twice, a receipt does not verify, a budget is overdrawn.
    """
    kept = await Kept.of(url)
    decisions = check_answers(kept, steps)
    chains = check_chains(kept, seed)
    reader = await Reader.reading(url)
    try:
        events = await all_events(reader)  # type: ignore[arg-type]
    finally:
        reader.disconnect()
    check_log(events)
    alphas: dict[tuple[str, int], float] = {}
    spent: defaultdict[tuple[str, int], float] = defaultdict(float)
    for event in events:
        if isinstance(event, EpochOpened):
            alphas[event.stream, event.epoch] = event.params.alpha
        if isinstance(event, Leased):
            spent[event.stream, event.epoch] += event.cost * event.count
    shares = [spent[key] / alpha for key, alpha in alphas.items()]
    return {
        "receipts": len(kept.heads),
        "receipt_bytes": sum(map(len, kept.bodies)) / len(kept.bodies),
        "packed": packed(kept.bodies),
        "chains": chains,
        "decisions": decisions,
        "answered": sum(step.head != "" for step in steps),
        "events": len(events),
        "epochs": len(alphas),
        "most_spent_of_alpha": max(shares, default=0.0),
    }


def packed(bodies: list[str], together: int = 256) -> float:
    """Bytes of receipts compressed by deflate, so many together, over their bytes."""
    pieces = ["\n".join(bodies[at : at + together]).encode() for at in range(0, len(bodies), together)]
    return sum(len(zlib.compress(piece, 6)) for piece in pieces) / sum(map(len, pieces))


def check_answers(kept: Kept, steps: list[Step]) -> int:
    """Every answered receipt is in the log once with the answered body; no step of a session was decided twice."""
    places = {head: place for place, head in enumerate(kept.heads)}
    assert len(places) == len(kept.heads), "a receipt is in the log twice"
    answered = Counter(step.head for step in steps if step.head)
    assert max(answered.values(), default=1) == 1, "two steps were answered with one receipt"
    for step in steps:
        if step.head:
            assert step.head in places, "an answered decision is lost"
            assert kept.bodies[places[step.head]] == json.loads(step.answer)["receipt_body"]
    decided = Counter(
        (body["subject"], body["decision"]["step"])
        for body in map(json.loads, kept.bodies)
        if body["typ"] == "decision"
    )
    assert max(decided.values(), default=1) == 1, "a step was decided twice"
    return len(decided)


def check_chains(kept: Kept, seed: str) -> int:
    """Each chain of the log verifies from its first record to its last."""
    key = PinnedKey(SigningKey(bytes.fromhex(seed)).public, "receipt", ORIGIN)
    policy = VerifyPolicy(KeySet([key]))
    chains: defaultdict[str, list[int]] = defaultdict(list)
    for place, body in enumerate(kept.bodies):
        chains[json.loads(body)["chain"]["id"]].append(place)
    for places in chains.values():
        report = verify_chain(
            heads=[kept.heads[i] for i in places],
            bodies=[kept.bodies[i] for i in places],
            sigs=[kept.sigs[i] for i in places],
            policy=policy,
        )
        assert report.ok, report.checks
    return len(chains)


async def check_retries(front: str, url: str, steps: list[Step], count: int = 50) -> int:
    """Requests that were answered, sent again to whichever shim: the same bytes, and nothing is added to the log."""
    again = [step for step in steps if step.good][:: max(1, len(steps) // count)]
    before = len((await Kept.of(url)).heads)
    async with aiohttp.ClientSession() as http:
        for number, step in enumerate(again):
            # another session's shim, as a balancer without memory would choose
            headers = {"Tcd-Session": f"elsewhere-{number}"}
            async with http.post(f"{front}/diagnose", json=step.request, headers=headers) as reply:
                assert (reply.status, await reply.read()) == (200, step.answer)
    assert len((await Kept.of(url)).heads) == before
    return len(again)
