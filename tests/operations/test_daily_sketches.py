"""Sketches by day add up to the sketch of all rows, follow what is added and forgotten, and the monitor reads them."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sqlalchemy import delete, insert, select, update

from d2c_mlops.cli import main
from d2c_mlops.ledger.schema import daily_sketches, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.operations import daily_sketches as daily_sketches_module
from d2c_mlops.operations import monitor
from d2c_mlops.operations.daily_sketches import add_up, add_up_all, sketches_of_days
from d2c_mlops.operations.live_answers import logged_predictions, sketch_logged
from d2c_mlops.registry.versions import Version
from d2c_mlops.settings import Settings
from support.training import train

NOW = datetime(2024, 2, 1, 6, tzinfo=UTC)
FIRST, LAST = date(2024, 1, 20), date(2024, 1, 31)
DAYS = pd.date_range(FIRST, LAST)


def rows_of(count: int, seed: int = 0, version: int = 1) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    for number in range(count):
        at = NOW - timedelta(minutes=int(rng.integers(1, 10 * 1440)))
        product = f"P{int(rng.integers(0, 40)):03}"
        yield {"id": f"{seed}-{number}", "model": "mean_units", "version": version, "contract": "1.0.0", "variant": "champion", "key": product, "at": at,
               "inputs": {"product_id": product, "day": at.date().isoformat()}, "outputs": {"product_id": product, "units": float(rng.lognormal())},
               "reasons": [f"level: +{rng.random():.2f}"] if rng.random() < 0.9 else None, "caller": "shop", "request_id": f"{seed}-{number}", "origin": None}  # fmt: skip


def write(ledger: Ledger, rows: Iterator[dict[str, Any]]) -> None:
    with ledger.write() as connection:
        connection.execute(insert(predictions), list(rows))


@pytest.fixture
def version(settings: Settings) -> Version:
    trained = train(settings)
    write(Ledger.of(settings), rows_of(900))
    return trained


def test_the_sum_of_the_days_is_the_sketch_of_all_rows(settings: Settings, version: Version) -> None:
    ledger = Ledger.of(settings)
    assert sketches_of_days(ledger, version, FIRST, LAST, "UTC") is None  # nothing is added up yet
    assert add_up_all(ledger, settings, NOW) >= 9
    assert add_up_all(ledger, settings, NOW) == 0  # nothing changed
    logged = logged_predictions(ledger, "mean_units", NOW - timedelta(days=20), NOW)
    days = sketches_of_days(ledger, version, FIRST, LAST, "UTC")
    assert days is not None and 0 < days.outputs["units"].rows < 900, "the present day is not over"
    summed = monitor.recent_sketches(ledger, version, logged, NOW, "UTC", 20)
    assert summed == sketch_logged(version.schema, logged, "UTC") and summed.outputs["units"].rows == 900
    assert summed.reasons is not None and summed.reasons.counts == {"level: #": summed.reasons.rows}


def test_days_are_added_up_once_they_are_over(
    settings: Settings, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, read = Ledger.of(settings), []
    monkeypatch.setattr(daily_sketches_module, "predictions_by_day", lambda *given: read.append(given) or {})
    monkeypatch.setattr(daily_sketches_module, "_stored_days", lambda *_: {(1, day.date()): "" for day in DAYS})
    assert add_up_all(ledger, settings, NOW) == 0 and not read, "no row of a day that is added up is read again"
    write(ledger, rows_of(5, seed=3))  # later rows of the present day and of days before
    assert add_up_all(ledger, settings, NOW) == 0 and not read
    add_up_all(ledger, settings, NOW + timedelta(days=1))
    assert len(read) == 1, "yesterday is over"


def test_later_and_forgotten_predictions_are_noticed(settings: Settings, version: Version) -> None:
    ledger = Ledger.of(settings)
    add_up(ledger, settings, "mean_units", NOW)
    write(ledger, rows_of(5, seed=1))
    with ledger.write() as connection:
        connection.execute(delete(predictions).where(predictions.c.key == "P007"))
    assert sketches_of_days(ledger, version, FIRST, LAST, "UTC") is None
    assert add_up(ledger, settings, "mean_units", NOW) > 0
    for moment in (NOW, NOW - timedelta(hours=30)):
        logged = logged_predictions(ledger, "mean_units", NOW - timedelta(days=20), moment)
        summed = monitor.recent_sketches(ledger, version, logged, moment, "UTC", 20)
        assert summed == sketch_logged(version.schema, logged, "UTC")
    with ledger.write() as connection:
        connection.execute(delete(predictions))
    add_up(ledger, settings, "mean_units", NOW)
    with ledger.read() as connection:
        assert connection.execute(select(daily_sketches)).all() == []


def test_versions_are_apart_and_an_unknown_one_is_left_out(settings: Settings, version: Version) -> None:
    ledger = Ledger.of(settings)
    write(ledger, rows_of(50, seed=2, version=7))
    add_up(ledger, settings, "mean_units", NOW)
    logged = logged_predictions(ledger, "mean_units", NOW - timedelta(days=20), NOW)
    assert monitor.recent_sketches(ledger, version, logged, NOW, "UTC", 20).outputs["units"].rows == 900


def test_the_command_adds_up_and_the_monitor_reads_the_sums(
    settings: Settings, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.of(settings)
    with ledger.write() as connection:
        connection.execute(update(predictions).values(at=datetime.now(UTC) - timedelta(days=3)))
    done = CliRunner().invoke(main, ["collect"])
    assert done.exit_code == 0, done.output
    with ledger.read() as connection:
        (row,) = connection.execute(select(daily_sketches)).all()
    assert row.summed.startswith("900 ") and row.sketches["outputs"]["units"]["rows"] == 900

    def refuse(*_: object) -> None:
        raise AssertionError("the monitor reads all rows")

    monkeypatch.setattr(monitor, "sketch_logged", refuse)
    logged = logged_predictions(ledger, "mean_units", datetime.now(UTC) - timedelta(days=9), datetime.now(UTC))
    current = monitor.recent_sketches(ledger, version, logged, datetime.now(UTC), "UTC", 28)
    assert current.outputs["units"].rows == 900
