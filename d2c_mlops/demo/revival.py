"""The other story of the demo: a notebook of 2019 is checked, converted, verified, packaged, and asked over HTTP."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from d2c_mlops import __version__
from d2c_mlops.demo.asking import ask, same
from d2c_mlops.errors import D2CError
from d2c_mlops.file_lock import lock
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import to_records
from d2c_mlops.registry.promotion_history import live
from d2c_mlops.registry.versions import load_version
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.serving.local.server import free_port, serving
from d2c_mlops.serving.package.bento import package
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.settings import Settings, load

NOTEBOOK = Path(__file__).parent / "churn_2019.ipynb"
NAME = "churn_2019"
PATIENCE = 900.0  # seconds that a second demo in the same store waits for the first
Step = Callable[[str], Any]  # a context that times a step and takes what it tells
Progress = Callable[[dict[str, Any]], None]


def available() -> str:
    """Say what is missing before a notebook can be converted here; empty where nothing is."""
    return "" if find_spec("nbdev") else "it needs nbdev: pip install 'd2c_mlops[convert]'"


def revival(settings: Settings, step: Step, progress: Progress) -> dict[str, Any]:
    """Walk the way of an old notebook in a project of its own below the store; return what came of it."""
    root = settings.store / "demo" / "oldshop"
    with lock(root, "the old notebook's project", PATIENCE):
        return _walk(root, step, progress)


def _walk(root: Path, step: Step, progress: Progress) -> dict[str, Any]:
    from d2c_mlops.convert.check.check import check

    copy = root / "old" / NOTEBOOK.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(NOTEBOOK.read_bytes())
    if not (root / "settings.ini").exists():
        (root / "settings.ini").write_text("[d2c]\nstore = d2c_store\n", encoding="utf-8")
    with step("check") as told:
        found = check(copy).findings
        errors = sum(each.severity == "error" for each in found)
        told.append(f"{copy.name}: {errors} things that break on today's libraries, {len(found) - errors} more to know")
    with step("convert") as told:
        converted = _converted(copy, root, told)
    held = load(root, environ={})
    with _importable(root), step("package") as told:
        ran = run(converted["written"]["notebook"], {}, held, progress=progress)
        promote(NAME, held, by="demo", reason="demo: the charter is the owner's to write", override=True)
        version = live(Ledger.of(held), NAME)
        bento = package(version, held)
        told.append(f"version {version.version} from run {ran.id}, {bento.tag}")
        model = load_version(version, held)
        module = importlib.import_module(converted["written"]["module"])
        trained = module.train(**version.params)
    with step("ask") as told, serving(bento, held, port=free_port()) as server:
        rows = trained["records"].loc[trained["features"].index] if _rows(trained) else trained["records"]
        key = model.contract.key
        frame = rows.head(100).assign(**{key: [str(number + 1) for number in range(len(rows.head(100)))]})
        frame = model.contract.check_inputs(frame[list(model.contract.inputs.columns)])
        answer = ask(server.url, to_records(model.contract.input_fields, frame))
        told.append(same(model, to_records(model.contract.input_fields, frame), answer))
    return {"report": converted["report"], "notebook": converted["written"]["notebook"], "bento": str(bento.folder)}


def _rows(trained: dict[str, Any]) -> bool:
    """Whether the rows that were predicted for can be told among the records."""
    index = getattr(trained["features"], "index", None)
    return index is not None and bool(index.isin(trained["records"].index).all())


def _converted(copy: Path, root: Path, told: list[str]) -> dict[str, Any]:
    """Convert, or take what an earlier demo of the same version converted. Raises D2CError unless it is equivalent."""
    from d2c_mlops.convert.convert import convert

    held = load(root, environ={})
    stamp = root / "old" / ".converted.json"
    mark = sha256(copy.read_bytes() + __version__.encode()).hexdigest()
    known = json.loads(stamp.read_text(encoding="utf-8")) if stamp.exists() else {}
    if known.get("mark") == mark and Path(known["done"]["written"]["notebook"]).exists():
        done: dict[str, Any] = known["done"]
        told.append("was converted already")
    else:
        made = convert(copy, settings=held)
        made.raise_for_refusal()
        done = made.to_dict()
        if done["verdict"]["status"] != "equivalent":
            raise D2CError(f"the conversion {done['verdict']['status']}: {done['verdict']['reason']}")
        draft = stamp.with_suffix(".tmp")
        draft.write_text(json.dumps({"mark": mark, "done": done}), encoding="utf-8")
        draft.replace(stamp)
    written, verdict = done["written"], done["verdict"]
    told += [
        f"{len(done['revived']['mends'])} fixes, {len(written['functions'])} functions, a model",
        verdict["reason"],
    ]
    return done


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    """Let the project's package be imported while the block lasts."""
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(root))
