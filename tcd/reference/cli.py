"""Every command and option, by typer's own generator."""

from __future__ import annotations

import html
import re
import subprocess
import sys


def render() -> str:
    """The page. Made in another process, so that the width of this terminal and its settings do not matter."""
    command = [sys.executable, "-m", "typer", "tcd.cli.main", "utils", "docs", "--name", "tcd"]
    done = subprocess.run(  # noqa: S603 - our own command line
        command, check=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    )
    text = html.unescape(done.stdout).replace("```console", "```text")
    # what looks like a tag is one to a reader of Markdown: `<path>` stands in code, defaults do not
    text = re.sub(r"(?m)\[(default|env var): ([^\]\n]*)\]", r"(\1: `\2`)", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
