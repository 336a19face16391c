"""The proto: generated code is fresh, numbers of the original are kept, buf finds nothing, the schema is covered."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sidecar_api.schemas import DiagnoseRequest, RiskResponse, VerifyRequest
from tcd.v1 import tcd_pb2 as pb

ROOT = Path(__file__).resolve().parents[3]
LINT = {
    "use": ["STANDARD", "COMMENTS"],
    # the names of the original: RiskResponse answers two methods
    "except": ["RPC_REQUEST_STANDARD_NAME", "RPC_RESPONSE_STANDARD_NAME", "RPC_REQUEST_RESPONSE_UNIQUE"],
}
#: Fields whose names say it all, and enclosing messages that are commented.
UNCOMMENTED = ["COMMENT_FIELD", "COMMENT_ONEOF"]


def buf(*arguments: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("buf")), *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return done.stdout + done.stderr


def test_the_generated_code_is_that_of_the_proto(tmp_path: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", f"--python_out={tmp_path}"),
            *(f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}", "tcd/v1/tcd.proto"),
        ],
        check=True,
        cwd=ROOT,
    )
    made = sorted((tmp_path / "tcd/v1").iterdir())
    assert len(made) == 3
    for path in made:
        assert path.read_bytes() == (ROOT / "tcd/v1" / path.name).read_bytes(), "run `make proto`"


def module(folder: Path, text: str) -> str:
    """A buf module of nothing but one version of the proto."""
    path = folder / "tcd/v1/tcd.proto"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return str(folder)


def test_buf_lint_and_breaking_are_clean(tmp_path: Path) -> None:
    ours = module(tmp_path, (ROOT / "tcd/v1/tcd.proto").read_text())
    config = {"version": "v2", "lint": {**LINT, "except": [*LINT["except"], *UNCOMMENTED]}}
    assert buf("lint", ours, "--config", json.dumps(config)) == ""
    # the original project's messages, and all that clients of 0.1 may have been made of
    assert buf("breaking", ours, "--against", "tests/assets/proto") == ""
    assert buf("breaking", ours, "--against", "tests/assets/proto_0_1") == ""


def test_buf_would_find_a_changed_number(tmp_path: Path) -> None:
    text = (ROOT / "tcd/v1/tcd.proto").read_text()
    changed = module(tmp_path, text.replace("double score = 2;", "double score = 99;", 1))
    assert 'Previously present field "2"' in buf("breaking", changed, "--against", "tests/assets/proto")


ORIGINAL = {
    "DiagnoseRequest": "trace_vector 1, entropy 2, spectrum 3, features 4, step_id 5, model_id 10, gpu_id 11, task 12, "
    "lang 13, tenant 14, user 15, session 16, context 20, tokens_delta 21, drift_score 22",
    "RiskResponse": "verdict 1, score 2, threshold 3, budget_remaining 4, components 5, cause 6, action 7, step 8, "
    "e_value 9, alpha_alloc 10, alpha_spent 11, receipt_head 12, receipt_body 13, receipt_sig 14, verify_key 15, "
    "policy_ref 16, config_hash 17",
}


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_numbers_of_the_original_are_kept_and_new_ones_begin_at_30(name: str) -> None:
    wanted = {n: int(v) for n, v in re.findall(r"(\w+) (\d+)", ORIGINAL[name])}
    fields = {f.name: f.number for f in pb.DESCRIPTOR.message_types_by_name[name].fields}
    assert {n: fields[n] for n in wanted} == wanted
    assert all(number >= 30 for n, number in fields.items() if n not in wanted)


@pytest.mark.parametrize(
    ("kind", "message"),
    [(DiagnoseRequest, pb.DiagnoseRequest), (RiskResponse, pb.RiskResponse), (VerifyRequest, pb.VerifyRequest)],
)
def test_the_messages_have_the_members_of_the_schema(kind: type[msgspec.Struct], message: type) -> None:
    names = {f.encode_name for f in msgspec.structs.fields(kind)}
    fields = {f.name for f in message.DESCRIPTOR.fields}  # type: ignore[attr-defined]
    assert {n.replace("receipt_head", "receipt") if kind is RiskResponse else n for n in fields} == names
