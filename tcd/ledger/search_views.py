"""Counts and groups over the search index, each bounded in rows and in work: what dashboards show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tcd.ledger.search import ReceiptIndex

#: Records that a count looks at, the newest ones.
MOST_COUNTED: Final = 200_000
#: Records among which sessions are looked for.
MOST_GROUPED: Final = 20_000
#: Instructions of SQLite's machine that a query may take: under a second.
MOST_STEPS: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class Count:
    """Decisions of a slice of time that are alike.

    Attributes:
        bin: number of the slice.
        action, enforced, cause, verdict: what they have in common.
        count: how many.
    """

    bin: int
    action: str
    enforced: str
    cause: str
    verdict: bool
    count: int


@dataclass(frozen=True, slots=True)
class SessionFound:
    """A session by its subject, with the newest of the records that were asked for."""

    subject: str
    tenant: str
    model: str
    cause: str
    count: int
    ts_us: int


class SearchViews:
    """Bounded views of an index that was caught up."""

    def __init__(self, index: ReceiptIndex) -> None:
        """Look at `index`."""
        self._index = index

    async def counts(
        self, *, tenant: str | None, since_us: int, until_us: int, bins: int, most: int = MOST_COUNTED
    ) -> tuple[list[Count], bool]:
        """Decisions from `since_us` to `until_us` in `bins` slices; and whether all of them were counted."""
        width = max(1, -(-(until_us - since_us) // bins))
        where, values = _tenant(tenant)
        sql = f"""
            SELECT (ts_us - ?) / ? AS bin, action, enforced, cause, verdict, count(*) FROM (
              SELECT ts_us, action, enforced, cause, verdict FROM receipt
              WHERE ts_us >= ? AND ts_us < ? AND action IS NOT NULL{where} ORDER BY ts_us DESC LIMIT ?
            ) GROUP BY 1, 2, 3, 4, 5 ORDER BY 1
        """  # noqa: S608 - constants
        rows = await self._select(sql, [since_us, width, since_us, until_us, *values, most])
        found = [Count(row[0], row[1], row[2] or "", row[3] or "", bool(row[4]), row[5]) for row in rows]
        return found, sum(count.count for count in found) < most

    async def sessions(
        self, *, tenant: str | None, enforced: str, limit: int, most: int = MOST_GROUPED
    ) -> list[SessionFound]:
        """Sessions with such decisions, those with the newest first; among the newest `most` of these."""
        where, values = _tenant(tenant)
        sql = f"""
            SELECT subject, tenant, model, cause, count(*), max(ts_us) AS newest FROM (
              SELECT subject, tenant, model, cause, ts_us, idx FROM receipt
              WHERE enforced = ?{where} ORDER BY ts_us DESC, idx DESC LIMIT ?
            ) WHERE subject IS NOT NULL GROUP BY subject ORDER BY newest DESC LIMIT ?
        """  # noqa: S608 - constants
        rows = await self._select(sql, [enforced, *values, most, limit])
        return [SessionFound(row[0], row[1], row[2] or "", row[3] or "", row[4], row[5]) for row in rows]

    async def tenants(self, *, after: str = "", limit: int = 50) -> list[str]:
        """Names of tenants above `after`, in order; one look-up each, however long the log is."""
        sql = """
            WITH RECURSIVE next(name) AS (
              SELECT min(tenant) FROM receipt WHERE tenant > ?
              UNION ALL SELECT (SELECT min(tenant) FROM receipt WHERE tenant > next.name) FROM next
              WHERE next.name IS NOT NULL
            ) SELECT name FROM next WHERE name IS NOT NULL AND name != '-' LIMIT ?
        """
        return [str(row[0]) for row in await self._select(sql, [after, limit])]

    async def _select(self, sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
        return await self._index.select(sql, values, steps=MOST_STEPS)


def _tenant(tenant: str | None) -> tuple[str, list[Any]]:
    return ("", []) if tenant is None else (" AND tenant = ?", [tenant])
