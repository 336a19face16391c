"""Which rewriting policy a subject has: its policy's over the settings'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tcd.spotlight.policy import Policy as RewritePolicy
from tcd.trust.policies import PolicySet


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A rewriting policy and whose it is.

    Attributes:
        policy: what is done.
        ref: `name@version#hash12` of the policy that it belongs to.
        digest: `sha256:` digest that receipts name.
        receipt: whether rewriting has receipts.
    """

    policy: RewritePolicy
    ref: str
    digest: str
    receipt: bool = False


class RewriteRules:
    """The rewriting policies of one version of a bundle; immutable, so a request that holds it sees one version."""

    def __init__(self, default: Rewriting, policies: PolicySet | None = None) -> None:
        """Rules of `policies`, over and instead of the settings' `default`."""
        self._default = default
        self._policies = policies
        self._made = {
            policy.ref: Rewriting(
                policy.rewrite(default.policy),
                policy.ref,
                policy.digest,
                policy.sections["receipt"].get("rewrite", default.receipt),
            )
            for policy in (policies if policies is not None else ())
        }

    def of(self, subject: Mapping[str, str]) -> Rewriting:
        """The rules of a subject (members of `tcd.trust.policies.SUBJECT`); the default where no policy applies."""
        found = None if self._policies is None else self._policies.of(subject)
        return self._default if found is None else self._made[found.ref]
