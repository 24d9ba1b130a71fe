"""Days are those of the shop: the zone of a dataset is set, found in its times, or asked for."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.cli import main
from d2c_mlops.data.days import day_end, day_start, last_complete_day, local_days
from d2c_mlops.data.ingestion.increment import ingest_new
from d2c_mlops.data.ingestion.ingest import IngestResult, ingest
from d2c_mlops.data.manifest import Manifest, read_manifest
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.zones import choose_zone, localize, offsets_of
from d2c_mlops.errors import DataRefused, SettingsError, UsageError
from d2c_mlops.settings import load_settings

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PACIFIC = "America/Los_Angeles"


def order_lines(times: list[str]) -> pd.DataFrame:
    """Return raw order lines, one for each time as it is written."""
    return pd.DataFrame(
        {
            "order_id": [f"A{i}" for i in range(len(times))],
            "line_no": 1,
            "product_id": "mug",
            "ordered_at": times,
            "quantity": 1,
            "unit_price": 5.0,
            "currency": "USD",
            "channel": "web",
        }
    )


def evenings(zone: str, first: str, last: str) -> list[str]:
    """Return 21:30 of every day in the zone, with its UTC offset."""
    return [moment.isoformat() for moment in pd.date_range(f"{first} 21:30", f"{last} 21:30", tz=ZoneInfo(zone))]


def ingested(folder: Path, times: list[str], zone: str | None = None, name: str = "shop") -> IngestResult:
    order_lines(times).to_csv(folder / "order_lines.csv", index=False)
    return ingest(str(folder / "order_lines.csv"), name, store=folder, zone=zone, created_at=NOW)


def days_sold(store: Path) -> list[str]:
    """Return the days of the order lines as SQL sees them."""
    query = "SELECT DISTINCT CAST(ordered_at AS DATE) AS day FROM order_lines ORDER BY 1"
    return Tables.open(store, "shop").sql(query)["day"].dt.strftime("%Y-%m-%d").tolist()


def test_the_only_offset_of_the_times_makes_the_days(tmp_path: Path) -> None:
    result = ingested(tmp_path, evenings("America/Phoenix", "2024-02-28", "2024-03-01"))
    assert (result.manifest.zone, result.manifest.zone_from) == ("UTC-07:00", "offsets")
    assert days_sold(tmp_path) == ["2024-02-28", "2024-02-29", "2024-03-01"]
    lines = result.manifest.tables["order_lines"]
    assert (lines.min_date, lines.max_date) == (date(2024, 2, 28), date(2024, 3, 1))
    assert any("days are those of UTC-07:00" in note for note in result.notes)


@pytest.mark.parametrize(
    "place", [PACIFIC, "America/New_York", "Europe/Madrid", "Australia/Sydney", "America/St_Johns"]
)
def test_two_offsets_of_one_place_need_nobody_to_say_which(tmp_path: Path, place: str) -> None:
    times = evenings(place, "2023-08-01", "2024-07-31")
    result = ingested(tmp_path, times)
    assert result.manifest.zone_from == "offsets" and days_sold(tmp_path) == sorted(time[:10] for time in times)
    summer = pd.date_range("2026-07-01", periods=9, freq="h", tz=place)
    assert summer.tz_convert(result.manifest.zone).tz_localize(None).equals(summer.tz_localize(None))


def test_two_shops_in_one_file_are_refused_until_the_zone_is_set(tmp_path: Path) -> None:
    times = evenings(PACIFIC, "2024-01-01", "2024-01-05") + evenings("America/New_York", "2024-01-03", "2024-01-09")
    with pytest.raises(DataRefused, match="more than one UTC offset") as refused:
        ingested(tmp_path, times)
    assert [f.where for f in refused.value.failures] == ["UTC-08:00", "UTC-05:00"]
    assert "5 times, 2024-01-02 to 2024-01-06" in str(refused.value) and "--zone" in str(refused.value)
    assert not (tmp_path / "data").exists()
    assert ingested(tmp_path, times, zone="America/New_York").manifest.zone == "America/New_York"


def test_summer_offset_in_winter_is_no_zone(tmp_path: Path) -> None:
    wrong = [time.replace("-08:00", "-06:00") for time in evenings(PACIFIC, "2023-08-01", "2024-02-01")]
    with pytest.raises(DataRefused, match="not those of one time zone"):
        ingested(tmp_path, wrong)


def test_times_without_an_offset_are_utc_and_that_is_told(tmp_path: Path) -> None:
    result = ingested(tmp_path, ["2024-03-01 23:30", "2024-03-02T00:30:00"])
    assert (result.manifest.zone, result.manifest.zone_from) == ("UTC", "")
    assert days_sold(tmp_path) == ["2024-03-01", "2024-03-02"]
    assert any("taken as UTC" in note and "--zone" in note for note in result.notes)


def test_times_without_an_offset_are_the_clocks_of_the_zone_that_is_set(tmp_path: Path) -> None:
    result = ingested(tmp_path, ["2024-03-01 23:30", "2024-07-02T00:30:00", "2024-07-02T05:30:00Z"], zone=PACIFIC)
    instants = Tables.open(tmp_path, "shop")["order_lines"]["ordered_at"].dt.strftime("%m-%d %H:%M").tolist()
    assert instants == ["03-02 07:30", "07-02 07:30", "07-02 05:30"]
    assert any("order_lines.ordered_at: 2 times without a UTC offset" in note for note in result.notes)


def test_hours_that_do_not_exist_or_come_twice_are_counted() -> None:
    wall = pd.Series(["2024-03-31 02:10", "2024-10-27 02:10", "2024-10-27 12:00", None], dtype="str")
    read, notes = localize(wall, "Europe/Berlin", "orders.paid_at")
    assert read.dt.strftime("%H:%M").tolist()[:3] == ["01:00", "01:10", "11:00"] and read.isna().tolist()[3]
    assert len(notes) == 3 and "1 times do not exist" in notes[1] and "1 times come twice" in notes[2]


def test_a_date_without_midnight_keeps_its_day() -> None:
    read, _ = localize(pd.Series(["2023-04-28"], dtype="str"), "Africa/Cairo")
    assert str(local_days(read, "Africa/Cairo")[0]) == "2023-04-28"


def test_a_zone_that_was_set_stays_and_another_one_is_told(tmp_path: Path) -> None:
    times = evenings(PACIFIC, "2024-01-01", "2024-01-05")
    first = ingested(tmp_path, times, zone=PACIFIC)
    again = ingested(tmp_path, times)
    assert not again.changed and again.manifest == first.manifest
    other = ingested(tmp_path, times, zone="Asia/Tokyo")
    assert other.changed and other.manifest.digest != first.manifest.digest
    assert f"the zone was {PACIFIC} and is now Asia/Tokyo" in other.notes[-1]
    assert other.manifest.tables["order_lines"].parts == first.manifest.tables["order_lines"].parts
    assert Tables.open(tmp_path, "shop", first.manifest.digest).zone == PACIFIC


def test_setting_the_zone_that_was_found_is_remembered(tmp_path: Path) -> None:
    times = evenings("America/Phoenix", "2024-01-01", "2024-01-05")
    ingested(tmp_path, times)
    ingested(tmp_path, times, zone="UTC-07:00")
    assert read_manifest(tmp_path, "shop").zone_from == "set"


def test_an_unknown_zone_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'Europe/Berlin'"):
        ingested(tmp_path, ["2024-03-01"], zone="Europe/Berln")
    assert not (tmp_path / "data").exists()


def test_manifests_and_digests_of_before_mean_utc(tmp_path: Path) -> None:
    result = ingested(tmp_path, ["2024-03-01T23:30:00Z"])
    former = json.loads(result.manifest.to_json())
    del former["zone"], former["zone_from"]
    (tmp_path / "data" / "shop" / "manifest.json").write_text(json.dumps(former))
    assert read_manifest(tmp_path, "shop").zone == "UTC" == Manifest.from_json(json.dumps(former)).zone
    assert ingested(tmp_path, ["2024-03-01T23:30:00Z"]).manifest.digest == former["digest"]


# -- what a day is, everywhere


def test_as_of_sees_nothing_after_the_end_of_the_shops_day(tmp_path: Path) -> None:
    times = ["2024-02-29T23:59:59.999999-08:00", "2024-03-01T00:00:00-08:00", "2024-03-01T10:00:00-08:00"]
    ingested(tmp_path, times)
    stored = Tables.open(tmp_path, "shop")
    for tables in (stored, Tables(dict(stored), stored.zone)):
        known = tables.before(date(2024, 2, 29))
        assert known.zone == "UTC-08:00" and known["order_lines"]["order_id"].tolist() == ["A0"]
        assert known.sql("SELECT order_id FROM order_lines")["order_id"].tolist() == ["A0"]
        assert "known before 2024-03-01" in repr(known)


def test_returns_of_the_same_evening_are_known_that_day(tmp_path: Path) -> None:
    lines = order_lines(["2024-03-01T10:00:00-08:00"]).assign(
        returned_quantity=1, returned_at="2024-03-02T20:00:00-08:00"
    )
    lines.to_csv(tmp_path / "order_lines.csv", index=False)
    ingest(str(tmp_path / "order_lines.csv"), "shop", store=tmp_path, created_at=NOW)
    tables = Tables.open(tmp_path, "shop")
    assert tables.before(date(2024, 3, 2))["order_lines"]["returned_quantity"].tolist() == [1.0]
    assert tables.before(date(2024, 3, 1))["order_lines"]["returned_quantity"].tolist() == [0.0]


ZONES = st.sampled_from(
    [
        PACIFIC,
        "Europe/Berlin",
        "Africa/Cairo",
        "America/Havana",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
        "UTC+12:45",
        "UTC",
    ]
)


@settings(max_examples=60, deadline=None)
@given(ZONES, st.lists(st.datetimes(datetime(2015, 1, 1), datetime(2026, 12, 31)), min_size=1, max_size=20))
def test_frames_sql_and_the_standard_library_agree_on_days(zone: str, moments: list[datetime]) -> None:
    instants = pd.Series(pd.to_datetime(moments, utc=True).as_unit("us"))
    frame = pd.DataFrame({"lead_id": map(str, range(len(moments))), "scored_at": instants})
    tables = Tables({"leads": frame}, zone)
    by_sql = tables.sql("SELECT CAST(scored_at AS DATE) AS day FROM leads ORDER BY CAST(lead_id AS INT)")["day"]
    days = local_days(instants, zone)
    np.testing.assert_array_equal(days, by_sql.to_numpy().astype("datetime64[D]"))
    for day, instant in zip(days.tolist(), instants, strict=True):
        assert day_start(day, zone) <= instant < day_end(day, zone)
        assert last_complete_day(instant.to_pydatetime(), zone) == day - timedelta(days=1)


# -- sources


def test_shopify_exports_tell_their_offset(tmp_path: Path, shopify_rows: pd.DataFrame) -> None:
    rows = shopify_rows.assign(**{"Created at": "2024-03-01 22:15:00 -0500", "Paid at": "2024-03-01 22:15:00 -0500"})
    rows.to_csv(tmp_path / "orders_export.csv", index=False)
    result = ingest(str(tmp_path / "orders_export.csv"), "shop", store=tmp_path, created_at=NOW)
    assert result.manifest.zone == "UTC-05:00" and days_sold(tmp_path) == ["2024-03-01"]
    assert result.manifest.tables["orders"].max_date == date(2024, 3, 1)


@pytest.fixture
def shopify_rows() -> pd.DataFrame:
    from d2c_mlops.data.layouts.shopify import COLUMNS

    row = dict.fromkeys(COLUMNS, "") | {"Name": "#1", "Email": "a@x.org", "Financial Status": "paid", "Currency": "USD"}
    row |= {"Subtotal": "5.00", "Lineitem quantity": "1", "Lineitem name": "Mug", "Lineitem price": "5.00", "Id": "77"}
    row |= {"Lineitem sku": "mug", "Lineitem discount": "0.00", "Refunded Amount": "0.00", "Source": "web"}
    row |= {"Total": "5.00", "Taxes": "0.00", "Shipping": "0.00", "Discount Amount": "0.00", "Payment Method": "card"}
    return pd.DataFrame([row])


def test_the_zone_of_a_parquet_column_counts(tmp_path: Path) -> None:
    times = pd.date_range("2024-01-01 21:00", periods=5, tz=PACIFIC)
    order_lines(["x"] * 5).assign(ordered_at=times).to_parquet(tmp_path / "order_lines.parquet")
    result = ingest(str(tmp_path / "order_lines.parquet"), "shop", store=tmp_path, created_at=NOW)
    assert (result.manifest.zone, result.manifest.zone_from) == (PACIFIC, "source")
    assert days_sold(tmp_path)[0] == "2024-01-01"


def test_a_database_without_offsets_is_read_in_the_zone_that_is_set(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    order_lines(["2024-01-01 21:00:00"]).to_sql("order_lines", engine, index=False)
    ingest(f"sqlite:///{tmp_path / 'shop.db'}", "shop", store=tmp_path, zone=PACIFIC, created_at=NOW)
    assert days_sold(tmp_path) == ["2024-01-01"]
    assert str(Tables.open(tmp_path, "shop")["order_lines"]["ordered_at"][0]) == "2024-01-02 05:00:00+00:00"


def test_the_watermark_of_a_database_is_met_on_the_clocks_of_the_shop(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    rows = order_lines(["2024-01-01 09:00:00", "2024-01-01 10:00:00"])
    rows[:1].to_sql("order_lines", engine, index=False)
    take = {"store": tmp_path, "zone": PACIFIC, "column": "ordered_at", "late": timedelta(0), "created_at": NOW}
    ingest_new(f"sqlite:///{tmp_path / 'shop.db'}", "shop", **take)
    rows[1:].to_sql("order_lines", engine, index=False, if_exists="append")
    assert ingest_new(f"sqlite:///{tmp_path / 'shop.db'}", "shop", **take).news.new == 1


def offsets_in(texts: list[str]) -> list[float]:
    return (offsets_of(pd.Series(texts, dtype="str")) / 3600).tolist()


def test_offsets_are_seen_in_every_common_spelling() -> None:
    assert (
        offsets_in(["2024-03-01T10:00:00.123456-08:00", "2024-03-01 10:00:00 -0800", "2024-03-01 10:00-08"]) == [-8] * 3
    )
    assert offsets_in(["2024-03-01T10:00:00Z", "2024-03-01T10:00:00+00:00", "2024-03-01 10:00:00+00"]) == [0] * 3
    assert np.isnan(
        offsets_in(["2024-03-08", "2024-03-01 10:00:00", "01-03-2024", "2024-03", "soon", "2024-03-01 10:00"])
    ).all()


# -- more rows of the same dataset


def write_month(folder: Path, month: str, times: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    order_lines(times).assign(order_id=[f"{month}-{i}" for i in range(len(times))]).to_csv(
        folder / f"order_lines_{month}-01.csv", index=False
    )


def test_the_first_summer_of_a_shop_makes_a_fixed_offset_a_zone(tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    write_month(exports, "2024-02", evenings(PACIFIC, "2024-02-01", "2024-02-29"))
    assert ingest_new(str(exports), "shop", store=tmp_path, created_at=NOW).manifest.zone == "UTC-08:00"
    write_month(exports, "2024-03", evenings(PACIFIC, "2024-03-01", "2024-03-31"))
    result = ingest_new(str(exports), "shop", store=tmp_path, created_at=NOW)
    assert result.manifest.zone == PACIFIC and f"the zone was UTC-08:00 and is now {PACIFIC}" in result.notes[-1]
    write_month(exports, "2024-04", evenings(PACIFIC, "2024-04-01", "2024-04-30"))
    assert ingest_new(str(exports), "shop", store=tmp_path, created_at=NOW).manifest.zone == PACIFIC
    assert len(days_sold(tmp_path)) == 29 + 31 + 30


def test_a_new_file_of_another_place_is_refused_and_read_again_once_the_zone_is_set(tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    write_month(exports, "2024-02", evenings(PACIFIC, "2024-02-01", "2024-02-29"))
    before = ingest_new(str(exports), "shop", store=tmp_path, created_at=NOW).manifest
    write_month(exports, "2024-03", evenings("Asia/Tokyo", "2024-03-01", "2024-03-05"))
    with pytest.raises(DataRefused, match="more than one UTC offset"):
        ingest_new(str(exports), "shop", store=tmp_path, created_at=NOW)
    assert read_manifest(tmp_path, "shop") == before
    assert ingest_new(str(exports), "shop", store=tmp_path, zone=PACIFIC, created_at=NOW).news.new == 5


def test_another_zone_reads_times_without_an_offset_again(tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    write_month(exports, "2024-02", ["2024-02-01 21:00"])
    ingest_new(str(exports), "shop", store=tmp_path, created_at=NOW)
    result = ingest_new(str(exports), "shop", store=tmp_path, zone=PACIFIC, created_at=NOW)
    assert result.news.changed == 1 and days_sold(tmp_path) == ["2024-02-01"]
    assert str(Tables.open(tmp_path, "shop")["order_lines"]["ordered_at"][0]) == "2024-02-02 05:00:00+00:00"


def test_rows_of_the_first_morning_stay_when_later_ones_are_read_again(tmp_path: Path) -> None:
    times = ["2024-03-02T05:00:00+09:00", "2024-03-02T07:00:00+09:00", "2024-03-02T08:00:00+09:00"]
    ingested(tmp_path, times)
    times.append("2024-03-06T08:00:00+09:00")
    order_lines(times)[1:].to_csv(tmp_path / "order_lines.csv", index=False)
    ingest(str(tmp_path / "order_lines.csv"), "shop", store=tmp_path, created_at=NOW)
    assert Tables.open(tmp_path, "shop")["order_lines"]["order_id"].tolist() == ["A0", "A1", "A2", "A3"]


def test_stored_times_of_an_assumed_zone_are_not_mixed_with_another_one(tmp_path: Path) -> None:
    ingested(tmp_path, ["2024-03-01 21:00", "2024-03-02 21:00"])
    later = order_lines(["2024-03-05 21:00"]).assign(order_id="B1")
    later.to_csv(tmp_path / "order_lines.csv", index=False)
    take = {"store": tmp_path, "zone": PACIFIC, "created_at": NOW}
    with pytest.raises(DataRefused, match="were read in the time zone UTC, not America/Los_Angeles"):
        ingest(str(tmp_path / "order_lines.csv"), "shop", **take)
    assert ingest(str(tmp_path / "order_lines.csv"), "shop", replace="all", **take).manifest.zone == PACIFIC


# -- settings and commands


def test_settings_know_the_zone_of_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[d2c]\nzone = Europe/Berlin\n[data:us-shop]\nzone = America/Chicago\n")
    held = load_settings(tmp_path, environ={})
    assert (held.dataset_zone("us-shop"), held.dataset_zone("other")) == ("America/Chicago", "Europe/Berlin")
    assert load_settings(tmp_path, environ={"D2C_ZONE": "UTC+02:00"}).dataset_zone("other") == "UTC+02:00"
    (tmp_path / "settings.ini").write_text("[d2c]\nzone = Berlin\n[data:us-shop]\nzone = Mars/Olympus\nzoen = UTC\n")
    with pytest.raises(SettingsError) as refused:
        load_settings(tmp_path, environ={})
    assert [f.where for f in refused.value.failures] == ["[d2c] zone", "[data:us-shop] zoen", "[data:us-shop] zone"]


def test_the_commands_take_the_zone_and_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.ini").write_text("[d2c]\n[data:set]\nzone = Asia/Tokyo\n")
    order_lines(["2024-03-01 23:30"]).to_csv("order_lines.csv", index=False)
    run = CliRunner()
    asked = run.invoke(main, ["ingest", "order_lines.csv", "--as", "shop", "--zone", PACIFIC])
    assert asked.exit_code == 0 and f"days of {PACIFIC}" in asked.output
    assert run.invoke(main, ["ingest", "order_lines.csv", "--as", "set"]).exit_code == 0
    shown = run.invoke(main, ["datasets"]).output
    assert PACIFIC in shown and "Asia/Tokyo" in shown and "2024-03-01" in shown
    order_lines(["2024-03-01T23:30:00-08:00", "2024-03-01T23:30:00+08:00"]).to_csv("order_lines.csv", index=False)
    refused = run.invoke(main, ["ingest", "order_lines.csv", "--as", "both"])
    assert refused.exit_code == 3 and "--zone" in refused.output


def test_names_of_no_place_are_never_chosen() -> None:
    times = evenings(PACIFIC, "2023-08-01", "2024-07-31")
    choice = choose_zone({"order_lines": order_lines(times)})
    assert choice.zone == PACIFIC and "US/" not in " ".join(choice.notes) and "Etc/" not in " ".join(choice.notes)
