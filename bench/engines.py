"""One panel on every backend of joblib: the same forecasts to 1e-9, also when a worker is killed; wall time and overhead.

    .bench/engines/bin/python bench/engines.py [BACKEND …]

The environment holds the project with distributed, Ray, and Spark with joblibspark (`make test-engines` makes it); Spark needs a JVM. Each backend
runs in a process of its own, on this machine. The dataset is in Parquet: workers read it, and the folder of records, themselves. STRICT=1 makes a
missed aim an exit code of 1.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from aims import Aim, close, table

WORKERS = 2
BACKENDS = ("sequential", f"loky:{WORKERS}", f"dask:{WORKERS}", f"ray:{WORKERS}", f"spark:{WORKERS}")
CLOSE = 1e-9
PRODUCTS, DAYS, AS_OF = 60, 730, date(2024, 12, 30)
FILES = 6  # of the folder of records
EMPTY_JOBS = 20


def prepare(place: Path) -> None:
    """Simulate a shop as a dataset, register a forecaster of it, and write the folder of records."""
    from d2c_mlops.data.simulate import Shop
    from d2c_mlops.data.store import write_dataset
    from d2c_mlops.data.tables import Tables
    from d2c_mlops.models.core.model import Evaluation
    from d2c_mlops.registry.versions import new_model, register

    settings = settings_of(place)
    shop = Shop("grocer", 1, DAYS, date(2023, 1, 1), PRODUCTS / 18, PRODUCTS).tables()
    frames = {name: shop[name] for name in ("order_lines", "products")}
    manifest, _ = write_dataset(
        settings.store, "shop", frames, source="simulated", layout="canonical", created_at=datetime.now(UTC)
    )
    model = new_model("demand", settings, {"freq": "W", "by": "product_id"})
    tables = Tables.open(settings.store, "shop")
    model.fit(tables, AS_OF)
    inputs = [{"name": "shop", "digest": manifest.digest}]
    register("demand", model, Evaluation("wape", 0.5, {}, True), settings=settings, as_of=AS_OF, inputs=inputs)
    records = model.records(tables, AS_OF)
    for files in (1, FILES):
        folder = place / f"records-{files}"
        folder.mkdir()
        for number, rows in enumerate(np.array_split(np.arange(len(records)), files)):
            records.iloc[rows].to_parquet(folder / f"part-{number}.parquet", index=False)


def settings_of(place: Path):  # type: ignore[no-untyped-def]
    """Return settings with a store of its own."""
    from d2c_mlops.settings import Settings

    return Settings(root=place, store=place / "store")


@contextmanager
def clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the wall time of a block."""
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began


def nothing(number: int) -> int:
    """Return the number: what is left is the overhead of a job."""
    return number


def run(place: Path, text: str) -> None:
    """Backtest, fit and score by a backend; write the numbers, and print the seconds."""
    from d2c_mlops.data.tables import Tables
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.models.forecasting.backtest import backtests
    from d2c_mlops.models.forecasting.forecasting import DemandForecaster, inputs_for, replay
    from d2c_mlops.models.forecasting.ladder import ladder_forecast
    from d2c_mlops.parallel import run_jobs, use_backend
    from d2c_mlops.registry.versions import find_version
    from d2c_mlops.serving.batch.parquet_folder import score_parts

    settings, seconds = settings_of(place), dict[str, float]()
    version = find_version(Ledger.of(settings), "demand", 1)
    tables, model = Tables.open(settings.store, "shop"), DemandForecaster(freq="W", by="product_id")
    panel = model.panel(tables, AS_OF)
    marker, parent = place / f"killed-{text.partition(':')[0]}", os.getpid()

    def killed_once(past, horizon):  # type: ignore[no-untyped-def]
        """Forecast; the first worker that does so is killed."""
        if os.getpid() != parent and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return ladder_forecast(inputs_for(model, tables, past)).answers

    with use_backend(text):
        with clock(seconds, "start"):
            run_jobs(nothing, [(number,) for number in range(WORKERS)])
        with clock(seconds, "empty jobs"):
            run_jobs(nothing, [(number,) for number in range(EMPTY_JOBS)])
        with clock(seconds, "backtest"):
            replayed = replay(model, tables, AS_OF)["forecast"]
        with clock(seconds, "fit"):
            fitted = ladder_forecast(inputs_for(model, tables, panel))
        with clock(seconds, "backtest, one killed"):
            killed = backtests(panel, {"forecast": killed_once}, model.horizon, 2, model.min_history)["forecast"]
    with clock(seconds, "score"):
        for files in (1, FILES):
            sink = f"{place}/scored-{text.partition(':')[0]}-{files}/"
            score_parts(version, str(place / f"records-{files}"), sink, replace(settings, backend=text))
    scored = {
        f"scored in {files} files": pd.concat(
            pd.read_parquet(file)
            for file in sorted((place / f"scored-{text.partition(':')[0]}-{files}").glob("*.parquet"))
        )
        for files in (1, FILES)
    }
    arrays = {
        "backtest": np.concatenate([replayed.forecast[..., None], replayed.bounds], axis=-1),
        "fit": fitted.answers,
        "backtest, one killed": np.concatenate([killed.forecast[..., None], killed.bounds], axis=-1),
        **{name: frame.filter(regex="forecast|lower|upper").to_numpy(float) for name, frame in scored.items()},
    }
    np.savez(place / f"{text.partition(':')[0]}.npz", **arrays)
    print(json.dumps(seconds | {"killed": float(marker.exists())}))


def child(*arguments: str) -> dict[str, float]:
    """Run a part of this benchmark in a process of its own and return what it prints."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # without byte code Ray's agents start too slowly
    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environ)
    answer: dict[str, float] = json.loads((ended.stdout.splitlines() or ["{}"])[-1])
    return answer


def differences(place: Path, text: str) -> dict[str, float]:
    """Return by name the largest difference to the numbers of one process."""
    with np.load(place / "sequential.npz") as alone, np.load(place / f"{text.partition(':')[0]}.npz") as spread:
        assert set(alone.files) == set(spread.files)
        found = {}
        for name in alone.files:
            assert alone[name].shape == spread[name].shape and np.isfinite(alone[name]).any(), name
            same_gaps = (np.isnan(alone[name]) == np.isnan(spread[name])).all()
            found[name] = float(np.nanmax(np.abs(alone[name] - spread[name]))) if same_gaps else float("inf")
        whole, parts = (alone[f"scored in {files} files"] for files in (1, FILES))
        found["parts beside one file"] = float(np.nanmax(np.abs(whole - parts)))
    return found


def main(arguments: list[str]) -> int:
    """Run all backends, print what they cost, and compare their numbers."""
    if arguments[:1] == ["--prepare"]:
        prepare(Path(arguments[1]))
        print("{}")
        return 0
    if arguments[:1] == ["--run"]:
        run(Path(arguments[1]), arguments[2])
        return 0
    chosen = [text for text in BACKENDS if not arguments or text.partition(":")[0] in (*arguments, "sequential")]
    rows, aims = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        child("--prepare", folder)
        for text in chosen:
            try:
                cost = child("--run", folder, text)
            except subprocess.CalledProcessError as error:
                aims.append(Aim(f"{text}: the same numbers to {CLOSE:g}", f"ended with {error.returncode}", False))
                continue
            names = ("start", "backtest", "fit", "score", "backtest, one killed")
            rows.append(
                {
                    "backend": text,
                    **{f"{name} s": f"{cost[name]:.1f}" for name in names},
                    "overhead ms a job": f"{1000 * cost['empty jobs'] / EMPTY_JOBS:.1f}",
                }
            )
            if text == "sequential":
                continue
            apart = differences(place, text)
            worst = max((size, name) for name, size in apart.items() if "killed" not in name)
            aims.append(
                Aim(f"{text}: the same numbers to {CLOSE:g}", f"{worst[0]:.1e} ({worst[1]})", worst[0] <= CLOSE)
            )
            size = apart["backtest, one killed"]
            killed = f"{size:.1e}, {'a worker was killed' if cost['killed'] else 'no worker was killed'}"
            aims.append(Aim(f"{text}: a killed worker changes nothing", killed, bool(cost["killed"]) and size <= CLOSE))
    print(table(rows))
    return close(aims)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
