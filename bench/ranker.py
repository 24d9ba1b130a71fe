"""A model for the bench of rollouts: a number from the key, as quick or slow or faulty as it is told to be."""

import json
import time
import zlib
from datetime import date
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from d2c_mlops.data.tables import Tables
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.core.model import Evaluation, Model

CUSTOMER = column("string", "The customer", example="C-000001", max_length=20)


class Ranking(Model):
    """Between 0 and 1 by the customer's key, plus `add`."""

    contract = Contract(
        name="ranking", version="1.0.0", key="customer_id",
        inputs=pa.DataFrameSchema({"customer_id": CUSTOMER}),
        outputs=pa.DataFrameSchema({"customer_id": CUSTOMER, "rank": column("number", "Rank", unit="share 0..1")}),
    )  # fmt: skip
    charter = Charter()

    def __init__(self, add: float = 0.0, sleep_ms: float = 0.0, fails: bool = False) -> None:
        self.add, self.sleep_ms, self.fails = float(add), float(sleep_ms), bool(fails)

    def fit(self, tables: Tables, as_of: date) -> "Ranking":
        return self

    def predict_records(self, records):  # type: ignore[no-untyped-def]
        asked = [record["customer_id"] for record in records]
        if self.fails and asked != ["C-000001"]:
            raise RuntimeError("this version is broken")
        time.sleep(self.sleep_ms / 1e3)
        return [{"customer_id": key, "rank": zlib.crc32(key.encode()) / 2**32 + self.add} for key in asked]

    def predict(self, records: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(self.predict_records(records.to_dict("records")))

    def evaluate(self, tables: Tables, as_of: date) -> Evaluation:
        return Evaluation("auc", 0.5 + self.add, {}, False)

    def write(self, folder: Path) -> None:
        (folder / "ranking.json").write_text(json.dumps([self.add, self.sleep_ms, self.fails]))

    def read(self, folder: Path) -> None:
        self.add, self.sleep_ms, self.fails = json.loads((folder / "ranking.json").read_text())

    @classmethod
    def example(cls) -> tuple[Tables, date]:
        return Tables({}), date(2026, 1, 1)

    def records(self, tables: Tables, as_of: date) -> pd.DataFrame:
        return pd.DataFrame({"customer_id": ["C-000001", "C-000002"]})
