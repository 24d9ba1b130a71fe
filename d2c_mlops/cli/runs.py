"""Commands for runs: run, runs, runbook."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d2c_mlops.cli import example, here, json_option, main, section, settings, show, table
from d2c_mlops.errors import UsageError

TRACEBACK = 4  # frames that `d2c runs show` prints

if TYPE_CHECKING:
    from d2c_mlops.runs.execution.run_rows import Run
    from d2c_mlops.runs.run_history import RunFilter


@example(
    "d2c run train -p model=demand",
    "d2c run notebooks/report.ipynb -p month=2026-10 --timeout 600",
    "d2c run train_demand --slot due",
)
@section("Models")
@main.command()
@click.argument("notebook")
@click.option(
    "-p", "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the notebook."
)
@click.option("--timeout", type=float, metavar="SECONDS", help="Stop the run after this time.")
@click.option("--resume", metavar="RUN", help="Reuse the stages that this failed run completed.")
@click.option("--slot", metavar="TIME", help="Run a slot of the job [schedule:NOTEBOOK]: the slot's time, or `due`.")
@click.option("--stay", is_flag=True, help="With --slot: wait for further attempts after a temporary failure.")
@click.option("--grace", type=float, metavar="SECONDS", help="With --slot: skip a slot that is later than this (3600).")
@json_option
def run(
    notebook: str,
    parameters: tuple[str, ...],
    timeout: float | None,
    resume: str | None,
    slot: str | None,
    stay: bool,
    grace: float | None,
    as_json: bool,
) -> None:
    """Run a notebook and record the run.

    NOTEBOOK is a path or the name of a runbook. It runs with papermill. Parameters are checked against the notebook's cell tagged `parameters` before a kernel starts. The output notebook
    and an HTML page are saved, even if a cell fails.

    With --slot, run one slot of a scheduled job, for use by cron and orchestrators. The slot is claimed in the ledger, so it runs
    only once. If the slot is already done, or no slot is due, the exit code is 0.
    """
    if slot is not None:
        if parameters or resume or timeout is not None:
            raise UsageError("a job's parameters and timeout come from its section", where=f"[schedule:{notebook}]")
        return _run_slot(notebook, slot, stay, grace, as_json)
    from d2c_mlops.runs.execution.supervise import spare_worker

    with spare_worker() as worker, Progress(quiet=as_json) as progress:
        from d2c_mlops.runs.execution.execute import run as execute

        pairs, config = _parameter_pairs(parameters), settings()
        record = execute(
            notebook, pairs, config, timeout=timeout, progress=progress, spare_worker_process=worker, resume=resume
        )
    if as_json:
        return show(record.to_dict())
    for name, value in record.recorded.items():
        click.echo(f"  {name} = {value}")
    for note in record.notes or ():
        click.secho(f"note: {note}", fg="yellow", err=True)
    page = record.outputs["html"]
    click.echo(f"{record.id} succeeded in {record.seconds:.1f} s, {page if '://' in page else here(Path(page))}")
    if "refused" in record.outputs:
        click.secho(f"{record.outputs['refused']}; `d2c runs publish` retries", fg="yellow", err=True)
    return None


def _run_slot(job: str, slot: str, stay: bool, grace: float | None, as_json: bool) -> None:
    from datetime import timedelta

    from d2c_mlops.runs.schedule.jobs import scheduled_job
    from d2c_mlops.runs.schedule.slot_run import GRACE, run_job

    late = GRACE if grace is None else timedelta(seconds=grace)
    say = lambda text: click.echo(text, err=True)  # noqa: E731
    config = settings()
    ended = run_job(job, slot, config, wait_for_slot=stay, grace=late, print_line=say)
    if as_json:
        return show([slot_record.to_dict() for slot_record in ended])
    for slot_record in ended:
        click.echo(
            f"{job} {scheduled_job(config, job).local_time(slot_record.slot)} {slot_record.status}: {slot_record.reason}"
        )
    if not ended:
        click.echo(f"{job}: nothing is due")
    return None


def add_filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that filter runs."""
    options = (
        click.option("--model", metavar="NAME", help="Only runs of this model."),
        click.option("--job", metavar="NAME", help="Only runs of this job of the schedule."),
        click.option("--runbook", metavar="NAME", help="Only runs of this runbook or notebook."),
        click.option("--status", metavar="STATUS", help="running, succeeded, failed, timeout, cancelled or lost."),
        click.option("--failure", metavar="CLASS", help="notebook_error, data_refused, out_of_memory, temporary …"),
        click.option("--since", metavar="DATE", help="Only runs that started at this time or later (UTC)."),
        click.option("--until", metavar="DATE", help="Only runs that started before this time (UTC)."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def run_filter_from_options(options: dict[str, Any]) -> RunFilter:
    """Return the filter that the options describe."""
    from d2c_mlops.runs.run_history import RunFilter

    since, until = parse_time(options.pop("since")), parse_time(options.pop("until"))
    return RunFilter(**options, since=since, until=until)


def parse_time(text: str | None) -> datetime | None:
    """Parse a date or a time; without a time zone it is UTC."""
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a date", next="write 2026-10-31 or 2026-10-31T06:00Z") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


@example(
    "d2c runs", "d2c runs --model demand --status failed", "d2c runs --since 2026-11-01", "d2c runs show 20261122T2"
)
@section("Operate")
@main.group(invoke_without_command=True)
@add_filter_options
@click.option("-n", "--limit", default=20, show_default=True, help="Maximum number of runs.")
@json_option
@click.pass_context
def runs(context: click.Context, /, limit: int, as_json: bool, **options: Any) -> None:
    """List the newest runs."""
    if context.invoked_subcommand:
        return None
    from d2c_mlops.runs.run_history import find_runs as find

    records = find(_open_ledger(), run_filter_from_options(options), limit)
    if as_json:
        return show([record.to_dict() for record in records])
    if not records:
        click.echo("no runs found; `d2c run train -p model=demand` starts one")
        return None
    from d2c_mlops.runs.execution.page_header import duration_text

    rows = [
        (r.id, r.status if r.status != "failed" else r.failure, duration_text(r.seconds) if r.seconds is not None else "",
         r.job or "", r.model or "", _error_line(r) or _recorded_text(r.recorded))
        for r in records
    ]  # fmt: skip
    table(("run", "status", "took", "job", "model", "error or results"), rows)
    return None


@example("d2c runs show 20261122T2")
@runs.command("show")
@click.argument("run_id")
@json_option
def show_run(run_id: str, as_json: bool) -> None:
    """Show a run: its status, the next step and its details. RUN_ID may be the start of the id.

    --json prints the complete ledger record.
    """
    from d2c_mlops.runs.execution.run_rows import find_run

    record = find_run(_open_ledger(), run_id)
    if as_json:
        return show(record.to_dict())
    _print_run(record)
    return None


@section("Start")
@main.group()
def runbook() -> None:
    """List or copy the included notebooks (runbooks)."""


@example("d2c runbook list")
@runbook.command("list")
@json_option
def list_runbooks(as_json: bool) -> None:
    """List the runbooks with their parameters."""
    from d2c_mlops.runs.execution.execute import available_runbooks
    from d2c_mlops.runs.parameters.parameters import declared_parameters, load_notebook

    parameters_by_name = {
        name: [f"{p.name}: {p.annotation} = {p.default}" for p in declared_parameters(load_notebook(path), str(path))]
        for name, path in available_runbooks(settings()).items()
    }
    if as_json:
        return show(parameters_by_name)
    table(("runbook", "parameters"), [(name, ", ".join(listed)) for name, listed in parameters_by_name.items()])
    return None


@example("d2c runbook pull train")
@runbook.command()
@click.argument("name")
@json_option
def pull(name: str, as_json: bool) -> None:
    """Copy a runbook into the project's folder runbooks/. The copy replaces the included runbook."""
    from d2c_mlops.runs.execution.execute import available_runbooks

    config = settings()
    available = available_runbooks(config)
    if name not in available:
        raise UsageError(f"there is no runbook {name!r}", next=f"use one of: {', '.join(available)}")
    target = config.root / "runbooks" / f"{name}.ipynb"
    if target.exists():
        raise UsageError("the copy already exists", where=str(target), next="move or delete it to get a new copy")
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(available[name], target)
    return show({"path": str(target)}) if as_json else click.echo(f"copied to {here(target)}")


def _open_ledger() -> Any:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.execution.run_rows import close_lost_runs

    ledger = Ledger.of(settings())
    for lost in close_lost_runs(ledger, datetime.now(UTC)):
        click.secho(f"run {lost} was lost: its process no longer exists", fg="yellow", err=True)
    return ledger


def _parameter_pairs(parameters: tuple[str, ...]) -> dict[str, str]:
    wrong = [pair for pair in parameters if "=" not in pair]
    if wrong:
        raise UsageError(f"a parameter has the form NAME=VALUE, not {wrong[0]!r}", next="e.g. -p model=demand")
    return {name: value for name, _, value in (pair.partition("=") for pair in parameters)}


class Progress:
    """Progress by cell: a bar on a terminal, a line a cell elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None

    def __enter__(self) -> Callable[[dict[str, Any]], None]:
        return self.on_event

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove the bar, so that text can be printed where it was."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_event(self, event: dict[str, Any]) -> None:
        if self.quiet:
            return
        if event["event"] == "start":
            self.clear()
            click.echo(f"run {event['id']}", err=True)
        elif event["event"] == "cell" and not sys.stderr.isatty():
            click.echo(f"  cell {event['index'] + 1}/{event['total']}  {event['source']}", err=True)
        elif event["event"] == "cell":
            self._draw_bar(event)

    def _draw_bar(self, event: dict[str, Any]) -> None:
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            count, source = TextColumn("{task.completed}/{task.total}"), TextColumn("{task.description}", markup=False)
            columns = (BarColumn(), count, TimeElapsedColumn(), source)
            self.bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.bar.add_task("", total=event["total"])
        self.bar.update(self.bar.task_ids[0], completed=event["index"], description=event["source"])


def _recorded_text(recorded: dict[str, Any]) -> str:
    short = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in recorded.items()}
    return " ".join(f"{k}={v}" for k, v in short.items() if not isinstance(v, list | dict))[:80]


def _error_line(run: Run) -> str:
    """Return the error of a run in one line."""
    error = run.error or {}
    if not error:
        return ""
    place = f"cell {error['cell']}: " if error.get("cell") is not None else ""
    lines = str(error.get("message") or "").strip().splitlines()
    text = f"{place}{error.get('kind')}: {lines[0] if lines else ''}"
    return text if len(text) <= 80 else f"{text[:79]}…"


def _print_run(run: Run) -> None:
    from d2c_mlops.runs.execution.output_storage import output_exists
    from d2c_mlops.runs.execution.page_header import (
        detail_rows,
        end_summary,
        next_step,
        run_title,
        status_words,
        value_text,
    )

    config = settings()
    zone = config.jobs[run.job].zone if run.job and run.job in config.jobs else None
    colour = {"succeeded": "green", "running": "yellow"}.get(run.status, "red")
    click.secho(run_title(run), bold=True)
    click.secho(status_words(run), fg=colour, bold=True)
    click.echo(end_summary(run, zone))
    if run.error:
        click.secho(f"\n{run.error.get('kind')}: {run.error.get('message')}", fg="red")
        for line in run.error.get("traceback", [])[-TRACEBACK:]:
            click.echo(line)
        click.echo(f"\nnext: {next_step(run)}")
    for note in run.notes or ():
        click.secho(f"note: {note}", fg="yellow")
    click.echo()
    for name, value in detail_rows(run, zone, config.cpu_hour_price):
        click.echo(f"{name:22}{value}")
    for head, values in (("Results", run.recorded), ("Parameters", run.parameters)):
        for number, (name, value) in enumerate(values.items()):
            click.echo(f"{'' if number else head:22}{name} = {value_text(value)}")
    for dataset in run.inputs:
        click.echo(f"{'Data':22}{dataset['name']}, content {dataset['digest'][:12]}")
    if run.status != "running":
        for name, kind in (("Page", "html"), ("Output notebook", "notebook"), ("Log", "log")):
            path = run.outputs[kind]
            shown = path if "://" in path else here(Path(path))
            click.echo(f"{name:22}{shown}{'' if output_exists(path) else ' (missing)'}")
    if "refused" in run.outputs:
        click.secho(f"{run.outputs['refused']}; `d2c runs publish` retries", fg="yellow")
    if "pruned_at" in run.outputs:
        click.echo(f"outputs removed at {run.outputs['pruned_at']}")
