"""Rules about how cells and shell commands end: exits without a call, hidden failures."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.check.rule import Subject, make_hit, make_rule_example, rule
from d2c_mlops.convert.source.finding import Hit

_SHELLS = frozenset({"bash", "sh", "script"})
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.|\$\([^)]*(?:\)|$)")
_STRICT = re.compile(r"^[ \t]*set[ \t]+(-[a-zA-Z]*e|-o\s+errexit)|^#!.*\s-[a-zA-Z]*e", re.MULTILINE)


@rule(
    "D2C110",
    "exit-without-call",
    "warning",
    why="a name alone does nothing: the lines and cells below it still run",
    fix="write `exit()` or `sys.exit()` to end the run with success, `sys.exit('reason')` to end it with failure",
    bad=make_rule_example("rows = 0\nif rows == 0:\n    exit"),
    good=make_rule_example("rows = 0\nif rows == 0:\n    exit()"),
)
def exit_without_call(subject: Subject) -> Iterator[Hit]:
    for cell, node in subject.nodes:
        if not isinstance(node, ast.Expr):
            continue
        value = node.value
        if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
            name = f"{value.value.id}.{value.attr}"
        elif isinstance(value, ast.Name):
            name = value.id
        else:
            continue
        alone = name in ("exit", "quit") and cell.source.strip() == name  # IPython calls it there
        if name in ("sys.exit", "os._exit") or (name in ("exit", "quit") and not alone):
            yield make_hit(cell, node, f"`{name}` without parentheses does not end the run")


@rule(
    "D2C111",
    "shell-status-hidden",
    "warning",
    why="only the exit status of the last shell command counts, so the run continues after an earlier command fails",
    fix="begin a script with `set -e`; join the commands of a line with `&&`, or write one command per line",
    bad=make_rule_example("!cp export_of_today.csv in.csv; echo copied"),
    good=make_rule_example("!cp export_of_today.csv in.csv && echo copied", "%%bash\nset -e\ncp a b\necho copied"),
)
def shell_status_hidden(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.code:
        for magic in cell.magics:
            if magic.kind == "shell" and ";" in _QUOTED.sub("", magic.command).rstrip("; "):
                yield Hit(
                    cell.index,
                    magic.line,
                    1,
                    f"the shell line `!{magic.command[:60]}` hides the exit status of its first command",
                )
            elif magic.kind == "cell" and magic.name in _SHELLS:
                script = cell.source.partition("\n")[2]
                commands = [line for line in script.splitlines() if line.strip() and not line.lstrip().startswith("#")]
                if len(_script_commands(commands)) > 1 and not _STRICT.search(script):
                    first = commands[0].strip()[:60]
                    yield Hit(
                        cell.index,
                        magic.line,
                        1,
                        f"`%%{magic.name}` goes on when `{first}` fails: the exit status is that of its last command",
                    )


def _script_commands(lines: list[str]) -> list[str]:
    """Return the commands of a script, lines that a backslash continues as one."""
    return [line for number, line in enumerate(lines) if number == 0 or not lines[number - 1].rstrip().endswith("\\")]
