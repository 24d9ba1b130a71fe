"""Repairs of a training run: asked for by name, written as a dataset of their own, on record, and the original stays."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from d2c_mlops.data.manifest import read_manifest
from d2c_mlops.data.quality.representation import raking_weights
from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.simulate.script import event
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate_all
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.quality.repairs import parse_repairs, repair_dataset, repair_notes

NOW = datetime(2024, 6, 1, tzinfo=UTC)
TODAY = date(2024, 3, 31)
APART = event("apart", "date_bases", date(2024, 1, 20), (3.0, 5.0))
FRAMES = dict(Shop(regime="fashion", seed=8, days=91, orders=30.0, products=30, events=[APART]).tables())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_dataset(tmp_path, "shop", FRAMES, "test", layout="canonical", created_at=NOW)
    return tmp_path


def repaired(store: Path, text: str, as_of: date = TODAY) -> Tables:
    manifest = repair_dataset(store, Tables.open(store, "shop"), text, as_of, now=NOW)
    tables = Tables.open(store, manifest.name, manifest.digest)
    validate_all({name: tables[name] for name in tables})  # what it writes can be read as any dataset
    return tables


def test_net_returns_take_returned_and_cancelled_units_off(store: Path) -> None:
    lines = Tables.open(store, "shop").before(TODAY)["order_lines"]
    net = (lines["quantity"] - lines["returned_quantity"]).where(~lines["cancelled"], 0.0)
    after = repaired(store, "net_returns")["order_lines"]
    assert after["quantity"].sum() == net.sum() < lines["quantity"].sum()
    assert after["returned_quantity"].sum() == 0 and not after["cancelled"].any() and (after["quantity"] > 0).all()


def test_one_date_basis_gives_lines_the_date_of_their_order(store: Path) -> None:
    tables = repaired(store, "one_date_basis")
    both = tables["order_lines"].merge(tables["orders"], on="order_id", suffixes=("", " of order"))
    assert (both["ordered_at"] == both["ordered_at of order"]).all()
    before = (
        Tables.open(store, "shop")
        .before(TODAY)["order_lines"]
        .merge(FRAMES["orders"], on="order_id", suffixes=("", " of order"))
    )
    assert (before["ordered_at"] != before["ordered_at of order"]).any()


def test_the_window_leaves_out_orders_with_their_lines(store: Path) -> None:
    tables = repaired(store, "window 30")
    first = pd.Timestamp("2024-03-01", tz="Europe/Berlin") - pd.Timedelta(days=1)
    assert tables["orders"]["ordered_at"].min() >= first
    assert set(tables["order_lines"]["order_id"]) <= set(tables["orders"]["order_id"])
    assert (
        tables["orders"]["ordered_at"].max() == Tables.open(store, "shop").before(TODAY)["orders"]["ordered_at"].max()
    )


def test_lines_that_differ_in_their_number_alone_are_duplicates(tmp_path: Path) -> None:
    lines = FRAMES["order_lines"]
    again = lines.head(7).assign(line_no=lines["line_no"].head(7) + 50)
    write_dataset(
        tmp_path,
        "shop",
        FRAMES | {"order_lines": pd.concat([lines, again])},
        "test",
        layout="canonical",
        created_at=NOW,
    )
    after = repaired(tmp_path, "drop_duplicates", date(2024, 12, 31))["order_lines"]
    unique = lines.drop_duplicates([name for name in lines.columns if name != "line_no"])
    assert len(after) == len(unique)


def test_reweighting_gives_the_shares_of_a_population(store: Path, tmp_path: Path) -> None:
    population = pd.DataFrame({"country": ["DE"] * 200 + ["FR"] * 200, "noise": range(400)})
    population.to_csv(tmp_path / "population.csv", index=False)
    orders = repaired(store, f"reweight {tmp_path / 'population.csv'}")["orders"]
    shares = orders["country"].value_counts(normalize=True)
    assert abs(shares["DE"] - 0.5) < 0.05 and "AT" not in shares
    assert Tables.open(store, "shop")["orders"]["country"].value_counts(normalize=True)["DE"] > 0.55


def test_the_manifest_names_origin_and_repairs_and_the_original_stays(store: Path) -> None:
    origin = read_manifest(store, "shop")
    manifest = repair_dataset(store, Tables.open(store, "shop"), "window 60, net_returns", TODAY, now=NOW)
    assert manifest.name == "shop-repaired" and origin.digest in manifest.source
    assert [note.split(":")[0] for note in repair_notes(manifest)] == ["repair net_returns", "repair window 60"]
    assert read_manifest(store, "shop") == origin
    again = repair_dataset(store, Tables.open(store, "shop"), "net_returns, window 60", TODAY, now=NOW)
    assert again.digest == manifest.digest


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("net_return", "use net_returns"),
        ("window", "write window 180"),
        ("window soon", "write window 180"),
        ("window 0", "write window 180"),
        ("net_returns 3", "takes no value"),
        ("net_returns, net_returns", "twice"),
        ("", "no repair is named"),
        ("reweight {shop}", "can be compared"),
    ],
)
def test_a_repair_that_is_none_is_refused_and_writes_nothing(store: Path, tmp_path: Path, text: str, told: str) -> None:
    pd.DataFrame({"colour": ["red", "blue"] * 9}).to_csv(tmp_path / "colours.csv", index=False)
    with pytest.raises(UsageError, match=told):
        repair_dataset(store, Tables.open(store, "shop"), text.format(shop=tmp_path / "colours.csv"), TODAY, now=NOW)
    assert not (store / "data" / "shop-repaired").exists()


def test_a_repair_that_leaves_nothing_is_refused(store: Path) -> None:
    with pytest.raises(DataRefused, match="no rows stay"):
        repair_dataset(store, Tables.open(store, "shop"), "window 5", date(2030, 1, 1), now=NOW)


def test_repairs_are_done_in_their_own_order() -> None:
    assert [repair.name for repair in parse_repairs("window 9, drop_duplicates,net_returns")] == [
        "drop_duplicates",
        "net_returns",
        "window",
    ]


def test_a_segment_that_the_population_lacks_gets_no_weight() -> None:
    training, population = pd.Series(["a", "b", "c"] * 50), pd.Series(["a", "b"] * 75)
    weights = raking_weights({"x": training, "y": training}, {"x": population, "y": population})
    assert weights[training == "c"].tolist() == [0.0] * 50
    assert weights[training == "a"].sum() == pytest.approx(75)
