"""Python, by httpx."""

from __future__ import annotations

import keyword
from typing import Any

from d2c_mlops.models.core.contract import Contract, Field
from d2c_mlops.serving.clients import Language, pascal, rollout_fields, said

TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "date": "str", "date-time": "str"}

TEMPLATE = '''"""Client of the model {model}, contract {version}. Made by `d2c contract client`: make it again rather than edit it.

Dates are ISO 8601 texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, NotRequired, TypedDict

import httpx

CONTRACT = "{version}"

{types}

class Refused(Exception):
    """The service refused a request: what it said, by RFC 9457."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{{status}} {{problem.get('title', '')}}: {{problem.get('detail', '')}}")
        self.status = status
        self.problem = problem


class Client:
    """Asks {model}. `key` is an API key; `transport` takes another way to the service, for tests."""

    def __init__(
        self, url: str, key: str = "", timeout: float = 10.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {{"authorization": f"Bearer {{key}}"}} if key else {{}}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, records: Sequence[Record], idempotency_key: str = "") -> list[Prediction]:
        """Return one prediction per record, in the same order."""
        answer: list[Prediction] = self._post("/v{major}/predict", {{"records": list(records)}}, idempotency_key)["predictions"]
        return answer
{explain}
    def feedback(
        self,
        prediction_id: str,
        action: Literal["followed", "ignored", "overridden", "outcome"],
        reason: str | None = None,
        value: float | bool | str | None = None,
    ) -> str:
        """Tell what became of a prediction; returns the feedback's id."""
        told = {{"prediction_id": prediction_id, "action": action, "reason": reason, "value": value}}
        answer = self._post("/v{major}/feedback", {{name: one for name, one in told.items() if one is not None}})
        return str(answer["feedback_id"])

    def _post(self, path: str, body: Mapping[str, Any], idempotency_key: str = "") -> dict[str, Any]:
        headers = {{"idempotency-key": idempotency_key}} if idempotency_key else {{}}
        response = self._http.post(path, json=body, headers=headers)
        try:
            answer: dict[str, Any] = response.json()
        except ValueError:
            answer = {{"title": "no JSON", "detail": response.text[:200]}}
        if response.is_error:
            raise Refused(response.status_code, answer)
        spoken = str(answer.get("contract", CONTRACT))
        if spoken.split(".")[0] != CONTRACT.split(".")[0]:
            raise Refused(response.status_code, {{"title": "another contract", "detail": f"it speaks {{spoken}}, not {{CONTRACT}}"}})
        return answer
'''

EXPLAIN = '''
    def explain(self, records: Sequence[Record], idempotency_key: str = "") -> list[Explained]:
        """Return one prediction per record, with its reasons."""
        answer: list[Explained] = self._post("/v%d/explain", {"records": list(records)}, idempotency_key)["predictions"]
        return answer
'''


def write(model: str, contract: Contract, explains: bool) -> str:
    """Return the source of the client."""
    types = [
        _typed("Record", contract.input_fields, "What one record holds."),
        _typed("Prediction", contract.output_fields, "What is said of one record.", {"prediction_id": "str"}),
    ]
    if explains:
        more = {"prediction_id": "str", "reasons": "list[str]"}
        types.append(_typed("Explained", contract.output_fields, "A prediction with its reasons.", more))
    text = TEMPLATE.format(
        model=model,
        version=contract.version,
        types="\n".join(types),
        explain=EXPLAIN % contract.major if explains else "",
        major=contract.major,
    )
    return text


def _typed(name: str, fields: tuple[Field, ...], doc: str, first: dict[str, str] | None = None) -> str:
    optional = name == "Record"
    rows = [(one, kind, "") for one, kind in (first or {}).items()]
    rows += [(one.name, _type(one, optional), said(one)) for one in fields]
    if not optional:
        rows += [(name, _answered(one), one["description"]) for name, one in rollout_fields(fields).items()]
    if all(one.isidentifier() and not keyword.iskeyword(one) for one, _, _ in rows):
        lines = [f"    {one}: {kind}{f'  # {words}' if words else ''}" for one, kind, words in rows]
        return "\n".join(["", f"class {name}(TypedDict):", f'    """{doc}"""', "", *lines, ""])
    lines = [f"    {one!r}: {kind},{f'  # {words}' if words else ''}" for one, kind, words in rows]
    return "\n".join(["", f"# {doc}", f'{name} = TypedDict("{name}", {{', *lines, "})", ""])


def _type(field: Field, optional: bool) -> str:
    kind = f"Literal[{', '.join(map(repr, field.choices))}]" if field.choices else TYPES[field.kind]
    if field.nullable:
        return f"NotRequired[{kind} | None]" if optional else f"{kind} | None"
    return kind


def _answered(schema: dict[str, Any]) -> str:
    kind = f"Literal[{', '.join(map(repr, schema['enum']))}]" if "enum" in schema else TYPES[schema["type"]]
    return f"NotRequired[{kind}]"


LANGUAGE = Language("python", ".py", write)
__all__ = ["LANGUAGE", "pascal", "write"]
