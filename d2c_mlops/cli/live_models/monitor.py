"""Commands that look at models in operation: monitor, replay."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, here, json_option, main, section, settings, show, table

if TYPE_CHECKING:
    from datetime import date

    from d2c_mlops.monitoring.policy_choice import PolicyChoice
    from d2c_mlops.operations.monitor import ModelHealth
    from d2c_mlops.operations.replay.report import ReplayReport
    from d2c_mlops.settings import Settings

MOSTLY = 0.5  # share of the outcomes with an answer: a chosen policy with less is named
COLOURS = {"ok": "green", "breach": "red"}


@example(
    "d2c monitor demand",
    "d2c monitor demand --html",
    "d2c monitor --json",
    'd2c monitor demand --acknowledge lines.unit_price --note "price list of June"',
)
@section("Operate")
@main.command()
@click.argument("model", required=False)
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Day at whose end the model is looked at; default: the last complete day of its data.",
)
@click.option("--html", is_flag=True, help="Write the page into the store, and print its path.")
@click.option("--no-alerts", is_flag=True, help="Only look: open, update and close no alert.")
@click.option(
    "--acknowledge",
    "columns",
    multiple=True,
    metavar="COLUMN",
    help="Record that the change of COLUMN is known: it is watched anew from the next day on. May be repeated; all: every column that moved.",
)
@click.option("--note", default="", help="Why the change is no fault, for the record.")
@json_option
def monitor(
    model: str | None,
    as_of: datetime | None,
    html: bool,
    no_alerts: bool,
    columns: tuple[str, ...],
    note: str,
    as_json: bool,
) -> None:
    """Check metrics and drift of live models.

    Accuracy, drift, latency, throughput, cost, importance of reasons and confidence of the champion, each with its threshold of [monitor] or
    [model:MODEL] monitor.NAME. A metric is ok, in breach, or has too little data, or is not measured.

    Drift is looked for in the dataset (data drift), in what callers ask (data drift), and in the errors of answers (concept drift), on each
    day against what season, weekday and promotions lead one to expect. Of healthy shops at most `false_alarms` get an alarm in a year.

    A breach opens or updates an alert, and its messages are sent; `d2c alerts` lists them. With --as-of in the past no alert is
    touched. Without MODEL all models with a champion are looked at.
    """
    config = settings()
    day = as_of.date() if as_of else None
    if columns and html:
        raise click.UsageError("--html writes the page of a look, and --acknowledge only records: give one of them")
    if columns:
        return _acknowledge(config, model, columns, day, note, as_json)
    from d2c_mlops.operations.look import look_at, models_with_champion

    names = [model] if model else models_with_champion(config)
    healths = [look_at(name, config, day, alerts=not no_alerts) for name in names]
    pages = [_write_page(config, health) for health in healths] if html else []
    if as_json:
        return show(healths[0].to_dict() if model else [health.to_dict() for health in healths])
    if not healths:
        click.echo("no model has a champion yet; `d2c promote MODEL` makes one")
    for health in healths:
        _print(health)
    for path in pages:
        click.echo(f"page: {path}")
    return None


def _acknowledge(
    config: Settings, model: str | None, columns: tuple[str, ...], day: date | None, note: str, as_json: bool
) -> None:
    import getpass

    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.operations.acknowledged import acknowledge_change
    from d2c_mlops.operations.monitor import monitor_model

    if model is None:
        raise click.UsageError("name the model whose column changed")
    health = monitor_model(model, config, day)
    moved = sorted({change.column for look in health.drifts for change in look.report.changes})
    unmoved = [column for column in columns if column not in (*moved, "all")]
    if unmoved or not moved:
        what = f"{unmoved[0]!r} is not among the columns that moved" if unmoved else "no column moved"
        raise click.UsageError(
            f"{what}" + (f": {', '.join(moved)}" if moved else ", so there is nothing to acknowledge")
        )
    ledger = Ledger.of(config)
    chosen = moved if "all" in columns else list(dict.fromkeys(columns))
    changes = [acknowledge_change(ledger, model, name, health.as_of, getpass.getuser(), note) for name in chosen]
    if as_json:
        return show([{"model": model, "column": c.column, "day": c.day.isoformat(), "note": note} for c in changes])
    for change in changes:
        click.echo(
            f"{model}: the change of {change.column} until {change.day} is known; it is watched anew from then on"
        )
    return None


def _write_page(config: Settings, health: ModelHealth) -> str:
    from d2c_mlops.data.store import write_atomic
    from d2c_mlops.operations.monitor_page import page

    path = config.store / "monitor" / f"{health.model}.html"
    write_atomic(path, page(health).encode(), private=True)
    return here(path)


def _print(health: ModelHealth) -> None:
    state = click.style(health.state, fg=COLOURS.get(health.state), bold=True)
    judged = sum(sign.state in ("ok", "breach") for sign in health.signs)
    share = f", as far as it is measured: {judged} of {len(health.signs)} metrics" if judged < len(health.signs) else ""
    click.echo(f"{health.model} version {health.version}, as known at the end of {health.as_of}: {state}{share}")
    table(["METRIC", "STATE", "WHAT"], [[sign.metric, sign.state, sign.message] for sign in health.signs])
    for sign in health.signs:
        if sign.advice and sign.state == "breach":
            click.echo(f"{sign.metric}: {sign.advice}")
    click.echo()


@example(
    "d2c replay demand",
    "d2c replay demand --policy never --policy 'every 28 days' --policy 'every 28 days or on drift' --step 7",
    "d2c replay demand --from 2024-01-01 --to 2024-12-31 --training-cost 25 --html",
)
@section("Operate")
@main.command()
@click.argument("model")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="POLICY",
    help="Policy as in [model:MODEL] retrain, such as 'every 28 days or on drift'. May be repeated; default: eleven usual ones.",
)
@click.option(
    "--from",
    "start",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Day of the first look; default: a year before the last one.",
)
@click.option(
    "--to",
    "end",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Last day whose outcome counts; default: the last complete day.",
)
@click.option(
    "--step",
    type=click.IntRange(1),
    metavar="DAYS",
    help="Days between two looks; default: a period of the forecast.",
)
@click.option(
    "--horizon",
    type=click.IntRange(1),
    metavar="PERIODS",
    help="Periods after a look whose outcomes are priced; default: those until the next look.",
)
@click.option(
    "--training-cost",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    metavar="MONEY",
    help="Cost of one training in the charter's currency: CPU time, and the person who looks at its result.",
)
@click.option("--html", is_flag=True, help="Write a page with a plot into the store, and print its path.")
@json_option
def replay(
    model: str,
    policies: tuple[str, ...],
    start: datetime | None,
    end: datetime | None,
    step: int | None,
    horizon: int | None,
    training_cost: float,
    html: bool,
    as_json: bool,
) -> None:
    """Replay a model's history under retraining policies.

    Walks over the history of the model's dataset, look by look. Each look knows what was known on its day: later rows and late outcomes are
    unseen. Monitor, policy, training, gate and release are those of production. Nothing is registered, and nothing is recorded.

    A policy is chosen on the first half of the weeks and judged on the second. Prices are the charter's: right_value for a unit too
    few, wrong_cost for a unit too many; one that is not set counts as 1, and the report says so. Fits are shared among policies and run by [d2c] backend.
    """
    from d2c_mlops.operations.replay.simulation import POLICIES, PolicyReplayOptions, replay_model
    from d2c_mlops.parallel import use_backend

    config = settings()
    options = PolicyReplayOptions(
        policies=policies or POLICIES,
        start=start.date() if start else None,
        end=end.date() if end else None,
        step=step or 0,
        horizon=horizon or 0,
        training_cost=training_cost,
    )
    with click.progressbar(length=1, label="fits", file=sys.stderr, hidden=as_json) as bar, use_backend(config.backend):

        def progress(finished: int, planned: int) -> None:
            bar.length = planned
            bar.update(finished - bar.pos)

        report = replay_model(model, config, options, progress)
    written = _write_replay_page(config, report) if html else None
    if as_json:
        return show(report.to_dict() | ({"page": written} if written else {}))
    _print_replay(report)
    if written:
        click.echo(f"page: {written}")
    return None


def _write_replay_page(config: Settings, report: ReplayReport) -> str:
    from d2c_mlops.data.store import write_atomic
    from d2c_mlops.operations.replay.page import page

    path = config.store / "replay" / f"{report.model}.html"
    write_atomic(path, page(report).encode(), private=True)
    return here(path)


def _beside_best(choice: PolicyChoice) -> str:
    if choice.chosen == choice.best:
        return "the best in hindsight too"
    return f"{choice.regret:.1%} dearer than the best in hindsight, {choice.best}"


def _print_replay(report: ReplayReport) -> None:
    choice = report.choice
    click.echo(
        f"{report.model} on {report.dataset}, {report.first} to {report.last}; {report.fits} fits, {report.fit_seconds:.0f} CPU s; costs in {report.currency}"
    )
    table(
        ["POLICY", "TRAININGS", "REFUSED", "WAPE", "ANSWERED", "REVISION", "1ST HALF A WEEK", "2ND HALF A WEEK", ""],
        [
            [
                row["policy"],
                f"{row['trainings']:.3g}",
                f"{row['refused']:.3g}",
                *("" if row[name] is None else f"{row[name]:.1%}" for name in ("wape", "answered", "revision")),
                f"{row['cost_first_half']:,.2f}",
                f"{row['cost_second_half']:,.2f}",
                "no reasons, see below" if row["without_reasons"] else "",
            ]
            for row in report.rows()
        ],
    )
    for policy, text in report.without_reasons.items():
        click.echo(f"{policy}: {text}")
    if (chosen := next(row for row in report.rows() if row["chosen"]))["answered"] is not None and chosen[
        "answered"
    ] < MOSTLY:
        click.echo(
            f"{chosen['policy']} answers only {chosen['answered']:.0%} of what is asked, as its horizon ends; the rest is priced by the charter's baseline"
        )
    for note in report.notes:
        click.echo(f"note: {note}")
    click.echo(
        f"recommended: {click.style(choice.chosen, bold=True)}, chosen before {choice.split.date()}; after it {_beside_best(choice)}"
    )
    click.echo(f"next: set [model:{report.model}] retrain = {choice.chosen}")
