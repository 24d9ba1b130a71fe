"""The records that a model itself says are to be predicted: all series, all customers, all open leads."""

from __future__ import annotations

import pandas as pd

from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.models.core.model import Model
from d2c_mlops.registry.versions import Version
from d2c_mlops.serving.batch.record_source import RecordSource
from d2c_mlops.settings import Settings


class NoRecords(DataRefused):
    """Nothing is to be predicted: no lead is open."""


def asked_records(model: Model, version: Version, settings: Settings, sums: bool = False) -> RecordSource:
    """Return the records of a fitted model's own horizon, with its sums if `sums`, else those of its dataset as of its last day.

    Raises NoRecords where nothing is open, UsageError where there are no sums, or where the version names no dataset, or one that is gone.
    """
    records = model.own_records()
    if sums:
        of_sums = model.sum_records()
        if records is None or of_sums is None:
            raise UsageError(f"{version.model} has no sums of its own", where="--sums", next="leave --sums out")
        records = pd.concat([records, of_sums], ignore_index=True)
    return RecordSource(records, False) if records is not None else _records_of_dataset(model, version, settings)


def _records_of_dataset(model: Model, version: Version, settings: Settings) -> RecordSource:
    name = next((dataset["name"] for dataset in version.inputs if dataset.get("name")), "")
    name = name or settings.model(version.model).data
    if not name:
        raise UsageError(
            f"version {version.version} of {version.model} does not say which dataset it learned from",
            next=f"name a SOURCE with the records to predict, or the dataset in [model:{version.model}] data",
        )
    tables = Tables.open(settings.store, name)
    last = tables.manifest.last_day if tables.manifest else None
    if last is None:
        raise UsageError(f"the dataset {name} has no days", next="name a SOURCE with the records to predict")
    records = _without_known_outcomes(model.records(tables, last), model.contract.key, tables)
    if records.empty:
        raise NoRecords(
            f"the dataset {name} has nothing to predict as of {last}: every outcome is known",
            next="nothing needs to be done, or name a SOURCE with the records to predict",
        )
    return RecordSource(records, False, (f"{len(records):,} records of the dataset {name} as of {last}",))


def _without_known_outcomes(records: pd.DataFrame, key: str, tables: Tables) -> pd.DataFrame:
    """Return the records without the leads whose outcome is known: nobody needs a prediction of it."""
    if key != "lead_id" or "leads" not in tables:
        return records
    leads = tables["leads"]
    decided = set(leads.loc[leads["outcome"].notna(), key].astype(str))
    return records[~records[key].astype(str).isin(decided)].reset_index(drop=True)
