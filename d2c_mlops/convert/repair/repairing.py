"""Repair a copy of a notebook: run it, fix what fails, run it again; the original is not changed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from d2c_mlops.convert.check import notebook_urls
from d2c_mlops.convert.repair import downloads, save_repaired
from d2c_mlops.convert.repair.data_files import DataFiles
from d2c_mlops.convert.repair.fix_registry import (
    Proposal,
    registered_fixes,
)
from d2c_mlops.convert.repair.fixes.modules import distributions_needed
from d2c_mlops.convert.repair.last_resorts import leave_out_invalid_cell
from d2c_mlops.convert.repair.repair_result import Refusal, RepairRefused, RepairResult
from d2c_mlops.convert.repair.repair_state import Progress, RepairState
from d2c_mlops.convert.repair.run_and_fix import accept_omission, run_until_clean
from d2c_mlops.convert.run.folder_copies import copy_folder, left_out_summary, repository_root
from d2c_mlops.convert.run.isolated_run import ChildLimits
from d2c_mlops.convert.source.notebook import read_notebook
from d2c_mlops.errors import D2CError


def repair_notebook(
    notebook: Path,
    work: Path,
    *,
    data: Path | None = None,
    install: bool = False,
    index: Sequence[str] = (),  # names that mean a package, though a module beside the notebook has them too
    timeout: float = 600.0,
    memory: int = 4 << 30,
    isolation: str = "",  # name of a mode; the best that works here when empty
    fetch: bool = False,  # whether addresses that it reads are downloaded first, outside of the isolation
    fetch_from: Sequence[str] = (),  # hosts of this network that may be asked
    progress: Progress = lambda text: None,
) -> RepairResult:
    """Run a copy of a notebook and fix it until it runs; the result is a refusal with cell and reason if that fails.

    `timeout` is seconds for each run, `memory` bytes; `data` is a folder whose files may be laid beside the copy.
    """
    notebook, work = Path(notebook), Path(work)
    try:
        read = read_notebook(notebook)
        limits = ChildLimits(timeout, memory, isolation)
        state = RepairState(
            read, work, data, install, limits, progress, index=tuple(index), fetch=fetch, fetch_from=fetch_from
        )
        return repair_until_clean(state)
    except D2CError as error:
        return RepairResult("refused", notebook, None, refusal=Refusal(None, error.what, error.next))


def repair_until_clean(state: RepairState) -> RepairResult:
    """Repair the notebook; the original is never written."""
    try:
        refuse_unrunnable(state)
        copy_notebook_folder(state)
        fix_before_running(state)
        run_until_clean(state)
    except RepairRefused as refused:
        return state.result("refused", refused.refusal)
    finally:
        shutil.rmtree(state.place.scratch, ignore_errors=True)
    return state.result("revived" if state.fixes else "as is", None)


def refuse_unrunnable(state: RepairState) -> None:
    """Refuse notebooks for other kernels and notebooks without code."""
    if not state.notebook.is_python:
        what = f"its kernel language is {state.notebook.language.upper() if state.notebook.language == 'r' else state.notebook.language}, not Python"
        raise RepairRefused(Refusal(None, what, "port it to Python, or run it with its own kernel"))
    if not any(cell.source.strip() for cell in state.notebook.code):
        raise RepairRefused(Refusal(None, "the notebook has no code cells", "choose a notebook with code"))


def copy_notebook_folder(state: RepairState) -> None:
    """Copy the folder; files that are left out are reported, and named again if a cell fails because a file is missing."""
    shutil.rmtree(state.folder, ignore_errors=True)
    state.folder.mkdir(parents=True)
    source = state.original.path.resolve().parent
    state.left_out = copy_folder(source, state.folder)
    if state.left_out:
        state.progress(f"not copied from {source}: {left_out_summary(state.left_out, source)}")
    for name in state.index:
        (state.folder / f"{name}.py").unlink(missing_ok=True)
        shutil.rmtree(state.folder / name, ignore_errors=True)
    folders = [state.folder, *([state.data] if state.data is not None else [])]
    root = repository_root(source)
    beyond = source.parent if root is not None and source.parent.is_relative_to(root) else None
    state.data_files = DataFiles(folders, source, repository=root, beyond=beyond)
    save_repaired.save_original_outputs(state.original, state.work / "reference.json")
    if state.fetch:
        download_notebook_urls(state)


def download_notebook_urls(state: RepairState) -> None:
    """Download the URLs that can be inferred, and let the notebook read the copies."""
    beside = {path.relative_to(state.folder).as_posix() for path in state.folder.rglob("*") if path.is_file()}
    place = state.work / "fetched"
    sources = list(notebook_urls.find_url_sources(state.context(None).subject))
    state.fetched = downloads.download_urls(
        sources, place, allowed=state.fetch_from, used_names=beside, progress=state.progress
    )
    for download in state.fetched:
        state.progress(download.text)
    shutil.copytree(place, state.folder, dirs_exist_ok=True)  # in place of older copies that lay beside it
    state.data_files.forget()
    state.accept(downloads.download_fixes(state.context(None), state.fetched))


def fix_before_running(state: RepairState) -> None:
    """Apply the fixes that need no failure until none applies; install packages if allowed."""
    for _ in range(12):
        context = state.context(None)
        offers = [
            (fix, offer) for fix in registered_fixes() if fix.live and fix.find for offer in state.offers(fix, context)
        ]
        edits = _compatible_proposals([offer for _, offer in offers])
        accepted = [(fix, offer) for fix, offer in offers if offer in edits]
        if not accepted or not state.accept(accepted):
            break
    for cell in state.notebook.code:
        if (omission := leave_out_invalid_cell(cell)) is not None:
            accept_omission(state, omission, cell.index)
    problem = next((cell for cell in state.notebook.code if cell.problem is not None), None)
    if problem is not None and problem.problem is not None:
        why = f"line {problem.problem.line}: {problem.problem.message}"
        kind = "it is not valid Python" if problem.problem.kind == "invalid" else "it is Python 2 code"
        raise RepairRefused(
            Refusal(state.original_index(problem.index), f"{kind}: {why}", "fix the cell by hand", "SyntaxError")
        )
    own_modules = [path.stem for folder in state.place.packages[:-1] for path in folder.iterdir()]
    state.missing = distributions_needed(state.context(None), state.folder, own_modules)
    if state.install and state.missing:
        state.add_packages(state.missing)


def _compatible_proposals(offers: Sequence[Proposal]) -> list[Proposal]:
    """Return the proposals whose edits do not overlap with earlier ones; the others are proposed again in the next round."""
    accepted: list[Proposal] = []
    ranges: dict[int, list[tuple[tuple[int, int], tuple[int, int]]]] = {}
    for offer in offers:
        spans = [(edit.cell, (edit.line, edit.column), (edit.end_line, edit.end_column)) for edit in offer.edits]
        if any(
            (start < high and low < end)
            or (start, end) == (low, high)
            or low <= start == end <= high
            or start <= low == high <= end
            for cell, start, end in spans
            for low, high in ranges.get(cell, ())
        ):
            continue
        for cell, start, end in spans:
            ranges.setdefault(cell, []).append((start, end))
        accepted.append(offer)
    return accepted
