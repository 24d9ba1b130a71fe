"""OpenAPI 3.0 document of the decision service."""

from __future__ import annotations

from dataclasses import fields
from importlib.metadata import version
from typing import Any

from d2c_mlops.decisions.decision_rows import STATUSES, Decision
from d2c_mlops.decisions.verdicts import VERDICTS
from d2c_mlops.serving.predict.openapi import SECURITY, closed_object, error_responses, problem_schema

ERRORS = {
    "400": "Malformed body or query",
    "401": "No API key, or one that is wrong, expired or revoked",
    "403": "The API key lacks the scope or the model, its holder is not a decider, or the link was tampered with",
    "404": "Decision not found",
    "408": "Request timed out",
    "409": "The decision is closed, or its deadline has passed",
    "410": "The link was already used, or has expired",
    "413": "Body too large",
    "415": "Content-Encoding not supported",
    "422": "The contract or the policy does not allow the value",
    "503": "Ledger unavailable; retry later",
}
LISTED, MOST = 100, 1000  # decisions in a list: unless told, and at the most
LONGEST = 2000  # characters of a reason
TEXT, MOMENT = {"type": "string"}, {"type": "string", "format": "date-time"}
KINDS: dict[str, dict[str, Any]] = {
    "str": TEXT,
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "datetime": MOMENT,
    "Any": {"description": "A value of the field, as the contract defines it", "nullable": True},
    "dict[str, Any]": {"type": "object"},
}
DESCRIPTIONS = {
    "proposed": "The value that the model proposed",
    "edited": "The value that an approver entered instead",
    "value": "The value that is applied: the edited one, else the proposed one",
    "verdict": "What was decided, null while it is pending",
    "about": "Subject of the decision: the key, and the date where a key has several",
    "deadline_at": "Deadline for approvers",
    "policy": "The policy when the decision was proposed",
    "dry_run": "Whether the decision is only recorded and never applied",
}
NOW = "The current state of the decision"
ID: dict[str, Any] = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{24}$"},
}
ACTION: dict[str, Any] = {
    "name": "action",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "enum": [*VERDICTS]},
}
STATUS = f"(?:{'|'.join(STATUSES)})"


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI 3.0 document of `d2c decisions serve`."""
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "decisions",
            "version": version("d2c_mlops"),
            "description": "Approve, reject or edit actions proposed by predictions.",
        },
        "security": [{"bearer": []}, {"header": []}],
        "paths": {
            "/decisions": {"get": _list_operation()},
            "/decisions/{id}": {"get": _show_operation()},
            **{f"/decisions/{{id}}/{action}": {"post": _decide_operation(action)} for action in VERDICTS},
            "/d/{id}/{action}": {"get": _link_page_operation(), "post": _link_decision_operation()},
        },
        "components": {
            "securitySchemes": SECURITY,
            "schemas": {
                "Decision": _decision_schema(),
                "Found": _decision_schema(_prediction_schema()),
                "Whole": _decision_schema(
                    {**_prediction_schema(), "events": {"type": "array", "items": _event_schema()}}
                ),
                "Decisions": closed_object(
                    {"decisions": {"type": "array", "items": {"$ref": "#/components/schemas/Found"}}}
                ),
                "Verdict": {**closed_object({"reason": _reason_schema(0)}), "required": []},
                "Edit": _edit_schema(),
                "Problem": problem_schema(),
            },
        },
    }


def _decision_schema(extra_members: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the schema of a decision as `Decision.to_dict` gives it, with additional members."""
    hidden = ("subject", "not_before", "claimed_until")
    members = {
        member.name: _member_schema(member.name, str(member.type))
        for member in fields(Decision)
        if member.name not in hidden
    }
    members["status"] = {"type": "string", "enum": [*STATUSES]}
    derived = {
        "about": {"type": "object", "description": DESCRIPTIONS["about"]},
        "value": _member_schema("value", "Any"),
    }
    return closed_object({**members, **derived, **(extra_members or {})})


def _member_schema(name: str, kind: str) -> dict[str, Any]:
    schema = {**KINDS[kind.removesuffix(" | None")]}
    if kind.endswith(" | None"):
        schema["nullable"] = True
    return schema | ({"description": DESCRIPTIONS[name]} if name in DESCRIPTIONS else {})


def _prediction_schema() -> dict[str, Any]:
    reasons = {
        "type": "array",
        "items": TEXT,
        "nullable": True,
        "description": "Reasons of the model, the weightiest first",
    }
    return {"inputs": {"type": "object"}, "outputs": {"type": "object"}, "reasons": reasons, "shown": _texts_schema()}


def _texts_schema() -> dict[str, Any]:
    """Return the schema of a decision as text for people."""
    texts = {name: TEXT for name in ("about", "label", "unit", "proposed", "typed", "reason")}
    pairs = {"type": "array", "items": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2}}
    lists = {"known": pairs, "reasons": {"type": "array", "items": TEXT}}
    return closed_object({**texts, **lists}) | {
        "description": "The decision as text, rounded by the units of the contract"
    }


def _event_schema() -> dict[str, Any]:
    names = ("by", "how", "reason")
    return closed_object({"at": MOMENT, "status": TEXT, **{name: {**TEXT, "nullable": True} for name in names}})


def _reason_schema(least: int) -> dict[str, Any]:
    return {"type": "string", "minLength": least, "maxLength": LONGEST, "description": "Reason, for the model's owner"}


def _edit_schema() -> dict[str, Any]:
    value = {"description": "The value to apply instead of the proposed one"}
    return closed_object({"value": value, "reason": _reason_schema(1)})


def _answer_schema(schema: str, description: str, extra_content: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}, **(extra_content or {})}
    return {"description": description, "content": content}


def _list_operation() -> dict[str, Any]:
    query = {
        "model": ("Only decisions about this model", TEXT),
        "status": (
            f"One or more of {', '.join(STATUSES)}, separated by spaces",
            {**TEXT, "pattern": f"^ *(?:{STATUS} *(?: |$))*$"},
        ),
        "limit": ("Maximum number of decisions", {"type": "integer", "minimum": 0, "maximum": MOST, "default": LISTED}),
    }
    parameters = [
        {"name": name, "in": "query", "description": text, "schema": kind} for name, (text, kind) in query.items()
    ]
    return {
        "operationId": "list",
        "summary": "Decisions about the models of the API key, newest prediction first",
        "parameters": parameters,
        "responses": {"200": _answer_schema("Decisions", "Decisions with the predictions that they are about"),
                      **error_responses("400", "401", "403", "503", texts=ERRORS)},
    }  # fmt: skip


def _show_operation() -> dict[str, Any]:
    return {
        "operationId": "show",
        "summary": "A decision, its prediction and its events",
        "parameters": [ID],
        "responses": {
            "200": _answer_schema("Whole", "The decision with its prediction and events"),
            **error_responses("401", "403", "404", "503", texts=ERRORS),
        },
    }


def _decide_operation(action: str) -> dict[str, Any]:
    headers = {"Idempotency-Replayed": {"description": "true when the same decision was made before", "schema": TEXT}}
    edits = action == "edit"
    schema = {"$ref": f"#/components/schemas/{'Edit' if edits else 'Verdict'}"}
    return {
        "operationId": action,
        "summary": f"{action.capitalize()} a decision; a repeated request changes nothing",
        "parameters": [ID],
        "requestBody": {"required": edits, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": {**_answer_schema("Decision", NOW), "headers": headers},
            **error_responses(*sorted(set(ERRORS) - {"410"}), texts=ERRORS),
        },
    }


def _link_page_operation() -> dict[str, Any]:
    return {
        "operationId": "look",
        "summary": "The confirmation page of a signed link; opening it decides nothing",
        "security": [],
        "parameters": [ID, ACTION, *_link_parameters()],
        "responses": {"200": {"description": "A page", "content": {"text/html": {"schema": TEXT}}},
                      **error_responses("403", "404", "409", "410", "503", texts=ERRORS)},
    }  # fmt: skip


def _link_decision_operation() -> dict[str, Any]:
    form = {"type": "object", "properties": {"reason": TEXT, "value": TEXT}}
    return {
        "operationId": "click",
        "summary": "Decide by a signed link, which is valid once",
        "security": [],
        "parameters": [ID, ACTION, *_link_parameters()],
        "requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": form}}},
        "responses": {"200": _answer_schema("Decision", NOW, {"text/html": {"schema": TEXT}}),
                      **error_responses("403", "404", "408", "409", "410", "413", "422", "503", texts=ERRORS)},
    }  # fmt: skip


def _link_parameters() -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": True, "schema": TEXT}
        for name in ("by", "expires", "nonce", "signature")
    ]
