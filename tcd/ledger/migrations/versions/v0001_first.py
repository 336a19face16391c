"""Receipts, chains, events, answers, checkpoints, and the shims that may write them."""

from __future__ import annotations

import os

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE tcd_head (
    id smallint PRIMARY KEY CONSTRAINT tcd_head_one CHECK (id = 1),
    ledger bytea NOT NULL, subjects bytea, origin text,
    size bigint NOT NULL, events bigint NOT NULL, members bigint NOT NULL
);
CREATE TABLE tcd_member (
    epoch bigint PRIMARY KEY, replica text NOT NULL, live boolean NOT NULL, seen timestamptz NOT NULL,
    batch bigint NOT NULL, size bigint NOT NULL, events bigint NOT NULL
);
CREATE TABLE tcd_receipt (
    idx bigint PRIMARY KEY, head bytea NOT NULL CONSTRAINT tcd_receipt_head UNIQUE,
    sig bytea NOT NULL, kid text NOT NULL, typ text NOT NULL, tenant text NOT NULL,
    chain bytea NOT NULL, seq bigint NOT NULL, prev bytea NOT NULL, ts_us bigint NOT NULL,
    CONSTRAINT tcd_receipt_chain UNIQUE (chain, seq)
);
CREATE TABLE tcd_body (idx bigint PRIMARY KEY, body bytea NOT NULL);
CREATE TABLE tcd_chain (
    id bytea PRIMARY KEY, seq bigint NOT NULL, prev bytea NOT NULL, closed boolean NOT NULL,
    ts_us bigint NOT NULL, member bigint NOT NULL
);
CREATE INDEX tcd_chain_open ON tcd_chain (id) WHERE NOT closed;
CREATE INDEX tcd_chain_member ON tcd_chain (member, id) WHERE NOT closed;
CREATE TABLE tcd_event (idx bigint PRIMARY KEY, event text NOT NULL);
CREATE TABLE tcd_answer (
    tenant bytea, key bytea, payload text NOT NULL, answer bytea NOT NULL, head text NOT NULL,
    expires_us bigint NOT NULL, PRIMARY KEY (tenant, key)
);
CREATE INDEX tcd_answer_expires ON tcd_answer (expires_us);
CREATE TABLE tcd_state (events bigint PRIMARY KEY, digest bytea NOT NULL, data bytea NOT NULL);
CREATE TABLE tcd_checkpoint (size bigint PRIMARY KEY, root bytea NOT NULL, note bytea NOT NULL);
CREATE FUNCTION tcd_refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'restrict_violation'; END$$;
"""
#: What is only ever added to. Nobody changes it by accident; who owns the tables can remove the triggers.
_APPEND_ONLY = ("tcd_receipt", "tcd_event", "tcd_checkpoint")


def upgrade() -> None:
    """Make the tables."""
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION tcd_refuse()"
        )
    op.get_bind().execute(
        sa.text("INSERT INTO tcd_head VALUES (1, :ledger, NULL, NULL, 0, 0, 0)"), {"ledger": os.urandom(16)}
    )


def downgrade() -> None:
    """There is no way back: receipts are kept."""
    msg = "the first version of the ledger is not removed; drop the database where that is meant"
    raise NotImplementedError(msg)
