"""The demand forecast beside planners' methods and other libraries, out of time on real shops, and its cost on simulated ones.

    python bench/forecast.py [--markdown] [--peers PYTHON] [--only TEXT] [--results FOLDER] [--last]

Data: the embedded sample (The Complete Journey, a grocer), also with its displays and mailers, and, where they are found, shops in ../shared/data or
$D2C_SHARED_DATA: online_retail.parquet (a gift web shop), and five whose future is partly known: bakery.parquet (daily; promotions, holidays, school holidays),
gadget_raw.csv (weekly; main-page feature, price), avocado.csv (weekly, three years), stallion.parquet (monthly; price, discount, holidays, events),
freshretail_daily_1120.parquet (daily; stock-outs, discounts, 90 days). Four cutoffs, horizon 28 days (freshretail: 7), 8 weeks or 6 months. The last two
horizons of the five are left out: they were never looked at while the methods were chosen. --last measures these two and nothing else of the five.

Other libraries run in the environment of --peers (`make bench-forecast` makes it). The panels are given to them as Parquet in a temporary folder, with the
same plan, and without stock with the same estimate of what would have sold. They are compared on a sample of each panel, evenly from slow to fast sellers,
the same each time; libraries that learn from all series get at most 200 series. FULL=1: larger samples, all series, and simulated shops of 5,000 and 20,000
products beside 100 and 1,000 (bench/forecast_scale.py). Each panel is measured in a process of its own; --results keeps what was measured of a panel in a folder,
and does not measure again what is there, so that a run may be made in pieces; forecasts of other libraries are kept there for the same panel, so that a
panel whose file was deleted is measured anew without them. Times are CPU time of one process. STRICT=1 makes a missed aim an exit
code of 1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import date
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from aims import close, table
from forecast_aims import BASELINES, OURS, SMOOTHING, Result, all_aims
from forecast_metrics import (
    Array,
    coverage_by_class,
    coverage_of,
    errors_of,
    quantiles_of,
    season_cells,
    with_upper_quartile,
    zero_shares,
)
from forecast_panels import CASES, UNTOUCHED, Case, shop_of
from forecast_scale import scale, usual_sizes
from forecast_stock import stock_aims
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

from d2c_mlops.data.tables import Tables
from d2c_mlops.models.forecasting.backtest import Backtest, align, backtest, backtests, cutoff_steps, summary, wape
from d2c_mlops.models.forecasting.forecast_inputs import ForecastInputs
from d2c_mlops.models.forecasting.forecasting import METHODS, DemandForecaster, inputs_for
from d2c_mlops.models.forecasting.forecasts import learn
from d2c_mlops.models.forecasting.hierarchy.levels import no_levels
from d2c_mlops.models.forecasting.hierarchy.panel_forecast import forecast_panel
from d2c_mlops.models.forecasting.ladder import volume_class
from d2c_mlops.models.forecasting.panel import Panel
from d2c_mlops.models.forecasting.plans.model_inputs import unusable_names
from d2c_mlops.models.forecasting.plans.stock_outs import StockOuts, stock_outs, without_stock_outs
from d2c_mlops.models.forecasting.seasonal import smoothed_level

FULL = os.environ.get("FULL") == "1"
SUBSET = 200 if FULL else 40  # series that libraries of single series are tried on, evenly from slow to fast sellers
MOST_SERIES = 100_000 if FULL else 200  # that libraries learn from which learn from all series
HISTORY = {"M": 3650}  # days, of monthly panels


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


def replayed(
    model: DemandForecaster, tables: Tables, panel: Panel, out: StockOuts | None, telling: set[str]
) -> dict[str, Backtest]:
    """Return the backtests of the ladder, of its smoothing rung and of the baselines, from the same days, scored on steps with stock."""
    past: dict[date, Panel] = {}

    def known(day: date) -> Panel:
        if day not in past:
            past[day] = model.panel(tables, day, panel.series)
        return past[day]

    def inputs(panel: Panel, horizon: int) -> ForecastInputs:
        at = inputs_for(model, tables, panel, telling)
        return at.as_of_origin(at.origin, horizon)

    def of_selling(panel: Panel, horizon: int) -> Array:
        count = len(panel.series)
        return forecast_panel(panel, inputs(panel, horizon), no_levels(count)).of_all(count)

    methods = {
        "forecast": of_selling,
        "smoothing": lambda panel, horizon: smoothed_level(inputs(panel, horizon)),
        **METHODS,
    }
    scored = without_stock_outs(panel, out)
    return backtests(scored, methods, model.horizon, model.cutoffs, model.min_history, known)


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


def measure(case: Case, tables: Tables, as_of: date, peers: str, cutoffs: int, folder: Path) -> Result:
    """Run one case, and the other libraries of the Python `peers` on its panel; their forecasts are kept in `folder`."""
    model = DemandForecaster(
        freq=case.freq,
        by=case.by,
        top=case.top,
        horizon=case.horizon,
        cutoffs=cutoffs,
        history=HISTORY.get(case.freq, 1200),
    )
    panel = model.panel(tables, as_of)
    telling = unusable_names(model, tables, panel)
    marks = [time.process_time()]
    inputs = inputs_for(model, tables, panel, telling)
    model.learned = learn(panel, model.horizon, model.min_history, inputs)
    marks.append(time.process_time())
    smoothed_level(inputs)
    marks.append(time.process_time())
    model.zone = tables.zone
    model.predict(model.records(tables, as_of))
    marks.append(time.process_time())
    out = stock_outs(tables, panel, model.by)
    results = replayed(model, tables, panel, out, telling)
    marks.append(time.process_time())
    fit, smoothing, scoring, backtested = np.diff(marks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    steps = cutoff_steps(panel, model.horizon, model.cutoffs, model.min_history)
    chosen = evenly(panel, results["forecast"])
    few = {name: of_series(result, chosen) for name, result in results.items()}
    names = tuple(panel.series[i] for i in chosen)
    errors = {
        label: errors_of(few[name].actual, quantiles_of(few[name]), few[name].scale)
        for label, name in ((OURS, "forecast"), (SMOOTHING, "smoothing"))
    }
    if peers:
        units = panel.units if out is None else np.where(out.censored, inputs.units, panel.units)
        with tempfile.TemporaryDirectory() as place:
            write_panel(Path(place), case, panel, units, inputs, names, steps)
            answers = answers_of_peers(case, Path(place), peers, folder / "peers")
        errors |= of_libraries(case, names, few, answers)
    level = np.nan_to_num(np.nanmean(np.where(np.isnan(panel.units), np.nan, panel.units), axis=0))
    seasons = season_cells(inputs, steps, model.horizon)
    return Result(
        name=case.name,
        freq=case.freq,
        series=len(panel.series),
        sample=len(names),
        left_out=sorted(telling),
        ours=summary(results["forecast"]) | errors_of_all(results["forecast"]),
        classes=coverage_by_class(results["forecast"], volume_class(level)),
        seasons={name: coverage_of(results["forecast"], cells) for name, cells in seasons.items()},
        scored=int((~np.isnan(results["forecast"].actual)).sum()),
        baselines={name: float(wape(results[name])) for name in METHODS},
        ms=fit * 1000 / len(panel.series),
        backtest_seconds=backtested,
        scoring_seconds=scoring,
        smoothing_ms=smoothing * 1000 / len(panel.series),
        gb=peak,
        subset={"ours": errors[OURS]["WAPE"], **statsmodels_loop(panel, names, model)},
        by_method=errors,
        zeros=zero_shares(results["forecast"].actual, volume_class(level)),
    )


def answers_of_peers(case: Case, panel: Path, peers: str, kept: Path) -> Path:
    """Return the folder with the forecasts of other libraries for a panel in a folder; they are made once for the same panel."""
    files = [panel / f"{case.slug}.{kind}" for kind in ("parquet", "json")]
    digest = sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    answers = kept / f"{case.slug}-{digest}"
    if not answers.exists():
        script = Path(__file__).with_name("forecast_peers.py")
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        subprocess.run([peers, "-W", "ignore", str(script), str(panel)], check=True, env=environ)
        draft = kept / f"{answers.name}.draft"
        draft.mkdir(parents=True, exist_ok=True)
        for kind in ("forecasts.parquet", "costs"):
            shutil.copy(panel / f"{case.slug}.{kind}", draft)
        draft.rename(answers)
    return answers


def errors_of_all(result: Backtest) -> dict[str, float]:
    """Return the errors of quantiles and the cost of orders over a whole panel."""
    errors = errors_of(result.actual, quantiles_of(result), result.scale)
    return {name: errors[name] for name in ("WQL", "cost 3:1", "cost 9:1")}


def write_panel(
    folder: Path,
    case: Case,
    panel: Panel,
    units: Array,  # [time, series]; of steps without stock what would have sold
    inputs: ForecastInputs,
    names: tuple[str, ...],
    cutoffs: list[int],
) -> None:
    """Write a panel with its plan for the other libraries: the sample, and the fastest sellers up to MOST_SERIES."""
    by_sales = np.argsort(-np.nansum(panel.sold, axis=0), kind="stable")
    sample = np.flatnonzero(np.isin(panel.series, names))
    chosen = np.sort(
        np.concatenate([sample, by_sales[~np.isin(by_sales, sample)][: max(MOST_SERIES - len(sample), 0)]])
    )
    steps, count = len(panel.dates), len(chosen)
    columns = {"series": np.tile(np.array(panel.series)[chosen], steps), "step": np.repeat(np.arange(steps), count)}
    columns |= {"date": np.repeat(panel.dates, count), "units": units[:, chosen].ravel()}
    plans = [*inputs.flags.values(), *inputs.prices.values()]
    plans += [inputs.open_share] if (inputs.open_share != 1).any() else []
    plan = {f"plan{i}": np.asarray(values)[:steps, chosen].ravel() for i, values in enumerate(plans)}
    groups = {f"group{i}": np.tile(codes[chosen], steps) for i, codes in enumerate(inputs.groups)}
    pd.DataFrame(columns | plan | groups).to_parquet(folder / f"{case.slug}.parquet", index=False)
    about = {
        "sample": names, "cutoffs": cutoffs, "horizon": inputs.horizon, "period": inputs.period, "year": inputs.year, "plan": list(plan), "groups": list(groups),
        "pandas_freq": {"D": "D", "M": "ME"}.get(case.freq) or f"W-{pd.Timestamp(panel.dates[-1]).day_name()[:3].upper()}",
    }  # fmt: skip
    (folder / f"{case.slug}.json").write_text(json.dumps(about))


def of_libraries(
    case: Case, names: tuple[str, ...], few: dict[str, Backtest], folder: Path
) -> dict[str, dict[str, float]]:
    """Return by method the errors on the subset, the CPU milliseconds a series and cutoff, and the peak memory in GB.

    A series that is too short for a method has the naive forecast of the last week.
    """
    forecasts = pd.read_parquet(folder / f"{case.slug}.forecasts.parquet")
    costs = json.loads((folder / f"{case.slug}.costs").read_text())
    ours = few["forecast"]
    number = {name: i for i, name in enumerate(names)}
    by_method: dict[str, Array] = {}
    for method, rows in forecasts.groupby("method"):
        cells = np.full((3, *ours.actual.shape), np.nan)
        place = rows["cutoff"].to_numpy(), rows["step"].to_numpy(), rows["series"].map(number).to_numpy()
        for i, quantile in enumerate(("q10", "q50", "q90")):
            cells[(i, *place)] = rows[quantile].to_numpy()
        by_method[str(method)] = cells
    last, quantiles = few["seasonal_naive"].forecast, quantiles_of(ours)
    week = np.where(np.isnan(by_method["naive of week"]), last, by_method["naive of week"])
    errors: dict[str, dict[str, float]] = {}
    for method, cells in by_method.items():
        if method == "Prophet":  # on its own few series, beside ours there
            mine = ~np.isnan(cells).any(axis=(0, 1, 2))
            if mine.any():
                actual, changes = ours.actual[..., mine], ours.scale[:, mine]
                errors[method] = errors_of(actual, with_upper_quartile(cells[..., mine]), changes)
                errors[f"d2c on Prophet's {mine.sum()}"] = errors_of(actual, quantiles[..., mine], changes)
        else:
            filled = np.where(np.isnan(cells), week, cells)
            errors[method] = errors_of(ours.actual, with_upper_quartile(filled), ours.scale)
        if method in errors:
            cost = costs[method]
            errors[method] |= {"ms": 1000 * cost["cpu"] / (cost["series"] * len(ours.actual)), "GB": cost["gb"]}
    return errors


def row(result: Result) -> dict[str, str]:
    """Return a result as a row of text."""
    ours, few = result.ours, result.subset
    return {
        "data": result.name,
        "series": f"{result.series:,}",
        "WAPE": f"{ours['wape']:.3f}",
        "WQL": f"{ours['WQL']:.3f}",
        **{label: f"{result.baselines[name]:.3f}" for label, name in BASELINES.items()},
        "RMSSE": f"{ours['rmsse']:.3f}",
        "bias": f"{ours['bias']:+.3f}",
        "cost 3:1": f"{ours['cost 3:1']:.3f}",
        "cost 9:1": f"{ours['cost 9:1']:.3f}",
        "in 80 %": f"{ours['coverage_80']:.3f}",
        **{name: f"{share:.3f}" for name, share in zip(VOLUMES, result.classes, strict=False)},
        **{name: "" if share is None else f"{share:.3f}" for name, share in result.seasons.items()},
        "in 95 %": f"{ours['coverage_95']:.3f}",
        "fit ms a series": f"{result.ms:.1f}",
        "backtest s": f"{result.backtest_seconds:.0f}",
        "scoring s": f"{result.scoring_seconds:.2f}",
        "smoothing ms": f"{result.smoothing_ms:.2f}",
        "peak GB": f"{result.gb:.2f}",
        f"WAPE of {SUBSET}": f"{few['ours']:.3f}",
        "statsmodels": f"{few['statsmodels']:.3f}",
        "its ms a series": f"{few['ms']:.0f}",
    }


VOLUMES = ("slow", "middle", "fast")


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
            rows.append({"data": result.name, "sample": f"{result.sample}", "method": method, **numbers, **cost})
    return rows


def measured(case: Case, options: argparse.Namespace, folder: Path) -> Result | None:
    """Return what was measured of a case, now in a process of its own or before; None where its data is not there."""
    path = folder / f"{case.slug}{'-last' * options.last}.json"
    if not path.exists():
        command = [sys.executable, "-W", "ignore", __file__, "--case", case.slug, "--results", str(folder)]
        command += ["--peers", options.peers] * bool(options.peers) + ["--last"] * options.last
        subprocess.run(command, check=True)
    return Result(**json.loads(path.read_text())) if path.exists() else None


def measure_case(slug: str, options: argparse.Namespace) -> int:
    """Measure a case and write it as JSON into the folder of results."""
    case = next(case for case in CASES if case.slug == slug)
    if shop := shop_of(case.dataset, 0 if options.last else UNTOUCHED):
        result = measure(case, *shop, options.peers, UNTOUCHED if options.last else 4, Path(options.results))
        text = json.dumps(vars(result), default=float).replace("NaN", "null")
        (Path(options.results) / f"{slug}{'-last' * options.last}.json").write_text(text)
    return 0


def main() -> int:
    """Measure, print the tables and the aims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--peers", default="", help="Python of the environment with the other libraries")
    parser.add_argument("--only", default="", help="cases whose name holds this text; then no simulated shops")
    parser.add_argument("--results", default="", help="folder that keeps what was measured of each panel")
    parser.add_argument(
        "--last", action="store_true", help="the last two horizons of the sets that are left out otherwise"
    )
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        return measure_case(options.case, options)
    cases = [case for case in CASES if options.only in case.name and (not options.last or case.is_untouched)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(options.results or place)
        folder.mkdir(parents=True, exist_ok=True)
        results = [result for case in cases if (result := measured(case, options, folder))]
    if not results:
        return close([])
    which = "are all that is measured" if options.last else "are left out"
    print(f"the last {UNTOUCHED} horizons of {', '.join(case.dataset for case in CASES if case.is_untouched)} {which}")
    print(f"sample of each panel: {SUBSET} series")
    print(table([row(result) for result in results], options.markdown))
    for result in results:
        if result.left_out:
            print(f"{result.name}: left out, because they tell the answer: {', '.join(result.left_out)}")
    if options.peers:
        print("\nBeside other libraries, on the sample; cost of a unit sold, short:left 3:1 and 9:1\n")
        print(table(library_rows(results), options.markdown))
    aims = all_aims(results)
    if not options.only and not options.last:
        print("\nUnits that would have sold without stock-outs\n")
        aims += stock_aims(options.markdown)
        print("\nSimulated shops\n")
        aims += scale(usual_sizes(), options.markdown)
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
