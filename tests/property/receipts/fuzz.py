"""Coverage-guided fuzzing: `python -m tests.property.receipts.fuzz NAME -max_total_time=600` (`tcd[fuzz]`).

Only the receipts are instrumented: doing it to everything that is imported takes longer than some runs.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["tcd.receipts"]):
    from tests.property.receipts.targets import TARGETS, world


def main() -> None:
    """Fuzz the target named first until told to stop."""
    check = TARGETS[sys.argv.pop(1)]
    world()

    def once(data: bytes) -> None:
        check(data)

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
