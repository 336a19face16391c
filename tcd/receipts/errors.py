"""Why a receipt does not verify: one class per stable code.

::

    VerificationError (tcd.errors)
    +- LimitExceeded       limit               depth, members or digits over the profile's limits
    +- NotCanonical        not_canonical       not the bytes that tcd-jcs-1 writes
    +- BadNumber           bad_number          a float, exponent, -0, NaN or an integer beyond 2^53 - 1
    +- BadString           bad_string          control character or lone surrogate
    +- SchemaMismatch      schema              member missing, unknown, mistyped or out of range
    +- UnknownVersion      version             `v` or `suite` that this verifier does not know
    +- HeadMismatch        head_mismatch
    +- UnknownKey          unknown_key         the key is not pinned
    +- BadKey              bad_key             small order, not canonical, not on the curve
    +- KeyNotAuthorised    key_not_authorised  other purpose, tenant or origin
    +- KeyNotValid         key_not_valid       outside its validity, or compromised
    +- MissingSignature    missing_signature
    +- BadSignature        bad_signature
    +- NotConcordant       concordance         req, comp or e object differs from its digest
    +- WitnessMismatch     witness_mismatch
    +- ChainMismatch       chain_id            a record of another chain
    |  +- SeqGap           seq_gap
    |  +- PrevMismatch     prev_mismatch
    |  +- Fork             fork                two records with one sequence number
    |  +- Truncated        truncated
    +- TimeOrder           time_order
    +- Erased              erased              the body was erased; nothing else is wrong
    +- PolicyRefused       policy              the verifier's policy refuses it
    +- ReplayMismatch      replay_mismatch     the e-process does not follow
    +- BadInclusion        bad_inclusion       the leaf is not in the log by this proof
    |  +- LeafMismatch     leaf_mismatch       the proof is of another receipt
    |  +- LogChainMismatch log_chain_mismatch  a record of a chain is not in the log, or not in the chain's order
    +- InconsistentLog     inconsistent_log    the older log is no prefix of the newer one by this proof
    |  +- Rollback         rollback            older than what the verifier has already seen
    |  +- Equivocation     equivocation        two logs of one size: both notes are evidence
    +- MalformedNote       malformed_note      not a signed note, or not the text that it must hold
    +- MalformedCheckpoint malformed_checkpoint
    +- MalformedTile       malformed_tile      a tile is missing, or not of its width
    +- MalformedKeyset     malformed_keyset    not a key set, or not one that the root keys signed
    +- MalformedBundle     malformed_bundle
    +- WrongOrigin         wrong_origin        a checkpoint of another log
    +- NoQuorum            no_quorum           too few witnesses cosigned
    +- CheckSkipped        skipped             a requested check could not run
"""

from __future__ import annotations

from typing import Final

from tcd.errors import VerificationError


class LimitExceeded(VerificationError):
    """Over a limit of the profile; the verifier looks no further."""

    code = "limit"


class NotCanonical(VerificationError):
    """Not the bytes that the profile writes."""

    code = "not_canonical"


class BadNumber(VerificationError):
    """A number outside the profile."""

    code = "bad_number"


class BadString(VerificationError):
    """A string outside the profile."""

    code = "bad_string"


class SchemaMismatch(VerificationError):
    """A member is missing, unknown, mistyped or out of range."""

    code = "schema"


class UnknownVersion(VerificationError):
    """A version or suite that this verifier does not know."""

    code = "version"


class HeadMismatch(VerificationError):
    """The head is not that of the body."""

    code = "head_mismatch"


class UnknownKey(VerificationError):
    """The key is not pinned."""

    code = "unknown_key"


class BadKey(VerificationError):
    """The key is unsafe or of the wrong length."""

    code = "bad_key"


class KeyNotAuthorised(VerificationError):
    """The key is pinned for another purpose, tenant or origin."""

    code = "key_not_authorised"


class KeyNotValid(VerificationError):
    """The key was not valid at that time, or is compromised."""

    code = "key_not_valid"


class MissingSignature(VerificationError):
    """A required signature is not there."""

    code = "missing_signature"


class BadSignature(VerificationError):
    """The signature does not verify."""

    code = "bad_signature"


class NotConcordant(VerificationError):
    """A disclosed object differs from its digest."""

    code = "concordance"


class WitnessMismatch(VerificationError):
    """A disclosed witness segment differs from its digest."""

    code = "witness_mismatch"


class ChainMismatch(VerificationError):
    """A record of another chain."""

    code = "chain_id"


class SeqGap(ChainMismatch):
    """A record is missing, repeated or out of order."""

    code = "seq_gap"


class PrevMismatch(ChainMismatch):
    """A record does not link to the one before."""

    code = "prev_mismatch"


class Fork(ChainMismatch):
    """Two records with one sequence number."""

    code = "fork"


class Truncated(ChainMismatch):
    """The records end before the end that was asked for."""

    code = "truncated"


class TimeOrder(VerificationError):
    """Time goes backwards in a chain."""

    code = "time_order"


class Erased(VerificationError):
    """The body was erased: what is left of the receipt is in order, and what it said cannot be shown any more."""

    code = "erased"


class PolicyRefused(VerificationError):
    """The verifier's policy refuses the receipt."""

    code = "policy"


class ReplayMismatch(VerificationError):
    """The e-process snapshot does not follow from the one before."""

    code = "replay_mismatch"


class BadInclusion(VerificationError):
    """The proof does not show the leaf in the log."""

    code = "bad_inclusion"


class LeafMismatch(BadInclusion):
    """The proof is of another receipt."""

    code = "leaf_mismatch"


class LogChainMismatch(BadInclusion):
    """A record of a chain is not in the log, or not in the order of the chain."""

    code = "log_chain_mismatch"


class InconsistentLog(VerificationError):
    """The proof does not show the older log as a prefix of the newer one."""

    code = "inconsistent_log"


class Rollback(InconsistentLog):
    """Older than what the verifier has already seen."""

    code = "rollback"


class Equivocation(InconsistentLog):
    """Two checkpoints of one size with different roots: both are evidence against the log."""

    code = "equivocation"


class MalformedNote(VerificationError):
    """Not a signed note, or not a proof in text form."""

    code = "malformed_note"


class MalformedCheckpoint(VerificationError):
    """A note that is no checkpoint."""

    code = "malformed_checkpoint"


class MalformedTile(VerificationError):
    """A tile is missing, or not of the width that the size of the log asks for."""

    code = "malformed_tile"


class MalformedKeyset(VerificationError):
    """Not a key set, or not one that the root keys signed."""

    code = "malformed_keyset"


class MalformedBundle(VerificationError):
    """Not a bundle, or not its one encoding."""

    code = "malformed_bundle"


class NoQuorum(VerificationError):
    """Too few of the witnesses that the policy names cosigned the checkpoint."""

    code = "no_quorum"


class WrongOrigin(VerificationError):
    """A checkpoint of another log."""

    code = "wrong_origin"


class CheckSkipped(VerificationError):
    """A requested check could not run."""

    code = "skipped"


#: Every code with its class.
BY_CODE: Final = {
    cls.code: cls
    for cls in (
        *(LimitExceeded, NotCanonical, BadNumber, BadString, SchemaMismatch, UnknownVersion, HeadMismatch),
        *(UnknownKey, BadKey, KeyNotAuthorised, KeyNotValid, MissingSignature, BadSignature, NotConcordant),
        *(WitnessMismatch, ChainMismatch, SeqGap, PrevMismatch, Fork, Truncated, TimeOrder, Erased, PolicyRefused),
        *(ReplayMismatch, BadInclusion, LeafMismatch, LogChainMismatch, InconsistentLog, Rollback, Equivocation),
        *(MalformedNote, MalformedCheckpoint, MalformedTile, MalformedKeyset, MalformedBundle, WrongOrigin, NoQuorum),
        CheckSkipped,
    )
}
