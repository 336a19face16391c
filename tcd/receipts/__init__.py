"""Receipts v2: canonical bodies, heads, signatures, chains, witness segments, the log, verification."""

from __future__ import annotations

from tcd.receipts.body import MAX_BODY, check_body, head_of, signature_input
from tcd.receipts.chain import ChainState, chain_id, subject_digest
from tcd.receipts.checks import Anchor
from tcd.receipts.eproc import replay_step, snapshot_digest
from tcd.receipts.issue import Issuer, Receipt
from tcd.receipts.keys import HybridKey, MlDsaKey, Signer, SigningKey, key_id
from tcd.receipts.keyset import KeySet, PinnedKey
from tcd.receipts.members import SUITE, VERSION
from tcd.receipts.report import CheckResult, Report, VerifyPolicy
from tcd.receipts.verify import verify_single
from tcd.receipts.verify_chain import verify_chain
from tcd.receipts.witness import segment

__all__ = [
    "MAX_BODY",
    "SUITE",
    "VERSION",
    "Anchor",
    "ChainState",
    "CheckResult",
    "HybridKey",
    "Issuer",
    "KeySet",
    "MlDsaKey",
    "PinnedKey",
    "Receipt",
    "Report",
    "Signer",
    "SigningKey",
    "VerifyPolicy",
    "chain_id",
    "check_body",
    "head_of",
    "key_id",
    "replay_step",
    "segment",
    "signature_input",
    "snapshot_digest",
    "subject_digest",
    "verify_chain",
    "verify_single",
]
