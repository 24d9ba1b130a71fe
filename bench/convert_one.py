"""One notebook through all stages, in this process and a project of its own; `measured.json` says how far it came.

    python bench/convert_one.py NOTEBOOK DATA WORK TIMEOUT [--install]

After the conversion its module is imported in an empty folder, the notebook is run again through papermill with a changed
parameter, and its model, where it has one, is registered, packaged, served, and asked over HTTP about rows of the notebook;
the expected answer is what the notebook's own estimator predicts for them.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
import urllib.request
from pathlib import Path
from typing import Any

ROWS = 50
IMPORTED = "import sys, os; __import__(sys.argv[1]); sys.exit(bool(os.listdir('.')))"
MISSING = ("FileNotFoundError", "URLError", "HTTPError", "ConnectionError", "gaierror", "TimeoutError", "SSLError")


def main() -> None:
    """Measure, and write what was measured whatever happens."""
    notebook, data, work = (Path(each).resolve() for each in sys.argv[1:4])
    timeout, install = float(sys.argv[4]), "--install" in sys.argv
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    began = time.monotonic()
    measured: dict[str, Any] = {}
    try:
        measure(measured, notebook, data, work / "shop", timeout, install)
    except BaseException as error:
        traceback.print_exc()
        measured.setdefault("status", "crashed")
        measured["why"] = f"{type(error).__name__}: {str(error)[:500]}"
    measured["seconds"] = round(time.monotonic() - began, 1)
    (work / "measured.json").write_text(json.dumps(measured, indent=1, default=str), encoding="utf-8")


def measure(m: dict[str, Any], notebook: Path, data: Path, root: Path, timeout: float, install: bool) -> None:
    """Fill in one stage after the other."""
    from d2c_mlops.convert.convert import convert
    from d2c_mlops.settings import load_settings

    root.mkdir()
    (root / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
    before = notebook.read_bytes()

    def hear(said: str) -> None:
        print(said, flush=True)
        if said in ("read", "write", "verify"):  # what is known should time run out
            so_far = {"status": "given up", "python": True, "revived": True, "why": f"no time was left in: {said}"}
            (root.parent / "measured.json").write_text(json.dumps(so_far), encoding="utf-8")

    done = convert(
        notebook, settings=load_settings(root, environ={}), data=data, install=install, timeout=timeout, progress=hear
    )
    assert notebook.read_bytes() == before, "the original was changed"
    made = done.to_dict()
    print(json.dumps({key: made[key] for key in ("refusal", "written", "seconds")}, indent=1, default=str))
    revived = made["revived"] or {}
    m["status"] = made["status"]
    m["python"] = "its kernel speaks" not in str(made["refusal"])
    m["revived"] = revived.get("status") in ("as is", "revived")
    m["as_is"] = revived.get("status") == "as is" and not revived.get("installed")
    m["mends"] = len(revived.get("mends", ()))
    if made["refusal"]:
        m["why"] = "{stage}, cell {cell}: {why}".format(**made["refusal"])
        m["data_missing"] = (revived.get("refusal") or {}).get("error") in MISSING
    m["converted"] = done.written is not None and done.refusal is None
    if not m["converted"]:
        return
    assert done.written is not None
    m["verdict"] = getattr(done.verdict, "status", "none")
    m["equivalent"] = m["verdict"] == "equivalent"
    m["model"] = bool(done.written.model)
    if not m["equivalent"]:
        m["why"] = f"verdict {m['verdict']}: {getattr(done.verdict, 'reason', '')}"
    elif not m["model"]:
        m["why"] = f"no model: {done.written.no_model} {' | '.join(done.written.tried)}"
    packages = done.work / "packages"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *([str(packages)] if packages.is_dir() else [])])
    sys.path[1:1] = os.environ["PYTHONPATH"].split(os.pathsep)
    importlib.invalidate_caches()
    empty = root.parent / "empty"
    empty.mkdir()
    code = [sys.executable, "-c", IMPORTED, done.written.module]
    m["imports"] = subprocess.run(code, cwd=empty, env={**os.environ, "MPLBACKEND": "Agg"}).returncode == 0
    m["changed"] = changed(done.written, root, timeout)
    if m["model"]:
        m["served"] = False
        m["served"] = served(done.name, done.written, root, timeout)


def changed(written: Any, root: Path, timeout: float) -> bool:
    """Run the notebook on record with another value for one parameter: a number where there is one, else the folder."""
    from d2c_mlops.runs.execution.execute import run
    from d2c_mlops.settings import load_settings

    name, value = another(written.parameters, root)
    print("changed parameter", name, value)
    if not name:
        return False
    try:
        ended = run(str(written.notebook), {name: value}, load_settings(root, environ={}), timeout=timeout)
    except Exception:
        traceback.print_exc()
        return False
    print("run", ended.status, getattr(ended, "error", ""))
    return bool(ended.status == "succeeded")


def another(parameters: tuple[str, ...], root: Path) -> tuple[str, str]:
    """Return a parameter and a new value for it; sizes and seeds before others, the data's folder last."""
    found = {}
    for text in parameters:
        name, kind, default = re.match(r"(\w+): (.+?) = (.*?)(?:  #.*)?$", text, re.S).groups()  # type: ignore[union-attr]
        found[name] = (kind, default.strip())
    order = sorted(found, key=lambda n: (not re.search("seed|random_state", n), not re.search("size", n), n))
    for name in order:
        kind, default = found[name]
        if kind == "int":
            return name, str(int(default) + 1)
        if kind == "float":
            return name, str(round(float(default) * 1.2, 6))
    for name, (_, default) in found.items():
        if name.endswith(("folder", "_dir")):
            elsewhere = root.parent / "elsewhere"
            shutil.copytree(root / default.strip("'\""), elsewhere, dirs_exist_ok=True)
            return name, str(elsewhere)
    return "", ""


def served(name: str, written: Any, root: Path, timeout: float) -> bool:
    """Ask the packaged model over HTTP about rows of the notebook; True where every answer is the estimator's own."""
    import numpy as np

    from d2c_mlops.convert.write.model_source import TRAININGS
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.models.core.contract import to_records
    from d2c_mlops.registry.promotion_history import live_version
    from d2c_mlops.registry.versions import load_version
    from d2c_mlops.runs.execution.execute import run
    from d2c_mlops.serving.rollout.promotion import promote
    from d2c_mlops.settings import load_settings
    from d2c_mlops.verbs import serve

    settings = load_settings(root, environ={})
    ended = run(str(written.notebook), {}, settings, timeout=timeout)
    if ended.status != "succeeded":
        print("the notebook does not run on record", getattr(ended, "error", ""))
        return False
    promote(name, settings, by="bench", reason="measured", override=True)
    version = live_version(Ledger.of(settings), name)
    model = load_version(version, settings)
    os.chdir(root)
    module = importlib.import_module(written.module)
    train = next(getattr(module, name) for name in TRAININGS if hasattr(module, name))
    given = {each: version.params.get(each, version.params.get("data")) for each in inspect.signature(train).parameters}
    trained = train(**given)
    raw, features, estimator = trained["records"], trained["features"], trained["model"]
    if chance(train(**given), trained):
        estimator = getattr(model, "estimator", estimator)
        print("each training gives another model: compared with the one that was registered")
    prepared = module.prepare_records(raw.copy(), getattr(model, "learned", None))
    places = matched(raw, prepared, features)[:ROWS]
    rows = raw.iloc[[record for record, _ in places]] if places else raw.head(ROWS)
    wanted = np.asarray(estimator.predict(features))[[row for _, row in places]] if places else None
    key = model.contract.key
    asked = rows.assign(**{key: [str(number) for number in range(len(rows))]})[list(model.contract.inputs.columns)]
    records = to_records(model.contract.input_fields, model.contract.check_inputs(asked))
    if wanted is None:
        wanted = model.predict(model.contract.check_inputs(asked))["prediction"].to_numpy()
        print("rows cannot be told apart: compared with the model's own answers in this process")
    with serve(name, settings=settings) as server:
        request = urllib.request.Request(
            f"{server.url}/predict",
            json.dumps({"records": records}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.loads(response.read())
    got = np.asarray([each["prediction"] for each in answer["predictions"]])
    wanted = np.asarray(wanted).ravel()
    print("served", got[:5], "expected", wanted[:5])
    if got.dtype.kind in "fiu" and wanted.dtype.kind in "fiub":
        return bool(np.allclose(got, wanted.astype(float), rtol=1e-9, atol=1e-12))
    return got.astype(str).tolist() == wanted.astype(str).tolist()


def matched(raw: Any, prepared: Any, features: Any) -> list[tuple[int, int]]:
    """Return places of records and of the rows that the notebook made of them: by index, by order, else by their features."""
    import numpy as np

    def same(left: Any, right: Any) -> bool:
        try:
            return left.shape == right.shape and np.allclose(
                left.astype(float), right.astype(float), rtol=1e-9, equal_nan=True
            )
        except (TypeError, ValueError):
            return left.shape == right.shape and bool((left == right).all())

    made, own = np.asarray(prepared), np.asarray(features)
    if len(made) != len(raw):
        return []
    if hasattr(features, "index") and raw.index.is_unique and features.index.isin(raw.index).all():
        places = raw.index.get_indexer(features.index)
        if same(made[places], own):
            return list(zip(places.tolist(), range(len(own)), strict=True))
    if same(made, own):
        return [(place, place) for place in range(len(own))]
    try:
        known = {
            row.tobytes(): place for place, row in reversed(list(enumerate(np.round(made.astype(float), 7) + 0.0)))
        }
        found = [known.get(row.tobytes()) for row in np.round(own.astype(float), 7) + 0.0]
    except (TypeError, ValueError):
        return []
    return [(record, row) for row, record in enumerate(found) if record is not None]


def chance(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two trainings on the same data differ: the notebook leaves something to chance."""
    import numpy as np

    first, second = (np.asarray(each["model"].predict(other["features"])).ravel() for each in (one, other))
    return len(first) != len(second) or not np.array_equal(first, second)


if __name__ == "__main__":
    main()
