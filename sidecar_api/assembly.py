"""The parts of a shim and how they are joined: settings, a scorer and the edges in, a `Runtime` out."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sidecar_api.bindings import Bindings
from sidecar_api.budget import Budget, controller_params
from sidecar_api.callers import Callers
from sidecar_api.canary_acts import canary_act
from sidecar_api.commit import Committer
from sidecar_api.decision_log import DecisionLog
from sidecar_api.derived import epoch_length, judge_rules
from sidecar_api.edges import Edges
from sidecar_api.http.auth import Tokens
from sidecar_api.http.runtime import Runtime
from sidecar_api.idempotency import Idempotency
from sidecar_api.log.assemble import make_log, verify_policy, witness_policy
from sidecar_api.log.heads_writer import HeadsWriter
from sidecar_api.log.keyring import KeyRing
from sidecar_api.log.service import LogService
from sidecar_api.mending import Mender
from sidecar_api.parts import Parts
from sidecar_api.patching import FILE as PATCHES_FILE
from sidecar_api.patching import Patches
from sidecar_api.pins import Assets, Resolver
from sidecar_api.policing import policy_digest
from sidecar_api.receipting import Receipts
from sidecar_api.replica import Replica, ReplicaRules
from sidecar_api.rewrite_records import RewriteRecords
from sidecar_api.rewriting import Rewriter, rewrite_rules, spotlight_key
from sidecar_api.service import Service
from sidecar_api.sessions import SessionTable
from sidecar_api.settle import Judge
from sidecar_api.shared_budget import SharedBudget, shared_params
from sidecar_api.signal_log import SignalLog
from sidecar_api.state import StateService
from sidecar_api.states import StateKeeper
from sidecar_api.stores import memory_ledger
from sidecar_api.subjects import Subjects, subject_key
from sidecar_api.trusting import FILE as TRUST_FILE
from sidecar_api.trusting import TrustFeed
from sidecar_api.turn import JudgeRules
from sidecar_api.verification import Verifier
from tcd import __version__
from tcd.bundles import configured
from tcd.calibration.store import AssetDirectory
from tcd.config import Settings
from tcd.journal import Journal
from tcd.ledger import Ledger
from tcd.ledger.shared import SharedLedger
from tcd.rate_limit import Limit, TokenBuckets
from tcd.receipts import SUITE, Issuer, SigningKey
from tcd.receipts.keys import SEED_SIZES
from tcd.risk_av import Controller
from tcd.rows import Scorer
from tcd.telemetry import Exporter, LogWriter
from tcd.triton.batcher import MicroBatcher
from tcd.trust import PolicySet


def make_exporter(settings: Settings) -> Exporter:
    """The metrics of an app, for whoever needs them before it is made."""
    return Exporter(
        version=__version__,
        config_hash=settings.config_hash,
        policy="default",
        slo_seconds=settings.slo_ms / 1000.0,
    )


def _keyring(settings: Settings, edges: Edges, logs: LogWriter) -> KeyRing | None:
    """The keys of receipts and of the log, None with receipts off.

    Raises:
        ConfigError: they cannot be used.
    """
    if not settings.receipts_enable:
        return None
    if settings.attest_sk_hex is not None:
        seed = bytes.fromhex(settings.attest_sk_hex.get_secret_value())
    elif settings.keys_dir is not None:
        seed = b""
    else:
        seed = edges.random(SEED_SIZES[SUITE])
        logs.write("warning", "the receipt key is ephemeral: set TCD_ATTEST_SK_HEX", kid=SigningKey(seed).kid)
    return KeyRing(settings, seed=seed, now_us=edges.now_us)


def _receipts(settings: Settings, edges: Edges, keyring: KeyRing | None) -> Receipts | None:
    if keyring is None:
        return None
    return Receipts(
        issuer=Issuer(keyring.keys.receipt, origin=settings.origin),
        config=settings.config_hash,
        policy=policy_digest(settings),
        unit=settings.unit,
        now_us=edges.now_us,
        random=edges.random,
    )


def _budget(settings: Settings, assets: Assets, controller: Controller | None, *, shared: bool) -> Budget:
    """The controller's front.

    Raises:
        ConfigError: the configured epoch length is more than the calibration carries, or a shared budget that
            cannot be leased.
    """
    params = controller_params(
        alpha=settings.alpha,
        alpha_e=settings.alpha_e,
        rule=settings.rule,
        schedule=settings.schedule,
        omega=settings.omega,
        length=epoch_length(settings, assets),
        epoch_roll=settings.epoch_roll,
        credit_cap=settings.credit_cap,
    )
    auto = settings.epoch_length == "auto" and settings.schedule == "uniform" and settings.rule == "rai"
    shares = settings.pool_shares if settings.unit == "request" else 0
    made = controller or Controller(params)
    if shared:
        shared_params(params)
        return SharedBudget(made, auto_length=auto, max_streams=settings.max_streams, shares=shares, now=time.monotonic)
    return Budget(made, auto_length=auto, max_streams=settings.max_streams, shares=shares)


def _service(
    settings: Settings, scorer: Scorer, assets: Assets, edges: Edges, judge: Judge, bindings: Bindings, parts: _Shared
) -> Service:
    return Service(
        Parts(
            settings=settings,
            scorer=scorer,
            resolver=Resolver(assets, alpha=settings.alpha),
            budget=judge.budget,
            judge=judge,
            bindings=bindings,
            sessions=SessionTable(
                limit=settings.sessions_max,
                limit_bytes=settings.sessions_max_bytes,
                idle=settings.session_idle_s,
                min_idle=settings.session_min_idle_s,
            ),
            idempotency=parts.idempotency,
            subjects=Subjects(subject_key(settings, edges.random)),
            observer=parts.exporter,
            now_us=edges.now_us,
            random=edges.random,
            gpu=edges.gpu,
            patches=_patches(settings, edges, judge),
            punctual=isinstance(scorer, MicroBatcher),
            judge_canary=canary_act(assets.directory, judge, parts.logs)
            if isinstance(assets, AssetDirectory)
            else None,
        )
    )


@dataclass(frozen=True, slots=True)
class _Shared:
    """What several parts use."""

    ledger: Ledger
    idempotency: Idempotency
    exporter: Exporter
    logs: LogWriter
    committer: Committer
    receipts: Receipts | None

    @property
    def several(self) -> SharedLedger | None:
        """The ledger, where other shims write to it too."""
        return self.ledger if isinstance(self.ledger, SharedLedger) else None


def _shared(settings: Settings, edges: Edges, logs: LogWriter, keyring: KeyRing | None) -> _Shared:
    ledger = edges.ledger or memory_ledger(settings)
    return _Shared(
        ledger=ledger,
        idempotency=Idempotency(ledger, ttl=settings.idempotency_ttl_s),
        exporter=edges.exporter or make_exporter(settings),
        logs=logs,
        committer=Committer(ledger, now_us=edges.now_us),
        receipts=_receipts(settings, edges, keyring),
    )


def _judge(settings: Settings, assets: Assets, edges: Edges, rules: JudgeRules, shared: _Shared) -> Judge:
    ledger, several = shared.ledger, shared.several
    budget = _budget(settings, assets, edges.controller, shared=several is not None)
    judge = Judge(
        rules,
        budget=budget,
        receipts=shared.receipts,
        committer=shared.committer,
        idempotency=shared.idempotency,
        observer=shared.exporter,
        now_us=edges.now_us,
        keeper=StateKeeper(ledger, budget.controller, every=settings.state_every)
        if ledger.durable and several is None
        else None,
    )
    judge.pressure.objective = settings.slo_ms / 1000.0
    judge.trust = _trust(settings, edges)
    judge.signals = _signals(settings, edges)
    if shared.receipts is not None:
        judge.mender = Mender(ledger, shared.receipts, judge.put)
    return judge


def _log(
    settings: Settings, edges: Edges, keyring: KeyRing, judge: Judge, shared: _Shared
) -> tuple[Verifier, LogService | None]:
    """The verifier, and the transparency log where it is on."""
    witnesses = witness_policy(settings)
    verifier = Verifier(verify_policy(keyring.keys, witnesses), now_us=edges.now_us, ledger=shared.ledger)
    log = make_log(
        settings, shared.ledger, keyring, witnesses=witnesses, metrics=shared.exporter.log, now_us=edges.now_us
    )
    if log is not None:
        shared.committer.grew = log.checkpointer.grew
        if shared.receipts is not None and settings.log_heads_s:
            log.heads = HeadsWriter(shared.ledger, shared.receipts, judge.put, every=settings.log_heads_s)
    return verifier, log


def _rewriter(
    settings: Settings, policies: PolicySet | None, edges: Edges, judge: Judge, service: Service, shared: _Shared
) -> Rewriter:
    return Rewriter(
        rewrite_rules(settings, policies),
        key=edges.spotlight_key or spotlight_key(settings, edges.random),
        random=edges.random,
        metrics=shared.exporter.spotlighting,
        logs=shared.logs if settings.log_decisions else None,
        keeper=RewriteRecords(judge, service.subjects),
    )


def _trust(settings: Settings, edges: Edges) -> TrustFeed | None:
    """The trust graph, kept beside the ledger where that is kept.

    Raises:
        ConfigError: its journal cannot be used.
    """
    if not settings.trust_enable:
        return None
    return TrustFeed(settings, journal=_journal(edges, TRUST_FILE), clock=lambda: edges.now_us() / 1e6)


def _signals(settings: Settings, edges: Edges) -> SignalLog | None:
    if settings.signal_log is None:
        return None
    most = settings.signal_log_mib << 20
    return SignalLog(settings.signal_log, most=most, share=settings.signal_log_share, boot=edges.now_us())


def _patches(settings: Settings, edges: Edges, judge: Judge) -> Patches:
    """The patches, kept beside the ledger where that is kept.

    Raises:
        ConfigError: their journal cannot be used.
    """
    return Patches(
        settings,
        judge,
        now=lambda: edges.now_us() / 1e6,
        journal=_journal(edges, PATCHES_FILE),
    )


def _journal(edges: Edges, name: str) -> Journal | None:
    if edges.folder is None:
        return None
    edges.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Journal(edges.folder / name)


def _replica(settings: Settings, ledger: SharedLedger, judge: Judge, committer: Committer, edges: Edges) -> Replica:
    assert isinstance(judge.budget, SharedBudget)  # noqa: S101 - for the type checker
    rules = ReplicaRules(
        name=settings.replica, ttl=settings.lease_ttl_s, idle=settings.session_idle_s, state_every=settings.state_every
    )
    return Replica(ledger, judge.budget, rules=rules, receipts=judge.receipts, committer=committer, now_us=edges.now_us)


def follow(batcher: MicroBatcher, committer: Committer) -> None:
    """Rows wait for the commit of those before them."""
    batcher.follow(lambda: committer.under_way)
    committer.ended = batcher.committed


def make_runtime(settings: Settings, scorer: Scorer, assets: Assets, edges: Edges) -> Runtime:
    """All parts of a shim, wired; nothing is started.

    Raises:
        ConfigError: the settings do not fit the assets, or a file that they name is refused.
    """
    logs = LogWriter(level=settings.log_level, limit=settings.log_queue)
    policies = configured(settings.policies, settings.policies_json)
    keyring = _keyring(settings, edges, logs)
    shared = _shared(settings, edges, logs, keyring)
    rules = judge_rules(settings, durable=shared.ledger.durable)
    judge = _judge(settings, assets, edges, rules, shared)
    # a commit into a database elsewhere takes longer than a call beside it
    if isinstance(scorer, MicroBatcher) and shared.several is None:
        follow(scorer, shared.committer)
    service = _service(settings, scorer, assets, edges, judge, Bindings(rules, policies), shared)
    checks = dict(edges.checks or {})
    replica = None
    if shared.several is not None:
        replica = _replica(settings, shared.several, judge, shared.committer, edges)
        replica.forget = service.lifecycle.disown
        checks["ledger"] = replica.problem
    verifier, log = None, None
    if keyring is not None:
        checks["keys"] = keyring.problem
        verifier, log = _log(settings, edges, keyring, judge, shared)

    def loaded(digest: str, sessions: int) -> None:
        logs.write("warning", "state loaded", digest=digest, sessions=sessions)

    return Runtime(
        settings=settings,
        ledger=shared.ledger,
        service=service,
        callers=Callers(service, idempotency=shared.idempotency, now_us=edges.now_us, random=edges.random),
        state=StateService(service, receipts=shared.receipts, log=loaded),
        verifier=verifier,
        rewriter=_rewriter(settings, policies, edges, judge, service, shared),
        exporter=shared.exporter,
        logs=logs,
        tokens=Tokens(settings.api_tokens),
        edge=TokenBuckets(Limit(settings.edge_rate_cap, settings.edge_rate_refill), max_keys=settings.rate_subjects),
        checks=checks,
        log=log,
        keyring=keyring,
        replica=replica,
        triton=edges.triton,
        config_hash=settings.config_hash.encode(),
        policies=policies,
        decisions=DecisionLog(settings.decision_log) if settings.decision_log is not None else None,
        spans=edges.spans,
    )
