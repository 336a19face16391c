"""Swapping the settings of a running app: validated, checked for direction, logged, in the log of operators' acts."""

from __future__ import annotations

from dataclasses import replace

from sidecar_api.decision import Rules
from sidecar_api.http.runtime import Runtime
from sidecar_api.log.assemble import verify_policy
from sidecar_api.log.handover import handover, successor
from sidecar_api.policing import default_ref, policy_digest
from sidecar_api.rewriting import rewrite_rules
from sidecar_api.windows import HoldRules
from tcd.config import Settings
from tcd.errors import TcdError
from tcd.receipts import Issuer
from tcd.reload import Change, Grant, check, shown


class Reloader:
    """Reloads one app; call it in its event loop."""

    def __init__(self, runtime: Runtime) -> None:
        """Reload `runtime`."""
        self._runtime = runtime

    def apply(self, new: Settings, grant: Grant | None = None, *, source: str = "admin") -> list[Change]:
        """Use `new` from the next step on; the changes made. A refused reload changes nothing.

        Raises:
            ConfigError: a change needs a restart.
            Forbidden: a change loosens and there is no grant for it.
        """
        runtime = self._runtime
        try:
            found = check(runtime.settings, new, grant)
        except TcdError as error:
            runtime.logs.write("error", "config reload refused", source=source, why=error.detail)
            raise
        if not found:
            return found
        if new.epoch_length != "auto" and new.rule == "rai" and new.schedule == "uniform":
            self._check_length(new)
        used = grant if any(change.loosens for change in found) else None
        self._swap(new)
        runtime.logs.write(
            "warning",
            "config reloaded",
            source=source,
            changes=[shown(change) for change in found],
            config_hash=new.config_hash,
            break_glass=used.reason if used is not None else "",
        )
        receipts = runtime.service.judge.receipts
        if receipts is not None:
            action = "config.break_glass" if used is not None else "config.reload"
            runtime.service.judge.put(receipts.admin(action, new.config_hash), lost=receipts.forget_acts)
        return found

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

    def _check_length(self, new: Settings) -> None:
        from sidecar_api.app import epoch_length  # noqa: PLC0415 - the app makes this module's users

        epoch_length(new, self._runtime.service.resolver)

    def _swap(self, new: Settings) -> None:
        runtime = self._runtime
        service, digest = runtime.service, policy_digest(new)
        if new.alpha != runtime.settings.alpha:
            service.resolver.retune(new.alpha)
            service.budget.retune(new.alpha)
        runtime.settings = service.settings = new
        runtime.config_hash = new.config_hash.encode()
        service.judge.rules = replace(
            service.judge.rules,
            decision=Rules(
                mode=new.mode,
                on_failure=new.on_failure,
                static_action=new.static_action,
                hard_fail_on_floor=new.hard_fail_on_floor,
            ),
            hold=HoldRules(new.hysteresis_on, new.hysteresis_off, new.cooldown_steps),
            entropy_floor=new.entropy_floor,
            policy_ref=default_ref(digest),
            config_hash=new.config_hash,
        )
        runtime.rewriter.rules = rewrite_rules(new, runtime.policies)
        receipts = service.judge.receipts
        if receipts is not None:
            receipts.config, receipts.policy = new.config_hash, digest
        runtime.exporter.configured(config_hash=new.config_hash, slo_seconds=new.slo_ms / 1000.0)
