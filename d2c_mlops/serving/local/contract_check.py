"""Contract check of a running service, for pipelines before a rollout."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from d2c_mlops.errors import UsageError
from d2c_mlops.models.core.contract import TERMS, Contract, contract_to_dict, to_frame
from d2c_mlops.serving.app.auth import PROBING
from d2c_mlops.serving.http.api_keys import PROBE
from d2c_mlops.serving.http.messages import PROBED
from d2c_mlops.serving.predict import synthetic

Ask = Callable[..., "Reply"]


@dataclass(frozen=True)
class Check:
    """One check of a service and its result."""

    what: str
    holds: bool
    said: str = ""

    def __str__(self) -> str:
        return f"{'ok' if self.holds else 'no'}  {self.what}{f': {self.said}' if self.said else ''}"


@dataclass(frozen=True)
class Reply:
    """A response; status 0 when there was none."""

    status: int
    kind: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)  # by names in lower case

    @property
    def probe(self) -> bool:
        """Whether the service says that the call counts as a probe."""
        return self.headers.get(PROBED[0].decode()) == PROBE

    def json(self) -> Any:
        """Return the JSON of the body; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def smoke(
    url: str, contract: Contract, version: int | None = None, key: str = "", patience: float = 10.0
) -> list[Check]:
    """Run the checks against the service at `url` and return their results; `patience` is the time limit in seconds per call.

    Requests are probes with a synthetic key: with an API key of the scope `probe`, or on this machine while no key is
    required. Raises UsageError before any prediction where the service would count them as a real caller's.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url!r} is not a URL", next="use a URL such as https://demand.staging.example")
    ask = _asker(url.rstrip("/"), key, patience)
    return list(_checks(ask, contract, version, bool(key), url))


def _require_probe(told: Reply, contract: Contract, keyed: bool, url: str) -> None:
    if told.status != 200 or told.probe:
        return
    why = "the API key lacks the scope probe, or is not valid" if keyed else "no API key was given"
    raise UsageError(
        f"the service would count this check as a real caller, and its predictions could become decisions: {why}",
        where=url,
        next=f"`d2c keys create check --model {contract.name} --scope {PROBE}` where the service's keys are made, then --key or D2C_API_KEY",
    )


def _checks(ask: Ask, contract: Contract, version: int | None, keyed: bool, url: str) -> Iterator[Check]:
    ready = ask("/readyz")
    yield Check(
        "/readyz says that the model is loaded", ready.status == 200, "" if ready.status == 200 else _said(ready)
    )
    if ready.status == 0:
        return
    reply = ask("/contract")
    _require_probe(reply, contract, keyed, url)
    told = reply.json() or {}
    mine = contract_to_dict(contract)
    mine = {name: value for name, value in mine.items() if name in told or name not in TERMS}  # older Bentos lack it
    wrong = [name for name, value in mine.items() if told.get(name) != json.loads(json.dumps(value, default=str))]
    yield Check(
        f"/contract is {contract.name} {contract.version}", not wrong, f"other {', '.join(wrong)}" if wrong else ""
    )
    if version is not None:
        found = told.get("model_version")
        yield Check(f"version {version} answers", found == version, "" if found == version else f"version {found}")
    yield Check("/openapi.json has an example", _has_example(ask))
    example = {"records": [synthetic.record(contract)]}
    answer = ask("/predict", example)
    yield Check("/predict answers the example, and the answer matches the contract", *_fits(answer, contract))
    yield Check("its predictions are marked as those of a probe", answer.probe)
    once = {"Idempotency-Key": f"d2c-smoke-{secrets.token_hex(8)}"}
    again = [ask("/predict", example, once) for _ in range(2)]
    yield Check("the same Idempotency-Key gets the same answer", again[0].body == again[1].body)
    own = ask(f"/v{contract.major}/predict", example)
    yield Check(f"/v{contract.major}/predict answers, too", *_fits(own, contract))
    broken = ask("/predict", {"records": [{**example["records"][0], "no_such_field": 1}]})
    problem = broken.status == 400 and broken.kind.startswith("application/problem+json")
    yield Check("an unknown field is refused with 400 and a problem", problem, "" if problem else _said(broken))
    if keyed:
        bare = ask("/predict", example, {"Authorization": ""})
        yield Check("a caller without a key is refused", bare.status == 401, "" if bare.status == 401 else _said(bare))
    metrics = ask("/metrics")
    yield Check("/metrics counts requests", b"d2c_requests_total" in metrics.body)


def _fits(answer: Reply, contract: Contract) -> tuple[bool, str]:
    if answer.status == 422 and answer.kind.startswith("application/problem+json"):
        return (
            True,
            f"the model refuses the synthetic record, so no prediction was compared ({_said(answer)})",
        )
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


def _has_example(ask: Ask) -> bool:
    document = ask("/openapi.json").json() or {}
    try:
        found = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    except (KeyError, TypeError):
        return False
    return isinstance(found, dict) and bool(found.get("records"))


def _asker(url: str, key: str, patience: float) -> Ask:
    def ask(path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        head = {PROBING.decode(): "1", "Content-Type": "application/json", **(headers or {})}
        if key:
            head = {"Authorization": f"Bearer {key}", **head}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, {name: text for name, text in head.items() if text})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=patience) as answer:  # noqa: S310
                told = {name.lower(): text for name, text in answer.headers.items()}
                return Reply(answer.status, told.get("content-type", ""), answer.read(), told)
        except urllib.error.HTTPError as err:
            told = {name.lower(): text for name, text in err.headers.items()}
            return Reply(err.code, told.get("content-type", ""), err.read(), told)
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
