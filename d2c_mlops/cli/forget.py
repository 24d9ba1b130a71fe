"""Command about people who want to be forgotten: forget."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from . import example, json_option, main, settings, show, table

if TYPE_CHECKING:
    from ..forgetting.forget import Forgetting


@example(
    "d2c forget C-1001",
    "d2c forget C-1001 --also jane@example.com --yes",
    "d2c forget C-1001 --dataset shop --erase --yes --json",
)
@main.command()
@click.argument("customer")
@click.option(
    "--also", multiple=True, metavar="ID", help="A further identifier, such as an e-mail address; repeatable."
)
@click.option(
    "--dataset", multiple=True, metavar="NAME", help="Where CUSTOMER is this person; all datasets when not given."
)
@click.option(
    "--pseudonymise/--erase",
    default=True,
    help="Replace identifiers by pseudonyms, so that totals stay (default), or remove the rows.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing, also with --yes.")
@click.option("--yes", is_flag=True, help="Do it; without, the command lists what would be changed.")
@click.option("--by", metavar="NAME", help="Who answers for it; the user of this machine when not given.")
@json_option
def forget(
    customer: str,
    also: tuple[str, ...],
    dataset: tuple[str, ...],
    pseudonymise: bool,
    dry_run: bool,
    yes: bool,
    by: str | None,
    as_json: bool,
) -> None:
    """Erase or pseudonymise CUSTOMER in datasets, ledger, logs, kept answers and outputs.

    CUSTOMER is a customer_id or a lead_id, compared as a whole: 12 is not 123. Without --yes nothing is changed. What cannot be reached
    (backups, sources, sinks, files of models) is listed, and so are the versions that were trained on data that held the customer.
    Ingest leaves the customer out from then on. The ledger keeps a record with a keyed hash of CUSTOMER.
    """
    from ..forgetting.forget import forget as do

    found = do(customer, settings(), also=also, dataset=dataset, erase=not pseudonymise, yes=yes and not dry_run, by=by)
    if as_json:
        return show(found.to_dict())
    _tell(found)
    if not found.changed and found.found:
        names = [f"--also {shlex.quote(each)}" for each in also] + [f"--dataset {each}" for each in dataset]
        words = ["d2c forget", shlex.quote(customer), *names, *([] if pseudonymise else ["--erase"]), "--yes"]
        click.echo(f"nothing was changed; to do it: {' '.join(words)}")
    return None


def _tell(found: Forgetting) -> None:
    word = {"erase": "erased", "pseudonymise": "pseudonymised"}[found.mode]
    if found.found:
        table(("place", word if found.changed else f"to be {word}"), [(k, f"{n:,}") for k, n in found.found.items()])
    else:
        click.echo("nothing found" + (f"; forgotten at {found.done_before}" if found.done_before else ""))
    if found.models:
        click.echo("\ntrained on data that held the customer:")
        rows = [
            (m["model"], m["version"], m["created_at"][:16], "yes" if m["live"] else "", m["next"])
            for m in found.models
        ]
        table(("model", "version", "trained at", "live", "next"), rows)
    click.echo("\nnot reached:")
    for line in found.not_reached:
        click.echo(f"  {line}")
    if found.changed:
        click.echo(f"\non record as {found.request}; ingest leaves the customer out from now on")
