"""The Bento service: loads the model that lies beside it and mounts the application."""

from __future__ import annotations

import json
import os
from pathlib import Path

import bentoml

from ..lifetimes import die_with_parent
from ..models.model import EXAMPLE_FILE, load
from .app import Served, create_app

FOLDER = Path(os.environ.get("D2C_MODEL_FOLDER") or Path(__file__).parents[2] / "model")
loaded: list[Served] = []
app = create_app(lambda: loaded[0])


@bentoml.service(name="d2c", traffic={"timeout": 60})
@bentoml.asgi_app(app, path="/")
class Service:
    """One model, whichever it is."""

    def __init__(self) -> None:
        die_with_parent()  # a worker does not outlive a supervisor that was killed
        about = json.loads((FOLDER.parent / "version.json").read_text(encoding="utf-8"))
        model, kept = load(FOLDER), FOLDER / EXAMPLE_FILE
        example = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else model.contract.example()
        served = Served(model, about["model"], about["version"], about, example)
        served.predict(json.dumps({"records": [example]}).encode())  # the first call is the slow one
        loaded[:] = [served]
