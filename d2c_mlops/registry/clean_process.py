"""Check and measure models in a new process without earlier state: `python -m d2c_mlops.registry.clean_process FILE`."""

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
from d2c_mlops.models.core.conformance import ConformanceCase, check_model, run_rules
from d2c_mlops.models.core.model import Model, load, model_class_at
from d2c_mlops.registry.evaluators import ACTUAL, MODEL, EvaluationTrial, evaluator_of
from d2c_mlops.registry.versions import copy_files

INTERVALS = "intervals are ordered and contain the prediction"
MOST_RECORDS = 300  # records of a version that are predicted, spread over all


def check_class(task: Mapping[str, Any], cls: type[Model]) -> dict[str, Any]:
    """Return which rules of `check_model` a class follows on its own example."""
    try:
        return {"rules": check_model(cls), "failures": []}
    except DataRefused as err:
        return {"rules": [], "failures": [vars(failure) for failure in err.failures]}


def check_predictions(task: Mapping[str, Any], cls: type[Model]) -> dict[str, Any]:
    """Return which rules the predictions of a saved version follow on its own data."""
    tables, as_of = _open_tables(task), date.fromisoformat(task["as_of"])
    model = load(Path(task["copy"]), task["packages"])
    records = model.records(tables, as_of)
    records = records.iloc[:: max(1, len(records) // MOST_RECORDS)].head(MOST_RECORDS).reset_index(drop=True)
    inputs = model.contract.check_inputs(records)
    predictions = model.predict(inputs.copy())
    rules, failures = run_rules(ConformanceCase(cls, tables, as_of, model, inputs, predictions))
    failures += [Failure(what, INTERVALS) for what in invalid_intervals(predictions)]
    return {"rules": [*rules, INTERVALS], "failures": [vars(failure) for failure in failures]}


def invalid_intervals(answers: pd.DataFrame) -> Iterator[str]:
    """Yield the intervals lower_…/upper_… whose bounds are exchanged, or that do not contain the forecast or prediction."""
    middle = next((name for name in ("forecast", "prediction") if name in answers), "")
    for lower in (name for name in answers.columns if name.startswith("lower")):
        upper = "upper" + lower.removeprefix("lower")
        if upper not in answers:
            continue
        turned = (answers[lower] > answers[upper]).to_numpy(bool)
        if turned.any():
            row = int(turned.argmax())
            low, high = answers[lower].iloc[row], answers[upper].iloc[row]
            yield f"{lower} is above {upper} in {int(turned.sum())} of {len(answers)} predictions, as in row {row}: {low} > {high}"
        elif (
            middle
            and (out := ((answers[middle] < answers[lower]) | (answers[middle] > answers[upper])).to_numpy(bool)).any()
        ):
            yield f"{middle} lies outside {lower}..{upper} in {int(out.sum())} of {len(answers)} predictions, as in row {int(out.argmax())}"


def measure_at_cutoffs(task: Mapping[str, Any], cls: type[Model], disguised: bool = False) -> dict[str, Any]:
    """Fit at past cutoffs, predict the following periods, and write predictions with actual outcomes."""
    day = date.fromisoformat(task["as_of"])
    trial = EvaluationTrial(cls, task["params"], task["charter"], _open_tables(task), day, task["spacing"], disguised)
    evaluator = evaluator_of(trial.contract, task["packages"])
    if evaluator is None:
        raise DataRefused("there is no evaluator for this kind of model")
    if disguised:
        trial = replace(trial, tables=evaluator.disguise(trial.tables))
    observations = evaluator.observe(trial)
    if absent := {*evaluator.row, ACTUAL, MODEL} - set(observations.columns):
        raise DataRefused(f"the evaluator {evaluator.name} returns no column {', '.join(sorted(absent))}")
    draft = Path(task["frame"]).with_suffix(".tmp")
    observations.to_parquet(draft)
    draft.replace(task["frame"])
    cutoffs = sorted(observations.get("cutoff", pd.Series()).dropna().unique())
    return {"evaluator": evaluator.name, "rows": len(observations), "cutoffs": cutoffs}


def measure_disguised(task: Mapping[str, Any], cls: type[Model]) -> dict[str, Any]:
    """Measure on changed data, which exist nowhere but in the tables passed to the model."""
    return measure_at_cutoffs(task, cls, disguised=True)


def measure_change(task: Mapping[str, Any], cls: type[Model]) -> dict[str, Any]:
    """Fit on the first days after a change, load the champion as it stands, and write predictions of both for the later days."""
    day = date.fromisoformat(task["as_of"])
    trial = EvaluationTrial(cls, task["params"], task["charter"], _open_tables(task), day, task["spacing"])
    evaluator = evaluator_of(trial.contract, task["packages"])
    if evaluator is None:
        raise DataRefused("there is no evaluator for this kind of model")
    champion = load(Path(task["copy"]), task["packages"])
    known_until, since = (date.fromisoformat(task[name]) for name in ("known_until", "since"))
    observations = evaluator.observe_change(trial, champion, known_until, since)
    draft = Path(task["frame"]).with_suffix(".tmp")
    observations.to_parquet(draft)
    draft.replace(task["frame"])
    return {"evaluator": evaluator.name, "rows": len(observations)}


TASKS = {
    "rules": check_class,
    "answers": check_predictions,
    "observe": measure_at_cutoffs,
    "disguise": measure_disguised,
    "change": measure_change,
}


def _open_tables(task: Mapping[str, Any]) -> Tables:
    return Tables.open(Path(task["store"]), task["dataset"], task["digest"]) if task["dataset"] else Tables({})


def run_task(task: Mapping[str, Any]) -> None:
    """Run one task and write its result; an error is a result, too."""
    try:
        with TemporaryDirectory(prefix="d2c-model-") as home:
            copy = Path(home, "model")
            if task["kind"] in ("answers", "change") and copy_files(Path(task["folder"]), copy) != task["files"]:
                raise DataRefused("the files were changed after they were registered", where=task["folder"])
            for package in task["packages"]:
                importlib.import_module(package)
            cls = model_class_at(task["class"], task["packages"])
            result = TASKS[task["kind"]]({**task, "copy": str(copy)}, cls)
    except (Exception, SystemExit) as err:
        what = str(err) if isinstance(err, D2CError) else f"{type(err).__name__}: {err}"
        result = {"error": what, "trace": traceback.format_exc()[-4000:]}
    write_atomic(Path(task["file"]), json.dumps({**result, "of": task["of"]}, ensure_ascii=False).encode())


def run_task_in_fork(task: Mapping[str, Any]) -> int:
    """Run one task in its own process, so that tasks do not share state; return its exit code."""
    if not hasattr(os, "fork"):
        run_task(task)
        return 0
    if not (pid := os.fork()):
        run_task(task)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(max(abs(run_task_in_fork(task)) for task in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
