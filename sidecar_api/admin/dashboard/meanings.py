"""What each check of a verification means, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Checks of one receipt (`tcd.receipts.report.SINGLE`).
SINGLE: Final[Mapping[str, str]] = {
    "size": "the body is not longer than a receipt may be",
    "utf8": "the body is text in UTF-8",
    "parse": "the body is JSON of the strict profile",
    "canonical": "the body is written in its one canonical form, so that one content has one digest",
    "schema": "every member is there, and none that does not belong",
    "head": "the head is the digest of this body: not a character was changed",
    "key": "the key that the receipt names is one of the pinned keys and may sign such receipts",
    "key_valid": "the key was valid at the time of the receipt",
    "signature": "the holder of that key signed this head",
    "concordance": "the request, the components and the evidence that were handed over have the digests of the receipt",
    "witness": "the disclosed signals have the digests of the receipt",
    "chain": "the record before it is the one that it names",
    "clock": "the receipt is not from the future",
    "inclusion": "the proof leads from this receipt to the root of the log: it is in the log, at its place",
    "checkpoint": "the log signed that root",
    "witness_quorum": "enough witnesses signed that root too: the log shows everybody the same",
    "eproc": "the e-process follows from the one before it",
    "policy": "further rules of the verifier hold",
}
#: Checks of a chain (`tcd.receipts.report.CHAIN`).
CHAIN: Final[Mapping[str, str]] = {
    "records": "each record is a well-formed receipt",
    "head": "each head is the digest of its body",
    "links": "each record names the one before it: none is missing, inserted or swapped",
    "time": "time does not run backwards",
    "start": "the first of these records is where it should be",
    "tail": "the chain ends here, so that nothing was cut off",
    "key": "the keys are pinned and may sign such receipts",
    "signature": "each record is signed",
    "inclusion": "each record is in the log, in this order",
    "eproc": "each e-process follows from the one before it",
}
#: What a status means.
STATUS: Final[Mapping[str, str]] = {
    "pass": "passed",
    "fail": "failed",
    "skipped": "could not be checked",
    "absent": "not asked for",
}
