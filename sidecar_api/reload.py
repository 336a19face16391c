"""Swapping settings and policies of a running app: validated, checked for direction, logged, in the log of acts.

Either all of a reload is taken or nothing of it. The swap has no await in it, and a request keeps the rules that it
began with, so no answer is made by two versions.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar_api.bindings import Bindings, defaults_of
from sidecar_api.derived import epoch_length, judge_rules
from sidecar_api.http.runtime import Runtime
from sidecar_api.log.assemble import verify_policy
from sidecar_api.log.handover import handover, successor
from sidecar_api.policing import policy_digest
from sidecar_api.rewriting import rewrite_policy, rewrite_rules
from tcd.config import Settings
from tcd.errors import Forbidden, TcdError
from tcd.receipts import Issuer
from tcd.reload import Change, Grant, check, shown
from tcd.trust import Base, PolicySet, loosenings

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Next:
    """What a reload puts in force."""

    settings: Settings
    policies: PolicySet | None
    bindings: Bindings


class Reloader:
    """Reloads one app; call it in its event loop."""

    def __init__(self, runtime: Runtime) -> None:
        """Reload `runtime`."""
        self._runtime = runtime

    def apply(
        self,
        new: Settings,
        grant: Grant | None = None,
        *,
        source: str = "admin",
        policies: PolicySet | None = None,
    ) -> list[Change]:
        """Use `new` from the next step on; the changes made. A refused reload changes nothing.

        Args:
            new: settings.
            grant: allows what loosens, when it is of these settings or of this bundle.
            source: who asks, for the log.
            policies: a bundle; None = the one in force stays.

        Raises:
            ConfigError: a change needs a restart, or the bundle is refused (`BadBundle`).
            Forbidden: a change loosens and there is no grant for it.
        """
        runtime = self._runtime
        bundle = policies if policies is not None else runtime.policies
        try:
            found = check(runtime.settings, new, grant)
            if new.epoch_length != "auto" and new.rule == "rai" and new.schedule == "uniform":
                epoch_length(new, runtime.service.resolver)
            following = self._following(new, bundle)
            loose = self._loosens(following)
            if loose and (grant is None or bundle is None or grant.config_hash != bundle.digest):
                digest = "" if bundle is None else bundle.digest
                msg = f"the policies loosen {'; '.join(loose[:_SHOWN])}: needs a break-glass grant for {digest}"
                raise Forbidden(msg)
        except TcdError as error:
            runtime.logs.write("error", "config reload refused", source=source, why=error.detail)
            raise
        before = runtime.policies
        rebound = bundle is not before and bundle is not None and (before is None or bundle.digest != before.digest)
        if not found and not rebound:
            return found
        used = grant if loose or any(change.loosens for change in found) else None
        self._swap(following)
        runtime.logs.write(
            "warning",
            "config reloaded",
            source=source,
            changes=[shown(change) for change in found],
            config_hash=new.config_hash,
            policies=[policy.ref for policy in bundle] if rebound and bundle is not None else [],
            break_glass=used.reason if used is not None else "",
        )
        if found:
            self._act(
                "config.break_glass" if any(change.loosens for change in found) else "config.reload", new.config_hash
            )
        if rebound and bundle is not None:
            self._act("policy.break_glass" if loose else "policy.reload", bundle.digest)
        return found

    def loosened_by(self, policies: PolicySet | None, settings: Settings | None = None) -> list[str]:
        """What a bundle would loosen if it were put in force now: policy and rule, each.

        Args:
            policies: the bundle; None = the one in force.
            settings: with which; None = those in force.

        Raises:
            BadBundle: it does not fit the settings.
        """
        bundle = policies if policies is not None else self._runtime.policies
        return self._loosens(self._following(settings or self._runtime.settings, bundle))

    def _following(self, new: Settings, bundle: PolicySet | None) -> _Next:
        rules = judge_rules(new, durable=self._runtime.service.judge.rules.durable)
        return _Next(new, bundle, Bindings(rules, bundle))

    def keys(self, *, source: str = "admin") -> bool:
        """Use the keys of the key set as it is now, where it changed; whether they were read anew.

        The old receipt key hands over in a record that both sign, before the new one signs anything.

        Raises:
            ConfigError: they cannot be used; the old ones stay.
        """
        runtime = self._runtime
        ring, receipts, verifier = runtime.keyring, runtime.service.judge.receipts, runtime.verifier
        if ring is None or receipts is None or verifier is None or not ring.changed:
            return False
        before, after = ring.refresh(), ring.keys
        if (before.kids, before.pinned.digest) == (after.kids, after.pinned.digest):
            return False
        judge = runtime.service.judge
        both = successor(after, before.receipt.kid)
        if both is not None:
            made = handover(
                *both,
                config=receipts.config,
                policy=receipts.policy,
                now_us=receipts.now_us(),
                random=receipts.random,
            )
            judge.put(made)
        receipts.issuer = Issuer(after.receipt, origin=runtime.settings.origin)
        verifier.policy = verify_policy(after, verifier.policy.witnesses)
        judge.put(receipts.admin("keys.reload", after.pinned.digest), lost=receipts.forget_acts)
        runtime.logs.write(
            "warning", "keys reloaded", source=source, receipt_key=after.receipt.kid, keyset=after.pinned.digest
        )
        return True

    def _act(self, action: str, digest: str) -> None:
        receipts = self._runtime.service.judge.receipts
        if receipts is not None:
            self._runtime.service.judge.put(receipts.admin(action, digest), lost=receipts.forget_acts)

    def _loosens(self, following: _Next) -> list[str]:
        """What another bundle loosens under the new settings; the settings themselves are looked at elsewhere."""
        old, new = self._runtime.policies, following.policies
        if new is old or (old is not None and new is not None and old.digest == new.digest):
            return []
        rules = following.bindings.base
        base = Base(
            defaults=defaults_of(rules),
            hysteresis_on=rules.hold.on,
            hysteresis_off=rules.hold.off,
            cooldown_steps=rules.hold.cooldown,
            entropy_floor=rules.entropy_floor,
            receipt=rules.receipt,
            witness=rules.witness,
            rewrite_receipt=following.settings.spotlight_receipts,
            rewrite=rewrite_policy(following.settings),
        )
        return [f"{found.after or 'the settings'}: {found.what}" for found in loosenings(old, new, base)]

    def _swap(self, following: _Next) -> None:
        runtime, new = self._runtime, following.settings
        service = runtime.service
        if new.alpha != runtime.settings.alpha:
            service.resolver.retune(new.alpha)
            service.budget.retune(new.alpha)
        runtime.settings = service.settings = new
        runtime.config_hash = new.config_hash.encode()
        runtime.policies = following.policies
        service.judge.rules = following.bindings.base
        service.judge.pressure.objective = new.slo_ms / 1000.0
        service.bindings = following.bindings
        if service.patches is not None:
            service.patches.settings = new
        runtime.rewriter.rules = rewrite_rules(new, following.policies)
        receipts = service.judge.receipts
        if receipts is not None:
            receipts.config, receipts.policy = new.config_hash, policy_digest(new)
        runtime.exporter.configured(config_hash=new.config_hash, slo_seconds=new.slo_ms / 1000.0)
