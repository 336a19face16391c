"""Answers of the admin plane, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

from typing_extensions import NotRequired, TypedDict

from sidecar_api.admin.principals import AdminScope, Key
from tcd.ledger.search import Found


class Act(TypedDict):
    """Something that was done."""

    action: str
    actors: list[str]
    object: str
    receipt: str
    result: Any


class Proposed(TypedDict):
    """Something that waits for a second principal."""

    id: str
    action: str
    scope: AdminScope
    proposed_by: str
    object: str
    shown: Any
    expires_at: int


class Looked(Proposed):
    """Something that waits, with what only whoever may approve it reads: for an erasure whom it is about."""

    revealed: Any


class Waiting(TypedDict):
    """What a caller could approve."""

    approvals: list[Proposed]


class Whoami(TypedDict):
    """Who a token is of."""

    principal: str
    tenant: str
    scopes: list[AdminScope]
    granted: list[AdminScope]


class People(TypedDict):
    """The key set in force."""

    digest: str
    keys: list[Key]


class Config(TypedDict):
    """Every setting as people may see it."""

    config_hash: str
    settings: dict[str, Any]


class Policy(TypedDict):
    """One policy."""

    ref: str
    match: dict[str, str]
    mode: str | None
    priority: int


class Remark(TypedDict):
    """What lint says."""

    file: str
    line: int
    code: str
    detail: str


class Policies(TypedDict):
    """A bundle."""

    digest: str
    policies: list[Policy]


class Checked(Policies):
    """What a bundle would be, and whether it could be put."""

    remarks: list[Remark]
    loosens: list[str]


class Page(TypedDict):
    """A page of a search, newest first; how many receipts are indexed is not told to a principal of one tenant."""

    receipts: list[Found]
    next: str | None
    indexed: int | None


class Receipt(TypedDict):
    """One receipt, as `/verify` takes it; of an erased one what is left."""

    head: str
    index: int
    body: str | None
    erased: bool
    sig: str
    kid: str
    typ: str
    chain: str
    seq: int


class Budget(TypedDict):
    """A budget as of now; more members are those of its stream."""

    tenant: str
    user: str | None
    unit: NotRequired[str]


class Checkpoint(TypedDict):
    """The newest checkpoint."""

    size: int
    root: str
    note: str


class LedgerFigures(TypedDict):
    """How much is kept."""

    durable: bool
    checkpoint: Checkpoint | None
