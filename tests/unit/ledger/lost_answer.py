"""A commit to PostgreSQL whose answer is lost."""

from __future__ import annotations

from typing import Any

from tcd.ledger.postgres import PostgresLedger


class LostAnswer:
    """A transaction whose commit happens, or not, and whose answer is lost with the connection."""

    def __init__(self, ledger: PostgresLedger, *, happens: bool) -> None:
        self._ledger = ledger
        self._happens = happens
        self._commit = ledger._commit

    async def __call__(self, transaction: Any, doubt: Any) -> None:
        happens, writer = self._happens, self._ledger._writer

        class Transaction:
            async def commit(self) -> None:
                if happens:
                    await transaction.commit()
                else:
                    writer.terminate()
                raise ConnectionResetError

        await self._commit(Transaction(), doubt)
