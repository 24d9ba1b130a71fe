"""Commands about notebooks that are not on the path to production yet: check."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UsageError
from . import example, here, json_option, main, show


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
    from ..convert.check import check as examine
    from ..convert.fix import fix
    from ..convert.report import Report

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
        fixed = fix(path, copy)
        if not (sarif or as_json):
            click.echo(f"{here(copy.resolve())}\n{fixed.to_text()}")
    raise click.exceptions.Exit(report.exit_code_for(fail_on))
