"""Train a candidate model in the isolated process, and prove that it predicts what the notebook predicted."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

TRUSTED = ("sklearn.", "numpy.", "scipy.", "xgboost.", "lightgbm.", "imblearn.", "collections.", "builtins.", "pandas.")
SAMPLE = 300  # rows on which it is tried which columns the features depend on
SLOW = 20.0  # seconds of a training that is not repeated


def prove_model(candidate: Mapping[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    """Build a candidate model and prove that it predicts like the notebook; raises if it does not."""
    import numpy as np
    import pandas as pd

    from d2c_mlops.convert.plan.record_entry import learned_column
    from d2c_mlops.convert.run.feature_agreement import check_agreement
    from d2c_mlops.convert.run.inferred_contract import contract_of, output_of, with_key
    from d2c_mlops.models.converted.recorded_steps import Learned
    from d2c_mlops.models.converted.statistical import Forecast
    from d2c_mlops.models.core.contract import contract_from_dict, to_frame, to_records

    for source in candidate["sources"]:
        exec(compile(source, "<model>", "exec"), namespace)  # noqa: S102 - the child's purpose
    parameters = candidate["parameters"]
    trained, took = _trained_once(candidate, namespace)
    raw, model, features = trained["records"], trained["model"], trained["features"]
    _need(isinstance(raw, pd.DataFrame) and len(raw) > 1, "the records are not a DataFrame")
    _need(all(isinstance(name, str) and name.strip() for name in raw.columns), "column names are not strings")
    _need(raw.columns.is_unique, "two columns of the records have the same name")
    _need(
        raw.index.is_unique, "rows are resampled before the record is taken; resample the training rows after the split"
    )
    _need(hasattr(model, "predict"), "the estimator cannot predict")
    learned = Learned()
    for name, value in trained["given"].items():
        learned.give(name, value)
    prepare = namespace[candidate["prepare"]]
    first = prepare(raw.copy(), learned)
    learned.learning = False
    whole = prepare(raw.copy(), learned)
    count = whole.shape[0] if hasattr(whole, "shape") else len(whole)
    _need(count == len(raw), f"{len(raw)} records give {count} rows of features")
    if isinstance(whole, pd.DataFrame | pd.Series):
        whole.index = raw.index  # records are numbered anew
    _same(whole, features)
    used_records, whole_kept = _learned_from(raw, first, whole)
    answers = model.predict(whole_kept)
    rows = np.unique(np.linspace(0, len(used_records) - 1, 8).astype(int))
    for row in rows:
        alone = model.predict(
            prepare(used_records.iloc[[row]].reset_index(drop=True), learned)
        )  # numbered anew, as they come
        _need(_close(np.asarray(alone), np.asarray(answers)[[row]]), "a single record gets another prediction")
    agreed = check_agreement(lambda records: prepare(records, learned), used_records, whole_kept)
    used = _used(used_records, learned, prepare)
    _need(bool(used), "no column affects the prediction")
    column = learned_column(_records(candidate, namespace, took), namespace, used)
    _need(not column, f"{column} of a record is computed from other rows, so a caller cannot provide it")
    outputs = output_of(model, answers, whole_kept)
    described = contract_of(candidate["name"], used_records[used], outputs, used_names=list(raw.columns))
    if isinstance(model, Forecast):
        _of_steps(described, model)
    contract = contract_from_dict(described)
    sample = with_key(used_records[used].iloc[rows], described["key"])
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
        "rows": len(used_records),
        "unused": [name for name in raw.columns if name not in used],
        "agreement": agreed.to_dict(),
        "overlap": trained.get("overlap"),
        "metric": _metric(candidate, trained, model),
        "again": _again(candidate, namespace, parameters, took, _metric(candidate, trained, model)),
    }


_trainings: dict[str, tuple[dict[str, Any], float]] = {}


def _trained_once(candidate: Mapping[str, Any], namespace: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The result of a training and its seconds; candidates that differ only in the preparation of records share it."""
    source = candidate["sources"][1]
    if source not in _trainings:
        from d2c_mlops.convert.run.held_out import overlap_share, record_fits, regression_rows

        _trainings.clear()
        began = time.monotonic()
        arguments = {name: namespace[name] for name in candidate["parameters"]}
        kind = type(namespace.get(candidate.get("estimator", "")))
        if not kind.__module__.startswith(("sklearn.", "xgboost.", "lightgbm.", "imblearn.")):
            with _noted(namespace, "regression_of") as fitted:
                trained = namespace[candidate["train"]](**arguments)
            if fitted and (rows := regression_rows(fitted[-1])) is not None:
                trained["overlap"] = overlap_share(rows, trained["features"], trained["answers"])
        else:
            with record_fits(kind) as rows_by_model:
                trained = namespace[candidate["train"]](**arguments)
            if (rows := rows_by_model.get(id(trained["model"]))) is not None:
                trained["overlap"] = overlap_share(rows, trained["features"], trained["answers"])
        _trainings[source] = trained, time.monotonic() - began
    return _trainings[source]


@contextlib.contextmanager
def _noted(namespace: dict[str, Any], name: str) -> Iterator[list[Any]]:
    """Record the arguments of a function."""
    plain: Callable[..., Any] = namespace.get(name, lambda *values: values)
    noted_values: list[Any] = []

    def call(value: Any) -> Any:
        noted_values.append(value)
        return plain(value)

    namespace[name] = call
    try:
        yield noted_values
    finally:
        namespace[name] = plain


def _records(candidate: Mapping[str, Any], namespace: dict[str, Any], took: float) -> Callable[[], Any]:
    """A function that creates the records again: the one that loads them, or a training if it is quick."""
    if name := candidate.get("load"):
        return lambda: namespace[name](
            **{load_parameter: namespace[load_parameter] for load_parameter in candidate["load_parameters"]}
        )
    if took > SLOW:
        return lambda: None
    return lambda: namespace[candidate["train"]](
        **{parameter: namespace[parameter] for parameter in candidate["parameters"]}
    )["records"]


def _learned_from(raw: Any, first: Any, whole: Any) -> tuple[Any, Any]:
    """The training records and their features: the training may have dropped and renumbered rows."""
    import numpy as np
    import pandas as pd

    if isinstance(first, pd.DataFrame) and first.index.isin(raw.index).all():
        if not isinstance(whole, pd.DataFrame) or len(first) == len(raw):
            return raw.loc[first.index], whole.loc[first.index] if isinstance(whole, pd.DataFrame) else whole
        if _close(_array(whole.loc[first.index]), _array(first)):
            return raw.loc[first.index], whole.loc[first.index]
    if (first.shape[0] if hasattr(first, "shape") else len(first)) == len(raw):
        return raw, whole
    first_rows = set(_rows(first))
    among = np.array([row in first_rows for row in _rows(whole)])
    _need(bool(among.any()), "rows cannot be distinguished")
    return raw[among], whole[among]


def _rows(values: Any) -> list[bytes]:
    import numpy as np

    return [row.tobytes() for row in np.round(_array(values).astype(float), 7) + 0.0]


def _of_steps(described: dict[str, Any], forecast: Any) -> None:
    """The input of a forecast is a step ahead; its output contains the day, if the days are known."""
    horizon = len(forecast.values)
    step = f"Periods after the last one of the training data, up to {horizon}"
    described["inputs"][1] |= {"description": step, "ge": 1, "le": horizon, "unit": "periods"}
    described["outputs"][1]["description"] = "Forecast of that period"
    if forecast.periods[0]:
        day = {"name": "period", "kind": "date", "description": "Day on which the period begins"}
        described["outputs"].append(day)


def _metric(candidate: Mapping[str, Any], trained: Mapping[str, Any], model: Any) -> float | None:
    if candidate.get("score") is None:
        return None
    namespace: dict[str, Any] = {}
    exec(candidate["score"], namespace)  # noqa: S102 - written by the converter
    return float(namespace["score"](trained["answers"], model.predict(trained["features"]), trained["features"]))


def _again(
    candidate: Mapping[str, Any], namespace: dict[str, Any], parameters: list[str], took: float, value: float | None
) -> Any:
    """The metric of a second training, which differs if the notebook is random; None if it was not trained again."""
    if value is None or took > SLOW:
        return None
    trained = namespace[candidate["train"]](**{name: namespace[name] for name in parameters})
    return _metric(candidate, trained, trained["model"])


def _used(raw: Any, learned: Any, prepare: Callable[..., Any]) -> list[str]:
    """Columns on which the features depend; the others have no effect."""
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
    """Refuse if the replay does not return the rows that the notebook predicted."""
    import pandas as pd

    frames = isinstance(whole, pd.DataFrame) and isinstance(features, pd.DataFrame)
    if frames:
        _need(list(whole.columns) == list(features.columns), "the features have other columns")
        if whole.index.is_unique and features.index.isin(whole.index).all():
            if _close(whole.loc[features.index].to_numpy(), features.to_numpy()):
                return
    ours, right = _array(whole), _array(features)
    _need(ours.ndim == right.ndim and ours.shape[1:] == right.shape[1:], "the features have another shape")
    if ours.shape == right.shape and _close(ours, right):
        return
    first_rows = set(_rows(ours))
    _need(all(row in first_rows for row in _rows(right)), "the features differ")


def _array(values: Any) -> Any:
    from d2c_mlops.convert.run.feature_agreement import dense

    return dense(values)


def _close(ours: Any, right: Any) -> bool:
    import numpy as np

    if ours.shape != right.shape:
        return False
    try:
        return bool(np.allclose(ours.astype(float), right.astype(float), rtol=1e-9, atol=1e-12, equal_nan=True))
    except (TypeError, ValueError):
        return bool((ours == right).all())


def _trusted(fitted: list[Any]) -> list[str]:
    from skops.io import get_untrusted_types

    from d2c_mlops.models.converted.recorded_steps import written
    from d2c_mlops.models.converted.statistical import Forecast, Regression

    fitted = [estimator for estimator in fitted if not isinstance(estimator, Forecast | Regression)]
    untrusted = sorted({name for estimator in fitted for name in get_untrusted_types(data=written(estimator))})
    foreign = [name for name in untrusted if not name.startswith(TRUSTED)]
    class_names = ", ".join(sorted({name.rpartition(".")[2] for name in foreign}))
    _need(not foreign, f"the fitted objects contain functions or classes that cannot be saved without pickle ({class_names}); apply them "
                       "to the table before the estimator")  # fmt: skip
    return untrusted


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
