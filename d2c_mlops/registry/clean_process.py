"""Check and measure models in a process that has seen nothing of them: `python -m d2c_mlops.registry.clean_process FILE`."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from d2c_mlops.data.store import write_atomic
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import D2CError, DataRefused, Failure
from d2c_mlops.models.core.conformance import Case, check_model, examined
from d2c_mlops.models.core.model import Model, load, resolve
from d2c_mlops.registry.evaluators import CAME, MODEL, EvaluationTrial, evaluator_of
from d2c_mlops.registry.versions import copy_files

INTERVALS = "an interval is not turned round and holds its answer"
ASKED = 300  # records of a version that are asked, spread over all


def rules(task: Mapping[str, Any], cls: type[Model]) -> dict[str, Any]:
    """Return which rules of `check_model` a class keeps on its own example."""
    try:
        return {"rules": check_model(cls), "failures": []}
    except DataRefused as err:
        return {"rules": [], "failures": [vars(failure) for failure in err.failures]}


def answers(task: Mapping[str, Any], cls: type[Model]) -> dict[str, Any]:
    """Return which rules of its answers a saved version keeps on its own data."""
    tables, as_of = _tables(task), date.fromisoformat(task["as_of"])
    model = load(Path(task["copy"]), task["packages"])
    records = model.records(tables, as_of)
    records = records.iloc[:: max(1, len(records) // ASKED)].head(ASKED).reset_index(drop=True)
    asked = model.contract.check_inputs(records)
    found = model.predict(asked.copy())
    kept, failures = examined(Case(cls, tables, as_of, model, asked, found))
    failures += [Failure(what, INTERVALS) for what in outside_its_interval(found)]
    return {"rules": [*kept, INTERVALS], "failures": [vars(failure) for failure in failures]}


def outside_its_interval(answers: pd.DataFrame) -> Iterator[str]:
    """Yield the intervals lower_…/upper_… that are turned round, or do not hold the forecast or prediction."""
    middle = next((name for name in ("forecast", "prediction") if name in answers), "")
    for lower in (name for name in answers.columns if name.startswith("lower")):
        upper = "upper" + lower.removeprefix("lower")
        if upper not in answers:
            continue
        turned = (answers[lower] > answers[upper]).to_numpy(bool)
        if turned.any():
            row = int(turned.argmax())
            low, high = answers[lower].iloc[row], answers[upper].iloc[row]
            yield f"{lower} is above {upper} in {int(turned.sum())} of {len(answers)} answers, as in row {row}: {low} > {high}"
        elif (
            middle
            and (out := ((answers[middle] < answers[lower]) | (answers[middle] > answers[upper])).to_numpy(bool)).any()
        ):
            yield f"{middle} lies outside {lower}..{upper} in {int(out.sum())} of {len(answers)} answers, as in row {int(out.argmax())}"


def observe(task: Mapping[str, Any], cls: type[Model], disguised: bool = False) -> dict[str, Any]:
    """Fit at past cutoffs, ask for what came after, and write it beside what came."""
    day = date.fromisoformat(task["as_of"])
    trial = EvaluationTrial(cls, task["params"], task["charter"], _tables(task), day, task["spacing"], disguised)
    evaluator = evaluator_of(trial.contract, task["packages"])
    if evaluator is None:
        raise DataRefused("no evaluator knows this kind of model")
    if disguised:
        trial = replace(trial, tables=evaluator.disguise(trial.tables))
    seen = evaluator.observe(trial)
    if absent := {*evaluator.row, CAME, MODEL} - set(seen.columns):
        raise DataRefused(f"the evaluator {evaluator.name} gives no column {', '.join(sorted(absent))}")
    draft = Path(task["frame"]).with_suffix(".tmp")
    seen.to_parquet(draft)
    draft.replace(task["frame"])
    cutoffs = sorted(seen.get("cutoff", pd.Series()).dropna().unique())
    return {"evaluator": evaluator.name, "rows": len(seen), "cutoffs": cutoffs}


def disguise(task: Mapping[str, Any], cls: type[Model]) -> dict[str, Any]:
    """Do as `observe` on data of another world, which nothing knows but the tables that the model is handed."""
    return observe(task, cls, disguised=True)


TASKS = {"rules": rules, "answers": answers, "observe": observe, "disguise": disguise}


def _tables(task: Mapping[str, Any]) -> Tables:
    return Tables.open(Path(task["store"]), task["dataset"], task["digest"]) if task["dataset"] else Tables({})


def perform(task: Mapping[str, Any]) -> None:
    """Do one task and write its result; an error is a result too."""
    try:
        with TemporaryDirectory(prefix="d2c-model-") as home:
            copy = Path(home, "model")
            if task["kind"] == "answers" and copy_files(Path(task["folder"]), copy) != task["files"]:
                raise DataRefused("the files were changed after they were registered", where=task["folder"])
            for package in task["packages"]:
                importlib.import_module(package)
            cls = resolve(task["class"], task["packages"])
            found = TASKS[task["kind"]]({**task, "copy": str(copy)}, cls)
    except (Exception, SystemExit) as err:
        what = str(err) if isinstance(err, D2CError) else f"{type(err).__name__}: {err}"
        found = {"error": what, "trace": traceback.format_exc()[-4000:]}
    write_atomic(Path(task["file"]), json.dumps({**found, "of": task["of"]}, ensure_ascii=False).encode())


def perform_apart(task: Mapping[str, Any]) -> int:
    """Do one task in a process of its own, so that no task finds what another left behind; return its exit code."""
    if not hasattr(os, "fork"):
        perform(task)
        return 0
    if not (pid := os.fork()):
        perform(task)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(max(abs(perform_apart(each)) for each in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
