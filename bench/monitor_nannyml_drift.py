"""NannyML's univariate drift by week with its defaults, in an environment of its own: SHOP.TABLE.parquet → alarms.csv.

Its defaults are the Jensen–Shannon distance for each column and thresholds three standard deviations around the mean of the reference's chunks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nannyml
import pandas as pd

MONDAY = pd.Timestamp("2000-01-03")


def alerts(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each window that is no reference, and whether some column of it has an alert."""
    columns = [name for name in rows.columns if name != "window"]
    categories = [name for name in columns if not pd.api.types.is_float_dtype(rows[name]) and not pd.api.types.is_integer_dtype(rows[name])]  # fmt: skip
    rows = rows.assign(
        time=MONDAY + pd.to_timedelta(7 * rows["window"], unit="D"), **{name: rows[name].astype(str).astype("category") for name in categories}
    )  # fmt: skip
    calculator = nannyml.UnivariateDriftCalculator(column_names=columns, timestamp_column_name="time", chunk_period="W")
    calculator.fit(rows[rows["window"] < 0].reset_index(drop=True))
    later = rows[rows["window"] >= 0].sort_values("window").reset_index(drop=True)
    called = calculator.calculate(later).filter(period="analysis").to_df()
    start = pd.to_datetime(called[("chunk", "chunk", "start_date")])
    marks = [name for name in called.columns if name[2] == "alert"]
    assert {name[0] for name in marks} == set(columns), "each column is judged"
    return pd.DataFrame({"window": (start - MONDAY).dt.days // 7, "alert": called[marks].astype(bool).any(axis=1)})


def main(folder: Path) -> None:
    parts = [
        alerts(pd.read_parquet(file)).assign(shop=file.name.split(".")[0]) for file in sorted(folder.glob("*.parquet"))
    ]
    pd.concat(parts).to_csv(folder / "alarms.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
