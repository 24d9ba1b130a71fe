"""The leads table: packed from any columns, read from an archive, rewound, and stored."""

from __future__ import annotations

import zipfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.data.ingestion.ingest import ingest, map_tables
from d2c_mlops.data.layouts.bank_marketing import COLUMNS, BankMarketing
from d2c_mlops.data.layouts.leads import pack_lead_fields, simulate_campaign, unpack_lead_fields
from d2c_mlops.data.sources.archives import ZipSource, check_size
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate
from d2c_mlops.errors import DataRefused, UsageError

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def leads(**columns: Any) -> pd.DataFrame:
    given = {"lead_id": ["a", "b"], "scored_at": ["2024-03-01", "2024-03-02"]} | columns
    return validate("leads", pack_lead_fields(pd.DataFrame(given)))


json_values = st.one_of(st.none(), st.integers(-(2**50), 2**50), st.text(max_size=8), st.floats(allow_nan=True))


@settings(max_examples=40, deadline=None)
@given(st.lists(json_values, min_size=2, max_size=2))
def test_what_is_packed_comes_out_again(values: list[Any]) -> None:
    raw = pd.DataFrame({"lead_id": ["a", "b"], "scored_at": ["2024-03-01", "2024-03-02"]})
    raw["x"] = pd.Series(values, dtype=object)
    out = unpack_lead_fields(validate("leads", pack_lead_fields(raw)))
    again = unpack_lead_fields(validate("leads", pack_lead_fields(out.assign(scored_at=raw["scored_at"]))))
    assert out.equals(again)


def test_numbers_are_numbers_and_postcodes_are_not() -> None:
    found = unpack_lead_fields(leads(visits=["3", None], postcode=["01067", "1010"], size=[1.5, np.inf]))
    assert found["visits"].tolist()[0] == 3 and np.isnan(found["visits"].tolist()[1])
    assert found["postcode"].tolist() == ["01067", "1010"]
    assert found["size"].isna().tolist() == [False, True]


@pytest.mark.parametrize(("said", "meant"), [("yes", "won"), ("0", "lost"), ("Won", "won"), ("TRUE", "won")])
def test_words_for_the_outcome_are_understood(said: str, meant: str) -> None:
    assert leads(outcome=[said, None])["outcome"].tolist()[0] == meant


def test_an_unknown_outcome_is_refused() -> None:
    with pytest.raises(DataRefused, match="must be won or lost"):
        leads(outcome=["perhaps", "won"])


@pytest.mark.parametrize("text", ["{", "[1]", '{"lead_id": 1}', "null"])
def test_fields_that_are_no_objects_are_refused(text: str) -> None:
    with pytest.raises(DataRefused):
        unpack_lead_fields(leads(fields=["{}", text]))


def test_an_outcome_is_not_seen_before_it_was_known() -> None:
    found = Tables({"leads": leads(outcome=["won", "lost"], outcome_at=["2024-03-05", None], source=["fair", None])})
    known = found.before(date(2024, 3, 4))
    assert known["leads"]["outcome"].isna().tolist() == [True, False]
    assert known.sql("SELECT * FROM leads ORDER BY lead_id")["outcome"].isna().tolist() == [True, False]
    assert found.before(date(2024, 3, 5))["leads"]["outcome"].tolist() == ["won", "lost"]


def test_the_campaign_is_deterministic_and_survives_the_store(tmp_path: Path) -> None:
    made = simulate_campaign(leads=300)
    assert made.equals(simulate_campaign(leads=300))
    made.to_parquet(tmp_path / "leads.parquet")
    ingest(str(tmp_path / "leads.parquet"), "crm", store=tmp_path / "store", created_at=NOW)
    read = Tables.open(tmp_path / "store", "crm")["leads"]
    pd.testing.assert_frame_equal(read.sort_values("lead_id", ignore_index=True), made)


def archive(path: Path, **members: str) -> str:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/") + ".csv", content)
    return str(path)


def test_csv_files_of_an_archive_become_tables_and_one_can_be_named(tmp_path: Path) -> None:
    location = archive(tmp_path / "x.zip", leads="lead_id,scored_at\n1,2024-03-01\n", deep__more="a\n1\n")
    assert list(ZipSource().read(location)) == ["leads", "more"]
    frames, used, *_ = map_tables(location + "::leads")
    assert used == "canonical" and len(frames["leads"]) == 1


def test_broken_and_wrong_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(DataRefused, match="cannot be read"):
        ZipSource().read(str(tmp_path / "text.zip"))
    with pytest.raises(UsageError, match="no such file"):
        ZipSource().read(str(tmp_path / "absent.zip"))
    location = archive(tmp_path / "x.zip", a__x="n\n1\n", b__x="n\n2\n")
    assert {name: frame["n"].item() for name, frame in ZipSource().read(location).items()} == {
        "a/x.csv": "1",
        "b/x.csv": "2",
    }
    location = archive(tmp_path / "y.zip", x="n\n1\n")
    with pytest.raises(UsageError, match="there: x"):
        ZipSource().read(location + "::z")


def test_an_archive_that_would_fill_the_disk_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(DataRefused, match="1024 GiB"):
        check_size(2**40, 2**40, "x.zip")


def test_bank_calls_get_their_year_from_the_order_of_rows() -> None:
    row = dict.fromkeys(COLUMNS, "1") | {"y": "no"}
    months = ["nov", "dec", "jan", "dec", "jan", "?"]
    mapped = BankMarketing().to_tables({"calls": pd.DataFrame([row | {"month": m} for m in months])})
    frame = mapped.frames["leads"]
    assert frame["scored_at"].dt.year.tolist() == [2008, 2008, 2009, 2009, 2010]
    assert frame["scored_at"].is_monotonic_increasing
    assert "1 without a month dropped" in mapped.notes[0]


def test_the_real_archive_becomes_leads_in_the_order_of_time(shared_data: Path) -> None:
    frames, used, notes, _ = map_tables(str(shared_data / "bank_marketing.zip"))
    found = frames["leads"]
    assert used == "bank-marketing" and len(found) == 41188 and any("not read" in note for note in notes)
    assert found["scored_at"].is_monotonic_increasing
    assert found["scored_at"].dt.year.value_counts().to_dict() == {2008: 27690, 2009: 11440, 2010: 2058}
    assert (found["outcome"] == "won").sum() == 4640
    fields = unpack_lead_fields(found)
    assert fields["duration"].iloc[0] == 261 and fields["poutcome"].iloc[0] == "nonexistent"
