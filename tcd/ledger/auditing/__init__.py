"""Audits of a whole ledger in one pass and constant memory: `run.run`, over a `sources.Store`."""
