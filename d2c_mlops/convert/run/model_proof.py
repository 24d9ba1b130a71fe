"""Train a candidate model in the isolated process, and prove that it predicts what the notebook predicted."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sized
from typing import TYPE_CHECKING, NotRequired, Protocol, TypedDict, cast

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from d2c_mlops.convert.run.feature_agreement import AgreementFigures, Features
    from d2c_mlops.convert.run.inferred_contract import ContractFacts, FieldFacts
    from d2c_mlops.models.converted.recorded_steps import Learned
    from d2c_mlops.models.converted.statistical import Forecast

    PrepareRecords = Callable[[pd.DataFrame, Learned], Features]

Namespace = dict[str, object]  # the names of the executed cells

TRUSTED = ("sklearn.", "numpy.", "scipy.", "xgboost.", "lightgbm.", "imblearn.", "collections.", "builtins.", "pandas.")
SAMPLE = 300  # rows on which it is tried which columns the features depend on
SLOW = 20.0  # seconds of a training that is not repeated


class CandidateModel(TypedDict):
    """A way to build the model, as source code, and the names of its functions and of their arguments in the namespace."""

    index: int
    name: str  # of the model
    seen: str  # where the type of `start` is recorded
    start: str  # the table with which a record begins
    estimator: str  # the notebook's name for the fitted object
    train: str
    prepare: str
    parameters: list[str]
    load: str  # the function that returns the records; empty if there is none
    load_parameters: list[str]
    score: str | None  # source of the metric
    sources: list[str]


class Predictor(Protocol):
    """A fitted estimator."""

    def predict(self, features: Features) -> np.ndarray:
        """Return one prediction for each row of features."""


class Training(TypedDict):
    """What the function that trains returns; `overlap` is added here."""

    records: pd.DataFrame
    model: Predictor
    features: Features  # those that the notebook evaluated
    answers: object
    given: dict[str, object]  # values that were learned before the record enters
    overlap: NotRequired[float]  # share of the evaluated rows that were used in the fit


class ProvenModel(TypedDict):
    """What is known of a model that predicts like the notebook."""

    index: int  # of the candidate

    contract: ContractFacts
    trusted: list[str]  # types that skops has to load
    classes: bool
    probability: bool
    estimator: str
    rows: int
    unused: list[str]  # columns without effect
    agreement: AgreementFigures
    overlap: float | None
    metric: float | None
    again: float | None  # the metric of a second training


def prove_model(candidate: CandidateModel, namespace: Namespace) -> ProvenModel:
    """Build a candidate model and prove that it predicts like the notebook; raises if it does not."""
    import numpy as np
    import pandas as pd

    from d2c_mlops.convert.plan.record_entry import row_dependent_column
    from d2c_mlops.convert.run.feature_agreement import check_agreement
    from d2c_mlops.convert.run.inferred_contract import add_key_column, infer_contract, output_fields
    from d2c_mlops.models.converted.recorded_steps import Learned
    from d2c_mlops.models.converted.statistical import Forecast
    from d2c_mlops.models.core.contract import contract_from_dict, to_frame, to_records

    for source in candidate["sources"]:
        exec(compile(source, "<model>", "exec"), namespace)  # noqa: S102 - the child's purpose
    trained, took = _cached_training(candidate, namespace)
    raw, model, features = trained["records"], trained["model"], trained["features"]
    _require_proof(isinstance(raw, pd.DataFrame) and len(raw) > 1, "the records are not a DataFrame")
    _require_proof(all(isinstance(name, str) and name.strip() for name in raw.columns), "column names are not strings")
    _require_proof(raw.columns.is_unique, "two columns of the records have the same name")
    _require_proof(
        raw.index.is_unique, "rows are resampled before the record is taken; resample the training rows after the split"
    )
    _require_proof(hasattr(model, "predict"), "the estimator cannot predict")
    learned = Learned()
    for name, value in trained["given"].items():
        learned.give(name, value)
    prepare = cast("PrepareRecords", namespace[candidate["prepare"]])
    first = prepare(raw.copy(), learned)
    learned.learning = False
    whole = prepare(raw.copy(), learned)
    count = _row_count(whole)
    _require_proof(count == len(raw), f"{len(raw)} records give {count} rows of features")
    if isinstance(whole, pd.DataFrame | pd.Series):
        whole.index = raw.index  # records are numbered anew
    check_features_equal(whole, features)
    used_records, used_features = _training_rows_and_features(raw, first, whole)
    answers = model.predict(used_features)
    rows = np.unique(np.linspace(0, len(used_records) - 1, 8).astype(int))
    for row in rows:
        alone = model.predict(
            prepare(used_records.iloc[[row]].reset_index(drop=True), learned)
        )  # numbered anew, as they come
        _require_proof(
            _are_close(np.asarray(alone), np.asarray(answers)[[row]]), "a single record gets a different prediction"
        )
    agreed = check_agreement(lambda records: prepare(records, learned), used_records, used_features)
    used = _columns_with_effect(used_records, learned, prepare)
    _require_proof(bool(used), "no column affects the prediction")
    column = row_dependent_column(_records_loader(candidate, namespace, took), namespace, used)
    _require_proof(not column, f"{column} of a record is computed from other rows, so a caller cannot provide it")
    outputs = output_fields(model, answers, used_features)
    described = infer_contract(candidate["name"], used_records[used], outputs, used_names=list(raw.columns))
    if isinstance(model, Forecast):
        _describe_step_fields(described, model)
    contract = contract_from_dict(described)
    sample = add_key_column(used_records[used].iloc[rows], described["key"])
    records = to_records(contract.input_fields, contract.check_inputs(sample))
    contract.request_list.validate_python(records)
    served = prepare(to_frame(contract.input_fields, json.loads(json.dumps(records))), learned)
    _require_proof(
        _are_close(np.asarray(model.predict(served)), np.asarray(answers)[rows]),
        "a record sent over HTTP gets a different prediction",
    )
    return {
        "index": candidate["index"],
        "contract": described,
        "trusted": _trusted_classes([model, *learned.fitted.values()]),
        "classes": hasattr(model, "classes_"),
        "probability": bool(outputs.get("probability")),
        "estimator": type(model).__name__,
        "rows": len(used_records),
        "unused": [name for name in raw.columns if name not in used],
        "agreement": agreed.to_dict(),
        "overlap": trained.get("overlap"),
        "metric": _compute_metric(candidate, trained, model),
        "again": _second_metric(candidate, namespace, took, _compute_metric(candidate, trained, model)),
    }


_trainings: dict[str, tuple[Training, float]] = {}


def _train_model(candidate: CandidateModel, namespace: Namespace) -> Training:
    function = cast("Callable[..., Training]", namespace[candidate["train"]])
    return function(**{name: namespace[name] for name in candidate["parameters"]})


def _cached_training(candidate: CandidateModel, namespace: Namespace) -> tuple[Training, float]:
    """The result of a training and its seconds; candidates that differ only in the preparation of records share it."""
    source = candidate["sources"][1]
    if source not in _trainings:
        from d2c_mlops.convert.run.evaluation_overlap import overlap_share, record_fits, regression_rows

        _trainings.clear()
        began = time.monotonic()
        kind = type(namespace.get(candidate.get("estimator", "")))
        if not kind.__module__.startswith(("sklearn.", "xgboost.", "lightgbm.", "imblearn.")):
            with _recorded_arguments(namespace, "regression_of") as fitted:
                trained = _train_model(candidate, namespace)
            if fitted and (rows := regression_rows(fitted[-1])) is not None:
                trained["overlap"] = overlap_share(rows, trained["features"], trained["answers"])
        else:
            with record_fits(kind) as rows_by_model:
                trained = _train_model(candidate, namespace)
            if (rows := rows_by_model.get(id(trained["model"]))) is not None:
                trained["overlap"] = overlap_share(rows, trained["features"], trained["answers"])
        _trainings[source] = trained, time.monotonic() - began
    return _trainings[source]


@contextlib.contextmanager
def _recorded_arguments(namespace: Namespace, name: str) -> Iterator[list[object]]:
    """Record the arguments of a function."""
    plain = cast("Callable[[object], object]", namespace.get(name, lambda *values: values))
    arguments: list[object] = []

    def call(value: object) -> object:
        arguments.append(value)
        return plain(value)

    namespace[name] = call
    try:
        yield arguments
    finally:
        namespace[name] = plain


def _records_loader(candidate: CandidateModel, namespace: Namespace, training_seconds: float) -> Callable[[], object]:
    """A function that creates the records again: the one that loads them, or a training if it is quick."""
    if name := candidate.get("load"):
        load = cast("Callable[..., object]", namespace[name])
        return lambda: load(**{argument: namespace[argument] for argument in candidate["load_parameters"]})
    if training_seconds > SLOW:
        return lambda: None
    return lambda: _train_model(candidate, namespace)["records"]


def _training_rows_and_features(
    raw: pd.DataFrame, fitted_features: Features, all_features: Features
) -> tuple[pd.DataFrame, Features]:
    """The training records and their features: the training may have dropped and renumbered rows."""
    import numpy as np
    import pandas as pd

    if isinstance(fitted_features, pd.DataFrame) and fitted_features.index.isin(raw.index).all():
        if not isinstance(all_features, pd.DataFrame) or len(fitted_features) == len(raw):
            return raw.loc[fitted_features.index], all_features.loc[fitted_features.index] if isinstance(
                all_features, pd.DataFrame
            ) else all_features
        if _are_close(_as_array(all_features.loc[fitted_features.index]), _as_array(fitted_features)):
            return raw.loc[fitted_features.index], all_features.loc[fitted_features.index]
    if _row_count(fitted_features) == len(raw):
        return raw, all_features
    first_rows = set(_row_bytes(fitted_features))
    among = np.array([row in first_rows for row in _row_bytes(all_features)])
    _require_proof(bool(among.any()), "rows cannot be distinguished")
    return raw[among], all_features[among]


def _row_count(values: object) -> int:
    """Return how many rows a table, an array, a sparse matrix or a list has."""
    return int(values.shape[0] if hasattr(values, "shape") else len(cast("Sized", values)))


def _row_bytes(values: object) -> list[bytes]:
    import numpy as np

    return [row.tobytes() for row in np.round(_as_array(values).astype(float), 7) + 0.0]


def _describe_step_fields(described: ContractFacts, forecast: Forecast) -> None:
    """The input of a forecast is a step ahead; its output contains the day, if the days are known."""
    horizon = len(forecast.values)
    step = f"Periods after the last one of the training data, up to {horizon}"
    described["inputs"][1] |= {"description": step, "ge": 1, "le": horizon, "unit": "periods"}
    described["outputs"][1]["description"] = "Forecast of that period"
    if forecast.periods[0]:
        day: FieldFacts = {"name": "period", "kind": "date", "description": "Day on which the period begins"}
        described["outputs"].append(day)


def _compute_metric(candidate: CandidateModel, trained: Training, model: Predictor) -> float | None:
    source = candidate.get("score")
    if source is None:
        return None
    namespace: Namespace = {}
    exec(source, namespace)  # noqa: S102 - written by the converter
    score = cast("Callable[[object, np.ndarray, Features], float]", namespace["score"])
    return float(score(trained["answers"], model.predict(trained["features"]), trained["features"]))


def _second_metric(
    candidate: CandidateModel, namespace: Namespace, training_seconds: float, value: float | None
) -> float | None:
    """The metric of a second training, which differs if the notebook is random; None if it was not trained again."""
    if value is None or training_seconds > SLOW:
        return None
    trained = _train_model(candidate, namespace)
    return _compute_metric(candidate, trained, trained["model"])


def _columns_with_effect(raw: pd.DataFrame, learned: Learned, prepare: PrepareRecords) -> list[str]:
    """Columns on which the features depend; the others have no effect."""
    from d2c_mlops.convert.run.feature_agreement import rare_rows_first

    rows = raw.iloc[rare_rows_first(raw)[0][:SAMPLE]].reset_index(drop=True)
    before = prepare(rows.copy(), learned)
    unused: list[str] = []
    for name in raw.columns:
        try:
            if _are_close(_as_array(prepare(rows.drop(columns=[*unused, name]), learned)), _as_array(before)):
                unused.append(name)
        except Exception:  # noqa: S112 - then the column is needed
            continue
    used = [name for name in raw.columns if name not in unused]
    if unused and not _are_close(
        _as_array(prepare(raw[used].copy(), learned)), _as_array(prepare(raw.copy(), learned))
    ):
        return list(raw.columns)
    return used


def check_features_equal(replayed_features: Features, features: Features) -> None:
    """Refuse if the replay does not return the rows that the notebook predicted."""
    import pandas as pd

    if isinstance(replayed_features, pd.DataFrame) and isinstance(features, pd.DataFrame):
        _require_proof(list(replayed_features.columns) == list(features.columns), "the features have different columns")
        if replayed_features.index.is_unique and features.index.isin(replayed_features.index).all():
            if _are_close(replayed_features.loc[features.index].to_numpy(), features.to_numpy()):
                return
    ours, right = _as_array(replayed_features), _as_array(features)
    _require_proof(ours.ndim == right.ndim and ours.shape[1:] == right.shape[1:], "the features have a different shape")
    if ours.shape == right.shape and _are_close(ours, right):
        return
    first_rows = set(_row_bytes(ours))
    _require_proof(all(row in first_rows for row in _row_bytes(right)), "the features differ")


def _as_array(values: object) -> np.ndarray:
    from d2c_mlops.convert.run.feature_agreement import as_dense_array

    return as_dense_array(values)


def _are_close(ours: np.ndarray, right: np.ndarray) -> bool:
    import numpy as np

    if ours.shape != right.shape:
        return False
    try:
        return bool(np.allclose(ours.astype(float), right.astype(float), rtol=1e-9, atol=1e-12, equal_nan=True))
    except (TypeError, ValueError):
        return bool((ours == right).all())


def _trusted_classes(fitted: list[object]) -> list[str]:
    from skops.io import get_untrusted_types

    from d2c_mlops.models.converted.recorded_steps import written
    from d2c_mlops.models.converted.statistical import Forecast, Regression

    fitted = [estimator for estimator in fitted if not isinstance(estimator, Forecast | Regression)]
    untrusted = sorted({name for estimator in fitted for name in get_untrusted_types(data=written(estimator))})
    foreign = [name for name in untrusted if not name.startswith(TRUSTED)]
    class_names = ", ".join(sorted({name.rpartition(".")[2] for name in foreign}))
    _require_proof(not foreign, f"the fitted objects contain functions or classes that cannot be saved without pickle ({class_names}); apply them "
                       "to the table before the estimator")  # fmt: skip
    return untrusted


def _require_proof(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
