"""The HTTP application: validate, predict, answer. It knows contracts and no particular model."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from ..errors import DataRefused
from ..models.contract import contract_to_dict, to_frame, to_records
from ..models.model import Model
from . import openapi

MAX_RECORDS = 10_000
MAX_BODY = 32 * 2**20  # bytes
IN_THREAD = 200  # from this many records on, predicting would hold up other callers
JSON, PROBLEM = "application/json", "application/problem+json"

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Served:
    """A loaded model and what identifies it to a caller."""

    model: Model
    name: str
    version: int
    about: dict[str, Any]  # run id, as_of, package version, digest
    example: dict[str, Any]  # a record that it answers

    @cached_property
    def body(self) -> TypeAdapter[Any]:
        """What POST /predict takes: strict, so that a number never arrives as text."""
        contract = self.model.contract
        records = list[contract.request_model]  # type: ignore[name-defined]
        listed = (records, Field(min_length=1, max_length=MAX_RECORDS))
        made: Any = create_model("PredictRequest", __config__=ConfigDict(extra="forbid"), records=listed)
        return TypeAdapter(made)

    @cached_property
    def document(self) -> bytes:
        """The OpenAPI document."""
        return orjson.dumps(openapi.document(self.model.contract, self.name, self.version, self.example, MAX_RECORDS))

    def predict(self, body: bytes) -> dict[str, Any]:
        """Return the answer to a request's body. Raises ValidationError or DataRefused."""
        contract = self.model.contract
        names = [field.name for field in contract.input_fields]
        parsed = self.body.validate_json(body, strict=True).records
        records = [{name: getattr(record, name) for name in names} for record in parsed]
        answers = self.model.predict(to_frame(contract.input_fields, records))
        batch = uuid.uuid4().hex
        rows = to_records(contract.output_fields, answers)
        return {
            "model": self.name,
            "version": self.version,
            "contract": contract.version,
            "predictions": [{"prediction_id": f"{batch}-{i}", **row} for i, row in enumerate(rows)],
        }


def create_app(served: Callable[[], Served]) -> Starlette:
    """Return the application; `served` gives the loaded model when a request comes."""

    async def predict(request: Request) -> Response:
        body = await _read(request)
        if body is None:
            return problem(413, "The body is too large", f"at most {MAX_BODY} bytes; send fewer records a call")
        model = served()
        try:
            heavy = len(body) > IN_THREAD * 40
            answer = await run_in_threadpool(model.predict, body) if heavy else model.predict(body)
        except ValidationError as err:
            return problem(400, "The request breaks the contract", _see(model), errors=_faults(err))
        except DataRefused as err:
            errors = [{"where": f.where, "message": f.what} for f in err.failures] or [{"message": err.what}]
            return problem(400, "The model cannot answer this", err.what, errors=errors)
        return Response(orjson.dumps(answer), media_type=JSON)

    async def contract(request: Request) -> Response:
        model = served()
        described = {**contract_to_dict(model.model.contract), "model": model.name, "model_version": model.version}
        return Response(orjson.dumps({**described, "about": model.about}), media_type=JSON)

    async def document(request: Request) -> Response:
        return Response(served().document, media_type=JSON)

    async def page(request: Request) -> Response:
        model = served()
        return HTMLResponse(
            openapi.page(model.model.contract, model.name, model.version, model.example, str(request.base_url))
        )

    routes = [
        Route("/predict", predict, methods=["POST"]),
        Route("/contract", contract),
        Route("/openapi.json", document),
        Route("/docs.json", document),
        Route("/", page),
    ]
    return Starlette(routes=routes, exception_handlers={404: _missing, 405: _not_allowed, Exception: _broken})


def problem(status: int, title: str, detail: str, **more: Any) -> Response:
    """Return an error body as RFC 9457 describes it."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return Response(orjson.dumps(body), status, media_type=PROBLEM)


async def _read(request: Request) -> bytes | None:
    """Return the body; None as soon as it is larger than allowed."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _faults(err: ValidationError) -> list[dict[str, Any]]:
    """Return every fault with the record's index and the field; what was sent is not repeated, it may be personal."""
    faults = []
    for each in err.errors(include_url=False, include_input=False, include_context=False):
        where = each["loc"]
        index = where[1] if len(where) > 1 and where[0] == "records" else None
        field = ".".join(str(part) for part in (where[2:] if index is not None else where)) or "body"
        faults.append({"index": index, "field": field, "message": each["msg"]})
    return faults


def _see(model: Served) -> str:
    return f"each fault is listed; GET /contract describes what {model.name} takes"


async def _missing(request: Request, err: Exception) -> Response:
    return problem(404, "There is nothing at this path", "POST /predict, GET /contract, GET /openapi.json")


async def _not_allowed(request: Request, err: Exception) -> Response:
    return problem(405, "This path does not take this method", "POST /predict, GET /contract, GET /openapi.json")


async def _broken(request: Request, err: Exception) -> Response:
    return problem(500, "The service failed", "the fault is ours and is in the service's log")
