"""Reloading settings: which may change while the shim runs, in which direction, and the grant that allows the other.

A change either tightens (more is refused, seen or enforced), is neutral, or loosens. What loosens needs a
break-glass grant: a note that an operator's key signed for exactly these settings, with an end and a reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tcd.config import PREFIX, SECRETS, Settings
from tcd.errors import ConfigError, Forbidden
from tcd.receipts.keys import SigningKey, verify_ed25519

_DOMAIN: Final = b"tcd/break-glass/v1\0"
_MAX_GRANT: Final = 4096
_LONGEST: Final = 24 * 3600
#: Words from mild to strict.
_ORDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "mode": ("monitor", "enforce"),
    "on_failure": ("open", "static", "closed"),
    "static_action": ("allow", "degrade", "block"),
    "sanitize": ("zero", "refuse"),
}


def _word(name: str) -> Callable[[Any, Any], bool]:
    order = _ORDERS[name]
    return lambda old, new: order.index(new) < order.index(old)


def _fewer(old: Any, new: Any) -> bool:
    return bool((new if new is not None else -1) < (old if old is not None else -1))


def _later(old: Any, new: Any) -> bool:
    """A threshold that rises fires less; none is the verdict's own."""
    return new != old and (old is None or new is None or bool(new > old))


def _never(old: Any, new: Any) -> bool:
    del old, new
    return False


#: Settings that may change while the shim runs, and whether a change loosens. All others need a restart.
RELOADABLE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    **{name: _word(name) for name in _ORDERS},
    # what is spent stays spent; a larger budget means more false alarms
    "alpha": _later,
    "hard_fail_on_floor": _fewer,
    "entropy_floor": _fewer,
    "hysteresis_on": _later,
    "hysteresis_off": _later,
    "cooldown_steps": _fewer,
    "deadline_ms": _never,
    "deadline_max_ms": _never,
    "slo_ms": _never,
    "session_busy": _never,
    "session_wait_ms": _never,
    "session_waiters": _never,
    "max_inflight": _never,
    "body_timeout_s": _never,
    "log_decisions": _fewer,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that differs."""

    name: str
    old: Any
    new: Any
    loosens: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """A verified break-glass grant."""

    config_hash: str
    until: int
    reason: str


def changes(old: Settings, new: Settings) -> list[Change]:
    """What differs.

    Raises:
        ConfigError: a setting that needs a restart differs; names all of them.
    """
    found = [name for name in Settings.model_fields if getattr(old, name) != getattr(new, name)]
    fixed = [PREFIX + name.upper() for name in found if name not in RELOADABLE]
    if fixed:
        msg = f"needs a restart: {', '.join(fixed)}"
        raise ConfigError(msg)
    return [
        Change(name, getattr(old, name), getattr(new, name), RELOADABLE[name](getattr(old, name), getattr(new, name)))
        for name in found
    ]


def check(old: Settings, new: Settings, grant: Grant | None) -> list[Change]:
    """The changes, when they are allowed.

    Raises:
        ConfigError: one needs a restart.
        Forbidden: one loosens, and there is no grant for these settings.
    """
    found = changes(old, new)
    loose = [PREFIX + change.name.upper() for change in found if change.loosens]
    if loose and (grant is None or grant.config_hash != new.config_hash):
        msg = f"loosens {', '.join(loose)}: needs a break-glass grant for {new.config_hash}"
        raise Forbidden(msg)
    return found


def shown(change: Change) -> str:
    """A change as the log has it; secrets hidden."""
    if change.name in SECRETS:
        return f"{change.name}: (hidden)"
    return f"{change.name}: {json.dumps(change.old)} -> {json.dumps(change.new)}"


def _message(config_hash: str, until: int, reason: str) -> bytes:
    body = json.dumps([config_hash, until, reason], separators=(",", ":"), ensure_ascii=True)
    return _DOMAIN + body.encode()


def issue(key: SigningKey, *, config_hash: str, until: int, reason: str) -> str:
    """A grant as the text of its file.

    Args:
        key: the operator's.
        config_hash: of the settings that it allows.
        until: seconds since 1970.
        reason: for the log.
    """
    sig = key.sign(_message(config_hash, until, reason)).hex()
    return json.dumps({"config_hash": config_hash, "until": until, "reason": reason, "sig": sig}) + "\n"


def read_grant(text: str, *, public_hex: str, now: float) -> Grant:
    """A verified grant.

    Args:
        text: the file's content.
        public_hex: the operator's public key, as the running settings pin it.
        now: seconds since 1970.

    Raises:
        Forbidden: not a grant, of another key, over, or longer than a day.
    """
    wrong = "the break-glass grant cannot be read"
    if len(text) > _MAX_GRANT:
        raise Forbidden(wrong)
    try:
        value = json.loads(text)
        config_hash, until, reason, sig = (value[name] for name in ("config_hash", "until", "reason", "sig"))
        signature, public = bytes.fromhex(sig), bytes.fromhex(public_hex)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Forbidden(wrong) from None
    if not (isinstance(config_hash, str) and type(until) is int and isinstance(reason, str) and reason):
        raise Forbidden(wrong)
    if not verify_ed25519(public, signature, _message(config_hash, until, reason)):
        msg = "the break-glass grant is not signed by the pinned key"
        raise Forbidden(msg)
    if not now < until <= now + _LONGEST:
        msg = "the break-glass grant is over, or longer than a day"
        raise Forbidden(msg)
    return Grant(config_hash, until, reason)
