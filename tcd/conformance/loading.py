"""Files of vectors as data: JSON as it is; RFC 8785's documents and numbers, which come as bare files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tcd.conformance.findings import Malformed

#: A file of numbers has two columns: bits in hex, text.
_COLUMNS: Final = 2


def load(path: Path) -> Any:
    """Content of a file, for `check`.

    A document in a directory `input` with a file of its name in `output` beside it is taken with its canonical form.

    Raises:
        Malformed: not JSON, or not the text that the name promises.
        OSError: it cannot be read.
    """
    try:
        text = path.read_text("utf-8")
        expected = path.parent.parent / "output" / path.name
        if path.parent.name == "input" and expected.is_file():
            # the canonical form has no line feed at its end
            return {"jcs_input": text, "jcs_output": expected.read_bytes().decode("utf-8")}
        if path.suffix == ".txt":
            rows = [line.split(",") for line in text.splitlines()]
            if not rows or any(len(row) != _COLUMNS for row in rows):
                msg = "not lines of bits and numbers"
                raise Malformed(msg)
            return {"es6_numbers": rows}
        return json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise Malformed(msg) from error
