"""Request predictions from a service and compare them with local predictions."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from d2c_mlops.errors import D2CError
from d2c_mlops.models.core.contract import to_frame, to_records
from d2c_mlops.models.core.model import Model


def compare_predictions(model: Model, records: list[dict[str, Any]], answer: dict[str, Any]) -> str:
    """Compare served predictions with local ones, to the last digit. Raises D2CError if they differ."""
    contract = model.contract
    parsed = contract.request_list.validate_json(json.dumps(records))
    frame = to_frame(contract.input_fields, [record.model_dump() for record in parsed])
    mine = json.loads(json.dumps(to_records(contract.output_fields, model.predict(frame))))
    served = [{k: v for k, v in row.items() if k != "prediction_id"} for row in answer["predictions"]]
    different = [i for i, (a, b) in enumerate(zip(mine, served, strict=True)) if a != b]
    if different:
        first = different[0]
        raise D2CError(
            f"{len(different)} served predictions differ; the first is {served[first]} instead of {mine[first]}"
        )
    return f"{len(served)} predictions over HTTP equal the local ones"


def request_predictions(url: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the response of a service to records."""
    body = json.dumps({"records": records}).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        answers: dict[str, Any] = json.loads(answer.read())
        return answers
