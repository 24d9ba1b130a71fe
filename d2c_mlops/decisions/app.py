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

from d2c_mlops.decisions import pages
from d2c_mlops.decisions.applying import now_utc
from d2c_mlops.decisions.counts import Counts
from d2c_mlops.decisions.counts import exposition as counted
from d2c_mlops.decisions.deciding import VERDICTS, Closed, NotAllowed, Replayed, closed, decide
from d2c_mlops.decisions.links import BadLink, Link, verified
from d2c_mlops.decisions.openapi import LISTED, LONGEST, MOST, document
from d2c_mlops.decisions.policy import Policy, read_value
from d2c_mlops.decisions.records import STATUSES, Decision, bases, basis, contract_of, events, find, listed
from d2c_mlops.decisions.stats import exposition, stats
from d2c_mlops.decisions.turn import policies
from d2c_mlops.errors import D2CError, DataRefused, Temporary, UsageError
from d2c_mlops.ledger.schema import decision_links
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.serving.app.auth import token_of, unwelcome
from d2c_mlops.serving.http.api_keys import DECIDE, Key, Keyring, refused
from d2c_mlops.serving.http.messages import (
    TEXT,
    Answer,
    Gone,
    HttpRefused,
    Receive,
    Request,
    Scope,
    Send,
    check_json,
    lifespan,
    problem,
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
class Desk:
    """Dependencies of the application: settings, ledger, API keys, secrets of links."""

    settings: Settings
    ledger: Ledger
    keyring: Keyring
    links: list[bytes] = field(default_factory=list)  # secrets of links, the one that signs first
    wake: Callable[[], None] = lambda: None  # called after a decision, so that it is applied at once
    clock: Callable[[], datetime] = now_utc


Handler = Callable[["Visit"], Answer]


@dataclass
class Visit:
    """A request with its path parameters, query and body."""

    request: Request
    found: dict[str, str]
    query: dict[str, str]
    body: bytes
    path: str  # as it is logged: without ids and without the query of a link
    model: str = ""

    @property
    def wants_page(self) -> bool:
        return b"text/html" in (self.request.header(b"accept") or b"")


class DecisionApp:
    """ASGI application of the decision service; ledger access runs in threads."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.counts = Counts()
        self.routes: list[tuple[re.Pattern[str], dict[str, Handler]]] = [
            (re.compile("/"), {"GET": lambda visit: pages.inbox()}),
            (re.compile("/decisions"), {"GET": self.list}),
            (re.compile("/decisions/(?P<id>[0-9a-f]{24})"), {"GET": self.show}),
            (re.compile(f"/decisions/(?P<id>[0-9a-f]{{24}})/(?P<action>{ACTIONS})"), {"POST": self.decide}),
            (re.compile(f"/d/(?P<id>[0-9a-f]{{24}})/(?P<action>{ACTIONS})"), {"GET": self.ask, "POST": self.click}),
            (re.compile(r"/openapi\.json"), {"GET": lambda visit: Answer(orjson.dumps(document()))}),
            (re.compile("/metrics"), {"GET": self.expose}),
            (re.compile("/livez"), {"GET": lambda visit: Answer(b"ok\n", media=TEXT)}),
            (re.compile("/readyz"), {"GET": self.ready}),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; an unexpected error is logged, and its details are not sent to the caller."""
        if scope["type"] != "http":
            await lifespan(scope, receive, send)
            return
        start, request = perf_counter(), Request(scope, receive, send)
        visit = Visit(request, {}, {}, b"", "other")
        try:
            answer = await self._answer(visit)
        except Gone:
            return
        except HttpRefused as err:
            answer = err.answer
        except Exception as err:
            LOG.error("failed", exc_info=err, extra={"facts": {"request_id": request.id, "path": visit.path}})
            answer = problem(500, "Internal server error", "the error is in the service's log")
        answer.headers = SAFE | answer.headers
        await request.reply(answer)
        seconds = perf_counter() - start
        self.counts.request(visit.model, visit.path, answer.status, seconds)
        wanted = self.desk.settings.service.access_log
        if wanted == "all" or (wanted == "failed" and answer.status >= 400):
            facts = {"request_id": request.id, "method": scope["method"], "path": visit.path, "status": answer.status,
                     "ms": round(seconds * 1e3, 3), "caller": request.caller, "model": visit.model}  # fmt: skip
            LOG.log(logging.ERROR if answer.status >= 500 else logging.INFO, "request", extra={"facts": facts})

    async def _answer(self, visit: Visit) -> Answer:
        scope = visit.request.scope
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        for pattern, handlers in self.routes:
            match = pattern.fullmatch(scope["path"])
            if match is None:
                continue
            visit.found = match.groupdict()
            visit.path = scope["path"].replace(visit.found.get("id", "\0"), "ID")
            if method not in handlers:
                allow = ", ".join(handlers)
                return problem(405, "Method not allowed", f"allowed: {allow}", {"allow": allow})
            asked = _fields(scope["query_string"].decode("latin-1"), "query")
            visit.query = {name: values[0] for name, values in asked.items()}
            if method == "POST":
                visit.body = await visit.request.body(LARGEST, SECONDS)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, partial(self._done, handlers[method], visit))
        return problem(404, "Not found", "the interface is /decisions, described by /openapi.json; the web page is /")

    def _done(self, handler: Handler, visit: Visit) -> Answer:
        try:
            return handler(visit)
        except HttpRefused as err:
            return err.answer
        except BadLink as err:
            self._refused(visit, err.reason, "")
            return self._problem(visit, err.status, "Link is not valid", f"{err.reason}: request a new link")
        except (D2CError, ValidationError) as err:
            return self._problem(visit, *_said(err))

    def _problem(self, visit: Visit, status: int, title: str, detail: str) -> Answer:
        page = visit.path.startswith("/d/") and visit.wants_page
        return pages.trouble(status, title, detail) if page else problem(status, title, detail)

    def _refused(self, visit: Visit, reason: str, model: str) -> None:
        """Log and count a refused caller."""
        self.counts.refused.labels(model, reason).inc()
        facts = {"request_id": visit.request.id, "reason": reason, "caller": visit.request.caller, "path": visit.path,
                 "model": model, "decision": visit.found.get("id")}  # fmt: skip
        LOG.warning("caller refused", extra={"facts": facts})

    # --- with an API key

    def _holder(self, visit: Visit, model: str | None = None) -> Key:
        """Return the caller's API key. Raises HttpRefused unless it has the scope decide, for `model` where one is given."""
        key, reason = self.desk.keyring.holder(token_of(visit.request), self.desk.clock())
        visit.request.caller = key.id if key else None
        if key is not None and reason is None:
            reason = refused(key, model or (key.models[0] if key.models else ""), DECIDE)
        if reason is not None or key is None:
            self._refused(visit, reason or "no key", model or "")
            raise HttpRefused(unwelcome(reason or "no key", model or "decisions"))
        return key

    def list(self, visit: Visit) -> Answer:
        """GET /decisions: decisions about the models of the API key."""
        key = self._holder(visit)
        wanted = [each for each in visit.query.get("status", "").split(" ") if each] or None
        if unknown := set(wanted or ()) - set(STATUSES):
            return problem(400, "Unknown status", f"{', '.join(sorted(unknown))}: use one of {', '.join(STATUSES)}")
        limit = _number(visit.query.get("limit", str(LISTED)))
        models = [visit.query["model"]] if "model" in visit.query else None
        if models and not key.opens(models[0]):
            self._refused(visit, "key of another model", models[0])
            return unwelcome("key of another model", models[0])
        if models is None and not key.opens("*"):
            models = [*key.models]
        found = listed(self.desk.ledger, models, wanted, limit=limit)
        known = bases(self.desk.ledger, found)
        contracts = {(each.model, each.version): _contract(self.desk.ledger, each) for each in found}
        told = [
            each.to_dict()
            | known[each.id]
            | {"shown": pages.facts(each, known[each.id], contracts[each.model, each.version])}
            for each in found
        ]
        return Answer(orjson.dumps({"decisions": told}))

    def _found(self, visit: Visit) -> tuple[Key, Decision]:
        self._holder(visit)
        decision = self._decision(visit)
        return self._holder(visit, decision.model), decision

    def _decision(self, visit: Visit) -> Decision:
        try:
            decision = find(self.desk.ledger, visit.found["id"])
        except UsageError as err:
            raise HttpRefused(problem(404, "Decision not found", err.what)) from None
        visit.model = decision.model
        return decision

    def show(self, visit: Visit) -> Answer:
        """GET /decisions/ID: the decision, its prediction and its events."""
        _, decision = self._found(visit)
        return Answer(orjson.dumps(_whole(self.desk.ledger, decision)))

    def decide(self, visit: Visit) -> Answer:
        """POST /decisions/ID/approve, reject, edit: {"reason": …, "value": …}."""
        key, decision = self._found(visit)
        if visit.body:
            check_json(visit.request)
        body = Body.model_validate_json(visit.body or b"{}", strict=True)
        if visit.found["action"] != "edit" and body.value is not None:
            return problem(400, "Only edit accepts a value", f"use POST /decisions/{decision.id}/edit")
        made, new = self._decided(visit, decision, key.name, body, "api")
        answer = Answer(orjson.dumps(made.to_dict()))
        answer.headers |= {} if new else {"idempotency_replayed": "true"}
        return answer

    def _decided(
        self, visit: Visit, decision: Decision, by: str, body: Body, how: str, nonce: str = ""
    ) -> tuple[Decision, bool]:
        policy = Policy.of(decision.model, self.desk.settings)
        try:
            made, new = decide(
                self.desk.ledger, policy, decision.id, visit.found["action"], by=by, now=self.desk.clock(),
                value=body.value, reason=body.reason, how=how, nonce=nonce,
            )  # fmt: skip
        except NotAllowed:
            self._refused(visit, "not a decider", decision.model)
            raise
        except Replayed:
            self._refused(visit, "replayed link", decision.model)
            raise
        facts = {"decision": made.id, "model": made.model, "verdict": made.verdict, "by": by, "how": how}
        LOG.info("decided", extra={"facts": facts})
        self.desk.wake()
        return made, new

    # --- with a link

    def _link(self, visit: Visit) -> tuple[Link, Decision]:
        link = verified(visit.found["id"], visit.found["action"], visit.query, self.desk.links, self.desk.clock())
        visit.request.caller = link.by
        decision = self._decision(visit)
        query = select(decision_links.c.nonce).where(decision_links.c.nonce == link.nonce)
        with self.desk.ledger.read() as connection:
            used = connection.execute(query).first() is not None
        if used:
            self._refused(visit, "replayed link", decision.model)
            raise Replayed(f"{closed(decision).what}; a link is valid for one decision", where=decision.id)
        return link, decision

    def ask(self, visit: Visit) -> Answer:
        """GET of a link: a confirmation page. It decides nothing, because mail programs open links."""
        link, decision = self._link(visit)
        if decision.status != "pending" or decision.deadline_at <= self.desk.clock():
            raise closed(decision)
        contract = _contract(self.desk.ledger, decision)
        return pages.confirm(decision, basis(self.desk.ledger, decision), link.action, link.by, contract=contract)

    def click(self, visit: Visit) -> Answer:
        """POST of a link: approve, reject or edit the decision."""
        link, decision = self._link(visit)
        asked = _fields(visit.body.decode("utf-8", "replace"), "form")
        form = {name: values[0] for name, values in asked.items()}
        body = Body(reason=form.get("reason", "").strip()[:LONGEST])
        try:
            if link.action == "edit":
                policy = Policy.of(decision.model, self.desk.settings)
                fields = policy.check(contract_of(self.desk.ledger, decision.model, decision.version))
                body.value = read_value(fields, form.get("value", ""))
            made, _ = self._decided(visit, decision, link.by, body, "link", link.nonce)
        except DataRefused as err:
            if not visit.wants_page:
                raise
            contract = _contract(self.desk.ledger, decision)
            base = basis(self.desk.ledger, decision)
            return pages.confirm(decision, base, link.action, link.by, err.what, form, contract)
        return (
            pages.done(made, _contract(self.desk.ledger, made))
            if visit.wants_page
            else Answer(orjson.dumps(made.to_dict()))
        )

    # --- operations

    def expose(self, visit: Visit) -> Answer:
        """GET /metrics: statistics of all policies and refused callers."""
        body, media = counted()
        now = self.desk.clock()
        found = [stats(self.desk.ledger, each.model, now, SPAN) for each in policies(self.desk.settings)]
        return Answer(body + exposition(found), media=media)

    def ready(self, visit: Visit) -> Answer:
        """GET /readyz: whether the ledger answers."""
        with self.desk.ledger.read() as connection:
            connection.execute(select(1))
        return Answer(b"ok\n", media=TEXT)


def _whole(ledger: Ledger, decision: Decision) -> dict[str, Any]:
    base = basis(ledger, decision)
    told = pages.facts(decision, base, _contract(ledger, decision))
    return decision.to_dict() | base | {"shown": told, "events": events(ledger, decision)}


def _contract(ledger: Ledger, decision: Decision) -> Contract | None:
    """Return the contract of the version that predicted; None where the ledger no longer has it."""
    try:
        return contract_of(ledger, decision.model, decision.version)
    except UsageError:
        return None


def _fields(text: str, where: str) -> dict[str, list[str]]:
    """Return the fields of a query or a form. Raises HttpRefused where there are too many."""
    try:
        return parse_qs(text, max_num_fields=FIELDS)
    except ValueError:
        raise HttpRefused(problem(400, f"The {where} has too many fields", f"at most {FIELDS}")) from None


def _number(text: str) -> int:
    """Return how many decisions are wanted. Raises HttpRefused."""
    if text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= MOST:
        return int(text)
    raise HttpRefused(problem(400, "Limit is not valid", f"limit is a number from 0 to {MOST}"))


def _said(err: D2CError | ValidationError) -> tuple[int, str, str]:
    """Return the status, the title and the detail of an error."""
    if isinstance(err, ValidationError):
        first = err.errors(include_url=False, include_input=False)[0]
        return 400, "Malformed request body", f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
    for kind, status, title in (
        (NotAllowed, 403, "Not allowed to decide"),
        (Replayed, 410, "Link already used"),
        (Closed, 409, "Decision is closed"),
        (DataRefused, 422, "Value not allowed"),
        (Temporary, 503, "Ledger unavailable"),
    ):
        if isinstance(err, kind):
            return status, title, err.what
    return 409, "Decision not possible", err.what
