"""How an audit grows with the log: `python -m tcd.bench.audit`."""
