"""Infer a contract from observed data: types, ranges, categories, nullable columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Required, TypedDict, cast

import numpy as np
import pandas as pd

MOST_CHOICES = 40
PERSONAL = re.compile(
    r"(?i)^(e?_?mail|phone|.*_(email|phone)|first_?name|last_?name|surname|full_?name|address|birth.*)$"
)


class FieldFacts(TypedDict, total=False):
    """A field of a contract as JSON values; absent facts do not hold."""

    name: Required[str]
    kind: Required[str]  # integer, number, string, boolean, date or date-time
    description: str
    nullable: bool
    personal: bool
    ge: float
    le: float
    unit: str
    choices: list[str]
    max_length: int
    example: object


class ContractFacts(TypedDict):
    """A contract as JSON values."""

    name: str
    version: str
    key: str
    inputs: list[FieldFacts]
    outputs: list[FieldFacts]


def infer_contract(
    name: str, inputs: pd.DataFrame, outputs: Mapping[str, FieldFacts], used_names: Sequence[str]
) -> ContractFacts:
    """Return a contract as JSON values; records get a key column if none of their columns is a key."""
    key = "record_id"
    while key in used_names:
        key = f"_{key}".replace("__", "_x_")
    keyed: FieldFacts = {"name": key, "kind": "string", "description": "Identifier of the record, returned with the prediction",
             "max_length": 64, "example": "1"}  # fmt: skip
    return {
        "name": name,
        "version": "1.0.0",
        "key": key,
        "inputs": [keyed, *(infer_field(column, inputs[column]) for column in inputs.columns)],
        "outputs": [keyed, *outputs.values()],
    }


def add_key_column(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return records with a key."""
    keyed_frame = frame.reset_index(drop=True)
    keyed_frame.insert(0, key, [str(number + 1) for number in range(len(frame))])
    return keyed_frame


def infer_field(name: str, values: pd.Series) -> FieldFacts:
    """Return one column of a contract as it was observed."""
    present = values.dropna()
    field: FieldFacts = {"name": name, "kind": column_kind(present), "nullable": bool(values.isna().any())}
    words = re.sub(r"[_\W]+", " ", name).strip() or name
    if field["kind"] in ("integer", "number"):
        low, high = float(present.min()), float(present.max())
        field["description"] = f"{words}; {low:g} to {high:g} in the training data"
        if low >= 0:
            field["ge"] = 0
        middle = median_value(present)
        number = middle.item() if hasattr(middle, "item") else middle
        field["example"] = int(number) if field["kind"] == "integer" else number
    elif field["kind"] == "string":
        texts = present.astype(str)
        distinct = sorted(texts.unique())
        field["description"] = f"{words}; {len(distinct)} values in the training data"
        if 1 < len(distinct) <= MOST_CHOICES and len(distinct) * 5 <= len(texts) + 10:
            field["choices"] = distinct
        else:
            field["max_length"] = max(64, 2 * int(texts.str.len().max()))
        field["example"] = texts.mode().iloc[0]
        if PERSONAL.match(name):
            field["personal"] = True
    elif field["kind"] == "boolean":
        field |= {"description": words, "example": bool(present.mode().iloc[0])}
    else:
        first, last = present.min(), present.max()
        field["description"] = f"{words}; {first:%Y-%m-%d} to {last:%Y-%m-%d} in the training data"
        shape = "%Y-%m-%d" if field["kind"] == "date" else "%Y-%m-%dT%H:%M:%SZ"
        field["example"] = pd.Timestamp(median_value(present)).strftime(shape)
    return cast("FieldFacts", {key: value for key, value in field.items() if value is not False})


def median_value(present: pd.Series) -> Any:
    """Return the median value of a column, as a typical value of the training data."""
    return present.sort_values().iloc[len(present) // 2]


def column_kind(present_values: pd.Series) -> str:
    """Return the kind of value in a column; raises ValueError for kinds that a contract does not support."""
    if not len(present_values):
        raise ValueError(f"{present_values.name} has only missing values")
    if pd.api.types.is_bool_dtype(present_values):
        return "boolean"
    if pd.api.types.is_integer_dtype(present_values):
        return "integer"
    if pd.api.types.is_float_dtype(present_values):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(present_values):
        whole = (present_values == present_values.dt.normalize()).all() and present_values.dt.tz is None
        return "date" if whole else "date-time"
    kinds = {type(value) for value in present_values}
    if kinds == {str}:
        return "string"
    if kinds <= {int, np.int64}:
        return "integer"
    if kinds <= {int, float, np.int64, np.float64}:
        return "number"
    raise ValueError(f"{present_values.name} mixes {', '.join(sorted(kind.__name__ for kind in kinds))}")


def output_fields(model: object, answers: object, features: object) -> dict[str, FieldFacts]:
    """Return the columns of the answer."""
    flat = np.asarray(answers)
    flat = flat.reshape(len(flat), -1)
    if flat.shape[1] != 1:
        raise ValueError("the estimator returns several values per record")
    field = infer_field("prediction", pd.Series(flat[:, 0]).infer_objects())
    classes = getattr(model, "classes_", None)
    labels = getattr(model, "cluster_centers_", None)
    what = "Predicted class" if classes is not None else "Cluster" if labels is not None else "Predicted value"
    prediction: FieldFacts = {"name": field["name"], "kind": field["kind"], "description": what}
    if classes is not None and field["kind"] == "string":
        prediction["choices"] = sorted(str(label) for label in classes)
    if classes is not None and field["kind"] == "integer":
        prediction |= {"ge": int(min(classes)), "le": int(max(classes))}
    if getattr(model, "link", "") in ("logit", "probit"):
        prediction |= {"description": "Probability of 1", "ge": 0, "le": 1, "unit": "share 0..1"}
    fields = {"prediction": prediction}
    if classes is not None and len(classes) == 2 and hasattr(model, "predict_proba"):
        model.predict_proba(features)
        fields["probability"] = {"name": "probability", "kind": "number", "ge": 0, "le": 1, "unit": "share 0..1",
                                "description": f"Probability of {classes[1]}"}  # fmt: skip
    return fields
