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
class ContractCheck:
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


def check_service(
    url: str, contract: Contract, version: int | None = None, key: str = "", timeout: float = 10.0
) -> list[ContractCheck]:
    """Run the checks against the service at `url` and return their results; `timeout` is the time limit in seconds per call.

    Requests are probes with a synthetic key: with an API key of the scope `probe`, or on this machine while no key is
    required. Raises UsageError before any prediction where the service would count them as a real caller's.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url!r} is not a URL", next="use a URL such as https://demand.staging.example")
    ask = _request_function(url.rstrip("/"), key, timeout)
    return list(_run_checks(ask, contract, version, bool(key), url))


def _require_probe(reply: Reply, contract: Contract, keyed: bool, url: str) -> None:
    if reply.status != 200 or reply.probe:
        return
    why = "the API key lacks the scope probe, or is not valid" if keyed else "no API key was given"
    raise UsageError(
        f"the service would count this check as a real caller, and its predictions could become decisions: {why}",
        where=url,
        next=f"`d2c keys create check --model {contract.name} --scope {PROBE}` where the service's keys are made, then --key or D2C_API_KEY",
    )


def _run_checks(ask: Ask, contract: Contract, version: int | None, keyed: bool, url: str) -> Iterator[ContractCheck]:
    ready = ask("/readyz")
    yield ContractCheck(
        "/readyz says that the model is loaded", ready.status == 200, "" if ready.status == 200 else _detail_of(ready)
    )
    if ready.status == 0:
        return
    reply = ask("/contract")
    _require_probe(reply, contract, keyed, url)
    served_contract = reply.json() or {}
    mine = contract_to_dict(contract)
    mine = {
        name: value for name, value in mine.items() if name in served_contract or name not in TERMS
    }  # older Bentos lack it
    wrong = [
        name for name, value in mine.items() if served_contract.get(name) != json.loads(json.dumps(value, default=str))
    ]
    yield ContractCheck(
        f"/contract is {contract.name} {contract.version}", not wrong, f"other {', '.join(wrong)}" if wrong else ""
    )
    if version is not None:
        served_version = served_contract.get("model_version")
        yield ContractCheck(
            f"version {version} answers",
            served_version == version,
            "" if served_version == version else f"version {served_version}",
        )
    yield ContractCheck("/openapi.json has an example", _has_example(ask))
    example = {"records": [synthetic.synthetic_record(contract)]}
    answer = ask("/predict", example)
    yield ContractCheck(
        "/predict answers the example, and the answer matches the contract", *_matches_contract(answer, contract)
    )
    yield ContractCheck("its predictions are marked as those of a probe", answer.probe)
    once = {"Idempotency-Key": f"d2c-smoke-{secrets.token_hex(8)}"}
    again = [ask("/predict", example, once) for _ in range(2)]
    yield ContractCheck("the same Idempotency-Key gets the same answer", again[0].body == again[1].body)
    versioned = ask(f"/v{contract.major}/predict", example)
    yield ContractCheck(f"/v{contract.major}/predict answers, too", *_matches_contract(versioned, contract))
    broken = ask("/predict", {"records": [{**example["records"][0], "no_such_field": 1}]})
    problem = broken.status == 400 and broken.kind.startswith("application/problem+json")
    yield ContractCheck(
        "an unknown field is refused with 400 and a problem", problem, "" if problem else _detail_of(broken)
    )
    if keyed:
        bare = ask("/predict", example, {"Authorization": ""})
        yield ContractCheck(
            "a caller without a key is refused", bare.status == 401, "" if bare.status == 401 else _detail_of(bare)
        )
    metrics = ask("/metrics")
    yield ContractCheck("/metrics counts requests", b"d2c_requests_total" in metrics.body)


def _matches_contract(answer: Reply, contract: Contract) -> tuple[bool, str]:
    if answer.status == 422 and answer.kind.startswith("application/problem+json"):
        return (
            True,
            f"the model refuses the synthetic record, so no prediction was compared ({_detail_of(answer)})",
        )
    if answer.status != 200:
        return False, _detail_of(answer)
    rows = (answer.json() or {}).get("predictions") or []
    names = {field.name for field in contract.output_fields}
    missing = sorted(names - set(rows[0])) if rows else sorted(names)
    if missing:
        return False, f"without {', '.join(missing)}"
    try:
        outputs = [{name: row[name] for name in names} for row in rows]
        contract.outputs.validate(to_frame(contract.output_fields, outputs), lazy=True)
    except Exception as err:
        return False, str(err).splitlines()[0]
    return True, ""


def _has_example(ask: Ask) -> bool:
    document = ask("/openapi.json").json() or {}
    try:
        example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    except (KeyError, TypeError):
        return False
    return isinstance(example, dict) and bool(example.get("records"))


def _request_function(url: str, key: str, timeout: float) -> Ask:
    def ask(path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        head = {PROBING.decode(): "1", "Content-Type": "application/json", **(headers or {})}
        if key:
            head = {"Authorization": f"Bearer {key}", **head}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, {name: text for name, text in head.items() if text})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
                reply_headers = {name.lower(): text for name, text in answer.headers.items()}
                return Reply(answer.status, reply_headers.get("content-type", ""), answer.read(), reply_headers)
        except urllib.error.HTTPError as err:
            reply_headers = {name.lower(): text for name, text in err.headers.items()}
            return Reply(err.code, reply_headers.get("content-type", ""), err.read(), reply_headers)
        except (OSError, HTTPException) as err:
            return Reply(0, "", str(err).encode())

    return ask


def _detail_of(answer: Reply) -> str:
    body = answer.json()
    text = (
        body.get("detail") or body.get("title")
        if isinstance(body, dict)
        else answer.body.decode(errors="replace")[:200]
    )
    return f"{answer.status} {text}" if answer.status else f"no answer ({text})"
