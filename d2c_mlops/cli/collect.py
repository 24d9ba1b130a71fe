"""Command about what services logged: collect."""

from __future__ import annotations

from pathlib import Path

import click

from d2c_mlops.cli import example, here, json_option, main, settings, show


@example("d2c collect", "d2c collect --from /var/lib/d2c/log")
@main.command()
@click.option(
    "--from", "folder", type=click.Path(path_type=Path), help="A log folder; those of all services here when not given."
)
@json_option
def collect(folder: Path | None, as_json: bool) -> None:
    """Load what services logged into the ledger: predictions, feedback and outcomes, each exactly once.

    Services may run meanwhile. A file is removed once its rows are committed; repeating the command changes nothing.
    """
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.serving.log.collect import collect as load
    from d2c_mlops.serving.log.collect import folders
    from d2c_mlops.serving.rollout.history import settle

    held = settings()
    found = folders(held, folder)
    ledger = Ledger.of(held)
    told = {str(each): load(ledger, each).to_dict() for each in found}
    if any(counts["new_aborts"] for counts in told.values()):
        settle(ledger, held)
    if as_json:
        return show(told)
    for each, counts in told.items():
        news = f"{counts['new_predictions']} predictions, {counts['new_feedback']} feedback new"
        news += f", {counts['new_aborts']} rollouts ended by services" if counts["new_aborts"] else ""
        news += f", {counts['probes']} of the predictions by probes" if counts["probes"] else ""
        news += f", {counts['repeated']} feedback left out: the first of its kind holds" if counts["repeated"] else ""
        click.echo(f"{here(Path(each))}: {news} ({counts['files']} files, {counts['faulty']} faulty lines)")
    if not told:
        click.echo("no service has logged anything here")
    return None
