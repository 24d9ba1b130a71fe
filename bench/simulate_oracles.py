"""Estimates of the size of each planted event by one who knows the truth about it: date, kind, rows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from datetime import date, timedelta
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas as pd
from aims import Aim

from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.simulate.baskets import prices_on_day
from d2c_mlops.data.simulate.buying import placed_orders
from d2c_mlops.data.simulate.script import KINDS, event
from d2c_mlops.data.simulate.world.world import product_demand_lift

START, FIRST = date(2024, 1, 1), date(2024, 1, 31)
SIZE: dict[str, Any] = {"regime": "fashion", "days": 90, "orders": 120.0, "products": 120, "stock": False}
Estimate = tuple[float, float]  # what is estimated, what was planted


def after(shop: Shop) -> pd.DataFrame:
    """Return the orders from the event's first day on."""
    orders = shop.tables()["orders"]
    return orders[orders["ordered_at"] >= pd.Timestamp(FIRST, tz="UTC")]


def lines_after(shop: Shop) -> pd.DataFrame:
    """Return the order lines from the event's first day on, by the true date of their order."""
    tables = shop.tables()
    return tables["order_lines"][tables["order_lines"]["order_id"].isin(set(after(shop)["order_id"]))]


def odds(share: float) -> float:
    """Return the odds of a share."""
    return share / (1 - share)


def shop_pair(seed: int, kind: str, size: Any, **options: str) -> tuple[Shop, Shop]:
    """Return the shop with the event and the one without."""
    sized = SIZE | ({"products": 600} if kind == "stale_category" else {})
    shop = Shop(seed=seed, events=[event(kind, kind, FIRST, size, **options)], **sized)
    return shop, shop.without()


def tracking(seed: int) -> Estimate:
    """The share of orders that lost their customer."""
    shop, calm = shop_pair(seed, "tracking", 0.35)
    known = [after(s)["customer_id"].notna().mean() for s in (shop, calm)]
    return 1 - known[0] / known[1], 0.35


def date_bases(seed: int) -> Estimate:
    """The mean of days between the dates of lines and of their orders, planted from 3 to 7."""
    shop, _ = shop_pair(seed, "date_bases", (3.0, 7.0))
    lines, orders = lines_after(shop), after(shop).set_index("order_id")
    apart = lines["ordered_at"] - orders["ordered_at"].reindex(lines["order_id"]).array
    by_order = apart.groupby(lines["order_id"]).first()
    return float(by_order.dt.days.mean()), 5.0


def over_represented(seed: int) -> Estimate:
    """The logarithm of the odds ratio of the segment."""
    shop, calm = shop_pair(seed, "over_represented", 3.0, segment="country:FR")
    shares = [(after(s)["country"] == "FR").mean() for s in (shop, calm)]
    return float(np.log(odds(shares[0]) / odds(shares[1]))), float(np.log(3.0))


def stale_category(seed: int) -> Estimate:
    """The share of the category's products under another category."""
    shop, calm = shop_pair(seed, "stale_category", 0.3, category="shoes")
    tables = [s.day(FIRST).products for s in (shop, calm)]
    shoes = tables[1]["category"] == "shoes"
    return float((tables[0].loc[shoes, "category"] != "shoes").mean()), 0.3


def returns_marked_sold(seed: int) -> Estimate:
    """The share of returns from the date on that look sold, planted from 18 to 23 %."""
    shop, calm = shop_pair(seed, "returns_marked_sold", (0.18, 0.23))
    frames = [s.tables()["order_lines"] for s in (shop, calm)]
    due = frames[1]["returned_at"] >= pd.Timestamp(FIRST, tz="UTC")
    return float((frames[0].loc[due, "returned_quantity"] == 0).mean()), 0.205


def renamed_column(seed: int) -> Estimate:
    """The day, counted from the start, on which an export's column has another name, found by bisection over its days."""
    first = START + timedelta(days=20 + seed % 50)
    options = {"table": "orders", "column": "channel", "to": "sales_channel"}
    shop = Shop(seed=seed, events=[event("renamed", "renamed_column", first, **options)], **SIZE)
    columns = Shop(seed=seed, **SIZE).day(START).orders.columns
    day = bisect_left(shop.dates, True, key=lambda date_of_day: "channel" not in shop.day(date_of_day).orders.columns)
    changed = [column for column in shop.day(shop.dates[day]).orders.columns if column not in columns]
    return float(day if changed == ["sales_channel"] else -1), float((first - START).days)


def changed_code(seed: int) -> Estimate:
    """The share of orders under the new code from the date on, of which those of the former code had a share before."""
    shop, calm = shop_pair(seed, "changed_code", 0.0, column="channel", code="web", to="W")
    before, now = (set(shop.tables()["orders"]["channel"]) - set(after(s)["channel"]) for s in (shop, calm))
    shares = [(after(shop)["channel"] == "W").mean(), (after(calm)["channel"] == "web").mean()]
    return (shares[0] if (before, now) == ({"web"}, {"W"}) else -1.0), shares[1]


def price(seed: int) -> Estimate:
    """The change of expected lines of all products, by their elasticities."""
    shop, calm = shop_pair(seed, "price", 0.1)
    sold = [sum(len(s.history.full_day(day).happened.lines["number"]) for day in range(30, 90)) for s in (shop, calm)]
    expected = np.zeros(2)
    for day in range(30, 90):
        plan = shop.world.plan(day)
        for side, script in enumerate((shop.history.script, calm.history.script)):
            lifted = product_demand_lift(shop.world, plan, prices_on_day(shop.world, script, day))
            expected[side] += float(plan.lines @ lifted)
    return sold[0] / sold[1], expected[0] / expected[1]


def channel_lost(seed: int) -> Estimate:
    """The share of the channel's orders that is gone."""
    shop, calm = shop_pair(seed, "channel_lost", 0.6, channel="app")
    counts = [(after(s)["channel"] == "app").sum() for s in (shop, calm)]
    return 1 - counts[0] / counts[1], 0.6


def channel_new(seed: int) -> Estimate:
    """The orders of the new channel relative to those expected of all others."""
    shop, _ = shop_pair(seed, "channel_new", 0.25, channel="marketplace")
    placed = [placed_orders(shop.world, shop.history.script, day)[0]["channel"] for day in range(30, 90)]
    new = sum(int((channel == 3).sum()) for channel in placed)
    return new / float(shop.world.expected[30:].sum()), 0.25


def currency_swap(seed: int) -> Estimate:
    """The ratio of list prices of the same lines: a franc for a euro."""
    shop, calm = shop_pair(seed, "currency_swap", 0.0, currency="EUR", to="SEK")
    prices = [lines_after(s)["unit_price"].to_numpy() for s in (shop, calm)]
    return float(np.median(prices[0] / prices[1])), 11.4


def unit_swap(seed: int) -> Estimate:
    """The ratio of quantities of the same lines."""
    shop, calm = shop_pair(seed, "unit_swap", 12.0, column="quantity")
    units = [lines_after(s)["quantity"].sum() for s in (shop, calm)]
    return float(units[0] / units[1]), 12.0


def customer_mix(seed: int) -> Estimate:
    """The change of the segment's share of orders."""
    shop, calm = shop_pair(seed, "customer_mix", 0.15, segment="country:FR")
    shares = [(after(s)["country"] == "FR").mean() for s in (shop, calm)]
    return shares[0] - shares[1], 0.15


def fashion_turn(seed: int) -> Estimate:
    """The share of the category's regular lines that turned."""
    shop, calm = shop_pair(seed, "fashion_turn", 0.5, category="dresses", to="coats")
    counts = []
    for side in (shop, calm):
        numbers = [side.history.full_day(day).happened.lines for day in range(30, 90)]
        regular = [lines["product"][lines["number"] < 2**61] for lines in numbers]
        counts.append(sum(int((side.world.products.category[products] == 0).sum()) for products in regular))
    return 1 - counts[0] / counts[1], 0.5


def first_summer(seed: int) -> Estimate:
    """The share of orders lost over the summer: half its depth, as it is a bell."""
    shop, calm = shop_pair(seed, "first_summer", 0.4, days="60")
    return 1 - len(after(shop)) / len(after(calm)), 0.2


def lead_definition(seed: int) -> Estimate:
    """The rate of additional leads of the team."""
    shop = Shop(seed=seed, events=[event("leads", "lead_definition", FIRST, 0.5, team="south")], **SIZE | {"days": 240})
    counts = []
    for side in (shop, shop.without()):
        leads = side.history.leads()
        counts.append(int(((leads["rep"] >= 3) & (leads["day"] >= 30)).sum()))
    return counts[0] / counts[1] - 1, 0.5


def treatment(seed: int) -> Estimate:
    """Orders per customer of treated less held out ones, during the campaign."""
    shop, _ = shop_pair(seed, "treatment", 0.2)
    groups = shop.day(FIRST).treatments
    orders = shop.tables()["orders"]
    until = pd.Timestamp(FIRST + timedelta(days=14), tz="UTC")
    window = orders[(orders["ordered_at"] >= pd.Timestamp(FIRST, tz="UTC")) & (orders["ordered_at"] < until)]
    count = window["customer_id"].value_counts().reindex(groups["customer_id"]).fillna(0.0).to_numpy()
    treated = groups["treated"].to_numpy(bool)
    guests = 1 - shop.world.regime.guests  # orders of guests cannot be assigned
    effects = shop.truth.effects
    return float(count[treated].mean() - count[~treated].mean()) / guests, float(effects.loc[treated, "effect"].mean())


def overrides(seed: int) -> Estimate:
    """The share of promoted products' proposals that planners overrode."""
    shop, _ = shop_pair(seed, "overrides", 0.7, rule="promotion")
    everyone = Shop(seed=seed, events=[event("all", "overrides", FIRST, 1.0, rule="promotion")], **SIZE)
    return len(shop.truth.overrides) / len(everyone.truth.overrides), 0.7


def elasticity(seed: int) -> Estimate:
    """The elasticity of one style, from its expected lines under two prices in regression through the origin."""
    shop, calm = shop_pair(seed, "price", 0.3, category="dresses")
    dresses = shop.world.products.category == 0
    counts, expected = np.zeros(2), np.zeros(2)
    for day in range(30, 90):
        plan = shop.world.plan(day)
        for side, one in enumerate((shop, calm)):
            products = one.history.full_day(day).happened.lines["product"]
            counts[side] += dresses[products].sum()
            prices = prices_on_day(shop.world, one.history.script, day)
            expected[side] += float(plan.lines[dresses] @ product_demand_lift(shop.world, plan, prices)[dresses])
    return float(np.log(counts[0] / counts[1]) / np.log(1.3)), float(np.log(expected[0] / expected[1]) / np.log(1.3))


ORACLES: tuple[Callable[[int], Estimate], ...] = (
    tracking, date_bases, over_represented, stale_category, returns_marked_sold, renamed_column, changed_code, price,
    channel_lost, channel_new, currency_swap, unit_swap, customer_mix, fashion_turn, first_summer, lead_definition, treatment, overrides, elasticity,
)  # fmt: skip


def recovered(oracle: Callable[[int], Estimate], seeds: range) -> tuple[float, float, float]:
    """Return the mean estimate, the mean planted size, and their difference in standard errors of the mean."""
    pairs = [oracle(seed) for seed in seeds]
    differences = [estimate - planted for estimate, planted in pairs]
    error = max(stdev(differences) / sqrt(len(pairs)), 1e-3 * abs(pairs[0][1]), 1e-9)
    return fmean(e for e, _ in pairs), fmean(p for _, p in pairs), fmean(differences) / error


def oracles(seeds: int) -> list[Aim]:
    """Recover every event over several seeds: the mean estimate within three standard errors of the planted size."""
    missing = sorted(set(KINDS) - {oracle.__name__ for oracle in ORACLES})
    aims = [
        Aim(
            "every kind of event has an oracle",
            f"{len(KINDS)} kinds, without: {', '.join(missing) or 'none'}",
            not missing,
        )
    ]
    for oracle in ORACLES:
        estimate, planted, z = recovered(oracle, range(seeds))
        text = f"{estimate:.4f} of {planted:.4f} planted, {z:+.1f} standard errors"
        aims.append(Aim(f"{oracle.__name__} recovered over {seeds} seeds within 3 standard errors", text, abs(z) <= 3))
        print(aims[-1], flush=True)
    return aims
