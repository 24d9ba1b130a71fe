"""Messages of refusals: why a notebook cannot be repaired, and what a person can do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from d2c_mlops.convert.api_changes.change import applicable_changes
from d2c_mlops.convert.repair import downloads
from d2c_mlops.convert.repair.downloads import FetchedFacts
from d2c_mlops.convert.repair.fix_registry import CellFailure
from d2c_mlops.convert.repair.fixes.modules import distribution_of
from d2c_mlops.convert.repair.fixes.paths import needs_network
from d2c_mlops.convert.repair.repair_result import Refusal
from d2c_mlops.convert.source.environment import OWN_NAMES


def missing_module_refusal(
    failure: CellFailure, cell: int, module: str, missing: Sequence[str], tried: Mapping[str, str], image: str = ""
) -> Refusal:
    """Return the refusal of a cell with a missing module; `tried` has reasons of failed installations; `image` is the container's."""
    name = distribution_of(module)
    if module.startswith("ipywidgets"):
        why, step = (
            "the notebook is interactive: it waits for input in its widgets",
            "put the values into a parameters cell",
        )
    elif module.partition(".")[0] in OWN_NAMES:
        why = f"`{module}` is not available; its name is typical of a local package, so no package is installed from an index"
        step = "pass the folder that contains it: --data FOLDER (the root of the repository)"
    elif name in tried:
        why, step = (
            f"`{module}` is missing and {name} cannot be installed: {tried[name]}",
            f"use another package than `{module}` in the notebook",
        )
    elif image:
        why, step = f"the image {image} does not contain `{module}`", f"add {name} to the image and convert again"
    else:
        why = f"missing packages: {', '.join(missing)}"
        step = "add --install to install them into the folder of this conversion"
    return Refusal(cell, why, step, failure.kind)


def failed_cell_refusal(
    failure: CellFailure, cell: int, left_out: str, fetched: Sequence[FetchedFacts] | None = None
) -> Refusal:
    """Return the refusal of a failing cell without a matching fix.

    `left_out` describes the files that were not copied or searched; `fetched` is None if no download was requested.
    """
    text = failure.message.splitlines()[0][:300] if failure.message else ""
    return Refusal(cell, f"{failure.kind}: {text}", _refusal_advice(failure, left_out, fetched), failure.kind)


def _refusal_advice(failure: CellFailure, left_out: str, fetched: Sequence[FetchedFacts] | None) -> str:
    """Return what a person can do about a failure without a matching fix."""
    if needs_network(failure):
        return downloads.download_advice(fetched)
    if "OSError" in failure.bases and "FileNotFoundError" in failure.bases:
        if beside := re.search(r"/convert/[^/]+/local/([^'\"]+)", failure.message):
            return (
                f"a local module reads {beside[1]} beside its own file, but only modules are copied: pass it the "
                "folder as an argument, or read the file from the working folder"
            )
        advice = "pass the folder of its data: --data FOLDER"
        return f"these files were not copied: {left_out}. If one of them is missing, {advice}" if left_out else advice
    gone = re.search(r"\b(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", failure.message)
    for change in applicable_changes() if gone else ():
        if gone and change.argument == gone[2] and change.path.rpartition(".")[2] == gone[1]:
            return f"{gone[1]} has no `{gone[2]}` since {change.library} {change.since}: use {change.instead} and convert again"
    if failure.kind == "EOFError":
        return "put the value into a parameters cell"
    if failure.kind == "NameError":
        return "define the name above this cell, or remove the cell"
    where = next((f"line {frame['line']}" for frame in reversed(failure.frames)), "the cell")
    return f"fix {where} of the cell and convert again"
