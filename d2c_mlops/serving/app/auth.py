"""Authentication and idempotency."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hashlib import blake2b
from math import ceil

import orjson

from d2c_mlops.serving.http.api_keys import ASK, Keyring, refusal_reason
from d2c_mlops.serving.http.idempotency import Conflict, Full, IdempotencyStore, request_identity
from d2c_mlops.serving.http.messages import HttpAnswer, HttpRefused, Request, problem_answer
from d2c_mlops.serving.http.metrics import Metrics
from d2c_mlops.serving.predict.predictor import ServedModel
from d2c_mlops.serving.predict.privacy import body_key, decrypt_answer, encrypt_answer

KEY_FORM = re.compile(r"[!-~]{1,200}")  # an Idempotency-Key
LOG = logging.getLogger("d2c.service")


PROBING = b"x-d2c-probe"  # header that marks a probe from this machine while no API key is required
HERE = ("127.0.0.1", "::1")
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")  # the caller is not on this machine


def require_valid_key(keyring: Keyring, request: Request, served_model: ServedModel, metrics: Metrics) -> None:
    """Raise HttpRefused, log and count unless the caller has an API key for the model."""
    key, reason = keyring.key_of_token(request_api_key(request), datetime.now(UTC))
    if key is not None:
        request.caller, request.probe = key.id, key.probes
        reason = reason or refusal_reason(key, served_model.name, ASK)
    if reason is None:
        return
    metrics.refused.labels(served_model.name, served_model.label, reason).inc()
    facts = {"request_id": request.id, "reason": reason, "caller": request.caller, "model": served_model.name}
    LOG.warning("caller refused", extra={"facts": facts})
    raise HttpRefused(unauthorized_answer(reason, served_model.name))


def request_api_key(request: Request) -> str | None:
    """Return the API key that a request carries."""
    authorization = request.header(b"authorization") or b""
    bearer = authorization[7:].strip() if authorization[:7].lower() == b"bearer " else request.header(b"x-api-key")
    return bearer.decode("latin-1") if bearer is not None else None


def unauthorized_answer(reason: str, model: str) -> HttpAnswer:
    """Return the answer to a refused caller: 403 for a valid key without the permission, else 401."""
    if reason == "key of another model":
        return problem_answer(403, "API key is for another model", f"use a key for {model}")
    if reason.startswith("key without"):
        return problem_answer(403, "API key lacks the required scope", f"{reason}: use another key for {model}")
    headers = {"www_authenticate": 'Bearer realm="d2c"'}
    return problem_answer(401, "A valid API key is required", f"{reason}: send Authorization: Bearer KEY", headers)


def is_local(request: Request) -> bool:
    """Whether a caller is on this machine, by the address of the connection; headers are not trusted."""
    client = request.scope.get("client")
    return client is not None and client[0] in HERE and not any(request.header(name) for name in FORWARDED)


async def answer_once(
    store: IdempotencyStore | None,
    request: Request,
    served_model: ServedModel,
    key: bytes,
    body: bytes,
    compute_answer: Callable[[bytes, str], Awaitable[HttpAnswer]],
) -> HttpAnswer:
    """Answer a request with an Idempotency-Key: it is processed once, a repetition gets the stored answer.

    Stored answers of a model with personal fields are encrypted under the log's secret and the request's body. Without a secret
    they are not stored, and a repeated request is processed again with the same ids. Raises HttpRefused with 503 where no answer can
    be stored.
    """
    text = key.decode("latin-1")
    if not KEY_FORM.fullmatch(text):
        why = "1 to 200 visible characters of ASCII, without spaces"
        raise HttpRefused(problem_answer(400, "Malformed Idempotency-Key", why))
    digest = former = blake2b(body, digest_size=16).hexdigest()
    secret = b""
    if served_model.mask is not None:
        store, secret = (store if served_model.secret else None), body_key(body, served_model.secret)
        digest = blake2b(secret, digest_size=16).hexdigest()
    scope = f"{served_model.name}{request.scope['path']} {request.caller}{' probe' if request.probe else ''}"
    loop = asyncio.get_running_loop()
    try:
        began: float | str = f"{datetime.now(UTC):%Y-%m-%d}"
        stored_answer = b""
        if store is not None:
            began, stored_answer = await loop.run_in_executor(None, store.begin, scope, text, digest, former)
        if not stored_answer:
            # An id derived from the request, so that a repetition after a crash is recognised.
            answer = await compute_answer(body, request_identity(scope, text, digest, served_model.label, str(began)))
            if store is None:
                return answer
            packed = orjson.dumps([answer.status, answer.headers.get("x_prediction_logged")]) + b"\n" + answer.body
            packed = encrypt_answer(packed, secret) if secret else packed
            stored_answer = await loop.run_in_executor(None, store.store_answer, scope, text, digest, packed)
            if stored_answer == packed:
                return answer
    except Conflict:
        why = "use a new key for a new body"
        raise HttpRefused(problem_answer(422, "Idempotency-Key was already used with another body", why)) from None
    except Full as err:
        why, wait = f"{err.why}; retry later, or without the Idempotency-Key", {"retry_after": str(ceil(err.wait))}
        raise HttpRefused(problem_answer(503, "Answer cannot be stored", why, wait)) from None
    head, _, body = decrypt_answer(stored_answer, secret).partition(b"\n")
    status, logged = orjson.loads(head)
    again = {"x_prediction_logged": logged} if logged else {}
    return HttpAnswer(body, status, idempotency_replayed="true", **again)
