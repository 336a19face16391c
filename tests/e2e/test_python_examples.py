"""The Python examples of the README and of the pages on gRPC and the client run as they stand, against a real stack."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import Stack

pytestmark = pytest.mark.triton
DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = {
    f"{page}-{number}": block
    for page in ("../README.md", "grpc.md", "client.md", "howto/other-servers.md")
    for number, block in enumerate(re.findall(r"(?ms)^```python\n(.*?)^```", (DOCS / page).read_text()))
}
#: What each one prints, as far as it does not depend on the calibration.
PRINTED = {
    "../README.md-0": ["allow 1.0 none (", "allow 1.0 none ("],
    "../README.md-1": ["score 0.0"],
    "grpc.md-0": ["allow none (", "0", "1", "2", "1 zone marked"],
    "client.md-0": ["allow 1.0 none (", "True", "['allow', 'allow', 'allow']", "validation_failed /entropy"],
    "client.md-1": ["allow"],
    "howto/other-servers.md-0": ["unsafe after"],
}


def test_each_example_has_its_expectation() -> None:
    assert EXAMPLES.keys() == PRINTED.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, stack: Stack) -> None:
    found = re.search(r"(?m)^grpc +(\S+)", stack.log.read_text())
    assert found is not None
    script = EXAMPLES[name].replace("http://127.0.0.1:8080", stack.shim).replace("127.0.0.1:8082", found[1])
    script = script.replace("127.0.0.1:8000", stack.triton.removeprefix("http://"))
    # a loaded machine may take its time
    script = script.replace("deadline=5.0", "deadline=60.0").replace("timeout=5", "timeout=60")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(PRINTED[name]), lines
    for line, begins in zip(lines, PRINTED[name], strict=True):
        assert line.startswith(begins), lines
