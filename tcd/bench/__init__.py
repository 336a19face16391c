"""Benchmarks that print their peers beside us; never assertions on wall time."""
