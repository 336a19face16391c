"""What follows from the settings and the calibration: the length of an epoch, the rules of decisions.

The app is made with it, and a reload makes it anew.
"""

from __future__ import annotations

from typing import Final

from sidecar_api.decision import Rules
from sidecar_api.pins import Assets, Shape, resolve
from sidecar_api.policing import default_ref, policy_digest
from sidecar_api.turn import JudgeRules
from sidecar_api.windows import HoldRules
from tcd.config import Settings
from tcd.errors import ConfigError
from tcd.risk_av import check_epoch_length

#: Reservations per epoch of the rules that discount, where none are configured.
_DISCOUNTED_LENGTH: Final = 1000


def epoch_length(settings: Settings, assets: Assets) -> int:
    """The configured length of an epoch, 1 where it follows from the calibration.

    Raises:
        ConfigError: no calibration here carries it; says how many sessions it would need.
    """
    if settings.rule != "rai":
        # their first levels are what a calibration has to resolve, whatever the length
        return _DISCOUNTED_LENGTH if settings.epoch_length == "auto" else settings.epoch_length
    if settings.epoch_length == "auto" or settings.schedule == "omega":
        return 1
    known = assets.current()
    floors = [
        resolve(known, (binding.key, 0, 0), Shape(mask, detector.features, short=False), alpha=settings.alpha).p_floor
        for binding in (*known.bindings.values(), *([known.default] if known.default is not None else []))
        if binding.detector is not None
        for detector in [known.detectors[binding.detector]]
        for mask in detector.masks
    ]
    try:
        check_epoch_length(settings.epoch_length, settings.alpha, min(floors, default=1.0))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return settings.epoch_length


def judge_rules(settings: Settings, *, durable: bool) -> JudgeRules:
    """What decisions follow from where no policy says otherwise."""
    policy = policy_digest(settings)
    return JudgeRules(
        decision=Rules(
            mode=settings.mode,
            on_failure=settings.on_failure,
            static_action=settings.static_action,
            hard_fail_on_floor=settings.hard_fail_on_floor,
        ),
        hold=HoldRules(settings.hysteresis_on, settings.hysteresis_off, settings.cooldown_steps),
        entropy_floor=settings.entropy_floor,
        unit=settings.unit,
        rule=settings.rule,
        durable=durable,
        policy_ref=default_ref(policy),
        policy=policy,
        config_hash=settings.config_hash,
        witness=settings.witness,
        record=settings.decision_log is not None,
    )
