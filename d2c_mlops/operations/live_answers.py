"""Live answers of a model with the outcomes that came of them: from the prediction log, the dataset and feedback."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import ColumnElement, String, cast, func, select

from d2c_mlops.data.days import local_days
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused
from d2c_mlops.ledger.schema import BATCH, by_callers, feedback, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.models.forecasting.panel import panel_of
from d2c_mlops.models.forecasting.periods import LENGTH, Freq, freq_of
from d2c_mlops.monitoring.reference import ReferenceSketches, days_of_records, sketch_records
from d2c_mlops.monitoring.relation import last_settled_day
from d2c_mlops.monitoring.unlabelled import ExpectedPerformance, expected_performance
from d2c_mlops.registry.versions import Version

MOST_ROWS = 200_000  # of the log that are read into memory; the latest count
CHUNK = 20_000
LEAST_OPEN = 50  # answers without outcome, of which something can be expected
HISTORY = 1096  # days of sales in which outcomes are looked up
COLUMNS = ("id", "version", "variant", "key", "at", "inputs", "outputs", "reasons")


def logged_predictions(ledger: Ledger, model: str, since: datetime, until: datetime) -> pd.DataFrame:
    """Return the predictions of a model that callers asked for between two moments, latest first, at most 200,000.

    Columns: id, version, variant, key, at (UTC), inputs, outputs, reasons.
    """
    condition = (
        predictions.c.model == model,
        predictions.c.at >= since,
        predictions.c.at < until,
        by_callers(predictions),
    )
    query = select(*(predictions.c[name] for name in COLUMNS)).where(*condition)
    query = query.order_by(predictions.c.at.desc(), predictions.c.id).limit(MOST_ROWS)
    with ledger.read() as connection:
        rows = [tuple(row) for row in connection.execution_options(yield_per=CHUNK).execute(query)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def calls_by_hour(ledger: Ledger, model: str, since: datetime, until: datetime) -> pd.Series[Any]:
    """Return the predictions of services by hour (UTC, without a zone); batches and probes are not counted."""
    condition = (
        predictions.c.model == model,
        predictions.c.at >= since,
        predictions.c.at < until,
        predictions.c.caller.is_distinct_from(BATCH),
        by_callers(predictions),
    )
    hour = _hour_text(ledger).label("hour")
    query = select(hour, func.count().label("calls")).where(*condition).group_by(hour)
    with ledger.read() as connection:
        rows = {pd.Timestamp(f"{row.hour}:00"): int(row.calls) for row in connection.execute(query)}
    return pd.Series(rows, dtype="float64").sort_index()


def _hour_text(ledger: Ledger) -> ColumnElement[str]:
    """Return the SQL for the hour of a prediction as text, such as 2024-06-01 13."""
    if ledger.engine.dialect.name == "sqlite":
        return func.substr(cast(predictions.c.at, String), 1, 13)
    return func.to_char(func.timezone("UTC", predictions.c.at), "YYYY-MM-DD HH24")


def input_frame(logged: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """Return the logged inputs that say something about drift: neither key nor personal fields nor dates."""
    names = [
        f.name
        for f in contract.input_fields
        if f.name != contract.key and not f.personal and f.kind not in ("date", "date-time")
    ]
    return pd.DataFrame([{name: values.get(name) for name in names} for values in logged["inputs"]], columns=names)


def answers_with_outcomes(
    ledger: Ledger, version: Version, logged: pd.DataFrame, tables: Tables | None, as_of: date, moment: datetime
) -> pd.DataFrame:
    """Return logged answers whose outcome was known: to the dataset at the end of `as_of`, or as feedback before `moment` (UTC).

    Columns: day, key, version, variant, predicted, outcome and, for forecasts, lower and upper. For forecasts the first answer about
    a series and period counts; its day is that of the period. For scores the last answer before the outcome counts.
    """
    contract = version.schema
    parts: list[pd.DataFrame] = []
    if len(logged) and tables is not None and is_forecast(contract):
        parts.append(_forecast_answers(version, logged, tables, as_of))
    elif len(logged) and tables is not None and is_lead_score(contract):
        parts.append(_lead_answers(logged, tables, as_of))
    elif len(logged):
        parts.append(_answers_with_feedback(ledger, version, logged, moment))
    empty = pd.DataFrame(columns=["day", "key", "version", "variant", "predicted", "outcome"])
    return parts[0] if parts and len(parts[0]) else empty


def is_forecast(contract: Contract) -> bool:
    """Return whether a contract asks for numbers by series and period."""
    return contract.frequency in LENGTH and _date_field(contract) is not None and "forecast" in contract.outputs.columns


def is_lead_score(contract: Contract) -> bool:
    """Return whether a contract scores leads."""
    return contract.key == "lead_id" and "score" in contract.outputs.columns


def has_own_outcomes(contract: Contract) -> bool:
    """Return whether the outcomes of answers are in the dataset, and not in feedback."""
    return is_forecast(contract) or is_lead_score(contract)


def _date_field(contract: Contract) -> str | None:
    return next((f.name for f in contract.input_fields if f.kind == "date"), None)


def _forecast_answers(version: Version, logged: pd.DataFrame, tables: Tables, as_of: date) -> pd.DataFrame:
    contract = version.schema
    when = _date_field(contract) or "date"
    frequency: Freq = freq_of(contract.frequency)
    try:
        panel = panel_of(tables, as_of, str(version.params.get("by") or contract.key), frequency, HISTORY)
    except DataRefused:
        return pd.DataFrame()
    rows = pd.DataFrame(
        {
            "series": logged["key"],
            "day": pd.to_datetime([values.get(when) for values in logged["inputs"]], errors="coerce"),
            "version": logged["version"],
            "variant": logged["variant"],
            "at": logged["at"],
            **{name: [values.get(column) for values in logged["outputs"]] for name, column in FORECAST_COLUMNS.items()},
        }
    )
    ends = pd.DatetimeIndex(panel.dates)
    place = ends.searchsorted(rows["day"])
    names = {name: number for number, name in enumerate(panel.series)}
    column = rows["series"].map(names)
    has_period = (place < len(ends)) & column.notna().to_numpy() & rows["day"].notna().to_numpy()
    rows = rows[has_period].assign(day=ends[place[has_period]])
    units = panel.observed_units(0, len(ends))[place[has_period], column[has_period].astype(int)]
    rows = rows.assign(outcome=units).dropna(subset=["outcome", "predicted"]).sort_values("at")
    rows = rows.drop_duplicates(["series", "day", "version"], keep="first").rename(columns={"series": "key"})
    numbers = {name: rows[name].astype(float) for name in ("predicted", "lower", "upper", "outcome")}
    return rows.assign(**numbers).drop(columns="at").reset_index(drop=True)


FORECAST_COLUMNS = {"predicted": "forecast", "lower": "lower_80", "upper": "upper_80"}


def _lead_answers(logged: pd.DataFrame, tables: Tables, as_of: date) -> pd.DataFrame:
    leads = tables.before(as_of)["leads"] if "leads" in tables else None
    if leads is None:
        return pd.DataFrame()
    outcomes = leads.dropna(subset=["outcome"]).drop_duplicates("lead_id", keep="last").set_index("lead_id")["outcome"]
    rows = logged.assign(
        predicted=[values.get("score") for values in logged["outputs"]],
        outcome=logged["key"].map((outcomes == "won").astype(float)),
        day=pd.DatetimeIndex(local_days(logged["at"], tables.zone)),
    )
    rows = rows.dropna(subset=["predicted", "outcome"]).drop_duplicates(["key", "version"], keep="first")
    rows = rows.assign(predicted=rows["predicted"].astype(float))
    return rows[["day", "key", "version", "variant", "predicted", "outcome"]].reset_index(drop=True)


def _answers_with_feedback(ledger: Ledger, version: Version, logged: pd.DataFrame, moment: datetime) -> pd.DataFrame:
    """Return answers whose outcome came as feedback with a number or a truth value."""
    query = select(feedback.c.prediction_id, feedback.c.key, feedback.c.value).where(
        feedback.c.model == version.model, feedback.c.action == "outcome", feedback.c.at < moment, by_callers(feedback)
    )
    with ledger.read() as connection:
        rows = connection.execute(query).all()
    by_id = {row.prediction_id: row.value for row in rows if row.prediction_id}
    by_key = {row.key: row.value for row in rows if not row.prediction_id}
    answer = next((f.name for f in version.schema.output_fields if f.kind in ("number", "integer", "boolean")), None)
    if answer is None:
        return pd.DataFrame()
    outcome = [by_id.get(id, by_key.get(key)) for id, key in zip(logged["id"], logged["key"], strict=True)]
    frame = pd.DataFrame(
        {
            "day": pd.DatetimeIndex(local_days(logged["at"], "UTC")),
            "key": logged["key"],
            "version": logged["version"],
            "variant": logged["variant"],
            "predicted": [_number(values.get(answer)) for values in logged["outputs"]],
            "outcome": [_number(value) for value in outcome],
        }
    )
    return frame.dropna(subset=["predicted", "outcome"]).reset_index(drop=True)


def _number(value: Any) -> float:
    if isinstance(value, Mapping):
        value = next(iter(value.values()), None)
    try:
        return float(value) if value is not None and not isinstance(value, str) else np.nan
    except (TypeError, ValueError):
        return np.nan


def settled_answers(version: Version, logged: pd.DataFrame, answers: pd.DataFrame, zone: str) -> pd.DataFrame:
    """Return the answers of days of which nearly all outcomes are known, for scores of leads; all answers of other models.

    Won leads are often known before lost ones, so that the outcomes of the last days are no sample of them.
    """
    if not is_lead_score(version.schema) or not len(logged) or not len(answers):
        return answers
    scored = logged.drop_duplicates(["key", "version"])
    settled = last_settled_day(
        pd.DatetimeIndex(local_days(scored["at"], zone)), pd.DatetimeIndex(pd.to_datetime(answers["day"]))
    )
    return answers.iloc[:0] if settled is None else answers[pd.to_datetime(answers["day"]) <= settled]


def expected_of_open_leads(
    version: Version, logged: pd.DataFrame, answers: pd.DataFrame, since: datetime
) -> ExpectedPerformance | None:
    """Return what scores of leads since a moment are expected to be worth that are not among `answers`, the settled ones.

    None for other models, and where fewer than 50 such leads, or fewer than 50 outcomes of a kind, are known.
    """
    if not is_lead_score(version.schema) or not len(answers):
        return None
    scored = logged[logged["version"] == version.version].drop_duplicates("key").reset_index(drop=True)
    scores = pd.Series([_number(values.get("score")) for values in scored["outputs"]], dtype=float)
    outcomes = answers[answers["version"] == version.version].drop_duplicates("key").set_index("key")["outcome"]
    outcome = scored["key"].map(outcomes)
    is_known = outcome.notna() & scores.notna()
    is_open = outcome.isna() & scores.notna() & (scored["at"] >= since)
    if is_open.sum() < LEAST_OPEN:
        return None
    inputs = input_frame(scored, version.schema)
    try:
        return expected_performance(
            inputs[is_known],
            np.asarray(scores[is_known], np.float64),
            np.asarray(outcome[is_known], np.float64),
            inputs[is_open],
            np.asarray(scores[is_open], np.float64),
        )
    except DataRefused:
        return None


def sketch_logged(contract: Contract, logged: pd.DataFrame, zone: str) -> ReferenceSketches:
    """Return the sketches of logged predictions; the day of one is that which it asks about, else that on which it was asked for."""
    records = _frame_of(logged["inputs"], [f.name for f in contract.input_fields])
    answers = _frame_of(logged["outputs"], [f.name for f in contract.output_fields])
    reasons = [texts if isinstance(texts, list) else [] for texts in logged["reasons"]]
    days = days_of_records(contract, records)
    if days is None:
        days = pd.Series(pd.DatetimeIndex(local_days(logged["at"], zone)))
    return sketch_records(contract, records, answers, reasons, days)


def _frame_of(values: pd.Series, names: list[str]) -> pd.DataFrame:
    rows = [row if isinstance(row, Mapping) else {} for row in values]
    return pd.DataFrame([{name: row.get(name) for name in names} for row in rows], columns=names)
