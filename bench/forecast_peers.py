"""Forecasts of other libraries for the panels of bench/forecast.py, in an environment of their own (`make bench-forecast` makes it).

    .bench/forecasters/bin/python bench/forecast_peers.py FOLDER

Reads FOLDER/PANEL.parquet (series, step, date, units, plan columns) and PANEL.json, writes PANEL.forecasts.parquet (method, cutoff, step, series, and
the quantiles .1, .5 and .9) and PANEL.costs.json (CPU seconds and peak memory by method). Methods of single series run on the sample of the panel;
those of all series learn from every row that they are given. Each method runs in a process of its own. Seeds are fixed.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("NIXTLA_ID_AS_COL", "1")
import numpy as np
import pandas as pd

SEED = 1
KEYS = ["unique_id", "ds"]
QUANTILES = (0.1, 0.5, 0.9)
ROUNDS = 200
LGB = {"num_leaves": 31, "learning_rate": 0.05, "min_child_samples": 20, "seed": SEED, "num_threads": 1, "deterministic": True,
       "force_row_wise": True, "verbose": -1}  # fmt: skip
PROPHETS = 6  # series of a sample that Prophet is tried on


def dated(panel: pd.DataFrame) -> pd.DataFrame:
    """Return the panel with the column names of Nixtla's libraries; a gap counts as 0, steps before the first sale are left out."""
    frame = panel.rename(columns={"series": "unique_id", "date": "ds", "units": "y"}).sort_values(["unique_id", "step"])
    started = frame["y"].notna().groupby(frame["unique_id"]).cummax()
    return frame[started].assign(y=lambda f: f["y"].fillna(0.0))


def local(name: str, past: pd.DataFrame, about: dict) -> pd.DataFrame:
    """Return the forecasts of a method of single series from statsforecast."""
    from statsforecast import StatsForecast
    from statsforecast.models import AutoETS, AutoTheta, CrostonSBA, SeasonalNaive
    from statsforecast.utils import ConformalIntervals

    week, year = about["period"], about["year"]
    conformal = ConformalIntervals(h=about["horizon"], n_windows=2)
    model = {
        "AutoETS": lambda: AutoETS(season_length=week),
        "AutoTheta": lambda: AutoTheta(season_length=week),
        "CrostonSBA": lambda: CrostonSBA(prediction_intervals=conformal),
        "naive of week": lambda: SeasonalNaive(season_length=week),
        "naive of year": lambda: SeasonalNaive(season_length=year),
    }[name]()
    long_enough = past.groupby("unique_id")["y"].transform("size") > (
        year if name == "naive of year" else 2 * about["horizon"] + 1
    )
    if not long_enough.any():
        return pd.DataFrame(columns=[*KEYS, "q10", "q50", "q90"])
    made = StatsForecast(
        models=[model], freq=about["pandas_freq"], fallback_model=SeasonalNaive(season_length=week)
    ).forecast(df=past.loc[long_enough, [*KEYS, "y"]], h=about["horizon"], level=[80])
    alias = next(c for c in made.columns if c not in KEYS and "-lo-" not in c and "-hi-" not in c)
    return made[KEYS].assign(q10=made[f"{alias}-lo-80"], q50=made[alias], q90=made[f"{alias}-hi-80"])


def recursive(past: pd.DataFrame, ahead: pd.DataFrame, about: dict) -> pd.DataFrame:
    """Return the forecasts of mlforecast: LightGBM on lags, recursively, with the plan and conformal intervals."""
    import lightgbm as lgb
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean
    from mlforecast.utils import PredictionIntervals

    week, horizon, plan = about["period"], about["horizon"], about["plan"]
    lags = sorted({1, week, 2 * week, 4 * week} if week > 1 else {1, 2, 3, 4, 8, 13})
    if past.groupby("unique_id").size().min() > about["year"] + 3 * horizon:
        lags.append(about["year"])
    windows = {1: [RollingMean(4 * week, min_samples=1), RollingMean(13 * week, min_samples=1)]}
    features = ["dayofweek", "month", "day"] if week > 1 else ["month", "week"]
    features = [f for f in features if f != "week"] + ([_week] if "week" in features else [])
    model = MLForecast(
        {"lgb": lgb.LGBMRegressor(objective="tweedie", n_estimators=ROUNDS, **LGB)},
        freq=about["pandas_freq"], lags=lags, lag_transforms=windows, date_features=features,
    )  # fmt: skip
    shortest = int(past.groupby("unique_id").size().min())
    intervals = PredictionIntervals(n_windows=2, h=horizon) if shortest > 3 * horizon + max(lags) else None
    past = past.assign(y=past["y"].clip(lower=0.0))
    model.fit(past[[*KEYS, "y", *plan]], static_features=[], prediction_intervals=intervals)
    future = ahead[[*KEYS, *plan]] if plan else None
    made = model.predict(horizon, X_df=future, level=[80] if intervals else None)
    low, high = ("lgb-lo-80", "lgb-hi-80") if intervals else ("lgb", "lgb")
    return made[KEYS].assign(q10=made[low], q50=made["lgb"], q90=made[high])


def _week(dates: pd.DatetimeIndex) -> pd.Index:
    return dates.isocalendar().week.to_numpy(int)


def direct(past: pd.DataFrame, ahead: pd.DataFrame, about: dict) -> pd.DataFrame:
    """Return the forecasts of LightGBM on lags no shorter than the horizon, calendar and plan; a model for each quantile."""
    import lightgbm as lgb

    week, horizon = about["period"], about["horizon"]
    first = -(-horizon // week) * week
    whole = pd.concat([past, ahead.assign(y=np.nan)], ignore_index=True).sort_values(["unique_id", "step"])
    of_series = whole.groupby("unique_id")["y"]
    columns = {
        f"lag{n}": of_series.shift(n) for n in (*range(first, first + 4 * week, max(week // 7, 1)), about["year"])
    }
    for window in (week, 4, 4 * week, 13 * week):
        columns[f"mean{window}"] = of_series.transform(
            lambda y, w=window: y.shift(horizon).rolling(w, min_periods=1).mean()
        )
    columns["weekday"], columns["day"] = whole["ds"].dt.dayofweek, whole["ds"].dt.dayofyear
    columns["series"] = whole["unique_id"].astype("category").cat.codes
    level = of_series.transform("mean").clip(lower=1e-9)  # of the past alone: what is ahead is missing
    x = pd.DataFrame({n: c / level if n.startswith(("lag", "mean")) else c for n, c in columns.items()})
    x = x.join(whole[[*about["plan"], *about["groups"]]])
    known = whole["y"].notna() & columns[f"lag{first}"].notna()
    target, weight = (whole["y"] / level)[known], level[known]
    data = lgb.Dataset(x[known], target, weight=weight / weight.mean(), free_raw_data=False)
    future = whole["y"].isna()
    answers = [
        lgb.train(LGB | {"objective": "quantile", "alpha": q}, data, ROUNDS).predict(x[future]) * level[future]
        for q in QUANTILES
    ]
    ordered = np.sort(np.maximum(np.stack(answers), 0.0), axis=0)
    return whole.loc[future, KEYS].assign(q10=ordered[0], q50=ordered[1], q90=ordered[2])


def prophet(past: pd.DataFrame, ahead: pd.DataFrame, about: dict) -> pd.DataFrame:
    """Return Prophet's forecasts of a few series, with the plan as regressors."""
    import logging

    from prophet import Prophet

    logging.getLogger("cmdstanpy").setLevel(logging.ERROR)
    plan, parts = about["plan"], []
    for name in about["sample"][:: max(len(about["sample"]) // PROPHETS, 1)][:PROPHETS]:
        mine, next_steps = past[past["unique_id"] == name], ahead[ahead["unique_id"] == name]
        used = [
            c
            for c in plan
            if mine[c].notna().all() and next_steps[c].notna().all() and (mine[c] != mine[c].iloc[0]).any()
        ]
        model = Prophet(interval_width=0.8, uncertainty_samples=300)
        for column in used:
            model.add_regressor(column)
        np.random.seed(SEED)
        model.fit(mine[["ds", "y", *used]])
        made = model.predict(next_steps[["ds", *used]])
        columns = {"q10": made["yhat_lower"], "q50": made["yhat"], "q90": made["yhat_upper"]}
        parts.append(pd.DataFrame({"unique_id": name, "ds": made["ds"], **columns}))
    return pd.concat(parts)


LOCAL = ("naive of week", "naive of year", "AutoETS", "AutoTheta", "CrostonSBA")
SHARED = {"mlforecast": recursive, "LightGBM": direct, "Prophet": prophet}


def run(folder: Path, name: str, method: str) -> None:
    """Forecast a panel from all cutoffs by a method; write the forecasts and print the cost."""
    about = json.loads((folder / f"{name}.json").read_text())
    frame = dated(pd.read_parquet(folder / f"{name}.parquet"))
    sampled = frame["unique_id"].isin(about["sample"])
    parts, spent = [], 0.0
    for number, cutoff in enumerate(about["cutoffs"]):
        past = frame[frame["step"] < cutoff]
        alive = past.groupby("unique_id")["y"].transform("size") > 1
        past = past[alive]
        ahead = frame[(frame["step"] >= cutoff) & (frame["step"] < cutoff + about["horizon"])]
        ahead = ahead[ahead["unique_id"].isin(past["unique_id"].unique())]
        whole = ahead.groupby("unique_id")["ds"].transform("size") == about["horizon"]
        ahead = ahead[whole]
        past = past[past["unique_id"].isin(ahead["unique_id"].unique())]
        if method in LOCAL:
            past = past[sampled.reindex(past.index)]
            local(
                method, past.groupby("unique_id").tail(60 + 3 * about["horizon"])[:400], about
            ) if number == 0 else None  # compiles
        began = time.process_time()
        made = local(method, past, about) if method in LOCAL else SHARED[method](past, ahead, about)
        spent += time.process_time() - began
        made = made.merge(ahead[[*KEYS, "step"]], on=KEYS).assign(cutoff=number, method=method)
        parts.append(made.assign(step=made["step"] - cutoff)[made["unique_id"].isin(about["sample"])])
    forecasts = (
        pd.concat([part for part in parts if len(part)], ignore_index=True)
        .drop(columns="ds")
        .rename(columns={"unique_id": "series"})
    )
    quantiles = ["q10", "q50", "q90"]
    forecasts[quantiles] = forecasts[quantiles].clip(lower=0.0)
    forecasts.to_parquet(folder / f"{name}.{method}.parquet")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"cpu": spent, "gb": peak, "series": int(forecasts["series"].nunique())}))


def main(arguments: list[str]) -> int:
    """Run every method on every panel, each in a process of its own."""
    warnings.simplefilter("ignore")
    folder = Path(arguments[0])
    if len(arguments) == 3:
        run(folder, *arguments[1:])
        return 0
    for file in sorted(folder.glob("*.json")):
        name, costs, tables = file.name.removesuffix(".json"), {}, []

        def in_a_process(method: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-W", "ignore", __file__, str(folder), name, method]  # noqa: B023
            return subprocess.run(command, capture_output=True, text=True)

        methods = (*LOCAL, *SHARED)
        with ThreadPoolExecutor(2) as pool:
            processes = list(pool.map(in_a_process, methods))
        for method, ended in zip(methods, processes, strict=True):
            if ended.returncode:
                last = (ended.stderr.strip().splitlines() or ["?"])[-1]
                print(f"left out: {method} on {name} ({last[:160]})", file=sys.stderr, flush=True)
                continue
            costs[method] = json.loads(ended.stdout.splitlines()[-1])
            tables.append(pd.read_parquet(folder / f"{name}.{method}.parquet"))
        pd.concat(tables, ignore_index=True).to_parquet(folder / f"{name}.forecasts.parquet")
        (folder / f"{name}.costs").write_text(json.dumps(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
