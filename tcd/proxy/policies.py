"""Which policy a request is under: the settings', with what the bundle says for its subject. Swapped whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tcd.spotlight import Policy
from tcd.trust import Policy as Bundled
from tcd.trust import PolicySet

OnFailure = Literal["open", "closed"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What holds for one request.

    Attributes:
        rewrite: how it is rewritten.
        on_failure: whether an answer goes on when the shim cannot be asked.
        ref: `name@version#hash`, as answers name it.
    """

    rewrite: Policy
    on_failure: OnFailure
    ref: str


class Policies:
    """Finds the policy of a subject."""

    def __init__(
        self,
        base: Policy,
        *,
        ref: str = "settings",
        on_failure: OnFailure = "open",
        bundle: PolicySet | None = None,
    ) -> None:
        """Use `base`, which answers call `ref`, and what `bundle` sets instead."""
        self._base = Resolved(base, on_failure, ref)
        self._bundle = bundle
        self._resolved: dict[str, Resolved] = {p.ref: self._of(p) for p in bundle} if bundle is not None else {}
        every = [self._base, *self._resolved.values()]
        #: Bytes of the longest body that any policy rewrites.
        self.longest = max(found.rewrite.max_body for found in every)

    def of(self, subject: Mapping[str, str]) -> Resolved:
        """The policy of a subject (tenant, user, model_id, ...)."""
        found = None if self._bundle is None else self._bundle.of(subject)
        return self._base if found is None else self._resolved[found.ref]

    def _of(self, policy: Bundled) -> Resolved:
        rewrite = policy.rewrite(self._base.rewrite)
        return Resolved(rewrite, self._on_failure(policy.sections["failure"]), policy.ref)

    def _on_failure(self, section: Mapping[str, object]) -> OnFailure:
        """As the shim's failure policy; `static` is what its action does to an answer."""
        said = section.get("on_failure", self._base.on_failure)
        if said == "static":
            said = "closed" if section.get("static_action") == "block" else "open"
        return "closed" if said == "closed" else "open"
