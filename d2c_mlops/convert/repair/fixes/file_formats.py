"""Fixes of reads of files whose encoding, separator or type is not the expected one."""

from __future__ import annotations

import ast
from pathlib import Path

from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.repair.data_files import detect_encoding, detect_file_kind, detect_separator
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    add_argument_edit,
    fix_after_failure,
    last_name,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.repair.fixes.paths import columns_used
from d2c_mlops.convert.repair.replacement_registry import argument_texts, replace_call
from d2c_mlops.convert.run.folder_copies import is_visible_below
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell
from d2c_mlops.convert.source.path_exists import is_file

_READERS = {
    "xlsx": "read_excel",
    "xls": "read_excel",
    "parquet": "read_parquet",
    "json": "read_json",
    "text": "read_csv",
}
_EXCEL_ONLY = ("sheet_name", "engine", "sheetname")
_TEXT_ONLY = (
    "sep",
    "delimiter",
    "encoding",
    "engine",
    "error_bad_lines",
    "on_bad_lines",
    "low_memory",
    "lineterminator",
    "quotechar",
)


def file_read(context: RepairContext, failure: CellFailure, cell: Cell, call: ast.Call) -> Path | None:
    """Return the file that a reader was called with, if it is in the notebook's folder."""
    path_node = call.args[0] if call.args else keyword_value(call, "filepath_or_buffer") or keyword_value(call, "io")
    text = path_node.value if isinstance(path_node, ast.Constant) else None
    if isinstance(path_node, ast.Name):
        text = failure.strings.get(path_node.id)
    if not isinstance(text, str):
        return None
    place = context.data_files.folders[0] / text
    return place if is_file(place) and is_visible_below(place, context.data_files.folders[:1]) else None


@fix_after_failure("file-type", "", "", "the file type does not match the file name", order=11)
def file_type(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A workbook named .csv, a text named .xls: read with the reader of its content."""
    for cell, call in context.failing(failure, ast.Call):
        name = last_name(call.func)
        if not name.startswith("read_"):
            continue
        file = file_read(context, failure, cell, call)
        if file is None:
            continue
        kind = detect_file_kind(file)
        reader = _READERS.get(kind)
        if reader is None or reader == name or (name == "read_table" and reader == "read_csv"):
            continue
        gone = _TEXT_ONLY if reader == "read_excel" else _EXCEL_ONLY
        arguments = argument_texts(cell, call, *gone)
        if reader == "read_csv" and detect_separator(file) != ",":
            arguments.append(f"sep={detect_separator(file)!r}")
        if reader == "read_csv" and detect_encoding(file) != "utf-8":
            arguments.append(f"encoding={detect_encoding(file)!r}")
        start = source_text(cell, call.func).removesuffix(name)
        return Proposal(replace_call(cell, call, start + reader, arguments), f"the content of {file.name} is {kind}")
    return None


@fix_after_failure("encoding", "", "", "the text is not UTF-8", order=12)
def file_encoding(context: RepairContext, failure: CellFailure) -> Proposal | None:
    if "UnicodeDecodeError" not in failure.bases and "UnicodeError" not in failure.bases:
        return None
    for cell, call in context.failing(failure, ast.Call):
        name = last_name(call.func)
        if name not in ("read_csv", "read_table", "open"):
            continue
        file = file_read(context, failure, cell, call)
        detected = detect_encoding(file) if file is not None else "latin-1"
        argument = keyword_value(call, "encoding")
        if argument is not None:
            return Proposal((replace_node_edit(cell, argument, repr(detected)),), f"the file encoding is {detected}")
        return Proposal((add_argument_edit(cell, call, f"encoding={detected!r}"),), f"the file encoding is {detected}")
    return None


@fix_after_failure("engine", "pandas", "2.0", "the reader is selected by the file's content", order=11)
def excel_engine(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`engine='xlrd'` for an .xlsx: without it, pandas chooses the engine."""
    if not failure.says("Excel xlsx file; not supported", "xlsx file; not supported", "xlrd", "engine"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        word = keyword_value(call, "engine")
        if last_name(call.func) in ("read_excel", "ExcelFile") and word is not None:
            file = file_read(context, failure, cell, call)
            if file is not None and detect_file_kind(file) == "xls":
                return None
            return Proposal(
                replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, "engine")),
                "the reader is selected by the file's content",
            )
    return None


@fix_after_failure("separator", "", "", "the column separator is different", order=13)
def column_separator(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A table that was read as one column, or with rows of unequal length."""
    if "ParserError" not in failure.bases:
        return None
    for cell, call in context.failing(failure, ast.Call):
        file = file_read(context, failure, cell, call) if last_name(call.func) in ("read_csv", "read_table") else None
        if file is None:
            continue
        sign = detect_separator(file)
        argument = keyword_value(call, "sep") or keyword_value(call, "delimiter")
        if argument is None and sign != ",":
            return Proposal((add_argument_edit(cell, call, f"sep={sign!r}"),), f"the column separator is {sign!r}")
    return None


@fix_after_failure("one-column", "", "", "the column separator is different", order=55)
def one_column(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A KeyError because a `;` table was read as one column: the separator is added where it is read."""
    if failure.kind not in ("KeyError", "AttributeError"):
        return None
    for cell, call in context.nodes(ast.Call):
        if last_name(call.func) != "read_csv" or keyword_value(call, "sep") is not None or len(call.args) > 1:
            continue
        file = file_read(context, failure, cell, call)
        if file is None or detect_separator(file) == ",":
            continue
        from d2c_mlops.convert.repair.data_files import table_column_names

        if columns_used(context) & set(table_column_names(file)):
            sign = detect_separator(file)
            return Proposal(
                (add_argument_edit(cell, call, f"sep={sign!r}"),), f"the column separator is {sign!r}", restart=True
            )
    return None


@fix_after_failure("padded-names", "", "", "column names have surrounding spaces", order=56)
def column_name_spelling(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A column name in another case, or without its spaces, in a file that was matched."""
    column = failure.arguments[0] if failure.kind == "KeyError" and failure.arguments else None
    if not isinstance(column, str):
        return None
    from d2c_mlops.convert.repair.data_files import table_column_names

    for file in context.data_files.files(context.data_files.folders[0]):
        names = table_column_names(file)
        if column in names:
            return None
        same = [name for name in names if name.strip().lower() == column.strip().lower()]
        if len(same) == 1:
            edits: list[Edit] = [
                replace_node_edit(cell, text, repr(same[0]))
                for cell, text in context.nodes(ast.Constant)
                if text.value == column
            ]
            return Proposal(tuple(edits), f"{file.name} has the column {same[0]!r}", restart=True) if edits else None
    return None
