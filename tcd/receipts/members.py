"""The members of a receipt's body, `tcd.receipt/2`: what each may be, by the type of the record.

A body is a tcd-jcs-1 object (`canonical`), at most 16 KiB. Notation: *hex64* a real (`risk_av.exact`), *digest*
`sha256:` and 64 hex digits, *u64* a decimal string, all integers >= 0 unless said. No member may be absent
unless marked `?`; no other member is allowed; null is never a value.

Every body::

    v        "tcd.receipt/2"
    typ      open | decision | gap | close | admin | ack | rotate | heads | rewrite | erase
    suite    "Ed25519", or "Ed25519+ML-DSA-44": both signatures, and both must verify
    kid      32 hex digits, id of the signing key
    origin   issuer's name, 1..128 characters
    chain    {id: digest, seq: integer, prev: 64 hex digits}   seq 0, prev zeros and typ open go together
    ts_us    microseconds since 1970 (the issuer's clock; not trusted by itself)
    nonce    32 hex digits, random: the head of a guessable body cannot be confirmed
    tenant   1..128 characters
    config   digest of the settings in force
    policy   digest of the policy in force

typ open, one of::

    open {scope: "session", subject: digest, model, pins: {keys: [u64 x3], mask: 0..15, assets: [u64 x3],
          weight: hex64}, unit}
    open {scope: "epoch", stream: digest, epoch: integer, claim_level: hex64, terms}
          terms: {alpha, alpha_e, cusum_arl, from_spent, kappa: hex64, from_index: integer, rule: `RULES`,
                  schedule: "uniform" and size: integer | schedule: "omega" and size: hex64}

typ decision::

    subject     keyed digest of (tenant, user, session): not the raw user
    model       {id, gpu, task, lang: 0..128 characters}
    req         digest of the RFC 8785 form of the validated request object
    comp        digest of the RFC 8785 form of the answer's `components`
    e           digest of the RFC 8785 form of the answer's e-object (`components.av`)
    decision    {verdict, trigger: boolean, score, threshold: hex64, action, enforced: an action,
                 cause: detector|av|policy|budget|degraded|trust|slo|"", step: integer, status: integer,
                 tags: at most 16 strings of 1..64}
                actions: allow|degrade|block|throttle|ask_for_review|escalate_to_human
    route       {temperature_e6, top_p_e6, max_tokens: integer, decoder, tier: names of `tcd.contract`}
    components  at most 16 of name: {triggered: boolean, severity, p, z: hex64}
    av          {unit: session|request|block|none, stream: digest, hypothesis: digest, epoch, index, seq, known:
                 integer, alloc, spent, wealth, p, p_floor: hex64, sup: [hex64, hex64] as sent, exhausted: boolean}
    eproc       the newest folded snapshot of the stream, see below
    witness     at most 8 segments of different names {name: trace|entropy|spectrum|features, n: 0..16384,
                q: "affine-u32/1", lo, hi: hex64, salt: 32 hex digits, digest}
    guarantee   the claim in force, 1..512 characters
    evidence    "shim" | "caller"
    assets      [u64 x3] ids of the detector, multivariate and policy assets used
    risk        ? what the policy's table saw beside `decision` and `av`: {tier: 0..2, alarm, floor, failed: boolean,
                spent, distrust, pressure: hex64}

eproc (`risk_av.views.EprocSnapshot`)::

    {kind: "restart-mixture/1", stream, params, prev: digest, claim, step, epoch, index, known: integer,
     x, alloc, spent, wealth, threshold: hex64, s, e, c: hex64 mantissas in [1, 2) or 0,
     s_exp2, e_exp2, c_exp2: integer of either sign, trigger: boolean}

typ gap    `gap {from, to: integer, reason: 1..128}`: a signed admission of loss; the shim's has the number `from`
typ close  `close {reason: end|idle|horizon|pin_changed|abandoned|epoch_roll|shutdown, count: records of the
           chain with this one}`, `eproc`?
typ admin  `admin {action, actor: 1..128, object: digest, reason: ? 1..128, why it was done}`
typ ack    `ack {actor: 1..128, stream: digest, claim: integer, terms}`
typ rotate `rotate {alg, pub: hex, kid: of that key, from_us: integer, proof: hex}`: the key that signs the record
           hands over to another one, whose signature `proof` is (`rotation`)
typ heads  `heads {count: integer, root: 64 hex digits}`: the newest record of every chain (`heads`)
typ rewrite  `subject`, `model` as in a decision, and `rewrite {outcome: digest of the rewriter's outcome,
           before, after: digests of the body's bytes, rewritten, shadow: boolean, zones: integer,
           marking: datamark|delimit|encode|none, delta: integer of either sign,
           failures: at most 16 strings of 1..64}`
typ erase  `erase {actor: 1..128, reason: subject|age, count: integer >= 1, leaves: [first, number, ...] of at most 200
           runs of leaves, heads: digest}`: bodies that are gone while their heads stay in the log (`erasure`)
"""

from __future__ import annotations

from typing import Any, Final

from tcd.contract import DECODERS, TIERS
from tcd.receipts.erasure import MAX_RUNS, REASONS
from tcd.receipts.keys import ALG, HYBRID, PUBLIC_SIZES, SIGNATURE_SIZES
from tcd.receipts.schema import (
    Check,
    Shape,
    boolean,
    digest,
    either,
    expression_of,
    hexadecimal,
    integer,
    listing,
    mapping,
    one_of,
    real,
    record,
    refuse,
    text,
    u64,
)
from tcd.receipts.witness import MAX_VALUES, NAMES, QUANTISER
from tcd.risk_av.params import RULES
from tcd.risk_av.views import CLOSE_REASONS, SNAPSHOT_KIND

VERSION: Final = "tcd.receipt/2"
SUITE: Final = ALG
SUITES: Final = (ALG, HYBRID)
ACTIONS: Final = ("allow", "degrade", "block", "throttle", "ask_for_review", "escalate_to_human")
CAUSES: Final = ("detector", "av", "policy", "budget", "degraded", "trust", "slo", "")
TYPES: Final = ("open", "decision", "gap", "close", "admin", "ack", "rotate", "heads", "rewrite", "erase")

_COUNT: Final = integer()
_NAME: Final = text(128, 1)
_SIGNED: Final = integer(-(2**53 - 1))
_IDS: Final = listing(u64, 3, 3)
_UNIT: Final = one_of("session", "request", "block", "none")
_MODEL: Final = record({name: text(128) for name in ("id", "gpu", "task", "lang")})
_TERMS_BASE: Final[dict[str, Check]] = {
    **dict.fromkeys(("alpha", "alpha_e", "cusum_arl", "from_spent", "kappa"), real),
    "from_index": _COUNT,
    "rule": one_of(*RULES),
}
_TERMS_BY_SCHEDULE: Final = {
    "uniform": record({**_TERMS_BASE, "schedule": one_of("uniform"), "size": integer(1)}),
    "omega": record({**_TERMS_BASE, "schedule": one_of("omega"), "size": real}),
}
#: A snapshot of an e-process.
EPROC: Final = record(
    {
        "kind": one_of(SNAPSHOT_KIND),
        **dict.fromkeys(("stream", "params", "prev"), digest),
        **dict.fromkeys(("claim", "step", "epoch", "index", "known"), _COUNT),
        **dict.fromkeys(("x", "alloc", "spent", "wealth", "threshold", "s", "e", "c"), real),
        **dict.fromkeys(("s_exp2", "e_exp2", "c_exp2"), _SIGNED),
        "trigger": boolean,
    }
)
_SEGMENT: Final = record(
    {
        "name": one_of(*NAMES),
        "n": integer(0, MAX_VALUES),
        "q": one_of(QUANTISER),
        "lo": real,
        "hi": real,
        "salt": hexadecimal(16),
        "digest": digest,
    }
)
_SEGMENTS: Final = listing(_SEGMENT, 8)


def _check_terms(value: Any) -> None:
    schedule = value.get("schedule") if type(value) is dict else None
    chosen(_TERMS_BY_SCHEDULE, schedule, "/schedule")(value)


_terms: Final = Shape(_check_terms, either(*_TERMS_BY_SCHEDULE.values()))


def chosen(table: dict[str, Check], name: Any, pointer: str) -> Check:
    """What a name stands for in a table.

    Raises:
        SchemaMismatch: it is not in it; `pointer` names the member.
    """
    check = table.get(name) if type(name) is str else None
    if check is None:
        raise refuse(why=f"not one of {', '.join(table)}", pointer=pointer)
    return check


_SCOPES: Final = {
    "session": record(
        {
            "scope": one_of("session"),
            "subject": digest,
            "model": _MODEL,
            "pins": record({"keys": _IDS, "mask": integer(0, 15), "assets": _IDS, "weight": real}),
            "unit": _UNIT,
        }
    ),
    "epoch": record(
        {"scope": one_of("epoch"), "stream": digest, "epoch": _COUNT, "claim_level": real, "terms": _terms}
    ),
}


def _check_open(value: Any) -> None:
    scope = value.get("scope") if type(value) is dict else None
    chosen(_SCOPES, scope, "/scope")(value)


def _check_segments(value: Any) -> None:
    _SEGMENTS(value)
    if not different_names(value):
        raise refuse(why="two segments of one name")


def different_names(segments: Any) -> bool:
    """Whether no two segments of a witness have one name."""
    return len({segment["name"] for segment in segments}) == len(segments)


_open: Final = Shape(_check_open, either(*_SCOPES.values()))
#: That the names differ is no matter of the text: `fits` looks at them.
_segments: Final = Shape(_check_segments, expression_of(_SEGMENTS))


_ROTATE: Final = {
    alg: record(
        {
            "alg": one_of(alg),
            "pub": hexadecimal(PUBLIC_SIZES[alg]),
            "kid": hexadecimal(16),
            "from_us": _COUNT,
            "proof": hexadecimal(SIGNATURE_SIZES[alg]),
        }
    )
    for alg in SUITES
}


def _check_rotate(value: Any) -> None:
    chosen(_ROTATE, value.get("alg") if type(value) is dict else None, "/alg")(value)


_rotate: Final = Shape(_check_rotate, either(*_ROTATE.values()))


_DECISION: Final = record(
    {
        **dict.fromkeys(("verdict", "trigger"), boolean),
        **dict.fromkeys(("score", "threshold"), real),
        **{name: one_of(*ACTIONS) for name in ("action", "enforced")},
        "cause": one_of(*CAUSES),
        "step": _COUNT,
        "status": _COUNT,
        "tags": listing(text(64, 1), 16),
    }
)
_ROUTE: Final = record(
    {
        **dict.fromkeys(("temperature_e6", "top_p_e6", "max_tokens"), _COUNT),
        "decoder": one_of(*DECODERS),
        "tier": one_of(*TIERS),
    }
)
_AV: Final = record(
    {
        "unit": _UNIT,
        **dict.fromkeys(("stream", "hypothesis"), digest),
        **dict.fromkeys(("epoch", "index", "seq", "known"), _COUNT),
        **dict.fromkeys(("alloc", "spent", "wealth", "p", "p_floor"), real),
        "sup": listing(real, 2, 2),
        "exhausted": boolean,
    }
)
#: What a policy's table saw.
RISK: Final = record(
    {
        "tier": integer(0, 2),
        **dict.fromkeys(("alarm", "floor", "failed"), boolean),
        **dict.fromkeys(("spent", "distrust", "pressure"), real),
    }
)
_REWRITE: Final = record(
    {
        **dict.fromkeys(("outcome", "before", "after"), digest),
        **dict.fromkeys(("rewritten", "shadow"), boolean),
        "marking": one_of("datamark", "delimit", "encode", "none"),
        "zones": _COUNT,
        "delta": _SIGNED,
        "failures": listing(text(64, 1), 16),
    }
)
_ERASE: Final = record(
    {
        "actor": _NAME,
        "reason": one_of(*REASONS),
        "count": integer(1),
        "leaves": listing(_COUNT, 2 * MAX_RUNS, 2),
        "heads": digest,
    }
)
_BASE: Final[dict[str, Check]] = {
    "v": one_of(VERSION),
    "typ": one_of(*TYPES),
    "suite": one_of(*SUITES),
    "kid": hexadecimal(16),
    "origin": _NAME,
    "chain": record({"id": digest, "seq": _COUNT, "prev": hexadecimal(32)}),
    "ts_us": _COUNT,
    "nonce": hexadecimal(16),
    "tenant": _NAME,
    "config": digest,
    "policy": digest,
}
#: Members of a decision that every one has.
DECISION_PARTS: Final[dict[str, Check]] = {
    **_BASE,
    **dict.fromkeys(("subject", "req", "comp", "e"), digest),
    "model": _MODEL,
    "decision": _DECISION,
    "route": _ROUTE,
    "components": mapping(record({"triggered": boolean, **dict.fromkeys(("severity", "p", "z"), real)}), 16),
    "av": _AV,
    "eproc": EPROC,
    "witness": _segments,
    "guarantee": text(512, 1),
    "evidence": one_of("shim", "caller"),
    "assets": _IDS,
}
#: Bodies by `typ`.
BY_TYPE: Final[dict[str, Check]] = {
    "open": record({**_BASE, "open": _open}),
    "decision": record(DECISION_PARTS, {"risk": RISK}),
    "gap": record({**_BASE, "gap": record({"from": _COUNT, "to": _COUNT, "reason": _NAME})}),
    "close": record(
        {
            **_BASE,
            "close": record({"reason": one_of(*CLOSE_REASONS, "epoch_roll", "shutdown"), "count": integer(1)}),
        },
        {"eproc": EPROC},
    ),
    "admin": record({**_BASE, "admin": record({"action": _NAME, "actor": _NAME, "object": digest}, {"reason": _NAME})}),
    "ack": record({**_BASE, "ack": record({"actor": _NAME, "stream": digest, "claim": _COUNT, "terms": _terms})}),
    "rotate": record({**_BASE, "rotate": _rotate}),
    "heads": record({**_BASE, "heads": record({"count": _COUNT, "root": hexadecimal(32)})}),
    "erase": record({**_BASE, "erase": _ERASE}),
    "rewrite": record({**_BASE, "subject": digest, "model": _MODEL, "rewrite": _REWRITE}),
}
