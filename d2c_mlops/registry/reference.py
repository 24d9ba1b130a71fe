"""Sketches of what a version was registered with: its inputs, its answers and its reasons, kept beside its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.contract import Contract, Field
from d2c_mlops.models.core.model import Model
from d2c_mlops.monitoring.sketches import LevelSketch, Sketch, reason_kind, sketch_frame, sketch_from_dict

REFERENCE_FILE = "reference.json"
MOST_RECORDS = 20_000  # that are asked; evenly spaced
DATES = ("date", "date-time")


@dataclass(frozen=True)
class Reference:
    """Sketches by column; `reasons` counts the kinds of the first reasons."""

    inputs: Mapping[str, Sketch]
    outputs: Mapping[str, Sketch]
    reasons: LevelSketch | None


def write_reference(model: Model, records: pd.DataFrame, folder: Path) -> None:
    """Write the sketches of records, the model's answers and its reasons into its folder.

    Neither keys nor personal fields nor levels of fewer than five rows are in it.
    """
    contract = model.contract
    asked = contract.check_inputs(records.iloc[:: max(1, len(records) // MOST_RECORDS)].reset_index(drop=True))
    answers, reasons = model.predict_with_reasons(asked.copy())
    values: dict[str, Any] = {
        "inputs": _sketches(contract, contract.input_fields, asked),
        "outputs": _sketches(contract, contract.output_fields, contract.check_outputs(answers)),
    }
    if reasons is not None:
        first = [reason_kind(texts[0]) for texts in reasons if texts]
        values["reasons"] = LevelSketch.of(pd.Series(first, dtype="str")).without_rare().to_dict()
    (folder / REFERENCE_FILE).write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def _sketches(contract: Contract, fields: tuple[Field, ...], frame: pd.DataFrame) -> dict[str, Any]:
    left_out = tuple(f.name for f in fields if f.name == contract.key or f.personal or f.kind in DATES)
    sketches = sketch_frame(frame, left_out)
    return {
        name: (sketch.without_rare() if isinstance(sketch, LevelSketch) else sketch).to_dict()
        for name, sketch in sketches.items()
    }


def read_reference(folder: Path) -> Reference | None:
    """Return the sketches in the files of a version; None where it was registered without. Raises DataRefused for a broken file."""
    file = folder / REFERENCE_FILE
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        inputs, outputs = (
            {name: sketch_from_dict(part) for name, part in values[kind].items()} for kind in ("inputs", "outputs")
        )
        reasons = sketch_from_dict(values["reasons"]) if values.get("reasons") else None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataRefused(
            f"the sketches of a version cannot be read ({error})", where=str(file), next="register it again"
        ) from None
    return Reference(inputs, outputs, reasons if isinstance(reasons, LevelSketch) else None)
