"""Lines of the prediction log."""

import json
from datetime import datetime


def line(id: str, at: datetime, **more: object) -> bytes:
    row = {"kind": "predictions", "id": id, "first": 0, "model": "m", "version": 1, "contract": "1.0.0", "key": "k",
           "variant": "champion", "caller": None, "request_id": "r", "at": at.isoformat(),
           "inputs": [{"k": "a"}, {"k": "b"}], "outputs": [{"k": "a", "y": 1}, {"k": "b", "y": 2}]}  # fmt: skip
    return json.dumps(row | more).encode()


def said(id: str, at: datetime, **more: object) -> bytes:
    row = {"kind": "feedback", "id": id, "model": "m", "prediction_id": None, "key": None, "action": "followed",
           "reason": None, "value": None, "caller": None, "at": at.isoformat()}  # fmt: skip
    return json.dumps(row | more).encode()
