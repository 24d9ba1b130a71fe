"""Parameters that a slot passes to its notebook: the as_of day, and a key that is the same at every attempt."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache, partial
from typing import Any

from d2c_mlops.data.manifest import Manifest, list_datasets, read_manifest
from d2c_mlops.errors import D2CError, Failure
from d2c_mlops.runs.execution.execute import check_parameters
from d2c_mlops.runs.execution.slot_rows import slot_key
from d2c_mlops.runs.parameters.parameters import Parameter, check_values, declared_parameters
from d2c_mlops.runs.schedule.jobs import EXAMPLE, Job, last_complete_day, one_line_error
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import time_zone

SAMPLE = "sample"  # what runbooks take when nobody names a dataset


@dataclass(frozen=True)
class SlotParameters:
    """The parameters of a slot's run, and notes about them."""

    values: dict[str, str]
    note: str = ""


def slot_parameters(job: Job, slot: datetime, previous: datetime | None, settings: Settings) -> SlotParameters:
    """Return the parameters of a slot: those of the job's section, plus as_of and slot_key if the notebook declares them.

    `as_of` is the last day that was over before the slot in the dataset's zone (the job's, where no dataset is named),
    `as_of_offset` days earlier or later; `slot_key` is the key of job and slot. Raises UsageError.
    """
    return _filled_values(job, slot, previous, settings, notebook_parameters(job.settings.run, settings)[1])


def notebook_parameters(run: str, settings: Settings) -> tuple[str, dict[str, Parameter]]:
    """Return the path of a notebook or runbook and the parameters that it declares. Raises UsageError."""
    notebook, content, _ = check_parameters(run, {}, settings)
    return str(notebook), {parameter.name: parameter for parameter in declared_parameters(content, str(notebook))}


def _filled_values(
    job: Job, slot: datetime, previous: datetime | None, settings: Settings, declared: Mapping[str, Parameter]
) -> SlotParameters:
    params = job.settings.params
    manifest = _dataset_manifest(declared, params, settings)
    zone = time_zone(getattr(manifest, "zone", "UTC")) if manifest else job.cadence.zone
    as_of = last_complete_day(slot, zone) + timedelta(days=job.settings.as_of_offset)
    values = job.parameters(slot, previous, as_of)
    added = {"as_of": as_of.isoformat(), "slot_key": slot_key(job.name, slot)}
    added = {name: value for name, value in added.items() if name in declared and name not in values}
    return SlotParameters(values | added, _stale_data_note(manifest, as_of) if "as_of" in added else "")


def notebook_failures(jobs: Mapping[str, Job], settings: Settings) -> dict[str, list[Failure]]:
    """Return the failures of the jobs' notebooks, by job: unknown runbook or notebook, invalid parameter."""
    failures_by_job: dict[str, list[Failure]] = {}
    declared_of = cache(partial(notebook_parameters, settings=settings))  # many jobs run the same notebook
    for name, job in jobs.items():
        try:
            notebook, declared = declared_of(job.settings.run)
            check_values(
                list(declared.values()), _filled_values(job, EXAMPLE, None, settings, declared).values, notebook
            )
        except D2CError as err:
            failures_by_job[name] = [Failure(one_line_error(err), f"[schedule:{name}]")]
    return failures_by_job


def _dataset_manifest(
    declared: Mapping[str, Parameter], values: Mapping[str, str], settings: Settings
) -> Manifest | None:
    """Return the manifest of the dataset that a run will read, with the rules of runbooks; None if there is none."""
    if "as_of" not in declared and not any("{as_of" in text for text in values.values()):
        return None
    data = _parameter_text("data", declared, values)
    if not data and "model" in declared:
        data = settings.model(_parameter_text("model", declared, values)).data
    if not data and "data" in declared:
        data = SAMPLE
    return read_manifest(settings.store, data) if data in list_datasets(settings.store) else None


def _parameter_text(name: str, declared: Mapping[str, Parameter], values: Mapping[str, str]) -> str:
    """Return the text of a parameter's value: the given value, else a literal default of the notebook."""
    if name in values:
        return values[name]
    try:
        default: Any = ast.literal_eval(declared[name].default) if name in declared else ""
    except (ValueError, SyntaxError):
        return ""
    return default if isinstance(default, str) else ""


def _stale_data_note(manifest: Manifest | None, as_of: date) -> str:
    """Return a note if the data end before the as_of day."""
    last = manifest.last_day if manifest else None
    if not manifest or last is None or last >= as_of:
        return ""
    return f"the data of {manifest.name!r} end on {last}, before as_of {as_of}"
