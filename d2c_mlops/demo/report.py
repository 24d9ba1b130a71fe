"""HTML report of the demo: steps, comparison with the baselines, forecasts, a request and its response."""

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

SHOWN = 6  # number of series in the charts
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse }
td, th { text-align: left; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid #ddd }
pre { background: #f5f5f5; padding: 1rem; overflow: auto } img { max-width: 100% } .small { color: #666 }
"""


def write_report(
    path: Path,
    steps: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    model: DemandForecaster,
    records: pd.DataFrame,  # all records that the model can predict
) -> Path:
    """Write the report atomically."""
    version = facts["version"]
    evaluation = version["evaluation"]
    score, metric = evaluation["value"], evaluation["metric"]
    rows = "".join(f"<tr><td>{s['step']}<td>{escape(s['result'])}<td>{s['seconds']:.1f} s" for s in steps)
    gains = [f"{1 - score / value:.1%} below the {name}" for name, value in evaluation["baselines"].items()]
    body = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>d2c demo</title><style>{STYLE}</style>
<h1>From order lines to a live forecast</h1>
<p>Version {version["version"]} of <b>{version["model"]}</b>, fitted as of {version["as_of"]}, is the champion. Out of time
its {metric.upper()} is {score:.3f}: {" and ".join(gains)}(rules that a planner would use).</p>
<table><tr><th>step<th>result<th>time</tr>{rows}</table>
<h2>Is it better than the baselines?</h2>
<p>The model and the baselines forecast from {len(evaluation["details"].get("cutoffs", [])) or "several"} past days,
for which the actual sales are known.</p>
{_image_tag(_score_chart({"forecaster": score, **evaluation["baselines"]}, metric))}
<h2>What will be sold?</h2>
<p>The {SHOWN} largest series: the last weeks, the forecast, and its 50 %, 80 % and 95 % intervals.</p>
{_image_tag(_forecast_charts(model, records))}
<h2>Prediction over HTTP</h2>
<pre>POST /predict
{escape(json.dumps({"records": [facts["asked"]]}, indent=1))}</pre>
<pre>{escape(json.dumps(facts["answered"], indent=1))}</pre>
<p class="small">All files are in {escape(facts["store"])}: the training run in {escape(facts["run"]["html"])},
the Bento in {escape(facts["bento"])}.</p></html>"""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(body, encoding="utf-8")
    draft.replace(path)
    return path


def _score_chart(scores: Mapping[str, float], metric: str) -> Figure:
    figure, ax = plt.subplots(figsize=(8, 0.7 + 0.5 * len(scores)))
    bars = ax.barh(list(scores), list(scores.values()), color=["tab:blue"] + ["lightgray"] * (len(scores) - 1))
    ax.bar_label(bars, fmt="%.3f", padding=4)
    ax.invert_yaxis()
    ax.set_xlabel(f"{metric.upper()}, lower is better")
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _forecast_charts(model: DemandForecaster, records: pd.DataFrame) -> Figure:
    figure, axes = plt.subplots(SHOWN // 2, 2, figsize=(12, 2.6 * SHOWN // 2), constrained_layout=True)
    for series, ax in zip(largest_series(model, records, SHOWN), axes.flat, strict=False):
        model.plot(series, ax=ax)
        handles, labels = ax.get_legend_handles_labels()
        if legend := ax.get_legend():
            legend.remove()
        locator = AutoDateLocator(maxticks=5)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def largest_series(model: DemandForecaster, records: pd.DataFrame, count: int) -> list[str]:
    """Return the series with the largest forecasts."""
    units = model.predict(records).groupby("series")["forecast"].sum()
    return [str(name) for name in units.sort_values(ascending=False).head(count).index]


def _image_tag(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
    plt.close(figure)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
