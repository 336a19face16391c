"""C2SP tlog-policy: which logs and witnesses are trusted, and how many witnesses a checkpoint needs.

A file without control characters but tab and line feed, of lines `log`, `witness`, `group` and `quorum`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from tcd.receipts.cosign import Cosigner, MlDsaVerifier, verifier_of
from tcd.receipts.errors import NoQuorum, PolicyRefused
from tcd.receipts.note import NoteVerifier

MAX_POLICY: Final = 262_144
#: Logs, witnesses and groups, each.
MAX_LINES: Final = 64
_NOT_ALLOWED: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,3}")
_BLANK: Final = re.compile(r"[ \t]+")
NONE: Final = "none"

WitnessKey = Cosigner | MlDsaVerifier
LogKey = NoteVerifier | MlDsaVerifier


@dataclass(frozen=True, slots=True)
class Group:
    """`threshold` of `members`, each the name of a witness or of a group."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WitnessPolicy:
    """A policy.

    Attributes:
        logs: keys of the logs; a key's name is the log's origin.
        witnesses: name in the policy to key.
        groups: name to group, each after its members.
        quorum: name of a witness or group, or `none`.
        urls: name of a witness to the address of its `add-checkpoint`, where one is given.
    """

    logs: tuple[LogKey, ...]
    witnesses: Mapping[str, WitnessKey]
    groups: Mapping[str, Group]
    quorum: str
    urls: Mapping[str, str]

    def satisfied(self, cosigned: Collection[str]) -> bool:
        """Whether the witnesses of these names in the policy are a quorum."""
        if self.quorum == NONE:
            return True
        good = set(self.witnesses) & set(cosigned)
        for name, group in self.groups.items():
            if sum(member in good for member in group.members) >= group.threshold:
                good.add(name)
        return self.quorum in good

    def check(self, cosigned: Collection[str]) -> None:
        """Refuse what is no quorum.

        Raises:
            NoQuorum: too few.
        """
        if not self.satisfied(cosigned):
            msg = f"{len(cosigned)} of the witnesses cosigned, which is no quorum {self.quorum}"
            raise NoQuorum(msg)

    def write(self) -> str:
        """The policy as text, without comments; policies of one meaning and order have one text."""
        lines = [f"log {key.vkey()}" for key in self.logs]
        for name, key in self.witnesses.items():
            lines.append(f"witness {name} {key.vkey()} {self.urls.get(name, '')}".rstrip())
        lines += [f"group {name} {group.threshold} {' '.join(group.members)}" for name, group in self.groups.items()]
        return "".join(f"{line}\n" for line in (*lines, f"quorum {self.quorum}"))


class _Reader:
    """What the lines so far defined."""

    def __init__(self) -> None:
        self.logs: list[LogKey] = []
        self.witnesses: dict[str, WitnessKey] = {}
        self.groups: dict[str, Group] = {}
        self.urls: dict[str, str] = {}
        self.used: set[str] = set()
        self.quorum: str | None = None

    def _new(self, name: str) -> str:
        if name == NONE or name in self.witnesses or name in self.groups:
            msg = f"the name {name[:40]!r} is taken"
            raise PolicyRefused(msg)
        return name

    def _known(self, name: str) -> str:
        if name not in self.witnesses and name not in self.groups:
            msg = f"{name[:40]!r} is not defined before its use"
            raise PolicyRefused(msg)
        return name

    def log(self, vkey: str, _url: str = "") -> None:
        key = verifier_of(vkey)
        if isinstance(key, Cosigner) or any(key.public == other.public for other in self.logs):
            msg = "a log has its own key of type 0x01 or 0x06"
            raise PolicyRefused(msg)
        self.logs.append(key)

    def witness(self, name: str, vkey: str, url: str = "") -> None:
        key = verifier_of(vkey)
        if isinstance(key, NoteVerifier) or any(key.public == other.public for other in self.witnesses.values()):
            msg = "a witness has its own key of type 0x04 or 0x06"
            raise PolicyRefused(msg)
        self.witnesses[self._new(name)] = key
        if url:
            self.urls[name] = url

    def group(self, name: str, threshold: str, *members: str) -> None:
        for member in members:
            self._known(member)
        if len(set(members)) != len(members) or self.used & set(members):
            msg = "a name is a member of one group, once"
            raise PolicyRefused(msg)
        count = {"all": len(members), "any": 1}.get(threshold, 0)
        if _COUNT.fullmatch(threshold):
            count = int(threshold)
        if not 1 <= count <= len(members):
            msg = f"{threshold[:10]!r} of {len(members)} members"
            raise PolicyRefused(msg)
        self.groups[self._new(name)] = Group(count, members)
        self.used |= set(members)

    def set_quorum(self, name: str) -> None:
        if self.quorum is not None:
            msg = "two quorum lines"
            raise PolicyRefused(msg)
        self.quorum = name if name == NONE else self._known(name)

    def line(self, verb: str, *items: str) -> None:
        verbs: dict[str, Callable[..., None]] = {
            "log": self.log,
            "witness": self.witness,
            "group": self.group,
            "quorum": self.set_quorum,
        }
        shapes = {"log": (1, 2), "witness": (2, 3), "group": (3, MAX_LINES + 2), "quorum": (1, 1)}
        low, high = shapes.get(verb, (1, 0))
        if not low <= len(items) <= high:
            msg = f"a line {verb[:20]!r} with {len(items)} items"
            raise PolicyRefused(msg)
        verbs[verb](*items)


def parse_policy(raw: bytes) -> WitnessPolicy:
    """The policy of a file.

    Raises:
        BadKey, MalformedNote: a verifier key.
        PolicyRefused: anything else that is no policy.
    """
    if len(raw) > MAX_POLICY or _NOT_ALLOWED.search(raw) or (raw and not raw.endswith(b"\n")):
        msg = f"a policy has lines that end in a line feed, no control characters and at most {MAX_POLICY} bytes"
        raise PolicyRefused(msg)
    reader = _Reader()
    for line in raw.decode("utf-8", "surrogateescape").split("\n"):
        items = [item for item in _BLANK.split(line) if item]
        if items and not items[0].startswith("#"):
            reader.line(*items)
    if reader.quorum is None:
        msg = "no quorum line"
        raise PolicyRefused(msg)
    if max(len(reader.logs), len(reader.witnesses), len(reader.groups)) > MAX_LINES:
        msg = f"more than {MAX_LINES} logs, witnesses or groups"
        raise PolicyRefused(msg)
    return WitnessPolicy(tuple(reader.logs), reader.witnesses, reader.groups, reader.quorum, reader.urls)
