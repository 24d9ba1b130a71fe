"""OpenAPI document, JSON Schema and HTML page of a contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from d2c_mlops.models.core.contract import Field, Kind
from d2c_mlops.serving.predict import feedback

if TYPE_CHECKING:
    from d2c_mlops.serving.predict.predictor import ServedModel

NDJSON = "application/x-ndjson"
TYPES: dict[Kind, dict[str, str]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int64"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "date-time": {"type": "string", "format": "date-time"},
}

SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key made by `d2c keys create`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
ROLLOUT: dict[str, dict[str, Any]] = {
    "version": {
        "type": "integer",
        "description": "Version that answered this record, while two versions answer; the answer's own when absent",
    },
    "variant": {
        "type": "string",
        "enum": ["champion", "challenger"],
        "description": "Variant of that version; absent while one version answers",
    },
}


def field_schema(field: Field) -> dict[str, Any]:
    """Return the JSON Schema (OpenAPI 3.0 dialect) of one field."""
    limits: dict[str, Any] = {
        "minimum": field.limits[0],
        "maximum": field.limits[1],
        "enum": list(field.choices) if field.choices else None,
        "pattern": f"^(?:{field.pattern})$" if field.pattern else None,
        "maxLength": field.max_length,
        "nullable": field.nullable or None,
        "x-unit": field.unit,
    }
    unit = f" [{field.unit}]" if field.unit else ""
    limits_set = {key: value for key, value in limits.items() if value is not None}
    if field.nullable and "enum" in limits_set:
        limits_set["enum"] = [*limits_set["enum"], None]
    return {**TYPES[field.kind], "description": field.description + unit, **limits_set, "example": field.sample()}


def record_schema(fields: tuple[Field, ...], *, answer: bool = False, reasons: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of a record of these fields."""
    id_property = {
        "prediction_id": {"type": "string", "description": "Identifies this prediction in logs and feedback"}
    }
    properties = {**(id_property if answer else {}), **{field.name: field_schema(field) for field in fields}}
    if reasons:
        description = "Reasons, most important first, in the words of the person who acts on them"
        properties["reasons"] = {"type": "array", "items": {"type": "string"}, "description": description}
    required = list(properties) if answer else [field.name for field in fields if not field.nullable]
    if answer:  # beside what is always there
        properties = {
            **properties,
            **{name: property_ for name, property_ in ROLLOUT.items() if name not in properties},
        }
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def openapi_document(served_model: ServedModel) -> dict[str, Any]:
    """Return the OpenAPI 3.0 document of a served model."""
    contract, name, most = served_model.model.contract, served_model.name, served_model.max_records
    example = {"records": [served_model.example]}
    asks = {"/predict": _predict_operation("predict", f"Predict up to {most} records", example)}
    if served_model.explains:
        asks["/explain"] = _predict_operation(
            "explain", f"Predict up to {most} records, with the reasons of each", example, "Explained"
        )
    return {
        "openapi": "3.0.3",
        "info": {
            "title": name,
            "version": contract.version,
            "description": f"Model {name}, version {served_model.version}.",
        },
        "security": [{"bearer": []}, {"header": []}, {}],
        "paths": {
            **{path: {"post": operation} for path, operation in asks.items()},
            "/feedback": {"post": _feedback_path()},
            "/contract": {"get": _get_operation("contract", "Inputs and outputs of the model, with units")},
            "/schema.json": {
                "get": _get_operation(
                    "schema", "JSON Schema of a record and of a prediction", "application/schema+json"
                )
            },
            "/livez": {"get": _get_operation("livez", "Liveness: the process runs", "text/plain")},
            "/readyz": {
                "get": _get_operation(
                    "readyz", "Readiness: the model is loaded and the service is not shutting down", "text/plain"
                )
            },
            "/metrics": {"get": _get_operation("metrics", "Prometheus metrics", "text/plain")},
        },
        "components": {
            "securitySchemes": SECURITY,
            "schemas": {
                "Record": record_schema(contract.input_fields),
                "Prediction": record_schema(contract.output_fields, answer=True),
                **(
                    {"ExplainedPrediction": record_schema(contract.output_fields, answer=True, reasons=True)}
                    if served_model.explains
                    else {}
                ),
                "Request": _request_body(most),
                "Response": _json_response("Prediction"),
                **({"Explained": _json_response("ExplainedPrediction")} if served_model.explains else {}),
                "Feedback": feedback.feedback_schema(),
                "FeedbackTaken": closed_object({"feedback_id": {"type": "string"}}),
                "Problem": problem_schema(),
            },
        },
    }


def json_schema(served_model: ServedModel) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record and of a prediction, with the routes that BentoML's clients look for."""
    contract = served_model.model.contract
    sides = {
        "Record": record_schema(contract.input_fields),
        "Prediction": record_schema(contract.output_fields, answer=True),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{served_model.name} {contract.version}",
        "$defs": {name: _to_json_schema(schema) for name, schema in sides.items()},
        "$ref": "#/$defs/Record",
        "name": served_model.name,
        "routes": _service_routes(served_model),
    }


def _service_routes(served_model: ServedModel) -> list[dict[str, Any]]:
    """Return the routes in the format of BentoML's /schema.json.

    Its clients drop fields that an inline schema does not list; behind a reference a record is sent unchanged, and the service
    refuses unknown fields.
    """
    listed = {"type": "array", "items": {"$ref": "#/$defs/Record"}, "minItems": 1, "maxItems": served_model.max_records}
    asks = {"predict": "Predict records"} | (
        {"explain": "Predict records, with reasons"} if served_model.explains else {}
    )
    takes = {"title": "Input", "type": "object", "properties": {"records": listed}, "required": ["records"]}
    gives = {"type": "object", "description": "model, version, contract and predictions: one per record, in order"}
    feedback_properties: dict[str, dict[str, Any]] = {}
    for variant in feedback.feedback_schema()["oneOf"]:
        feedback_properties |= {
            name: {"description": property_.get("description", "")} for name, property_ in variant["properties"].items()
        }
    route = {"batchable": False, "is_task": False}
    return [
        *({"name": name, "route": f"/{name}", "doc": doc, "input": takes, "output": gives, **route} for name, doc in asks.items()),
        {
            "name": "feedback", "route": "/feedback", "doc": "Send feedback on a prediction",
            "input": {"title": "Input", "type": "object", "properties": feedback_properties, "required": ["action"]},
            "output": {"type": "object"}, **route,
        },
    ]  # fmt: skip


def _to_json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Convert OpenAPI 3.0 schemas to JSON Schema."""
    properties = {}
    for name, was in schema["properties"].items():
        now = {key: value for key, value in was.items() if key not in ("nullable", "example")}
        if was.get("nullable"):
            now["type"] = [was["type"], "null"]
        properties[name] = {**now, **({"examples": [was["example"]]} if "example" in was else {})}
    return {**schema, "properties": properties}


def contract_page(served_model: ServedModel, base: str) -> str:
    """Return an HTML page with inputs, outputs and an example call."""
    contract, name, version = served_model.model.contract, served_model.name, served_model.version
    body = json.dumps({"records": [served_model.example]}, ensure_ascii=False)
    call = f"curl -X POST {base}predict -H 'content-type: application/json' -d '{body}'"
    tables = "".join(
        f"<h2>{title}</h2><table><tr><th>field<th>type<th>unit<th>meaning</tr>{_row_limit_text(fields)}</table>"
        for title, fields in (("Inputs", contract.input_fields), ("Outputs", contract.output_fields))
    )
    links = " · ".join(f'<a href="{p}">{p}</a>' for p in ("contract", "openapi.json", "metrics", "readyz"))
    style = "body{font:16px system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse}"
    style += "td,th{text-align:left;padding:.3rem 1rem .3rem 0;border-bottom:1px solid #ddd}pre{background:#f4f4f4;"
    style += "padding:1rem;overflow:auto}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(name)}</title><style>{style}</style>"
        f"<h1>{escape(name)}</h1><p>Version {version}, contract {contract.version}. {links}</p>"
        f"<pre>{escape(call)}</pre>{tables}</html>"
    )


def _row_limit_text(fields: tuple[Field, ...]) -> str:
    cells = [(f.name, f.kind + (" or null" if f.nullable else ""), f.unit or "", f.description) for f in fields]
    return "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)


def _json_content(schema: str, example: Any = None) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    return {"application/json": media if example is None else {**media, "example": example}}


def _predict_operation(name: str, summary: str, example: Any, answer: str = "Response") -> dict[str, Any]:
    media = _json_content("Request", example)
    lines = "One record per line in, one prediction per line out; the last line says whether all records were answered"
    stream = {"schema": {"type": "string", "description": lines}}
    headers = {"X-Prediction-Logged": {"description": "true when the predictions are in the log and survive a crash",
                                       "schema": {"type": "string", "enum": ["true", "false", "sampled-out"]}}}  # fmt: skip
    return {
        "operationId": name,
        "summary": summary,
        "description": f"Send `{NDJSON}` to stream any number of records. {lines}.",
        "parameters": [_idempotency_parameter()],
        "requestBody": {"required": True, "content": media},
        "responses": {
            "200": {"description": "One prediction per record, in order", "headers": headers,
                    "content": {**_json_content(answer), NDJSON: stream}},
            **error_responses("400", "401", "403", "408", "413", "415", "422", "503", "504"),
        },
    }  # fmt: skip


def _feedback_path() -> dict[str, Any]:
    return {
        "operationId": "feedback",
        "summary": "Send feedback on a prediction, or its outcome",
        "parameters": [_idempotency_parameter()],
        "requestBody": {"required": True, "content": _json_content("Feedback")},
        "responses": {
            "200": {
                "description": "The same feedback was sent before; it counts once",
                "content": _json_content("FeedbackTaken"),
            },
            "202": {"description": "Stored; survives a crash", "content": _json_content("FeedbackTaken")},
            **error_responses("400", "401", "403", "408", "409", "413", "415", "422", "503"),
        },
    }


def _idempotency_parameter() -> dict[str, Any]:
    description = "A request repeated with the same key and body gets the same answer for a day and is processed once"
    schema = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"}
    return {"name": "Idempotency-Key", "in": "header", "required": False, "description": description, "schema": schema}


ERRORS = {
    "400": "The request does not match the contract; every error is listed with its record's index",
    "401": "No API key, or one that is wrong, expired or revoked",
    "403": "The API key is for another model",
    "408": "Request timed out",
    "409": "Feedback of this kind exists for the prediction with other content",
    "413": "Body too large, or there are too many records",
    "415": "Content-Encoding not supported",
    "422": "The model cannot predict these records, the prediction_id is unknown, or the Idempotency-Key was used with another body",
    "503": "Concurrency limit reached, model worker threads exhausted, or storage full; Retry-After says when to retry",
    "504": "Prediction timed out",
}


def error_responses(*codes: str, texts: Mapping[str, str] = ERRORS) -> dict[str, Any]:
    """Return responses that are problems (RFC 9457), by status; `texts` are the descriptions."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {code: {"description": texts[code], "content": content} for code in codes}


def closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these members only."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _request_body(most: int) -> dict[str, Any]:
    listed = {"type": "array", "minItems": 1, "maxItems": most, "items": {"$ref": "#/components/schemas/Record"}}
    return closed_object({"records": listed})


def _json_response(of: str) -> dict[str, Any]:
    answers = {"type": "array", "items": {"$ref": f"#/components/schemas/{of}"}}
    return closed_object(
        {
            "model": {"type": "string", "description": "Name of the model"},
            "version": {"type": "integer", "description": "Version of the model that answered"},
            "contract": {"type": "string", "description": "Version of the contract"},
            "predictions": {**answers, "description": "One per record, in the order of the records"},
        }
    )


def _get_operation(name: str, summary: str, media: str = "application/json") -> dict[str, Any]:
    schema = {"type": "object"} if media.endswith("json") else {"type": "string"}
    return {"operationId": name, "summary": summary,
            "responses": {"200": {"description": summary, "content": {media: {"schema": schema}}}}}  # fmt: skip


def problem_schema() -> dict[str, Any]:
    """Return the schema of a problem (RFC 9457), with the list of errors if there are several."""
    fault = {
        "type": "object",
        "properties": {
            "index": {"type": "integer", "nullable": True, "description": "Position of the record, from 0"},
            "field": {"type": "string"},
            "where": {"type": "string"},
            "message": {"type": "string"},
        },
        "required": ["message"],
    }
    texts = {key: {"type": "string"} for key in ("type", "title", "detail")}
    properties = {**texts, "status": {"type": "integer"}, "errors": {"type": "array", "items": fault}}
    return {"type": "object", "required": ["title", "status"], "properties": properties}
