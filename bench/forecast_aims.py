"""What bench/forecast.py aims at on each panel and over all of them, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from aims import Aim
from forecast_metrics import METRICS, best, mean_ratios

OURS, SMOOTHING = "d2c", "d2c smoothing"
NAIVES = ("naive of week", "naive of year")
LIBRARIES = ("AutoETS", "AutoTheta", "CrostonSBA", "mlforecast", "LightGBM")
BASELINES = {"weekday mean 8w": "weekday_mean_8w", "seasonal naive": "seasonal_naive", "last year": "last_year"}
CHEAPER = {"D": 100, "W": 30, "M": 30}  # times less CPU than AutoETS that the smoothing rung takes
MOST_MS = 1.0  # CPU a series of the smoothing rung
POOLED, OF_CLASS, LEAST_OF_SEASON = (0.78, 0.82), (0.74, 0.86), 0.72  # shares inside of the 80 % interval


@dataclass(frozen=True)
class Result:
    """What was measured on one panel."""

    name: str
    freq: str
    series: int
    sample: int  # series that libraries of single series are tried on
    left_out: list[str]  # names of the plan that tell the answer
    ours: dict[str, float]
    classes: list[float]  # share inside of 80 % of slow, middle and fast sellers
    seasons: dict[
        str, float | None
    ]  # share inside of 80 % at Christmas, in big promotions and in other weeks; None = not measured
    scored: int  # forecasts
    baselines: dict[str, float]  # WAPE by name
    ms: float  # of a fit, a series
    backtest_seconds: float
    scoring_seconds: float
    smoothing_ms: float
    gb: float  # peak memory
    subset: dict[str, float]  # WAPE of ours and of statsmodels on the sample, and the latter's ms a series
    by_method: dict[str, dict[str, float]]  # errors on the sample
    zeros: list[
        float
    ]  # share of steps without a sale, of slow, middle and fast sellers: an interval that holds zero holds as many


def all_aims(results: list[Result]) -> list[Aim]:
    """Return what was aimed at beside what was measured; beside other libraries where they were measured."""
    beside = [result for result in results if "naive of week" in result.by_method]
    aims = [*baseline_aims(results), *coverage_aims(results), *smoothing_aims(results)]
    return aims + (library_aims(beside) + cost_aims(beside) if beside else [])


def baseline_aims(results: list[Result]) -> list[Aim]:
    """Return the aims beside planners' methods on whole panels."""
    aims = []
    for r in results:
        ours, others = r.ours["wape"], [r.baselines[name] for name in BASELINES.values()]
        measured = f"{ours:.3f} vs {', '.join(f'{other:.3f}' for other in others)}"
        aims.append(Aim(f"WAPE below every baseline on {r.name}", measured, ours < min(others)))
    return aims


def coverage_aims(results: list[Result]) -> list[Aim]:
    """Return the aims for the share of sales inside of the 80 % interval: of all, of each panel and volume class, of seasons."""
    cells = np.array([r.scored for r in results], float)
    shares = np.array([r.ours["coverage_80"] for r in results])
    aims = [
        Aim(f"80 % intervals hold 78 to 82 %, {what}", f"{share:.3f}", POOLED[0] <= share <= POOLED[1])
        for what, share in (
            ("mean of panels", float(shares.mean())),
            ("forecasts of all panels pooled", float((shares * cells).sum() / cells.sum())),
        )
    ]
    for r in results:
        held = [r.ours["coverage_80"], *r.classes]
        text = f"{held[0]:.3f}; {', '.join(f'{share:.3f}' for share in held[1:])}"
        if max(r.zeros) > OF_CLASS[1]:
            text += f"; without a sale {', '.join(f'{share:.3f}' for share in r.zeros)}"
        what = f"80 % intervals hold 74 to 86 % of all, slow, middle and fast sellers on {r.name}"
        aims.append(Aim(what, text, all(OF_CLASS[0] <= round(share, 3) <= OF_CLASS[1] for share in held)))
        seasons = {name: share for name, share in r.seasons.items() if name != "rest" and share is not None}
        if seasons:
            text = ", ".join(f"{name} {share:.3f}" for name, share in seasons.items())
            what = f"80 % intervals hold at least 72 % at Christmas and in big promotions on {r.name}"
            aims.append(Aim(what, text, min(seasons.values()) >= LEAST_OF_SEASON))
    return aims


def smoothing_aims(results: list[Result]) -> list[Aim]:
    """Return the aims for the cost of the smoothing rung, and for the error beside statsmodels' ETS."""
    slowest = max(results, key=lambda r: r.smoothing_ms)
    text = f"{slowest.smoothing_ms:.2f} ms ({slowest.name})"
    worse = max(results, key=lambda r: r.subset["ours"] / r.subset["statsmodels"])
    compared = f"at worst {worse.subset['ours']:.3f} vs {worse.subset['statsmodels']:.3f} ({worse.name})"
    met = worse.subset["ours"] <= 1.01 * worse.subset["statsmodels"]
    return [
        Aim(f"the smoothing rung takes at most {MOST_MS:g} ms CPU a series", text, slowest.smoothing_ms <= MOST_MS),
        Aim("WAPE at most 1 % above statsmodels' ETS on the sample of each panel", compared, met),
    ]


def library_aims(results: list[Result]) -> list[Aim]:
    """Return the aims for errors beside other libraries, on the samples."""
    aims = []
    whole = {r.name: {m: e for m, e in r.by_method.items() if "Prophet" not in m} for r in results}
    ratios = mean_ratios(whole, NAIVES)
    for metric in METRICS:
        order = sorted((values[metric], method) for method, values in ratios.items() if method != SMOOTHING)
        text = ", ".join(f"{method} {value:.3f}" for value, method in order[:4])
        what = f"lowest mean ratio to the better naive over {len(results)} real panels in {metric}"
        aims.append(Aim(what, text, order[0][1] == OURS))
    for r in results:
        ours = r.by_method[OURS]
        beside = {
            m: min((errors[m], name) for name, errors in r.by_method.items() if name in LIBRARIES) for m in METRICS
        }
        shares = {m: ours[m] / beside[m][0] for m in METRICS}
        text = ", ".join(f"{m} {shares[m]:.3f} times {beside[m][1]}" for m in METRICS)
        aims.append(Aim(f"at most 1.02 times the best library on {r.name}", text, max(shares.values()) <= 1.02))
        naive = {m: ours[m] / best(r.by_method, NAIVES, m) for m in METRICS}
        text = ", ".join(f"{m} {naive[m]:.3f} times" for m in METRICS)
        aims.append(Aim(f"never worse than the better naive on {r.name}", text, max(naive.values()) <= 1.0))
    return aims


def cost_aims(results: list[Result]) -> list[Aim]:
    """Return the aims for CPU time beside AutoETS."""
    aims = []
    for r in results:
        if "AutoETS" not in r.by_method:
            continue
        theirs, times = r.by_method["AutoETS"], r.by_method["AutoETS"]["ms"] / max(r.smoothing_ms, 1e-3)
        share = r.by_method[SMOOTHING]["WAPE"] / theirs["WAPE"]
        what = f"the smoothing rung takes {CHEAPER[r.freq]} times less CPU than AutoETS at WAPE within 1 % on {r.name}"
        text = f"{times:,.0f} times less at {share:.3f} times its WAPE"
        aims.append(Aim(what, text, times >= CHEAPER[r.freq] and share <= 1.01))
        what = f"the full ladder takes less CPU than AutoETS on {r.name}"
        aims.append(Aim(what, f"{r.ms:.1f} ms vs {theirs['ms']:.1f} ms a series", r.ms < theirs["ms"]))
    return aims
