"""Schema of the PostgreSQL ledger, version by version (alembic)."""
