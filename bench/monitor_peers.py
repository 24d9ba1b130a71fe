"""Peers of the drift detector on windows of seven days: KS or χ², PSI, NannyML's univariate drift, and two dummies that alarm always and never."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from d2c_mlops.data.days import local_days
from d2c_mlops.data.tables import Tables
from d2c_mlops.monitoring.sketches import sketch_frame, stability_index

PYTHON = Path(".bench/nannyml/bin/python")
KS, PSI, NANNYML = "KS or χ², p < .05", "PSI > .2", "NannyML, Jensen–Shannon"
DETECTORS = ("always", "never", KS, PSI, NANNYML)
REFERENCE = 20_000  # rows that KS and PSI compare each window with
AFTER = 1000  # number of the first window after a change


@dataclass(frozen=True)
class Windows:
    """Rows of a table with the number of their window: negative in the reference, from 0 on before a change, from `AFTER` on after it."""

    rows: pd.DataFrame
    window: np.ndarray


def shop_windows(tables: Tables, start: date, first: int, end: int, after: int, with_category: bool) -> list[Windows]:
    """Return orders and their lines in whole weeks: reference before day `first`, healthy weeks until day `end`, then `after` weeks; other rows are left out."""
    orders, lines = tables["orders"], tables["order_lines"]
    value = orders["order_id"].map((lines["unit_price"] * lines["quantity"]).groupby(lines["order_id"]).sum())
    bought = lines[["quantity", "unit_price"]]
    if with_category:
        category = tables["products"].set_index("product_id")["category"]
        bought = bought.assign(category=lines["product_id"].map(category))
    result = []
    for rows, when in ((orders[["channel", "country"]].assign(value=value), orders), (bought, lines)):
        day = (pd.DatetimeIndex(local_days(when["ordered_at"], tables.zone)) - pd.Timestamp(start)).days.to_numpy()
        healthy = (day >= first % 7) & (day < first + (end - first) // 7 * 7)
        chosen = healthy | ((day >= end) & (day < end + 7 * after))
        window = np.where(day < end, (day - first) // 7, AFTER + (day - end) // 7)
        result.append(Windows(rows[chosen].reset_index(drop=True), window[chosen]))
    return result


def alarms(tables: Iterable[Windows], numbers: Iterable[int]) -> dict[str, set[int]]:
    """Return the windows, of the numbers given, in which each detector in this process calls some column changed."""
    listed = list(numbers)
    calls: dict[str, set[int]] = {"always": set(listed), "never": set(), KS: set(), PSI: set()}
    rng = np.random.default_rng(0)
    for windows in tables:
        past = np.flatnonzero(windows.window < 0)
        reference = windows.rows.iloc[rng.choice(past, min(len(past), REFERENCE), replace=False)]
        sketches = sketch_frame(reference)
        for number in listed:
            week = windows.rows[windows.window == number]
            now = sketch_frame(week)
            for name in week.columns:
                if stability_index(sketches[name], now[name]) > 0.2:
                    calls[PSI].add(number)
                if _p_value(reference[name], week[name]) < 0.05:
                    calls[KS].add(number)
    return calls


def _p_value(one: pd.Series, two: pd.Series) -> float:
    if pd.api.types.is_numeric_dtype(one) and not pd.api.types.is_bool_dtype(one):
        return float(stats.ks_2samp(one.dropna(), two.dropna()).pvalue)
    counts = pd.DataFrame({"one": one.value_counts(), "two": two.value_counts()}).fillna(0)
    return float(stats.chi2_contingency(counts.to_numpy()).pvalue) if len(counts) > 1 else 1.0


def write_windows(folder: Path, shop: str, tables: Iterable[Windows]) -> None:
    """Write the tables of a shop as Parquet for `nannyml_alarms`."""
    for place, windows in enumerate(tables):
        windows.rows.assign(window=windows.window).to_parquet(folder / f"{shop}.{place}.parquet")


def nannyml_alarms(folder: Path) -> dict[str, set[int]]:
    """Return the windows of each shop in which NannyML, in a process and an environment of its own, alerts for some column."""
    script = Path(__file__).with_name("monitor_nannyml_drift.py")
    done = subprocess.run([str(PYTHON), "-W", "ignore", str(script), str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"NannyML failed: {done.stderr[-2000:]}")
    rows = pd.read_csv(folder / "alarms.csv", dtype={"shop": str})
    return {
        str(shop): {int(number) for number in part.loc[part["alert"], "window"]} for shop, part in rows.groupby("shop")
    }
