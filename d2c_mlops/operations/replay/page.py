"""The page of a replay: what is recommended, what each policy costs, and a plot of the cost over time. One file without external resources."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment

from d2c_mlops.operations.replay.report import ReplayReport
from d2c_mlops.quality.page import page_style

WIDTH, HEIGHT = 640, 280  # of the plot, in pixels
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")  # Okabe and Ito
DASHES = ("", "7 3", "2 3")


def page(report: ReplayReport) -> str:
    """Return the page as HTML."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("d2c_mlops.operations.replay").joinpath("page.html").read_text(encoding="utf-8")
    )
    return template.render(
        style=page_style(),
        report=report,
        choice=report.choice,
        regret=f"{report.choice.regret:.1%}",
        rows=[_texts(row) for row in report.rows()],
        plot=_plot(report),
    )


def _texts(row: dict[str, Any]) -> dict[str, str]:
    shares = {name: "" if row[name] is None else f"{row[name]:.1%}" for name in ("wape", "answered", "revision")}
    money = {name: f"{row[name]:,.0f}" for name in ("cost_first_half", "cost_second_half")}
    counts = {name: f"{row[name]:.3g}" for name in ("trainings", "refused", "failed")}
    texts = {"policy": row["policy"], "mark": "chosen" if row["chosen"] else "", "note": row["without_reasons"]}
    return {**texts, **counts, **shares, **money}


def _plot(report: ReplayReport) -> dict[str, Any]:
    """Return the lines of the cost above that of the chosen policy, summed from the first look on."""
    costs = report.costs()
    extra = costs.sub(costs[report.choice.chosen], axis=0).cumsum()
    low, high = min(0.0, float(extra.min().min())), max(0.0, float(extra.max().max()))
    size = (high - low) or 1.0

    def point(week: int, value: float) -> str:
        return f"{week / max(len(extra) - 1, 1) * WIDTH:.1f},{(high - value) / size * (HEIGHT - 8) + 4:.1f}"

    lines = [
        {
            "policy": name,
            "points": " ".join(point(week, float(value)) for week, value in enumerate(extra[name])),
            "colour": COLOURS[number % len(COLOURS)],
            "dash": DASHES[number // len(COLOURS) % len(DASHES)],
        }
        for number, name in enumerate(extra.columns)
    ]
    half = f"{int((costs.index < report.choice.split).sum()) / max(len(extra) - 1, 1) * WIDTH:.1f}"
    zero = f"{high / size * (HEIGHT - 8) + 4:.1f}"
    return {
        "lines": lines,
        "width": WIDTH,
        "height": HEIGHT,
        "half": half,
        "zero": zero,
        "low": f"{low:,.0f}",
        "high": f"{high:,.0f}",
    }
