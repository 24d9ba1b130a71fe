"""Files of what is known of the future: a column for each key, days, a calendar with a column for each event."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from d2c_mlops.data.ingestion.ingest import IngestResult, ingest
from d2c_mlops.data.layouts.plans import pack_plan
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused

NOW = datetime(2024, 4, 1, tzinfo=UTC)
SALES = "store_id,product_id,date,units\n" + "".join(
    f"00{s},{p},2024-03-0{d},{d}\n" for s in (1, 2) for p in ("tea", "mug") for d in range(1, 8)
)


def ingested(folder: Path, **files: str) -> tuple[Tables, list[IngestResult]]:
    """Ingest one file after the other into the dataset `shop`."""
    results = []
    for name, text in {"sales_totals": SALES, **files}.items():
        path = folder / f"{name}.csv"
        path.write_text(text, encoding="utf-8")
        results.append(ingest(str(path), "shop", store=folder / "store", zone="UTC", created_at=NOW))
    return Tables.open(folder / "store", "shop"), results


def test_a_promotion_of_one_product_is_not_one_of_all(tmp_path: Path) -> None:
    tables, results = ingested(
        tmp_path, promotions="product_id,first_day,last_day,discount\ntea,2024-03-08,2024-03-10,0.2\n"
    )
    assert tables["promotions"]["keys"].tolist() == ['{"product_id":"tea"}']
    assert any("product_id" in note for note in results[-1].notes)


def test_leading_zeros_of_keys_stay(tmp_path: Path) -> None:
    tables, _ = ingested(tmp_path, promotions="store_id,date,discount\n001,2024-03-08,0.2\n002,2024-03-09,0.1\n")
    assert tables["promotions"]["keys"].tolist() == ['{"store_id":"001"}', '{"store_id":"002"}']


def test_an_empty_key_holds_for_every_value(tmp_path: Path) -> None:
    text = "store_id,product_id,date,price\n001,tea,2024-03-08,4\n,tea,2024-03-09,5\n,,2024-03-10,6\n"
    tables, _ = ingested(tmp_path, prices=text)
    keys = sorted(map(json.loads, tables["prices"]["keys"]), key=len)
    assert keys == [{}, {"product_id": "tea"}, {"store_id": "001", "product_id": "tea"}]


def test_a_date_alone_is_a_day(tmp_path: Path) -> None:
    tables, results = ingested(tmp_path, calendar="date,event\n2024-03-08,holiday\n")
    row = tables["calendar"].iloc[0]
    assert row["first_day"] == row["last_day"] == pd.Timestamp("2024-03-08", tz="UTC")
    assert any("each row is one day" in note for note in results[-1].notes)
    assert any("for all series" in note for note in results[-1].notes)


def test_a_wide_calendar_has_a_row_for_each_event_and_none_for_empty_cells(tmp_path: Path) -> None:
    tables, _ = ingested(tmp_path, calendar="store_id,date,open,promo\n001,2024-03-08,0,1\n001,2024-03-09,1,\n")
    rows = tables["calendar"].sort_values(["event", "first_day"])
    assert rows["event"].tolist() == ["open", "open", "promo"]
    assert rows["value"].tolist() == [0.0, 1.0, 1.0]


def test_text_in_a_wide_calendar_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="neither a key nor a number") as refusal:
        ingested(tmp_path, calendar="date,open,mood\n2024-03-08,0,sunny\n")
    assert [failure.where for failure in refusal.value.failures] == ["mood"]


def test_a_canonical_plan_is_left_as_it_is() -> None:
    frame = pd.DataFrame({"keys": ["{}"], "first_day": ["2024-03-08"], "last_day": ["2024-03-09"], "event": ["tv"]})
    packed, notes = pack_plan("calendar", frame)
    assert packed is not None and notes == []
    pd.testing.assert_frame_equal(packed, frame)


def test_a_refused_value_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataRefused) as refusal:
        ingested(tmp_path, promotions="product_id,date,discount\ntea,2024-03-08,0.2\nmug,2024-03-09,7\n")
    assert (
        "line 3" in refusal.value.to_text()
        if hasattr(refusal.value, "to_text")
        else "line 3" in str(refusal.value.failures)
    )
