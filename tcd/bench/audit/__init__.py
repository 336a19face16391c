"""How an audit grows with the log: `tcd bench audit`."""
