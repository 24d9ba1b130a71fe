"""Run the converted cells in an isolated process, record types, and test which model can be built."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import types as kinds
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")
TRUSTED = ("sklearn.", "numpy.", "scipy.", "xgboost.", "lightgbm.", "imblearn.", "collections.", "builtins.", "pandas.")
SAMPLE = 300
PATIENCE = 180.0  # seconds after which only the last way is tried
SLOW = 20.0  # seconds of a training that is not repeated


def main(spec_file: str, answer_file: str, *folders: str) -> None:
    """Run the spec, importing from this folder and from `folders`; the answer says `error` where a cell failed."""
    import d2c_mlops.convert.run.feature_agreement
    import d2c_mlops.convert.run.held_out
    import d2c_mlops.convert.run.inferred_contract
    import d2c_mlops.models.converted.recorded_steps
    import d2c_mlops.models.converted.statistical  # noqa: F401

    # Only now: a json.py or d2c_mlops.py of the notebook must not stand in for what was imported above.
    sys.path[0:0] = [str(Path.cwd()), *folders]
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    spec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
    answer: dict[str, Any] = {"types": {}, "error": None, "model": None, "tried": []}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        reads = _reading(Path.cwd())
        space = _run(spec, answer)
        answer["files"] = sorted(reads)
        _tell(answer, answer_file)
        began = time.monotonic()
        for candidate in spec["candidates"] if answer["error"] is None else []:
            last = candidate is spec["candidates"][-1]
            if answer["types"].get(candidate["seen"], "pd.DataFrame") != "pd.DataFrame":
                continue
            if time.monotonic() - began > PATIENCE and not last:
                continue
            try:
                answer["model"] = {"index": candidate["index"], **attempt(candidate, space)}
                break
            except BaseException as error:  # whatever the author's code raises, the next way is tried
                answer["tried"].append(f"{candidate['start']}: {type(error).__name__}: {str(error)[:300]}")
                _tell(answer, answer_file)
    _tell(answer, answer_file)


def _reading(folder: Path) -> set[str]:
    """Note the files of a folder that are opened from now on, relative to it; files made later are not among them."""
    here = folder.resolve()
    there = {path for path in here.rglob("*") if path.is_file()}
    found: set[str] = set()

    def opened(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            place = Path(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100 - resolve() follows links
            if place in there and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
                found.add(place.relative_to(here).as_posix())

    sys.addaudithook(opened)
    return found


def _tell(answer: Mapping[str, Any], answer_file: str) -> None:
    """Write what is known so far: should the time run out, the steps can be written all the same."""
    draft = Path(f"{answer_file}.draft")
    draft.write_text(json.dumps(answer, default=str), encoding="utf-8")
    draft.replace(answer_file)


def _run(spec: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    module = kinds.ModuleType("__main__")
    sys.modules["__main__"] = module
    space = module.__dict__
    space["display"] = lambda *given, **named: None
    seen: dict[str, str] = answer["types"]
    execute = _kernel(module) if spec.get("kernel") else lambda source, name: exec(compile(source, name, "exec"), space)  # noqa: S102
    for number, cell in enumerate(spec["cells"]):
        try:
            execute(cell["source"], f"<cell {number}>")
        except BaseException as error:
            answer["error"] = {"cell": number, "what": f"{type(error).__name__}: {str(error)[:500]}"}
            return space
        if "parameters" in cell["tags"]:
            space.update(spec["overrides"])
        if "in_data" in space and not hasattr(space["in_data"], "plain"):
            space["in_data"] = _noting(space["in_data"])
        if cell["exported"] and cell["step"] in space:
            space[cell["step"]] = _watched(space[cell["step"]], cell["step"], cell["returns"], seen)
        if "plt" in space and hasattr(space["plt"], "close"):
            space["plt"].close("all")
    return space


def _noting(in_data: Callable[..., Any]) -> Callable[..., Any]:
    """Open each file that is looked up once, so that those are noted which a library opens by itself."""

    def look_up(folder: str, path: Any) -> Any:
        place = in_data(folder, path)
        for each in [place] if isinstance(place, str | Path) else []:
            files = [each] if Path(each).is_file() else sorted(Path(each).glob("*")) if Path(each).is_dir() else []
            for file in files:
                if Path(file).is_file():
                    Path(file).open("rb").close()
        return place

    look_up.plain = in_data  # type: ignore[attr-defined]
    return look_up


def _kernel(module: kinds.ModuleType) -> Callable[[str, str], None]:
    """Execute as a kernel does, for cells that want `_`, `Out` or magics."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    quiet = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell.instance(config=quiet, user_module=module, user_ns=module.__dict__)

    def execute(source: str, name: str) -> None:
        shell.run_cell(source, store_history=True).raise_error()

    return execute


def _watched(function: Callable[..., Any], step: str, returns: list[str], seen: dict[str, str]) -> Callable[..., Any]:
    if not isinstance(function, kinds.FunctionType):
        return function
    names = function.__code__.co_varnames[: function.__code__.co_argcount]

    def call(*given: Any, **named: Any) -> Any:
        for name, value in [*zip(names, given, strict=False), *named.items()]:
            seen[f"{step} {name}"] = merged(seen.get(f"{step} {name}"), annotation(value))
        result = function(*given, **named)
        parts = result if len(returns) > 1 else (result,)
        for name, value in zip(returns, parts, strict=True) if returns else ():
            seen[f"{step} -> {name}"] = merged(seen.get(f"{step} -> {name}"), annotation(value))
        return result

    call.__name__ = call.__qualname__ = function.__name__  # a fitted object that holds it is reported by its name
    return call


def merged(before: str | None, now: str) -> str:
    """Return one annotation for two calls."""
    if before in (None, now):
        return now
    both = {before, now}
    return "float" if both == {"int", "float"} else "Any"


def annotation(value: Any) -> str:
    """Return how the type of a value is written."""
    import numpy as np
    import pandas as pd

    named = {"DataFrame": "pd.DataFrame", "Series": "pd.Series", "Timestamp": "pd.Timestamp"}
    kind = type(value)
    if kind.__module__.startswith("pandas") and kind.__name__ in named:
        return named[kind.__name__]
    if isinstance(value, pd.Index):
        return "pd.Index"
    if isinstance(value, np.ndarray):
        return "np.ndarray"
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer):
        return "int"
    if isinstance(value, float | np.floating):
        return "float"
    if isinstance(value, str):
        return "str"
    if kind in (list, set) and value:
        inner = {annotation(each) for each in value}
        single = next(iter(inner)) if len(inner) == 1 else "Any"
        return f"{kind.__name__}[{single if single in ('int', 'float', 'str') else 'Any'}]"
    if kind in (list, dict, set, tuple):
        whole = {"list": "list[Any]", "dict": "dict[Any, Any]", "set": "set[Any]", "tuple": "tuple[Any, ...]"}
        return whole[kind.__name__]
    if kind.__module__.startswith(("sklearn.", "xgboost.", "lightgbm.", "imblearn.", "statsmodels.")):
        return f"class:{kind.__name__}"
    return "Any"


def attempt(candidate: Mapping[str, Any], space: dict[str, Any]) -> dict[str, Any]:
    """Build a model one way and prove that it answers as the notebook does; raises where it does not."""
    import numpy as np
    import pandas as pd

    from d2c_mlops.convert.plan.record_entry import learned_column
    from d2c_mlops.convert.run.feature_agreement import agree
    from d2c_mlops.convert.run.inferred_contract import contract_of, keyed, output_of
    from d2c_mlops.models.converted.recorded_steps import Learned
    from d2c_mlops.models.converted.statistical import Forecast
    from d2c_mlops.models.core.contract import contract_from_dict, to_frame, to_records

    for source in candidate["sources"]:
        exec(compile(source, "<model>", "exec"), space)  # noqa: S102 - the child's purpose
    parameters = candidate["parameters"]
    done, took = _trained_once(candidate, space)
    raw, model, features = done["records"], done["model"], done["features"]
    _need(isinstance(raw, pd.DataFrame) and len(raw) > 1, "the records are not a DataFrame")
    _need(all(isinstance(name, str) and name.strip() for name in raw.columns), "column names are not strings")
    _need(raw.columns.is_unique, "two columns of the records have the same name")
    _need(
        raw.index.is_unique, "rows are resampled before the record is taken; resample the training rows after the split"
    )
    _need(hasattr(model, "predict"), "the estimator cannot predict")
    learned = Learned()
    for name, value in done["given"].items():
        learned.give(name, value)
    prepare = space[candidate["prepare"]]
    first = prepare(raw.copy(), learned)
    learned.learning = False
    whole = prepare(raw.copy(), learned)
    count = whole.shape[0] if hasattr(whole, "shape") else len(whole)
    _need(count == len(raw), f"{len(raw)} records give {count} rows of features")
    if isinstance(whole, pd.DataFrame | pd.Series):
        whole.index = raw.index  # records are numbered anew
    _same(whole, features)
    kept, whole_kept = _learned_from(raw, first, whole)
    answers = model.predict(whole_kept)
    rows = np.unique(np.linspace(0, len(kept) - 1, 8).astype(int))
    for row in rows:
        alone = model.predict(prepare(kept.iloc[[row]].reset_index(drop=True), learned))  # numbered anew, as they come
        _need(_close(np.asarray(alone), np.asarray(answers)[[row]]), "a single record gets another prediction")
    agreed = agree(lambda records: prepare(records, learned), kept, whole_kept)
    used = _used(kept, learned, prepare)
    _need(bool(used), "no column affects the prediction")
    column = learned_column(_records(candidate, space, took), space, used)
    _need(not column, f"{column} of a record is computed from other rows, so a caller cannot provide it")
    outputs = output_of(model, answers, whole_kept)
    described = contract_of(candidate["name"], kept[used], outputs, taken=list(raw.columns))
    if isinstance(model, Forecast):
        _of_steps(described, model)
    contract = contract_from_dict(described)
    sample = keyed(kept[used].iloc[rows], described["key"])
    records = to_records(contract.input_fields, contract.check_inputs(sample))
    contract.request_list.validate_python(records)
    served = prepare(to_frame(contract.input_fields, json.loads(json.dumps(records))), learned)
    _need(
        _close(np.asarray(model.predict(served)), np.asarray(answers)[rows]),
        "a record sent over HTTP gets another prediction",
    )
    return {
        "contract": described,
        "trusted": _trusted([model, *learned.fitted.values()]),
        "classes": hasattr(model, "classes_"),
        "probability": bool(outputs.get("probability")),
        "estimator": type(model).__name__,
        "rows": len(kept),
        "unused": [name for name in raw.columns if name not in used],
        "agreement": agreed.to_dict(),
        "overlap": done.get("overlap"),
        "metric": _metric(candidate, done, model),
        "again": _again(candidate, space, parameters, took, _metric(candidate, done, model)),
    }


_trainings: dict[str, tuple[dict[str, Any], float]] = {}


def _trained_once(candidate: Mapping[str, Any], space: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """What a training gives, and its seconds; ways that differ only in how a record is prepared share it."""
    source = candidate["sources"][1]
    if source not in _trainings:
        from d2c_mlops.convert.run.held_out import overlap, regression_rows, watched

        _trainings.clear()
        began = time.monotonic()
        given = {name: space[name] for name in candidate["parameters"]}
        kind = type(space.get(candidate.get("estimator", "")))
        if not kind.__module__.startswith(("sklearn.", "xgboost.", "lightgbm.", "imblearn.")):
            with _noted(space, "regression_of") as fitted:
                done = space[candidate["train"]](**given)
            if fitted and (rows := regression_rows(fitted[-1])) is not None:
                done["overlap"] = overlap(rows, done["features"], done["answers"])
        else:
            with watched(kind) as seen:
                done = space[candidate["train"]](**given)
            if (rows := seen.get(id(done["model"]))) is not None:
                done["overlap"] = overlap(rows, done["features"], done["answers"])
        _trainings[source] = done, time.monotonic() - began
    return _trainings[source]


@contextlib.contextmanager
def _noted(space: dict[str, Any], name: str) -> Iterator[list[Any]]:
    """Note what a function is called with."""
    plain: Callable[..., Any] = space.get(name, lambda *values: values)
    given: list[Any] = []

    def call(value: Any) -> Any:
        given.append(value)
        return plain(value)

    space[name] = call
    try:
        yield given
    finally:
        space[name] = plain


def _records(candidate: Mapping[str, Any], space: dict[str, Any], took: float) -> Callable[[], Any]:
    """What makes the records again: the function that loads them, or a training where that is quick."""
    if name := candidate.get("load"):
        return lambda: space[name](
            **{load_parameter: space[load_parameter] for load_parameter in candidate["load_parameters"]}
        )
    if took > SLOW:
        return lambda: None
    return lambda: space[candidate["train"]](**{parameter: space[parameter] for parameter in candidate["parameters"]})[
        "records"
    ]


def _learned_from(raw: Any, first: Any, whole: Any) -> tuple[Any, Any]:
    """The records from which the training learned, and their features: it may have left out rows, and numbered them anew."""
    import numpy as np
    import pandas as pd

    if isinstance(first, pd.DataFrame) and first.index.isin(raw.index).all():
        if not isinstance(whole, pd.DataFrame) or len(first) == len(raw):
            return raw.loc[first.index], whole.loc[first.index] if isinstance(whole, pd.DataFrame) else whole
        if _close(_array(whole.loc[first.index]), _array(first)):
            return raw.loc[first.index], whole.loc[first.index]
    if (first.shape[0] if hasattr(first, "shape") else len(first)) == len(raw):
        return raw, whole
    known = set(_rows(first))
    among = np.array([row in known for row in _rows(whole)])
    _need(bool(among.any()), "rows cannot be distinguished")
    return raw[among], whole[among]


def _rows(values: Any) -> list[bytes]:
    import numpy as np

    return [row.tobytes() for row in np.round(_array(values).astype(float), 7) + 0.0]


def _of_steps(described: dict[str, Any], forecast: Any) -> None:
    """What a forecast is asked for: a step ahead; it answers with the day too, where it knows its days."""
    horizon = len(forecast.values)
    step = f"Periods after the last one of the training data, up to {horizon}"
    described["inputs"][1] |= {"description": step, "ge": 1, "le": horizon, "unit": "periods"}
    described["outputs"][1]["description"] = "Forecast of that period"
    if forecast.periods[0]:
        day = {"name": "period", "kind": "date", "description": "Day on which the period begins"}
        described["outputs"].append(day)


def _metric(candidate: Mapping[str, Any], done: Mapping[str, Any], model: Any) -> float | None:
    if candidate.get("score") is None:
        return None
    space: dict[str, Any] = {}
    exec(candidate["score"], space)  # noqa: S102 - written by the converter
    return float(space["score"](done["answers"], model.predict(done["features"]), done["features"]))


def _again(
    candidate: Mapping[str, Any], space: dict[str, Any], parameters: list[str], took: float, value: float | None
) -> Any:
    """The figure of a second training, which differs where the notebook leaves something to chance; None: not trained again."""
    if value is None or took > SLOW:
        return None
    done = space[candidate["train"]](**{name: space[name] for name in parameters})
    return _metric(candidate, done, done["model"])


def _used(raw: Any, learned: Any, prepare: Callable[..., Any]) -> list[str]:
    """Columns on which the features depend: others may hold the first value throughout."""
    from d2c_mlops.convert.run.feature_agreement import rare_first

    rows = raw.iloc[rare_first(raw)[0][:SAMPLE]].reset_index(drop=True)
    before = prepare(rows.copy(), learned)
    unused: list[str] = []
    for name in raw.columns:
        try:
            if _close(_array(prepare(rows.drop(columns=[*unused, name]), learned)), _array(before)):
                unused.append(name)
        except Exception:  # noqa: S112 - then the column is needed
            continue
    used = [name for name in raw.columns if name not in unused]
    if unused and not _close(_array(prepare(raw[used].copy(), learned)), _array(prepare(raw.copy(), learned))):
        return list(raw.columns)
    return used


def _same(whole: Any, features: Any) -> None:
    """Refuse where the replay does not give the rows that the notebook predicted for."""
    import pandas as pd

    frames = isinstance(whole, pd.DataFrame) and isinstance(features, pd.DataFrame)
    if frames:
        _need(list(whole.columns) == list(features.columns), "the features have other columns")
        if whole.index.is_unique and features.index.isin(whole.index).all():
            if _close(whole.loc[features.index].to_numpy(), features.to_numpy()):
                return
    left, right = _array(whole), _array(features)
    _need(left.ndim == right.ndim and left.shape[1:] == right.shape[1:], "the features have another shape")
    if left.shape == right.shape and _close(left, right):
        return
    known = set(_rows(left))
    _need(all(row in known for row in _rows(right)), "the features differ")


def _array(values: Any) -> Any:
    from d2c_mlops.convert.run.feature_agreement import dense

    return dense(values)


def _close(left: Any, right: Any) -> bool:
    import numpy as np

    if left.shape != right.shape:
        return False
    try:
        return bool(np.allclose(left.astype(float), right.astype(float), rtol=1e-9, atol=1e-12, equal_nan=True))
    except (TypeError, ValueError):
        return bool((left == right).all())


def _trusted(fitted: list[Any]) -> list[str]:
    from skops.io import get_untrusted_types

    from d2c_mlops.models.converted.recorded_steps import written
    from d2c_mlops.models.converted.statistical import Forecast, Regression

    fitted = [each for each in fitted if not isinstance(each, Forecast | Regression)]
    found = sorted({name for each in fitted for name in get_untrusted_types(data=written(each))})
    foreign = [name for name in found if not name.startswith(TRUSTED)]
    own = ", ".join(sorted({name.rpartition(".")[2] for name in foreign}))
    _need(not foreign, f"the fitted objects contain functions or classes that cannot be saved without pickle ({own}); apply them "
                       "to the table before the estimator")  # fmt: skip
    return found


def _need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


if __name__ == "__main__":
    main(*sys.argv[1:])
