"""What every page has to keep, read from its HTML: landmarks, headings, labels, names, tables, no script, no style."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final
from urllib.parse import urlsplit

_VOID: Final = frozenset({"meta", "link", "input", "br", "hr", "img"})
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}


@dataclass
class Node:
    tag: str
    attrs: dict[str, str]
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    words: str = ""

    def every(self, *tags: str) -> list[Node]:
        found = [self] if self.tag in tags else []
        return [*found, *(node for child in self.children for node in child.every(*tags))]

    @property
    def text(self) -> str:
        return " ".join((self.words + " " + " ".join(child.text for child in self.children)).split())

    def inside(self, tag: str) -> bool:
        return self.parent is not None and (self.parent.tag == tag or self.parent.inside(tag))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.at = Node("", {})
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) != len(names):
            self.wrong.append(f"<{tag}> has an attribute twice")
        node = Node(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(node)
        if tag not in _VOID:
            self.at = node

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        if self.at.tag != tag:
            self.wrong.append(f"</{tag}> ends <{self.at.tag}>")
        elif self.at.parent is not None:
            self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.words += data


def read(html: str) -> tuple[Node, list[str]]:
    """The tree, and what is not well-formed."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    wrong = [*reader.wrong, *([f"<{reader.at.tag}> does not end"] if reader.at.tag else [])]
    return reader.root, wrong


def breaches(html: str) -> list[str]:
    """What a page does that it may not."""
    root, wrong = read(html)
    return [*wrong, *_frame(root), *_headings(root), *_controls(root), *_tables(root), *_safety(root)]


def _frame(root: Node) -> list[str]:
    out = []
    html, (title, *_) = root.every("html")[0], root.every("title")
    if html.attrs.get("lang") != "en" or not title.text or "<!doctype" in title.text:
        out.append("no language or no title")
    for tag, count in (("main", 1), ("header", 1), ("footer", 1), ("h1", 1)):
        if len(root.every(tag)) != count:
            out.append(f"{len(root.every(tag))} <{tag}>")
    body = root.every("body")[0]
    first = body.children[0]
    if first.tag != "a" or first.attrs.get("href") != "#main" or root.every("main")[0].attrs.get("id") != "main":
        out.append("the first thing is no link that skips to the content")
    ids = [node.attrs["id"] for node in _all(root) if "id" in node.attrs]
    out += [f"id {name} twice" for name in {i for i in ids if ids.count(i) > 1}]
    for node in _all(root):
        for name in ("aria-labelledby", "aria-describedby"):
            out += [f"{name} {at} leads nowhere" for at in node.attrs.get(name, "").split() if at not in ids]
    navs = [nav.attrs.get("aria-label", "") for nav in root.every("nav")]
    if "" in navs or len(set(navs)) != len(navs):
        out.append(f"navigations without names of their own: {navs}")
    return out


def _all(root: Node) -> list[Node]:
    return [root, *(node for child in root.children for node in _all(child))]


def _headings(root: Node) -> list[str]:
    levels = [_HEADINGS[node.tag] for node in root.every(*_HEADINGS)]
    out = [f"h{after} after h{before}" for before, after in itertools.pairwise(levels) if after > before + 1]
    return out + [f"<{node.tag}> is empty" for node in root.every(*_HEADINGS) if not node.text]


def _controls(root: Node) -> list[str]:
    labels = {label.attrs.get("for") for label in root.every("label") if label.text}
    fields = [node for node in root.every("input", "select", "textarea") if node.attrs.get("type") != "hidden"]
    out = [f"{node.tag} {node.attrs} has no label" for node in fields if node.attrs.get("id") not in labels]
    clicked = root.every("a", "button", "summary")
    out += [f"{node.tag} {node.attrs} has no name" for node in clicked if not (node.text or _named(node))]
    out += ["a link leads nowhere" for node in root.every("a") if not node.attrs.get("href")]
    shown = [node for node in root.every("svg") if node.attrs.get("aria-hidden") != "true"]
    out += ["a picture without words" for node in shown if node.attrs.get("role") != "img" or not _named(node)]
    out += [f"{node.tag} without a name" for node in root.every("meter", "progress") if not _named(node)]
    stops = [node for node in _all(root) if "tabindex" in node.attrs]
    out += ["an order of the tab key of its own" for node in stops if node.attrs["tabindex"] not in {"0", "-1"}]
    reached = [node for node in stops if node.attrs["tabindex"] == "0"]
    out += [
        f"{node.tag} takes the focus, nameless" for node in reached if not (node.attrs.get("role") and _named(node))
    ]
    return out


def _named(node: Node) -> bool:
    return bool(node.attrs.get("aria-label") or node.attrs.get("aria-labelledby"))


def _tables(root: Node) -> list[str]:
    out = []
    for table in root.every("table"):
        heads = table.every("th")
        if not heads or any(head.attrs.get("scope") not in {"col", "row"} for head in heads):
            out.append("a table whose headers have no scope")
        region = table.parent
        named = table.every("caption") or (
            region is not None and region.attrs.get("role") == "group" and _named(region)
        )
        if not named:
            out.append("a table without a name")
        widths = {sum(int(cell.attrs.get("colspan", "1")) for cell in row.children) for row in table.every("tr")}
        if len(widths) > 1:
            out.append(f"rows of {widths} cells")
    return out


def _safety(root: Node) -> list[str]:
    out = [
        f"<{node.tag}>" for node in root.every("script", "style", "iframe", "object", "embed", "base", "foreignobject")
    ]
    for node in _all(root):
        for name, value in node.attrs.items():
            if name.startswith("on") or name in {"style", "srcdoc", "formaction"}:
                out.append(f"{name} on <{node.tag}>")
            if name in {"href", "src", "action"}:
                parts = urlsplit(value)
                own = not parts.scheme and not parts.netloc and (value.startswith(("/ui/", "#")))
                if not own:
                    out.append(f"{name}={value} is not ours")
        if node.tag == "form" and node.attrs.get("method") not in {"get", "post"}:
            out.append("a form without a method")
        if node.tag == "form" and node.attrs.get("method") == "post" and "/logout" in node.attrs["action"]:
            fields = [one for one in node.every("input") if one.attrs.get("name") == "form"]
            if not (fields and fields[0].attrs.get("value")):
                out.append("a form of a session without its secret")
    return out
