"""Commands for contracts, the input and output schemas of models: contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, here, json_option, main, section, settings, show
from d2c_mlops.errors import Failure, GateRefused

if TYPE_CHECKING:
    from d2c_mlops.models.core.contract import Contract


@section("Models")
@main.group()
def contract() -> None:
    """Show, compare and check contracts; generate typed clients."""


@example("d2c contract show demand", "d2c contract show demand --version 3 --json")
@contract.command("show")
@click.argument("model")
@click.option("--version", "number", type=int, help="Contract of this version; default: the contract in the code.")
@json_option
def show_contract(model: str, number: int | None, as_json: bool) -> None:
    """Show the input and output fields of MODEL, with units and limits."""
    from d2c_mlops.models.core.contract import PERIODS, contract_to_dict

    schema = _load_contract(model, number)
    if as_json:
        return show(contract_to_dict(schema))
    period = f", {PERIODS[schema.frequency]}" if schema.frequency else ""
    reach = f", {schema.horizon} {PERIODS.get(schema.frequency, 'periods')} ahead" if schema.horizon else period
    click.echo(f"{schema.name} {schema.version}, key {schema.key}{reach}")
    for side, fields in (("inputs", schema.input_fields), ("outputs", schema.output_fields)):
        click.echo(side)
        for field in fields:
            limits = [f"{name} {value}" for name, value in (("from", field.ge), ("to", field.le)) if value is not None]
            facts = [
                field.kind,
                field.unit or "",
                *limits,
                "may be missing" if field.nullable else "",
                ", ".join(field.choices or ()),
            ]
            click.echo(f"  {field.name:24} {', '.join(fact for fact in facts if fact)}: {field.description}")
    return None


@example("d2c contract diff demand", "d2c contract diff demand --version 4")
@contract.command("diff")
@click.argument("model")
@click.option(
    "--version", "number", type=int, help="Compare the contract of this version; default: the contract in the code."
)
@json_option
def diff(model: str, number: int | None, as_json: bool) -> None:
    """Compare MODEL's contract with the contract of its champion.

    Ends with exit code 4 if a change breaks callers and the contract has no new major version. Run it in CI: it needs only
    the code and the ledger, no training.
    """
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.models.core.contract_changes import broken_clauses, contract_differences
    from d2c_mlops.registry.promotion_history import champion_at_time

    new, live = _load_contract(model, number), champion_at_time(Ledger.of(settings()), model)
    if live is None:
        return (
            show({"champion": None, "changes": []})
            if as_json
            else click.echo(f"{model} has no champion: there is no contract to compare with")
        )
    differences, broken = contract_differences(live.schema, new), broken_clauses(live.schema, new)
    if as_json:
        rows = [{"what": change.what, "where": change.where, "breaking": change.breaking} for change in differences]
        show(
            {
                "champion": live.version,
                "from": live.schema.version,
                "to": new.version,
                "changes": rows,
                "refused": bool(broken),
            }
        )
    else:
        click.echo(f"{live.schema.version} of version {live.version} → {new.version}: {len(differences)} changes")
        for change in differences:
            click.echo(f"  {change}")
        if new.major > live.schema.major:
            click.echo(_support_text(model, live.schema.version, live.schema.major))
    if broken:
        raise GateRefused(
            f"the contract of {model} breaks callers without a new major version",
            failures=[Failure(change.what, change.where) for change in broken],
            next=f"set the contract's version to {live.schema.major + 1}.0.0, or undo the change",
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
    "--version", "number", type=int, help="The version that must answer; default: any version with this contract."
)
@click.option(
    "--key",
    envvar="D2C_API_KEY",
    show_envvar=True,
    help="An API key with the scope `probe`; better set it in the environment. Required unless the service runs on this machine without keys.",
)
@json_option
def check(model: str, url: str, number: int | None, key: str | None, as_json: bool) -> None:
    """Check that the service at URL follows MODEL's contract. Ends with exit code 4 if a check fails.

    Run it in CI between staging and production. It checks readiness, the contract, a prediction, a repeated request, an
    invalid request, a request without an API key, and metrics. Requests are probes with an invented record key: no decisions are made from
    their predictions. If the service would treat them as requests of a real caller, no prediction is requested.
    """
    from d2c_mlops.serving.local.contract_check import check_service

    checks = check_service(url, _load_contract(model, number), number, key or "")
    broken = [result for result in checks if not result.holds]
    if not as_json:
        for result in checks:
            click.echo(f"  {result}")
    elif not broken:
        show({"url": url, "checks": [vars(result) for result in checks]})
    if broken:
        failures = [Failure(result.said or "does not hold", result.what) for result in broken]
        raise GateRefused(
            f"{url} does not follow the contract of {model}", failures=failures, next="read the service's log"
        )
    return None


@example("d2c contract client demand --to typescript --out web/src/demand.ts", "d2c contract client demand --to csharp")
@contract.command("client")
@click.argument("model")
@click.option(
    "--to", "language", type=click.Choice(["csharp", "python", "typescript"]), required=True, help="The language."
)
@click.option("--out", type=click.Path(path_type=Path), help="The file to write; default: standard output.")
@click.option("--version", "number", type=int, help="Contract of this version; default: the contract in the code.")
@json_option
def client(model: str, language: str, out: Path | None, number: int | None, as_json: bool) -> None:
    """Generate a typed client for MODEL's service, in one file.

    The file depends on no other generated code.
    """
    from d2c_mlops.data.store import write_atomic
    from d2c_mlops.models.core.model import Model
    from d2c_mlops.registry.versions import model_class
    from d2c_mlops.serving.clients import client as write

    cls = model_class(model, settings())
    explains = cls.explain is not Model.explain or cls.explain_records is not Model.explain_records
    source = write(language, model, _load_contract(model, number), explains)
    if out is not None:
        write_atomic(out, source.encode())
    if as_json:
        return show({"language": language, "file": str(out) if out else None, "source": None if out else source})
    click.echo(here(out.resolve()) if out is not None else source, nl=out is not None)
    return None


def _support_text(model: str, version: str, major: int) -> str:
    config = settings()
    day = (
        config.model(model).sunset.get(str(major))
        or f"{config.service.keep_majors} days after its successor's promotion"
    )
    return f"contract {version} stays available at /v{major} until {day} (sunset.{major} in [model:{model}], [service] keep_majors)"


def _load_contract(model: str, number: int | None) -> Contract:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.versions import code_contract, find_version

    if number is not None:
        return find_version(Ledger.of(settings()), model, number).schema
    return code_contract(model, settings())
