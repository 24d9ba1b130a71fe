"""Describe a contract to people and programs that know no Python: OpenAPI and a page to read."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from ..models.contract import Contract, Field, Kind

TYPES: dict[Kind, dict[str, str]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "date-time": {"type": "string", "format": "date-time"},
}


def property_of(field: Field) -> dict[str, Any]:
    """Return the JSON Schema (OpenAPI 3.0 dialect) of one field."""
    limits: dict[str, Any] = {
        "minimum": field.ge,
        "maximum": field.le,
        "enum": list(field.choices) if field.choices else None,
        "pattern": f"^(?:{field.pattern})$" if field.pattern else None,
        "maxLength": field.max_length,
        "nullable": field.nullable or None,
        "x-unit": field.unit,
    }
    unit = f" [{field.unit}]" if field.unit else ""
    kept = {key: value for key, value in limits.items() if value is not None}
    if field.nullable and "enum" in kept:
        kept["enum"] = [*kept["enum"], None]
    return {**TYPES[field.kind], "description": field.description + unit, **kept, "example": field.sample()}


def record(fields: tuple[Field, ...], *, answer: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of a record of these fields."""
    own = {"prediction_id": {"type": "string", "description": "Identifies this prediction in logs and feedback"}}
    properties = {**(own if answer else {}), **{field.name: property_of(field) for field in fields}}
    required = list(properties) if answer else [field.name for field in fields if not field.nullable]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def document(contract: Contract, name: str, version: int, example: dict[str, Any], max_records: int) -> dict[str, Any]:
    """Return the OpenAPI 3.0 document of a served model."""
    listed = {"type": "array", "minItems": 1, "maxItems": max_records, "items": {"$ref": "#/components/schemas/Record"}}
    request = {"type": "object", "properties": {"records": listed}, "required": ["records"]}
    answers = {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}}
    response = {
        "type": "object",
        "properties": {
            "model": {"type": "string", "description": "Name of the model"},
            "version": {"type": "integer", "description": "Version of the model that answered"},
            "contract": {"type": "string", "description": "Version of the contract"},
            "predictions": {**answers, "description": "One per record, in the order of the records"},
        },
        "required": ["model", "version", "contract", "predictions"],
    }
    operation = {
        "operationId": "predict",
        "summary": f"Predict up to {max_records} records",
        "requestBody": {"required": True, "content": _json("Request", {"records": [example]})},
        "responses": {
            "200": {"description": "One prediction per record, in order", "content": _json("Response")},
            "400": _error("The request breaks the contract; every fault is listed with its record's index"),
            "413": _error("The body is too large"),
        },
    }
    return {
        "openapi": "3.0.3",
        "info": {"title": name, "version": contract.version, "description": f"Model {name}, version {version}."},
        "paths": {
            "/predict": {"post": operation},
            "/contract": {"get": _get("contract", "What the model takes and gives, with units")},
            "/livez": {"get": _get("livez", "The process lives", "text/plain")},
            "/readyz": {"get": _get("readyz", "The model is loaded", "text/plain")},
            "/metrics": {"get": _get("metrics", "Prometheus metrics", "text/plain")},
        },
        "components": {
            "schemas": {
                "Record": record(contract.input_fields),
                "Prediction": record(contract.output_fields, answer=True),
                "Request": {**request, "additionalProperties": False},
                "Response": response,
                "Problem": _problem(),
            }
        },
    }


def page(contract: Contract, name: str, version: int, example: dict[str, Any], base: str) -> str:
    """Return a page that says what the service takes and gives, with a call to paste into a terminal."""
    body = json.dumps({"records": [example]}, ensure_ascii=False)
    call = f"curl -X POST {base}predict -H 'content-type: application/json' -d '{body}'"
    tables = "".join(
        f"<h2>{title}</h2><table><tr><th>field<th>type<th>unit<th>meaning</tr>{_rows(fields)}</table>"
        for title, fields in (("It takes", contract.input_fields), ("It gives", contract.output_fields))
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


def _rows(fields: tuple[Field, ...]) -> str:
    cells = [(f.name, f.kind + (" or null" if f.nullable else ""), f.unit or "", f.description) for f in fields]
    return "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)


def _json(schema: str, example: Any = None) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    return {"application/json": media if example is None else {**media, "example": example}}


def _error(description: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}


def _get(name: str, summary: str, media: str = "application/json") -> dict[str, Any]:
    schema = {"type": "object"} if media == "application/json" else {"type": "string"}
    return {"operationId": name, "summary": summary,
            "responses": {"200": {"description": summary, "content": {media: {"schema": schema}}}}}  # fmt: skip


def _problem() -> dict[str, Any]:
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
