"""One HTML page of what the demo did: steps, the verdict beside the baselines, forecasts, a question and its answer."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

from d2c_mlops.models.forecasting.forecasting import DemandForecaster

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 6  # series that are drawn
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse }
td, th { text-align: left; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid #ddd }
pre { background: #f5f5f5; padding: 1rem; overflow: auto } img { max-width: 100% } .small { color: #666 }
"""


def write(
    path: Path,
    steps: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    model: DemandForecaster,
    records: pd.DataFrame,  # all that one could ask the model
) -> Path:
    """Write the page; it appears whole or not at all."""
    version = facts["version"]
    evaluation = version["evaluation"]
    score, metric = evaluation["value"], evaluation["metric"]
    rows = "".join(f"<tr><td>{s['step']}<td>{escape(s['result'])}<td>{s['seconds']:.1f} s" for s in steps)
    gains = [f"{1 - score / value:.1%} below the {name}" for name, value in evaluation["baselines"].items()]
    body = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>d2c demo</title><style>{STYLE}</style>
<h1>From order lines to a live forecast</h1>
<p>Version {version["version"]} of <b>{version["model"]}</b>, fitted as of {version["as_of"]}, is live. Out of time
its {metric.upper()} is {score:.3f}: {" and ".join(gains)}, which is what a planner does by hand.</p>
<table><tr><th>step<th>what came of it<th>took</tr>{rows}</table>
<h2>Is it better than what people do today?</h2>
<p>The model goes back to {len(evaluation["details"].get("cutoffs", [])) or "several"} past days and forecasts
what is known by now; the baselines do the same.</p>
{_image(_scores({"forecaster": score, **evaluation["baselines"]}, metric))}
<h2>What will be sold?</h2>
<p>The {SHOWN} largest series: the last weeks, the forecast, and the range it will be in 50, 80 and 95 times of 100.</p>
{_image(_forecasts(model, records))}
<h2>Asked over HTTP</h2>
<pre>POST /predict
{escape(json.dumps({"records": [facts["asked"]]}, indent=1))}</pre>
<pre>{escape(json.dumps(facts["answered"], indent=1))}</pre>
<p class="small">Everything lies in {escape(facts["store"])}: the training run in {escape(facts["run"]["html"])},
the Bento in {escape(facts["bento"])}.</p></html>"""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(body, encoding="utf-8")
    draft.replace(path)
    return path


def _scores(scores: Mapping[str, float], metric: str) -> Figure:
    figure, ax = plt.subplots(figsize=(8, 0.7 + 0.5 * len(scores)))
    bars = ax.barh(list(scores), list(scores.values()), color=["tab:blue"] + ["lightgray"] * (len(scores) - 1))
    ax.bar_label(bars, fmt="%.3f", padding=4)
    ax.invert_yaxis()
    ax.set_xlabel(f"{metric.upper()}, lower is better")
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _forecasts(model: DemandForecaster, records: pd.DataFrame) -> Figure:
    figure, axes = plt.subplots(SHOWN // 2, 2, figsize=(12, 2.6 * SHOWN // 2), constrained_layout=True)
    for series, ax in zip(largest(model, records, SHOWN), axes.flat, strict=False):
        model.plot(series, ax=ax)
        handles, labels = ax.get_legend_handles_labels()
        if legend := ax.get_legend():
            legend.remove()
        locator = AutoDateLocator(maxticks=5)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def largest(model: DemandForecaster, records: pd.DataFrame, count: int) -> list[str]:
    """Return the series with the largest forecasts."""
    units = model.predict(records).groupby("series")["forecast"].sum()
    return [str(name) for name in units.sort_values(ascending=False).head(count).index]


def _image(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
    plt.close(figure)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
