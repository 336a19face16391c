"""Finding the texts of a request body and putting changed ones back.

OpenAI chat and `prompt`, Anthropic messages, Triton's `text_input`. Only the objects on the way to a changed text are
decoded and encoded again; everything else keeps its own bytes, so unknown members, key order and the spelling of
numbers survive.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from tcd.spotlight.policy import BodyFormat, Reason
from tcd.spotlight.zones import Text

Path = tuple[str | int, ...]
Raw = msgspec.Raw

_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_ARRAY: Final = msgspec.json.Decoder(list[Raw])
_WHOLE: Final = msgspec.json.Decoder(Raw)
_STRING: Final = msgspec.json.Decoder(str)
_encode: Final = msgspec.json.Encoder().encode
#: Blocks whose texts are untrusted in any role.
_DATA_BLOCKS: Final = frozenset({"tool_result", "document", "search_result"})
_DATA_SUFFIX: Final = "_tool_result"
_TEXT_BLOCKS: Final = frozenset({"text", "input_text", "output_text"})
_SYSTEM_ROLES: Final = frozenset({"system", "developer"})
_MAX_DEPTH: Final = 6


class BodyError(Exception):
    """The body cannot be rewritten; `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        """Name the reason."""
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Located:
    """The texts of a body.

    Attributes:
        kind: what the body is.
        texts: in order.
        system: first system message: `string` or `blocks` to append to, `field` to set; or where one is inserted.
    """

    kind: Literal["openai_chat", "openai_prompt", "anthropic", "triton"]
    texts: list[Text] = field(default_factory=list)
    system: tuple[Literal["string", "blocks", "set", "insert"], Path] = ("insert", ())

    @property
    def is_prompt(self) -> bool:
        """Whether it has no system text of its own."""
        return self.kind in {"openai_prompt", "triton"}

    def system_texts(self) -> list[str]:
        """The texts that a reminder may stand in: of the system, or a prompt that has no system."""
        if self.is_prompt:
            return [text.text for text in self.texts]
        return [text.text for text in self.texts if text.role in _SYSTEM_ROLES]


def _object(raw: Raw | bytes, reason: Reason = "unsupported_body") -> dict[str, Raw]:
    try:
        return _OBJECT.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise BodyError(reason) from None


def _array(raw: Raw) -> list[Raw]:
    try:
        return _ARRAY.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise BodyError("body_parse_failed") from None


def _kind_of(raw: Raw) -> str:
    first = bytes(raw)[:1]
    return {b'"': "string", b"[": "array", b"{": "object", b"n": "null"}.get(first, "other")


def _text_of(raw: Raw) -> str:
    try:
        return _STRING.decode(raw)
    except msgspec.DecodeError:
        raise BodyError("body_parse_failed") from None


def locate(
    body: bytes, body_format: BodyFormat = "auto", *, data_roles: Collection[str] = ("tool", "function")
) -> Located:
    """Find the texts.

    Args:
        body: as it came.
        body_format: what it is; `auto` looks.
        data_roles: roles whose texts are Data.

    Raises:
        BodyError: not JSON, not UTF-8, or no body of a known kind.
    """
    try:
        body.decode()
        # what is skipped over is still checked
        _WHOLE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BodyError("body_parse_failed") from None
    root = _object(body)
    if body_format in {"openai_chat", "anthropic"} or (body_format == "auto" and "messages" in root):
        return _chat(root, body_format, data_roles)
    for name, member, kind in (("openai_prompt", "prompt", "openai_prompt"), ("triton", "text_input", "triton")):
        if body_format == name or (body_format == "auto" and member in root):
            return _prompt(root, member, kind)
    raise BodyError("body_missing_messages")


def _prompt(root: Mapping[str, Raw], member: str, kind: Any) -> Located:
    located = Located(kind)
    raw = root.get(member)
    if raw is None:
        raise BodyError("body_missing_messages")
    shape = _kind_of(raw)
    if shape == "string":
        located.texts.append(Text(0, 0, (member,), "user", False, _text_of(raw)))
    elif shape == "array" and kind == "openai_prompt":
        for index, item in enumerate(_array(raw)):
            # token ids cannot be read here
            if _kind_of(item) != "string":
                raise BodyError("unsupported_body")
            located.texts.append(Text(index, 0, (member, index), "user", False, _text_of(item)))
    else:
        raise BodyError("unsupported_body")
    return located


def _chat(root: Mapping[str, Raw], body_format: BodyFormat, data_roles: Collection[str]) -> Located:
    raw = root.get("messages")
    if raw is None or _kind_of(raw) != "array":
        raise BodyError("body_missing_messages")
    messages = [_object(item) for item in _array(raw)]
    located = Located("openai_chat")
    anthropic = body_format == "anthropic" or (body_format == "auto" and "system" in root)
    for index, message in enumerate(messages):
        role = _text_of(message["role"]) if "role" in message and _kind_of(message["role"]) == "string" else ""
        walk = _Walk(located, index, role)
        if "content" in message:
            walk.content(message["content"], ("messages", index, "content"), data=role in data_roles)
        anthropic |= body_format == "auto" and walk.saw_result
        if role in _SYSTEM_ROLES and located.system[0] == "insert":
            located.system = _place(message.get("content"), ("messages", index, "content"))
    if anthropic:
        located.kind = "anthropic"
        located.system = _place(root.get("system"), ("system",))
        if "system" in root:
            system: list[Text] = []
            _Walk(Located("anthropic", system), -1, "system").content(root["system"], ("system",), data=False)
            located.texts[:0] = system
    return located


def _place(raw: Raw | None, path: Path) -> tuple[Literal["string", "blocks", "set", "insert"], Path]:
    shape = "null" if raw is None else _kind_of(raw)
    if shape == "string":
        return "string", path
    if shape == "array":
        return "blocks", path
    if shape == "null":
        return "set", path
    raise BodyError("unsupported_body")


class _Walk:
    """Collects the texts of one message."""

    def __init__(self, located: Located, message: int, role: str) -> None:
        self._texts = located.texts
        self._message = message
        self._role = role
        self._part = 0
        self.saw_result = False

    def _add(self, raw: Raw, path: Path, *, data: bool) -> None:
        self._texts.append(Text(self._message, self._part, path, self._role, data, _text_of(raw)))
        self._part += 1

    def content(self, raw: Raw, path: Path, *, data: bool, depth: int = 0) -> None:
        """A string or an array of strings and blocks; null holds nothing."""
        shape = _kind_of(raw)
        if shape == "string":
            self._add(raw, path, data=data)
        elif shape == "array":
            for index, item in enumerate(_array(raw)):
                inner = (*path, index)
                if _kind_of(item) == "string":
                    self._add(item, inner, data=data)
                elif _kind_of(item) == "object":
                    self._block(_object(item, "body_parse_failed"), inner, data=data, depth=depth)
                else:
                    raise BodyError("unsupported_body")
        elif shape != "null":
            raise BodyError("unsupported_body")

    def _block(self, block: Mapping[str, Raw], path: Path, *, data: bool, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise BodyError("unsupported_body")
        name = block.get("type")
        kind = _text_of(name) if name is not None and _kind_of(name) == "string" else ""
        if kind in _DATA_BLOCKS or kind.endswith(_DATA_SUFFIX):
            self.saw_result |= kind != "document"
            self._data_block(block, path, depth)
        elif "text" in block and _kind_of(block["text"]) == "string" and (data or not kind or kind in _TEXT_BLOCKS):
            self._add(block["text"], (*path, "text"), data=data)
        elif data and "content" in block and _kind_of(block["content"]) in {"string", "array"}:
            self.content(block["content"], (*path, "content"), data=True, depth=depth + 1)

    def _data_block(self, block: Mapping[str, Raw], path: Path, depth: int) -> None:
        for member in ("title", "context"):
            if member in block and _kind_of(block[member]) == "string":
                self._add(block[member], (*path, member), data=True)
        content, inner = block.get("content"), (*path, "content")
        if content is not None and _kind_of(content) == "object":
            # the result of a server's own tool: an error, or one block
            self._block(_object(content, "body_parse_failed"), inner, data=True, depth=depth + 1)
        elif content is not None:
            self.content(content, inner, data=True, depth=depth + 1)
        source = block.get("source")
        if source is not None and _kind_of(source) == "object":
            self._source(_object(source, "body_parse_failed"), (*path, "source"), depth)

    def _source(self, source: Mapping[str, Raw], path: Path, depth: int) -> None:
        name = source.get("type")
        kind = _text_of(name) if name is not None and _kind_of(name) == "string" else ""
        if kind == "text" and "data" in source and _kind_of(source["data"]) == "string":
            self._add(source["data"], (*path, "data"), data=True)
        elif kind == "content" and "content" in source:
            self.content(source["content"], (*path, "content"), data=True, depth=depth + 1)


def replace(body: bytes, located: Located, texts: Mapping[Path, str], reminder: str | None) -> bytes:
    """The body with changed texts, and with the reminder at its place."""
    edits: dict[Path, Any] = dict(texts)
    kind, path = located.system
    original = {text.path: text.text for text in located.texts}
    if reminder is not None and kind == "string":
        before = edits.get(path, original.get(path, ""))
        edits[path] = f"{before}\n\n{reminder}" if before else reminder
    elif reminder is not None and kind == "set":
        edits[path] = reminder
    out = bytes(_edited(Raw(body), list(edits.items())))
    if reminder is None or kind not in {"insert", "blocks"}:
        return out
    if kind == "blocks":
        return bytes(_extended(Raw(out), path, {"type": "text", "text": reminder}))
    return bytes(_extended(Raw(out), ("messages",), {"role": "system", "content": reminder}, first=True))


def _edited(raw: Raw, edits: list[tuple[Path, Any]]) -> Raw:
    """The value with edits; each level on the way is decoded and encoded once."""
    if not edits:
        return raw
    if len(edits) == 1 and not edits[0][0]:
        return Raw(_encode(edits[0][1]))
    grouped: dict[str | int, list[tuple[Path, Any]]] = {}
    for path, value in edits:
        grouped.setdefault(path[0], []).append((path[1:], value))
    level: Any = _OBJECT.decode(raw) if isinstance(next(iter(grouped)), str) else _ARRAY.decode(raw)
    for head, inner in grouped.items():
        old = level.get(head, Raw(b"null")) if isinstance(level, dict) else level[head]
        level[head] = _edited(old, inner)
    return Raw(_encode(level))


def _extended(raw: Raw, path: Path, item: object, *, first: bool = False) -> Raw:
    """The value with an item added to the array at `path`."""
    if not path:
        items = _ARRAY.decode(raw)
        items.insert(0 if first else len(items), Raw(_encode(item)))
        return Raw(_encode(items))
    level: Any = _OBJECT.decode(raw) if isinstance(path[0], str) else _ARRAY.decode(raw)
    level[path[0]] = _extended(level[path[0]], path[1:], item, first=first)
    return Raw(_encode(level))
