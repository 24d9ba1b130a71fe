"""Jobs give the same results wherever they run, in the order in which they were passed, and a killed worker changes nothing."""

from __future__ import annotations

import os
import signal
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from d2c_mlops.data.simulate import shop
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, SettingsError, Temporary, UsageError
from d2c_mlops.models.forecasting import boosted
from d2c_mlops.models.forecasting.backtest import backtest, backtests
from d2c_mlops.models.forecasting.baselines import last_year, seasonal_naive, weekday_mean
from d2c_mlops.models.forecasting.forecasting import DemandForecaster, replay
from d2c_mlops.models.forecasting.ladder import simple_forecasts
from d2c_mlops.parallel import Backend, current_backend, parse_backend, run_jobs, use_backend
from d2c_mlops.settings import load_settings
from support.panels import panel, promoted


def square(number: int, folder: str = "") -> int:
    """Return the square; the first time in a folder, and for 3, the worker is killed."""
    if folder and number == 3 and not (marker := Path(folder) / "killed").exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def refuse(number: int) -> int:
    if number % 2:
        raise DataRefused(f"number {number} is odd", where=f"row {number}", next="correct it")
    return number


class Awkward(Exception):
    """An error that cannot be sent to another process."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__("text")


def awkward(number: int) -> int:
    raise Awkward(number, 2)


def backend_inside(number: int) -> str:
    return current_backend().name


# -- the setting


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("sequential", Backend()),
        ("loky", Backend("loky")),
        ("threading:3", Backend("threading", 3)),
        ("dask:tcp://10.0.0.1:8786", Backend("dask", 0, "tcp://10.0.0.1:8786")),
        ("spark:local[4]", Backend("spark", 0, "local[4]")),
        ("ray:ray://head:10001", Backend("ray", 0, "ray://head:10001")),
    ],
)
def test_a_backend_is_a_name_with_workers_or_an_address(text: str, backend: Backend) -> None:
    assert parse_backend(text) == backend


@pytest.mark.parametrize(
    "text", ["", "locky", "loky:", "loky:0", "loky:-1", "loky:two", "loky:99999", "sequential:2", "dask:0", "Dask"]
)
def test_a_text_that_names_no_backend_is_refused_with_its_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.ini").write_text(f"[d2c]\nbackend = {text}\n")
    with pytest.raises(SettingsError, match=r"\[d2c\] backend"):
        load_settings(tmp_path, environ={})


def test_the_environment_chooses_the_backend_of_a_command(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[d2c]\nbackend = loky\n")
    assert load_settings(tmp_path, environ={}).backend == "loky"
    assert load_settings(tmp_path, environ={"D2C_BACKEND": "dask:4"}).backend == "dask:4"


def test_a_backend_whose_package_is_absent_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2c_mlops.parallel.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'd2c_mlops\[ray\]'"), use_backend("ray"):
        pass


# -- jobs


@pytest.mark.parametrize("text", ["sequential", "threading:2"])
def test_results_have_the_order_of_the_jobs(text: str) -> None:
    with use_backend(text):
        assert run_jobs(square, [(n,) for n in range(20)]) == [n * n for n in range(20)]


@pytest.mark.parametrize("text", ["sequential", "threading:2"])
def test_the_first_error_of_a_job_is_raised_as_it_is(text: str) -> None:
    with use_backend(text), pytest.raises(DataRefused, match="number 1 is odd") as caught:
        run_jobs(refuse, [(n,) for n in range(6)])
    assert (caught.value.where, caught.value.next) == ("row 1", "correct it")


@pytest.mark.parametrize("text", ["threading:1", "threading:2"])
def test_a_job_runs_its_own_jobs_one_after_the_other_and_the_block_ends_with_the_former_backend(text: str) -> None:
    with use_backend(text):
        assert run_jobs(backend_inside, [(0,), (1,)]) == ["sequential", "sequential"]
        assert current_backend().name == "threading"
    assert current_backend() == Backend()


def test_workers_that_are_lost_again_and_again_are_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []

    def lose(backend: Backend, function: object, numbered: list[tuple[int, object]]) -> list[object]:
        attempts.append(len(numbered))
        raise RuntimeError("worker lost\nand more")

    monkeypatch.setattr("d2c_mlops.parallel._finished_outcomes", lose)
    with use_backend("threading:2"), pytest.raises(Temporary, match=r"RuntimeError: worker lost\)"):
        run_jobs(square, [(1,), (2,)])
    assert attempts == [2, 2, 2, 2]


def test_jobs_that_were_finished_before_a_worker_was_lost_are_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from d2c_mlops import parallel

    numbers: list[list[int]] = []

    def lose_once(backend: Backend, function: object, numbered: list[tuple[int, tuple[int]]]) -> object:
        numbers.append([number for number, _ in numbered])
        yield parallel.JobOutcome(numbered[0][0], square(*numbered[0][1]), None)
        if len(numbers) < 3:
            raise RuntimeError("worker lost")
        for number, job in numbered[1:]:
            yield parallel.JobOutcome(number, square(*job), None)

    monkeypatch.setattr(parallel, "_finished_outcomes", lose_once)
    with use_backend("threading:2"):
        assert run_jobs(square, [(n,) for n in range(5)]) == [0, 1, 4, 9, 16]
    assert numbers == [[0, 1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4]]


@pytest.mark.slow
def test_a_killed_worker_process_changes_nothing(tmp_path: Path) -> None:
    with use_backend("loky:2"):
        assert run_jobs(square, [(n, str(tmp_path)) for n in range(6)]) == [n * n for n in range(6)]
    assert (tmp_path / "killed").exists()


@pytest.mark.slow
def test_an_error_that_no_process_can_send_is_told_by_its_text() -> None:
    with use_backend("loky:2"), pytest.raises(RuntimeError, match="Awkward: text"):
        run_jobs(awkward, [(1,), (2,)])


# -- the forecasts


def test_backtests_of_several_methods_are_those_of_each_alone() -> None:
    sold = np.random.default_rng(3).poisson(4.0, (150, 9)).astype(float)
    sold[:, 4] = np.nan  # never scored
    shop_panel = panel(sold, "D")
    methods = {"naive": seasonal_naive, "mean": weekday_mean}
    with use_backend("threading:2"):
        together = backtests(shop_panel, methods, 14, 3)
    for name, method in methods.items():
        alone = backtest(shop_panel, method, 14, 3)
        assert together[name].cutoffs == alone.cutoffs
        for part in ("actual", "forecast", "bounds", "scale"):
            np.testing.assert_array_equal(getattr(together[name], part), getattr(alone, part))
        assert np.isnan(alone.forecast[:, :, 4]).all() and np.isfinite(alone.forecast[:, :, 0]).all()
    assert last_year(shop_panel, 14) is None


def test_a_tree_learns_from_the_same_rows_on_threads() -> None:
    origins = boosted.training_origins(promoted(130, 60, 8)[0], 130)[:12]
    alone = boosted.training_rows(promoted(130, 60, 8)[0], origins, simple_forecasts)
    with use_backend("threading:2"):
        spread = boosted.training_rows(promoted(130, 60, 8)[0], origins, simple_forecasts)
    for rows, expected in zip(spread, alone, strict=True):
        np.testing.assert_array_equal(rows, expected)


def test_tables_of_the_store_are_sent_without_the_rows_that_were_read(tmp_path: Path) -> None:
    import pickle
    from datetime import UTC, datetime

    frames = dict(shop(days=30, customers=40))
    write_dataset(tmp_path, "shop", frames, source="simulated", layout="canonical", created_at=datetime.now(UTC))
    tables = Tables.open(tmp_path, "shop")
    rows = len(tables["order_lines"])
    unread = Tables.open(tmp_path, "shop")
    assert len(pickle.dumps(tables)) == len(pickle.dumps(unread)) < len(pickle.dumps(Tables(frames)))
    assert len(pickle.loads(pickle.dumps(tables))["order_lines"]) == len(tables["order_lines"]) == rows
    earlier = pickle.loads(pickle.dumps(tables.before(date(2023, 1, 20))))
    assert 0 < len(earlier["order_lines"]) < rows


@pytest.mark.slow
def test_an_evaluation_in_worker_processes_has_the_same_numbers(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    tables, as_of = DemandForecaster.example()
    write_dataset(tmp_path, "shop", dict(tables), source="simulated", layout="canonical", created_at=datetime.now(UTC))
    stored, model = Tables.open(tmp_path, "shop"), DemandForecaster(by="product_id", cutoffs=2)
    alone = replay(model, stored, as_of)
    with use_backend("loky:2"):
        spread = replay(model, stored, as_of)
    for name, result in alone.items():
        np.testing.assert_allclose(spread[name].forecast, result.forecast, rtol=0, atol=1e-9)
        np.testing.assert_allclose(spread[name].bounds, result.bounds, rtol=0, atol=1e-9)
