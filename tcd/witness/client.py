"""Asking witnesses to cosign a checkpoint, with the standard library's HTTP client."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tcd.errors import Unavailable, VerificationError
from tcd.receipts.note import MAX_NOTE, parse_signatures
from tcd.receipts.tlog_policy import WitnessPolicy
from tcd.receipts.witnessing import AddCheckpoint, add_cosignatures

Prove = Callable[[int], Sequence[bytes]]
_OK: Final = 200
_CONFLICT: Final = 409


@dataclass(frozen=True, slots=True)
class Collected:
    """What witnesses answered.

    Attributes:
        note: the checkpoint with the lines of the witnesses that cosigned.
        cosigned: their names in the policy.
        failed: name to reason of the others.
        sizes: name to the size that the witness now knows.
    """

    note: bytes
    cosigned: tuple[str, ...]
    failed: dict[str, str]
    sizes: dict[str, int]


def _post(url: str, body: bytes, timeout: float) -> tuple[int, bytes]:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or parts.hostname is None:
        msg = f"a witness has an http or https address, not {url[:80]!r}"
        raise Unavailable(msg)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout)
    try:
        path = f"{parts.path.rstrip('/')}/add-checkpoint"
        connection.request("POST", path, body, {"Content-Type": "text/plain; charset=utf-8"})
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_NOTE + 1)
    except (OSError, http.client.HTTPException) as error:
        msg = f"the witness does not answer: {type(error).__name__}"
        raise Unavailable(msg) from error
    finally:
        connection.close()


def submit(url: str, note: bytes, *, size: int, old: int, prove: Prove, timeout: float = 5.0) -> bytes:
    """Ask one witness; when it knows another size than `old`, ask once more from there.

    Args:
        url: submission prefix, from the configuration only.
        note: the signed checkpoint.
        size: of the checkpoint.
        old: size that the witness is believed to know.
        prove: proof of consistency from a size to the checkpoint.
        timeout: seconds of each request.

    Returns:
        Signature lines as they were answered, not verified.

    Raises:
        tcd.errors.Unavailable: no answer, or a refusal; the reason is for people.
    """
    for _ in range(2):
        path = tuple(prove(old)) if old else ()
        status, answer = _post(url, AddCheckpoint(old, path, note).write(), timeout)
        if status == _OK:
            return answer
        known = answer.decode("ascii", "replace").strip()
        if status != _CONFLICT or not known.isdecimal() or not int(known) <= size or int(known) == old:
            break
        old = int(known)
    msg = f"the witness refused with {status}" + (f" and knows {known[:20]} leaves" if status == _CONFLICT else "")
    raise Unavailable(msg)


def collect(
    policy: WitnessPolicy,
    note: bytes,
    *,
    size: int,
    prove: Prove,
    sizes: dict[str, int] | None = None,
    timeout: float = 5.0,
) -> Collected:
    """Ask every witness of a policy that has an address, all at once; a witness that fails is named, not fatal.

    Args:
        policy: witnesses with their addresses and keys.
        note: the signed checkpoint.
        size: of the checkpoint.
        prove: proof of consistency from a size to the checkpoint.
        sizes: what each witness is believed to know (`Collected.sizes` of the last time).
        timeout: seconds of each request.
    """
    known = dict(sizes or {})

    def ask(name: str) -> bytes | str:
        try:
            answer = submit(
                policy.urls[name], note, size=size, old=min(known.get(name, 0), size), prove=prove, timeout=timeout
            )
            parse_signatures(answer.decode("utf-8", "replace"))
        except (Unavailable, VerificationError, ValueError) as error:
            return str(error)
        return answer

    names = list(policy.urls)
    if not names:
        return Collected(note, (), {}, known)
    with ThreadPoolExecutor(min(len(names), 16), "tcd-witness") as pool:
        answers = dict(zip(names, pool.map(ask, names), strict=True))
    cosigned: list[str] = []
    failed: dict[str, str] = {}
    for name, answer in answers.items():
        if isinstance(answer, str):
            failed[name] = answer
            continue
        try:
            note, made = add_cosignatures(note, answer, {name: policy.witnesses[name]})
        except VerificationError as error:
            failed[name] = error.detail
            continue
        if made:
            cosigned.append(name)
            known[name] = size
        else:
            failed[name] = "the witness answered with lines of unknown keys"
    return Collected(note, tuple(cosigned), failed, known)
