"""Recorded decisions as lines of JSON: the decision log of a shim, or the bodies of its receipts."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, cast

from tcd.errors import TcdError
from tcd.trust.diff import Logged
from tcd.trust.engine import ACTIONS, FLAGS, RISKS, Action, Risk
from tcd.trust.policies import SUBJECT

VERSION: Final = "tcd.decision-log/1"


class RecordError(TcdError):
    """A line is no recorded decision."""

    code = "bad_record"


def record(entry: Logged, **labels: str) -> dict[str, Any]:
    """A line of the decision log; `labels` are for people and not read back."""
    return {
        "v": VERSION,
        "subject": dict(entry.subject),
        "context": dict(entry.context or {}),
        "risk": asdict(entry.risk),
        "action": entry.action,
        "enforced": entry.enforced,
        "policy_ref": entry.ref,
        **labels,
    }


def logged(value: Any) -> Logged | None:
    """A recorded decision from a line of a decision log or a receipt's body; None for records that decide nothing.

    A receipt has neither the names of user and session nor the context.

    Raises:
        RecordError: it is neither; says why.
    """
    if not isinstance(value, dict):
        msg = "not an object"
        raise RecordError(msg)
    try:
        if value.get("v") == VERSION:
            return _line(value)
        if value.get("v") == "tcd.receipt/2":
            return _body(value) if value["typ"] == "decision" else None
    except (KeyError, TypeError, ValueError, struct.error) as error:
        msg = f"{type(error).__name__}: {error}"
        raise RecordError(msg) from None
    msg = f"neither {VERSION} nor a receipt"
    raise RecordError(msg)


def _line(value: Mapping[str, Any]) -> Logged:
    subject, risk = value["subject"], value["risk"]
    if set(risk) != set(RISKS) or not set(subject) <= set(SUBJECT):
        msg = "members of subject or risk"
        raise ValueError(msg)
    for name, level in risk.items():
        if type(level) is not bool if name in FLAGS else (type(level) is bool or not isinstance(level, int | float)):
            msg = f"risk.{name}"
            raise ValueError(msg)
    return Logged(
        subject={name: str(member) for name, member in subject.items()},
        risk=Risk(**risk),
        context=value["context"],
        action=_action(value["action"]),
        enforced=_action(value["enforced"]),
        ref=str(value["policy_ref"]),
    )


def _body(body: Mapping[str, Any]) -> Logged:
    decision, av, model, seen = body["decision"], body["av"], body["model"], body.get("risk")
    subject = {
        "tenant": body["tenant"],
        "model_id": model["id"],
        "gpu_id": model["gpu"],
        "task": model["task"],
        "lang": model["lang"],
    }
    if seen is None:
        return Logged(subject, Risk(), missing="the settings decided, and what they saw is not in the receipt")
    return Logged(
        subject=subject,
        risk=Risk(
            score=_real(decision["score"]),
            tier=seen["tier"],
            alarm=seen["alarm"],
            trigger=decision["trigger"],
            floor=seen["floor"],
            exhausted=av["exhausted"],
            spent=_real(seen["spent"]),
            failed=seen["failed"],
            distrust=_real(seen["distrust"]),
            pressure=_real(seen["pressure"]),
        ),
        action=_action(decision["action"]),
        enforced=_action(decision["enforced"]),
        ref=body["policy"],
    )


def _action(value: Any) -> Action:
    if value not in ACTIONS:
        msg = f"{str(value)[:40]} is no action"
        raise ValueError(msg)
    return cast("Action", value)


def _real(text: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(text))[0])
