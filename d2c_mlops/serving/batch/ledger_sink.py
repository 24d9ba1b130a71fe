"""Batch sink: write predictions into the ledger, in the same form as collected prediction logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import pandas as pd
from sqlalchemy import func, select

from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.schema import BATCH, predictions
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.models.core.contract import to_records
from d2c_mlops.serving.batch.sinks import Batch, BatchWriter, WriteCounts
from d2c_mlops.serving.predict.predictor import Mask, mask_function
from d2c_mlops.serving.predict.privacy import mask_reason_texts
from d2c_mlops.serving.state_paths import log_secret
from d2c_mlops.settings import Settings

LOCATION = "ledger:"


class LedgerSink:
    """Writes one prediction per record into the ledger; personal fields are hashed or dropped as in the prediction log."""

    expects: ClassVar[str] = LOCATION
    unique: ClassVar[bool] = False
    settings: Settings | None = None

    def matches(self, location: str) -> bool:
        return location == LOCATION

    @contextmanager
    def open(self, location: str, batch: Batch) -> Iterator[BatchWriter]:
        if self.settings is None or batch.asked is None:
            raise UsageError("this sink is opened by `d2c score`", where=location)
        fields = (*batch.contract.input_fields, *batch.contract.output_fields)
        mask = mask_function(fields, log_secret(self.settings).encode())
        ledger = Ledger.of(self.settings)
        try:
            mine = predictions.c.id.like(f"{batch.id}-%")
            with ledger.read() as connection:
                stored = connection.execute(select(func.count()).select_from(predictions).where(mine)).scalar()
            yield _Predictions(ledger, batch, batch.asked, mask, resumed_at=int(stored or 0))
        finally:
            ledger.close()


Records = list[dict[str, Any]]


@dataclass
class _Predictions:
    ledger: Ledger
    batch: Batch
    asked: pd.DataFrame
    mask: Mask | None
    resumed_at: int = 0
    columns: list[str] = field(default_factory=list)
    told: WriteCounts = field(default_factory=WriteCounts)

    def write(self, frame: pd.DataFrame, first: int) -> None:
        """Write a chunk in one transaction."""
        self.columns = list(frame.columns)
        batch, contract, at = self.batch, self.batch.contract, datetime.now(UTC)
        input_records = to_records(
            contract.input_fields, self.asked.iloc[first : first + len(frame)].reset_index(drop=True)
        )
        output_records = to_records(contract.output_fields, frame)
        inputs, outputs = self._json_records(input_records), self._json_records(output_records)
        reasons = self._reason_list(frame, input_records, output_records) if batch.reasons else [None] * len(frame)
        versions = frame["version"].tolist() if "version" in frame else [batch.version] * len(frame)
        variants = frame["variant"].tolist() if "variant" in frame else ["champion"] * len(frame)
        rows = [
            {
                "id": f"{batch.id}-{first + i}", "model": batch.model, "version": int(versions[i]),
                "contract": contract.version, "variant": variants[i], "key": _text_or_none(outputs[i].get(contract.key)),
                "at": at, "inputs": inputs[i], "outputs": outputs[i], "reasons": reasons[i], "caller": BATCH,
                "request_id": batch.id,
            }
            for i in range(len(frame))
        ]  # fmt: skip
        with self.ledger.write() as connection:
            added = len(insert_new(connection, predictions, rows))
        self.told.inserted += added
        self.told.unchanged += len(rows) - added

    def _reason_list(self, frame: pd.DataFrame, input_records: Records, output_records: Records) -> list[Any]:
        reasons: list[list[str]] = [json.loads(text) for text in frame["reasons"]]
        if not self.mask:
            return reasons
        contract = self.batch.contract
        personal = {field.name for field in (*contract.input_fields, *contract.output_fields) if field.personal}
        return [
            mask_reason_texts(why, pair, personal)
            for why, *pair in zip(reasons, input_records, output_records, strict=True)
        ]

    def _json_records(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return json.loads(json.dumps(self.mask(records) if self.mask else records, default=str))  # type: ignore[no-any-return]

    def finish(self) -> WriteCounts:
        self.told.unchanged += self.resumed_at
        return self.told


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)
