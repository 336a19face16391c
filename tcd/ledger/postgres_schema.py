"""The tables of the PostgreSQL ledger, and how a database gets them.

The migrations under `migrations/` make what stands here; a test compares the two. The head row is the lock under
which everything is appended, so positions have no holes whichever shim writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tcd.errors import ConfigError

VERSION_TABLE: Final = "tcd_version"
#: Shims that start together migrate one after the other: key of their advisory lock.
_MIGRATING: Final = 0x7463_645F_6C65_6467

metadata: Final = sa.MetaData()


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)


#: One row: how much there is; who knows the same subjects (`subjects`) may append.
head: Final = sa.Table(
    "tcd_head",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    _bytes("ledger"),
    sa.Column("subjects", sa.LargeBinary),
    sa.Column("origin", sa.Text),
    _count("size"),
    _count("events"),
    _count("members"),
    sa.CheckConstraint("id = 1", name="tcd_head_one"),
)
#: The shims that ever wrote here; `epoch` only grows, and one that is not live writes no more.
member: Final = sa.Table(
    "tcd_member",
    metadata,
    _key("epoch"),
    _text("replica"),
    sa.Column("live", sa.Boolean, nullable=False),
    sa.Column("seen", sa.DateTime(timezone=True), nullable=False),
    _count("batch"),
    _count("size"),
    _count("events"),
)
receipt: Final = sa.Table(
    "tcd_receipt",
    metadata,
    _key("idx"),
    _bytes("head"),
    _bytes("sig"),
    _text("kid"),
    _text("typ"),
    _text("tenant"),
    _bytes("chain"),
    _count("seq"),
    _bytes("prev"),
    _count("ts_us"),
    sa.UniqueConstraint("head", name="tcd_receipt_head"),
    sa.UniqueConstraint("chain", "seq", name="tcd_receipt_chain"),
)
#: Bodies may be erased; positions and heads stay.
body: Final = sa.Table("tcd_body", metadata, _key("idx"), _bytes("body"))
#: Which record erased a body: derived from the `erase` records.
erasure: Final = sa.Table("tcd_erasure", metadata, _key("idx"), _count("record"))
chain: Final = sa.Table(
    "tcd_chain",
    metadata,
    sa.Column("id", sa.LargeBinary, primary_key=True),
    _count("seq"),
    _bytes("prev"),
    sa.Column("closed", sa.Boolean, nullable=False),
    _count("ts_us"),
    _count("member"),
    sa.Index("tcd_chain_open", "id", postgresql_where=sa.text("NOT closed")),
    sa.Index("tcd_chain_member", "member", "id", postgresql_where=sa.text("NOT closed")),
)
event: Final = sa.Table("tcd_event", metadata, _key("idx"), _text("event"))
answer: Final = sa.Table(
    "tcd_answer",
    metadata,
    # bytes: a client's text may hold U+0000
    sa.Column("tenant", sa.LargeBinary, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    _text("payload"),
    _bytes("answer"),
    _text("head"),
    _count("expires_us"),
    sa.Index("tcd_answer_expires", "expires_us"),
)
#: What a start folds from; derived from the events, and checked when it is read.
state: Final = sa.Table("tcd_state", metadata, _key("events"), _bytes("digest"), _bytes("data"))
checkpoint: Final = sa.Table("tcd_checkpoint", metadata, _key("size"), _bytes("root"), _bytes("note"))


def alembic_config() -> Config:
    """Alembic's view of the migrations in this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def _upgrade(connection: sa.Connection) -> None:
    newest = ScriptDirectory.from_config(alembic_config()).get_current_head()
    options = {"version_table": VERSION_TABLE}
    if MigrationContext.configure(connection, opts=options).get_current_revision() == newest:
        return
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def upgrade(connect: Any) -> None:
    """Bring a database to the newest schema; nothing is done where it has it.

    Args:
        connect: makes an asyncpg connection to it.

    Raises:
        ConfigError: it is of a newer version, or this role may not change it.
    """
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATING})
            try:
                await connection.run_sync(_upgrade)
                await connection.commit()
            finally:
                await connection.rollback()
                await connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATING})
    except CommandError:
        msg = "the ledger's database was written by a newer version of tcd; remedy: upgrade this one"
        raise ConfigError(msg) from None
    except ProgrammingError as error:
        state = getattr(error.orig, "sqlstate", None) or type(error.orig).__name__
        msg = f"the ledger's tables cannot be made or upgraded ({state}); remedy: start once as the owner of the schema"
        raise ConfigError(msg) from None
    finally:
        await engine.dispose()
