"""Policy bundles on disk and in the environment: their texts, for `tcd.trust.load`, which takes them whole or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tcd.trust import BadBundle, PolicySet, load

#: Name that an inline bundle has in messages.
INLINE: Final = "TCD_POLICIES_JSON"
_MAX_FILES: Final = 256


def files_of(path: Path) -> list[Path]:
    """The files of a bundle: the file itself, or the `*.toml` files of a directory, in the order of their names.

    Raises:
        BadBundle: there are none, or too many.
    """
    if not path.is_dir():
        return [path]
    # a mounted config map has links to hidden directories beside its files
    found = sorted(file for file in path.glob("*.toml") if not file.name.startswith("."))
    if not 0 < len(found) <= _MAX_FILES:
        msg = f"{path}:1: a directory of 1 to {_MAX_FILES} *.toml files is a bundle; {len(found)} are here"
        raise BadBundle(msg)
    return found


def texts(path: Path) -> dict[str, str]:
    """File name to text.

    Raises:
        BadBundle: a file cannot be read.
    """
    found = {}
    for file in files_of(path):
        try:
            found[str(file)] = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:  # noqa: PERF203 - the error names the file
            msg = f"{file}:1: {getattr(error, 'strerror', None) or 'not UTF-8'}"
            raise BadBundle(msg) from None
    return found


def read(path: Path) -> PolicySet:
    """The policies of a file or directory.

    Raises:
        BadBundle: anything in it is wrong, with file, line and reason.
    """
    return load(texts(path))


def read_inline(text: str) -> PolicySet:
    """The policies of `TCD_POLICIES_JSON`: a bundle as JSON, `{"policy": [...]}` or just the list.

    Raises:
        BadBundle: anything in it is wrong.
    """
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        msg = f"{INLINE}:{line}: not JSON: {getattr(error, 'msg', 'too deep')}"
        raise BadBundle(msg) from None
    return load({}, values={INLINE: {"policy": value} if isinstance(value, list) else value})


def configured(path: Path | None, inline: str | None) -> PolicySet | None:
    """The policies of the settings `policies` and `policies_json`; None where neither is set.

    Raises:
        BadBundle: anything in them is wrong.
    """
    if path is not None:
        return read(path)
    return None if inline is None else read_inline(inline)
