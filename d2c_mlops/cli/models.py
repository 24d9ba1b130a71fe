"""Commands for models: models, check-model, promote, rollback."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from d2c_mlops.cli import example, json_option, main, section, settings, show, table
from d2c_mlops.errors import GateRefused, UsageError


@example("d2c models", "d2c models history demand --at 2026-11-01")
@section("Models")
@main.group(invoke_without_command=True)
@json_option
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the versions of all models; champions are marked."""
    if context.invoked_subcommand:
        return None
    from d2c_mlops.registry.promotion_history import champion_at_time
    from d2c_mlops.registry.versions import all_versions

    ledger = _open_ledger()
    versions = all_versions(ledger)
    live = {name: champion_at_time(ledger, name) for name in {v.model for v in versions}}
    champions = {name: version.version for name, version in live.items() if version}
    if as_json:
        return show([{**v.to_dict(), "champion": champions.get(v.model) == v.version} for v in versions])
    if not versions:
        click.echo("no versions yet; `d2c run train -p model=demand` creates one")
        return None
    rows = [
        (v.model, v.version, "champion" if champions.get(v.model) == v.version else "", v.as_of,
         f"{v.score.metric} {v.score.value:.4f}", ", ".join(f"{k} {x:.4f}" for k, x in v.score.baselines.items()))
        for v in versions
    ]  # fmt: skip
    table(("model", "version", "", "as of", "metric", "baselines"), rows)
    return None


@example("d2c models history demand", "d2c models history demand --at 2026-11-01")
@models.command()
@click.argument("model")
@click.option(
    "--at", metavar="DATE", help="Only the version that was live at this time (a date means the end of the day, UTC)."
)
@json_option
def history(model: str, at: str | None, as_json: bool) -> None:
    """Show which version of MODEL became champion, when, why and by whom."""
    from d2c_mlops.registry.promotion_history import promotions_until

    promotions = promotions_until(_open_ledger(), model, _parse_time(at) if at else None)
    if at:
        promotions = promotions[-1:]
    if as_json:
        return show([promotion.to_dict() for promotion in promotions])
    if not promotions:
        click.echo(f"no version of {model} was live" + (f" at {at}" if at else " yet"))
        return None
    rows = [(f"{p.at:%Y-%m-%d %H:%M:%S}Z", p.action, p.version, p.previous, p.by, p.reason) for p in promotions]
    table(("at", "action", "version", "instead of", "by", "reason"), rows)
    return None


@example("d2c promote demand", "d2c promote demand --version 3 --override --by Jo --reason 'supplier changed'")
@section("Models")
@main.command()
@click.argument("model")
@click.option("--version", "number", type=int, help="The version; default: the newest.")
@click.option("--override", is_flag=True, help="Promote although the gate refuses; requires --by and --reason.")
@click.option("--by", metavar="NAME", help="Who decides; default: the current user.")
@click.option("--reason", default="", metavar="TEXT", help="Why.")
@json_option
def promote(model: str, number: int | None, override: bool, by: str | None, reason: str, as_json: bool) -> None:
    """Make a version of MODEL the champion, if the gate accepts it.

    The gate requires a complete charter, a compatible contract (including frequency and horizon), the rules of `d2c check-model`, and
    forecasts that beat the strongest simple baseline and current practice and are not worse than the champion's. It fits the model at past
    cutoffs and computes all metrics itself; it does not use the results of evaluate(). A refusal names each failed clause and the
    margin. If the version equals the champion (same data, parameters, code and metrics), nothing changes.

    If the contract has a new major version, the previous champion stays available at /v1, /v2, … until its sunset: [service]
    keep_majors days from now, or `sunset.1 = 2027-03-31` in the model's section of settings.ini.
    """
    from d2c_mlops.serving.rollout.promotion import promote as decide

    promotion, clauses = decide(model, settings(), number=number, by=by, reason=reason, override=override)
    if as_json:
        return show({"promotion": promotion.to_dict() if promotion else None, "gate": [c.to_dict() for c in clauses]})
    for clause in clauses:
        click.secho(f"  {clause}", fg=None if clause.holds else "yellow")
    if promotion is None:
        click.echo(
            f"no change: {'the version equals the champion' if clauses else f'this version of {model} is already the champion'}"
        )
    else:
        from d2c_mlops.registry.versions import find_version
        from d2c_mlops.serving.predict.sunsets import sunset_texts

        click.echo(f"version {promotion.version} of {model} is champion ({promotion.action} by {promotion.by})")
        for line in sunset_texts(_open_ledger(), find_version(_open_ledger(), model, promotion.version), settings()):
            click.echo(line)
    return None


@example("d2c check-model demand", "d2c check-model demand --version 3 --json")
@section("Models")
@main.command("check-model")
@click.argument("model")
@click.option(
    "--version", "number", type=int, help="The version; default: the newest; if there is none, only the class."
)
@json_option
def check_model(model: str, number: int | None, as_json: bool) -> None:
    """Check that MODEL follows the rules for models. Ends with exit code 4 if a rule is broken.
    The rules find predictions in the wrong order, changed inputs, use of future data, pickle files, and an evaluation that does not
    depend on the data. The class is checked with its own example, a version also with its training data. The check runs in a clean process. The gate runs the same checks.
    """
    from d2c_mlops.registry.evidence import check_version

    report = check_version(model, settings(), number)
    if as_json and not report.failures:
        return show(report.to_dict())
    for rule in () if as_json else report.rules:
        click.echo(f"  holds  {rule}")
    if report.failures:
        raise GateRefused(
            f"{report.name} breaks {len(report.failures)} of the rules for models", failures=report.failures,
            next="fix the class; each line names the rule, the column and the record",
        )  # fmt: skip
    return None if as_json else click.echo(f"{report.name} follows all {len(report.rules)} rules")


@example("d2c rollback demand --reason 'orders look wrong'")
@section("Models")
@main.command()
@click.argument("model")
@click.option("--to", "number", type=int, metavar="VERSION", help="A former champion; default: the previous one.")
@click.option("--by", metavar="NAME", help="Who decides; default: the current user.")
@click.option("--reason", default="", metavar="TEXT", help="Why.")
@json_option
def rollback(model: str, number: int | None, by: str | None, reason: str, as_json: bool) -> None:
    """Roll back to the previous champion. Running services that have loaded it switch to it; the others must be restarted."""
    from d2c_mlops.serving.rollout.promotion import rollback as back
    from d2c_mlops.serving.rollout.rollout_status import rollout_status

    promotion = back(model, settings(), number=number, by=by, reason=reason)
    status = rollout_status(model, settings(), wait=True)
    count, behind = len(status.workers), len(status.workers_behind)
    if as_json:
        return show(promotion.to_dict() | {"workers": count, "behind": behind})
    click.echo(f"version {promotion.version} of {model} is champion again, instead of {promotion.previous}")
    if behind:
        click.echo(
            f"{behind} of {count} worker processes on this machine have not switched to version {promotion.version}: "
            "restart their services, unless they have loaded it and switch soon"
        )
    elif count:
        click.echo(f"{count} worker processes on this machine have switched to version {promotion.version}")
    return None


def _open_ledger() -> Any:
    from d2c_mlops.ledger.store import Ledger

    return Ledger.of(settings())


def _parse_time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a date", where="--at", next="write 2026-11-01 or 2026-11-01T12:00Z"
        ) from None
    if len(text) == 10:
        moment = moment.replace(hour=23, minute=59, second=59, microsecond=999999)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
