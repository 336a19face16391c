"""A proto file as Markdown: services and messages with their comments."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

_LABEL_REPEATED: Final = 3


def _descriptor(proto: Path, root: Path) -> Any:
    """What protoc makes of a file, with its comments."""
    import grpc_tools  # noqa: PLC0415
    from google.protobuf.descriptor_pb2 import FileDescriptorSet  # noqa: PLC0415 - only who renders needs them
    from grpc_tools import protoc  # noqa: PLC0415

    known = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        arguments = [
            "protoc",
            f"-I{root}",
            f"-I{known}",
            "--include_source_info",
            f"--descriptor_set_out={out}",
            str(proto),
        ]
        if protoc.main(arguments) != 0:
            msg = f"protoc refuses {proto}"
            raise ValueError(msg)
        return FileDescriptorSet.FromString(out.read_bytes()).file[0]


def _type(field: Any, entries: Mapping[str, Any]) -> str:
    name = field.type_name.rpartition(".")[2] if field.type_name else ""
    if name in entries:
        key, value = entries[name].field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    kind = field.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.type_name.startswith(".tcd."):
        kind = f"[{name}](#{name.lower()})"
    elif name:
        kind = f"`{field.type_name.lstrip('.')}`"
    return f"repeated {kind}" if field.label == _LABEL_REPEATED else kind


def _message(message: Any, comments: Mapping[tuple[int, ...], str], place: tuple[int, ...]) -> Iterator[str]:
    yield f"### {message.name}"
    if place in comments:
        yield f"{comments[place]}\n"
    if not message.field:
        yield "No fields.\n"
        return
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    yield "| number | field | type | |\n|---|---|---|---|"
    for i, field in enumerate(message.field):
        optional = "optional " if field.proto3_optional else ""
        said = comments.get((*place, 2, i), "").replace("|", "\\|")
        yield f"| {field.number} | `{field.name}` | {optional}{_type(field, entries)} | {said} |"
    yield ""


def render(proto: Path, root: Path, note: str) -> str:
    """The page of a proto file.

    Args:
        proto: the file.
        root: where its imports are looked for.
        note: a paragraph below the title.

    Raises:
        ValueError: protoc does not take the file.
    """
    file = _descriptor(proto, root)
    comments = {
        tuple(one.path): " ".join(one.leading_comments.split())
        for one in file.source_code_info.location
        if one.leading_comments
    }
    lines = [f"# gRPC: `{file.package}`", "", note, "", "## Methods", ""]
    for s, service in enumerate(file.service):
        lines += [comments.get((6, s), ""), "", f"| `{service.name}` | request | answer | |", "|---|---|---|---|"]
        for m, method in enumerate(service.method):
            names = [kind.rpartition(".")[2] for kind in (method.input_type, method.output_type)]
            streams = [method.client_streaming, method.server_streaming]
            ends = [
                f"{'stream of ' if many else ''}[{n}](#{n.lower()})" for n, many in zip(names, streams, strict=True)
            ]
            lines.append(f"| `{method.name}` | {ends[0]} | {ends[1]} | {comments.get((6, s, 2, m), '')} |")
    lines += ["", "## Messages", ""]
    for i, message in enumerate(file.message_type):
        lines += _message(message, comments, (4, i))
    return "\n".join(lines)
