"""Write the blocks of a plan as cells of a literate notebook."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.plan import Plan
from d2c_mlops.convert.write.parameter_list import CodeParameters
from d2c_mlops.convert.write.step_functions import (
    Types,
    call_source,
    comment_above,
    definition_source,
    function_source,
    line_source,
)

FIND_DATA = '''def find_data(folder: str) -> Path:
    """Return the folder with the data: the given path, or the path below the nearest parent folder that contains it."""
    return next((up / folder for up in (Path.cwd(), *Path.cwd().parents) if (up / folder).exists()), Path(folder))'''

IN_DATA = '''def in_data(folder: str, path: Any) -> Any:
    """Return a path below the folder with the data; missing files, URLs and buffers are returned unchanged."""
    if not isinstance(path, str | Path) or "://" in str(path) or Path(path).is_absolute():
        return path
    inside = find_data(folder) / path
    return type(path)(inside) if inside.exists() else path'''


GUARD = """if find_data({folder}).resolve() != find_data({default}).resolve():
    raise ValueError("the files of {names} are read from {text}, independent of {folder}: put them there, or make the code use the folder")"""


@dataclass
class CellSource:
    """One cell of the new notebook and the cells of the original that it replaces (indices from 0)."""

    kind: str  # code or markdown
    source: str
    cells: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # bound by this cell
    tags: list[str] = field(default_factory=list)
    step: str = ""  # the function defined or called here

    @property
    def exported(self) -> bool:
        """Whether nbdev writes the cell into the module."""
        return self.source.startswith("#| export")


def export_cell(source: str, *, cells: Sequence[int] = (), names: Sequence[str] = (), step: str = "") -> CellSource:
    """Return an exported code cell."""
    return CellSource("code", f"#| export\n{source}", list(cells), list(names), step=step)


def notebook_cells(
    plan: Plan, blocks: Sequence[Block], parameters: CodeParameters, types: Types, module: str
) -> list[CellSource]:
    """Return the cells of the notebook without its model."""
    title, lead, later_blocks = _take_title(plan, blocks)
    cells = [CellSource("markdown", f"# {title}\n> {lead}"), CellSource("code", f"#| default_exp {module}")]
    body: list[CellSource] = []
    for block in later_blocks:
        body += _block_cells(block, plan, parameters, types)
    _demote_titles(body)
    cells.append(export_cell(_import_lines(plan, parameters, body), cells=[]))
    if parameters.every:
        lines = [str(parameter) for parameter in parameters.every]
        cells.append(
            CellSource("code", "\n".join(lines), tags=["parameters"], names=[p.name for p in parameters.every])
        )
    if parameters.folder:
        cells.append(export_cell(FIND_DATA))
        if parameters.computed:
            cells.append(export_cell(IN_DATA))
    return cells + body


def add_folder_guard(cells: Sequence[CellSource], parameters: CodeParameters) -> list[CellSource]:
    """Return the cells with a check that refuses another data folder, if classes or functions read only the default one."""
    folder = parameters.find(parameters.folder)
    if folder is None or not parameters.fixed:
        return list(cells)
    names = ", ".join(dict.fromkeys(name for _, name in parameters.fixed))
    text = folder.default.strip("'\"")
    guard = CellSource("code", GUARD.format(folder=folder.name, default=folder.default, names=names, text=text))
    place = next(i for i, cell in enumerate(cells) if "def find_data(" in cell.source)
    return [*cells[: place + 1], guard, *cells[place + 1 :]]


def _take_title(plan: Plan, blocks: Sequence[Block]) -> tuple[str, str, list[Block]]:
    """The author's own title if the notebook begins with one; it is removed from the prose."""
    later_blocks = list(blocks)
    first = later_blocks[0] if later_blocks else None
    begins = next((cell.kind for cell in plan.notebook.cells if cell.source.strip()), "")
    if first is not None and first.kind == "prose" and begins == "markdown":
        lines = first.text.strip().split("\n")
        match = re.match(r"#{1,6}\s*(.+)", lines[0].strip())
        if match and not match[1].strip().startswith(("<", "[")):
            body = "\n".join(lines[1:]).strip()
            later_blocks[0] = Block("prose", first.cells, text=body)
            return _clean_text(match[1]), _introduction_text(plan), later_blocks if body else later_blocks[1:]
    return _clean_text(plan.notebook.path.stem.replace("_", " ")), _introduction_text(plan), later_blocks


def _clean_text(title: str) -> str:
    title = re.sub(r"<[^<>]+>|[*`]", "", title).strip(" #:")
    return title[:1].upper() + title[1:] or "Notebook"


def _introduction_text(plan: Plan) -> str:
    models = [fit.path.rpartition(".")[2] for fit in plan.structure.models if fit.path]
    what = f"From the data to {models[-1]}" if models else "From the data to its findings"
    return f"{what}: the steps of {plan.notebook.path.name} as functions."


def _import_lines(plan: Plan, parameters: CodeParameters, body: Sequence[CellSource]) -> str:
    lines = list(plan.imports.lines)
    text = "\n".join(cell.source for cell in body if cell.exported)
    if parameters.folder:
        lines.append("from pathlib import Path")
    if parameters.computed or re.search(r"\bAny\b", text):
        lines.append("from typing import Any")
    if re.search(r"\bpd\.", text) and "pd" not in plan.imports.paths:
        lines.append("import pandas as pd")
    if re.search(r"\bnp\.", text) and "np" not in plan.imports.paths:
        lines.append("import numpy as np")
    lines = sorted(
        dict.fromkeys(lines), key=lambda line: (line.startswith("try"), line.startswith("from"), line.lower())
    )
    return "\n".join(["from __future__ import annotations", "", *lines])


def _block_cells(block: Block, plan: Plan, parameters: CodeParameters, types: Types) -> list[CellSource]:
    if block.kind == "prose":
        return [CellSource("markdown", block.text, cells=block.cells)]
    if block.kind == "raw":
        return [CellSource("code", "#| eval: false\n" + block.text, cells=block.cells)]
    if block.kind == "definition":
        return [
            export_cell(
                definition_source(block, plan, parameters), cells=block.cells, names=[block.name], step=block.name
            )
        ]
    if block.kind == "plain":
        text = "\n".join(line_source(line, plan, parameters) for line in block.lines).strip("\n")
        names = list(dict.fromkeys(name for line in block.lines for name in line.facts.binds))
        return [CellSource("code", text, cells=block.cells, names=names)] if text else []
    text = call_source(block, parameters)
    if block.spoken_above and (above := comment_above(block)):
        text = f"{above}\n{text}"
    call = CellSource("code", text, cells=block.cells, names=list(block.outputs), step=block.called)
    if block.like is not None:
        return [call]
    return [export_cell(function_source(block, plan, parameters, types), cells=block.cells, step=block.name), call]


def _demote_titles(cells: Sequence[CellSource]) -> None:
    """Only the first cell has a title of the first level; if there are more, every heading is moved one level down."""
    prose = [cell for cell in cells if cell.kind == "markdown"]
    if any(_FIRST_LEVEL.search(_FENCE.sub("", cell.source)) for cell in prose):
        for cell in prose:
            parts = _FENCE.split(cell.source)
            parts[::2] = [re.sub(r"(?m)^(#{1,5})(?=\s)", r"#\1", part) for part in parts[::2]]
            cell.source = "".join(parts)


_FIRST_LEVEL = re.compile(r"(?m)^#\s")
_FENCE = re.compile(r"(?ms)(^```.*?^```)")


def join_short_cells(cells: Sequence[CellSource]) -> list[CellSource]:
    """Put a call and the shown results of the author's cell into one cell, if it is short."""
    joined_cells: list[CellSource] = []
    for cell in cells:
        last = joined_cells[-1] if joined_cells else None
        shown = cell.kind == "code" and not (cell.exported or cell.tags or cell.step or cell.source.startswith("#|"))
        if last is not None and shown and last.step and not last.exported and cell.cells == last.cells[-1:]:
            last.source += "\n" + cell.source
            last.names += [name for name in cell.names if name not in last.names]
            continue
        joined_cells.append(cell)
    return joined_cells
