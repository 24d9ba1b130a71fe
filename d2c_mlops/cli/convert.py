"""Commands about notebooks that are not on the path to production yet: check, convert, eject."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from d2c_mlops.cli import example, here, json_option, main, section, settings, show
from d2c_mlops.errors import UsageError


@example("d2c check old/demand.ipynb", "d2c check notebooks/ --sarif > check.sarif", "d2c check old/demand.ipynb --fix")
@section("Models")
@main.command()
@click.argument("notebooks", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--select", multiple=True, metavar="RULE", help="Run only rules with this id, id prefix, or name.")
@click.option("--ignore", multiple=True, metavar="RULE", help="Skip rules with this id, id prefix, or name.")
@click.option(
    "--fix", "fixing", is_flag=True, help="Write a copy NAME_fixed.ipynb with the fixes that do not change its meaning."
)
@click.option("--fail-on", type=click.Choice(["error", "warning", "never"]), default="error", show_default=True,
              help="Exit with code 3 if a finding has at least this severity.")  # fmt: skip
@click.option("--sarif", is_flag=True, help="Print SARIF 2.1.0, for code hosts and editors.")
@json_option
def check(
    notebooks: tuple[Path, ...], select: tuple[str, ...], ignore: tuple[str, ...], fixing: bool, fail_on: str,
    sarif: bool, as_json: bool,
) -> None:  # fmt: skip
    """Report what in NOTEBOOKS would break production, cell by cell.

    NOTEBOOKS are files or folders. They are not run.

    Rules cover hidden state, paths, secrets, library changes, leakage and readiness for scheduled runs. Each
    finding says why it matters and how to fix it. docs/rules.md describes the rules.
    """
    from d2c_mlops.convert.check.apply_fixes import write_fixed_copy
    from d2c_mlops.convert.check.check import check as apply_all_rules
    from d2c_mlops.convert.check.finding_report import Report

    reports = [apply_all_rules(path, select=select or None, ignore=ignore or None) for path in notebooks]
    report = Report(
        tuple(name for report in reports for name in report.notebooks),
        tuple(finding for report in reports for finding in report.findings),
    )
    if sarif or as_json:
        show(report.to_sarif() if sarif else report.to_dict())
    else:
        click.echo(report.to_text())
    for path in map(Path, report.notebooks) if fixing else ():
        copy = path.with_stem(f"{path.stem}_fixed")
        if copy.exists():
            raise UsageError("the copy already exists", where=str(copy), next="move it away")
        fixed = write_fixed_copy(path, copy)
        if not (sarif or as_json):
            click.echo(f"{here(copy.resolve())}\n{fixed.to_text()}")
    raise click.exceptions.Exit(report.exit_code_for(fail_on))


@example(
    "d2c convert old/demand.ipynb --data old/",
    "d2c convert old/churn.ipynb --name churn --no-run",
    "d2c convert old/churn.ipynb --until read",
)
@section("Models")
@main.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("--name", default="", metavar="NAME", help="Name of the module and the model. [default: the file's name]")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder of its input files. [default: the notebook's folder]",
)
@click.option("--install", is_flag=True, help="Install missing packages that it imports, for its runs only.")
@click.option("--local", multiple=True, metavar="NAME",
              help="Use the local module NAME, although a package has the same name.")  # fmt: skip
@click.option("--index", multiple=True, metavar="NAME",
              help="Use the package NAME, although a local module has the same name.")  # fmt: skip
@click.option(
    "--isolation",
    type=click.Choice(["bubblewrap", "namespaces", "landlock"]),
    help="Isolation mode of its code. [default: the best that works on this machine]",
)
@click.option(
    "--container", default="", metavar="IMAGE",
    help="Run its code in a container of this image (docker or podman), also on systems without isolation, such as macOS.",
)  # fmt: skip
@click.option(
    "--trust",
    is_flag=True,
    help="Run its code without isolation and with your permissions: only if you trust its author.",
)
@click.option("--fetch", is_flag=True,
              help="Download the URLs that it reads before the run, outside of the isolation; it reads the copies.")  # fmt: skip
@click.option("--fetch-from", multiple=True, metavar="HOST",
              help="Allow --fetch to access HOST or HOST:PORT inside your network.")  # fmt: skip
@click.option("--no-run", is_flag=True, help="Run no code: read and write only.")
@click.option("--until", type=click.Choice(["revive", "read", "write", "verify"]), default="verify",
              help="Stop after this stage and show its result; revive means repair and run.  [default: all stages]")  # fmt: skip
@click.option(
    "--timeout", type=float, default=600.0, show_default=True, metavar="SECONDS", help="Limit of one execution."
)
@click.option("--memory", type=float, default=4.0, show_default=True, metavar="GB", help="Limit of one execution.")
@json_option
def convert(
    notebook: Path, name: str, data: Path | None, install: bool, local: tuple[str, ...], index: tuple[str, ...],
    isolation: str | None, container: str, trust: bool, fetch: bool, fetch_from: tuple[str, ...], no_run: bool, until: str, timeout: float, memory: float, as_json: bool,
) -> None:  # fmt: skip
    """Convert NOTEBOOK to a tested package and verify its results.

    Writes a literate notebook, a package exported from it, tests, and a model, and compares their results with the original's.

    A copy of the notebook is fixed until it runs on the installed libraries; the original is never changed.
    A notebook that cannot be converted is refused with the cell, the reason and the next step. A conversion that gives
    other results is reported. Both end with exit code 3.

    Its code runs several times (the report says how often), isolated from this machine, each time in a copy of its folder: no
    file outside the copy can be read or changed, no connection opened, no other process or environment variable read, and all that
    it starts ends with it. Time, memory, size of files and number of processes are limited. The modes bubblewrap, namespaces,
    landlock and --container protect all of these (landlock before version 6 of its interface does not stop signals to other
    processes); --trust keeps only the limits. The report contains the table. If no mode works, the command is refused;
    --no-run executes nothing. --container uses the Python and the libraries of the image, which must include those of d2c.
    --install accepts only package names and wheels, so no package code runs outside. Isolation has no network: --fetch
    downloads the URLs that are written in the notebook (http and https, public hosts, limits of size and time, no credentials
    of yours), and the report lists them with the downloaded files.
    """
    from d2c_mlops.convert.convert import STAGES
    from d2c_mlops.convert.convert import convert as walk
    from d2c_mlops.convert.run.containers import PREFIX
    from d2c_mlops.convert.run.isolation import TRUSTED

    chosen = [
        name for name, value in (("--isolation", isolation), ("--container", container), ("--trust", trust)) if value
    ]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other", next=f"pass {chosen[0]} alone")
    last = STAGES.index(until) + 1
    with _stage_progress(quiet=as_json) as progress:
        conversion = walk(
            notebook,
            settings=settings(),
            name=name,
            data=data,
            install=install,
            local=local,
            index=index,
            run=not no_run,
            stages=(*STAGES[:last], "report"),
            timeout=timeout,
            memory=int(memory * 2**30),
            isolation=TRUSTED if trust else f"{PREFIX}{container}" if container else isolation or "",
            fetch=fetch or bool(fetch_from),
            fetch_from=fetch_from,
            progress=progress,
        )
    if as_json:
        show(conversion.to_dict())
    else:
        click.echo(conversion.to_text())
    raise click.exceptions.Exit(conversion.exit_code)


@contextmanager
def _stage_progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Print stages and fixes as lines; on a terminal, show the running cell in a status line."""
    if quiet:
        yield lambda text: None
    elif not sys.stderr.isatty():
        yield lambda text: None if text.startswith("run ") else click.echo(f"  {text}", err=True)
    else:
        from rich.console import Console
        from rich.markup import escape

        console = Console(stderr=True)
        with console.status("") as status:

            def show_progress(text: str) -> None:
                if not text.startswith("run "):
                    console.print(f"  {escape(text)}", highlight=False)
                status.update(escape(text))

            yield show_progress


@example("d2c eject ../plain")
@section("Models")
@main.command()
@click.argument("out", type=click.Path(path_type=Path))
@json_option
def eject(out: Path, as_json: bool) -> None:
    """Export the project to plain Python in OUT, without notebooks.

    Modules lose their nbdev marks, the notebooks' assertions become pytest files, and these are run once.
    """
    from d2c_mlops.convert.eject import eject as leave

    result = leave(settings().root, out)
    return show(result.to_dict()) if as_json else click.echo(result.to_text())
