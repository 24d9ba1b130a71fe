"""Commands about who may ask a service: keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from d2c_mlops.cli import example, here, json_option, main, settings, show, table
from d2c_mlops.errors import D2CError, UsageError
from d2c_mlops.settings.parsing import age


@example("d2c keys", "d2c keys create crm --model lead_scoring --expires 90d", "d2c keys revoke 1f2e3d4c5b6a")
@main.group(invoke_without_command=True)
@json_option
@click.pass_context
def keys(context: click.Context, as_json: bool) -> None:
    """Make, list, renew and end the API keys of services."""
    if context.invoked_subcommand is None:
        _list(as_json)


@example(
    "d2c keys create crm --model lead_scoring",
    "d2c keys create shop --model demand --model price --expires 90d",
    "d2c keys create jo --model price --scope decide",
    "d2c keys create pricing --model price --scope ask --scope decide",
    "d2c keys create check --model demand --scope probe",
)
@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["ask", "decide", "probe"]),
    default=("ask",),
    show_default=True,
    help="What it opens: asking the model; deciding upon its predictions, and, together with ask, causing decisions by asking; probe: asking it with made-up keys, as "
    "`d2c contract check` and monitors do. Nothing is decided upon a probe, and it counts in no figure.",
)
@click.option("--model", "models", multiple=True, help="A model that the key is for; all of them when not given.")
@click.option("--expires", metavar="AGE", help="How long it is valid, such as 90d or 12h; for ever when not given.")
@json_option
def create(name: str, scopes: tuple[str, ...], models: tuple[str, ...], expires: str | None, as_json: bool) -> None:
    """Make a key for NAME and print it, once: only its hash is kept. Running services take it within a second."""
    from d2c_mlops.serving.http.api_keys import EVERY
    from d2c_mlops.serving.http.api_keys import create as make

    lasts = _lasting(expires)
    for unknown in _unknown(models):
        click.echo(
            f"no version of {unknown} is on record: is it spelt right? `d2c models` lists those that are", err=True
        )
    key, token = make(_file(), name, models or (EVERY,), now=datetime.now(UTC), lasts=lasts, scopes=scopes)
    if as_json:
        return show({**key.to_dict(), "token": token})
    click.echo(token)
    click.echo(f"key {key.id} for {name}; it is not shown again. Send it as Authorization: Bearer …", err=True)
    return None


@example("d2c keys list", "d2c keys list --json")
@keys.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys: whose, for which models, until when."""
    _list(as_json)


@example("d2c keys revoke 1f2e3d4c5b6a")
@keys.command()
@click.argument("id")
@json_option
def revoke(id: str, as_json: bool) -> None:
    """End the key ID now; services refuse it within a second."""
    from d2c_mlops.serving.http.api_keys import revoke as end

    key = end(_file(), id, now=datetime.now(UTC))
    return show(key.to_dict()) if as_json else click.echo(f"key {key.id} of {key.name} is revoked")


@example("d2c keys rotate 1f2e3d4c5b6a --grace 7d")
@keys.command()
@click.argument("id")
@click.option("--grace", default="7d", show_default=True, metavar="AGE", help="How long the old key still works.")
@click.option("--expires", metavar="AGE", help="How long the new key is valid; for ever when not given.")
@json_option
def rotate(id: str, grace: str, expires: str | None, as_json: bool) -> None:
    """Make a successor of the key ID and print it; both work until the grace is over."""
    from d2c_mlops.serving.http.api_keys import rotate as renew

    left = _age(grace, "--grace") or timedelta(0)
    lasts = _lasting(expires)
    key, token = renew(_file(), id, now=datetime.now(UTC), grace=left, lasts=lasts)
    if as_json:
        return show({**key.to_dict(), "token": token})
    click.echo(token)
    click.echo(f"key {key.id} for {key.name} follows {id}, which ends in {grace} at the latest", err=True)
    return None


def _list(as_json: bool) -> None:
    from d2c_mlops.serving.http.api_keys import read

    found = [key.to_dict() for key in read(_file()).values()]
    if as_json:
        return show(found)
    if not found:
        click.echo("no keys yet: services of this machine let everybody in; `d2c keys create NAME` makes one")
        return None
    rows = [(k["id"], k["name"], " ".join(k["models"]), " ".join(k["scopes"]), k["state"], k["created_at"][:16], (k["expires_at"] or "")[:16])
            for k in found]  # fmt: skip
    table(("id", "name", "models", "scopes", "state", "created", "expires"), rows)
    click.echo(f"in {here(_file())}")
    return None


def _file() -> Path:
    from d2c_mlops.serving.paths import keys_file

    return keys_file(settings())


def _unknown(models: tuple[str, ...]) -> list[str]:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.versions import all_versions

    if not models:
        return []
    try:
        known = {version.model for version in all_versions(Ledger.of(settings()))}
    except D2CError:  # keys are made without a ledger, too
        return []
    return [name for name in models if name not in known]


def _lasting(expires: str | None) -> timedelta | None:
    lasts = _age(expires, "--expires")
    if lasts is not None and lasts <= timedelta(0):
        raise UsageError("the key would never work", where="--expires", next="give an age such as 90d")
    return lasts


def _age(text: str | None, where: str) -> timedelta | None:
    if text is None:
        return None
    try:
        return timedelta(seconds=age(text))
    except ValueError as err:
        raise UsageError(str(err), where=where) from None
