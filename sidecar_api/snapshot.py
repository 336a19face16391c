"""Snapshots of a detector key's live sessions, to move them to another server bit for bit.

A snapshot holds windows, running maxima and hysteresis, and the key's asset ids; never budgets, e-processes or
receipt heads. Loading only adds: it never lowers `spent` and never clears an alarm.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from sidecar_api.schemas import MAX_SAFE, WHOLE_TEXT
from sidecar_api.sessions import Session
from sidecar_api.windows import Hold, SessionWindow, feature_ring
from tcd.contract import MAX_FEATURE_COLS, MAX_FEATURE_ROWS, MAX_FEATURE_VALUES, MAX_WINDOW
from tcd.errors import ValidationFailed
from tcd.receipts import canonical
from tcd.risk_av import hex64, unhex64

VERSION: Final = "tcd.state/1"
MAX_SESSIONS: Final = 512
MAX_BYTES: Final = 96 << 20
_encode: Final = msgspec.json.Encoder().encode
#: Not in any string: there its quotes are escaped.
_NO_SESSIONS: Final = b'"sessions":[]'
_HEX: Final = r"^(?!.*\n)[0-9a-f]{16}$"
F32 = NDArray[np.float32]
# not hot: the decoder itself may look for control characters here
Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=WHOLE_TEXT)]
Label = Annotated[str, Meta(max_length=128, pattern=WHOLE_TEXT)]
Hex64 = Annotated[str, Meta(pattern=_HEX)]
Count = Annotated[int, Meta(ge=0, le=MAX_SAFE)]
#: base64 of little-endian FP32 values; the length is that of the largest window.
Values = Annotated[str, Meta(max_length=4 * ((4 * MAX_FEATURE_VALUES + 2) // 3))]


class Key(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """The detector key of a snapshot, without the temperature bucket."""

    model_id: Name
    gpu_id: Label
    task: Label
    lang: Label

    @property
    def names(self) -> tuple[str, str, str, str]:
        """As sessions carry it."""
        return self.model_id, self.gpu_id, self.task, self.lang


class SessionState(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """One live session."""

    tenant: Name
    user: Name
    session: Name
    trace: Values
    entropy: Values
    spectrum: Values
    features: Values
    cols: Annotated[int, Meta(ge=0, le=MAX_FEATURE_COLS)]
    seen: Annotated[list[Count], Meta(min_length=3, max_length=3)]
    tokens: Count
    steps: Count
    last_step: Count | None
    sup: Annotated[list[Hex64], Meta(min_length=2, max_length=2)]
    p: Hex64
    triggered: bool
    beyond: bool
    hold_on: bool
    hold_calm: Count
    hold_route: Annotated[list[Hex64], Meta(min_length=4, max_length=4)] | None


class Snapshot(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """All live sessions of a key, or a page of them; `digest` covers everything else."""

    v: Annotated[str, Meta(max_length=32, pattern=WHOLE_TEXT)]
    key: Key
    manifest: Annotated[str, Meta(max_length=80, pattern=WHOLE_TEXT)]
    assets: Annotated[list[Annotated[str, Meta(max_length=20, pattern=WHOLE_TEXT)]], Meta(min_length=3, max_length=3)]
    sessions: Annotated[list[SessionState], Meta(max_length=MAX_SESSIONS)]
    digest: Annotated[str, Meta(max_length=80)]
    more: bool = False


def _pack(values: F32) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _unpack(text: str, limit: int, pointer: str) -> F32:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b"?"
    values = np.frombuffer(raw, "<f4").astype(np.float32) if len(raw) % 4 == 0 else None
    if values is None or values.size > limit or not np.isfinite(values).all():
        msg = f"not base64 of at most {limit} finite FP32 values"
        raise ValidationFailed(msg, pointer=pointer)
    return values


def digest_of(snapshot: Snapshot) -> str:
    """Digest of a snapshot without its `digest`."""
    value: dict[str, Any] = msgspec.to_builtins(snapshot)
    del value["digest"]
    for session in value["sessions"]:
        # tcd-jcs-1 has no null: an absent member
        for name in ("last_step", "hold_route"):
            if session[name] is None:
                del session[name]
    # the canonical profile is strict about sizes that receipts need: hash session by session
    sessions = value.pop("sessions")
    state = hashlib.sha256(b"tcd/state/v1\0" + canonical.encode(value))
    for session in sessions:
        state.update(hashlib.sha256(canonical.encode(session)).digest())
    return "sha256:" + state.hexdigest()


def dump_session(session: Session) -> SessionState:
    """A session that is not in flight."""
    window, hold = session.window, session.hold
    features = window.feature_view
    return SessionState(
        tenant=session.subject[0],
        user=session.subject[1],
        session=session.subject[2],
        trace=_pack(window.trace.view),
        entropy=_pack(window.entropy.view),
        spectrum=_pack(window.spectrum),
        features=_pack(features),
        cols=features.shape[1],
        seen=list(window.seen),
        tokens=window.tokens,
        steps=session.steps,
        last_step=session.last_step,
        sup=[hex64(value) for value in session.sup],
        p=hex64(session.p),
        triggered=session.triggered,
        beyond=session.beyond,
        hold_on=hold.on,
        hold_calm=hold.calm,
        hold_route=[hex64(value) for value in hold.route] if hold.route is not None else None,
    )


def snapshot_of(
    key: Key, sessions: list[SessionState], *, manifest: str, assets: tuple[int, int, int], more: bool
) -> Snapshot:
    """A snapshot of sessions; a hundred of them take a while: in a thread."""
    bare = Snapshot(
        v=VERSION,
        key=key,
        manifest=manifest,
        assets=[str(asset) for asset in assets],
        sessions=sessions,
        digest="",
        more=more,
    )
    return msgspec.structs.replace(bare, digest=digest_of(bare))


def written(snapshot: Snapshot) -> bytes:
    """A snapshot as JSON, session by session, so that other threads get their turns in between."""
    before, after = _encode(msgspec.structs.replace(snapshot, sessions=[])).split(_NO_SESSIONS)
    return b"".join((before, b'"sessions":[', b",".join(map(_encode, snapshot.sessions)), b"]", after))


def check(snapshot: Snapshot) -> None:
    """Refuse another version, or one that was altered.

    Raises:
        ValidationFailed: it is.
    """
    if snapshot.v != VERSION:
        msg = f"not {VERSION}"
        raise ValidationFailed(msg, pointer="/detector/v")
    if digest_of(snapshot) != snapshot.digest:
        msg = "not the digest of the rest"
        raise ValidationFailed(msg, pointer="/detector/digest")


def _real(text: str, pointer: str) -> float:
    try:
        return unhex64(text)
    except ValueError as error:
        raise ValidationFailed(str(error), pointer=pointer) from None


def read_session(state: SessionState, index: int) -> Callable[[Session], None]:
    """Check the state of one session; what brings it into a live session that is not in flight.

    Args:
        state: of the snapshot.
        index: in the snapshot, for pointers.

    Raises:
        ValidationFailed: the state cannot be one.
    """
    where = f"/detector/sessions/{index}"
    window = _window(state, where)
    sup = (_real(state.sup[0], f"{where}/sup/0"), _real(state.sup[1], f"{where}/sup/1"))
    p = _real(state.p, f"{where}/p")
    if not 0.0 <= p <= 1.0:
        msg = "not a p-value"
        raise ValidationFailed(msg, pointer=f"{where}/p")
    route = None
    if state.hold_route is not None:
        a, b, c, d = (_real(text, f"{where}/hold_route") for text in state.hold_route)
        route = (a, b, c, d)

    def bring(session: Session) -> None:
        if state.steps >= session.steps:
            session.window = window
            session.steps = state.steps
            session.last_step = max(
                (step for step in (state.last_step, session.last_step) if step is not None), default=None
            )
        # only ever towards more alarm
        session.sup = (max(sup[0], session.sup[0]), max(sup[1], session.sup[1]))
        session.p = min(p, session.p)
        session.triggered = session.triggered or state.triggered
        session.beyond = session.beyond or state.beyond
        if state.hold_on and not session.hold.on:
            session.hold = Hold(on=True, calm=state.hold_calm, route=route)
        if "session loaded from a snapshot" not in session.notes:
            session.notes = (*session.notes, "session loaded from a snapshot")

    return bring


def _window(state: SessionState, where: str) -> SessionWindow:
    window = SessionWindow()
    trace = _unpack(state.trace, MAX_WINDOW, f"{where}/trace")
    entropy = _unpack(state.entropy, MAX_WINDOW, f"{where}/entropy")
    features = _unpack(state.features, MAX_FEATURE_VALUES, f"{where}/features")
    cols = state.cols
    fits = features.size == 0 if not cols else features.size % cols == 0 and features.size // cols <= MAX_FEATURE_ROWS
    if not fits:
        msg = f"not rows of {cols} values"
        raise ValidationFailed(msg, pointer=f"{where}/features")
    for ring, values in ((window.trace, trace), (window.entropy, entropy)):
        if values.size:
            ring.stage(values)
            ring.commit(values)
    if features.size:
        rows = features.reshape(-1, cols)
        window.features = feature_ring(cols)
        window.features.stage(rows)
        window.features.commit(rows)
    window.spectrum = _unpack(state.spectrum, MAX_WINDOW, f"{where}/spectrum")
    window.seen = (state.seen[0], state.seen[1], state.seen[2])
    window.tokens = state.tokens
    return window
