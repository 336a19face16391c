"""Verification policies that compose: `AllOf`, `AnyOf` and what they are made of.

A rule looks at what was already verified and refuses, with a reason; it never makes a failed check good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tcd.errors import VerificationError
from tcd.receipts.errors import MissingSignature, NoQuorum, PolicyRefused
from tcd.receipts.keys import PUBLIC_SIZES
from tcd.receipts.schema import integer, listing, one_of, record, text

_MAX_DEPTH: Final = 6
_MAX_RULES: Final = 32


@dataclass(frozen=True, slots=True)
class Facts:
    """What the checks of one receipt found.

    Attributes:
        body: the body.
        suite: algorithms of the receipt's own verified signature; empty without one.
        log: algorithms of the verified checkpoint that the receipt was shown under; empty without one.
        witnesses: names in the policy of the witnesses that cosigned that checkpoint.
        size: leaves of that checkpoint, 0 without one.
    """

    body: Mapping[str, Any]
    suite: frozenset[str] = frozenset()
    log: frozenset[str] = frozenset()
    witnesses: frozenset[str] = frozenset()
    size: int = 0


class Rule(Protocol):
    """One condition."""

    def check(self, facts: Facts) -> None:
        """Refuse what the rule does not allow.

        Raises:
            VerificationError: why not.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """The rule in a policy file; part of the policy's digest."""
        ...


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every rule holds."""

    rules: tuple[Rule, ...]

    def check(self, facts: Facts) -> None:
        """See `Rule.check`."""
        for rule in self.rules:
            rule.check(facts)

    def to_json(self) -> dict[str, Any]:
        """`{"all": [...]}`."""
        return {"all": [rule.to_json() for rule in self.rules]}


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one rule holds; of none, none does."""

    rules: tuple[Rule, ...]

    def check(self, facts: Facts) -> None:
        """See `Rule.check`; the last reason is the one given."""
        reason: VerificationError = PolicyRefused("no rule to hold")
        for rule in self.rules:
            try:
                rule.check(facts)
            except VerificationError as error:  # noqa: PERF203 - a few rules
                reason = error
            else:
                return
        raise reason

    def to_json(self) -> dict[str, Any]:
        """`{"any": [...]}`."""
        return {"any": [rule.to_json() for rule in self.rules]}


@dataclass(frozen=True, slots=True)
class SignedWith:
    """Every algorithm signed the receipt itself or the checkpoint that it is under ("hybrid by layer")."""

    algorithms: frozenset[str]

    def check(self, facts: Facts) -> None:
        """See `Rule.check`."""
        missing = self.algorithms - facts.suite - facts.log
        if missing:
            msg = f"neither the receipt nor its log is signed with {', '.join(sorted(missing))}"
            raise MissingSignature(msg)

    def to_json(self) -> dict[str, Any]:
        """`{"signed_with": [...]}`."""
        return {"signed_with": sorted(self.algorithms)}


@dataclass(frozen=True, slots=True)
class Witnessed:
    """At least so many of the policy's witnesses cosigned."""

    count: int

    def check(self, facts: Facts) -> None:
        """See `Rule.check`."""
        if len(facts.witnesses) < self.count:
            msg = f"{len(facts.witnesses)} witnesses, not {self.count}"
            raise NoQuorum(msg)

    def to_json(self) -> dict[str, Any]:
        """`{"witnessed": n}`."""
        return {"witnessed": self.count}


@dataclass(frozen=True, slots=True)
class OneOf:
    """A string member of the body has one of these values.

    Attributes:
        member: typ, tenant, origin, config, policy, suite or guarantee.
        values: allowed ones.
    """

    member: str
    values: frozenset[str] = field(default_factory=frozenset)

    def check(self, facts: Facts) -> None:
        """See `Rule.check`; a body without the member is refused."""
        if facts.body.get(self.member) not in self.values:
            msg = f"{self.member} is not one of those allowed"
            raise PolicyRefused(msg)

    def to_json(self) -> dict[str, Any]:
        """`{"one_of": {"member": ..., "values": [...]}}`."""
        return {"one_of": {"member": self.member, "values": sorted(self.values)}}


_ALGORITHMS: Final = listing(one_of(*(name for name in PUBLIC_SIZES if "+" not in name)), 4, 1)
_MEMBERS: Final = one_of("typ", "tenant", "origin", "config", "policy", "suite", "guarantee")
_ONE_OF: Final = record({"member": _MEMBERS, "values": listing(text(512), 64, 1)})
_COUNT: Final = integer(1, 64)


def rule_from_json(value: Any, depth: int = 0) -> Rule:
    """Inverse of `to_json`.

    Raises:
        SchemaMismatch, PolicyRefused: no rule.
    """
    if type(value) is not dict or len(value) != 1 or depth >= _MAX_DEPTH:
        msg = "a rule is an object of one member, not too deep"
        raise PolicyRefused(msg)
    ((name, inner),) = value.items()
    if name in {"all", "any"}:
        if type(inner) is not list or len(inner) > _MAX_RULES:
            msg = f"{name} has a list of at most {_MAX_RULES} rules"
            raise PolicyRefused(msg)
        rules = tuple(rule_from_json(item, depth + 1) for item in inner)
        return AllOf(rules) if name == "all" else AnyOf(rules)
    if name == "signed_with":
        _ALGORITHMS(inner)
        return SignedWith(frozenset(inner))
    if name == "witnessed":
        _COUNT(inner)
        return Witnessed(int(inner))
    if name == "one_of":
        _ONE_OF(inner)
        return OneOf(inner["member"], frozenset(inner["values"]))
    msg = f"no rule {str(name)[:40]!r}"
    raise PolicyRefused(msg)
