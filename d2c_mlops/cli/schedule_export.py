"""`d2c schedule export`: leave for another scheduler."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from d2c_mlops import __version__
from d2c_mlops.cli import example, here, json_option, settings, show
from d2c_mlops.cli.schedule import schedule
from d2c_mlops.errors import UsageError

LOCAL = ("cron", "systemd")  # targets on this machine: they know no path, so that the whole one is written


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
    "--out", metavar="FOLDER", type=click.Path(path_type=Path), help="Where to write (schedule_export/TARGET)."
)
@click.option("--command", metavar="TEXT", help="What starts d2c there; for cron and systemd this environment's d2c.")
@click.option(
    "--root", metavar="FOLDER", type=click.Path(path_type=Path), help="The project's folder there, when not this one."
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
    """Write the schedule, or some JOBS of it, for another scheduler.

    The files call `d2c run JOB --slot`, so that a slot is run once whoever calls. What a target cannot express is left
    to the ledger, or said in a comment at the head of its files.
    """
    from d2c_mlops.runs.exports import export as write
    from d2c_mlops.runs.exports.common import Place
    from d2c_mlops.runs.schedule.jobs import readable, refusal

    held = settings()
    known, refused = readable(held)
    if wrong := {name: failures for name, failures in refused.items() if not jobs or name in jobs}:
        raise refusal(wrong)
    unknown = [name for name in jobs if name not in known]
    if unknown:
        raise UsageError(f"there is no job {unknown[0]!r}", next=f"settings.ini has: {', '.join(known) or 'none'}")
    place = Place(
        command=command or (_d2c() if target in LOCAL else "d2c"),
        root=root or held.root,
        image=image or f"{held.root.name.lower() or 'd2c'}:{__version__}",
        made_at=datetime.now(UTC),
    )
    chosen = {name: job for name, job in known.items() if not jobs or name in jobs}
    for name in [name for name, job in chosen.items() if not job.cadence.cron]:
        del chosen[name]
        click.echo(f"{name} has no cadence and is left out: `d2c schedule run` starts it on new data", err=True)
    made = write(chosen, target, out or Path("schedule_export") / target, place)
    if as_json:
        return show([str(path) for path in made])
    for path in made:
        click.echo(here(path))
    return None


def _d2c() -> str:
    beside = Path(sys.executable).with_name("d2c")
    return str(beside if beside.exists() else shutil.which("d2c") or f"{sys.executable} -m d2c_mlops")
