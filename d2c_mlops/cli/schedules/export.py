"""`d2c schedule export`: write the schedule for another scheduler."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from d2c_mlops import __version__
from d2c_mlops.cli import example, here, json_option, settings, show
from d2c_mlops.cli.schedules.schedule import schedule
from d2c_mlops.errors import UsageError

LOCAL = ("cron", "systemd")  # targets on this machine: they have no PATH, so the full path of the command is written


@example(
    "d2c schedule export --to airflow --out dags/",
    "d2c schedule export --to kubernetes --image registry.example/shop:1.4",
    "d2c schedule export train_demand --to systemd",
)
@schedule.command()
@click.argument("jobs", nargs=-1)
@click.option(
    "--to", "target", required=True, metavar="TARGET", help="airflow, cron, github-actions, kubernetes or systemd."
)
@click.option(
    "--out", metavar="FOLDER", type=click.Path(path_type=Path), help="Output folder; default: schedule_export/TARGET."
)
@click.option(
    "--command",
    metavar="TEXT",
    help="Command that starts d2c; default for cron and systemd: the d2c of this environment.",
)
@click.option(
    "--root",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="The project's folder on the target; default: this folder.",
)
@click.option("--image", metavar="NAME", help="Container image of the project, for Kubernetes.")
@json_option
def export(
    jobs: tuple[str, ...],
    target: str,
    out: Path | None,
    command: str | None,
    root: Path | None,
    image: str | None,
    as_json: bool,
) -> None:
    """Write the schedule, or only JOBS, for another scheduler.

    The files call `d2c run JOB --slot`, so each slot runs only once. Rules that a target cannot express are applied by
    the ledger or listed in a comment at the top of the files.
    """
    from d2c_mlops.runs.exports import export as write
    from d2c_mlops.runs.exports.export_parts import ExportContext
    from d2c_mlops.runs.schedule.jobs import readable_jobs, refusal_error

    config = settings()
    available, refused = readable_jobs(config)
    if wrong := {name: failures for name, failures in refused.items() if not jobs or name in jobs}:
        raise refusal_error(wrong)
    unknown = [name for name in jobs if name not in available]
    if unknown:
        raise UsageError(f"there is no job {unknown[0]!r}", next=f"settings.ini has: {', '.join(available) or 'none'}")
    place = ExportContext(
        command=command or (_d2c_command() if target in LOCAL else "d2c"),
        root=root or config.root,
        image=image or f"{config.root.name.lower() or 'd2c'}:{__version__}",
        made_at=datetime.now(UTC),
    )
    chosen = {name: job for name, job in available.items() if not jobs or name in jobs}
    for name in [name for name, job in chosen.items() if not job.cadence.cron]:
        del chosen[name]
        click.echo(f"{name} has no cadence and is not exported: `d2c schedule run` starts it on new data", err=True)
    paths = write(chosen, target, out or Path("schedule_export") / target, place)
    if as_json:
        return show([str(path) for path in paths])
    for path in paths:
        click.echo(here(path))
    return None


def _d2c_command() -> str:
    beside = Path(sys.executable).with_name("d2c")
    return str(beside if beside.exists() else shutil.which("d2c") or f"{sys.executable} -m d2c_mlops")
