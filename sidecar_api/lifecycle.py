"""How sessions begin and end."""

from __future__ import annotations

from sidecar_api import staging
from sidecar_api.canary import Watch
from sidecar_api.parts import Parts
from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.sessions import Session
from tcd.risk_av import CloseReason

_SWEEP_BATCH = 256


class Lifecycle:
    """Begins and ends the sessions of one table, and tells everybody who has a part in them."""

    def __init__(self, parts: Parts, watch: Watch) -> None:
        """Of the sessions of `parts`; `watch` hears of those of a canary."""
        self._sessions = parts.sessions
        self._subjects = parts.subjects
        self._budget = parts.budget
        self._judge = parts.judge
        self._observer = parts.observer
        self._unit = parts.settings.unit
        self._watch = watch

    def session(self, request: DiagnoseRequest, now: float) -> Session:
        """The live session of a request's subject, made when there is none.

        Raises:
            Unavailable: there is no room for another one.
        """
        subject = (request.tenant, request.user, request.session)
        session = self._sessions.get(subject, now)
        if session is not None:
            return session
        names = self._subjects
        stream = names.stream(subject, unit=self._unit)
        self._budget.open(stream, request.tenant, pool=names.tenant(request.tenant))
        while self._sessions.full:
            self.remove(self._sessions.victim(now), "abandoned")
        session = Session(
            subject=subject,
            digest=names.subject(*subject),
            stream=stream,
            user=names.user(request.tenant, request.user),
            names=staging.names(request),
            touched=now,
        )
        self._sessions.add(session)
        return session

    def end(self, session: Session, reason: CloseReason) -> None:
        """Close a session's hypothesis and its chain of receipts."""
        self._judge.close(session, reason)
        if session.trial is not None:
            self._watch.ended(session)
        if self._judge.signals is not None:
            self._judge.signals.ended(session, whole=reason in {"end", "idle"})
        self._observer.closed(reason=reason)

    def remove(self, session: Session, reason: CloseReason) -> None:
        """End a session and forget it."""
        self.end(session, reason)
        self._sessions.remove(session)

    def sweep(self, now: float) -> None:
        """End sessions that are idle for too long, some at a time."""
        for _ in range(_SWEEP_BATCH):
            session = self._sessions.expired(now)
            if session is None:
                break
            self.remove(session, "idle")

    def abandon(self) -> None:
        """End all of them: others go on, and what stays open would hold up their fold."""
        for session in self._sessions:
            self.remove(session, "abandoned")

    def disown(self) -> None:
        """This shim was declared lost: its hypotheses are over, and others closed their chains."""
        for session in self._sessions:
            session.disown("this server was declared lost")
