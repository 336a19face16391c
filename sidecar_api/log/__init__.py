"""The transparency log of a shim: its keys, its checkpoints and witnesses, its proofs."""
