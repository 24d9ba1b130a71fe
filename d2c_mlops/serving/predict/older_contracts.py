"""Older major versions of a contract that a service still answers, each under its own path until its day."""

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
from d2c_mlops.serving.http.messages import Answer, HttpRefused, Request, problem
from d2c_mlops.serving.predict import openapi
from d2c_mlops.serving.predict.predictor import Served

HOME = Path(__file__).parents[3]  # of a Bento, where this package lies in one
FILE, FOLDER = "older.json", "older"
PATH = re.compile(r"/v(\d{1,9})(/.*)?")
WITHOUT = ("/livez", "/healthz", "/readyz", "/metrics")  # these are the process's, whatever it speaks


@dataclass(frozen=True)
class Older:
    """A major version of the contract that is followed by another one."""

    major: int
    version: int  # the model's version that was its last champion
    contract: str
    newest: int  # the major version that callers should move to
    deprecated: datetime | None  # since when there is a newer one; None before that one is champion
    sunset: datetime | None  # until when it is answered; None where no day was set
    served: Served | None = None  # None where its day was over when the service was packaged

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What each of its answers says: Deprecation (RFC 9745), Sunset (RFC 8594) and what follows it."""
        found = [(b"link", f'</v{self.newest}/contract>; rel="successor-version"'.encode())]
        if self.deprecated is not None:
            found.append((b"deprecation", f"@{int(self.deprecated.timestamp())}".encode()))
        if self.sunset is not None:
            found.append((b"sunset", format_datetime(self.sunset, usegmt=True).encode()))
        return found

    def over(self, now: datetime) -> bool:
        """Whether it is answered no more."""
        return self.served is None or (self.sunset is not None and now > self.sunset)

    def gone(self) -> Answer:
        """Return what callers are told once it is over."""
        day = f" on {self.sunset:%Y-%m-%d}" if self.sunset is not None else ""
        see = f"its support ended{day}; GET /v{self.newest}/contract describes its successor"
        return problem(410, f"Version {self.major} of the contract is no longer supported", see)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        moments = {name: one.isoformat() if (one := getattr(self, name)) else None for name in ("deprecated", "sunset")}
        return {
            "path": f"/v{self.major}",
            "major": self.major,
            "version": self.version,
            "contract": self.contract,
            "newest": self.newest,
            **moments,
        }


def of_major(request: Request, served: Callable[[], Served], majors: Mapping[int, Older]) -> str:
    """Return the path behind /v1, /v2, …, and note in the request which version of the contract is asked; empty where none is.

    Raises HttpRefused with 410 for one that is over.
    """
    found = PATH.fullmatch(request.path)
    if found is None or (path := found[2] or "/") in WITHOUT:
        return ""
    major = int(found[1])
    if major != served().model.contract.major:
        old = request.older = majors.get(major)
        if old is None:
            return ""
        if old.over(datetime.now(UTC)):
            raise HttpRefused(old.gone())
    request.path = path
    return path


def packages_beside(home: Path) -> list[str] | None:
    """Return the packages and modules in a Bento's folder, the only ones that its models' classes may lie in; None elsewhere."""
    if not (home / "version.json").exists():
        return None
    return [path.stem for path in home.iterdir() if path.is_dir() or path.suffix == ".py"]


def loaded(folder: Path) -> Model:
    """Load a model; one of another major version of its class's contract keeps the contract that it was saved with."""
    model = load(folder, packages_beside(HOME))
    contract = contract_from_dict(json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))["contract"])
    if contract.major != model.contract.major:
        model.contract = contract  # type: ignore[misc]
    return model


def older(home: Path, serve: Callable[[Path, dict[str, Any]], Served]) -> dict[int, Older]:
    """Return the older major versions in a Bento; `serve` loads one. Raises what it raises: a promise is not dropped silently."""
    file, found = home / FILE, {}
    for told in json.loads(file.read_text(encoding="utf-8")) if file.exists() else ():
        since, until = (datetime.fromisoformat(told[name]) if told[name] else None for name in ("deprecated", "sunset"))
        made = Older(told["major"], told["version"], told["contract"], told["newest"], since, until)
        folder = home / FOLDER / str(made.major)
        if folder.is_dir() and not (until is not None and datetime.now(UTC) > until):
            served = serve(folder, told["about"])
            vars(served)["document"] = orjson.dumps(document(served))
            made = replace(made, served=served)
        found[made.major] = made
    return found


def document(served: Served) -> dict[str, Any]:
    """Return the OpenAPI document of an older major version: under its path, and deprecated."""
    made = openapi.document(served)
    for methods in made["paths"].values():
        for operation in methods.values():
            operation["deprecated"] = True
    paths = {path: one for path, one in made["paths"].items() if path not in WITHOUT}
    return {**made, "servers": [{"url": f"/v{served.model.contract.major}"}], "paths": paths}


def breach(folder: Path) -> str:
    """Return why a saved model does not keep the contract that it was saved with under today's code; empty when it does."""
    try:
        model = loaded(folder)
        kept = folder / EXAMPLE_FILE
        example = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else model.contract.example()
        served = Served(model, model.contract.name, 0, {}, example)
        made = served.predict(json.dumps({"records": [example]}).encode(), "0", served.explains)
        fields = model.contract.output_fields
        missing = sorted({each.name for each in fields} - set(made.outputs[0]))
        if missing:
            return f"its answer lacks {', '.join(missing)}"
        model.contract.check_outputs(to_frame(fields, made.outputs))
    except Exception as err:
        return f"{type(err).__name__}: {str(err).strip().splitlines()[0] if str(err).strip() else ''}"
    return ""
