"""Alembic's entry: runs the migrations over the connection that `postgres_schema.upgrade` hands in."""

from __future__ import annotations

from alembic import context

from tcd.ledger.postgres_schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
