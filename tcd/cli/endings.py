"""How a command ends that cannot go on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer


def fail(command: str, why: object, *, code: int = 2) -> NoReturn:
    """Say on standard error why a command ends, and end it.

    Args:
        command: its name, without `tcd`.
        why: a reason, or the error that has it.
        code: exit status.
    """
    print(f"tcd {command}: {why}", file=sys.stderr)
    raise typer.Exit(code) from None


@contextlib.contextmanager
def refusals(command: str, *, code: int = 2) -> Iterator[None]:
    """What tcd refuses ends the command with its reason; also a decorator of commands."""
    from tcd.errors import TcdError

    try:
        yield
    except TcdError as error:
        fail(command, error, code=code)
