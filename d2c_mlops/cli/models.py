"""Commands about models: models, check-model, promote, rollback."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from d2c_mlops.cli import example, json_option, main, settings, show, table
from d2c_mlops.errors import GateRefused, UsageError


@example("d2c models", "d2c models history demand --at 2026-11-01")
@main.group(invoke_without_command=True)
@json_option
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the versions of all models, champions marked."""
    if context.invoked_subcommand:
        return None
    from d2c_mlops.registry.promotion_history import champion
    from d2c_mlops.registry.versions import all_versions

    ledger = _ledger()
    found = all_versions(ledger)
    live = {name: champion(ledger, name) for name in {v.model for v in found}}
    champions = {name: version.version for name, version in live.items() if version}
    if as_json:
        return show([{**v.to_dict(), "champion": champions.get(v.model) == v.version} for v in found])
    if not found:
        click.echo("no versions yet; `d2c run train -p model=demand` makes one")
        return None
    rows = [
        (v.model, v.version, "champion" if champions.get(v.model) == v.version else "", v.as_of,
         f"{v.score.metric} {v.score.value:.4f}", ", ".join(f"{k} {x:.4f}" for k, x in v.score.baselines.items()))
        for v in found
    ]  # fmt: skip
    table(("model", "version", "", "as of", "metric", "baselines"), rows)
    return None


@example("d2c models history demand", "d2c models history demand --at 2026-11-01")
@models.command()
@click.argument("model")
@click.option("--at", metavar="DATE", help="Which version was live then, and who decided (a day means its end, UTC).")
@json_option
def history(model: str, at: str | None, as_json: bool) -> None:
    """Tell which version of MODEL became champion when, why and by whom."""
    from d2c_mlops.registry.promotion_history import history

    found = history(_ledger(), model, _moment(at) if at else None)
    if at:
        found = found[-1:]
    if as_json:
        return show([each.to_dict() for each in found])
    if not found:
        click.echo(f"no version of {model} was live" + (f" at {at}" if at else " yet"))
        return None
    rows = [(f"{p.at:%Y-%m-%d %H:%M:%S}Z", p.action, p.version, p.previous, p.by, p.reason) for p in found]
    table(("at", "action", "version", "instead of", "by", "reason"), rows)
    return None


@example("d2c promote demand", "d2c promote demand --version 3 --override --by Jo --reason 'supplier changed'")
@main.command()
@click.argument("model")
@click.option("--version", "number", type=int, help="The version; the newest when not given.")
@click.option("--override", is_flag=True, help="Promote although a clause is broken; needs --by and --reason.")
@click.option("--by", metavar="NAME", help="Who decides; the user of this machine when not given.")
@click.option("--reason", default="", metavar="TEXT", help="Why.")
@json_option
def promote(model: str, number: int | None, override: bool, by: str | None, reason: str, as_json: bool) -> None:
    """Make a version of MODEL champion, when the gate agrees.

    The gate wants a complete charter, an unbroken contract (frequency and horizon are part of it), the rules of `d2c check-model`,
    forecasts that beat the strongest simple baseline and what people do today, and are not worse than those of the champion. It fits
    the model at past cutoffs and computes all figures itself; evaluate() is not believed. A refusal names the clause and by how much
    it is broken. A version that is the champion again (same data, parameters, code and figures) changes nothing.

    Where its contract has a new major version, the champion before it goes on being served at /v1, /v2, … until its day: [service]
    keep_majors days from now, or `sunset.1 = 2027-03-31` in the model's section of settings.ini.
    """
    from d2c_mlops.serving.rollout.promotion import promote as decide

    made, clauses = decide(model, settings(), number=number, by=by, reason=reason, override=override)
    if as_json:
        return show({"promotion": made.to_dict() if made else None, "gate": [c.to_dict() for c in clauses]})
    for clause in clauses:
        click.secho(f"  {clause}", fg=None if clause.holds else "yellow")
    if made is None:
        click.echo(
            f"no change: {'the champion is the same' if clauses else f'this version of {model} is champion already'}"
        )
    else:
        from d2c_mlops.registry.versions import find_version
        from d2c_mlops.serving.predict.sunsets import said

        click.echo(f"version {made.version} of {model} is champion ({made.action} by {made.by})")
        for line in said(_ledger(), find_version(_ledger(), model, made.version), settings()):
            click.echo(line)
    return None


@example("d2c check-model demand", "d2c check-model demand --version 3 --json")
@main.command("check-model")
@click.argument("model")
@click.option(
    "--version", "number", type=int, help="The version; the newest, or the class alone without one, when not given."
)
@json_option
def check_model(model: str, number: int | None, as_json: bool) -> None:
    """Check in a clean process that MODEL keeps the rules of a model; a rule that is broken ends with 4.

    The rules look for answers out of order, changed inputs, a look into the future, pickles on disk, an evaluation that does not
    depend on the data. The class is tried on its own example, a version also on the data that it was trained on. The gate asks the same.
    """
    from d2c_mlops.registry.evidence import check

    found = check(model, settings(), number)
    if as_json and not found.failures:
        return show(found.to_dict())
    for rule in () if as_json else found.rules:
        click.echo(f"  holds  {rule}")
    if found.failures:
        raise GateRefused(
            f"{found.name} breaks {len(found.failures)} rule(s) of a model", failures=found.failures,
            next="correct the class; each line names the rule, the column and the record",
        )  # fmt: skip
    return None if as_json else click.echo(f"{found.name} keeps {len(found.rules)} rules")


@example("d2c rollback demand --reason 'orders look wrong'")
@main.command()
@click.argument("model")
@click.option("--to", "number", type=int, metavar="VERSION", help="A former champion; the last one when not given.")
@click.option("--by", metavar="NAME", help="Who decides; the user of this machine when not given.")
@click.option("--reason", default="", metavar="TEXT", help="Why.")
@json_option
def rollback(model: str, number: int | None, by: str | None, reason: str, as_json: bool) -> None:
    """Make the champion before the present one live again."""
    from d2c_mlops.serving.rollout.promotion import rollback as back

    made = back(model, settings(), number=number, by=by, reason=reason)
    text = f"version {made.version} of {model} is champion again, instead of {made.previous}"
    return show(made.to_dict()) if as_json else click.echo(text)


def _ledger() -> Any:
    from d2c_mlops.ledger.store import Ledger

    return Ledger.of(settings())


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a date", where="--at", next="write 2026-11-01 or 2026-11-01T12:00Z"
        ) from None
    if len(text) == 10:
        moment = moment.replace(hour=23, minute=59, second=59, microsecond=999999)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
