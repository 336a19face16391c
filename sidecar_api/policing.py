"""The settings as a policy: which of them are, their digest, and the reference that answers name."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from tcd.config import Settings

#: Settings that are policy: their digest is what receipts name.
POLICY_FIELDS: Final = frozenset(
    {
        *("alpha", "alpha_e", "unit", "rule", "schedule", "omega", "epoch_length", "epoch_roll", "credit_cap"),
        "pool_shares",
        *("mode", "on_failure", "static_action", "sanitize", "hysteresis_on", "hysteresis_off", "cooldown_steps"),
        *("entropy_floor", "hard_fail_on_floor", "http_rate_cap", "http_rate_refill", "token_cost_divisor"),
        *("rate_overrides", "session_busy"),
        *("spotlight_zones", "spotlight_marking", "spotlight_keep_newlines", "spotlight_marker", "spotlight_shadow"),
        *("spotlight_marker_length", "spotlight_fixed_marker", "spotlight_data_roles", "spotlight_plain_tags"),
        *("spotlight_on_failure", "spotlight_receipts"),
    }
)


def policy_digest(settings: Settings) -> str:
    """`sha256:` digest of the settings that are policy."""
    value = settings.model_dump(mode="json", include=set(POLICY_FIELDS))
    return "sha256:" + hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def default_ref(digest: str) -> str:
    """`policy_ref` of what the settings decide where no policy of a bundle applies."""
    return f"default@1#{digest[7:19]}"
