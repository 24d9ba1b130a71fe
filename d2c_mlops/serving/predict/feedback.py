"""Feedback on predictions: followed, overridden with a reason, ignored; and the outcome."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from d2c_mlops.models.core.contract import Moment, Personal
from d2c_mlops.serving.http.api_keys import PROBE
from d2c_mlops.serving.http.idempotency import request_identity
from d2c_mlops.serving.http.messages import HttpRefused, problem_answer
from d2c_mlops.serving.predict.prediction_ids import PredictionId
from d2c_mlops.serving.predict.privacy import keyed_pseudonym

if TYPE_CHECKING:
    from d2c_mlops.serving.http.messages import Request
    from d2c_mlops.serving.predict.predictor import ServedModel

LARGEST = 65_536  # bytes of a body: twice the longest reason and value with every character escaped
Text = Annotated[str, Field(max_length=2000)]
Value = float | bool | Text


class _Subject(BaseModel):
    """The prediction of a feedback, by id or by key."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    prediction_id: Annotated[str, Field(max_length=80, description="The prediction's id, from the answer")] | None = (
        None
    )
    key: Annotated[str, Field(max_length=200, description="The key of the prediction, as text")] | None = None
    at: Annotated[Moment, Field(description="When it happened; now when absent")] | None = None

    @model_validator(mode="after")
    def _has_subject(self) -> _Subject:
        if self.prediction_id is None and self.key is None:
            raise ValueError("give prediction_id or key")
        return self


class _Followed(_Subject):
    action: Literal["followed", "ignored"]
    reason: Annotated[Text, Field(description="Why")] | None = None


class _Overridden(_Subject):
    action: Literal["overridden"]
    reason: Annotated[str, Field(min_length=1, max_length=2000, description="Why")]
    value: Annotated[Value, Field(description="The action taken instead")] | None = None


class _Outcome(_Subject):
    action: Literal["outcome"]
    value: Annotated[Value, Field(description="The actual outcome")]


class Feedback(RootModel[Annotated[_Followed | _Overridden | _Outcome, Field(discriminator="action")]]):
    """Feedback on a prediction, or its outcome."""


@dataclass(frozen=True)
class FeedbackMessage:
    """Parsed feedback: its log entry and its prediction."""

    id: str
    line: bytes
    action: str
    prediction_id: str | None
    key: str | None
    given: PredictionId | None  # decoded prediction id; None without one
    content: int  # the same for the same content

    @property
    def verified(self) -> bool:
        """Whether its prediction id has a valid signature."""
        return self.given is None or self.given.verified


def feedback_id(model: str, prediction_id: str, action: str) -> str:
    """Return the id of feedback by prediction and kind; the same in every replica, so that it counts once."""
    return request_identity("feedback", model, prediction_id, action)


def parse_feedback(body: bytes, id: str, served_model: ServedModel, request: Request, now: datetime) -> FeedbackMessage:
    """Parse a body; `id` is used for feedback by key. Raises ValidationError, and HttpRefused for an unknown prediction."""
    feedback: Any = Feedback.model_validate_json(body, strict=True).root
    key, personal = feedback.key, key_protection(served_model)
    decoded_id = None
    if feedback.prediction_id is not None:
        decoded_id = served_model.signer.decode(feedback.prediction_id)
        if decoded_id is None:
            why = f"no service of {served_model.name} has made a prediction with this id: send the id from the answer"
            raise HttpRefused(problem_answer(422, "Prediction not found", why))
        id = feedback_id(served_model.name, feedback.prediction_id, feedback.action)
    if key is not None and personal:
        key = keyed_pseudonym(key, served_model.secret) if served_model.secret and personal != "drop" else None
        if key is None and feedback.prediction_id is None:
            why = "the keys of this model are personal data and are not logged: send prediction_id"
            raise HttpRefused(problem_answer(422, "Feedback by key is not supported", why))
    reason, value = getattr(feedback, "reason", None), getattr(feedback, "value", None)
    version = served_model.version_of_feedback(decoded_id, feedback.key)
    values = {"kind": "feedback", "id": id, "model": served_model.name, "version": version, "at": feedback.at or now,
              "prediction_id": feedback.prediction_id, "key": key, "action": feedback.action,
              "reason": reason, "value": value, "caller": request.caller, "request_id": request.id}  # fmt: skip
    if request.probe:
        values["origin"] = PROBE
    content = hash((feedback.at, reason, repr(value)))
    return FeedbackMessage(
        id, orjson.dumps(values), feedback.action, feedback.prediction_id, feedback.key, decoded_id, content
    )


def feedback_schema() -> dict[str, Any]:
    """Return the JSON Schema of a body (OpenAPI 3.0 dialect)."""
    text: dict[str, Any] = {"type": "string", "maxLength": 2000}
    number, other_types = {"type": "number"}, [{"type": "boolean"}, text]
    absent: dict[str, Any] = {"type": "string", "nullable": True}  # null means absent
    about = {
        "prediction_id": {**absent, "maxLength": 80, "description": "The prediction's id, from the answer"},
        "key": {**absent, "maxLength": 200, "description": "The key of the prediction, as text"},
        "at": {**absent, "format": "date-time", "description": "When it happened; now when absent"},
    }
    id_or_key = [{"required": [name], "properties": {name: {"type": "string"}}} for name in ("prediction_id", "key")]

    def variant(actions: list[str], extra_properties: dict[str, Any], *required: str) -> dict[str, Any]:
        action = {"type": "string", "enum": actions}
        properties = {"action": action, **about, **extra_properties}
        return {"type": "object", "properties": properties, "required": ["action", *required], "anyOf": id_or_key,
                "additionalProperties": False}  # fmt: skip

    why = {**text, "description": "Why"}
    return {
        "oneOf": [
            variant(["followed", "ignored"], {"reason": {**why, "nullable": True}}),
            variant(
                ["overridden"],
                {
                    "reason": {**why, "minLength": 1},
                    "value": {
                        "oneOf": [{**number, "nullable": True}, *other_types],
                        "description": "The action taken instead",
                    },
                },
                "reason",
            ),
            variant(
                ["outcome"], {"value": {"oneOf": [number, *other_types], "description": "The actual outcome"}}, "value"
            ),
        ]
    }


def key_protection(served_model: ServedModel) -> Personal:
    """Return how the key is kept out of the log (hash or drop), by inputs or outputs of the contract."""
    fields = (*served_model.model.contract.input_fields, *served_model.model.contract.output_fields)
    personal = {field.personal for field in fields if field.name == served_model.key}
    return "drop" if "drop" in personal else any(personal)
