"""A planted event changes nothing before its date and nothing else than it says; scripts are read or refused by name."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.simulate.script import KINDS, PlannedEvent, event, read_script, read_size
from d2c_mlops.data.simulate.source import READERS
from d2c_mlops.errors import D2CError, DataRefused, UsageError
from support.simulated import SMALL

START = date(2024, 1, 1)
FEW = SMALL | {"days": 24}
# Options and size of one event of every kind.
EVENTS: dict[str, tuple[Any, dict[str, str]]] = {
    "tracking": (0.35, {}),
    "date_bases": ((3.0, 7.0), {}),
    "over_represented": (3.0, {"segment": "country:FR"}),
    "stale_category": (0.5, {"category": "shoes"}),
    "returns_marked_sold": ((0.18, 0.23), {}),
    "renamed_column": (0.0, {"table": "orders", "column": "channel", "to": "sales_channel"}),
    "changed_code": (0.0, {"column": "channel", "code": "web", "to": "W"}),
    "price": (0.2, {"category": "shoes"}),
    "channel_lost": (1.0, {"channel": "app"}),
    "channel_new": (0.3, {"channel": "marketplace"}),
    "currency_swap": (0.0, {"currency": "EUR", "to": "USD"}),
    "unit_swap": (100.0, {"column": "unit_price"}),
    "customer_mix": (0.2, {"segment": "channel:app"}),
    "fashion_turn": (0.5, {"category": "dresses", "to": "coats"}),
    "first_summer": (0.5, {"days": "30"}),
    "lead_definition": (1.0, {"team": "south"}),
    "treatment": (0.3, {}),
    "overrides": (1.0, {"rule": "category:shoes"}),
}
FAULTS = [kind for kind, about in KINDS.items() if about.family in ("fault", "schema") or kind.endswith("_swap")]


def planted(kind: str, day: int, until: int | None = None) -> PlannedEvent:
    """Return an event of a kind that starts on a day."""
    size, options = EVENTS[kind]
    last = {} if until is None else {"until": (START + timedelta(days=until)).isoformat()}
    return event(kind, kind, START + timedelta(days=day), size, **options, **last)


def same(left: Mapping[str, pd.DataFrame], right: Mapping[str, pd.DataFrame]) -> bool:
    """Return whether two mappings hold equal frames."""
    return set(left) == set(right) and all(left[name].equals(right[name]) for name in left)


@pytest.fixture(scope="module")
def plain() -> Shop:
    return Shop(**SMALL)


def test_what_a_fault_costs_is_nothing_and_what_a_price_costs_is_the_difference() -> None:
    shop = Shop(**FEW, events=[planted("tracking", 5), planted("price", 10)])
    assert shop.truth.cost("tracking") == {"orders": 0, "units": 0, "revenue": 0, "margin": 0}
    with_price = Shop(**FEW, events=[planted("price", 10)]).truth.totals
    cost = shop.truth.cost("price")
    assert (
        cost == {name: Shop(**FEW).truth.totals[name] - with_price[name] for name in with_price} and cost["units"] > 0
    )


def test_there_is_an_event_of_every_kind() -> None:
    assert set(EVENTS) == set(KINDS)


def test_every_kind_of_event_and_every_option_of_a_location_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs/operations.md").read_text(encoding="utf-8")
    section = page.split("\n## Simulated shops\n")[1].split("\n## ")[0]
    assert {name for name in (*KINDS, *READERS) if f"`{name}`" not in section} == set()


@pytest.mark.parametrize("kind", sorted(EVENTS))
def test_an_event_changes_nothing_before_its_date_and_something_after(plain: Shop, kind: str) -> None:
    shop = Shop(**SMALL, events=[planted(kind, 12)])
    for number in (0, 11):
        day = START + timedelta(days=number)
        assert same(shop.day(day), plain.day(day)), number
    assert any(not same(shop.day(day), plain.day(day)) for day in shop.dates[12:])


@pytest.mark.slow
@given(st.sampled_from(sorted(EVENTS)), st.integers(1, 58), st.data())
@settings(max_examples=40, deadline=None)
def test_any_day_before_any_event_is_as_without_it(plain: Shop, kind: str, day: int, data: st.DataObject) -> None:
    shop = Shop(**SMALL, events=[planted(kind, day)])
    before = START + timedelta(days=data.draw(st.integers(0, day - 1)))
    assert same(shop.day(before), plain.day(before))


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_changes_what_is_shown_and_not_what_happened(plain: Shop, kind: str) -> None:
    shop = Shop(**SMALL, events=[planted(kind, 3)])
    for number in range(8):
        left, right = (s.history.full_day(number).happened for s in (shop, plain))
        for name in right.lines:
            assert np.array_equal(left.lines[name], right.lines[name])
    assert shop.day(shop.dates[7]).payments.equals(plain.day(shop.dates[7]).payments)


@pytest.mark.parametrize("kind", ["tracking", "changed_code", "unit_swap", "price", "channel_lost", "first_summer"])
def test_days_after_the_end_of_an_event_show_nothing_of_it(plain: Shop, kind: str) -> None:
    shop = Shop(**SMALL, events=[planted(kind, 2, until=4)], stock=False)
    calm = Shop(**SMALL, stock=False)
    orders = [s.day(START + timedelta(days=8)).orders for s in (shop, calm)]
    new = [o[o["ordered_at"] >= pd.Timestamp("2024-01-06", tz="UTC")].reset_index(drop=True) for o in orders]
    assert new[0].equals(new[1]) and len(new[0])


def test_without_is_the_shop_that_never_had_the_event() -> None:
    shop = Shop(**FEW, events=[planted("price", 5), planted("tracking", 10)])
    assert same(shop.without().tables(), Shop(**FEW).tables())
    only = shop.without("price").tables()
    assert same(only, Shop(**FEW, events=[planted("tracking", 10)]).tables())
    with pytest.raises(UsageError, match="no event 'prices'"):
        shop.without("prices")


def test_a_price_event_changes_only_lines_of_its_category() -> None:
    calm, dearer = (Shop(**SMALL, events=e, stock=False) for e in ([], [planted("price", 10)]))
    for number in (12, 30):
        left, right = (s.history.full_day(number).happened.lines for s in (calm, dearer))
        assert np.isin(right["number"], left["number"]).mean() > 0.9
        gone = ~np.isin(left["number"], right["number"])
        shoes = calm.world.products.category == calm.world.regime.categories.index("shoes")
        group = np.isin(calm.world.products.group, calm.world.products.group[shoes])
        assert group[left["product"][gone]].all() and gone.any()
        stays = np.isin(right["number"], left["number"]) & ~shoes[right["product"]]
        rows = np.searchsorted(np.sort(left["number"]), right["number"][stays])
        order = np.argsort(left["number"])
        assert (left["price"][order][rows] == right["price"][stays]).all()


def test_labels_name_every_wrong_cell_and_no_other() -> None:
    events = [planted("tracking", 5), planted("date_bases", 30, 35), planted("returns_marked_sold", 20)]
    sized = SMALL | {"days": 40}
    shop = Shop(**sized, events=[*events, planted("stale_category", 38), planted("over_represented", 35)])
    labels, calm = shop.truth.labels, shop.without().tables()
    shown = shop.tables()
    assert set(labels["table"]) == {"orders", "order_lines", "products"}
    missing = labels.loc[labels["column"] == "exported", "key"]
    assert set(missing) == set(calm["orders"]["order_id"]) - set(shown["orders"]["order_id"]) and len(missing)
    both = calm["orders"].merge(shown["orders"], on="order_id", suffixes=("_true", "_shown"))
    wrong = both[both["channel_true"] != both["channel_shown"]]
    assert set(wrong["order_id"]) == set(labels.loc[labels["column"] == "channel", "key"])
    category = calm["products"].merge(shown["products"], on="product_id")
    assert (category["category_x"] != category["category_y"]).sum() == (labels["table"] == "products").sum() > 0
    assert (labels["true"] != labels["shown"]).all()
    assert len(Shop(**FEW).truth.labels) == 0


def test_two_events_add_up_whatever_their_order() -> None:
    events = [planted("price", 1), planted("channel_new", 2), planted("tracking", 4), planted("treatment", 6)]
    few = SMALL | {"days": 10}
    assert same(Shop(**few, events=events).tables(), Shop(**few, events=events[::-1]).tables())


def test_a_script_file_is_read_as_the_events_it_names(tmp_path: Path) -> None:
    path = tmp_path / "drift.ini"
    path.write_text(
        "[dearer]\nkind = price\ndate = 2024-01-20\nsize = 20 %\ncategory = shoes\n\n[lost]\nkind = channel_lost\n"
        "date = 2024-01-25\nsize = 1\nchannel = app\nuntil = 2024-02-01\n",
        encoding="utf-8",
    )
    events = [
        event("dearer", "price", date(2024, 1, 20), 0.2, category="shoes"),
        event("lost", "channel_lost", date(2024, 1, 25), 1.0, channel="app", until="2024-02-01"),
    ]
    assert read_script(path) == tuple(events)
    few = SMALL | {"days": 28}
    assert Shop(**few, events=path).tables()["orders"].equals(Shop(**few, events=events).tables()["orders"])


def test_every_fault_of_a_script_is_reported_by_its_section(tmp_path: Path) -> None:
    path = tmp_path / "drift.ini"
    path.write_text(
        "[a]\nkind = prise\ndate = 2024-01-20\n[b]\ndate = 2024-01-20\n[c]\nkind = price\ndate = 20.1.2024\n",
        encoding="utf-8",
    )
    with pytest.raises(DataRefused) as caught:
        read_script(path)
    assert [failure.where for failure in caught.value.failures] == ["[a]", "[b]", "[c]"]
    with pytest.raises(UsageError, match="cannot be read"):
        read_script(tmp_path / "none.ini")
    path.write_text("kind = price\n", encoding="utf-8")
    with pytest.raises(DataRefused, match="not an ini file"):
        read_script(path)
    path.write_text("[a]\nkind = price\ndate=2024-01-01\n[a]\nkind = price\ndate=2024-01-01\n", encoding="utf-8")
    with pytest.raises(DataRefused):
        read_script(path)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("35 %", (0.35, 0.35)),
        ("0.1", (0.1, 0.1)),
        ("18-23 %", (0.18, 0.23)),
        ("3 to 7", (3.0, 7.0)),
        ("-10 %", (-0.1, -0.1)),
    ],
)
def test_sizes_are_shares_factors_or_ranges(text: str, size: tuple[float, float]) -> None:
    assert read_size(text) == pytest.approx(size)


@pytest.mark.parametrize("text", ["", "much", "7-3", "1,5", "5 percent", "nan"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|below"):
        read_size(text)


@pytest.mark.parametrize(
    ("kind", "size", "options"),
    [
        ("tracking", 1.5, {}),
        ("price", -1.0, {}),
        ("over_represented", 0.5, {"segment": "country:FR"}),
        ("over_represented", 2.0, {"segment": "country:XX"}),
        ("customer_mix", 0.1, {"segment": "age:30"}),
        ("channel_lost", 1.0, {"channel": "kiosk"}),
        ("stale_category", 0.5, {"category": "hats"}),
        ("fashion_turn", 0.5, {"category": "hats", "to": "shoes"}),
        ("renamed_column", 0.0, {"table": "bills", "column": "a", "to": "b"}),
        ("currency_swap", 0.0, {"currency": "USD", "to": "EUR"}),
        ("currency_swap", 0.0, {"currency": "EUR", "to": "XXX"}),
        ("unit_swap", 10.0, {"column": "colour"}),
        ("lead_definition", 0.5, {"team": "west"}),
        ("treatment", 0.5, {"days": "some"}),
        ("overrides", 0.5, {"rule": "mood"}),
        ("overrides", 0.5, {"rule": "promotion", "right": "perhaps"}),
        ("changed_code", 0.0, {"column": "colour", "code": "a", "to": "b"}),
    ],
)
def test_an_event_that_the_shop_cannot_have_is_refused_when_the_shop_is_made(
    kind: str, size: float, options: dict[str, str]
) -> None:
    with pytest.raises(D2CError):
        Shop(**{**SMALL, "days": 5}, events=[event("wrong", kind, START, size, **options)])


def test_an_event_outside_of_the_days_is_refused() -> None:
    with pytest.raises(UsageError, match=r"none of the shop's days"):
        Shop(**SMALL, events=[planted("price", 60)])
    with pytest.raises(UsageError, match="two events are called"):
        Shop(**SMALL, events=[planted("price", 1), planted("price", 2)])
