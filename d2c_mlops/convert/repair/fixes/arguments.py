"""Fixes of arguments whose names, positions or values are no longer accepted."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from d2c_mlops.convert.api_changes.change import ApiChange, applicable_changes
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    fix_after_failure,
    last_name,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.repair.fixes.removed_api import change_reason, with_imported_names
from d2c_mlops.convert.repair.replacement_registry import argument_texts, replace_call, replacement_edits
from d2c_mlops.convert.source.finding import Edit, keyword_name_replacement
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


@fix_after_failure("unexpected-keyword", "", "", "the argument was removed", order=20)
def unexpected_keyword(context: RepairContext, failure: CellFailure) -> Proposal | None:
    match = _UNEXPECTED.search(failure.message) if failure.kind in ("TypeError", "AttributeError") else None
    if match is None and failure.kind == "AttributeError":
        match = re.search(
            r"\b(?P<function>\w+)\.set\(\) got an unexpected keyword argument '(?P<word>\w+)'", failure.message
        )
    if match is None:
        return None
    word, function = match["word"], (match["function"] or "").split(".")
    names = {part for part in function if part and part != "__init__"}
    for cell, call in context.failing(failure, ast.Call):
        argument = next((keyword for keyword in call.keywords if keyword.arg == word), None)
        if argument is None:
            continue
        called = last_name(call.func)
        for change in applicable_changes():
            if change.kind != "keyword" or change.argument != word:
                continue
            if change.path.rpartition(".")[2] not in {called, *names}:
                continue
            if change.to:
                return Proposal((keyword_name_replacement(cell.index, argument, change.to),), change_reason(change))
            edits = with_imported_names(
                context, cell, replacement_edits(f"{change.path}|{change.argument}", cell, call)
            )
            if edits:
                return Proposal(edits, change_reason(change))
        if word in _HARMLESS:
            edits = replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, word))
            return Proposal(edits, f"{called} no longer accepts `{word}`, which does not affect the result")
    return None


@fix_after_failure("positional", "", "", "arguments must be passed by keyword", order=20)
def positional_arguments(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Name positional arguments by the signature of the table; else by the words of the installed function's own error."""
    if failure.kind != "TypeError":
        return None
    match = _MANY.search(failure.message)
    if match is None:
        return _find_wrong_call(context, failure)
    called_name = match["function"].rpartition(".")[2]
    if called_name == "__init__":
        called_name = match["function"].split(".")[-2] if "." in match["function"] else ""
    for cell, call in context.failing(failure, ast.Call):
        called = last_name(call.func)
        if not call.args or (called_name and called != called_name):
            continue
        for change in applicable_changes():
            if change.kind == "positional" and change.path.rpartition(".")[2] == called:
                position = change.position or 0
                extra = call.args[position:]
                if len(change.names) >= len(extra) > 0:
                    return _keyword_proposal(cell, called, extra, change.names)
        names = parameter_names(context, cell, call)
        count = int(match["count"]) - (1 if "." in match["function"] or called != called_name else 0)
        for keep in dict.fromkeys((count, count - 1, int(match["count"]))):
            extra = call.args[keep:] if 0 <= keep < len(call.args) else []
            if extra and len(names) >= len(call.args):
                return _keyword_proposal(cell, called, extra, names[keep:])
    return None


def _find_wrong_call(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A call with a wrong signature: the error does not name the function, so each call is checked."""
    if _BOUND not in failure.message:
        return None
    for cell, call in context.failing(failure, ast.Call):
        keep = len(parameter_names(context, cell, call, positional=True))
        extra = call.args[keep:]
        if not extra or any(isinstance(argument, ast.Starred) for argument in call.args):
            continue
        names = parameter_names(context, cell, call)[keep:]
        if len(names) >= len(extra) and not set(names[: len(extra)]) & {word.arg for word in call.keywords}:
            return _keyword_proposal(cell, last_name(call.func), extra, names)
    return None


def _keyword_proposal(cell: Cell, called: str, values: Sequence[ast.expr], names: Sequence[str]) -> Proposal:
    edits = tuple(
        Edit(cell.index, value.lineno, value.col_offset, value.lineno, value.col_offset, f"{name}=")
        for value, name in zip(values, names, strict=False)
    )
    return Proposal(edits, f"{called}() accepts these arguments only by keyword")


def parameter_names(context: RepairContext, cell: Cell, call: ast.Call, *, positional: bool = False) -> list[str]:
    """Ask the child process for the parameter names of the called function; with `positional` only positional ones."""
    text = source_text(cell, call.func)
    which = " if p.kind < p.VAR_POSITIONAL" if positional else ""
    names = f"' '.join(n for n, p in __import__('inspect').signature({text}).parameters.items(){which})"
    expression = f"type('S', (), {{}}) if not callable({text}) else type({names}, (), {{}})"
    answer = context.kinds([expression]).get(expression, "")
    return answer.removeprefix("class:").partition(".")[2].split() if answer.startswith("class:") else []


@fix_after_failure("value", "", "", "the value is no longer accepted", order=25)
def renamed_value(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A renamed value that is passed through a variable or a dictionary: the text is changed where it is written."""
    if not {"ValueError", "TypeError", "KeyError", "OSError"} & set(failure.bases):
        return None
    quoted = set(re.findall(r"'([\w-]+)'", failure.message)) | set(re.findall(r"frequency: (\w+)", failure.message))
    if not quoted:
        return None
    around = {last_name(call.func) for _, call in context.failing(failure, ast.Call)}
    for change in applicable_changes():
        if change.kind != "value":
            continue
        replacements = {old: new for old, new in change.values.items() if old in quoted}
        if not replacements:
            continue
        parameter_seen = change.path.rpartition(".")[2] in around
        for cell, text in context.failing(failure, ast.Constant):
            if text.value in replacements and parameter_seen:
                new = replacements[text.value]
                if new is not None:
                    return Proposal(
                        (replace_node_edit(cell, text, repr(new)),), _changed_call(change, str(text.value), new)
                    )
                for _, call in context.failing(failure, ast.Call):
                    if last_name(call.func) == change.path.rpartition(".")[2] and (
                        edits := replacement_edits(change.path, cell, call)
                    ):
                        return Proposal(edits, _changed_call(change, str(text.value), change.instead))
        variables = {name for name, value in failure.strings.items() if value in replacements}
        for cell, assigned in context.nodes(ast.Assign):
            value = assigned.value
            if isinstance(value, ast.Constant) and value.value in replacements and parameter_seen:
                if {last_name(target) for target in assigned.targets} & variables and (
                    new := replacements[value.value]
                ):
                    edits = (replace_node_edit(cell, value, repr(new)),)
                    return Proposal(edits, _changed_call(change, value.value, new), restart=True)
    return None


def _changed_call(change: ApiChange, old: str, new: str) -> str:
    return f"{change.path} no longer accepts {old!r} since {change.library} {change.since}: use {new!r}"


@fix_after_failure("show-counts", "pandas", "2.0", "the argument was renamed", order=15)
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
    match = _UNEXPECTED.search(failure.message)
    if match is None or match["word"] not in renamed:
        return None
    for cell, call in context.failing(failure, ast.Call):
        for word in call.keywords:
            if word.arg == match["word"]:
                edit = keyword_name_replacement(cell.index, word, renamed[match["word"]])
                return Proposal((edit,), f"`{word.arg}=` is now `{renamed[match['word']]}=`")
    return None


@fix_after_failure("axis-of-columns", "pandas", "3.0", "`axis` is not accepted beside `columns` or `index`", order=20)
def axis_beside_columns(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`drop(columns=names, axis=1)`: without the axis, which the keyword says already; in all cells at once."""
    if not failure.says("Cannot specify both 'axis' and"):
        return None
    failing = [(cell, call) for cell, call in context.failing(failure, ast.Call) if _has_axis_beside_columns(call)]
    if not failing:
        return None
    methods = {last_name(call.func) for _, call in failing}
    others = [(cell, call) for cell, call in context.nodes(ast.Call) if _has_axis_beside_columns(call)]
    edits = [
        edit
        for cell, call in others
        if last_name(call.func) in methods
        for edit in replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, "axis"))
    ]
    return Proposal(tuple(edits), restart=False)


def _has_axis_beside_columns(call: ast.Call) -> bool:
    names = {word.arg for word in call.keywords}
    return isinstance(call.func, ast.Attribute) and "axis" in names and bool(names & {"columns", "index"})
