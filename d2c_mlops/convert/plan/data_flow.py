"""The data flow of a notebook for `--until read`: roles, reads and definitions of cells, and every fit."""

from __future__ import annotations

from typing import TypedDict

from d2c_mlops.convert.meaning.column_selection import Selection
from d2c_mlops.convert.plan.plan import Plan
from d2c_mlops.convert.source.dataflow import Flow, is_kernel_name, trace_names


class CellNames(TypedDict):
    """The role of a cell and the names that it uses; `cell` counts from 1."""

    cell: int
    role: str
    reads: list[str]
    changes: list[str]
    defines: list[str]
    imports: list[str]


class FitFacts(TypedDict):
    """An estimator that is fitted, and on what; `cell` counts from 1."""

    cell: int
    estimator: str
    kind: str
    features: str
    target: str


class DataFlowReport(TypedDict):
    """The cells and the fits of a notebook."""

    cells: list[CellNames]
    fits: list[FitFacts]
    functions_that_read_globals: dict[str, list[str]]


def data_flow_report(plan: Plan) -> DataFlowReport:
    """Return the cells and the fits of a notebook as JSON values; cells count from 1."""
    flow = trace_names(plan.notebook)
    return {
        "cells": [_cell_names(plan, flow, index) for index in flow.cells],
        "fits": [
            {
                "cell": fit.cell + 1,
                "estimator": fit.path or fit.name or "unknown",
                "kind": fit.kind,
                "features": _column_text(fit.features, fit.feature_columns),
                "target": _column_text(fit.target, fit.target_columns),
            }
            for fit in plan.fits
        ],
        "functions_that_read_globals": {
            name: sorted(reads)
            for name, function in flow.functions.items()
            if (reads := {read.name for read in function.reads} & (set(flow.definers) - set(flow.functions)))
        },
    }


def _cell_names(plan: Plan, flow: Flow, index: int) -> CellNames:
    cell = flow.cells[index]
    imported = {imported.bound for imported in cell.imports}
    modules = {imported.bound for cell in flow.cells.values() for imported in cell.imports}
    role = plan.structure.roles.get(index)
    return {
        "cell": index + 1,
        "role": role.role if role else "",
        "reads": [name for name in cell.reads if name not in modules and not is_kernel_name(name)],
        "changes": [name for name in cell.mutates if name not in modules],
        "defines": [name for name in cell.defines if name not in imported],
        "imports": sorted(imported),
    }


def _column_text(text: str, selection: Selection | None) -> str:
    """Return the expression as the notebook writes it, with its columns if they are known."""
    return f"{text} ({selection})" if selection is not None and (selection.only or selection.without) else text


def to_text(report: DataFlowReport) -> str:
    """Return the reading as a table for a terminal."""
    lines = [f"{'cell':>4}  {'role':10}  reads → changes, defines"]
    for cell in report["cells"]:
        outputs = ", ".join([*(f"{name} (changed)" for name in cell["changes"]), *cell["defines"]])
        inputs = ", ".join(cell["reads"])
        names = f"{inputs} → {outputs}" if outputs else inputs
        lines.append(f"{cell['cell']:4}  {cell['role']:10}  {names or ', '.join(cell['imports'])}"[:160].rstrip())
    for fit in report["fits"]:
        target = f" for {fit['target']}" if fit["target"] else ""
        lines.append(f"fit   cell {fit['cell']}: {fit['estimator']} ({fit['kind']}) on {fit['features']}{target}")
    for name, reads in report["functions_that_read_globals"].items():
        lines.append(f"note  {name}() reads {', '.join(reads)} without taking them as arguments")
    return "\n".join(lines)
