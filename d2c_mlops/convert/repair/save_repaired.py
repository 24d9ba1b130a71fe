"""Write the repaired notebook in nbformat 4, and store the saved outputs of the original for comparison."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from d2c_mlops.convert.run.session import CellRun
from d2c_mlops.convert.source.notebook import Cell, Notebook

_SPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


def save_notebook(
    notebook: Notebook, original: Notebook, order: Sequence[int], results: Mapping[int, CellRun], path: Path
) -> None:
    """Write the cells with the outputs of their runs; attachments and tags come from the original."""
    raw = _raw_cells(original.path)
    used: set[str] = set()
    cells = []
    for cell in notebook.cells:
        at = order[cell.index]
        old = raw[at] if at < len(raw) and original.nbformat >= 4 else {}
        cells.append(_cell_json(cell, old, results.get(cell.index), used))
    document = {
        "cells": cells,
        "metadata": {"kernelspec": _SPEC, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def _cell_json(cell: Cell, old: Mapping[str, object], cell_run: CellRun | None, used: set[str]) -> dict[str, object]:
    document: dict[str, object] = {
        "cell_type": cell.kind,
        "id": _cell_id(cell, used),
        "metadata": {"tags": list(cell.tags)} if cell.tags else {},
        "source": cell.source.splitlines(keepends=True),
    }
    if isinstance(old.get("attachments"), dict) and cell.kind == "markdown":
        document["attachments"] = old["attachments"]
    if cell.kind == "code":
        document["execution_count"] = cell_run.count if cell_run is not None else None
        document["outputs"] = [_output_json(output) for output in cell_run.outputs] if cell_run is not None else []
    return document


def _cell_id(cell: Cell, used: set[str]) -> str:
    name = re.sub(r"[^\w-]", "", cell.id)[:60] or f"cell-{cell.index}"
    while name in used:
        name += "x"
    used.add(name)
    return name


def _output_json(output: Mapping[str, object]) -> dict[str, object]:
    """Return an output with texts in the form of nbformat."""
    saved = dict(output)
    if "text" in saved:
        saved["text"] = str(saved["text"]).splitlines(keepends=True)
    return saved


def _raw_cells(path: Path) -> list[dict[str, object]]:
    try:
        cells = json.loads(path.read_bytes()).get("cells", [])
    except (OSError, ValueError, AttributeError):
        return []
    return [cell for cell in cells if isinstance(cell, dict)] if isinstance(cells, list) else []


def save_original_outputs(notebook: Notebook, path: Path) -> None:
    """Write the saved texts of every cell, by its place in the original."""
    texts = {
        str(cell.index): [output.text for output in cell.outputs if output.kind in ("stream", "result", "display")]
        for cell in notebook.code
        if cell.outputs
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(texts, ensure_ascii=False, indent=0), encoding="utf-8")
