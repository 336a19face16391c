"""`tcd bench sessions`: the session unit on trajectories that a judge has scored step by step."""
