"""The plan to 10^6 decisions a second and 10^9 subjects: its numbers, and simulations that could refute it."""
