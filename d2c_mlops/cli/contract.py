"""Commands about what a model takes and gives: contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, here, json_option, main, settings, show
from d2c_mlops.errors import Failure, GateRefused

if TYPE_CHECKING:
    from d2c_mlops.models.core.contract import Contract


@main.group()
def contract() -> None:
    """Show a contract, compare it with the one in production, write typed clients."""


@example("d2c contract show demand", "d2c contract show demand --version 3 --json")
@contract.command("show")
@click.argument("model")
@click.option("--version", "number", type=int, help="That of a version; that of the code when not given.")
@json_option
def show_contract(model: str, number: int | None, as_json: bool) -> None:
    """Show what MODEL takes and gives, with units and limits."""
    from d2c_mlops.models.core.contract import PERIODS, contract_to_dict

    found = _contract(model, number)
    if as_json:
        return show(contract_to_dict(found))
    period = f", {PERIODS[found.frequency]}" if found.frequency else ""
    reach = f", {found.horizon} {PERIODS.get(found.frequency, 'periods')} ahead" if found.horizon else period
    click.echo(f"{found.name} {found.version}, key {found.key}{reach}")
    for side, fields in (("takes", found.input_fields), ("gives", found.output_fields)):
        click.echo(side)
        for one in fields:
            limits = [f"{name} {value}" for name, value in (("from", one.ge), ("to", one.le)) if value is not None]
            facts = [
                one.kind,
                one.unit or "",
                *limits,
                "may be missing" if one.nullable else "",
                ", ".join(one.choices or ()),
            ]
            click.echo(f"  {one.name:24} {', '.join(fact for fact in facts if fact)}: {one.description}")
    return None


@example("d2c contract diff demand", "d2c contract diff demand --version 4")
@contract.command("diff")
@click.argument("model")
@click.option("--version", "number", type=int, help="Compare this version; the code when not given.")
@json_option
def diff(model: str, number: int | None, as_json: bool) -> None:
    """Compare MODEL's contract with that of its champion; what breaks callers without a new major version ends with 4.

    Run it in CI: it needs no training, only the code and the ledger.
    """
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.models.core.contract_changes import broken_clauses, changes
    from d2c_mlops.registry.promotion_history import champion

    new, live = _contract(model, number), champion(Ledger.of(settings()), model)
    if live is None:
        return (
            show({"champion": None, "changes": []})
            if as_json
            else click.echo(f"{model} has no champion: nothing to break")
        )
    found, broken = changes(live.schema, new), broken_clauses(live.schema, new)
    if as_json:
        told = [{"what": one.what, "where": one.where, "breaking": one.breaking} for one in found]
        show(
            {
                "champion": live.version,
                "from": live.schema.version,
                "to": new.version,
                "changes": told,
                "refused": bool(broken),
            }
        )
    else:
        click.echo(f"{live.schema.version} of version {live.version} → {new.version}: {len(found)} changes")
        for each in found:
            click.echo(f"  {each}")
        if new.major > live.schema.major:
            click.echo(_beside(model, live.schema.version, live.schema.major))
    if broken:
        raise GateRefused(
            f"the contract of {model} breaks callers without a new major version",
            failures=[Failure(one.what, one.where) for one in broken],
            next=f"give it version {live.schema.major + 1}.0.0, or take the change back",
        )
    return None


@example(
    "d2c contract check demand http://127.0.0.1:3000",
    "d2c contract check demand https://demand.staging.example --version 4",
)
@contract.command("check")
@click.argument("model")
@click.argument("url")
@click.option(
    "--version", "number", type=int, help="The version that must answer; any with its contract when not given."
)
@click.option(
    "--key",
    envvar="D2C_API_KEY",
    show_envvar=True,
    help="An API key with the scope `probe`, best by the environment; needed unless the service is on this machine and asks for none.",
)
@json_option
def check(model: str, url: str, number: int | None, key: str | None, as_json: bool) -> None:
    """Ask the service at URL whether it keeps MODEL's contract; a promise that does not hold ends with 4.

    Run it in CI between staging and production: readiness, contract, a prediction, a repeated call, a wrong one, one without
    a key, metrics. It asks about a made-up key as a probe: nothing is decided upon its predictions. Where the service would
    take it for a caller, nothing is asked.
    """
    from d2c_mlops.serving.local.contract_check import smoke

    found = smoke(url, _contract(model, number), number, key or "")
    broken = [each for each in found if not each.holds]
    if not as_json:
        for each in found:
            click.echo(f"  {each}")
    elif not broken:
        show({"url": url, "checks": [vars(each) for each in found]})
    if broken:
        failures = [Failure(each.said or "does not hold", each.what) for each in broken]
        raise GateRefused(
            f"{url} does not keep the contract of {model}", failures=failures, next="read the service's log"
        )
    return None


@example("d2c contract client demand --to typescript --out web/src/demand.ts", "d2c contract client demand --to csharp")
@contract.command("client")
@click.argument("model")
@click.option(
    "--to", "language", type=click.Choice(["csharp", "python", "typescript"]), required=True, help="The language."
)
@click.option("--out", type=click.Path(path_type=Path), help="The file to write; printed when not given.")
@click.option("--version", "number", type=int, help="For the contract of a version; that of the code when not given.")
@json_option
def client(model: str, language: str, out: Path | None, number: int | None, as_json: bool) -> None:
    """Write a typed client of MODEL's service: one file, nothing generated to keep beside it."""
    from d2c_mlops.data.store import write_atomic
    from d2c_mlops.models.core.model import Model
    from d2c_mlops.registry.versions import model_class
    from d2c_mlops.serving.clients import client as write

    cls = model_class(model, settings())
    explains = cls.explain is not Model.explain or cls.explain_records is not Model.explain_records
    source = write(language, model, _contract(model, number), explains)
    if out is not None:
        write_atomic(out, source.encode())
    if as_json:
        return show({"language": language, "file": str(out) if out else None, "source": None if out else source})
    click.echo(here(out.resolve()) if out is not None else source, nl=out is not None)
    return None


def _beside(model: str, version: str, major: int) -> str:
    held = settings()
    day = held.model(model).sunset.get(str(major)) or f"{held.service.keep_majors} days after its successor's promotion"
    return f"contract {version} stays served at /v{major} until {day} (sunset.{major} in [model:{model}], [service] keep_majors)"


def _contract(model: str, number: int | None) -> Contract:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.versions import code_contract, find_version

    if number is not None:
        return find_version(Ledger.of(settings()), model, number).schema
    return code_contract(model, settings())
