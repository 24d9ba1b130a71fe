"""The command that retrains live models: retrain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from d2c_mlops.cli import example, json_option, main, section, settings, show, table

if TYPE_CHECKING:
    from d2c_mlops.settings import Settings


@example(
    "d2c retrain demand",
    "d2c retrain demand --dry-run",
    "d2c retrain demand --why",
    "d2c retrain demand --history --json",
)
@section("Operate")
@main.command()
@click.argument("model")
@click.option("--why", is_flag=True, help="Show what each part of the policy says; change nothing.")
@click.option("--dry-run", is_flag=True, help="Say whether a reason exists, and which; change nothing.")
@click.option("--history", is_flag=True, help="List the retrainings on record, newest first; change nothing.")
@json_option
def retrain(model: str, why: bool, dry_run: bool, history: bool, as_json: bool) -> None:
    """Retrain MODEL if its policy has a reason, and release it.

    The policy is [model:MODEL] retrain in settings.ini: never, weekly, monthly, every 28 days, on drift, on new data 20%, on expected loss,
    several joined by or, or default. After a training no other one starts for `retrain_after`, whatever its result was.

    A reason opens a retraining: a training run, the gate, then what [model:MODEL] release says. Further calls continue its rollout. A
    version that is not better is not promoted, and the champion stays live. Each step is on record and is resumed after a crash.
    """
    from d2c_mlops.operations.retraining.retrain import retrain as retrain_by_policy

    config = settings()
    if history and (why or dry_run):
        raise click.UsageError("--history lists what is on record: give it without --why and --dry-run")
    if history:
        return _show_history(config, model, as_json)
    look = retrain_by_policy(model, config, dry_run=why or dry_run)
    if as_json:
        return show(look.to_dict())
    click.echo(f"{model}, {look.policy}: {click.style(look.action, bold=True)}, {look.text}")
    if why and look.checks:
        table(("REASON", "DUE", "WHAT"), [[c.kind, "yes" if c.is_due else "no", c.text] for c in look.checks])
    if look.policy == "never":
        click.echo(_advice(config, model))
    return None


def _advice(config: Settings, model: str) -> str:
    from d2c_mlops.monitoring.retraining import default_retrain

    usual = default_retrain(config.model(model).contract)
    return f"next: write `retrain = {usual}` into [model:{model}] of settings.ini, or `d2c run train -p model={model}`"


def _show_history(config: Settings, model: str, as_json: bool) -> None:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.operations.retraining.retraining_rows import events_of_retraining, retraining_history

    ledger = Ledger.of(config)
    rows = retraining_history(ledger, model)
    documents: list[dict[str, Any]] = [row.to_dict() | {"events": events_of_retraining(ledger, row.id)} for row in rows]
    if as_json:
        return show(documents)
    if not rows:
        click.echo(f"no retraining of {model} is on record")
        return None
    shown = [
        [f"{row.opened_at:%Y-%m-%d %H:%M}", row.id, row.reason, row.version or "", row.result or row.state, row.detail]
        for row in rows
    ]
    table(("OPENED (UTC)", "ID", "REASON", "VERSION", "RESULT", "DETAIL"), shown)
    return None
