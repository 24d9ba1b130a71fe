"""Notebooks to run and to convert."""

import json
from pathlib import Path
from typing import Any

PARAMETERS = "from datetime import date\nwho: str = 'x'\nday: date = date(2024, 1, 1)\nn: int = 3\nseed: int = 1"
RECORD = "from d2c_mlops.runs.recording import record\nrecord(who=who, day=day, twice=2 * n)"


def write(path: Path, *cells: str) -> Path:
    """Write a notebook whose first cell is tagged parameters."""
    made = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {"tags": ["parameters"]} if i == 0 else {}, "source": source,
         "outputs": [], "execution_count": None}
        for i, source in enumerate(cells)
    ]  # fmt: skip
    content = {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content))
    return path


def notebook(path: Path, *cells: str, outputs: dict[int, Any] | None = None, **metadata: Any) -> Path:
    made = [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": source, "execution_count": None,
             "outputs": (outputs or {}).get(i, [])} for i, source in enumerate(cells)]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return path
