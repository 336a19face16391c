"""What an operator decides about rewriting, and the reasons for which it can fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, get_args

ZoneMode = Literal["off", "heuristic", "operator", "both"]
Marking = Literal["datamark", "delimit", "encode", "none"]
MarkerStrategy = Literal["random", "fixed"]
OnFailure = Literal["open", "closed"]
BodyFormat = Literal["auto", "openai_chat", "openai_prompt", "anthropic", "triton"]
Reason = Literal[
    "body_parse_failed",
    "body_missing_messages",
    "unsupported_body",
    "header_parse_failed",
    "header_range_out_of_bounds",
    "header_message_index_out_of_bounds",
    "no_zones_available",
    "body_reserialize_failed",
    "deadline_exceeded",
    "body_too_large",
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

#: The private-use block that markers come from.
MARKER_FIRST: Final = 0xE000
MARKER_LAST: Final = 0xF8FF
MAX_MARKER_LENGTH: Final = 8
MAX_BODY: Final = 1 << 20
_CHOICES: Final[Mapping[str, tuple[Any, ...]]] = {
    "zones": get_args(ZoneMode),
    "marking": get_args(Marking),
    "marker": get_args(MarkerStrategy),
    "on_failure": get_args(OnFailure),
    "body_format": get_args(BodyFormat),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """One rewriting policy.

    Attributes:
        zones: where Data is looked for; `off` does nothing at all.
        marking: what is done to Data; `none` only wraps Data of `boundary_roles`.
        keep_newlines: datamark inside lines only, so that tables and code stay readable.
        marker: a new marker per request, or `fixed_marker` unless the request contains it.
        marker_length: code points of a random marker; guessing it costs 6400 ** length.
        fixed_marker: 1 to 8 characters of U+E000..U+F8FF.
        data_roles: roles whose whole text is Data.
        boundary_roles: roles whose Data is wrapped in tags even with `marking` none.
        plain_tags: accept `<llmtrace-data>` without a nonce.
        shadow: do the work, forward the original.
        on_failure: forward the original, or refuse.
        body_format: how to read the body.
        max_body: bytes of a body at most.
        max_output: bytes of a rewritten body at most.
    """

    zones: ZoneMode = "both"
    marking: Marking = "datamark"
    keep_newlines: bool = False
    marker: MarkerStrategy = "random"
    marker_length: int = 1
    fixed_marker: str = "\ue000"
    data_roles: frozenset[str] = frozenset({"tool", "function"})
    boundary_roles: frozenset[str] = frozenset({"tool", "function"})
    plain_tags: bool = False
    shadow: bool = True
    on_failure: OnFailure = "open"
    body_format: BodyFormat = "auto"
    max_body: int = MAX_BODY
    max_output: int = 4 * MAX_BODY

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a value is outside its range; names the member.
        """
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                msg = f"{name} is not one of {', '.join(allowed)}"
                raise ValueError(msg)
        if not 1 <= self.marker_length <= MAX_MARKER_LENGTH:
            msg = f"marker_length is not in 1..{MAX_MARKER_LENGTH}"
            raise ValueError(msg)
        fixed = self.fixed_marker
        if not 1 <= len(fixed) <= MAX_MARKER_LENGTH or any(not MARKER_FIRST <= ord(c) <= MARKER_LAST for c in fixed):
            msg = f"fixed_marker is not 1 to {MAX_MARKER_LENGTH} characters of U+E000..U+F8FF"
            raise ValueError(msg)
        if self.max_body < 1 or self.max_output < 1:
            msg = "max_body and max_output are at least 1"
            raise ValueError(msg)

    @classmethod
    def from_json(cls, value: object, base: Policy | None = None) -> Policy:
        """A policy from a JSON object; members that are absent are as in `base`, else have their defaults.

        Raises:
            ValueError: a member is unknown, mistyped or out of range; names it.
        """
        if not isinstance(value, dict):
            msg = "a policy is a JSON object"
            raise ValueError(msg)  # noqa: TRY004 - one error for whatever is wrong with a policy
        known = {f.name: getattr(_DEFAULT, f.name) for f in fields(cls)}
        members: dict[str, Any] = {}
        for name, member in value.items():
            if name not in known:
                msg = f"{name} is no member of a policy"
                raise ValueError(msg)
            if isinstance(known[name], frozenset):
                if not isinstance(member, list) or not all(isinstance(role, str) for role in member):
                    msg = f"{name} is no list of strings"
                    raise ValueError(msg)
                members[name] = frozenset(member)
                continue
            if type(member) is not type(known[name]):
                msg = f"{name} is no {type(known[name]).__name__}"
                raise ValueError(msg)
            members[name] = member
        return replace(base or _DEFAULT, **members)


_DEFAULT: Final = Policy()
