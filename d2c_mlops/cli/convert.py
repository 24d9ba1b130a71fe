"""Commands about notebooks that are not on the path to production yet: check, convert, eject."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from d2c_mlops.cli import example, here, json_option, main, settings, show
from d2c_mlops.errors import UsageError


@example("d2c check old/demand.ipynb", "d2c check notebooks/ --sarif > check.sarif", "d2c check old/demand.ipynb --fix")
@main.command()
@click.argument("notebooks", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--select", multiple=True, metavar="RULE", help="Only rules with this id, start of an id, or name.")
@click.option("--ignore", multiple=True, metavar="RULE", help="All rules but these.")
@click.option(
    "--fix", "fixing", is_flag=True, help="Write a copy NAME_fixed.ipynb with the fixes that change no meaning."
)
@click.option("--fail-on", type=click.Choice(["error", "warning", "never"]), default="error", show_default=True,
              help="Exit with 3 when a finding is at least this severe.")  # fmt: skip
@click.option("--sarif", is_flag=True, help="Print SARIF 2.1.0, which code hosts and editors read.")
@json_option
def check(
    notebooks: tuple[Path, ...], select: tuple[str, ...], ignore: tuple[str, ...], fixing: bool, fail_on: str,
    sarif: bool, as_json: bool,
) -> None:  # fmt: skip
    """Say what in NOTEBOOKS (files or folders) would break production, cell by cell, without running any of it.

    Hidden state, paths and secrets, libraries that changed, leakage, what is missing before it can be scheduled: each
    finding says why it matters and what mends it. docs/rules.md describes the rules.
    """
    from d2c_mlops.convert.check.apply_fixes import write_fixed_copy
    from d2c_mlops.convert.check.check import check as examine
    from d2c_mlops.convert.check.report import Report

    reports = [examine(path, select=select or None, ignore=ignore or None) for path in notebooks]
    report = Report(
        tuple(name for each in reports for name in each.notebooks),
        tuple(finding for each in reports for finding in each.findings),
    )
    if sarif or as_json:
        show(report.to_sarif() if sarif else report.to_dict())
    else:
        click.echo(report.to_text())
    for path in map(Path, report.notebooks) if fixing else ():
        copy = path.with_stem(f"{path.stem}_fixed")
        if copy.exists():
            raise UsageError("the copy is there already", where=str(copy), next="move it away")
        fixed = write_fixed_copy(path, copy)
        if not (sarif or as_json):
            click.echo(f"{here(copy.resolve())}\n{fixed.to_text()}")
    raise click.exceptions.Exit(report.exit_code_for(fail_on))


@example(
    "d2c convert old/demand.ipynb --data old/",
    "d2c convert old/churn.ipynb --name churn --no-run",
    "d2c convert old/churn.ipynb --until read",
)
@main.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("--name", default="", metavar="NAME", help="Name of the module and the model; the file's when not given.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where its files are; its own folder when not given.",
)
@click.option("--install", is_flag=True, help="Install what it imports and is missing, for its runs only.")
@click.option("--local", multiple=True, metavar="NAME",
              help="NAME means the author's own module, though a package has that name too.")  # fmt: skip
@click.option("--index", multiple=True, metavar="NAME",
              help="NAME means the package, though a module beside the notebook has that name too.")  # fmt: skip
@click.option(
    "--isolation",
    type=click.Choice(["bubblewrap", "namespaces", "landlock"]),
    help="How its code is kept inside; the best that works on this machine when not given.",
)
@click.option(
    "--container", default="", metavar="IMAGE",
    help="Run its code in a container of this image (docker or podman), also where the system has no isolation: macOS.",
)  # fmt: skip
@click.option(
    "--trust", is_flag=True, help="Run its code without isolation, with your rights: only if you trust its author."
)
@click.option("--fetch", is_flag=True,
              help="Download the addresses that it reads first, outside of the isolation; it reads the copies.")  # fmt: skip
@click.option("--fetch-from", multiple=True, metavar="HOST",
              help="HOST or HOST:PORT, which is inside your network, may be asked by --fetch.")  # fmt: skip
@click.option("--no-run", is_flag=True, help="Stop after the stages that execute nothing.")
@click.option("--until", type=click.Choice(["revive", "read", "write", "verify"]), default="verify",
              help="Stop after this stage and show what it found.  [default: all of them]")  # fmt: skip
@click.option("--timeout", type=float, default=600.0, show_default=True, metavar="SECONDS", help="For one execution.")
@click.option("--memory", type=float, default=4.0, show_default=True, metavar="GB", help="For one execution.")
@json_option
def convert(
    notebook: Path, name: str, data: Path | None, install: bool, local: tuple[str, ...], index: tuple[str, ...],
    isolation: str | None, container: str, trust: bool, fetch: bool, fetch_from: tuple[str, ...], no_run: bool, until: str, timeout: float, memory: float, as_json: bool,
) -> None:  # fmt: skip
    """Make an old NOTEBOOK a literate notebook and a tested package, and prove that it still computes the same.

    The notebook is fixed until it runs on the installed libraries, in a copy of its folder; the original is never changed.
    What cannot be converted is refused with the cell, the reason and what a person can do, and a conversion that computes
    something else is reported: both end with exit code 3.

    Its code runs several times (the report says how often), isolated from this machine and each time in a copy of its folder: no
    file outside the copy can be read or changed, no connection opened, no other process or environment variable seen, and all that
    it starts ends with it. Time, memory, size of files and number of processes are limited. The modes bubblewrap, namespaces,
    landlock and --container protect all of these (landlock before version 6 of its interface does not stop signals to other
    processes); --trust protects the limits alone. The report has the table. Where no mode works the command is refused;
    --no-run executes nothing. --container runs it with the Python and the libraries of the image, which must hold those of d2c.
    --install takes names of packages and wheels alone, so that no code of a package runs outside. Isolation has no network: --fetch
    downloads the addresses that are written in the notebook (http and https, public hosts, limits of size and time, no credentials
    of yours), and the report lists them with what was read instead.
    """
    from d2c_mlops.convert.convert import STAGES
    from d2c_mlops.convert.convert import convert as walk
    from d2c_mlops.convert.run.containers import PREFIX
    from d2c_mlops.convert.run.isolation import TRUSTED

    chosen = [
        name for name, given in (("--isolation", isolation), ("--container", container), ("--trust", trust)) if given
    ]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other", next=f"pass {chosen[0]} alone")
    last = STAGES.index(until) + 1
    with _progress(quiet=as_json) as progress:
        done = walk(
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
        show(done.to_dict())
    else:
        click.echo(done.to_text())
    raise click.exceptions.Exit(done.exit_code)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show stages and mends as lines; which cell runs in a line that is overwritten, where there is a terminal."""
    if quiet:
        yield lambda text: None
    elif not sys.stderr.isatty():
        yield lambda text: None if text.startswith("run ") else click.echo(f"  {text}", err=True)
    else:
        from rich.console import Console
        from rich.markup import escape

        console = Console(stderr=True)
        with console.status("") as status:

            def hear(text: str) -> None:
                if not text.startswith("run "):
                    console.print(f"  {escape(text)}", highlight=False)
                status.update(escape(text))

            yield hear


@example("d2c eject ../plain")
@main.command()
@click.argument("out", type=click.Path(path_type=Path))
@json_option
def eject(out: Path, as_json: bool) -> None:
    """Copy the project to OUT without notebooks and nbdev: plain modules, and their assertions as pytest files, run once."""
    from d2c_mlops.convert.eject import eject as leave

    made = leave(settings().root, out)
    return show(made.to_dict()) if as_json else click.echo(made.to_text())
