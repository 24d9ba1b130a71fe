"""What the command line and the package say about themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

import d2c_mlops
from d2c_mlops import verbs
from d2c_mlops.cli import SECTION_OF, SECTIONS, main, section


def groups(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Group]]:
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from groups(command, (*path, name))


def listed(path: tuple[str, ...]) -> list[str]:
    """The lines of a group's help that list commands, on a terminal of 80 columns."""
    text = CliRunner().invoke(main, [*path, "--help"], prog_name="d2c", terminal_width=80).output
    begin = "Commands:\n" if path else f"{SECTIONS[0]}:\n"
    after = text.split(begin)[1].split("  Exit codes")[0].split("  Example")[0]
    return [line for line in after.splitlines() if line.startswith("  ")]


def test_every_command_stands_in_one_section_of_the_help() -> None:
    text = CliRunner().invoke(main, ["--help"], prog_name="d2c", terminal_width=80).output
    titles = [line.removesuffix(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Options", *SECTIONS]
    assert set(SECTION_OF) == set(main.commands.values()) and set(SECTION_OF.values()) == set(SECTIONS)
    assert [line.split()[0] for line in listed(())] == [
        name for title in SECTIONS for name in sorted(main.commands) if SECTION_OF[main.commands[name]] == title
    ]


@pytest.mark.parametrize("path", [path for path, _ in groups(main)], ids=lambda path: " ".join(("d2c", *path)))
def test_each_command_is_listed_in_one_uncut_line_of_80_columns(path: tuple[str, ...]) -> None:
    names = sorted(dict(groups(main))[path].commands)
    lines = listed(path)
    assert sorted(line.split()[0] for line in lines) == names
    assert all(len(line) <= 80 and not line.endswith("...") and len(line.split()) > 2 for line in lines)


def test_a_section_that_the_help_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError):
        section("Models of mine")(click.Command("x"))


def test_the_package_lists_all_of_its_calls() -> None:
    assert set(d2c_mlops.VERBS) == set(verbs.__all__)
    assert set(d2c_mlops.__all__) == {"__version__", *verbs.__all__}
    assert [name for name in d2c_mlops.VERBS if f"d2c.{name}(" not in (d2c_mlops.__doc__ or "")] == []


def test_the_help_of_the_package_begins_with_what_it_is_and_has_no_list_of_modules() -> None:
    text = inspect.getdoc(d2c_mlops) or ""
    assert text.splitlines()[0] == "Take a retail notebook to production and keep it earning money."
    assert "Modules:" not in text
    assert text.rstrip().endswith("`d2c --help` lists all commands.")
