"""Command that loads the logs of services into the ledger: collect."""

from __future__ import annotations

from pathlib import Path

import click

from d2c_mlops.cli import example, here, json_option, main, section, settings, show


@example("d2c collect", "d2c collect --from /var/lib/d2c/log", "d2c collect --sheet reorder.xlsx")
@section("Operate")
@main.command()
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path),
    help="A log folder; default: the log folders of all services on this machine.",
)
@click.option(
    "--sheet",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A reorder sheet with a planner's overrides, instead of logs.",
)
@json_option
def collect(folder: Path | None, sheet: Path | None, as_json: bool) -> None:
    """Load service logs into the ledger.

    Predictions, feedback and outcomes are loaded exactly once. Services may keep running. A log file is removed after its rows are committed. Repeating the command changes nothing.

    With --sheet, the entries of a sheet that `d2c reorder` wrote become feedback: an override with its reason, or that the order was followed. Each row counts once; if it
    was changed after it was read, the first entry counts.
    """
    if sheet is not None:
        return _collect_sheet(sheet, as_json)
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.operations.daily_sketches import add_up_all
    from d2c_mlops.serving.log.log_collection import collect_log_folder as load
    from d2c_mlops.serving.log.log_collection import log_folders
    from d2c_mlops.serving.rollout.rollout_history import record_all_aborts

    config = settings()
    chosen_folders = log_folders(config, folder)
    ledger = Ledger.of(config)
    counts_by_folder = {str(log_folder): load(ledger, log_folder).to_dict() for log_folder in chosen_folders}
    if any(counts["new_aborts"] for counts in counts_by_folder.values()):
        record_all_aborts(ledger, config)
    add_up_all(ledger, config)
    if as_json:
        return show(counts_by_folder)
    for log_folder, counts in counts_by_folder.items():
        news = f"{counts['new_predictions']} new predictions, {counts['new_feedback']} new feedback records"
        news += f", {counts['new_aborts']} rollouts ended by services" if counts["new_aborts"] else ""
        news += f", {counts['probes']} of the predictions are probes" if counts["probes"] else ""
        news += (
            f", {counts['repeated']} repeated feedback records skipped (the first one counts)"
            if counts["repeated"]
            else ""
        )
        click.echo(f"{here(Path(log_folder))}: {news} ({counts['files']} files, {counts['faulty']} faulty lines)")
    if not counts_by_folder:
        click.echo("no service logs found")
    return None


def _collect_sheet(sheet: Path, as_json: bool) -> None:
    """Take the entries of a planner's sheet into the ledger."""
    from dataclasses import asdict
    from datetime import UTC, datetime

    from d2c_mlops.decisions.reorder_sheet import collect_sheet
    from d2c_mlops.ledger.store import Ledger

    counts = collect_sheet(sheet, Ledger.of(settings()), datetime.now(UTC))
    if as_json:
        return show({str(sheet): asdict(counts)})
    notes = [
        f"{number} {what}"
        for number, what in (
            (counts.repeated, "were read before"),
            (counts.changed, "were changed after they were read, the first entry counts"),
            (counts.without_reason, "overrides have no reason"),
        )
        if number
    ]
    click.echo(
        f"{here(sheet)}: {counts.followed} orders followed, {counts.overridden} overridden"
        + "".join(f"; {note}" for note in notes)
    )
    return None
