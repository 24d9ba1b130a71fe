"""The HTTP application of the decision service: approve, reject or edit decisions with an API key or a signed link."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from time import perf_counter
from typing import Any
from urllib.parse import parse_qs

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select

from d2c_mlops.decisions import html_pages
from d2c_mlops.decisions.apply import now_utc
from d2c_mlops.decisions.cycle import configured_policies
from d2c_mlops.decisions.decision_rows import (
    STATUSES,
    Decision,
    contract_of,
    events_of_decision,
    find_decision,
    list_decisions,
    prediction_of,
    predictions_of,
)
from d2c_mlops.decisions.decision_statistics import decision_stats, metrics_text
from d2c_mlops.decisions.openapi import LISTED, LONGEST, MOST, openapi_document
from d2c_mlops.decisions.policy import Policy, parse_value
from d2c_mlops.decisions.request_metrics import RequestMetrics
from d2c_mlops.decisions.request_metrics import metrics_text as counted
from d2c_mlops.decisions.signed_links import Link, LinkRefused, verify_link
from d2c_mlops.decisions.verdicts import VERDICTS, DecisionClosed, LinkReplayed, NotAllowed, closed_error, decide
from d2c_mlops.errors import D2CError, DataRefused, Temporary, UsageError
from d2c_mlops.ledger.schema import decision_links
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.serving.app.auth import request_api_key, unauthorized_answer
from d2c_mlops.serving.http.api_keys import DECIDE, Key, Keyring, refusal_reason
from d2c_mlops.serving.http.messages import (
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
    problem_answer,
)
from d2c_mlops.settings import Settings

LOG = logging.getLogger("d2c.decisions")
FIELDS = 20  # of a query or a form
LARGEST, SECONDS = 16_384, 10.0  # bytes of a body, and seconds in which it must arrive
SPAN = timedelta(days=30)  # of the figures at /metrics
ACTIONS = "|".join(VERDICTS)
SAFE = {"cache_control": "no-store", "referrer_policy": "no-referrer", "x_content_type_options": "nosniff"}


class Body(BaseModel):
    """Request body of approve, reject and edit."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field("", max_length=LONGEST)
    value: Any = None


@dataclass
class Dependencies:
    """Dependencies of the application: settings, ledger, API keys, secrets of links."""

    settings: Settings
    ledger: Ledger
    keyring: Keyring
    links: list[bytes] = field(default_factory=list)  # secrets of links, the one that signs first
    wake: Callable[[], None] = lambda: None  # called after a decision, so that it is applied at once
    clock: Callable[[], datetime] = now_utc


Handler = Callable[["DecisionRequest"], HttpAnswer]


@dataclass
class DecisionRequest:
    """A request with its path parameters, query and body."""

    request: Request
    path_params: dict[str, str]
    query: dict[str, str]
    body: bytes
    path: str  # as it is logged: without ids and without the query of a link
    model: str = ""

    @property
    def wants_page(self) -> bool:
        return b"text/html" in (self.request.header(b"accept") or b"")


class DecisionApp:
    """ASGI application of the decision service; ledger access runs in threads."""

    def __init__(self, desk: Dependencies) -> None:
        self.dependencies = desk
        self.counts = RequestMetrics()
        self.routes: list[tuple[re.Pattern[str], dict[str, Handler]]] = [
            (re.compile("/"), {"GET": lambda decision_request: html_pages.inbox_page()}),
            (re.compile("/decisions"), {"GET": self.list}),
            (re.compile("/decisions/(?P<id>[0-9a-f]{24})"), {"GET": self.show}),
            (re.compile(f"/decisions/(?P<id>[0-9a-f]{{24}})/(?P<action>{ACTIONS})"), {"POST": self.decide}),
            (
                re.compile(f"/d/(?P<id>[0-9a-f]{{24}})/(?P<action>{ACTIONS})"),
                {"GET": self.show_link, "POST": self.decide_by_link},
            ),
            (
                re.compile(r"/openapi\.json"),
                {"GET": lambda decision_request: HttpAnswer(orjson.dumps(openapi_document()))},
            ),
            (re.compile("/metrics"), {"GET": self.metrics}),
            (re.compile("/livez"), {"GET": lambda decision_request: HttpAnswer(b"ok\n", media=TEXT)}),
            (re.compile("/readyz"), {"GET": self.ready}),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; an unexpected error is logged, and its details are not sent to the caller."""
        if scope["type"] != "http":
            await lifespan(scope, receive, send)
            return
        start, request = perf_counter(), Request(scope, receive, send)
        decision_request = DecisionRequest(request, {}, {}, b"", "other")
        try:
            answer = await self._http_answer(decision_request)
        except ClientDisconnected:
            return
        except HttpRefused as err:
            answer = err.answer
        except Exception as err:
            LOG.error(
                "failed", exc_info=err, extra={"facts": {"request_id": request.id, "path": decision_request.path}}
            )
            answer = problem_answer(500, "Internal server error", "the error is in the service's log")
        answer.headers = SAFE | answer.headers
        await request.reply(answer)
        seconds = perf_counter() - start
        self.counts.request(decision_request.model, decision_request.path, answer.status, seconds)
        access_log = self.dependencies.settings.service.access_log
        if access_log == "all" or (access_log == "failed" and answer.status >= 400):
            facts = {"request_id": request.id, "method": scope["method"], "path": decision_request.path, "status": answer.status,
                     "ms": round(seconds * 1e3, 3), "caller": request.caller, "model": decision_request.model}  # fmt: skip
            LOG.log(logging.ERROR if answer.status >= 500 else logging.INFO, "request", extra={"facts": facts})

    async def _http_answer(self, decision_request: DecisionRequest) -> HttpAnswer:
        scope = decision_request.request.scope
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        for pattern, handlers in self.routes:
            match = pattern.fullmatch(scope["path"])
            if match is None:
                continue
            decision_request.path_params = match.groupdict()
            decision_request.path = scope["path"].replace(decision_request.path_params.get("id", "\0"), "ID")
            if method not in handlers:
                allow = ", ".join(handlers)
                return problem_answer(405, "Method not allowed", f"allowed: {allow}", {"allow": allow})
            query_fields = _form_fields(scope["query_string"].decode("latin-1"), "query")
            decision_request.query = {name: values[0] for name, values in query_fields.items()}
            if method == "POST":
                decision_request.body = await decision_request.request.body(LARGEST, SECONDS)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, partial(self._handle_request, handlers[method], decision_request))
        return problem_answer(
            404, "Not found", "the interface is /decisions, described by /openapi.json; the web page is /"
        )

    def _handle_request(self, handler: Handler, decision_request: DecisionRequest) -> HttpAnswer:
        try:
            return handler(decision_request)
        except HttpRefused as err:
            return err.answer
        except LinkRefused as err:
            self._count_refused(decision_request, err.reason, "")
            return self._problem_answer(
                decision_request, err.status, "Link is not valid", f"{err.reason}: request a new link"
            )
        except (D2CError, ValidationError) as err:
            return self._problem_answer(decision_request, *_problem_fields(err))

    def _problem_answer(self, decision_request: DecisionRequest, status: int, title: str, detail: str) -> HttpAnswer:
        page = decision_request.path.startswith("/d/") and decision_request.wants_page
        return html_pages.error_page(status, title, detail) if page else problem_answer(status, title, detail)

    def _count_refused(self, decision_request: DecisionRequest, reason: str, model: str) -> None:
        """Log and count a refused caller."""
        self.counts.refused.labels(model, reason).inc()
        facts = {"request_id": decision_request.request.id, "reason": reason, "caller": decision_request.request.caller, "path": decision_request.path,
                 "model": model, "decision": decision_request.path_params.get("id")}  # fmt: skip
        LOG.warning("caller refused", extra={"facts": facts})

    # --- with an API key

    def _authenticated_key(self, decision_request: DecisionRequest, model: str | None = None) -> Key:
        """Return the caller's API key. Raises HttpRefused unless it has the scope decide, for `model` where one is given."""
        key, reason = self.dependencies.keyring.key_of_token(
            request_api_key(decision_request.request), self.dependencies.clock()
        )
        decision_request.request.caller = key.id if key else None
        if key is not None and reason is None:
            reason = refusal_reason(key, model or (key.models[0] if key.models else ""), DECIDE)
        if reason is not None or key is None:
            self._count_refused(decision_request, reason or "no key", model or "")
            raise HttpRefused(unauthorized_answer(reason or "no key", model or "decisions"))
        return key

    def list(self, decision_request: DecisionRequest) -> HttpAnswer:
        """GET /decisions: decisions about the models of the API key."""
        key = self._authenticated_key(decision_request)
        statuses = [status for status in decision_request.query.get("status", "").split(" ") if status] or None
        if unknown := set(statuses or ()) - set(STATUSES):
            return problem_answer(
                400, "Unknown status", f"{', '.join(sorted(unknown))}: use one of {', '.join(STATUSES)}"
            )
        limit = _parse_limit(decision_request.query.get("limit", str(LISTED)))
        models = [decision_request.query["model"]] if "model" in decision_request.query else None
        if models and not key.permits(models[0]):
            self._count_refused(decision_request, "key of another model", models[0])
            return unauthorized_answer("key of another model", models[0])
        if models is None and not key.permits("*"):
            models = [*key.models]
        decisions = list_decisions(self.dependencies.ledger, models, statuses, limit=limit)
        predictions = predictions_of(self.dependencies.ledger, decisions)
        contracts = {
            (decision.model, decision.version): _contract_of_decision(self.dependencies.ledger, decision)
            for decision in decisions
        }
        rows = [
            decision.to_dict()
            | predictions[decision.id]
            | {
                "shown": html_pages.decision_texts(
                    decision, predictions[decision.id], contracts[decision.model, decision.version]
                )
            }
            for decision in decisions
        ]
        return HttpAnswer(orjson.dumps({"decisions": rows}))

    def _authorized_decision(self, decision_request: DecisionRequest) -> tuple[Key, Decision]:
        self._authenticated_key(decision_request)
        decision = self._find_decision(decision_request)
        return self._authenticated_key(decision_request, decision.model), decision

    def _find_decision(self, decision_request: DecisionRequest) -> Decision:
        try:
            decision = find_decision(self.dependencies.ledger, decision_request.path_params["id"])
        except UsageError as err:
            raise HttpRefused(problem_answer(404, "Decision not found", err.what)) from None
        decision_request.model = decision.model
        return decision

    def show(self, decision_request: DecisionRequest) -> HttpAnswer:
        """GET /decisions/ID: the decision, its prediction and its events."""
        _, decision = self._authorized_decision(decision_request)
        return HttpAnswer(orjson.dumps(_decision_with_events(self.dependencies.ledger, decision)))

    def decide(self, decision_request: DecisionRequest) -> HttpAnswer:
        """POST /decisions/ID/approve, reject, edit: {"reason": …, "value": …}."""
        key, decision = self._authorized_decision(decision_request)
        if decision_request.body:
            check_json(decision_request.request)
        body = Body.model_validate_json(decision_request.body or b"{}", strict=True)
        if decision_request.path_params["action"] != "edit" and body.value is not None:
            return problem_answer(400, "Only edit accepts a value", f"use POST /decisions/{decision.id}/edit")
        changed, new = self._record_verdict(decision_request, decision, key.name, body, "api")
        answer = HttpAnswer(orjson.dumps(changed.to_dict()))
        answer.headers |= {} if new else {"idempotency_replayed": "true"}
        return answer

    def _record_verdict(
        self,
        decision_request: DecisionRequest,
        decision: Decision,
        decider: str,
        body: Body,
        channel: str,
        nonce: str = "",
    ) -> tuple[Decision, bool]:
        policy = Policy.of(decision.model, self.dependencies.settings)
        try:
            changed, new = decide(
                self.dependencies.ledger, policy, decision.id, decision_request.path_params["action"], decider=decider, now=self.dependencies.clock(),
                value=body.value, reason=body.reason, channel=channel, nonce=nonce,
            )  # fmt: skip
        except NotAllowed:
            self._count_refused(decision_request, "not a decider", decision.model)
            raise
        except LinkReplayed:
            self._count_refused(decision_request, "replayed link", decision.model)
            raise
        facts = {
            "decision": changed.id,
            "model": changed.model,
            "verdict": changed.verdict,
            "by": decider,
            "how": channel,
        }
        LOG.info("decided", extra={"facts": facts})
        self.dependencies.wake()
        return changed, new

    # --- with a link

    def _verified_link(self, decision_request: DecisionRequest) -> tuple[Link, Decision]:
        link = verify_link(
            decision_request.path_params["id"],
            decision_request.path_params["action"],
            decision_request.query,
            self.dependencies.links,
            self.dependencies.clock(),
        )
        decision_request.request.caller = link.by
        decision = self._find_decision(decision_request)
        query = select(decision_links.c.nonce).where(decision_links.c.nonce == link.nonce)
        with self.dependencies.ledger.read() as connection:
            used = connection.execute(query).first() is not None
        if used:
            self._count_refused(decision_request, "replayed link", decision.model)
            raise LinkReplayed(f"{closed_error(decision).what}; a link is valid for one decision", where=decision.id)
        return link, decision

    def show_link(self, decision_request: DecisionRequest) -> HttpAnswer:
        """GET of a link: a confirmation page. It decides nothing, because mail programs open links."""
        link, decision = self._verified_link(decision_request)
        if decision.status != "pending" or decision.deadline_at <= self.dependencies.clock():
            raise closed_error(decision)
        contract = _contract_of_decision(self.dependencies.ledger, decision)
        return html_pages.confirmation_page(
            decision, prediction_of(self.dependencies.ledger, decision), link.action, link.by, contract=contract
        )

    def decide_by_link(self, decision_request: DecisionRequest) -> HttpAnswer:
        """POST of a link: approve, reject or edit the decision."""
        link, decision = self._verified_link(decision_request)
        form_fields = _form_fields(decision_request.body.decode("utf-8", "replace"), "form")
        form = {name: values[0] for name, values in form_fields.items()}
        body = Body(reason=form.get("reason", "").strip()[:LONGEST])
        try:
            if link.action == "edit":
                policy = Policy.of(decision.model, self.dependencies.settings)
                fields = policy.check(contract_of(self.dependencies.ledger, decision.model, decision.version))
                body.value = parse_value(fields, form.get("value", ""))
            changed, _ = self._record_verdict(decision_request, decision, link.by, body, "link", link.nonce)
        except DataRefused as err:
            if not decision_request.wants_page:
                raise
            contract = _contract_of_decision(self.dependencies.ledger, decision)
            base = prediction_of(self.dependencies.ledger, decision)
            return html_pages.confirmation_page(decision, base, link.action, link.by, err.what, form, contract)
        return (
            html_pages.result_page(changed, _contract_of_decision(self.dependencies.ledger, changed))
            if decision_request.wants_page
            else HttpAnswer(orjson.dumps(changed.to_dict()))
        )

    # --- operations

    def metrics(self, decision_request: DecisionRequest) -> HttpAnswer:
        """GET /metrics: statistics of all policies and refused callers."""
        body, media = counted()
        now = self.dependencies.clock()
        model_stats = [
            decision_stats(self.dependencies.ledger, policy.model, now, SPAN)
            for policy in configured_policies(self.dependencies.settings)
        ]
        return HttpAnswer(body + metrics_text(model_stats), media=media)

    def ready(self, decision_request: DecisionRequest) -> HttpAnswer:
        """GET /readyz: whether the ledger answers."""
        with self.dependencies.ledger.read() as connection:
            connection.execute(select(1))
        return HttpAnswer(b"ok\n", media=TEXT)


def _decision_with_events(ledger: Ledger, decision: Decision) -> dict[str, Any]:
    base = prediction_of(ledger, decision)
    texts = html_pages.decision_texts(decision, base, _contract_of_decision(ledger, decision))
    return decision.to_dict() | base | {"shown": texts, "events": events_of_decision(ledger, decision)}


def _contract_of_decision(ledger: Ledger, decision: Decision) -> Contract | None:
    """Return the contract of the version that predicted; None where the ledger no longer has it."""
    try:
        return contract_of(ledger, decision.model, decision.version)
    except UsageError:
        return None


def _form_fields(text: str, where: str) -> dict[str, list[str]]:
    """Return the fields of a query or a form. Raises HttpRefused where there are too many."""
    try:
        return parse_qs(text, max_num_fields=FIELDS)
    except ValueError:
        raise HttpRefused(problem_answer(400, f"The {where} has too many fields", f"at most {FIELDS}")) from None


def _parse_limit(text: str) -> int:
    """Return how many decisions are wanted. Raises HttpRefused."""
    if text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= MOST:
        return int(text)
    raise HttpRefused(problem_answer(400, "Limit is not valid", f"limit is a number from 0 to {MOST}"))


def _problem_fields(err: D2CError | ValidationError) -> tuple[int, str, str]:
    """Return the status, the title and the detail of an error."""
    if isinstance(err, ValidationError):
        first = err.errors(include_url=False, include_input=False)[0]
        return 400, "Malformed request body", f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
    for kind, status, title in (
        (NotAllowed, 403, "Not allowed to decide"),
        (LinkReplayed, 410, "Link already used"),
        (DecisionClosed, 409, "Decision is closed"),
        (DataRefused, 422, "Value not allowed"),
        (Temporary, 503, "Ledger unavailable"),
    ):
        if isinstance(err, kind):
            return status, title, err.what
    return 409, "Decision not possible", err.what
