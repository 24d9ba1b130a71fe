"""NannyML's confidence-based estimate of the AUC by month, in an environment of its own: known.parquet and later.parquet → expected.parquet."""

from __future__ import annotations

import sys
from pathlib import Path

import nannyml
import pandas as pd


def main(folder: Path) -> None:
    known, later = (pd.read_parquet(folder / f"{name}.parquet").reset_index(drop=True) for name in ("known", "later"))
    for frame in (known, later):
        frame["called"] = (frame["score"] >= 0.5).astype(int)
    estimator = nannyml.CBPE(
        problem_type="classification_binary", y_pred_proba="score", y_pred="called", y_true="outcome", metrics=["roc_auc"], chunk_size=1000
    )  # fmt: skip
    estimator.fit(known)
    rows = []
    for number, month in later.groupby("number"):
        chunks = nannyml.chunk.SizeBasedChunker(chunk_size=len(month))
        estimator.chunker = chunks
        result = estimator.estimate(month.drop(columns="outcome").reset_index(drop=True))
        values = result.filter(period="analysis").to_df()[("roc_auc", "value")]
        rows.append({"number": number, "auc": float(values.iloc[0])})
    pd.DataFrame(rows).to_parquet(folder / "expected.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
