"""Command that erases or pseudonymises a customer's data: forget."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from . import example, json_option, main, section, settings, show, table

if TYPE_CHECKING:
    from ..forgetting.forget import ForgetReport


@example(
    "d2c forget C-1001",
    "d2c forget C-1001 --also jane@example.com --yes",
    "d2c forget C-1001 --dataset shop --erase --yes --json",
)
@section("Data")
@main.command()
@click.argument("customer")
@click.option(
    "--also", multiple=True, metavar="ID", help="A further identifier, such as an e-mail address; repeatable."
)
@click.option(
    "--dataset",
    multiple=True,
    metavar="NAME",
    help="A dataset in which CUSTOMER is this person; repeatable; default: all datasets.",
)
@click.option(
    "--pseudonymise/--erase",
    default=True,
    help="Replace identifiers by pseudonyms, so that totals stay (default), or remove the rows.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing, even with --yes.")
@click.option("--yes", is_flag=True, help="Apply the changes; without it, the command only lists them.")
@click.option("--by", metavar="NAME", help="The person responsible; default: the current user.")
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
    """Erase or pseudonymise the data of CUSTOMER.

    The command covers datasets, ledger, logs, saved responses and outputs. CUSTOMER is a customer_id or a lead_id. The whole ID must match: 12 does not match 123. Without --yes, nothing is changed. Places that the
    command cannot change (backups, sources, sinks, model files) are listed, and so are the versions trained on data of this customer.
    Later ingests skip the customer. The ledger keeps a record with a keyed hash of CUSTOMER.
    """
    from ..forgetting.forget import forget as do

    report = do(
        customer, settings(), also=also, dataset=dataset, erase=not pseudonymise, yes=yes and not dry_run, by=by
    )
    if as_json:
        return show(report.to_dict())
    _show_report(report)
    if not report.changed and report.found:
        names = [f"--also {shlex.quote(identifier)}" for identifier in also] + [
            f"--dataset {identifier}" for identifier in dataset
        ]
        words = ["d2c forget", shlex.quote(customer), *names, *([] if pseudonymise else ["--erase"]), "--yes"]
        click.echo(f"nothing was changed; to apply the changes: {' '.join(words)}")
    return None


def _show_report(report: ForgetReport) -> None:
    word = {"erase": "erased", "pseudonymise": "pseudonymised"}[report.mode]
    if report.found:
        table(("place", word if report.changed else f"to be {word}"), [(k, f"{n:,}") for k, n in report.found.items()])
    else:
        click.echo("nothing found" + (f"; already processed at {report.done_before}" if report.done_before else ""))
    if report.models:
        click.echo("\nversions trained on data of this customer:")
        rows = [
            (m["model"], m["version"], m["created_at"][:16], "yes" if m["live"] else "", m["next"])
            for m in report.models
        ]
        table(("model", "version", "trained at", "live", "next"), rows)
    click.echo("\nnot changed by this command:")
    for line in report.not_reached:
        click.echo(f"  {line}")
    if report.changed:
        click.echo(f"\nrecorded as {report.request}; later ingests skip the customer")
