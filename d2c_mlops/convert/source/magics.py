"""Separate IPython syntax (magics, shell commands, help) from Python, without starting IPython."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from d2c_mlops.convert.source.scopes import split_words

PYTHON_CELL_MAGICS = frozenset({"capture", "memit", "mprun", "prun", "time", "timeit"})
STATEMENT_MAGICS = frozenset({"memit", "prun", "time", "timeit"})
AUTOMAGICS = frozenset(
    split_words(
        "alias bookmark cat cd clear conda config cp debug dirs edit env hist history ldir less lf lk "
        "ll load load_ext logstart logstop ls lsmagic magic mamba man matplotlib mkdir more mv "
        "notebook page pastebin pdb pdoc pfile pinfo pip popd pprint precision prun psearch psource "
        "pushd pwd pycat pylab quickref recall rehashx reload_ext reset rm rmdir run save sc store sx "
        "system tb time timeit unalias uv who who_ls whos xdel xmode"
    )
)

_ESCAPED = re.compile(r"^\s*(%%?|!!?|\?\??|[,;/])")
_OPERATOR = re.compile(r"\s*[\d(]")  # behind a %: a remainder
_INDEX = re.compile(r"\[-?\d+\]")
_PROMPT = re.compile(r"^(?:In \[\d+\]: ?|>>> ?)")
_CONTINUED_PROMPT = re.compile(r"^(?:In \[\d+\]: ?|>>> ?| *\.{3,}: ?|\.\.\. ?)")
_OPENING, _CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Magic:
    """One piece of IPython syntax; lines count from 1 within the cell."""

    kind: str  # line, cell, shell, help, automagic or call (`,f a b`)
    name: str  # "matplotlib", "pip", "time"; the command itself for a shell line
    argument: str  # what stands behind the name
    line: int
    end_line: int
    target: str = ""  # `files` in `files = !ls`

    @property
    def command(self) -> str:
        """The words as a shell or IPython would read them, without the leading sign."""
        return f"{self.name} {self.argument}".strip()


@dataclass
class _State:
    """Where a scan stands between two lines of Python."""

    depth: int = 0
    quote: str = ""
    continued: bool = False

    @property
    def fresh(self) -> bool:
        return not (self.depth or self.quote or self.continued)


def split_magics(source: str) -> tuple[str, tuple[Magic, ...]]:
    """Return the cell's Python code without magics, with exactly as many lines as `source`, and the magics.

    A magic leaves an empty line (`pass` inside a block), `%time x = f()` leaves `x = f()`, `a = !ls` leaves the call
    that IPython makes of it. A `%` inside brackets, strings or a continued line is Python.
    """
    lines = _without_prompts(source.split("\n"))
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if lines[first].startswith("%%"):
        return _cell_magic(lines, first)
    alone = _automagic(lines)
    if alone is not None:
        return "\n".join("" for _ in lines), (alone,)
    return _line_magics(lines)


def _without_prompts(lines: list[str]) -> list[str]:
    """Take off prompts copied with the code, and the indentation of the first line, as IPython does."""
    first = next((line for line in lines if line.strip()), "")
    if _PROMPT.match(first):
        lines = [_CONTINUED_PROMPT.sub("", line, count=1) for line in lines]
        first = next((line for line in lines if line.strip()), "")
    indent = first[: len(first) - len(first.lstrip(" \t"))]
    if indent:
        lines = [line.removeprefix(indent) for line in lines]
    return lines


def _cell_magic(lines: list[str], first: int) -> tuple[str, tuple[Magic, ...]]:
    name, argument = _magic_name(lines[first][2:])
    magic = Magic("cell", name, argument, first + 1, len(lines))
    if name not in PYTHON_CELL_MAGICS:
        return "\n".join("" for _ in lines), (magic,)
    body, inner = _line_magics(["" for _ in lines[: first + 1]] + lines[first + 1 :])
    target = argument.split()[-1] if name == "capture" and argument else ""
    if target.isidentifier():
        body_lines = body.split("\n")
        body_lines[first] = f"{target} = None"
        body = "\n".join(body_lines)
    return body, (magic, *inner)


def _automagic(lines: list[str]) -> Magic | None:
    """`pip install x` alone in its cell; IPython only completes the sign there."""
    if len(lines) != 1:
        return None
    name, argument = _magic_name(lines[0])
    if name not in AUTOMAGICS or not argument or argument[0] in "=(.[,:+*/<>|&":
        return None
    return None if _is_python(lines[0]) else Magic("automagic", name, argument, 1, 1)


def _line_magics(lines: list[str]) -> tuple[str, tuple[Magic, ...]]:
    plain_lines: list[str] = []
    magics: list[Magic] = []
    state, number = _State(), 0
    while number < len(lines):
        line = lines[number]
        if state.fresh and (magic := _read_magic(lines, number)):
            magics.append(magic)
            indent = line[: len(line) - len(line.lstrip())]
            plain_lines.append(
                indent + _python_replacement(magic, indent) if indent or _python_replacement(magic, indent) else ""
            )
            plain_lines.extend("" for _ in range(magic.end_line - magic.line))
            number = magic.end_line
            continue
        _scan_line(line, state)
        plain_lines.append(line)
        number += 1
    return "\n".join(plain_lines), tuple(magics)


def _read_magic(lines: list[str], number: int) -> Magic | None:
    line = lines[number]
    target, sign, after_sign = _assigned_magic(line)
    if target and _is_python(f"{target} = 0"):
        text, last = _join_continuation(lines, number, after_sign)
        name, argument = _magic_name(text)
        return Magic("line" if sign == "%" else "shell", name, argument, number + 1, last + 1, target)
    escaped = _ESCAPED.match(line)
    if escaped:
        text, last = _join_continuation(lines, number, line[escaped.end() :])
        kind = {"%": "line", "!": "shell", "?": "help"}.get(escaped[1][0], "call")
        if kind == "line" and text.rstrip().endswith("?"):
            kind = "help"
        if escaped[1] == "%%":
            text = f"%{text}"
        name, argument = _magic_name(text)
        return Magic(kind, name, argument, number + 1, last + 1)
    help_object = _object_of_help(line)
    if help_object and not _is_python(line.strip()):
        return Magic("help", help_object, "", number + 1, number + 1)
    return None


def _assigned_magic(line: str) -> tuple[str, str, str]:
    """Return target, sign and rest of `files = !ls` or `x = %magic`; empty texts for any other line."""
    before, _, behind = line.partition("=")
    target, behind = before.strip(), behind.lstrip()
    sign, command = behind[:1], behind[1:]
    wrong = command.startswith("=") if sign == "!" else sign != "%" or _OPERATOR.match(command)
    if not target or wrong or not command or not set("!<>%\"'#").isdisjoint(target):
        return "", "", ""
    return target, sign, command


def _object_of_help(line: str) -> str:
    """Return the object of a help line such as `a.b[0]?`; an empty text for any other line."""
    if "?" not in line:
        return ""
    text = line.rstrip()
    body = text.rstrip("?")
    if len(text) - len(body) not in (1, 2) or not set("#\"'").isdisjoint(body):
        return ""
    end = start = place = len(body)
    while place:
        if body[place - 1] == "]":
            place = body.rfind("[", max(0, place - 24), place)
            if place <= 0 or not _INDEX.match(body, place):
                break
            continue
        word = place
        while word and (body[word - 1] == "*" or body[word - 1] == "_" or body[word - 1].isalnum()):
            word -= 1
        behind = body[word:place]
        name = behind.lstrip("".join({letter for letter in behind if letter.isdecimal()}))
        if not name:
            break
        start = place - len(name)
        if start > word or word < 2 or body[word - 1] != ".":
            break
        place = word - 1
    if start == end:
        return ""
    signs = len(body[:start]) - len(body[:start].rstrip("%"))
    return body[start - min(2, signs) :]


def _join_continuation(lines: list[str], number: int, text: str) -> tuple[str, int]:
    """Follow a magic over its continuation lines."""
    parts = [text.rstrip()]
    while parts[-1].endswith("\\") and number + 1 < len(lines):
        number += 1
        parts[-1] = parts[-1][:-1]
        parts.append(lines[number].strip())
    return " ".join(parts).strip(), number


def _magic_name(text: str) -> tuple[str, str]:
    name, _, argument = text.strip().partition(" ")
    return name, argument.strip()


def _python_replacement(magic: Magic, indent: str) -> str:
    """The Python code that replaces a magic on its first line."""
    if magic.target:
        call = "getoutput" if magic.kind == "shell" else "run_line_magic"
        call_arguments = repr(magic.command) if magic.kind == "shell" else f"{magic.name!r}, {magic.argument!r}"
        return f"{magic.target} = get_ipython().{call}({call_arguments})"
    if magic.kind == "line" and magic.name in STATEMENT_MAGICS:
        statement = re.sub(r"^(?:-\w+(?:\s+\d+)?\s+)*", "", magic.argument)
        if statement and _is_python(statement):
            return statement
    return "pass" if indent else ""


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _scan_line(line: str, state: _State) -> None:
    """Move `state` over one line: brackets, strings, a trailing backslash."""
    state.continued = False
    position = 0
    while position < len(line):
        character = line[position]
        if state.quote:
            if character == "\\":
                position += 2
                continue
            if line.startswith(state.quote, position):
                position += len(state.quote)
                state.quote = ""
                continue
        elif character == "#":
            return
        elif character in "\"'":
            state.quote = character * 3 if line.startswith(character * 3, position) else character
            position += len(state.quote)
            continue
        elif character in _OPENING:
            state.depth += 1
        elif character in _CLOSING:
            state.depth = max(0, state.depth - 1)
        elif character == "\\" and position == len(line) - 1:
            state.continued = True
        position += 1
    if len(state.quote) == 1 and not line.endswith("\\"):
        state.quote = ""
