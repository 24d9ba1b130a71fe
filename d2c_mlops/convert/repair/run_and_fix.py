"""Run the cells of a notebook, fix the cell that fails, and run it again until no fix is needed."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path

from d2c_mlops.convert.repair.fix_registry import (
    AppliedFix,
    CellFailure,
    Fix,
    cell_failure,
    registered_fixes,
)
from d2c_mlops.convert.repair.fixes.frames import chained_assignment
from d2c_mlops.convert.repair.fixes.modules import distribution_of, missing_module
from d2c_mlops.convert.repair.last_resorts import RESORTS, Omission, Resort
from d2c_mlops.convert.repair.refusal_messages import failed_cell_refusal, missing_module_refusal
from d2c_mlops.convert.repair.repair_result import Refusal, RepairRefused
from d2c_mlops.convert.repair.repair_state import RepairState
from d2c_mlops.convert.run.containers import PREFIX
from d2c_mlops.convert.run.folder_copies import add_missing_file
from d2c_mlops.convert.run.isolated_run import Stopped
from d2c_mlops.convert.run.session import CellRun, Session
from d2c_mlops.convert.source.notebook import Cell

MAX_FIXES = 120
MAX_RUNS = 25


def run_until_clean(state: RepairState) -> None:
    """Run and fix in the same session until one run from the top needs no fix."""
    while state.runs < MAX_RUNS:
        if run_once(state):
            return
    raise RepairRefused(
        Refusal(
            None,
            f"the notebook still fails after {state.runs} runs",
            "read the applied fixes, and fix the remaining failures by hand",
        )
    )


def run_once(state: RepairState) -> bool:
    """Run from the top and continue after fixes; True if all cells ran without a fix."""
    state.runs += 1
    state.results.clear()
    folder = state.place.fresh()
    clean, retried = True, -1
    failed_line = 0
    with Session(folder, state.place.home, state.limits, extra=state.place.packages, plots=True) as session:
        index = 0
        while index < len(state.notebook.cells):
            cell = state.notebook.cells[index]
            if cell.kind != "code" or not cell.source.strip():
                index += 1
                continue
            state.progress(f"run {state.runs}: cell {index + 1} of {len(state.notebook.cells)}")
            cell_run = run_cell(state, session, cell)
            if cell_run.error is None:
                state.results[index] = cell_run
                if fix_chained_assignments(state, session, cell_run):
                    clean, retried = False, index
                    continue
                index += 1
                continue
            failure = cell_failure(index, cell_run.error)
            line = max((frame["line"] for frame in failure.frames if frame["cell"] == index), default=0)
            if retried == index and line <= failed_line:
                return False  # perhaps only because the cell ran twice
            state.results[index] = cell_run
            restart = fix_failure(state, session, failure)
            clean, retried, failed_line = False, index, line
            if restart:
                return False
            copy_added_files(state, folder)
    return clean


def copy_added_files(state: RepairState, folder: Path) -> None:
    """Copy files that were added to the copied folder into the running one too."""
    for file in state.data_files.files(state.folder):
        add_missing_file(file, folder, file.relative_to(state.folder))


def run_cell(state: RepairState, session: Session, cell: Cell) -> CellRun:
    """Run one cell; a child process that ends is a refusal."""
    try:
        cell_run = session.run(cell.index, cell.source)
    except Stopped as stopped:
        ended = stopped.ended
        state.seconds += ended.seconds
        steps = {
            "timeout": "reduce the loop or the data of this cell, or raise the limit: --timeout SECONDS",
            "memory": "use a part of the data, or raise the limit: --memory GB",
        }
        step = steps.get(ended.status, "run the cell alone to see what ends the process")
        raise RepairRefused(Refusal(state.original_index(cell.index), ended.says, step, ended.status)) from stopped
    state.seconds += cell_run.seconds
    return cell_run


def fix_chained_assignments(state: RepairState, session: Session, cell_run: CellRun) -> bool:
    """Fix assignments to copies about which pandas warned while a cell ran."""
    accepted = False
    for place in cell_run.chained:
        index = place["cell"]
        if isinstance(index, int) and 0 <= index < len(state.notebook.cells):
            offer = chained_assignment(
                state.context(session), state.notebook.cells[index], place["line"], place["end_line"]
            )
            fix = Fix("copy-on-write", "pandas", "3.0", "the value was written to a copy")
            accepted = (offer is not None and state.accept([(fix, offer)])) or accepted
    return accepted


def fix_failure(state: RepairState, session: Session, failure: CellFailure) -> bool:
    """Try the fixes in order until one changes something; True if the run must start again."""
    if len(state.fixes) >= MAX_FIXES:
        refuse_at_failed_cell(state, failure)
    for fix in registered_fixes():
        if fix.react is None or not fix.live:
            continue
        try:
            offer = fix.react(state.context(session), failure)
        except Stopped:
            return True
        except Exception:
            state.progress(f"{fix.id} failed: {traceback.format_exc(limit=2).splitlines()[-1]}")
            continue
        if offer is None:
            continue
        if offer.distributions:
            if state.add_packages(offer.distributions):
                return True
            continue
        if state.accept([(fix, offer)]):
            state.progress(f"cell {failure.cell + 1}: {fix.id}: {offer.reason or fix.reason}")
            first = min((edit.cell for edit in offer.edits), default=failure.cell)
            return offer.restart or first < failure.cell
    if move_definition(state, failure) or any(leave_out_failing_code(state, resort, failure) for resort in RESORTS):
        return True
    refuse_at_failed_cell(state, failure)
    return True


def move_definition(state: RepairState, failure: CellFailure) -> bool:
    """A name that only a later cell defines: that cell is moved before the one that needs it, once."""
    if failure.kind != "NameError" or not failure.name:
        return False
    flow = state.context(None).subject.flow
    later = [index for index in flow.definers.get(failure.name, ()) if index > failure.cell]
    if not later:
        return False
    source, target = later[0], failure.cell
    if any(edge.user == source and target <= edge.definer < source for edge in flow.edges):
        return False
    cells = list(state.notebook.cells)
    moved = cells.pop(source)
    cells.insert(target, moved)
    order = [*state.order]
    order.insert(target, order.pop(source))
    order_hash = hash(tuple(order))
    if order_hash in state.seen:
        return False
    state.seen.add(order_hash)
    why = f"`{failure.name}` is used in cell {state.original_index(target) + 1} and defined in cell {state.original_index(source) + 1}: the cells were run out of order"
    state.fixes.append(
        AppliedFix(state.original_index(source), "order", f"cell {source + 1}", f"cell {target + 1}", why)
    )
    state.order = order
    state.notebook = replace(state.notebook, cells=tuple(replace(cell, index=i) for i, cell in enumerate(cells)))
    return True


def leave_out_failing_code(state: RepairState, leave_out_failing_code: Resort, failure: CellFailure) -> bool:
    """Remove the failing code from the cell if this changes no result."""
    context = state.context(None)
    offer = leave_out_failing_code(context, failure)
    return offer is not None and accept_omission(state, offer, failure.cell)


def accept_omission(state: RepairState, omission: Omission, index: int) -> bool:
    """Remove code from a cell, and record it."""
    if omission.whole:  # lines of the source are replaced, whatever magics they hold
        cells = [replace(cell, python=cell.source) if cell.index == index else cell for cell in state.notebook.cells]
        state.notebook = replace(state.notebook, cells=tuple(cells))
    fix = Fix(omission.id, "", "", omission.proposal.reason)
    return state.accept([(fix, omission.proposal)])


def refuse_at_failed_cell(state: RepairState, failure: CellFailure) -> None:
    """Refuse the notebook with the failing cell, the reason and the next step."""
    module = missing_module(failure)
    if module:
        state.missing = list(dict.fromkeys([*state.missing, distribution_of(module)]))
        image = state.limits.isolation.removeprefix(PREFIX) if state.limits.isolation.startswith(PREFIX) else ""
        raise RepairRefused(
            missing_module_refusal(
                failure, state.original_index(failure.cell), module, state.missing, state.tried, image
            )
        )
    downloads = [
        download for download in state.fetched if download.cell == state.original_index(failure.cell) + 1
    ] or state.fetched
    downloaded = [download.to_dict() for download in downloads] if state.fetch else None
    raise RepairRefused(
        failed_cell_refusal(failure, state.original_index(failure.cell), state.left_out_text(), downloaded)
    )
