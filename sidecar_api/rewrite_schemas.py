"""Requests and answers of `POST /v1/rewrite` and of the route for nonces."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from sidecar_api.schemas import WHOLE_TEXT

# not hot: the decoder itself may look for control characters here
Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=WHOLE_TEXT)]
Label = Annotated[str, Meta(max_length=128, pattern=WHOLE_TEXT)]


class RewriteRequest(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """A request for a model, to be forwarded with its untrusted text marked; it may ask for more than the policy."""

    body: Annotated[msgspec.Raw, Meta(description="OpenAI chat or prompt, Anthropic messages, Triton text_input")]
    boundary: Annotated[
        Annotated[str, Meta(max_length=8192)] | None,
        Meta(description="untrusted spans: message[.text]:start-end,... in bytes; as the header X-TCD-Data-Boundary"),
    ] = None
    body_format: Literal["auto", "openai_chat", "openai_prompt", "anthropic", "triton"] = "auto"
    marking: Annotated[Literal["datamark", "delimit", "encode"] | None, Meta(description="instead of the policy's")] = (
        None
    )
    keep_newlines: Annotated[bool | None, Meta(description="instead of the policy's")] = None
    active: Annotated[bool, Meta(description="rewrite although the policy is in shadow mode")] = False
    model_id: Name = "model0"
    gpu_id: Label = "gpu0"
    task: Label = "chat"
    lang: Label = "en"
    tenant: Name = "tenant0"
    user: Name = "user0"
    session: Name = "sess0"


class ZoneRanges(Struct, kw_only=True, frozen=True):
    """Untrusted text: byte ranges of the original content of one text of a message."""

    message: int
    part: int
    ranges: list[tuple[int, int]]


class ZoneCount(Struct, kw_only=True, frozen=True):
    """Segments of one kind and origin."""

    kind: Literal["instruction", "data"]
    origin: Literal["role", "heuristic", "operator_inline", "operator_header"]
    count: int


class RewriteResponse(Struct, kw_only=True, frozen=True):
    """The body to forward, and what was done to it."""

    body: msgspec.Raw
    body_rewritten: bool
    shadow_mode: bool
    zones_marked: int
    byte_delta_total: int
    marker_collisions: int
    marking: Literal["datamark", "delimit", "encode", "none"]
    marker: str
    nonce: str
    reminder_added: bool
    failures: list[str]
    zone_byte_ranges_per_message: list[ZoneRanges]
    zones: list[ZoneCount]
    removed_characters: dict[str, int]
    findings: list[dict[str, Any]]
    digest: Annotated[
        str, Meta(description="of this outcome; as context.rewrite of /diagnose it is bound into the receipt")
    ]
    request_id: str
    policy_ref: str
    receipt: str | None = None
    receipt_body: str | None = None
    receipt_sig: str | None = None
    verify_key: str | None = None


class NonceResponse(Struct, kw_only=True, frozen=True):
    """A nonce for an operator's inline tags."""

    nonce: str
