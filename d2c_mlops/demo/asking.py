"""Ask a service, and hold its answers beside those computed here."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from d2c_mlops.errors import D2CError
from d2c_mlops.models.core.contract import to_frame, to_records
from d2c_mlops.models.core.model import Model


def same(model: Model, records: list[dict[str, Any]], answer: dict[str, Any]) -> str:
    """Compare a served answer with the prediction made here, to the last digit. Raises D2CError when they differ."""
    contract = model.contract
    parsed = contract.request_list.validate_json(json.dumps(records))
    frame = to_frame(contract.input_fields, [record.model_dump() for record in parsed])
    mine = json.loads(json.dumps(to_records(contract.output_fields, model.predict(frame))))
    served = [{k: v for k, v in row.items() if k != "prediction_id"} for row in answer["predictions"]]
    different = [i for i, (a, b) in enumerate(zip(mine, served, strict=True)) if a != b]
    if different:
        first = different[0]
        raise D2CError(f"{len(different)} served answers differ, first {served[first]} from {mine[first]}")
    return f"{len(served)} answers over HTTP equal those computed here"


def ask(url: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a service answers about records."""
    body = json.dumps({"records": records}).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        found: dict[str, Any] = json.loads(answer.read())
        return found
