"""Ask a running service whether it keeps its contract: what a pipeline does before callers meet it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from ..errors import UsageError
from ..models.contract import Contract, contract_to_dict, to_frame

Ask = Callable[..., "Reply"]


@dataclass(frozen=True)
class Check:
    """One promise of a service, and whether it holds."""

    what: str
    holds: bool
    said: str = ""

    def __str__(self) -> str:
        return f"{'ok' if self.holds else 'no'}  {self.what}{f': {self.said}' if self.said else ''}"


@dataclass(frozen=True)
class Reply:
    """An answer; status 0 when there was none."""

    status: int
    kind: str
    body: bytes

    def json(self) -> Any:
        """Return the JSON of the body; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def smoke(
    url: str, contract: Contract, version: int | None = None, key: str = "", patience: float = 10.0
) -> list[Check]:
    """Return what was asked of the service at `url` and what came of it; `patience` is seconds a call.

    Its predictions are logged as any caller's are; they come from the example of its own OpenAPI document.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url!r} is no URL", next="give one such as https://demand.staging.example")
    return list(_checks(_asker(url.rstrip("/"), key, patience), contract, version, bool(key)))


def _checks(ask: Ask, contract: Contract, version: int | None, keyed: bool) -> Iterator[Check]:
    ready = ask("/readyz")
    yield Check(
        "/readyz says that the model is loaded", ready.status == 200, "" if ready.status == 200 else _said(ready)
    )
    if ready.status == 0:
        return
    told = ask("/contract").json() or {}
    mine = contract_to_dict(contract)
    wrong = [name for name, value in mine.items() if told.get(name) != json.loads(json.dumps(value, default=str))]
    yield Check(
        f"/contract is {contract.name} {contract.version}", not wrong, f"other {', '.join(wrong)}" if wrong else ""
    )
    if version is not None:
        found = told.get("model_version")
        yield Check(f"version {version} answers", found == version, "" if found == version else f"version {found}")
    example = _example(ask)
    yield Check("/openapi.json has an example", example is not None)
    if example is None:
        return
    answer = ask("/predict", example)
    yield Check("/predict answers the example as the contract says", *_fits(answer, contract))
    again = [ask("/predict", example, {"Idempotency-Key": "d2c-smoke"}).body for _ in range(2)]
    yield Check("the same Idempotency-Key gets the same answer", again[0] == again[1])
    own = ask(f"/v{contract.major}/predict", example)
    yield Check(f"/v{contract.major}/predict answers, too", own.status == 200, "" if own.status == 200 else _said(own))
    broken = ask("/predict", {"records": [{**example["records"][0], "no_such_field": 1}]})
    problem = broken.status == 400 and broken.kind.startswith("application/problem+json")
    yield Check(
        "a field that there is not is refused with 400 and a problem", problem, "" if problem else _said(broken)
    )
    if keyed:
        bare = ask("/predict", example, {"Authorization": ""})
        yield Check("a caller without a key is refused", bare.status == 401, "" if bare.status == 401 else _said(bare))
    metrics = ask("/metrics")
    yield Check("/metrics counts requests", b"d2c_requests_total" in metrics.body)


def _fits(answer: Reply, contract: Contract) -> tuple[bool, str]:
    if answer.status != 200:
        return False, _said(answer)
    rows = (answer.json() or {}).get("predictions") or []
    names = {one.name for one in contract.output_fields}
    missing = sorted(names - set(rows[0])) if rows else sorted(names)
    if missing:
        return False, f"without {', '.join(missing)}"
    try:
        held = [{name: row[name] for name in names} for row in rows]
        contract.outputs.validate(to_frame(contract.output_fields, held), lazy=True)
    except Exception as err:
        return False, str(err).splitlines()[0]
    return True, ""


def _example(ask: Ask) -> dict[str, Any] | None:
    document = ask("/openapi.json").json() or {}
    try:
        found = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    except KeyError:
        return None
    return found if isinstance(found, dict) and found.get("records") else None


def _asker(url: str, key: str, patience: float) -> Ask:
    def ask(path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        head = (
            ({"Authorization": f"Bearer {key}"} if key else {}) | {"Content-Type": "application/json"} | (headers or {})
        )
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, {name: text for name, text in head.items() if text})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=patience) as answer:  # noqa: S310
                return Reply(answer.status, answer.headers.get("content-type", ""), answer.read())
        except urllib.error.HTTPError as err:
            return Reply(err.code, err.headers.get("content-type", ""), err.read())
        except (OSError, HTTPException) as err:
            return Reply(0, "", str(err).encode())

    return ask


def _said(answer: Reply) -> str:
    told = answer.json()
    text = (
        told.get("detail") or told.get("title")
        if isinstance(told, dict)
        else answer.body.decode(errors="replace")[:200]
    )
    return f"{answer.status} {text}" if answer.status else f"no answer ({text})"
