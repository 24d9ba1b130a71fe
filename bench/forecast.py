"""The demand forecast beside planners' methods and other libraries, out of time on real shops, and its cost on simulated ones.

    python bench/forecast.py [--markdown] [--peers PYTHON] [--only TEXT]

Data: the embedded sample (The Complete Journey, a grocer) and, where they are found, shops in ../shared/data or $D2C_SHARED_DATA:
online_retail.parquet (a gift web shop), and three whose future is partly known: bakery.parquet (daily; promotions, holidays, school holidays),
gadget_raw.csv (weekly; main-page feature, price), avocado.csv (weekly, three years). Four cutoffs, horizon 28 days or 8 weeks. The last two horizons of
the three are left out: they were never looked at while the methods were chosen.

Other libraries run in the environment of --peers (`make bench-forecast` makes it). The panels are given to them as Parquet in a temporary folder, with the
same plan. They are compared on a sample of each panel, evenly from slow to fast sellers, the same each time; libraries that learn from all series get at
most 200 series. FULL=1: larger samples, all series, and simulated shops of 5,000 and 20,000 products beside 100 and 1,000
(bench/forecast_scale.py). Times are CPU time of one process. STRICT=1 makes a missed aim an exit code of 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from aims import Aim, close, table
from forecast_metrics import (
    METRICS,
    Array,
    best,
    coverage_by_class,
    errors_of,
    mean_ratios,
    quantiles_of,
    with_upper_quartile,
)
from forecast_panels import CASES, UNTOUCHED, Case, shops
from forecast_scale import scale, usual_sizes
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

from d2c_mlops.data.tables import Tables
from d2c_mlops.models.forecasting.backtest import Backtest, align, backtest, backtests, cutoff_steps, summary, wape
from d2c_mlops.models.forecasting.forecast_inputs import ForecastInputs
from d2c_mlops.models.forecasting.forecasting import METHODS, DemandForecaster, inputs_for
from d2c_mlops.models.forecasting.forecasts import learn
from d2c_mlops.models.forecasting.ladder import ladder_forecast, volume_class
from d2c_mlops.models.forecasting.panel import Panel
from d2c_mlops.models.forecasting.seasonal import smoothed_level

FULL = os.environ.get("FULL") == "1"
SUBSET = 200 if FULL else 40  # series that libraries of single series are tried on, evenly from slow to fast sellers
MOST_SERIES = 100_000 if FULL else 200  # that libraries learn from which learn from all series
MOST_MS = 1.0  # of the smoothing rung
OURS, SMOOTHING = "d2c", "d2c smoothing"
NAIVES = ("naive of week", "naive of year")
LIBRARIES = ("AutoETS", "AutoTheta", "CrostonSBA", "mlforecast", "LightGBM")
CHEAPER = {"D": 100, "W": 30}  # times less CPU than AutoETS that the smoothing rung takes


@dataclass(frozen=True)
class Result:
    """What was measured on one case."""

    case: Case
    series: int
    ours: dict[str, float]
    classes: list[float]  # share inside of 80 % of slow, middle and fast sellers
    baselines: dict[str, float]  # WAPE by name
    ms: float  # of a fit, a series
    backtest_seconds: float
    scoring_seconds: float
    smoothing_ms: float
    subset: dict[str, float]  # WAPE of ours and of statsmodels on the subset, and the latter's ms a series
    chosen: tuple[str, ...]  # names of the subset
    by_method: dict[str, dict[str, float]]  # errors on the subset
    actual: Array  # of the subset [cutoff, horizon, series]
    scale: Array  # [cutoff, series]
    quantiles: Array  # of ours [4, cutoff, horizon, series]


def ets(panel: Panel, horizon: int) -> Array:
    """Forecast each series by statsmodels: additive errors, damped trend and, for days, the week as the season."""
    out = np.zeros((horizon, len(panel.series)))
    for i in range(len(panel.series)):
        y = panel.units[:, i]
        y = np.nan_to_num(y[np.flatnonzero(~np.isnan(y))[0] :])
        seasonal = {"seasonal": "add", "seasonal_periods": 7} if panel.freq == "D" else {}
        begin = "heuristic" if len(y) >= 10 else "estimated"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ETSModel(y, error="add", trend="add", damped_trend=True, initialization_method=begin, **seasonal)
            out[:, i] = np.maximum(model.fit(disp=False).forecast(horizon), 0.0)
    return out


def replayed(model: DemandForecaster, tables: Tables, as_of: date, panel: Panel) -> dict[str, Backtest]:
    """Return the backtests of the ladder, of its smoothing rung and of the baselines, from the same days."""
    past: dict[date, Panel] = {}

    def known(day: date) -> Panel:
        if day not in past:
            past[day] = model.panel(tables, day, panel.series)
        return past[day]

    def inputs(panel: Panel, horizon: int) -> ForecastInputs:
        at = inputs_for(model, tables, panel)
        return at.as_of_origin(at.origin, horizon)

    methods = {
        "forecast": lambda panel, horizon: ladder_forecast(inputs(panel, horizon)).answers,
        "smoothing": lambda panel, horizon: smoothed_level(inputs(panel, horizon)),
        **METHODS,
    }
    return backtests(panel, methods, model.horizon, model.cutoffs, model.min_history, known)


def evenly(panel: Panel, result: Backtest) -> np.ndarray:
    """Return numbers of series that were scored from every day, evenly over the range from slow to fast sellers."""
    always = np.flatnonzero(~np.isnan(result.scale).any(axis=0))
    order = always[np.argsort(np.nansum(panel.sold[:, always], axis=0))]
    return order[np.linspace(0, len(order) - 1, min(SUBSET, len(order))).astype(int)]


def of_series(result: Backtest, chosen: np.ndarray) -> Backtest:
    """Return the backtest of some series."""
    return Backtest(
        result.cutoffs,
        result.actual[..., chosen],
        result.forecast[..., chosen],
        result.bounds[:, :, chosen],
        result.scale[:, chosen],
    )


def statsmodels_loop(panel: Panel, names: tuple[str, ...], model: DemandForecaster) -> dict[str, float]:
    """Return WAPE of statsmodels on some series, and its milliseconds a series."""
    began = time.process_time()
    result = backtest(align(panel, names), ets, model.horizon, model.cutoffs, model.min_history)
    spent = (time.process_time() - began) * 1000 / (len(names) * len(result.cutoffs))
    return {"statsmodels": float(wape(result)), "ms": spent}


def measure(case: Case, tables: Tables, as_of: date, folder: Path | None) -> Result:
    """Run one case; write its panel for the other libraries into a folder."""
    model = DemandForecaster(freq=case.freq, by=case.by, top=case.top)
    panel = model.panel(tables, as_of)
    marks = [time.process_time()]
    inputs = inputs_for(model, tables, panel)
    model.learned = learn(panel, model.horizon, model.min_history, inputs)
    marks.append(time.process_time())
    smoothed_level(inputs)
    marks.append(time.process_time())
    model.zone = tables.zone
    model.predict(model.records(tables, as_of))
    marks.append(time.process_time())
    results = replayed(model, tables, as_of, panel)
    marks.append(time.process_time())
    fit, smoothing, scoring, backtested = np.diff(marks)
    chosen = evenly(panel, results["forecast"])
    few = {name: of_series(result, chosen) for name, result in results.items()}
    names = tuple(panel.series[i] for i in chosen)
    errors = {
        label: errors_of(few[name].actual, quantiles_of(few[name]), few[name].scale)
        for label, name in ((OURS, "forecast"), (SMOOTHING, "smoothing"))
    }
    if folder is not None:
        write_panel(
            folder, case, panel, inputs, names, cutoff_steps(panel, model.horizon, model.cutoffs, model.min_history)
        )
    level = np.nan_to_num(np.nanmean(np.where(np.isnan(panel.units), np.nan, panel.units), axis=0))
    return Result(
        case=case,
        series=len(panel.series),
        ours=summary(results["forecast"]) | errors_of_all(results["forecast"]),
        classes=coverage_by_class(results["forecast"], volume_class(level)),
        baselines={name: float(wape(results[name])) for name in METHODS},
        ms=fit * 1000 / len(panel.series),
        backtest_seconds=backtested,
        scoring_seconds=scoring,
        smoothing_ms=smoothing * 1000 / len(panel.series),
        subset={"ours": errors[OURS]["WAPE"], **statsmodels_loop(panel, names, model)},
        chosen=names,
        by_method=errors,
        actual=few["forecast"].actual,
        scale=few["forecast"].scale,
        quantiles=quantiles_of(few["forecast"]),
    )


def errors_of_all(result: Backtest) -> dict[str, float]:
    """Return the errors of quantiles and the cost of orders over a whole panel."""
    errors = errors_of(result.actual, quantiles_of(result), result.scale)
    return {name: errors[name] for name in ("WQL", "cost 3:1", "cost 9:1")}


def write_panel(
    folder: Path, case: Case, panel: Panel, inputs: ForecastInputs, names: tuple[str, ...], cutoffs: list[int]
) -> None:
    """Write a panel with its plan for the other libraries: the sample, and the fastest sellers up to MOST_SERIES."""
    by_sales = np.argsort(-np.nansum(panel.sold, axis=0), kind="stable")
    sample = np.flatnonzero(np.isin(panel.series, names))
    chosen = np.sort(
        np.concatenate([sample, by_sales[~np.isin(by_sales, sample)][: max(MOST_SERIES - len(sample), 0)]])
    )
    steps, count = len(panel.dates), len(chosen)
    columns = {"series": np.tile(np.array(panel.series)[chosen], steps), "step": np.repeat(np.arange(steps), count)}
    columns |= {"date": np.repeat(panel.dates, count), "units": panel.units[:, chosen].ravel()}
    plans = [*inputs.flags.values(), *inputs.prices.values()]
    plans += [inputs.open_share] if (inputs.open_share != 1).any() else []
    plan = {f"plan{i}": np.asarray(values)[:steps, chosen].ravel() for i, values in enumerate(plans)}
    groups = {f"group{i}": np.tile(codes[chosen], steps) for i, codes in enumerate(inputs.groups)}
    pd.DataFrame(columns | plan | groups).to_parquet(folder / f"{case.slug}.parquet", index=False)
    about = {
        "sample": names, "cutoffs": cutoffs, "horizon": inputs.horizon, "period": inputs.period, "year": inputs.year, "plan": list(plan), "groups": list(groups),
        "pandas_freq": "D" if case.freq == "D" else f"W-{pd.Timestamp(panel.dates[-1]).day_name()[:3].upper()}",
    }  # fmt: skip
    (folder / f"{case.slug}.json").write_text(json.dumps(about))


def of_libraries(result: Result, folder: Path) -> dict[str, dict[str, float]]:
    """Return by method the errors on the subset, the CPU milliseconds a series and cutoff, and the peak memory in GB."""
    forecasts = pd.read_parquet(folder / f"{result.case.slug}.forecasts.parquet")
    costs = json.loads((folder / f"{result.case.slug}.costs").read_text())
    number = {name: i for i, name in enumerate(result.chosen)}
    by_method: dict[str, Array] = {}
    for method, rows in forecasts.groupby("method"):
        cells = np.full((3, *result.actual.shape), np.nan)
        place = rows["cutoff"].to_numpy(), rows["step"].to_numpy(), rows["series"].map(number).to_numpy()
        for i, quantile in enumerate(("q10", "q50", "q90")):
            cells[(i, *place)] = rows[quantile].to_numpy()
        by_method[str(method)] = cells
    week, found = by_method["naive of week"], {}
    for method, cells in by_method.items():
        if method == "Prophet":  # on its own few series, beside ours there
            mine = ~np.isnan(cells).any(axis=(0, 1, 2))
            if mine.any():
                actual, scale_ = result.actual[..., mine], result.scale[:, mine]
                found[method] = errors_of(actual, with_upper_quartile(cells[..., mine]), scale_)
                found[f"d2c on Prophet's {mine.sum()}"] = errors_of(actual, result.quantiles[..., mine], scale_)
        else:
            filled = np.where(np.isnan(cells), week, cells)
            found[method] = errors_of(result.actual, with_upper_quartile(filled), result.scale)
        if method in found:
            cost = costs[method]
            found[method] |= {"ms": 1000 * cost["cpu"] / (cost["series"] * len(result.actual)), "GB": cost["gb"]}
    return found


def row(result: Result) -> dict[str, str]:
    """Return a result as a row of text."""
    ours, few = result.ours, result.subset
    return {
        "data": result.case.name,
        "series": f"{result.series:,}",
        "WAPE": f"{ours['wape']:.3f}",
        "WQL": f"{ours['WQL']:.3f}",
        **{label: f"{result.baselines[name]:.3f}" for label, name in BASELINES.items()},
        "RMSSE": f"{ours['rmsse']:.3f}",
        "bias": f"{ours['bias']:+.3f}",
        "cost 3:1": f"{ours['cost 3:1']:.3f}",
        "cost 9:1": f"{ours['cost 9:1']:.3f}",
        "in 80 %": f"{ours['coverage_80']:.3f}",
        "slow, middle, fast": " ".join(f"{share:.2f}" for share in result.classes),
        "in 95 %": f"{ours['coverage_95']:.3f}",
        "fit ms a series": f"{result.ms:.1f}",
        "backtest s": f"{result.backtest_seconds:.0f}",
        "scoring s": f"{result.scoring_seconds:.2f}",
        "smoothing ms": f"{result.smoothing_ms:.2f}",
        f"WAPE of {SUBSET}": f"{few['ours']:.3f}",
        "statsmodels": f"{few['statsmodels']:.3f}",
        "its ms a series": f"{few['ms']:.0f}",
    }


BASELINES = {"weekday mean 8w": "weekday_mean_8w", "seasonal naive": "seasonal_naive", "last year": "last_year"}


def library_rows(results: list[Result]) -> list[dict[str, str]]:
    """Return the comparison with other libraries as rows of text, a row for each panel and method."""
    rows = []
    for result in results:
        for method, errors in result.by_method.items():
            numbers = {
                name: f"{errors[name]:.3f}" for name in ("WAPE", "WQL", "RMSSE", "cost 3:1", "cost 9:1", "in 80 %")
            }
            cost = {
                "CPU ms a series and cutoff": f"{errors['ms']:.1f}" if "ms" in errors else "",
                "peak GB": f"{errors['GB']:.2f}" if "GB" in errors else "",
            }
            rows.append(
                {"data": result.case.name, "sample": f"{len(result.chosen)}", "method": method, **numbers, **cost}
            )
    return rows


def library_aims(results: list[Result]) -> list[Aim]:
    """Return the aims beside other libraries."""
    found = []
    whole = {r.case.name: {m: e for m, e in r.by_method.items() if "Prophet" not in m} for r in results}
    ratios = mean_ratios(whole, NAIVES)
    for metric in METRICS:
        order = sorted((values[metric], method) for method, values in ratios.items() if method != SMOOTHING)
        text = ", ".join(f"{method} {value:.3f}" for value, method in order[:4])
        found.append(
            Aim(f"lowest mean ratio to the better naive over all real panels in {metric}", text, order[0][1] == OURS)
        )
    for r in results:
        ours = r.by_method[OURS]
        beside = {
            m: min((errors[m], name) for name, errors in r.by_method.items() if name in LIBRARIES) for m in METRICS
        }
        shares = {m: ours[m] / beside[m][0] for m in METRICS}
        text = ", ".join(f"{m} {shares[m]:.3f} times {beside[m][1]}" for m in METRICS)
        found.append(Aim(f"at most 1.02 times the best library on {r.case.name}", text, max(shares.values()) <= 1.02))
        naive = {m: ours[m] / best(r.by_method, NAIVES, m) for m in METRICS}
        text = ", ".join(f"{m} {naive[m]:.3f} times" for m in METRICS)
        found.append(Aim(f"never worse than the better naive on {r.case.name}", text, max(naive.values()) <= 1.0))
    for r in results:
        if "AutoETS" not in r.by_method:
            continue
        theirs, times = r.by_method["AutoETS"], r.by_method["AutoETS"]["ms"] / r.smoothing_ms
        share = r.by_method[SMOOTHING]["WAPE"] / theirs["WAPE"]
        what = f"the smoothing rung takes {CHEAPER[r.case.freq]} times less CPU than AutoETS at WAPE within 1 % on {r.case.name}"
        found.append(
            Aim(
                what,
                f"{times:,.0f} times less at {share:.3f} times its WAPE",
                times >= CHEAPER[r.case.freq] and share <= 1.01,
            )
        )
        what = f"the full ladder takes less CPU than AutoETS on {r.case.name}"
        found.append(Aim(what, f"{r.ms:.1f} ms vs {theirs['ms']:.1f} ms a series", r.ms < theirs["ms"]))
    return found


def aims(results: list[Result]) -> list[Aim]:
    """Return what was aimed at beside what was measured."""
    found = []
    for r in results:
        ours, others = r.ours["wape"], [r.baselines[name] for name in BASELINES.values()]
        measured = f"{ours:.3f} vs {', '.join(f'{other:.3f}' for other in others)}"
        found.append(Aim(f"WAPE below every baseline on {r.case.name}", measured, ours < min(others)))
    first = results[0]
    for level in (80, 95):
        share = first.ours[f"coverage_{level}"]
        met = abs(share - level / 100) <= 0.03
        found.append(Aim(f"{level} % intervals hold within 3 points on {first.case.name}", f"{share:.3f}", met))
    for r in results:
        shares = [r.ours["coverage_80"], *r.classes]
        met = all(0.74 <= share <= 0.86 for share in shares)
        text = f"{shares[0]:.3f}; {', '.join(f'{share:.2f}' for share in shares[1:])}"
        found.append(
            Aim(f"80 % intervals hold 74 to 86 % of all, slow, middle and fast sellers on {r.case.name}", text, met)
        )
    pooled = float(np.mean([r.ours["coverage_80"] for r in results]))
    found.append(Aim("80 % intervals hold 78 to 82 %, mean of all", f"{pooled:.3f}", 0.78 <= pooled <= 0.82))
    slowest = max(results, key=lambda r: r.smoothing_ms)
    text = f"{slowest.smoothing_ms:.2f} ms ({slowest.case.name})"
    found.append(
        Aim(f"the smoothing rung takes at most {MOST_MS:g} ms CPU a series", text, slowest.smoothing_ms <= MOST_MS)
    )
    worse = max(results, key=lambda r: r.subset["ours"] / r.subset["statsmodels"])
    text = f"at worst {worse.subset['ours']:.3f} vs {worse.subset['statsmodels']:.3f} ({worse.case.name})"
    met = worse.subset["ours"] <= 1.01 * worse.subset["statsmodels"]
    found.append(Aim(f"WAPE at most 1 % above statsmodels' ETS on {SUBSET} series of each", text, met))
    return found


def main() -> int:
    """Measure, print the tables and the aims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--peers", default="", help="Python of the environment with the other libraries")
    parser.add_argument("--only", default="", help="cases whose name holds this text; then no simulated shops")
    options = parser.parse_args()
    there = shops()
    cases = [case for case in CASES if case.dataset in there and options.only in case.name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) if options.peers else None
        results = [measure(case, *there[case.dataset], folder) for case in cases]
        print(
            f"the last {UNTOUCHED} horizons of bakery, gadgets and avocado are left out; sample of each panel: {SUBSET} series"
        )
        print(table([row(result) for result in results], options.markdown))
        reached = aims(results)
        if folder is not None:
            peers = Path(__file__).with_name("forecast_peers.py")
            environ = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
            subprocess.run([options.peers, "-W", "ignore", str(peers), place], check=True, env=environ)
            for result in results:
                result.by_method.update(of_libraries(result, folder))
            print("\nBeside other libraries, on the sample; cost of a unit sold, short:left 3:1 and 9:1\n")
            print(table(library_rows(results), options.markdown))
            reached += library_aims(results)
    if not options.only:
        print("\nSimulated shops\n")
        reached += scale(usual_sizes(), options.markdown)
    return close(reached)


if __name__ == "__main__":
    sys.exit(main())
