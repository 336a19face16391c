"""Several Tritons and several shims on one PostgreSQL behind HAProxy, on one machine: load, faults, what is left."""
