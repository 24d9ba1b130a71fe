"""Files of records to score."""

from pathlib import Path

import pandas as pd


def asked(folder: Path, count: int = 50, name: str = "ask.parquet", day: str = "2024-01-01") -> str:
    path = folder / name
    frame = pd.DataFrame({"product_id": [f"P{i:05}" for i in range(count)], "day": pd.Timestamp(day), "note": "more"})
    frame.to_parquet(path)
    return str(path)
