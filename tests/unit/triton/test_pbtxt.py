"""The model repository against the contract, read by Triton's own schema and not by the renderer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tcd.contract import FUSED, MAX_BATCH, TEXT_MODELS, Model, Tensor
from tcd.contract import MODELS as NUMERIC
from tcd.kept import keep
from tcd.triton import pbtxt
from tcd.triton.launcher import DEFAULT_MODELS, DEFAULT_REPOSITORY
from tcd.triton.noop import NOOP_MODELS, write_repository

TYPES = {
    "FP32": "TYPE_FP32",
    "FP64": "TYPE_FP64",
    "INT32": "TYPE_INT32",
    "UINT64": "TYPE_UINT64",
    "BYTES": "TYPE_STRING",
}
MODELS = NUMERIC | TEXT_MODELS
ALL = list(MODELS)
STEPS = [n for n, m in MODELS.items() if not m.steps]
ENSEMBLES = [n for n, m in MODELS.items() if m.steps]


def parse(path: Path) -> Any:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def config(name: str) -> Any:
    return parse(DEFAULT_REPOSITORY / name / "config.pbtxt")


def shape(tensors: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    names = model_config_pb2.DataType
    return [(t.name, names.Name(t.data_type), tuple(t.dims)) for t in tensors]


def wanted(tensors: tuple[Tensor, ...]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(t.name, TYPES[t.dtype], t.dims) for t in tensors]


@pytest.mark.parametrize("name", ALL)
def test_tensors_are_the_contracts(name: str) -> None:
    parsed, model = config(name), MODELS[name]
    assert parsed.name == name
    assert parsed.max_batch_size == MAX_BATCH == 256
    assert shape(parsed.input) == wanted(model.inputs)
    assert shape(parsed.output) == wanted(model.outputs)


@pytest.mark.parametrize("name", ALL)
def test_no_input_is_optional_and_every_variable_width_may_be_ragged(name: str) -> None:
    for item in config(name).input:
        assert not item.optional, "an optional input splits batches"
        assert item.allow_ragged_batch == (-1 in item.dims), item.name


@pytest.mark.parametrize("name", STEPS)
def test_the_traps_are_avoided(name: str) -> None:
    parsed = config(name)
    assert parsed.backend == "python"
    assert parsed.HasField("dynamic_batching")
    batching = parsed.dynamic_batching
    assert not batching.HasField("default_queue_policy")
    assert not batching.priority_queue_policy
    assert (batching.priority_levels, batching.max_queue_delay_microseconds) == (0, 0)
    assert len(parsed.instance_group) == 1
    group = parsed.instance_group[0]
    assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_AUTO
    assert group.count == 1
    assert not group.gpus
    assert parsed.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value == "no"
    assert len(parsed.model_warmup) == 1
    warm = parsed.model_warmup[0]
    assert {k: tuple(v.dims) for k, v in warm.inputs.items()} == {
        t.name: tuple(64 if d < 0 else d for d in t.dims) for t in MODELS[name].inputs
    }


@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_steps_of_an_ensemble_connect(name: str) -> None:
    parsed, model = config(name), MODELS[name]
    assert parsed.platform == "ensemble"
    known = {t.name: (t.dtype, t.dims) for t in model.inputs}
    assert [s.model_name for s in parsed.ensemble_scheduling.step] == [s.model for s in model.steps]
    for step in parsed.ensemble_scheduling.step:
        inner = MODELS[step.model_name]
        assert step.model_version == -1
        assert set(step.input_map) == {t.name for t in inner.inputs}
        assert set(step.output_map) == {t.name for t in inner.outputs}
        for tensor in inner.inputs:
            dtype, dims = known[step.input_map[tensor.name]]
            assert (dtype, len(dims)) == (tensor.dtype, len(tensor.dims)), tensor.name
            assert dims == tensor.dims
        for tensor in inner.outputs:
            assert step.output_map[tensor.name] not in known, "made twice"
            known[step.output_map[tensor.name]] = (tensor.dtype, tensor.dims)
    for tensor in model.outputs:
        assert known[tensor.name] == (tensor.dtype, tensor.dims)


@pytest.mark.parametrize("name", ALL)
def test_every_tensor_is_documented_above_it(name: str) -> None:
    text = (DEFAULT_REPOSITORY / name / "config.pbtxt").read_text()
    for tensor in (*MODELS[name].inputs, *MODELS[name].outputs):
        comment = re.search(rf'((?:^#.*\n)+)(?:input|output) {{\n  name: "{tensor.name}"\n', text, re.MULTILINE)
        assert comment, tensor.name
        said = " ".join(line.removeprefix("# ") for line in comment[1].splitlines())
        assert said == f"{tensor.name}: {tensor.doc}"


def test_the_repository_is_what_the_contract_renders() -> None:
    assert keep("tcd.triton.pbtxt", pbtxt.kept(), ["--check"]) == 0
    assert {*DEFAULT_MODELS, FUSED.name} == set(MODELS)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_have_an_empty_version(name: str) -> None:
    assert [p.name for p in (DEFAULT_REPOSITORY / name / "1").iterdir()] == [".gitkeep"]


@pytest.mark.parametrize("name", STEPS)
def test_model_files_are_one_import_of_a_class_of_that_contract(name: str) -> None:
    source = (DEFAULT_REPOSITORY / name / "1" / "model.py").read_text()
    assert len(source.splitlines()) == 1
    scope: dict[str, Any] = {}
    exec(source, scope)  # noqa: S102 - as the stub does
    assert scope["TritonPythonModel"].model is MODELS[name]


def test_check_fails_for_a_changed_a_missing_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def main(*arguments: str) -> int:
        return keep("tcd.triton.pbtxt", pbtxt.kept(tmp_path), arguments)

    assert main() == 0
    assert main("--check") == 0
    path = tmp_path / "tcd_routing" / "config.pbtxt"
    path.write_text(path.read_text().replace("dynamic_batching { }", "dynamic_batching { priority_levels: 2 }"))
    assert main("--check") == 1
    assert "tcd_routing/config.pbtxt" in capsys.readouterr().err
    path.unlink()
    assert main("--check") == 1


def test_the_no_op_has_the_shape_of_the_ensemble(tmp_path: Path) -> None:
    write_repository(tmp_path)
    real: Model = MODELS["tcd_diagnose"]
    parsed = parse(tmp_path / "noop_diagnose" / "config.pbtxt")
    assert shape(parsed.input) == wanted(real.inputs)
    assert shape(parsed.output) == wanted(real.outputs)
    steps = [s.model_name for s in parsed.ensemble_scheduling.step]
    assert steps == [m.name for m in NOOP_MODELS[:-1]]
    for name in [*steps, "noop_spotlight"]:
        theirs = config(name.replace("noop", "tcd"))
        ours = parse(tmp_path / name / "config.pbtxt")
        theirs.name = ours.name
        assert theirs == ours
