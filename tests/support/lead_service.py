"""A small model of leads, its service in this process, and the log that the service wrote."""

import json

import pandas as pd
import pandera.pandas as pa

from d2c_mlops.errors import DataRefused, Failure
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.core.model import Model
from d2c_mlops.serving.app.app import ServedModel, ServiceContext, create_app
from support.local_client import LocalClient

ASK = {"lead_id": "L-1", "visits": 3}


class Lead(Model):
    """Visits times a tenth; refuses leads without a visit."""

    contract = Contract(
        name="leads", version="1.0.0", key="lead_id",
        inputs=pa.DataFrameSchema({
            "lead_id": column("string", "The lead", personal=True, example="L-1", max_length=20),
            "visits": column("integer", "Visits", unit="visits", ge=0, example=3),
            "mail": column("string", "Address", personal="drop", nullable=True),
            "day": column("date", "Day of the visit", nullable=True),
        }),
        outputs=pa.DataFrameSchema({
            "lead_id": column("string", "The lead", personal=True),
            "score": column("number", "Chance to buy", unit="share 0..1", ge=0),
        }),
    )  # fmt: skip
    charter = Charter()

    def predict_records(self, records):
        if bad := [r["lead_id"] for r in records if not r["visits"]]:
            raise DataRefused("leads without a visit", failures=[Failure("no visit", lead) for lead in bad])
        return [{"lead_id": r["lead_id"], "score": r["visits"] / 10} for r in records]

    def predict(self, records: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(self.predict_records(records.to_dict("records")))

    def explain(self, records: pd.DataFrame) -> list[list[str]]:
        return [[f"{n} visits"] for n in records["visits"]]

    fit = evaluate = write = read = example = records = None  # type: ignore[assignment]


Lead.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


def asking(keeping: ServiceContext | None = None, **more: object) -> LocalClient:
    served = ServedModel(Lead(), "leads", 7, {}, ASK, **{"secret": b"s", **more})
    return LocalClient(create_app(lambda: served, keeping), raise_server_exceptions=False)


def logged(keeping: ServiceContext) -> list[dict]:
    keeping.logbook.close()
    files = sorted(keeping.logbook.folder.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
