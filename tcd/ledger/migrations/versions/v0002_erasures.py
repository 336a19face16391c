"""Which `erase` record erased a body, so that nobody has to read all of them."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_FILL = """
INSERT INTO tcd_erasure
SELECT leaf, min(record) FROM (
    SELECT generate_series(f.value::bigint, f.value::bigint + n.value::bigint - 1) AS leaf, idx AS record
    FROM tcd_receipt JOIN tcd_body USING (idx)
    CROSS JOIN LATERAL (SELECT convert_from(body, 'UTF8')::jsonb #> '{erase,leaves}' AS leaves) AS said
    CROSS JOIN LATERAL jsonb_array_elements_text(leaves) WITH ORDINALITY AS f(value, at)
    JOIN LATERAL jsonb_array_elements_text(leaves) WITH ORDINALITY AS n(value, at) ON n.at = f.at + 1
    WHERE typ = 'erase' AND f.at % 2 = 1
) AS named GROUP BY leaf
"""


def upgrade() -> None:
    """Make the table, and fill it from the records that are there."""
    op.execute("CREATE TABLE tcd_erasure (idx bigint PRIMARY KEY, record bigint NOT NULL)")
    op.execute(_FILL)


def downgrade() -> None:
    """Drop the table: it is derived."""
    op.execute("DROP TABLE tcd_erasure")
