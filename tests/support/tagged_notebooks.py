"""Notebooks whose cells have tags, and their runs."""

import json
from pathlib import Path
from typing import Any

from d2c_mlops.errors import NotebookFailed
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.runs.execution.run_rows import Run, latest_runs
from d2c_mlops.settings import load_settings


def write(path: Path, *cells: str, metadata: dict[str, Any] | None = None) -> None:
    """Write a notebook; a cell that begins with `#tags:a,b` gets those tags."""
    made = []
    for number, source in enumerate(cells):
        head, _, rest = source.partition("\n")
        tags = head.removeprefix("#tags:").split(",") if head.startswith("#tags:") else []
        made.append({"cell_type": "code", "id": f"c{number}", "metadata": {"tags": tags}, "outputs": [],
                     "source": rest if tags else source, "execution_count": None})  # fmt: skip
    path.write_text(json.dumps({"cells": made, "metadata": metadata or {}, "nbformat": 4, "nbformat_minor": 5}))


def ran(project: Path, *cells: str, given: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None) -> Run:
    """Run a notebook of these cells and return its row, however it ended."""
    write(project / "nb.ipynb", *cells, metadata=metadata)
    held = load_settings(project, environ={})
    try:
        return run("nb.ipynb", given or {}, held)
    except NotebookFailed:
        return latest_runs(Ledger.of(held))[0]
