"""Fixes of file paths and URLs that do not exist: match them with the available files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from d2c_mlops.convert.repair.data_files import file_base_name
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    fix_after_failure,
    last_name,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.source.notebook import Cell

_ADDRESS = re.compile(r"^(?:https?|ftp|s3|gs|file)://", re.IGNORECASE)
_NETWORK = (
    "URLError",
    "HTTPError",
    "gaierror",
    "ConnectionError",
    "RemoteDisconnected",
    "TimeoutError",
    "SSLError",
    "ProxyError",
    "InvalidURL",
)
_SUFFIX = re.compile(
    r"\.(?:csv|tsv|txt|xlsx?|xlsm|json|parquet|data|zip|gz|feather|dat|pkl|pickle|sav|h5|joblib|png|jpe?g)$",
    re.IGNORECASE,
)


@fix_after_failure("path", "", "", "the file is not at the expected path", order=10)
def missing_file(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Match a missing file, and replace the old name in the notebook."""
    if not {"FileNotFoundError", "NotADirectoryError", "PermissionError", "IsADirectoryError", "OSError"} & set(
        failure.bases
    ):
        return None
    reference = wanted_file(context, failure)
    if not reference:
        return None
    match = context.data_files.find(reference, columns_used(context), files_written(context))
    return replace_file_reference(context, failure, reference, *match) if match is not None else None


@fix_after_failure("uploaded", "", "", "the file was uploaded through a form", order=10)
def uploaded_file(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`uploaded['sales (1).csv']`: the matching file of the data folder."""
    reference = failure.arguments[0] if failure.kind == "KeyError" and failure.arguments else None
    if not isinstance(reference, str) or not _SUFFIX.search(reference):
        return None
    match = context.data_files.find(reference, columns_used(context), files_written(context))
    return replace_file_reference(context, failure, reference, *match) if match is not None else None


@fix_after_failure("address", "", "", "the URL cannot be reached, but its file is available", order=10)
def unreachable_address(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A file read from the web whose name is in the data folder."""
    if not needs_network(failure):
        return None
    for url in addresses_near_failure(context, failure):
        match = context.data_files.find(url, columns_used(context), files_written(context))
        if match is not None:
            return replace_file_reference(context, failure, url, *match)
    return None


def needs_network(failure: CellFailure) -> bool:
    """Whether a cell failed because it opened a connection; isolated runs have no network."""
    return bool(set(_NETWORK) & set(failure.bases)) or failure.through(
        "urllib", "requests/", "http/client", "fsspec", "httpx/"
    )


def addresses_near_failure(context: RepairContext, failure: CellFailure) -> list[str]:
    """Return the addresses around a failure: in its statement, in the values of its names."""
    near = [constant.value for _, constant in context.failing(failure, ast.Constant) if isinstance(constant.value, str)]
    near += list(failure.strings.values())
    return [text for text in dict.fromkeys(near) if _ADDRESS.match(text)]


def wanted_file(context: RepairContext, failure: CellFailure) -> str:
    """Return the path that was not found: from the exception, its message, or the text in the failing call."""
    if failure.filename and not failure.filename.endswith((".so", ".py")):
        return failure.filename
    for pattern in (
        r"No such file or directory: '(.+?)'", r"File b?'(.+?)' does not exist", r"'(.+?)' does not exist",
        r"(?m)^\s*(\S.*?) not found\.?$", r"File (\S+) does not exist", r"No such file or directory:? (.+)$",
    ):  # fmt: skip
        match = re.search(pattern, failure.message)
        if match:
            return match[1]
    texts = [
        constant.value for _, constant in context.failing(failure, ast.Constant) if isinstance(constant.value, str)
    ]
    return next((text for text in texts if _SUFFIX.search(text)), "")


def columns_used(context: RepairContext) -> set[str]:
    """Return the texts and the attributes of the notebook: names of columns are among them."""
    texts = {node.value for _, node in context.nodes(ast.Constant) if isinstance(node.value, str)}
    return texts | {node.attr for _, node in context.nodes(ast.Attribute)}


def files_written(context: RepairContext) -> set[str]:
    """Return the names of the files that the notebook writes: they cannot be its input."""
    writes = [
        call
        for _, call in context.nodes(ast.Call)
        if last_name(call.func).startswith("to_") or last_name(call.func) in ("dump", "savefig", "save")
    ]
    arguments = [argument for call in writes for argument in [*call.args, *(word.value for word in call.keywords)]]
    texts = [
        argument.value
        for argument in arguments
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
    return {file_base_name(text) for text in texts}


def replace_file_reference(
    context: RepairContext, failure: CellFailure, reference: str, file: Path, match_reason: str
) -> Proposal | None:
    """Lay the file beside the notebook, and point the notebook to it."""
    folder = context.data_files.folders[0]
    inside = file.is_relative_to(folder)
    name = file.relative_to(folder).as_posix() if inside else file.name
    files = () if inside else ((file, name),)
    reason = f"{file_base_name(reference) or reference} is matched to {name} by {match_reason}"
    texts = list(_path_texts(context, failure, reference))
    formatted = {id(part) for _, node in context.nodes(ast.JoinedStr) for part in node.values}
    if formatted & {id(text) for _, text in texts}:
        inside_text = [(cell, text) for cell, text in texts if id(text) in formatted]
        proposal = _formatted_path_proposal(context, failure, reference, name, reason, files)
        if proposal := proposal or _replace_whole_path(context, inside_text, name, reason, files, failure):
            return proposal
        texts = [pair for pair in texts if id(pair[1]) not in formatted]
    for cell, text in texts:
        if text.value == reference or _is_same_path(str(text.value), reference):
            return Proposal(
                (replace_node_edit(cell, text, repr(name)),), reason, files, restart=cell.index < failure.cell
            )
    for cell, text in texts:  # the text is the start of the path, or its end
        value = str(text.value)
        tail = reference[len(value) :]
        if reference.startswith(value) and tail and name.endswith(tail.lstrip("/\\")):
            start = name[: len(name) - len(tail.lstrip("/\\"))]
            new = start if tail[0] not in "/\\" else start.rstrip("/") or "."
            return Proposal(
                (replace_node_edit(cell, text, repr(new)),), reason, files, restart=cell.index < failure.cell
            )
        if _SUFFIX.search(value) and reference.endswith(value):
            return _replace_whole_path(context, [(cell, text)], name, reason, files, failure)
    if not inside and not Path(reference).is_absolute() and ".." not in reference:
        return Proposal((), reason, ((file, reference.replace("\\", "/")),))
    return None


def _formatted_path_proposal(
    context: RepairContext,
    failure: CellFailure,
    reference: str,
    name: str,
    reason: str,
    files: tuple[tuple[Path, str], ...],
) -> Proposal | None:
    """`f'/data/{shop}.csv'` keeps its parts: only the folder at the beginning is replaced."""
    for cell, node in context.failing(failure, ast.JoinedStr):
        first = node.values[0] if node.values else None
        start = first.value if isinstance(first, ast.Constant) else None
        if not isinstance(start, str) or not reference.startswith(start) or start.count("{"):
            continue
        folder = start[: max(start.rfind("/"), start.rfind("\\")) + 1]
        tail = reference[len(folder) :]
        text = source_text(cell, node)
        if folder and name.endswith(tail) and folder in text:
            edit = replace_node_edit(cell, node, text.replace(folder, name[: len(name) - len(tail)], 1))
            return Proposal((edit,), reason, files)
    return None


def _replace_whole_path(
    context: RepairContext,
    texts: list[tuple[Cell, ast.Constant]],
    name: str,
    reason: str,
    files: tuple[tuple[Path, str], ...],
    failure: CellFailure,
) -> Proposal | None:
    """Replace a joined path by one name, unless its parts change from use to use: loops, functions."""
    varying = {
        node.id for _, loop in context.nodes(ast.For) for node in ast.walk(loop.target) if isinstance(node, ast.Name)
    }
    varying |= {
        node.id
        for _, child in context.nodes(ast.comprehension)
        for node in ast.walk(child.target)
        if isinstance(node, ast.Name)
    }
    varying |= {node.arg for _, node in context.nodes(ast.arg)}
    for cell, text in texts:
        proposal = _replace_joined_path(cell, text, name, reason, files, failure)
        if proposal is not None and not any(
            isinstance(part, ast.Name) and part.id in varying
            for _, node in context.nodes(ast.expr, cell)
            if (node.lineno, node.col_offset) == (proposal.edits[0].line, proposal.edits[0].column)
            for part in ast.walk(node)
        ):
            return proposal
    return None


def _replace_joined_path(
    cell: Cell, text: ast.Constant, name: str, reason: str, files: tuple[tuple[Path, str], ...], failure: CellFailure
) -> Proposal | None:
    """Replace a whole expression that joins folders and a name: `folder + 'x.csv'`, `os.path.join(folder, 'x.csv')`."""
    if cell.tree is None:
        return None
    best: ast.expr = text
    for node in ast.walk(cell.tree):
        joins = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Div)
        joins = joins or (isinstance(node, ast.Call) and last_name(node.func) == "join")
        if isinstance(node, ast.expr) and (joins or isinstance(node, ast.JoinedStr)):
            if any(part is text for part in ast.walk(node)) and not isinstance(best, ast.Call | ast.JoinedStr):
                best = node if best is text else best
    return Proposal((replace_node_edit(cell, best, repr(name)),), reason, files, restart=cell.index < failure.cell)


def _is_same_path(text: str, reference: str) -> bool:
    return text.replace("\\", "/").lstrip("./") == reference.replace("\\", "/").lstrip("./") and text != ""


def _path_texts(context: RepairContext, failure: CellFailure, reference: str) -> list[tuple[Cell, ast.Constant]]:
    """Return the texts of the notebook that may be the path, those at the failure first."""
    near = [
        (cell, constant)
        for cell, constant in context.failing(failure, ast.Constant)
        if isinstance(constant.value, str) and constant.value
    ]
    constants = [
        (cell, node) for cell, node in context.nodes(ast.Constant) if isinstance(node.value, str) and node.value
    ]
    return near + [
        pair
        for pair in constants
        if file_base_name(str(pair[1].value)) == file_base_name(reference) or reference.startswith(str(pair[1].value))
    ]
