"""Files of a simulated shop hold what its tables hold, in every layout, and the command ingests it."""

import hashlib
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from d2c_mlops.data.ingestion.ingest import ingest, map_tables
from d2c_mlops.data.layouts.shopify_money import net_line_values
from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.simulate.script import event
from d2c_mlops.data.simulate.source import SimulatedSource, arguments_of
from d2c_mlops.data.sources.fetch import find_source
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import UsageError
from support.simulated import SMALL

SIZE = SMALL | {"days": 34, "orders": 15.0}
EVENTS = [event("new channel", "channel_new", datetime(2024, 1, 20, tzinfo=UTC).date(), 0.3, channel="marketplace")]


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop(**SIZE, events=EVENTS, zones=("Europe/Berlin",))


def test_canonical_files_hold_the_tables(shop: Shop, tmp_path: Path) -> None:
    mapped = map_tables(str(shop.write(tmp_path / "shop")), zone="Europe/Berlin").frames
    for name, frame in shop.tables().items():
        keys = [column for column in ("order_id", "line_no", "product_id", "customer_id", "lead_id") if column in frame]
        left, right = (f.sort_values(keys, ignore_index=True) for f in (mapped[name], frame))
        pd.testing.assert_frame_equal(left, right)


def test_the_shopify_export_is_worth_the_same_to_the_cent(shop: Shop, tmp_path: Path) -> None:
    mapped = map_tables(str(shop.write(tmp_path / "shop", "shopify")), zone="Europe/Berlin")
    tables = shop.tables()
    paid = set(tables["orders"].dropna(subset="paid_at")["order_id"].str[1:])

    def worth(lines: pd.DataFrame) -> "pd.Series[float]":
        net = net_line_values(lines).groupby(lines["order_id"].str[1:]).sum()
        return net[net.index.isin(paid)].sort_index()

    left, right = worth(mapped.frames["order_lines"]), worth(tables["order_lines"])
    assert mapped.layout == "shopify" and left.index.equals(right.index) and (left - right).abs().max() < 0.005
    assert set(mapped.frames["orders"]["channel"]) == {"web", "app", "store", "marketplace"}
    assert any("test orders" in note for note in mapped.notes)


# Of all bytes of the files: another value means that the same seed writes another export than it wrote before.
BYTES = {
    "plain": (SMALL, "5e76445e3de04d31d5e717d0b87764de48c64db468793f86308f2ba8370c500c"),
    "clocks put forward, two currencies": (
        SMALL
        | {"start": date(2024, 3, 8), "days": 30, "zones": ("America/New_York", "Asia/Kolkata")}
        | {"currencies": ("USD", "SEK")},
        "8556b61829cfbff31ce87c79edbe0f56ddfadc3d6afff67643674aaeaa90d31e",
    ),
    "an offset of 44 minutes and a half": (
        SMALL | {"start": date(1971, 12, 25), "days": 20, "zones": ("Africa/Monrovia",)},
        "f70dcfe7bc58524c0751f8de948f74fe7f78f3a134dafd893622bfed837e7202",
    ),
}


@pytest.mark.parametrize("case", BYTES)
def test_the_bytes_of_the_shopify_export_are_the_stored_ones(case: str, tmp_path: Path) -> None:
    size, stored = BYTES[case]
    digest = hashlib.sha256()
    for file in sorted(Shop(**size).write(tmp_path / "shop", "shopify").iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    assert digest.hexdigest() == stored


def test_a_month_without_orders_is_a_file_with_a_head(tmp_path: Path) -> None:
    shop = Shop(**{**SMALL, "days": 1, "orders": 0.1, "products": 1})
    assert len(shop.day(shop.dates[0]).orders) == 0
    (file,) = shop.write(tmp_path / "shop", "shopify").iterdir()
    assert len(pd.read_csv(file)) == 0 and "Lineitem sku" in pd.read_csv(file).columns


def test_a_failure_while_text_is_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2c_mlops.data.simulate.writing.order_status", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Shop(**{**SMALL, "days": 3}).write(tmp_path / "shop", "shopify")
    assert not list(tmp_path.iterdir())


def test_a_folder_a_day_holds_what_arrives(tmp_path: Path) -> None:
    shop = Shop(**{**SMALL, "days": 4})
    path = shop.write(tmp_path / "shop", "exports")
    assert sorted(place.name for place in path.iterdir()) == [day.isoformat() for day in shop.dates]
    for day in shop.dates:
        for name, frame in shop.day(day).items():
            file = path / day.isoformat() / f"{name}.parquet"
            assert file.exists() == bool(len(frame))
            if len(frame):
                assert pd.read_parquet(file)[frame.columns[0]].tolist() == frame.iloc[:, 0].tolist()


def test_a_folder_that_is_not_empty_is_left_alone_and_a_failure_leaves_nothing(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        shop.write(tmp_path / "shop")
    with pytest.raises(UsageError, match="no layout 'excel'"):
        shop.write(tmp_path / "other", "excel")
    monkeypatch.setattr("d2c_mlops.data.simulate.writing.leads_frame", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shop.write(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
    assert (tmp_path / "shop/notes.txt").read_text() == "mine"


def test_a_location_names_the_arguments_of_a_shop(tmp_path: Path) -> None:
    script = tmp_path / "drift.ini"
    script.write_text("[new]\nkind = channel_new\ndate = 2024-01-10\nsize = 50 %\nchannel = kiosk\n", encoding="utf-8")
    location = f"simulated:regime=fashion,seed=3,days=12,orders=10,products=40,zones=Europe/Berlin,script={script}"
    source = find_source(location)
    assert type(source) is SimulatedSource
    manifest = ingest(location, "shop", store=tmp_path, created_at=datetime.now(UTC)).manifest
    assert (manifest.zone, manifest.zone_from, manifest.source, manifest.layout) == (
        "Europe/Berlin",
        "source",
        location,
        "canonical",
    )
    stored = Tables.open(tmp_path, "shop")
    shop = Shop(**arguments_of(location))
    assert (
        stored["orders"]
        .sort_values("order_id", ignore_index=True)
        .equals(shop.tables()["orders"].sort_values("order_id", ignore_index=True))
    )
    assert "kiosk" in set(stored["orders"]["channel"])
    assert ingest(location, "shop", store=tmp_path, created_at=datetime.now(UTC)).changed is False


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("simulated:sed=7", "sed=7"),
        ("simulated:seed", "seed"),
        ("simulated:days=many", "days=many"),
        ("simulated:seed=1,seed=2", "twice"),
        ("simulated:stock=perhaps", "yes nor no"),
        ("simulated:start=1.1.2024", "start"),
        ("simulated:regime=bookshop", "bookshop"),
        ("simulated:script=/no/such.ini", "cannot be read"),
    ],
)
def test_a_location_that_names_no_shop_is_refused_by_its_key(location: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SimulatedSource().read(location)
