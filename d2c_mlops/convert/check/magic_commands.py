"""The IPython magic `%d2c check`: findings of the open notebook, with links to its cells."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from d2c_mlops.convert.check.check import check
from d2c_mlops.errors import D2CError, UsageError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import HTML

_USAGE = "%d2c check [NOTEBOOK]"


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Register `%d2c` with a running IPython."""
    ipython.register_magic_function(lambda line: run_d2c_magic(line, ipython), "line", "d2c")  # type: ignore[arg-type]


def run_d2c_magic(line: str, ipython: InteractiveShell | None = None) -> HTML | None:
    """Run `%d2c check [NOTEBOOK]`; returns a table for the notebook, errors are printed as one line with the next step."""
    from IPython.display import HTML

    try:
        words = shlex.split(line)
        if not words or words[0] != "check" or len(words) > 2:
            raise UsageError(f"unknown command {line.strip()!r}", next=_USAGE)
        path = Path(words[1]) if len(words) == 2 else current_notebook(ipython)
        return HTML(check(path).to_html())
    except (D2CError, ValueError) as error:
        print(error)
        return None


def current_notebook(ipython: InteractiveShell | None = None) -> Path:
    """Return the path of the notebook that this kernel runs; raises UsageError if the kernel does not know it."""
    session_path = os.environ.get("JPY_SESSION_NAME", "")
    variables = getattr(ipython, "user_ns", {}) if ipython is not None else {}
    session_path = str(variables.get("__vsc_ipynb_file__") or variables.get("__session__") or session_path)
    for path in (Path(session_path), Path.cwd() / Path(session_path).name):
        if session_path.endswith(".ipynb") and path.is_file():
            return path
    raise UsageError("the kernel does not report its notebook", next="%d2c check NAME.ipynb")
