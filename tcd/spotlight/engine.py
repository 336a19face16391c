"""`rewrite`: a request body in, the body to forward and what was done to it out.

Parse, cut into zones, mark, remind, serialise; each once, on one list of segments that carry message and part ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tcd.spotlight import bodies, reminder
from tcd.spotlight.bodies import BodyError, Located
from tcd.spotlight.marking import Envelope, mark, new_envelope
from tcd.spotlight.nonces import Random
from tcd.spotlight.outcome import Outcome, Ranges
from tcd.spotlight.policy import Policy, Reason
from tcd.spotlight.spans import Span, place_header
from tcd.spotlight.zones import Cut, Segment, Text, cut


def never() -> bool:
    """No deadline."""
    return False


def rewrite(
    body: bytes,
    policy: Policy,
    *,
    key: bytes,
    random: Random,
    boundary: str | None = None,
    expired: Callable[[], bool] = never,
) -> Outcome:
    """Mark the untrusted text of a request.

    Args:
        body: JSON; what kind of request is `policy.body_format`.
        policy: what is done.
        key: the server's, 16 bytes or more; nonces are authentic under it.
        random: random bytes; the marker and the nonce come from here.
        boundary: value of the header `X-TCD-Data-Boundary`.
        expired: whether the deadline has passed; asked between texts.

    Returns:
        The outcome. A failure is in it, never raised: by policy the original is forwarded, or `refused` is set.
    """
    if policy.zones == "off":
        return Outcome(body)
    return _Pass(body, policy, key, random, expired).run(boundary)


@dataclass(slots=True)
class _Pass:
    """One rewriting."""

    body: bytes
    policy: Policy
    key: bytes
    random: Random
    expired: Callable[[], bool]
    failures: list[Reason] = field(default_factory=list)
    removed: dict[str, int] = field(default_factory=dict)

    def run(self, boundary: str | None) -> Outcome:
        try:
            return self._run(boundary)
        except BodyError as error:
            self.failures.append(error.reason)
            return self._kept()

    def _kept(self) -> Outcome:
        """The original, or a refusal where something failed and the policy says so."""
        refused = bool(self.failures) and self.policy.on_failure == "closed"
        shadow = self.policy.shadow
        return Outcome(self.body, refused=refused, shadow_mode=shadow, failures=tuple(self.failures))

    def _check(self) -> None:
        if self.expired():
            raise BodyError("deadline_exceeded")

    def _run(self, boundary: str | None) -> Outcome:
        if len(self.body) > self.policy.max_body:
            raise BodyError("body_too_large")
        self._check()
        located = bodies.locate(self.body, self.policy.body_format, data_roles=self.policy.data_roles)
        header = self._header(boundary, located)
        envelope = self._known(located)
        cuts: list[tuple[Text, Cut]] = []
        for text in located.texts:
            self._check()
            cuts.append((text, cut(text, self.policy, key=self.key, header=header, envelope=envelope)))
        if boundary is not None and not any(s.kind == "data" for _, part in cuts for s in part.segments):
            self.failures.append("no_zones_available")
        if self.failures and self.policy.on_failure == "closed":
            return self._kept()
        return self._marked(located, cuts, self._wanted(cuts), envelope)

    def _header(self, boundary: str | None, located: Located) -> dict[tuple[int, int], list[Span]]:
        if boundary is None or self.policy.zones == "heuristic":
            return {}
        places = {(text.message, text.part): text.text for text in located.texts}
        spans, failures = place_header(boundary, places)
        self.failures += failures
        return spans

    def _known(self, located: Located) -> Envelope | None:
        found = (reminder.find(text, self.key, first=located.is_prompt) for text in located.system_texts())
        return next((envelope for envelope in found if envelope is not None), None)

    def _wanted(self, cuts: list[tuple[Text, Cut]]) -> list[Segment]:
        """The Data segments that are to be marked now."""
        roles = self.policy.boundary_roles
        return [
            segment
            for text, part in cuts
            for segment in part.segments
            if segment.kind == "data"
            and not segment.marked
            # a block that is Data in any role is a tool's
            and (self.policy.marking != "none" or text.role in roles or (text.data and "tool" in roles))
        ]

    def _marked(
        self, located: Located, cuts: list[tuple[Text, Cut]], wanted: list[Segment], known: Envelope | None
    ) -> Outcome:
        collisions, envelope = 0, known
        if envelope is None and wanted:
            texts = [text.text for text in located.texts]
            envelope, collisions = new_envelope(self.policy, texts, self.key, self.random)
        sentence = None if envelope is None else reminder.sentence(envelope)
        if located.is_prompt:
            edits, delta = self._edits(cuts, wanted, envelope, sentence)
            added = sentence is not None and any(text.startswith(sentence) for text in edits.values())
            sentence = None
        else:
            edits, delta = self._edits(cuts, wanted, envelope, None)
            # a request that was marked before has it
            sentence = sentence if known is None else None
            added = sentence is not None
            delta += 0 if sentence is None else len(sentence.encode())
        body = self._serialised(located, edits, sentence)
        active = bool(edits) and not self.policy.shadow
        return Outcome(
            body=body if active else self.body,
            body_rewritten=active,
            zones_marked=len(wanted),
            byte_delta_total=delta,
            marker_collisions=collisions,
            zone_byte_ranges_per_message=_ranges(cuts),
            marker="" if envelope is None else envelope.marker,
            nonce="" if envelope is None else envelope.nonce,
            marking="none" if envelope is None else envelope.marking,
            reminder_added=active and added,
            shadow_mode=self.policy.shadow,
            failures=tuple(self.failures),
            zones=Counter((segment.kind, segment.origin) for _, part in cuts for segment in part.segments),
            removed=self.removed,
        )

    def _serialised(self, located: Located, edits: dict[bodies.Path, str], sentence: str | None) -> bytes:
        if not edits:
            return self.body
        self._check()
        body = bodies.replace(self.body, located, edits, sentence)
        if len(body) > self.policy.max_output:
            raise BodyError("body_reserialize_failed")
        return body

    def _edits(
        self, cuts: list[tuple[Text, Cut]], wanted: list[Segment], envelope: Envelope | None, prompt: str | None
    ) -> tuple[dict[bodies.Path, str], int]:
        """Changed texts by path, and the bytes that they grew by.

        A prompt has no system text: each one that has marked text begins with the reminder.
        """
        edits: dict[bodies.Path, str] = {}
        delta = 0
        marked = set(map(id, wanted))
        for text, part in cuts:
            self._check()
            here = any(id(s) in marked for s in part.segments)
            if not part.stripped and not here:
                continue
            new = "".join([self._mark(s, envelope) if id(s) in marked else s.text for s in part.segments])
            if here and prompt is not None and not text.text.startswith(prompt):
                new = f"{prompt}\n\n{new}"
            edits[text.path] = new
            delta += len(new.encode()) - len(text.text.encode())
        return edits, delta

    def _mark(self, segment: Segment, envelope: Envelope | None) -> str:
        assert envelope is not None  # noqa: S101 - for the type checker: made when anything is wanted
        text, removed = mark(segment.text, envelope)
        for name, count in removed.items():
            self.removed[name] = self.removed.get(name, 0) + count
        return text


def _ranges(cuts: list[tuple[Text, Cut]]) -> tuple[Ranges, ...]:
    found = []
    for text, part in cuts:
        spans = [(s.start, s.end) for s in part.segments if s.kind == "data"]
        if spans:
            found.append(Ranges(text.message, text.part, _bytes(text.text, spans)))
    return tuple(found)


def _bytes(text: str, spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Character spans in order as UTF-8 byte spans."""
    if text.isascii():
        return tuple(spans)
    out, seen, offset = [], 0, 0
    for start, end in spans:
        offset += len(text[seen:start].encode())
        first = offset
        offset += len(text[start:end].encode())
        seen = end
        out.append((first, offset))
    return tuple(out)
