"""Fixes of arguments whose names, positions or values are no longer accepted."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from d2c_mlops.convert.api_changes.change import ApiChange, live_changes
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    after,
    last_name,
    replaced,
    spelled,
)
from d2c_mlops.convert.repair.fixes.removed_api import plainly, says
from d2c_mlops.convert.repair.replacement_registry import inner, recalled, replacement_edits
from d2c_mlops.convert.source.finding import Edit, rekeying
from d2c_mlops.convert.source.notebook import Cell

_UNEXPECTED = re.compile(
    r"(?:(?<![\w.])(?P<function>[\w.]+)\(\) )?got (?:an unexpected keyword argument|some positional-only arguments passed as keyword "
    r"arguments:?) '(?P<word>\w+)'"
)


_MANY = re.compile(
    r"(?<![\w.])(?P<function>[\w.]+)\(\) takes (?:from \d+ to )?(?P<count>\d+) positional arguments? but"
)


_BOUND = "too many positional arguments"  # in the words of inspect.Signature.bind


_HARMLESS = frozenset(
    [
        "n_jobs",
        "verbose",
        "disp",
        "iid",
        "presort",
        "warn_bad_lines",
        "infer_datetime_format",
        "precompute_distances",
        "squeeze",
        "full_output",
        "use_multiprocessing",
        "workers",
        "max_queue_size",
        "mangle_dupe_cols",
        "datetime_is_numeric",
        "low_memory",
        "use_line_collection",
        "null_counts",
        "iprint",
        "silent",
        "nthread",
        "use_label_encoder",
        "seed_everything",
    ]
)


@after("unexpected-keyword", "", "", "the argument was removed", order=20)
def unexpected_keyword(context: RepairContext, failure: CellFailure) -> Proposal | None:
    found = _UNEXPECTED.search(failure.message) if failure.kind in ("TypeError", "AttributeError") else None
    if found is None and failure.kind == "AttributeError":
        found = re.search(
            r"\b(?P<function>\w+)\.set\(\) got an unexpected keyword argument '(?P<word>\w+)'", failure.message
        )
    if found is None:
        return None
    word, function = found["word"], (found["function"] or "").split(".")
    names = {one for one in function if one and one != "__init__"}
    for cell, call in context.failing(failure, ast.Call):
        given = next((keyword for keyword in call.keywords if keyword.arg == word), None)
        if given is None:
            continue
        called = last_name(call.func)
        for change in live_changes():
            if change.kind != "keyword" or change.argument != word:
                continue
            if change.path.rpartition(".")[2] not in {called, *names}:
                continue
            if change.to:
                return Proposal((rekeying(cell.index, given, change.to),), says(change))
            edits = plainly(context, cell, replacement_edits(f"{change.path}|{change.argument}", cell, call))
            if edits:
                return Proposal(edits, says(change))
        if word in _HARMLESS:
            edits = recalled(cell, call, spelled(cell, call.func), inner(cell, call, word))
            return Proposal(edits, f"{called} no longer accepts `{word}`, which does not affect the result")
    return None


@after("positional", "", "", "arguments must be passed by keyword", order=20)
def positional(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Name positional arguments by the signature of the table; else by the words of the installed function's own error."""
    if failure.kind != "TypeError":
        return None
    found = _MANY.search(failure.message)
    if found is None:
        return _unbound(context, failure)
    wanted = found["function"].rpartition(".")[2]
    if wanted == "__init__":
        wanted = found["function"].split(".")[-2] if "." in found["function"] else ""
    for cell, call in context.failing(failure, ast.Call):
        called = last_name(call.func)
        if not call.args or (wanted and called != wanted):
            continue
        for change in live_changes():
            if change.kind == "positional" and change.path.rpartition(".")[2] == called:
                position = change.position or 0
                extra = call.args[position:]
                if len(change.names) >= len(extra) > 0:
                    return _named(cell, called, extra, change.names)
        names = signature(context, cell, call)
        count = int(found["count"]) - (1 if "." in found["function"] or called != wanted else 0)
        for keep in dict.fromkeys((count, count - 1, int(found["count"]))):
            extra = call.args[keep:] if 0 <= keep < len(call.args) else []
            if extra and len(names) >= len(call.args):
                return _named(cell, called, extra, names[keep:])
    return None


def _unbound(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A call that a signature's own check refuses: it does not say of which function, so each call is asked."""
    if _BOUND not in failure.message:
        return None
    for cell, call in context.failing(failure, ast.Call):
        keep = len(signature(context, cell, call, positional=True))
        extra = call.args[keep:]
        if not extra or any(isinstance(argument, ast.Starred) for argument in call.args):
            continue
        names = signature(context, cell, call)[keep:]
        if len(names) >= len(extra) and not set(names[: len(extra)]) & {word.arg for word in call.keywords}:
            return _named(cell, last_name(call.func), extra, names)
    return None


def _named(cell: Cell, called: str, values: Sequence[ast.expr], names: Sequence[str]) -> Proposal:
    edits = tuple(
        Edit(cell.index, one.lineno, one.col_offset, one.lineno, one.col_offset, f"{name}=")
        for one, name in zip(values, names, strict=False)
    )
    return Proposal(edits, f"{called}() accepts these arguments only by keyword")


def signature(context: RepairContext, cell: Cell, call: ast.Call, *, positional: bool = False) -> list[str]:
    """Ask the child for the parameter names of what is called; with `positional` only those that need no name."""
    text = spelled(cell, call.func)
    which = " if p.kind < p.VAR_POSITIONAL" if positional else ""
    names = f"' '.join(n for n, p in __import__('inspect').signature({text}).parameters.items(){which})"
    asked = f"type('S', (), {{}}) if not callable({text}) else type({names}, (), {{}})"
    answer = context.kinds([asked]).get(asked, "")
    return answer.removeprefix("class:").partition(".")[2].split() if answer.startswith("class:") else []


@after("value", "", "", "the value is no longer accepted", order=25)
def old_value(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A value that the table knows, given through a name or a dictionary: the text is changed where it stands."""
    if not {"ValueError", "TypeError", "KeyError", "OSError"} & set(failure.bases):
        return None
    said = set(re.findall(r"'([\w-]+)'", failure.message)) | set(re.findall(r"frequency: (\w+)", failure.message))
    if not said:
        return None
    around = {last_name(call.func) for _, call in context.failing(failure, ast.Call)}
    for change in live_changes():
        if change.kind != "value":
            continue
        known = {old: new for old, new in change.values.items() if old in said}
        if not known:
            continue
        named = change.path.rpartition(".")[2] in around
        for cell, text in context.failing(failure, ast.Constant):
            if text.value in known and named:
                new = known[text.value]
                if new is not None:
                    return Proposal((replaced(cell, text, repr(new)),), _changed(change, str(text.value), new))
                for _, call in context.failing(failure, ast.Call):
                    if last_name(call.func) == change.path.rpartition(".")[2] and (
                        edits := replacement_edits(change.path, cell, call)
                    ):
                        return Proposal(edits, _changed(change, str(text.value), change.instead))
        held = {name for name, value in failure.strings.items() if value in known}
        for cell, assigned in context.nodes(ast.Assign):
            value = assigned.value
            if isinstance(value, ast.Constant) and value.value in known and named:
                if {last_name(target) for target in assigned.targets} & held and (new := known[value.value]):
                    edits = (replaced(cell, value, repr(new)),)
                    return Proposal(edits, _changed(change, value.value, new), restart=True)
    return None


def _changed(change: ApiChange, old: str, new: str) -> str:
    return f"{change.path} no longer accepts {old!r} since {change.library} {change.since}: use {new!r}"


@after("show-counts", "pandas", "2.0", "the argument was renamed", order=15)
def renamed_arguments(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Arguments that were renamed in methods whose class cannot be inferred."""
    renamed = {"null_counts": "show_counts", "sheetname": "sheet_name", "line_terminator": "lineterminator"}
    renamed |= {
        "normed": "density",
        "shade": "fill",
        "n_iter": "max_iter",
        "axisbg": "facecolor",
        "lr": "learning_rate",
    }
    renamed |= {"nb_epoch": "epochs", "b": "visible", "closed": "inclusive", "vertical_labels": "labels"}
    found = _UNEXPECTED.search(failure.message)
    if found is None or found["word"] not in renamed:
        return None
    for cell, call in context.failing(failure, ast.Call):
        for word in call.keywords:
            if word.arg == found["word"]:
                edit = rekeying(cell.index, word, renamed[found["word"]])
                return Proposal((edit,), f"`{word.arg}=` is now `{renamed[found['word']]}=`")
    return None
