"""Commands for the API keys of services: keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from d2c_mlops.cli import example, here, json_option, main, section, settings, show, table
from d2c_mlops.errors import D2CError, UsageError
from d2c_mlops.settings.parsing import parse_age


@example("d2c keys", "d2c keys create crm --model lead_scoring --expires 90d", "d2c keys revoke 1f2e3d4c5b6a")
@section("Operate")
@main.group(invoke_without_command=True)
@json_option
@click.pass_context
def keys(context: click.Context, as_json: bool) -> None:
    """Create, list, rotate and revoke the API keys of services."""
    if context.invoked_subcommand is None:
        _show_keys(as_json)


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
    help="Scope; repeatable. ask: request predictions. decide: decide about predictions; together with ask, requests also create decisions. "
    "probe: send test requests with invented record keys, as `d2c contract check` and monitors do; probes create no decisions and are in no statistics.",
)
@click.option(
    "--model", "models", multiple=True, help="A model that the key gives access to; repeatable; default: all models."
)
@click.option("--expires", metavar="AGE", help="How long the key is valid, such as 90d or 12h; default: no expiry.")
@json_option
def create(name: str, scopes: tuple[str, ...], models: tuple[str, ...], expires: str | None, as_json: bool) -> None:
    """Create an API key for NAME and print it. It is shown only once: only its hash is stored.

    Running services accept it within a second.
    """
    from d2c_mlops.serving.http.api_keys import EVERY
    from d2c_mlops.serving.http.api_keys import create_key as make

    lasts = _parse_lifetime(expires)
    for unknown in _models_without_versions(models):
        click.echo(
            f"warning: there is no version of a model {unknown}; check the name (`d2c models` lists all)", err=True
        )
    key, token = make(_keys_path(), name, models or (EVERY,), now=datetime.now(UTC), lifetime=lasts, scopes=scopes)
    if as_json:
        return show({**key.to_dict(), "token": token})
    click.echo(token)
    click.echo(f"key {key.id} for {name}; it is not shown again. Send it as Authorization: Bearer …", err=True)
    return None


@example("d2c keys list", "d2c keys list --json")
@keys.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys with their names, models, scopes and expiry."""
    _show_keys(as_json)


@example("d2c keys revoke 1f2e3d4c5b6a")
@keys.command()
@click.argument("id")
@json_option
def revoke(id: str, as_json: bool) -> None:
    """Revoke the key ID. Services refuse it within a second."""
    from d2c_mlops.serving.http.api_keys import revoke_key as end

    key = end(_keys_path(), id, now=datetime.now(UTC))
    return show(key.to_dict()) if as_json else click.echo(f"key {key.id} of {key.name} is revoked")


@example("d2c keys rotate 1f2e3d4c5b6a --grace 7d")
@keys.command()
@click.argument("id")
@click.option("--grace", default="7d", show_default=True, metavar="AGE", help="How long the old key stays valid.")
@click.option("--expires", metavar="AGE", help="How long the new key is valid; default: no expiry.")
@json_option
def rotate(id: str, grace: str, expires: str | None, as_json: bool) -> None:
    """Create a new key that replaces the key ID, and print it. Both are valid until the end of --grace."""
    from d2c_mlops.serving.http.api_keys import rotate_key as renew

    remaining = _parse_age(grace, "--grace") or timedelta(0)
    lasts = _parse_lifetime(expires)
    key, token = renew(_keys_path(), id, now=datetime.now(UTC), grace=remaining, lifetime=lasts)
    if as_json:
        return show({**key.to_dict(), "token": token})
    click.echo(token)
    click.echo(f"key {key.id} for {key.name} replaces {id}, which expires within {grace}", err=True)
    return None


def _show_keys(as_json: bool) -> None:
    from d2c_mlops.serving.http.api_keys import read_keys

    key_rows = [key.to_dict() for key in read_keys(_keys_path()).values()]
    if as_json:
        return show(key_rows)
    if not key_rows:
        click.echo("no keys yet: services on this machine accept all requests; `d2c keys create NAME` creates a key")
        return None
    rows = [(k["id"], k["name"], " ".join(k["models"]), " ".join(k["scopes"]), k["state"], k["created_at"][:16], (k["expires_at"] or "")[:16])
            for k in key_rows]  # fmt: skip
    table(("id", "name", "models", "scopes", "state", "created", "expires"), rows)
    click.echo(f"stored in {here(_keys_path())}")
    return None


def _keys_path() -> Path:
    from d2c_mlops.serving.state_paths import keys_file

    return keys_file(settings())


def _models_without_versions(models: tuple[str, ...]) -> list[str]:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.versions import all_versions

    if not models:
        return []
    try:
        models_on_record = {version.model for version in all_versions(Ledger.of(settings()))}
    except D2CError:  # keys can be created without a ledger
        return []
    return [name for name in models if name not in models_on_record]


def _parse_lifetime(expires: str | None) -> timedelta | None:
    lasts = _parse_age(expires, "--expires")
    if lasts is not None and lasts <= timedelta(0):
        raise UsageError("the key would already be expired", where="--expires", next="give an age such as 90d")
    return lasts


def _parse_age(text: str | None, where: str) -> timedelta | None:
    if text is None:
        return None
    try:
        return timedelta(seconds=parse_age(text))
    except ValueError as err:
        raise UsageError(str(err), where=where) from None
