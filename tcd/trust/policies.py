"""Policies: typed bundles in TOML, resolved through `extends`, and which of them applies to a subject.

A bundle is taken whole or refused whole, with file, line and reason. What is resolved is immutable, so a request that
holds a `PolicySet` sees one version of every policy until it is answered.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tcd.errors import ConfigError
from tcd.spotlight.policy import Policy as RewritePolicy
from tcd.trust.cel import Condition
from tcd.trust.engine import Action, Cause, Defaults, Mode, Row
from tcd.trust.lines import Lines
from tcd.trust.tiers import tiers_of

_TOML: Final = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
_SYNTAX: Final = re.compile(r"\(at line (\d+), column \d+\)")
#: Members of a subject that a policy may match.
SUBJECT: Final = ("tenant", "user", "session", "model_id", "gpu_id", "task", "lang")
MAX_POLICIES: Final = 1024
MAX_BYTES: Final = 1 << 20
_STRICT: Final = ConfigDict(frozen=True, extra="forbid", strict=True)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BadBundle(ConfigError):
    """A bundle is refused; `detail` begins with `file:line`."""

    code = "bad_bundle"


#: What an expression of a row may use, and one of a match.
ROW_NAMES: Final = frozenset({*SUBJECT, "context"})
MATCH_NAMES: Final = frozenset(SUBJECT)
_SOMEBODY: Final = dict.fromkeys(SUBJECT, "x")


class Match(BaseModel):
    """Who a policy is for: literal values, or globs in which `*` stands for anything; the whole value must match.

    `cel` is an expression of the same members; it has to hold too.
    """

    model_config = _STRICT

    tenant: Pattern | None = None
    user: Pattern | None = None
    session: Pattern | None = None
    model_id: Pattern | None = None
    gpu_id: Pattern | None = None
    task: Pattern | None = None
    lang: Pattern | None = None
    cel: str | None = None

    @field_validator("cel")
    @classmethod
    def _boolean(cls, value: str | None) -> str | None:
        # all members are strings: what fails for one subject fails for all
        if value is not None and Condition(value, MATCH_NAMES)(_SOMEBODY) is None:
            msg = "not a condition of strings"
            raise ValueError(msg)
        return value


class DetectorRule(BaseModel):
    """How scores become alarms."""

    model_config = _STRICT

    entropy_floor: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    hysteresis_on: Unit | None = None
    hysteresis_off: Unit | None = None
    cooldown_steps: Annotated[int, Field(ge=0, le=10_000)] | None = None


class AvRule(BaseModel):
    """The always-valid controller's level."""

    model_config = _STRICT

    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None


class FailureRule(BaseModel):
    """What happens when a part does not work."""

    model_config = _STRICT

    on_failure: Literal["closed", "open", "static"] | None = None
    static_action: Literal["allow", "degrade", "block"] | None = None
    deadline_ms: Positive | None = None


class ReceiptRule(BaseModel):
    """What receipts carry; `rewrite`: whether rewriting a request has one."""

    model_config = _STRICT

    enable: bool | None = None
    witness: bool | None = None
    rewrite: bool | None = None


class Caps(BaseModel):
    """Caps on a route; they only tighten it."""

    model_config = _STRICT

    temperature_max: Annotated[float, Field(ge=0, le=1000)] | None = None
    top_p_max: Unit | None = None
    max_tokens: Annotated[int, Field(ge=0, le=10_000_000)] | None = None


class RoutingRule(Caps):
    """Caps on every route, on those of single tiers, and which tier an action takes."""

    tags: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=8)] = ()
    normal: Caps = Caps()
    cautious: Caps = Caps()
    strict: Caps = Caps()
    tier_of: dict[Action, Literal["normal", "cautious", "strict"]] = Field(default_factory=dict)

    @field_validator("tier_of")
    @classmethod
    def _monotone(cls, value: dict[Action, str]) -> dict[Action, str]:
        tiers_of(value)
        return value


class DecisionRule(BaseModel):
    """A row of the decision table."""

    model_config = _STRICT

    name: Name
    when: dict[str, bool | float] = Field(default_factory=dict)
    action: Action
    cause: Cause = "policy"
    cel: str | None = None

    @field_validator("cel")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            Condition(value, ROW_NAMES)
        return value

    @model_validator(mode="after")
    def _monotone(self) -> DecisionRule:
        self.row()
        return self

    def row(self) -> Row:
        """As the engine takes it."""
        about = None if self.cel is None else Condition(self.cel, ROW_NAMES)
        return Row(self.name, self.when, self.action, self.cause, self.cel or "", about)


class PolicyRule(BaseModel):
    """One policy as it is written."""

    model_config = _STRICT

    name: Name
    version: Annotated[int, Field(ge=1)]
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    extends: Name | None = None
    match: Match = Match()
    detector: DetectorRule = DetectorRule()
    av: AvRule = AvRule()
    routing: RoutingRule = RoutingRule()
    receipt: ReceiptRule = ReceiptRule()
    rewrite: dict[str, Any] = Field(default_factory=dict)
    failure: FailureRule = FailureRule()
    mode: Mode | None = None
    decision: tuple[DecisionRule, ...] = ()

    @field_validator("rewrite")
    @classmethod
    def _rewritable(cls, value: dict[str, Any]) -> dict[str, Any]:
        RewritePolicy.from_json(value)
        return value


@dataclass(frozen=True, slots=True)
class Policy:
    """A resolved policy.

    Attributes:
        name, version, priority, match, cel: its own, they are not inherited; `cel` is the compiled `match["cel"]`.
        sections: detector, av, routing, receipt, rewrite, failure: members that are set, the parents' included.
        mode: whether actions are enforced; None = as the settings say.
        rows: of the decision table, the parents' included, on top of the settings' rows.
        digest: `sha256:` and the digest of all of it.
        file, line: where it is written.
    """

    name: str
    version: int
    priority: int
    match: Mapping[str, str]
    cel: Condition | None
    sections: Mapping[str, Mapping[str, Any]]
    mode: Mode | None
    rows: tuple[Row, ...]
    digest: str
    file: str
    line: int

    @property
    def ref(self) -> str:
        """`name@version#hash12`, the hash the beginning of `digest`."""
        return f"{self.name}@{self.version}#{self.digest[7:19]}"

    def rewrite(self, base: RewritePolicy | None = None) -> RewritePolicy:
        """Its rewriting policy: what it says, over `base`."""
        return RewritePolicy.from_json(dict(self.sections["rewrite"]), base)

    def over(self, defaults: Defaults) -> Defaults:
        """The settings' part of decisions, with what the policy says of it."""
        failure = self.sections["failure"]
        said = {name: failure[name] for name in ("on_failure", "static_action") if name in failure}
        return replace(defaults, mode=self.mode or defaults.mode, **said)

    def table(self, defaults: Defaults | None = None) -> tuple[Row, ...]:
        """The decision table: the settings' rows, those of the policy in place of rows of the same name, or after."""
        mine = {row.name for row in self.rows}
        base = self.over(defaults or Defaults()).table()
        return (*(row for row in base if row.name not in mine), *self.rows)

    @property
    def tenant(self) -> str | None:
        """The one tenant that it can be for; None = it is not told by name."""
        pattern = self.match.get("tenant")
        return None if pattern is None or "*" in pattern else pattern

    def applies(self, subject: Mapping[str, str]) -> bool:
        """Whether it is for a subject (members of `SUBJECT`)."""
        if not all(glob(pattern, subject.get(member, "")) for member, pattern in self.match.items() if member != "cel"):
            return False
        return self.cel is None or self.cel({name: subject.get(name, "") for name in SUBJECT}) is True

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sorts what wins first: more literals, an expression, more globs, longer globs, priority, then name."""
        patterns = [pattern for member, pattern in self.match.items() if member != "cel"]
        globs = [pattern for pattern in patterns if "*" in pattern]
        fixed = sum(len(pattern.replace("*", "")) for pattern in globs)
        # of two that match alike, the one with an expression is the more specific
        return (-(len(patterns) - len(globs)), self.cel is None, -len(globs), -fixed, -self.priority, self.name)


def glob(pattern: str, value: str) -> bool:
    """Whether the whole value matches; `*` stands for any characters. Linear in the value for each piece."""
    if "*" not in pattern:
        return pattern == value
    first, *middle, last = pattern.split("*")
    if len(value) < len(first) + len(last) or not (value.startswith(first) and value.endswith(last)):
        return False
    at, end = len(first), len(value) - len(last)
    for piece in middle:
        found = value.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


class PolicySet:
    """The policies in force; immutable."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        """Order the policies; the first that applies wins."""
        self._ordered = tuple(sorted(policies, key=lambda policy: policy.rank))
        # most bundles tell tenants apart by name: only the policies that can be a tenant's are looked at
        places: dict[str | None, list[int]] = {None: []}
        for place, policy in enumerate(self._ordered):
            places.setdefault(policy.tenant, []).append(place)
        anyone = places.pop(None)
        self._anyone = tuple(self._ordered[place] for place in anyone)
        self._named = {
            tenant: tuple(self._ordered[place] for place in sorted(mine + anyone)) for tenant, mine in places.items()
        }

    def __iter__(self) -> Any:
        """Policies, most specific first."""
        return iter(self._ordered)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ordered)

    def of(self, subject: Mapping[str, str]) -> Policy | None:
        """The policy of a subject; None when none applies."""
        candidates = self._named.get(subject.get("tenant"), self._anyone)
        return next((policy for policy in candidates if policy.applies(subject)), None)

    @property
    def widest(self) -> int:
        """Policies that are looked at for a subject, at most."""
        return max(map(len, self._named.values()), default=len(self._anyone))

    @property
    def digest(self) -> str:
        """Of all references."""
        refs = "\n".join(sorted(policy.ref for policy in self._ordered))
        return "sha256:" + hashlib.sha256(refs.encode()).hexdigest()


def load(files: Mapping[str, str], *, values: Mapping[str, Any] | None = None) -> PolicySet:
    """Read a bundle: file name to TOML text, each with `[[policy]]` tables.

    Args:
        files: names and texts.
        values: name to what such a text would be parsed to, for bundles that come in another form; no lines are known.

    Raises:
        BadBundle: anything in it is wrong; nothing of it is taken.
    """
    rules: dict[str, tuple[PolicyRule, str, int]] = {}
    read = [(file, *_parsed(file, text)) for file, text in files.items()]
    read += [(file, value, Lines("")) for file, value in (values or {}).items()]
    for file, value, lines in read:
        for rule, line in _rules(file, value, lines):
            if rule.name in rules:
                _refuse(file, line, f"policy {rule.name} is already in {rules[rule.name][1]}:{rules[rule.name][2]}")
            rules[rule.name] = (rule, file, line)
    if len(rules) > MAX_POLICIES:
        _refuse(read[0][0], 1, f"{len(rules)} policies; at most {MAX_POLICIES}")
    return PolicySet([_resolved(name, rules) for name in rules])


def _refuse(file: str, line: int, reason: str) -> Any:
    msg = f"{file}:{line}: {reason}"
    raise BadBundle(msg) from None


def _parsed(file: str, text: str) -> tuple[Any, Lines]:
    if len(text.encode()) > MAX_BYTES:
        _refuse(file, 1, f"over {MAX_BYTES} bytes")
    try:
        value = _TOML.loads(text)
    except (_TOML.TOMLDecodeError, RecursionError) as error:
        at = _SYNTAX.search(str(error))
        _refuse(file, int(at[1]) if at else len(text.splitlines()) or 1, _SYNTAX.sub("", str(error)).strip())
    return value, Lines(text)


def _rules(file: str, value: Any, lines: Lines) -> list[tuple[PolicyRule, int]]:
    if not isinstance(value, dict):
        _refuse(file, 1, "a bundle is an object")
    for member in value:
        if member != "policy":
            _refuse(file, lines.of((member,)), f"{member} is no member of a bundle")
    tables = value.get("policy", [])
    if not isinstance(tables, list) or not tables:
        _refuse(file, 1, "a bundle has [[policy]] tables")
    found = []
    for index, table in enumerate(tables):
        try:
            rule = PolicyRule.model_validate(_tuples(table))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            path, why = tuple(first["loc"]), first["msg"].removeprefix("Value error, ")
            if path == ("rewrite",):
                # the message begins with the member
                path = (*path, why.split(" ")[0])
            where = ".".join(str(part) for part in path)
            _refuse(file, lines.of(("policy", index, *path)), f"{where}: {why}" if where else why)
        found.append((rule, lines.of(("policy", index))))
    return found


def _tuples(value: Any) -> Any:
    """Arrays as tuples: strict validation takes no list for one."""
    if isinstance(value, dict):
        return {name: member if name == "rewrite" else _tuples(member) for name, member in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


_SECTIONS: Final = ("detector", "av", "routing", "receipt", "failure")


def _resolved(name: str, rules: Mapping[str, tuple[PolicyRule, str, int]]) -> Policy:
    own, file, line = rules[name]
    chain: list[PolicyRule] = []
    at: str | None = name
    while at is not None:
        if at not in rules:
            _refuse(file, line, f"policy {name} extends {at}, which is not there")
        rule = rules[at][0]
        if rule in chain:
            _refuse(file, line, f"policy {name} extends itself through {' > '.join(r.name for r in chain)} > {at}")
        chain.append(rule)
        at = rule.extends
    sections: dict[str, dict[str, Any]] = {section: {} for section in (*_SECTIONS, "rewrite")}
    rows: list[Row] = []
    mode: Mode | None = None
    for rule in reversed(chain):
        for section in _SECTIONS:
            sections[section] |= getattr(rule, section).model_dump(exclude_unset=True)
        sections["rewrite"] |= rule.rewrite
        mode = rule.mode or mode
        mine = {row.name for row in rule.decision}
        rows = [row for row in rows if row.name not in mine]
        rows += [row.row() for row in rule.decision]
    match = own.match.model_dump(exclude_none=True)
    content = {
        "name": name,
        "version": own.version,
        "priority": own.priority,
        "match": match,
        "sections": sections,
        "mode": mode,
        "rows": [[row.name, dict(row.when), row.action, row.cause, row.cel] for row in rows],
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=list)
    digest = "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
    cel = Condition(match["cel"], MATCH_NAMES) if "cel" in match else None
    return Policy(name, own.version, own.priority, match, cel, sections, mode, tuple(rows), digest, file, line)
