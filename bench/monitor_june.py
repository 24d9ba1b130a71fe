"""The June story: a forecaster trained from January to May, and a first summer that it has not seen. Its cost in July with and without monitoring.

A simulated brand sells products of summer and of winter. From 1 June on, 60 to 80 % of the demand for winter products turns to summer products, on one day or
in five steps over two weeks. The model forecasts units by product and day, and answers until 2 August. Each day is walked with the code of production
(operations.replay): the signs of `d2c monitor`, the policy `on drift`, the gate, the promotion. Nothing is out of stock, so that sales are demand.

- **Cost**: of July, by the charter's prices, 4 for a unit too few and 6 for a unit too many.
- **Without monitoring**: the model of 31 May stays live.
- **Oracle**: the same model trained anew at the end of each day, without the gate; each answer is one day ahead.
- **Avoidable**: the cost without monitoring minus that of the oracle. **Saved**: the cost without monitoring minus that of the policy, over the avoidable cost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from aims import Aim, table

from d2c_mlops.data.simulate.script import PlannedEvent, event
from d2c_mlops.data.simulate.simulator import Shop
from d2c_mlops.data.simulate.world.regimes import GROCER
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.monitoring.replay import Clock, PolicyWalk, walk
from d2c_mlops.monitoring.retraining import RetrainingPolicy
from d2c_mlops.operations.replay.fits import FitStore
from d2c_mlops.operations.replay.history import ForecastHistory, Prices
from d2c_mlops.operations.replay.known_sales import DatasetEvidence, KnownSales
from d2c_mlops.registry.evaluators import evaluator_of
from d2c_mlops.settings import load_settings

FULL = os.environ.get("FULL") == "1"
BRAND = replace(GROCER, name="brand", categories=("sun care", "cold drinks", "snacks", "tea", "soups", "candles"))
TURNS = (("tea", "cold drinks"), ("soups", "sun care"))  # from a category of winter to one of summer
START, TRAINED, SUMMER, END = date(2025, 1, 1), date(2025, 5, 31), date(2025, 6, 1), date(2025, 7, 31)
JULY, MID_JUNE = date(2025, 7, 1), date(2025, 6, 15)
HORIZON = 63  # days
ORDERS, PRODUCTS = 60.0, 40
SEEDS = tuple(range(4000, 4020 if FULL else 4005))
STEPS = {"on one day": 1, "over two weeks": 5}


@dataclass(frozen=True)
class Summer:
    """One shop: when the monitor alerted, what was promoted, and what July cost."""

    seed: int
    alerted: date | None  # day at whose end `d2c monitor` first reports a breach
    cause: str
    promoted: tuple[date, ...]
    refused: tuple[str, ...]
    without: float
    monitored: float
    oracle: float

    @property
    def saved(self) -> float:
        """The share of the avoidable cost of July that monitoring saved."""
        return (self.without - self.monitored) / (self.without - self.oracle)


def turns(seed: int, steps: int) -> list[PlannedEvent]:
    """Return the events by which demand turns: on 1 June, or in equal steps every three days."""
    rng = np.random.default_rng(seed)
    events = []
    for old, new in TURNS:
        share = 1 - (1 - float(rng.uniform(0.6, 0.8))) ** (1 / steps)
        days = (SUMMER + timedelta(days=3 * step) for step in range(steps))
        events += [event(f"{old} {day}", "fashion_turn", day, share, category=old, to=new) for day in days]
    return events


def history_of(seed: int, steps: int, folder: Path) -> tuple[ForecastHistory, list[Clock]]:
    """Return the history of the brand's model, and the looks at the end of each day from 31 May to 30 July."""
    shop = Shop(
        BRAND, seed=seed, days=(END - START).days + 1, start=START, orders=ORDERS, products=PRODUCTS, events=turns(seed, steps), stock=False,
    )  # fmt: skip
    tables, model = shop.tables(), DemandForecaster(by="product_id", sums=False, horizon=HORIZON)
    evaluator, settings, charter = evaluator_of(model.contract, ()), load_settings(), model.charter
    assert evaluator is not None and charter.right_value and charter.wrong_cost
    looks = [TRAINED + timedelta(days=number) for number in range((END - TRAINED).days)]
    fits = FitStore(type(model), model.params(), charter, tables, folder)
    dataset = DatasetEvidence(tables, looks, settings.monitor_limits("demand").false_alarms)
    sales, prices = KnownSales(tables, END, model.by, "D"), Prices(charter.right_value, charter.wrong_cost)
    history = ForecastHistory("demand", model, evaluator, fits, sales, dataset, settings, prices, 1, 0.0)
    return history, [Clock.at_end_of(day, tables.zone) for day in looks]


def july(losses: Iterable[tuple[date, float]]) -> float:
    """Return the cost of July; each loss is that of the day after its look."""
    return sum(loss for look, loss in losses if look + timedelta(days=1) >= JULY)


def live_through(task: tuple[int, int]) -> Summer:
    """Walk one shop through its summer, with and without monitoring."""
    seed, steps = task
    with TemporaryDirectory(prefix="d2c-june-") as folder:
        history, clocks = history_of(seed, steps, Path(folder))
        walks = {text: walk(RetrainingPolicy.parse(text), clocks, history) for text in ("never", "on drift")}
        oracle = july(
            (clock.day, history.outcome(clock.day, clock).loss)
            for clock in clocks
            if clock.day >= JULY - timedelta(days=1)
        )
    costs = {text: july(zip(w.days, (s.loss for s in w.sums), strict=True)) for text, w in walks.items()}
    first = next((e for e in walks["on drift"].events if e.action == "trained"), None)
    return Summer(
        seed, first.day if first else None, first.reason.removeprefix("drift or accuracy: ").split(" since")[0] if first else "",
        _days(walks["on drift"], "promoted"), tuple(e.reason for e in walks["on drift"].events if e.action == "refused"),
        costs["never"], costs["on drift"], oracle,
    )  # fmt: skip


def _days(walked: PolicyWalk, action: str) -> tuple[date, ...]:
    return tuple(e.day for e in walked.events if e.action == action)


def june(map_tasks: Callable[..., Iterable[Summer]]) -> list[Aim]:
    """Walk shops of both kinds of summer; the aims are those of the medians, and of all shops of the summer that comes on one day."""
    aims: list[Aim] = []
    tasks = [(seed, steps) for steps in STEPS.values() for seed in SEEDS]
    summers = iter(map_tasks(live_through, tasks))
    for name in STEPS:
        shops = list(islice(summers, len(SEEDS)))
        rows = [
            {"seed": str(s.seed), "alert on": f"{s.alerted:%d %b}" if s.alerted else "-", "by": s.cause, "promoted on": " ".join(f"{d:%d %b}" for d in s.promoted) or "-",
             "refused": str(len(s.refused)), "July without monitoring": f"{s.without:,.0f}", "on drift": f"{s.monitored:,.0f}", "oracle": f"{s.oracle:,.0f}", "saved": f"{s.saved:.2f}"}
            for s in shops
        ]  # fmt: skip
        print(f"\nfirst summer, demand turns {name}\n" + table(rows), flush=True)
        for reason in dict.fromkeys(reason for s in shops for reason in s.refused):
            print(f"refused: {reason}")
        saved = np.array([s.saved for s in shops])
        in_time = sum(s.alerted is not None and s.alerted <= MID_JUNE for s in shops)
        promoted = sum(bool(s.promoted) for s in shops)
        median, range_text = float(np.median(saved)), f"{np.median(saved):.2f} (range {saved.min():.2f} to {saved.max():.2f})"  # fmt: skip
        aims += [
            Aim(f"first summer {name}: alerted by 15 June", f"{in_time} of {len(shops)} shops", in_time == len(shops)),
            Aim(f"first summer {name}: challenger promoted", f"{promoted} of {len(shops)} shops", promoted == len(shops)),
            Aim(f"first summer {name}: median of the avoidable cost of July saved ≥ .5", range_text, median >= 0.5),
        ]  # fmt: skip
    return aims
