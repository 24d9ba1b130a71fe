"""Second part of the demo: check, convert, verify, package and serve a notebook from 2019."""

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
from d2c_mlops.demo.http_check import compare_predictions, request_predictions
from d2c_mlops.errors import D2CError
from d2c_mlops.file_lock import lock
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import to_records
from d2c_mlops.registry.promotion_history import live_version
from d2c_mlops.registry.versions import load_version
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.serving.local.server import free_port, serve_bento
from d2c_mlops.serving.package.bento import package_model_version
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.settings import Settings, load_settings

NOTEBOOK = Path(__file__).parent / "churn_2019.ipynb"
NAME = "churn_2019"
PATIENCE = 900.0  # seconds to wait for another demo in the same store
Step = Callable[[str], Any]  # context manager that times a step and collects its result
Progress = Callable[[dict[str, Any]], None]


def missing_requirement() -> str:
    """Return which requirement for conversions is missing; empty if none is."""
    return "" if find_spec("nbdev") else "nbdev is not installed: pip install 'd2c_mlops[convert]'"


def convert_old_notebook(settings: Settings, step: Step, progress: Progress) -> dict[str, Any]:
    """Convert and serve an old notebook in its own project below the store; return the paths of the results."""
    root = settings.store / "demo" / "oldshop"
    with lock(root, "the old notebook's project", PATIENCE):
        return _run_steps(root, step, progress)


def _run_steps(root: Path, step: Step, progress: Progress) -> dict[str, Any]:
    from d2c_mlops.convert.check.check import check

    copy = root / "old" / NOTEBOOK.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(NOTEBOOK.read_bytes())
    if not (root / "settings.ini").exists():
        (root / "settings.ini").write_text("[d2c]\nstore = d2c_store\n", encoding="utf-8")
    with step("check") as notes:
        findings = check(copy).findings
        errors = sum(finding.severity == "error" for finding in findings)
        notes.append(f"{copy.name}: {errors} errors with current libraries, {len(findings) - errors} other findings")
    with step("convert") as notes:
        converted = _convert_or_reuse(copy, root, notes)
    project = load_settings(root, environ={})
    with _project_importable(root), step("package") as notes:
        ran = run(converted["written"]["notebook"], {}, project, progress=progress)
        promote(NAME, project, by="demo", reason="demo: the owner still has to complete the charter", override=True)
        version = live_version(Ledger.of(project), NAME)
        bento = package_model_version(version, project)
        notes.append(f"version {version.version} from run {ran.id}, {bento.tag}")
        model = load_version(version, project)
        module = importlib.import_module(converted["written"]["module"])
        trained = module.train(**version.params)
    with step("ask") as notes, serve_bento(bento, project, port=free_port()) as server:
        rows = trained["records"].loc[trained["features"].index] if _rows_match_records(trained) else trained["records"]
        key = model.contract.key
        frame = rows.head(100).assign(**{key: [str(number + 1) for number in range(len(rows.head(100)))]})
        frame = model.contract.check_inputs(frame[list(model.contract.inputs.columns)])
        answer = request_predictions(server.url, to_records(model.contract.input_fields, frame))
        notes.append(compare_predictions(model, to_records(model.contract.input_fields, frame), answer))
    return {"report": converted["report"], "notebook": converted["written"]["notebook"], "bento": str(bento.folder)}


def _rows_match_records(trained: dict[str, Any]) -> bool:
    """Whether the index of the features identifies rows of the records."""
    index = getattr(trained["features"], "index", None)
    return index is not None and bool(index.isin(trained["records"].index).all())


def _convert_or_reuse(copy: Path, root: Path, notes: list[str]) -> dict[str, Any]:
    """Convert, or reuse the conversion of an earlier demo of the same version. Raises D2CError unless it is equivalent."""
    from d2c_mlops.convert.convert import convert

    project = load_settings(root, environ={})
    stamp = root / "old" / ".converted.json"
    mark = sha256(copy.read_bytes() + __version__.encode()).hexdigest()
    cached = json.loads(stamp.read_text(encoding="utf-8")) if stamp.exists() else {}
    if cached.get("mark") == mark and Path(cached["done"]["written"]["notebook"]).exists():
        report: dict[str, Any] = cached["done"]
        notes.append("already converted")
    else:
        conversion = convert(copy, settings=project)
        conversion.raise_for_refusal()
        report = dict(conversion.to_dict())
        if report["verdict"]["status"] != "equivalent":
            raise D2CError(f"the conversion {report['verdict']['status']}: {report['verdict']['reason']}")
        draft = stamp.with_suffix(".tmp")
        draft.write_text(json.dumps({"mark": mark, "done": report}), encoding="utf-8")
        draft.replace(stamp)
    written, verdict = report["written"], report["verdict"]
    notes += [
        f"{len(report['revived']['mends'])} fixes, {len(written['functions'])} functions, a model",
        verdict["reason"],
    ]
    return report


@contextmanager
def _project_importable(root: Path) -> Iterator[None]:
    """Make the project's package importable during the block."""
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(root))
