"""A project's own package with the smallest honest model; tests put it on the path."""

import json
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from d2c_mlops.data.simulate import shop
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, Failure
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.core.model import Evaluation, Model

PRODUCT = column("string", "The product's identifier", example="P001", max_length=20)
DAY = column("date", "Day asked for", example="2024-01-01")
CASE = Charter(
    owner="Head of Supply", decision="how much to pack", users="packers, daily", baseline="one", metric="mae",
    break_even=50.0, right_value=1.0, wrong_cost=1.0, currency="EUR", budget=10.0, kill="worse than one for a month",
    review=date(2027, 1, 31),
)  # fmt: skip


class MeanUnits(Model):
    """Units per order line of a product, times `scale`."""

    contract = Contract(
        name="mean_units", version="1.0.0", key="product_id",
        inputs=pa.DataFrameSchema({"product_id": PRODUCT, "day": DAY}),
        outputs=pa.DataFrameSchema({"product_id": PRODUCT, "units": column("number", "Units", unit="units", ge=0)}),
    )  # fmt: skip
    charter = CASE

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = float(scale)
        self.units: dict[str, float] = {}

    def fit(self, tables: Tables, as_of: date) -> "MeanUnits":
        lines = tables.before(as_of)["order_lines"]
        self.units = (lines.groupby("product_id")["quantity"].mean() * self.scale).astype(float).to_dict()
        return self

    def predict(self, records: pd.DataFrame) -> pd.DataFrame:
        if (early := records["day"] < pd.Timestamp("2000-01-01")).any():
            rows = early.to_numpy().nonzero()[0]
            raise DataRefused(
                "days before 2000 are not answered", failures=[Failure("too early", f"row {r}") for r in rows]
            )
        units = records["product_id"].map(self.units).fillna(0.0).astype(float)
        return pd.DataFrame({"product_id": records["product_id"], "units": units})

    def evaluate(self, tables: Tables, as_of: date) -> Evaluation:
        early = type(self)(self.scale).fit(tables, as_of - timedelta(days=60))
        lines = tables.before(as_of)["order_lines"]
        late = lines[lines["ordered_at"] >= pd.Timestamp(as_of - timedelta(days=59), tz="UTC")]
        units = late["product_id"].map(early.units).fillna(0.0)
        mae, one = (late["quantity"] - units).abs().mean(), (late["quantity"] - 9).abs().mean()
        return Evaluation("mae", float(mae), {"one": float(one)}, True, {"lines": len(late)})

    def write(self, folder: Path) -> None:
        (folder / "units.json").write_text(json.dumps(self.units))

    def read(self, folder: Path) -> None:
        self.units = json.loads((folder / "units.json").read_text())

    @classmethod
    def example(cls) -> tuple[Tables, date]:
        return shop(seed=1), date(2023, 12, 31)

    def records(self, tables: Tables, as_of: date) -> pd.DataFrame:
        return pd.DataFrame({"product_id": sorted(self.units), "day": pd.Timestamp(as_of).as_unit("us")})
