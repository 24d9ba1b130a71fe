"""The HTTP application of a model service: routes, authentication, prediction, feedback, logging."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any

import orjson
from pydantic import ValidationError

from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.contract import contract_to_dict
from d2c_mlops.serving.app.auth import PROBING, answer_once, is_local, request_api_key, require_valid_key
from d2c_mlops.serving.app.ndjson import NdjsonAnswer
from d2c_mlops.serving.http.api_keys import PROBE, Keyring
from d2c_mlops.serving.http.idempotency import IdempotencyStore
from d2c_mlops.serving.http.latency import WATCHDOG, LoopCall, Size, TimedCall
from d2c_mlops.serving.http.messages import (
    ASGI,
    NDJSON,
    TEXT,
    ClientDisconnected,
    HttpAnswer,
    HttpRefused,
    Receive,
    Request,
    Scope,
    Send,
    check_json,
    lifespan,
    new_id,
    problem_answer,
)
from d2c_mlops.serving.http.metrics import Metrics, metrics_text
from d2c_mlops.serving.http.origins import OPEN, check_origin
from d2c_mlops.serving.http.thread_pool import ThreadPool
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.serving.predict import feedback, openapi
from d2c_mlops.serving.predict.older_contracts import OlderContract, path_without_major
from d2c_mlops.serving.predict.predictor import PredictionBatch, ServedModel, validation_problem
from d2c_mlops.settings import ServiceSettings

__all__ = ["App", "ServedModel", "ServiceContext", "create_app"]

LOG = logging.getLogger("d2c.service")
STREAM = NDJSON.encode()  # media type of a stream of records
REMEMBERED = 100_000  # feedback ids that a worker remembers
Handler = Callable[[Request, ServedModel], Awaitable[HttpAnswer | None]]


@dataclass
class ServiceContext:
    """Optional parts of a service: prediction log, API keys, idempotency store, metrics, traces."""

    settings: ServiceSettings = field(default_factory=ServiceSettings)
    keyring: Keyring | None = None
    logbook: Logbook | None = None
    kept: IdempotencyStore | None = None
    tracer: Any = None  # tracing.Tracer
    majors: dict[int, OlderContract] = field(default_factory=dict)  # older major versions of the contract
    files: str = "unverified"  # whether the service's files were verified against the packaged ones
    draining: bool = False  # shutting down: /readyz answers 503, connections are closed after their answer


class App:
    """ASGI application of a model service, without middleware layers."""

    def __init__(
        self, served_model: Callable[[], ServedModel], keeping: ServiceContext, inner: ASGI | None = None
    ) -> None:
        self.served, self.keeping, self.settings = served_model, keeping, keeping.settings
        self.inner = inner  # application that runs the lifespan, if there is one
        self.metrics = Metrics()
        self.threads = ThreadPool()
        self.told: dict[str, int] = {}  # ids of accepted feedback with its content, oldest first
        self.running_requests = 0
        asks: dict[str, Handler] = {
            "/predict": partial(self.ask, reasons=False),
            "/explain": partial(self.ask, reasons=True),
            "/feedback": self.feedback,
        }
        gets: dict[str, Handler] = {
            "/contract": self.contract,
            "/schema.json": self.schema,
            "/openapi.json": self.document,
            "/docs.json": self.document,
            "/": self.page,
            "/metrics": self.expose,
            "/livez": self.livez,
            "/healthz": self.healthz,
            "/readyz": self.readyz,
        }
        self.routes: dict[str, dict[str, Handler]] = {path: {"POST": handler} for path, handler in asks.items()}
        self.routes |= {path: {"GET": handler, "HEAD": handler} for path, handler in gets.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; an unexpected error is logged, and its details are not sent to the caller."""
        if scope["type"] != "http":
            await (self.inner or lifespan)(scope, receive, send)
            return
        start = perf_counter()
        request = Request(scope, receive, send)
        try:
            answer = await (self._serve_traced(request) if self.keeping.tracer else self._serve_request(request))
        except ClientDisconnected:
            return
        if answer is not None:
            await request.reply(answer, self.keeping.draining)
            if request.after is not None:
                request.after()
        self._count_request(request, answer, perf_counter() - start)

    async def _serve_request(self, request: Request) -> HttpAnswer | None:
        """Return the answer; None when it was streamed."""
        scope = request.scope
        counted = False
        try:
            handlers = self.routes.get(scope["path"]) or self.routes.get(
                path_without_major(request, self.served, self.keeping.majors)
            )
            if handlers is None:
                return problem_answer(404, "Not found", f"known paths: {', '.join(sorted(self.routes))}")
            handler = handlers.get(scope["method"])
            if handler is None:
                allow = ", ".join(handlers)
                return problem_answer(405, "Method not allowed", f"allowed: {allow}", {"allow": allow})
            if self.settings.mode != "production" and scope["path"] not in OPEN:
                check_origin(request, self.settings.hosts)
            if scope["method"] == "POST":
                if self.running_requests + self.threads.stuck >= self.settings.max_concurrency:
                    return problem_answer(503, "Concurrency limit reached", "retry later", {"retry_after": "1"})
                self.running_requests += 1
                counted = True
            return await handler(request, self.served() if request.older is None else request.older.served)
        except HttpRefused as err:
            return err.answer
        except ClientDisconnected:
            raise
        except LookupError as err:
            if request.sent or str(err) != "not loaded":
                return self._server_error(request, err)
            return problem_answer(503, "Model not loaded", "retry later", {"retry_after": "1"})
        except Exception as err:
            return self._server_error(request, err)
        finally:
            self.running_requests -= counted

    def _server_error(self, request: Request, err: Exception) -> HttpAnswer | None:
        LOG.error("failed", exc_info=err, extra={"facts": {"request_id": request.id, "path": request.scope["path"]}})
        if request.sent:
            raise err  # the response has started and can only be cut off
        return problem_answer(500, "Internal server error", "the error is in the service's log")

    async def _serve_traced(self, request: Request) -> HttpAnswer | None:
        with self.keeping.tracer.span(request) as span:
            answer = await self._serve_request(request)
            span.set_attribute("http.response.status_code", answer.status if answer else request.sent)
        return answer

    def _count_request(self, request: Request, answer: HttpAnswer | None, seconds: float) -> None:
        path = request.path if request.path in self.routes else "other"
        status = answer.status if answer is not None else request.sent
        try:
            served, older = self.served(), request.older
            name, label = served.name, served.label if older is None else str(older.version)
        except LookupError:
            name, label = "none", "0"
        self.metrics.request(name, label, path, status, seconds)
        access_log = self.settings.access_log
        if access_log == "all" or (access_log == "failed" and status >= 400):
            facts = {"request_id": request.id, "method": request.scope["method"], "path": path, "status": status,
                     "ms": round(seconds * 1e3, 3), "caller": request.caller, "model": name, "version": label}  # fmt: skip
            LOG.log(logging.ERROR if status >= 500 else logging.INFO, "request", extra={"facts": facts})

    # --- predictions and feedback

    async def ask(self, request: Request, served_model: ServedModel, *, reasons: bool) -> HttpAnswer | None:
        """POST /predict and /explain: records in, predictions out."""
        self.authorise(request, served_model)
        if request.probe:
            served_model = served_model.probe_predictor
        if reasons and not served_model.explains:
            raise HttpRefused(
                problem_answer(404, "Model gives no reasons", "use POST /predict for predictions without reasons")
            )
        if (request.header(b"content-type") or b"").lower().startswith(STREAM):
            await NdjsonAnswer(self, request, served_model, reasons).run()
            return None
        check_json(request)
        body = await request.body(self.settings.max_body, self.settings.read_seconds)
        key = request.header(b"idempotency-key")
        if key is not None:
            return await answer_once(
                self.keeping.kept,
                request,
                served_model,
                key,
                body,
                partial(self._predict_answer, request, served_model, reasons),
            )
        return await self._predict_answer(request, served_model, reasons, body, new_id())

    async def _predict_answer(
        self, request: Request, served_model: ServedModel, reasons: bool, body: bytes, batch: str
    ) -> HttpAnswer:
        about = self.log_metadata(request)
        start = perf_counter()
        work = partial(served_model.predict, body, batch, reasons, about)
        result: PredictionBatch = await self.run_model(work, served_model, (reasons, len(body)))
        logged = self.write(result.lines, served_model) if about is not None else "sampled-out"
        self.count_records(served_model, result, request.probe)
        if served_model.shadow is not None:
            request.after = partial(served_model.shadow, result, about, reasons)
        spent = f"{(perf_counter() - start) * 1e3:.3f}"
        return HttpAnswer(result.body, x_prediction_logged=logged, server_timing=f"predict;dur={spent}")

    async def run_model(
        self, work: Callable[[], Any], served_model: ServedModel, size: Size, may_run_on_loop: bool = True
    ) -> Any:
        """Run the model once: on the event loop where it is quick, else in the thread pool within `max_seconds`.

        Raises HttpRefused when the model refuses the records or the time limit is exceeded.
        """
        timed, start, complete = TimedCall(work), perf_counter(), False
        measured = estimates = served_model.estimates
        on_loop = may_run_on_loop and all([estimate.quick(size) for estimate in estimates])
        try:
            if on_loop:
                with WATCHDOG.watching(LoopCall(served_model.name, size[1], estimates)):
                    result = timed()
            else:
                result = await self.threads.run(timed, self.settings.max_seconds)
            complete = True
            if isinstance(result, PredictionBatch):
                measured = served_model.estimates_of(result)
            return result
        except ValidationError as err:
            raise validation_problem(err, served_model) from None
        except DataRefused as err:
            errors = [{"where": f.where, "message": f.what} for f in err.failures] or [{"message": err.what}]
            raise HttpRefused(
                problem_answer(422, "Model cannot predict these records", err.what, errors=errors)
            ) from None
        finally:
            seconds = perf_counter() - start if timed.seconds is None else timed.seconds
            for estimate in measured if may_run_on_loop else ():
                estimate.add(size, seconds, on_loop=on_loop, complete=complete)

    async def feedback(self, request: Request, served_model: ServedModel) -> HttpAnswer | None:
        """POST /feedback: store feedback on a prediction."""
        self.authorise(request, served_model)
        check_json(request)
        body = await request.body(min(self.settings.max_body, feedback.LARGEST), self.settings.read_seconds)
        key = request.header(b"idempotency-key")
        if key is not None:
            return await answer_once(
                self.keeping.kept,
                request,
                served_model,
                key,
                body,
                partial(self._store_feedback, request, served_model),
            )
        return await self._store_feedback(request, served_model, body, new_id())

    async def _store_feedback(self, request: Request, served_model: ServedModel, body: bytes, id: str) -> HttpAnswer:
        try:
            message = feedback.parse_feedback(body, id, served_model, request, datetime.now(UTC))
        except ValidationError as err:
            raise validation_problem(err, served_model) from None
        answer = orjson.dumps({"feedback_id": message.id})
        if message.given is not None and (former := self.told.get(message.id)) is not None:
            if former != message.content:
                why = f"{message.action} feedback on this prediction exists with another reason, value or time; the first one stays valid"
                raise HttpRefused(problem_answer(409, "Feedback already exists", why))
            return HttpAnswer(answer, 200, idempotency_replayed="true")
        if self.keeping.logbook is None or not self.keeping.logbook.append(message.line):
            raise HttpRefused(problem_answer(503, "Feedback cannot be stored now", "retry later", {"retry_after": "5"}))
        if message.given is not None:
            if len(self.told) >= REMEMBERED:
                del self.told[next(iter(self.told))]
            self.told[message.id] = message.content
        if message.verified and not request.probe:
            self.metrics.feedback.labels(served_model.name, served_model.label, message.action).inc()
            served_model.count_feedback(message.action, message.given, message.prediction_id, message.key)
        return HttpAnswer(answer, 202)

    # --- contract, health and metrics

    def mark_probe(self, request: Request, served_model: ServedModel) -> None:
        """Mark in the answer whether the call counts as a probe; no caller is refused."""
        ring, mode = self.keeping.keyring, self.settings.mode
        if ring is not None and (ring.requires_keys() or mode == "production"):
            key, reason = ring.key_of_token(request_api_key(request), datetime.now(UTC))
            request.probe = key is not None and reason is None and key.probes and key.permits(served_model.name)
        else:
            request.probe = request.header(PROBING) is not None and mode != "production" and is_local(request)

    async def contract(self, request: Request, served_model: ServedModel) -> HttpAnswer:
        self.mark_probe(request, served_model)
        described = {
            **contract_to_dict(served_model.model.contract),
            "model": served_model.name,
            "model_version": served_model.version,
        }
        if request.older is None and self.keeping.majors:
            described["older"] = [older.to_dict() for older in self.keeping.majors.values()]
        return HttpAnswer(orjson.dumps({**described, "about": served_model.about}))

    async def schema(self, request: Request, served_model: ServedModel) -> HttpAnswer:
        return HttpAnswer(orjson.dumps(openapi.json_schema(served_model)), media="application/schema+json")

    async def document(self, request: Request, served_model: ServedModel) -> HttpAnswer:
        return HttpAnswer(served_model.openapi_json)

    async def page(self, request: Request, served_model: ServedModel) -> HttpAnswer:
        host = (request.header(b"host") or b"localhost").decode("latin-1")
        base = f"{request.scope.get('scheme', 'http')}://{host}/"
        if request.older is not None:
            base += f"v{request.older.major}/"
        return HttpAnswer(openapi.contract_page(served_model, base).encode(), media="text/html; charset=utf-8")

    async def expose(self, request: Request, served_model: ServedModel) -> HttpAnswer:
        body, media = metrics_text()
        return HttpAnswer(body, media=media)

    async def livez(self, request: Request, served_model: ServedModel) -> HttpAnswer:
        return HttpAnswer(b"ok\n", media=TEXT)

    async def healthz(self, request: Request, served_model: ServedModel) -> HttpAnswer:
        """GET /healthz: the same answer as BentoML's services, for existing health checks."""
        return HttpAnswer(b"\n", media=f"{TEXT}; charset=utf-8", x_d2c_files=self.keeping.files)

    async def readyz(self, request: Request, served_model: ServedModel) -> HttpAnswer:
        if self.keeping.draining:
            return problem_answer(503, "Service is shutting down", "send the request to another replica")
        return HttpAnswer(b"ok\n", media=TEXT)

    # --- authentication and logging

    def authorise(self, request: Request, served_model: ServedModel) -> None:
        """Raise HttpRefused unless the caller has an API key for this model; while no key exists every caller is accepted."""
        ring = self.keeping.keyring
        if ring is not None and (ring.requires_keys() or self.settings.mode == "production"):
            require_valid_key(ring, request, served_model, self.metrics)
        elif request.header(PROBING) is not None:
            request.probe = self.settings.mode != "production" and is_local(request)

    def log_metadata(self, request: Request) -> dict[str, Any] | None:
        """Return the metadata that is logged with predictions; None when this request is not logged."""
        if self.keeping.logbook is None:
            return None
        share = self.settings.log_sample
        if share < 1.0 and random.random() >= share:  # noqa: S311
            return None
        metadata = {"at": datetime.now(UTC), "request_id": request.id, "caller": request.caller, "variant": "champion"}
        if request.probe:
            metadata["origin"] = PROBE
        return metadata

    def write(self, lines: list[bytes], served_model: ServedModel) -> str:
        """Append lines to the prediction log and return the value of X-Prediction-Logged: true when all are stored."""
        book = self.keeping.logbook
        if book is not None and all([book.append(line) for line in lines]):
            return "true"
        self.metrics.unlogged.labels(served_model.name, served_model.label).inc()
        return "false"

    def count_records(self, served_model: ServedModel, result: PredictionBatch, probe: bool) -> None:
        """Count answered records; records of probes are counted separately."""
        for label, variant, count in served_model.counts(result):
            self.metrics.answered(served_model.name, label, PROBE if probe else variant).inc(count)


def create_app(
    served_model: Callable[[], ServedModel], resources: ServiceContext | None = None, bentoml_app: ASGI | None = None
) -> App:
    """Return the application; `served_model` returns the loaded model at each request."""
    return App(served_model, resources or ServiceContext(), bentoml_app)
