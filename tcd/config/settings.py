"""Every setting: its name, type, default and limits, and which of them do not go together.

`config_hash` is the SHA-256 of the canonical public settings; secrets are `SecretStr` and never part of it.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tcd.spotlight.policy import MarkerStrategy, Marking, OnFailure, Policy, ZoneMode

PREFIX: Final = "TCD_"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Scope = Literal["state:read", "state:load", "spotlight:nonce", "receipts:read"]


class ApiToken(BaseModel):
    """A static bearer token and what it may do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: SecretStr
    scopes: frozenset[Scope]

    @field_validator("token")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 16:  # noqa: PLR2004 - 128 bits of hex are 32 characters, half is the floor
            msg = "a token has at least 16 characters"
            raise ValueError(msg)
        return value


class RateOverride(BaseModel):
    """Rate limits of one tenant, one model, or one tenant's use of one model; `None` matches all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: str | None = None
    model_id: str | None = None
    capacity: Positive
    refill: Positive
    divisor: Positive | None = None


class Dependency(BaseModel):
    """An edge of the trust graph: a node depends on another one, `kind:name` each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: Annotated[str, Field(pattern="^(model|tool|tenant|user):.")]
    on: Annotated[str, Field(pattern="^(model|tool|tenant|user):.")]
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0


class Settings(BaseSettings):
    """Every setting of `tcd serve`. Field `x` is `TCD_X` in the environment and `x` in the TOML file."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, env_ignore_empty=True)

    # surfaces
    http_host: str = "127.0.0.1"
    http_port: int = Field(8080, ge=0, le=65535, description="0 takes a free port")
    grpc_enable: bool = True
    grpc_host: str = "127.0.0.1"
    grpc_port: int = Field(8082, ge=0, le=65535, description="0 takes a free port")
    admin_enable: bool = Field(default=False, description="the admin plane, docs/admin.md; needs the extra admin")
    admin_host: str = Field("127.0.0.1", description="loopback only, unless clients need a certificate")
    admin_port: int = Field(8081, ge=0, le=65535, description="0 takes a free port")
    admin_job_memory_mib: int = Field(
        4096, ge=512, le=1 << 20, description="private memory that a job of the admin plane may take, MiB"
    )
    admin_names: tuple[str, ...] = Field((), description="further values of Host, with the port: name:8081")
    admin_tls_cert: Path | None = Field(None, description="PEM: certificate chain of the admin plane; it speaks TLS")
    admin_tls_key: Path | None = Field(None, description="PEM: its key")
    admin_tls_ca: Path | None = Field(
        None, description="PEM: who signs clients' certificates; then each needs one, and tokens that are bound to it"
    )
    prom_port: int = Field(0, ge=0, le=65535, description="an extra Prometheus server on this port; 0 = none")
    max_inflight: Count = Field(256, description="requests in work before new ones get 503: the longest queue")
    body_timeout_s: Positive = Field(10.0, description="seconds a client may take to send a body")
    drain_timeout_s: Positive = Field(15.0, description="seconds that requests in flight have at shutdown")
    api_tokens: tuple[ApiToken, ...] = Field((), description="bearer tokens of the state routes; none = routes closed")

    # Triton
    triton_url: str | None = Field(
        None, description="http://host:port or grpc://host:port of a running server; empty = start one"
    )
    triton_transport: Literal["http", "grpc"] = "http"
    triton_model: Literal["tcd_diagnose", "tcd_fused"] = Field(
        "tcd_diagnose", description="what scores: the ensemble, or the same in one model, which is loaded then too"
    )
    gpu_break_even: int = Field(
        0,
        ge=0,
        description="logits of a batch from which tcd_signals takes them from the host to its GPU; 0 = never; "
        "`make bench-gpu` measures it",
    )
    triton_http_port: int = Field(8000, ge=0, le=65535, description="of the server that is started; 0 = a free port")
    triton_grpc_port: int = Field(8001, ge=0, le=65535)
    triton_metrics_port: int = Field(8002, ge=0, le=65535)
    assets: Path | None = Field(None, description="calibration asset directory; empty = the demo assets")

    # the controller
    alpha: Share = 0.05
    alpha_e: Share = Field(0.05, description="level of the e-process alarm")
    unit: Literal["session", "request", "block"] = "session"
    rule: Literal["rai", "lord", "e_lond", "alpha_spending", "foster_stine", "saffron", "addis"] = Field(
        "rai", description="online testing rule; what each one claims is in docs/controller.md"
    )
    schedule: Literal["uniform", "omega"] = "uniform"
    omega: Share = 0.005
    epoch_length: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    epoch_roll: Literal["auto", "manual"] = "auto"
    max_streams: Count = Field(65536, description="tenants (unit request: subjects) with a budget")
    pool_shares: int = Field(
        10, ge=1, le=1_000_000, description="unit request: parts of a tenant's budget, one per epoch of a subject"
    )
    credit_cap: int = Field(8, ge=0, description="rejections per user and epoch that raise its stream's levels")

    # policy
    mode: Literal["enforce", "monitor"] = "enforce"
    on_failure: Literal["closed", "open", "static"] = "closed"
    static_action: Literal["allow", "degrade", "block"] = Field("degrade", description="action of on_failure=static")
    deadline_ms: Positive = Field(1000.0, description="time a decision may take when the request does not say")
    deadline_max_ms: Positive = Field(10000.0, description="the longest deadline a request may ask for")
    slo_ms: Positive = Field(50.0, description="a slower answer counts as an SLO violation")
    sanitize: Literal["refuse", "zero"] = "refuse"
    hysteresis_on: float | None = Field(None, ge=0, le=1, description="score that starts a held alarm; empty = verdict")
    hysteresis_off: float = Field(0.9, ge=0, le=1, description="score under which a held alarm starts to cool down")
    cooldown_steps: int = Field(0, ge=0, le=10000, description="calm steps before a held alarm ends; 0 = never held")
    entropy_floor: float | None = Field(None, ge=0, description="newest entropy (nats) under which the alarm sounds")
    hard_fail_on_floor: bool = Field(default=False, description="block, not degrade, under the entropy floor")
    policies: Path | None = Field(
        None, description="bundle of policies, docs/policies.md: a TOML file, or a directory of them"
    )
    decision_log: Path | None = Field(
        None, description="file of one JSON line per decision, subjects in clear, for `tcd policy diff --log`"
    )
    policies_json: str | None = Field(None, description="the same as JSON in the variable itself")
    signal_log: Path | None = Field(
        None,
        description="directory that whole generations are kept in, numbers without names or text, for "
        "`tcd calibrate fit` and `tcd replay`",
    )
    signal_log_mib: int = Field(1024, ge=8, le=1 << 20, description="of its files; the oldest go first")
    signal_log_share: float = Field(1.0, gt=0, le=1, description="of the subjects whose generations are kept")

    # trust, docs/trust.md
    trust_enable: bool = Field(default=False, description="evidence of decisions lowers trust; policies read distrust")
    trust_depends: tuple[Dependency, ...] = Field((), description="edges: who depends on whom")
    trust_half_life_s: Positive = Field(86_400.0, description="after which evidence counts half")
    trust_prior: Positive = Field(20.0, description="good evidence that everyone begins with")

    # sessions and idempotency
    session_idle_s: Positive = 600.0
    session_min_idle_s: Positive = Field(30.0, description="idle seconds before a full table may close a session")
    sessions_max: Count = 65536
    sessions_max_bytes: Count = Field(1 << 30, description="bytes of all session windows")
    session_busy: Literal["wait", "refuse"] = "wait"
    session_wait_ms: Positive = 500.0
    session_waiters: int = Field(8, ge=0, le=1024)
    idempotency_ttl_s: Positive = 86400.0
    idempotency_entries: Count = Field(20_000, description="answers kept (5 KB each); the oldest go first")

    # reload
    config_watch: bool = Field(default=True, description="reload when the settings' file changes, not only on SIGHUP")
    break_glass_key_hex: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="Ed25519 public key whose grants allow a reload to loosen"
    )
    break_glass_grant: Path | None = Field(
        None, description="where a grant is looked for; `tcd config grant` makes one"
    )

    # rate limits
    http_rate_cap: Positive = 60.0
    http_rate_refill: Positive = 30.0
    token_cost_divisor: Positive = 50.0
    rate_overrides: tuple[RateOverride, ...] = ()
    rate_subjects: Count = 200_000
    edge_rate_cap: Positive = Field(20000.0, description="bucket per client address, requests")
    edge_rate_refill: Positive = 20000.0

    # what is kept
    ledger: Literal["sqlite", "memory", "postgresql"] = Field(
        "sqlite",
        description="memory: budgets and receipts end with the process; postgresql://user:password@host/database: "
        "shared by several shims",
    )
    ledger_url: SecretStr | None = Field(None, description="set by a ledger that is a URL")
    replica: str = Field(
        "", max_length=128, description="shared ledger: name of this shim; it takes over from one of the same name"
    )
    lease_ttl_s: Positive = Field(
        15.0, description="shared ledger: seconds without a sign of life until a shim is declared lost"
    )
    data_dir: Path | None = Field(
        None, description="directory of the ledger and the generated receipt key; empty = ~/.local/state/tcd"
    )
    state_every: Count = Field(
        20_000, description="events between saved states of the controller, at least: what a start folds"
    )

    # receipts
    receipts_enable: bool = True
    attest_sk_hex: SecretStr | None = Field(
        None, description="Ed25519 seed, 64 hex digits; empty = the data directory's, made at the first start"
    )
    origin: str = Field("tcd.localhost", min_length=1, max_length=128, description="log origin named in receipts")
    witness: bool = Field(default=True, description="receipts carry salted digests of the evidence")
    subject_key_hex: SecretStr | None = Field(None, description="key of subject digests; empty = from the receipt key")
    keys_dir: Path | None = Field(
        None,
        description="directory of `tcd keys`: receipts and the log are signed with its keys, and its set is pinned",
    )

    # the transparency log
    log_enable: bool = Field(default=True, description="sign checkpoints of the log of all receipts, serve /v1/log")
    log_interval_s: Positive = Field(5.0, description="seconds between checkpoints of a log that grows, at least")
    log_dir: Path | None = Field(
        None, description="where the log is exported as static tlog-tiles files; empty = tiles are in memory"
    )
    log_witnesses: Path | None = Field(
        None, description="C2SP tlog-policy: whom to ask to cosign checkpoints, and how many must"
    )
    log_witness_timeout_s: Positive = Field(5.0, le=60, description="seconds that a witness has for each request")
    log_no_quorum: Literal["publish", "hold"] = Field(
        "publish", description="a checkpoint that too few witnesses cosigned: publish it and ask again, or hold it back"
    )
    log_heads_s: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="seconds between `heads` records of all open chains; 0 = none"
    )

    # rewriting of requests, docs/spotlight.md
    spotlight_zones: ZoneMode = Field(
        "both", description="where untrusted text is looked for; off = nothing is rewritten"
    )
    spotlight_marking: Marking = "datamark"
    spotlight_keep_newlines: bool = Field(default=False, description="datamark inside lines only")
    spotlight_marker: MarkerStrategy = "random"
    spotlight_marker_length: int = Field(1, ge=1, le=8, description="code points of a random marker")
    spotlight_fixed_marker: str = Field(
        "\ue000", description="1 to 8 private-use characters, for spotlight_marker=fixed"
    )
    spotlight_data_roles: tuple[str, ...] = Field(("tool", "function"), description="roles whose text is untrusted")
    spotlight_plain_tags: bool = Field(default=False, description="accept <llmtrace-data> tags, which anyone can write")
    spotlight_shadow: bool = Field(default=True, description="do the work and report it, forward the original")
    spotlight_on_failure: OnFailure = Field("open", description="forward what cannot be rewritten, or refuse it")
    spotlight_receipts: bool = Field(default=False, description="rewriting a request has a receipt of its own")
    spotlight_key_hex: SecretStr | None = Field(None, description="key of nonces; empty = from the receipt key")

    # telemetry
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_decisions: bool = Field(default=True, description="one log line per decision")
    log_queue: Count = Field(10_000, description="log lines waiting to be written before new ones are dropped")
    gpu_enable: bool = Field(default=False, description="merge GPU samples into the context of requests (NVML)")
    otel_enable: bool = Field(default=False, description="send spans and metrics over OTLP/HTTP; needs tcd[otel]")
    otel_endpoint: str | None = Field(None, description="base URL of the OTLP receiver; empty = the SDK's default")
    otel_interval_s: Positive = Field(10.0, description="seconds between metrics sent over OTLP")
    otel_sample_ratio: float = Field(1.0, ge=0, le=1, description="of traces that begin here; a caller's is followed")
    replay_url: str | None = Field(None, description="shim that `tcd replay` sends to; the shim itself does not use it")

    @model_validator(mode="before")
    @classmethod
    def _ledger_url(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A URL is a secret: it goes where secrets are."""
        given = values.get("ledger")
        if isinstance(given, str) and given.startswith(("postgresql://", "postgres://")):
            return {**values, "ledger": "postgresql", "ledger_url": given}
        return values

    @field_validator("attest_sk_hex", "subject_key_hex", "spotlight_key_hex")
    @classmethod
    def _is_hex32(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            text = value.get_secret_value()
            if len(text) != 64 or not all(c in "0123456789abcdefABCDEF" for c in text):  # noqa: PLR2004 - 32 bytes
                msg = "not 64 hex digits"
                raise ValueError(msg)
        return value

    @field_validator("spotlight_fixed_marker")
    @classmethod
    def _is_marker(cls, value: str) -> str:
        Policy(fixed_marker=value)
        return value

    @model_validator(mode="after")
    def _held_by_somebody(self) -> Settings:
        if self.log_witnesses is None and self.log_no_quorum == "hold":
            msg = "log_no_quorum=hold waits for witnesses: it needs log_witnesses"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _whole_tls(self) -> Settings:
        if (self.admin_tls_cert is None) is not (self.admin_tls_key is None):
            msg = "admin_tls_cert and admin_tls_key: both or none"
            raise ValueError(msg)
        if self.admin_tls_ca is not None and self.admin_tls_cert is None:
            msg = "admin_tls_ca needs admin_tls_cert and admin_tls_key"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.policies is not None and self.policies_json is not None:
            msg = f"{PREFIX}POLICIES and {PREFIX}POLICIES_JSON: one of them"
            raise ValueError(msg)
        if self.deadline_ms > self.deadline_max_ms:
            msg = f"deadline_ms {self.deadline_ms} is above deadline_max_ms {self.deadline_max_ms}"
            raise ValueError(msg)
        if (self.ledger == "postgresql") is not (self.ledger_url is not None):
            msg = f"{PREFIX}LEDGER is sqlite, memory, or a URL that begins with postgresql://"
            raise ValueError(msg)
        if self.hysteresis_on is not None and self.hysteresis_off > self.hysteresis_on:
            msg = f"hysteresis_off {self.hysteresis_off} is above hysteresis_on {self.hysteresis_on}"
            raise ValueError(msg)
        if self.unit == "block" and self.rule != "e_lond":
            msg = "unit block gives e-values to e-LOND: it needs rule=e_lond"
            raise ValueError(msg)
        if self.unit == "request" and (self.schedule != "uniform" or self.rule != "rai"):
            msg = "unit request shares a tenant's budget out: it needs rule=rai and schedule=uniform"
            raise ValueError(msg)
        if self.schedule == "omega" and self.rule != "rai":
            msg = f"rule {self.rule} spends by its own sequence: schedule omega belongs to rai"
            raise ValueError(msg)
        if self.schedule == "omega" and self.epoch_roll == "auto":
            msg = "schedule omega has no epoch length: set epoch_roll=manual"
            raise ValueError(msg)
        return self

    @cached_property
    def config_hash(self) -> str:
        """`sha256:` and the digest of the canonical public settings."""
        public = self.model_dump(mode="json", exclude=set(SECRETS))
        text = json.dumps(public, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=sorted)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` hands in: the layers are merged there, so that each value's origin is known."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


#: Settings whose values are never shown, hashed or logged.
SECRETS: Final = frozenset({"api_tokens", "ledger_url", "attest_sk_hex", "subject_key_hex", "spotlight_key_hex"})
