"""The `d2c` command line: one thin module per verb; every module of this package is loaded."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import D2CError, full_disk

if TYPE_CHECKING:
    from ..settings import Settings

C = TypeVar("C", bound=click.Command)
EXIT_CODES = "0 success · 1 internal error · 2 usage or settings · 3 data refused · 4 gate refused · 5 notebook failed · 75 retry later"


SECTIONS = ("Start", "Data", "Models", "Live", "Operate", "Decide")
SECTION_OF: dict[click.Command, str] = {}


class Commands(click.Group):
    """The group of all commands: D2CErrors set the exit code and are printed, with --json as JSON.

    The help lists them by section.
    """

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands section by section, a line each."""
        widest = max(len(name) for name in self.commands)
        for section in SECTIONS:
            names = [name for name in self.list_commands(context) if SECTION_OF.get(self.commands[name]) == section]
            lines = [(name.ljust(widest), self.commands[name].get_short_help_str(80)) for name in names]
            with formatter.section(section):
                formatter.write_dl(lines)

    def main(self, args: Sequence[str] | None = None, *pos: Any, **options: Any) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: temporary files are removed
        try:
            return super().main(arguments, *pos, **{**options, "standalone_mode": False})
        except click.exceptions.Exit as err:
            code = err.exit_code
        except click.Abort:
            code = _tell(arguments, {"error": "Cancelled", "exit_code": 130}, "cancelled")
        except click.ClickException as err:
            code = _tell(arguments, {"error": "UsageError", "what": err.format_message(), "exit_code": 2}, None, err)
        except D2CError as err:
            code = _tell(arguments, err.to_dict(), str(err))
        except KeyboardInterrupt:
            code = _tell(arguments, {"error": "Cancelled", "exit_code": 130}, "cancelled")
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except (OSError, sqlite3.OperationalError) as err:
            full = full_disk(err)
            if full is None:
                raise
            code = _tell(arguments, full.to_dict(), str(full))
        sys.exit(code)


def _tell(
    arguments: Sequence[str], values: dict[str, Any], text: str | None, err: click.ClickException | None = None
) -> int:
    if "--json" in arguments:
        print(json.dumps(values, ensure_ascii=False))
    elif err is not None:
        err.show()
    else:
        click.echo(f"{click.style('error', fg='red', bold=True)}: {text}", err=True)
    return int(values["exit_code"])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"Exit codes: {EXIT_CODES}.",
)
@click.version_option(None, "--version", package_name="d2c_mlops")
def main() -> None:
    """Take a retail notebook to production and keep it earning money."""


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


def example(*lines: str) -> Callable[[C], C]:
    """Add examples to a command's help."""

    def add(command: C) -> C:
        command.epilog = "\b\nExample" + ("s" if len(lines) > 1 else "") + ":\n" + "\n".join(f"  {x}" for x in lines)
        return command

    return add


def section(title: str) -> Callable[[C], C]:
    """List a command in a section of the help of `d2c`: one of SECTIONS."""

    def add(command: C) -> C:
        SECTION_OF[command] = SECTIONS[SECTIONS.index(title)]
        return command

    return add


def settings(**overrides: Any) -> Settings:
    """Return the effective settings of the current folder."""
    from ..private_files import tighten_store
    from ..settings import load_settings

    config = load_settings(overrides=overrides)
    tighten_store(config.store, config.root)
    return config


def show(values: Any) -> None:
    """Print JSON values as one document."""
    click.echo(json.dumps(values, ensure_ascii=False, indent=1, default=str))


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; each column is as wide as its widest cell."""
    cells = [list(head), *([("" if cell is None else str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for number, row in enumerate(cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        click.secho(line, bold=number == 0)


def here(path: Path) -> str:
    """Return a path relative to the current folder, if it is inside; else unchanged."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
