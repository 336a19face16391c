"""Checks the receipts of a session as an auditor would: offline with the pinned key, and by the shim's /verify.

A forged receipt is tried as well: a check that cannot fail shows nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

from tcd.demo.records import Receipt, Token
from tcd.demo.result import Check
from tcd.errors import TcdError
from tcd.receipts import Anchor, KeySet, PinnedKey, VerifyPolicy, verify_chain, verify_single

_OK: Final = 200
_TIMEOUT: Final = 60.0


def receipts_of(tokens: Sequence[Token]) -> list[Receipt]:
    """The receipts of a generation, oldest first."""
    return [t.answer.receipt for t in tokens if t.answer is not None and t.answer.receipt is not None]


def forge(receipt: Receipt) -> Receipt:
    """The receipt with one digit of its body changed: still canonical JSON, no longer what was signed."""
    index = next(i for i in range(len(receipt.body) - 1, -1, -1) if receipt.body[i].isdigit())
    digit = "1" if receipt.body[index] == "0" else "0"
    body = receipt.body[:index] + digit + receipt.body[index + 1 :]
    return Receipt(receipt.head, body, receipt.signature, receipt.key)


def verify_session(tokens: Sequence[Token], *, public: bytes, origin: str, shim_url: str) -> list[Check]:
    """All checks of one generation through the shim.

    Args:
        tokens: the generation.
        public: the signing key's public half, known apart from the receipts.
        origin: the issuer's name that the receipts must carry.
        shim_url: base URL of the shim, for /verify.
    """
    receipts = receipts_of(tokens)
    if len(receipts) < len(tokens) or not receipts:
        return [Check("a receipt for every token", False, f"{len(receipts)} receipts for {len(tokens)} tokens")]
    policy = VerifyPolicy(KeySet([PinnedKey(public, "receipt", origin)]))
    try:
        return [
            Check("a receipt for every token", True, f"{len(receipts)} of {len(tokens)}"),
            *_offline(receipts, policy),
            *_online(receipts, shim_url),
        ]
    except TcdError as error:
        return [Check("verification", False, error.detail)]


def _anchors(receipts: Sequence[Receipt]) -> tuple[Anchor | None, Anchor]:
    """What comes before the first receipt (the session's `open` record), and the last one."""
    first, last = (json.loads(r.body)["chain"] for r in (receipts[0], receipts[-1]))
    start = Anchor(first["seq"] - 1, first["prev"]) if first["seq"] else None
    return start, Anchor(last["seq"], receipts[-1].head)


def _offline(receipts: Sequence[Receipt], policy: VerifyPolicy) -> list[Check]:
    reports = [verify_single(r.body, head=r.head, sig=r.signature, policy=policy) for r in receipts]
    bad = [report.code for report in reports if not report.ok]
    start, end = _anchors(receipts)
    chain = verify_chain(
        [r.body for r in receipts],
        heads=[r.head for r in receipts],
        sigs=[r.signature for r in receipts],
        policy=policy,
        start=start,
        end=end,
    )
    forged = forge(receipts[-1])
    refused = verify_single(forged.body, head=forged.head, sig=forged.signature, policy=policy)
    return [
        Check(
            "each one offline, with the pinned key",
            not bad,
            f"{len(reports) - len(bad)} of {len(reports)} verify" + (f", first failure {bad[0]}" if bad else ""),
        ),
        Check(
            "the session's chain offline",
            chain.ok,
            f"{len(receipts)} linked without a gap" if chain.ok else f"{chain.code} at {chain.first_bad}",
        ),
        Check(
            "a forged body is refused offline",
            not refused.ok,
            f"refused: {refused.code}" if not refused.ok else "accepted",
        ),
    ]


def _online(receipts: Sequence[Receipt], shim_url: str) -> list[Check]:
    start, end = _anchors(receipts)
    chain: dict[str, Any] = {
        "heads": [r.head for r in receipts],
        "bodies": [r.body for r in receipts],
        "sigs": [r.signature for r in receipts],
        "end": {"seq": end.seq, "head": end.head},
    }
    if start is not None:
        chain["start"] = {"seq": start.seq, "head": start.head}
    parts = urlsplit(shim_url)
    connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=_TIMEOUT)
    try:
        answers = [_post(connection, _single(r)) for r in receipts]
        linked = _post(connection, chain)
        refused = _post(connection, _single(forge(receipts[-1])))
    except (OSError, HTTPException, ValueError) as error:
        return [Check("POST /verify", False, f"{type(error).__name__}: {error}")]
    finally:
        connection.close()
    good = sum(answer["ok"] is True for answer in answers)
    return [
        Check("each one by POST /verify", good == len(answers), f"{good} of {len(answers)} verify"),
        Check("the session's chain by POST /verify", linked["ok"] is True, f"code {linked['code']}"),
        Check("a forged body is refused by POST /verify", refused["ok"] is False, f"code {refused['code']}"),
    ]


def _single(receipt: Receipt) -> dict[str, Any]:
    return {
        "receipt_head_hex": receipt.head,
        "receipt_body_json": receipt.body,
        "receipt_sig_hex": receipt.signature,
        "verify_key_hex": receipt.key,
    }


def _post(connection: HTTPConnection, body: Mapping[str, Any]) -> dict[str, Any]:
    connection.request("POST", "/verify", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    data = response.read()
    answer: dict[str, Any] = json.loads(data)
    if response.status != _OK:
        msg = f"HTTP {response.status} {answer.get('detail', '')}"
        raise ValueError(msg)
    return answer
