"""Older major versions of a contract that a service still supports, each under its own path until its sunset."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import orjson

from d2c_mlops.models.core.contract import contract_from_dict, to_frame
from d2c_mlops.models.core.model import EXAMPLE_FILE, MODEL_FILE, Model, load
from d2c_mlops.serving.http.messages import HttpAnswer, HttpRefused, Request, problem_answer
from d2c_mlops.serving.predict import openapi
from d2c_mlops.serving.predict.predictor import ServedModel

HOME = Path(__file__).parents[3]  # folder in a Bento that contains this package
FILE, FOLDER = "older.json", "older"
PATH = re.compile(r"/v(\d{1,9})(/.*)?")
WITHOUT = ("/livez", "/healthz", "/readyz", "/metrics")  # paths of the process, independent of the contract


@dataclass(frozen=True)
class OlderContract:
    """An older major version of the contract."""

    major: int
    version: int  # version of the model: its last champion
    contract: str
    newest: int  # the major version that callers should move to
    deprecated: datetime | None  # time of the promotion that replaced it; None before
    sunset: datetime | None  # end of its support; None where no date is set
    served: ServedModel | None = None  # None where its sunset had passed when the service was packaged

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of its answers: Deprecation (RFC 9745), Sunset (RFC 8594) and a Link to its successor."""
        headers = [(b"link", f'</v{self.newest}/contract>; rel="successor-version"'.encode())]
        if self.deprecated is not None:
            headers.append((b"deprecation", f"@{int(self.deprecated.timestamp())}".encode()))
        if self.sunset is not None:
            headers.append((b"sunset", format_datetime(self.sunset, usegmt=True).encode()))
        return headers

    def is_past_sunset(self, now: datetime) -> bool:
        """Whether its sunset has passed."""
        return self.served is None or (self.sunset is not None and now > self.sunset)

    def gone_answer(self) -> HttpAnswer:
        """Return the answer after its sunset: 410."""
        day = f" on {self.sunset:%Y-%m-%d}" if self.sunset is not None else ""
        see = f"its support ended{day}; GET /v{self.newest}/contract describes its successor"
        return problem_answer(410, f"Version {self.major} of the contract is no longer supported", see)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        moments = {
            name: moment.isoformat() if (moment := getattr(self, name)) else None for name in ("deprecated", "sunset")
        }
        return {
            "path": f"/v{self.major}",
            "major": self.major,
            "version": self.version,
            "contract": self.contract,
            "newest": self.newest,
            **moments,
        }


def path_without_major(
    request: Request, served_model: Callable[[], ServedModel], majors: Mapping[int, OlderContract]
) -> str:
    """Return the path after /v1, /v2, …, and store the contract version in the request; empty where there is none.

    Raises HttpRefused with 410 after its sunset.
    """
    match = PATH.fullmatch(request.path)
    if match is None or (path := match[2] or "/") in WITHOUT:
        return ""
    major = int(match[1])
    if major != served_model().model.contract.major:
        old = request.older = majors.get(major)
        if old is None:
            return ""
        if old.is_past_sunset(datetime.now(UTC)):
            raise HttpRefused(old.gone_answer())
    request.path = path
    return path


def bento_packages(home: Path) -> list[str] | None:
    """Return the packages and modules in a Bento's folder, to which class paths are restricted; None outside a Bento."""
    if not (home / "version.json").exists():
        return None
    return [path.stem for path in home.iterdir() if path.is_dir() or path.suffix == ".py"]


def load_model(folder: Path) -> Model:
    """Load a model; one with an older major version than its class keeps the contract that it was saved with."""
    model = load(folder, bento_packages(HOME))
    contract = contract_from_dict(json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))["contract"])
    if contract.major != model.contract.major:
        model.contract = contract  # type: ignore[misc]
    return model


def older_contracts(home: Path, serve: Callable[[Path, dict[str, Any]], ServedModel]) -> dict[int, OlderContract]:
    """Return the older major versions in a Bento, loaded by `serve`. Its exceptions are raised, so that no version is dropped silently."""
    file, contracts = home / FILE, {}
    for entry in json.loads(file.read_text(encoding="utf-8")) if file.exists() else ():
        since, until = (
            datetime.fromisoformat(entry[name]) if entry[name] else None for name in ("deprecated", "sunset")
        )
        contract = OlderContract(entry["major"], entry["version"], entry["contract"], entry["newest"], since, until)
        folder = home / FOLDER / str(contract.major)
        if folder.is_dir() and not (until is not None and datetime.now(UTC) > until):
            served = serve(folder, entry["about"])
            contract = replace(
                contract, served=replace(served, openapi_document=orjson.dumps(older_openapi_document(served)))
            )
        contracts[contract.major] = contract
    return contracts


def older_openapi_document(served_model: ServedModel) -> dict[str, Any]:
    """Return the OpenAPI document of an older major version: under its path, and deprecated."""
    whole = openapi.openapi_document(served_model)
    for methods in whole["paths"].values():
        for operation in methods.values():
            operation["deprecated"] = True
    paths = {path: methods_ for path, methods_ in whole["paths"].items() if path not in WITHOUT}
    return {**whole, "servers": [{"url": f"/v{served_model.model.contract.major}"}], "paths": paths}


def contract_breach(folder: Path) -> str:
    """Return why a saved model breaks its saved contract with the current code; empty when it does not."""
    try:
        model = load_model(folder)
        example_file = folder / EXAMPLE_FILE
        example = (
            json.loads(example_file.read_text(encoding="utf-8")) if example_file.exists() else model.contract.example()
        )
        served = ServedModel(model, model.contract.name, 0, {}, example)
        result = served.predict(json.dumps({"records": [example]}).encode(), "0", served.explains)
        fields = model.contract.output_fields
        missing = sorted({field.name for field in fields} - set(result.outputs[0]))
        if missing:
            return f"its answer lacks {', '.join(missing)}"
        model.contract.check_outputs(to_frame(fields, result.outputs))
    except Exception as err:
        return f"{type(err).__name__}: {str(err).strip().splitlines()[0] if str(err).strip() else ''}"
    return ""
