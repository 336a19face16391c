"""Names of spans and attributes, in one place: `tcd.*`, and OpenTelemetry's GenAI names where they fit."""

from __future__ import annotations

from typing import Final

SERVICE: Final = "tcd"
SPAN: Final = "tcd.diagnose"
#: Prefix of the spans of a decision's stages.
STAGE: Final = "tcd.stage."
#: The stages of a decision in their order.
STAGES: Final = ("decode", "queue", "score", "settle", "commit")

REQUEST_ID: Final = "tcd.request_id"
SUBJECT: Final = "tcd.subject"
SURFACE: Final = "tcd.surface"
ACTION: Final = "tcd.action"
ENFORCED: Final = "tcd.enforced"
CAUSE: Final = "tcd.cause"
DEGRADED: Final = "tcd.degraded"
TRIGGER: Final = "tcd.trigger"
P_VALUE: Final = "tcd.p_value"
STEP: Final = "tcd.step"
RECEIPT: Final = "tcd.receipt"

# OpenTelemetry semantic conventions for generative AI, evaluation results
EVALUATION_EVENT: Final = "gen_ai.evaluation.result"
EVALUATION_NAME: Final = "gen_ai.evaluation.name"
EVALUATION_SCORE: Final = "gen_ai.evaluation.score.value"
EVALUATION_LABEL: Final = "gen_ai.evaluation.score.label"
EVALUATION: Final = "tcd"
