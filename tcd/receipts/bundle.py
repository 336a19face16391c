"""Bundles: consecutive records of one chain with their proofs and disclosures in one canonical JSON file.

::

    {"v": "tcd.bundle/1", "receipts": [receipt, ...], "start"?: {"seq", "head"}, "end"?: {"seq", "head"},
     "consistency"?: [{"old", "size", "path": [64 hex digits, ...]}, ...],
     "erasures"?: [{"body", "head", "sig", "proof"}, ...]}
    receipt: {"body", "head", "sig"} or, where its body was erased, {"erased": {"kid", "origin", "suite", "tenant"},
             "head", "sig", "proof"?}; and what is there of "proof" (tlog-proof), "req", "comp", "e" (disclosed
             objects), "witness" (disclosed segments), "terms", "previous_eproc"
    erasures: the `erase` records that name records here whose bodies were erased

A bundle is RFC 8785 bytes, nothing before or after them. What is in it must verify: nothing is optional to check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tcd.errors import InvalidRequest, TcdError, VerificationError
from tcd.receipts import jcs
from tcd.receipts.checkpoint import LogHead, TlogProof
from tcd.receipts.checks import Anchor
from tcd.receipts.erased_by import ErasedBy, Placed, verify_erasure
from tcd.receipts.erasure import ErasedBody, Left
from tcd.receipts.errors import Equivocation, Erased, MalformedBundle, SchemaMismatch
from tcd.receipts.issue import Receipt
from tcd.receipts.members import SUITES
from tcd.receipts.merkle import check_consistency
from tcd.receipts.report import Report, VerifyPolicy
from tcd.receipts.schema import Check, hexadecimal, integer, listing, one_of, pattern, record, text
from tcd.receipts.seen import check_seen
from tcd.receipts.verify import verify_single
from tcd.receipts.verify_chain import MAX_RECORDS, verify_chain
from tcd.receipts.verify_erased import verify_erased
from tcd.receipts.witnessing import Seen

VERSION: Final = "tcd.bundle/1"
MAX_BUNDLE: Final = 16 * 2**20
MAX_DEPTH: Final = 32
#: `erase` records beside the records that they name.
MAX_ERASURES: Final = 64
#: An unclosed string reaches to the end, so that no quote is looked at twice.
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_BRACKET: Final = re.compile(r"[\[\]{}]")


def _any(_: Any) -> None:
    """Compared with a digest later."""


_ANCHOR: Final = record({"seq": integer(), "head": hexadecimal(32)})
_DISCLOSED: Final[dict[str, Check]] = {
    "proof": text(131_072, 1),
    "req": _any,
    "comp": _any,
    "e": _any,
    "witness": listing(_any, 8),
    "terms": _any,
    "previous_eproc": _any,
}
_WHOLE: Final[dict[str, Check]] = {
    "body": text(512_000, 1),
    "head": hexadecimal(32),
    "sig": pattern("(?:[0-9a-f]{2}){64,2484}"),
}
_RECEIPT: Final = record(_WHOLE, _DISCLOSED)
_ERASED: Final = record(
    {
        "erased": record(
            {"kid": hexadecimal(16), "origin": text(128, 1), "suite": one_of(*SUITES), "tenant": text(128, 1)}
        ),
        "head": hexadecimal(32),
        "sig": pattern("(?:[0-9a-f]{2}){64,2484}"),
    },
    {"proof": text(131_072, 1)},
)


def _item(value: Any) -> None:
    (_ERASED if type(value) is dict and "erased" in value else _RECEIPT)(value)


_ERASURE: Final = record({**_WHOLE, "proof": text(131_072, 1)})
_STEP: Final = record({"old": integer(1), "size": integer(1), "path": listing(hexadecimal(32), 64)})
_BUNDLE: Final = record(
    {"v": one_of(VERSION), "receipts": listing(_item, MAX_RECORDS, 1)},
    {
        "start": _ANCHOR,
        "end": _ANCHOR,
        "consistency": listing(_STEP, 64, 1),
        "erasures": listing(_ERASURE, MAX_ERASURES, 1),
    },
)


@dataclass(frozen=True, slots=True)
class BundleReport:
    """Result of verifying a bundle.

    Attributes:
        ok: everything in it verified.
        code: `ok`, or the code of the first failure: of a receipt, then of the chain, then of the log.
        receipts: report of each receipt.
        chain: report of the links between them.
        log: code of the checkpoints taken together: `ok`, `absent`, or why not.
        complete: whether the bundle shows the whole chain, from `open` to `close` or to its `end`.
        newest: newest checkpoint of the bundle, to be remembered; None without one or when not ok.
        erasures: report of each `erase` record beside them.
        erased_by: which of these erased a receipt's body, by the receipt's number; verified.
    """

    ok: bool
    code: str
    receipts: tuple[Report, ...]
    chain: Report
    log: str
    complete: bool
    newest: tuple[str, Seen] | None = None
    erasures: tuple[Report, ...] = ()
    erased_by: Mapping[int, ErasedBy] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "ok": self.ok,
            "code": self.code,
            "complete": self.complete,
            "log": self.log,
            "chain": self.chain.to_json(),
            "receipts": [report.to_json() for report in self.receipts],
            **({"erasures": [report.to_json() for report in self.erasures]} if self.erasures else {}),
            "erased_by": [{"receipt": number, **by.to_json()} for number, by in sorted(self.erased_by.items())],
        }


def write_bundle(
    receipts: Sequence[Receipt | Left],
    *,
    proofs: Sequence[bytes] | None = None,
    disclosures: Sequence[Mapping[str, Any]] | None = None,
    end: Anchor | None = None,
    consistency: Sequence[tuple[int, int, Sequence[bytes]]] = (),
    erasures: Sequence[tuple[Receipt, bytes]] = (),
) -> bytes:
    """A bundle of consecutive records of one chain.

    Args:
        receipts: oldest first; what is left where a body was erased.
        proofs: `tlog-proof@v1` text of each.
        disclosures: of each, members of a bundle's receipt to add, such as `req`.
        end: the record that is known to be the last one.
        consistency: proofs of consistency between checkpoints: old size, size, path.
        erasures: the `erase` records that name erased ones among these, and their proofs under the same checkpoint.
    """
    items: list[dict[str, Any]] = []
    for number, receipt in enumerate(receipts):
        item: dict[str, Any] = {"head": receipt.head.hex(), "sig": receipt.sig.hex()}
        if isinstance(receipt, Left):
            item["erased"] = receipt.body.members()
        else:
            item["body"] = receipt.body_text
        if proofs is not None:
            item["proof"] = proofs[number].decode("utf-8")
        items.append({**item, **(disclosures[number] if disclosures is not None else {})})
    value: dict[str, Any] = {"v": VERSION, "receipts": items}
    first = receipts[0]
    if first.seq:
        value["start"] = {"seq": first.seq - 1, "head": first.prev}
    if end is not None:
        value["end"] = {"seq": end.seq, "head": end.head}
    if consistency:
        value["consistency"] = [
            {"old": old, "size": size, "path": [item.hex() for item in path]} for old, size, path in consistency
        ]
    if erasures:
        value["erasures"] = [
            {"body": r.body_text, "head": r.head_hex, "sig": r.sig_hex, "proof": proof.decode()}
            for r, proof in erasures
        ]
    return jcs.encode(value)


def _check_depth(raw: str) -> None:
    """Refuse deep nesting before a parser sees it; linear time."""
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", raw)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            msg = f"nesting is deeper than {MAX_DEPTH}"
            raise MalformedBundle(msg)


def read_bundle(raw: bytes) -> dict[str, Any]:
    """The value of a bundle; nothing in it is verified.

    Raises:
        MalformedBundle: not the canonical bytes of a bundle.
    """
    if len(raw) > MAX_BUNDLE:
        msg = f"a bundle has at most {MAX_BUNDLE} bytes"
        raise MalformedBundle(msg)
    try:
        decoded = raw.decode("utf-8")
        _check_depth(decoded)
        value = json.loads(decoded)
        canonical = jcs.encode(value)
        _BUNDLE(value)
    except SchemaMismatch as error:
        msg = f"{error.pointer}: {error.detail}"
        raise MalformedBundle(msg) from error
    except (ValueError, TypeError, RecursionError) as error:
        msg = f"not JSON: {type(error).__name__}"
        raise MalformedBundle(msg) from error
    if canonical != raw:
        msg = "not the canonical bytes of its value"
        raise MalformedBundle(msg)
    found: dict[str, Any] = value
    return found


def _anchor(value: Any) -> Anchor | None:
    return None if value is None else Anchor(value["seq"], value["head"])


def _objects(value: Any) -> Any:
    return value


def verify_bundle(
    raw: bytes,
    *,
    policy: VerifyPolicy,
    seen: Mapping[str, Seen] | None = None,
    request_form: Callable[[Any], Any] = _objects,
) -> BundleReport:
    """Verify all of a bundle.

    Args:
        raw: the file.
        policy: what is demanded and which keys are pinned.
        seen: newest checkpoint that the verifier has seen of each origin; None = it does not remember.
        request_form: a disclosed request in the form whose digest a receipt has (with its defaults filled in).

    Raises:
        MalformedBundle: not a bundle.
        tcd.errors.InvalidRequest: records in reverse order, or over the limits of a chain.
    """
    value = read_bundle(raw)
    items = value["receipts"]
    proofs = [item.get("proof") for item in items]
    start = _anchor(value.get("start"))
    try:
        chain = verify_chain(
            [_body(item) for item in items],
            heads=[item["head"] for item in items],
            sigs=[item["sig"] for item in items],
            proofs=proofs if any(proofs) else None,
            policy=policy,
            start=start,
            end=_anchor(value.get("end")),
        )
    except InvalidRequest:
        raise
    except TcdError as error:
        raise MalformedBundle(error.detail) from error
    reports = _reports(items, start, policy, request_form)
    good = all(report.ok for report in reports) and chain.ok
    erasures, erased_by = _erasures(value, reports, policy)
    proofs += [item["proof"] for item in value.get("erasures", ())]
    log, newest = _log(value, proofs, _origin(items[0], reports[0]), seen)
    # what is erased is the least of what can be wrong
    codes = [report.code for report in (*reports, chain, *erasures) if not report.ok]
    bad = next((code for code in codes if code != Erased.code), codes[0] if codes else None)
    bad = bad if bad is not None or log in {"ok", "absent"} else log
    tail = next(check.status for check in chain.checks if check.name == "tail")
    complete = bad is None and start is None and tail == "pass"
    return BundleReport(
        bad is None,
        bad or "ok",
        tuple(reports),
        chain,
        log,
        complete,
        newest if good and bad is None else None,
        tuple(erasures),
        erased_by if bad == Erased.code and log == "ok" else {},
    )


def _reports(
    items: Sequence[Mapping[str, Any]], start: Anchor | None, policy: VerifyPolicy, request_form: Callable[[Any], Any]
) -> list[Report]:
    """A report of each record by itself, with what the one before it and the bundle say of it."""
    reports: list[Report] = []
    for number, item in enumerate(items):
        body = _body(item)
        if isinstance(body, ErasedBody):
            found = verify_erased(body, head=item["head"], sig=item["sig"], policy=policy, proof=item.get("proof"))
            reports.append(found)
            continue
        before = items[number - 1] if number else None
        reports.append(
            verify_single(
                body,
                head=item["head"],
                sig=item["sig"],
                policy=policy,
                req_obj=None if "req" not in item else request_form(item["req"]),
                comp_obj=item.get("comp"),
                e_obj=item.get("e"),
                witness_segments=item.get("witness"),
                previous=None if before is None else before.get("body"),
                anchor=start if before is None else None,
                previous_eproc=item.get("previous_eproc"),
                terms=item.get("terms"),
                proof=item.get("proof"),
            )
        )
    return reports


def _erasures(
    value: Mapping[str, Any], reports: Sequence[Report], policy: VerifyPolicy
) -> tuple[list[Report], dict[int, ErasedBy]]:
    """Reports of the `erase` records beside the receipts, and what they name."""
    items = value.get("erasures", ())
    placed = [
        Placed.of(number, item)
        for number, (item, report) in enumerate(zip(value["receipts"], reports, strict=True))
        if items and "proof" in item and (report.ok or report.code == Erased.code)
    ]
    found: list[Report] = []
    named: dict[int, ErasedBy] = {}
    for item in items:
        report, by = verify_erasure(item, placed, policy)
        found.append(report)
        # what two records name was erased by the first of them
        named |= {at: one for at, one in by.items() if at not in named or one.index < named[at].index}
    return found, named


def _body(item: Mapping[str, Any]) -> str | ErasedBody:
    erased = item.get("erased")
    return item["body"] if erased is None else ErasedBody(**erased)


def _origin(item: Mapping[str, Any], report: Report) -> str | None:
    """Of the log; None where the first receipt cannot be read."""
    if "erased" in item:
        return str(item["erased"]["origin"])
    return None if report.body is None else str(report.body["origin"])


def _log(
    value: Mapping[str, Any], proofs: Sequence[str | None], origin: str | None, seen: Mapping[str, Seen] | None
) -> tuple[str, tuple[str, Seen] | None]:
    """Code of all checkpoints together, whose signatures the receipts' reports judge, and the newest of them."""
    heads: dict[int, tuple[LogHead, bytes]] = {}
    steps = {(step["old"], step["size"]): [bytes.fromhex(item) for item in step["path"]] for step in _steps(value)}
    try:
        for proof in {proof for proof in proofs if proof is not None}:
            note = TlogProof.parse(proof.encode()).checkpoint
            head = LogHead.from_note(note)
            known = heads.setdefault(head.size, (head, note))[0]
            if known.root != head.root:
                msg = f"two logs of {head.size} leaves in one bundle"
                raise Equivocation(msg)
        if not heads or origin is None:
            return ("malformed_bundle" if steps else "absent"), None
        before = (seen or {}).get(origin)
        newest, note = heads[max(heads)]
        roots = {size: head.root for size, (head, _) in heads.items()}
        if before is not None:
            roots.setdefault(before.size, before.root)
        for (old, size), path in steps.items():
            if size not in roots:
                msg = "a proof of consistency to a log that is not there"
                raise MalformedBundle(msg)
            # from a log that another verifier saw
            if old in roots:
                check_consistency(old, size, roots[old], roots[size], path)
        check_seen(before, newest, None if before is None else steps.get((before.size, newest.size)))
    except VerificationError as error:
        return error.code, None
    return "ok", (origin, Seen(newest.size, newest.root, note))


def _steps(value: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    steps: Sequence[Mapping[str, Any]] = value.get("consistency", ())
    return steps
