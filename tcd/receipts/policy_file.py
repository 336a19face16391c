"""A verification policy as a file, so that "valid" means the same to everyone who has it.

`{"v": "tcd.verify-policy/1"}` and, where they differ from the default: `require`, `require_chain`, `origins`,
`algorithms`, `log_algorithms`, `max_future_us`, `witnesses` (text of a C2SP tlog-policy) and `rule` (`rules`).
"""

from __future__ import annotations

from typing import Any, Final

from tcd.receipts.errors import PolicyRefused
from tcd.receipts.keyset import KeySet
from tcd.receipts.report import CHAIN, SINGLE, VerifyPolicy
from tcd.receipts.rules import rule_from_json
from tcd.receipts.schema import Check, integer, listing, one_of, record, text
from tcd.receipts.tlog_policy import MAX_POLICY, parse_policy

VERSION: Final = "tcd.verify-policy/1"
_ALGORITHMS: Final = listing(one_of("Ed25519", "ML-DSA-44"), 2)


def _any(_: Any) -> None:
    """Checked by its own parser."""


_OPTIONAL: Final[dict[str, Check]] = {
    "require": listing(one_of(*SINGLE), len(SINGLE)),
    "require_chain": listing(one_of(*CHAIN), len(CHAIN)),
    "origins": listing(text(128, 1), 64, 1),
    "algorithms": _ALGORITHMS,
    "log_algorithms": _ALGORITHMS,
    "max_future_us": integer(),
    "witnesses": text(MAX_POLICY, 1),
    "rule": _any,
}
_FILE: Final = record({"v": one_of(VERSION)}, _OPTIONAL)


def policy_from_json(obj: Any, keys: KeySet, *, now_us: int | None = None) -> VerifyPolicy:
    """The policy of a file.

    Args:
        obj: content of the file.
        keys: the pinned keys.
        now_us: the verifier's time, None = receipts from the future are not noticed.

    Raises:
        VerificationError: no policy.
    """
    _FILE(obj)
    options: dict[str, Any] = {
        name: frozenset(obj[name])
        for name in ("require", "require_chain", "origins", "algorithms", "log_algorithms")
        if name in obj
    }
    if "max_future_us" in obj:
        options["max_future_us"] = obj["max_future_us"]
    if "witnesses" in obj:
        try:
            options["witnesses"] = parse_policy(obj["witnesses"].encode("utf-8"))
        except UnicodeEncodeError as error:
            msg = "a policy is UTF-8"
            raise PolicyRefused(msg) from error
    if "rule" in obj:
        options["rule"] = rule_from_json(obj["rule"])
    return VerifyPolicy(keys, now_us=now_us, **options)
