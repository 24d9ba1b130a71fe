"""Fixes of file paths and URLs that do not exist: match them with the available files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from d2c_mlops.convert.repair.data_files import base_of
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    after,
    last_name,
    replaced,
    spelled,
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


@after("path", "", "", "the file is not at the expected path", order=10)
def path(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Match a missing file, and write its name where the notebook wrote the old one."""
    if not {"FileNotFoundError", "NotADirectoryError", "PermissionError", "IsADirectoryError", "OSError"} & set(
        failure.bases
    ):
        return None
    wanted = wanted_file(context, failure)
    if not wanted:
        return None
    found = context.data_files.find(wanted, columns_used(context), files_written(context))
    return laid(context, failure, wanted, *found) if found is not None else None


@after("uploaded", "", "", "the file was uploaded through a form", order=10)
def uploaded(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`uploaded['sales (1).csv']`: the file of the data folder that is meant."""
    wanted = failure.arguments[0] if failure.kind == "KeyError" and failure.arguments else None
    if not isinstance(wanted, str) or not _SUFFIX.search(wanted):
        return None
    found = context.data_files.find(wanted, columns_used(context), files_written(context))
    return laid(context, failure, wanted, *found) if found is not None else None


@after("address", "", "", "the URL cannot be reached, but its file is available", order=10)
def address(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A file read from the web whose name is in the data folder."""
    if not wants_network(failure):
        return None
    for wanted in addresses(context, failure):
        found = context.data_files.find(wanted, columns_used(context), files_written(context))
        if found is not None:
            return laid(context, failure, wanted, *found)
    return None


def wants_network(failure: CellFailure) -> bool:
    """Whether a cell failed because it opened a connection, which there is none in isolation."""
    return bool(set(_NETWORK) & set(failure.bases)) or failure.through(
        "urllib", "requests/", "http/client", "fsspec", "httpx/"
    )


def addresses(context: RepairContext, failure: CellFailure) -> list[str]:
    """Return the addresses around a failure: in its statement, in the values of its names."""
    near = [one.value for _, one in context.failing(failure, ast.Constant) if isinstance(one.value, str)]
    near += list(failure.strings.values())
    return [one for one in dict.fromkeys(near) if _ADDRESS.match(one)]


def wanted_file(context: RepairContext, failure: CellFailure) -> str:
    """Return the path that was not found: from the exception, its message, or the text in the failing call."""
    if failure.filename and not failure.filename.endswith((".so", ".py")):
        return failure.filename
    for pattern in (
        r"No such file or directory: '(.+?)'", r"File b?'(.+?)' does not exist", r"'(.+?)' does not exist",
        r"(?m)^\s*(\S.*?) not found\.?$", r"File (\S+) does not exist", r"No such file or directory:? (.+)$",
    ):  # fmt: skip
        found = re.search(pattern, failure.message)
        if found:
            return found[1]
    texts = [one.value for _, one in context.failing(failure, ast.Constant) if isinstance(one.value, str)]
    return next((text for text in texts if _SUFFIX.search(text)), "")


def columns_used(context: RepairContext) -> set[str]:
    """Return the texts and the attributes of the notebook: names of columns are among them."""
    texts = {node.value for _, node in context.nodes(ast.Constant) if isinstance(node.value, str)}
    return texts | {node.attr for _, node in context.nodes(ast.Attribute)}


def files_written(context: RepairContext) -> set[str]:
    """Return the names of the files that the notebook writes: what it gives cannot be what it wants."""
    writes = [
        call
        for _, call in context.nodes(ast.Call)
        if last_name(call.func).startswith("to_") or last_name(call.func) in ("dump", "savefig", "save")
    ]
    given = [argument for call in writes for argument in [*call.args, *(word.value for word in call.keywords)]]
    texts = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return {base_of(text) for text in texts}


def laid(context: RepairContext, failure: CellFailure, wanted: str, file: Path, how: str) -> Proposal | None:
    """Lay the file beside the notebook, and point the notebook to it."""
    here = context.data_files.folders[0]
    inside = file.is_relative_to(here)
    name = file.relative_to(here).as_posix() if inside else file.name
    files = () if inside else ((file, name),)
    reason = f"{base_of(wanted) or wanted} is matched to {name} by {how}"
    texts = list(_texts(context, failure, wanted))
    formatted = {id(part) for _, node in context.nodes(ast.JoinedStr) for part in node.values}
    if formatted & {id(text) for _, text in texts}:
        inside_text = [(cell, text) for cell, text in texts if id(text) in formatted]
        made = _formatted(context, failure, wanted, name, reason, files)
        if made := made or _one_whole(context, inside_text, name, reason, files, failure):
            return made
        texts = [pair for pair in texts if id(pair[1]) not in formatted]
    for cell, text in texts:
        if text.value == wanted or _same(str(text.value), wanted):
            return Proposal((replaced(cell, text, repr(name)),), reason, files, restart=cell.index < failure.cell)
    for cell, text in texts:  # the text is the start of the path, or its end
        value = str(text.value)
        rest = wanted[len(value) :]
        if wanted.startswith(value) and rest and name.endswith(rest.lstrip("/\\")):
            start = name[: len(name) - len(rest.lstrip("/\\"))]
            new = start if rest[0] not in "/\\" else start.rstrip("/") or "."
            return Proposal((replaced(cell, text, repr(new)),), reason, files, restart=cell.index < failure.cell)
        if _SUFFIX.search(value) and wanted.endswith(value):
            return _one_whole(context, [(cell, text)], name, reason, files, failure)
    if not inside and not Path(wanted).is_absolute() and ".." not in wanted:
        return Proposal((), reason, ((file, wanted.replace("\\", "/")),))
    return None


def _formatted(
    context: RepairContext,
    failure: CellFailure,
    wanted: str,
    name: str,
    reason: str,
    files: tuple[tuple[Path, str], ...],
) -> Proposal | None:
    """`f'/data/{shop}.csv'` keeps its parts: only the folder that it starts with is another."""
    for cell, node in context.failing(failure, ast.JoinedStr):
        first = node.values[0] if node.values else None
        start = first.value if isinstance(first, ast.Constant) else None
        if not isinstance(start, str) or not wanted.startswith(start) or start.count("{"):
            continue
        folder = start[: max(start.rfind("/"), start.rfind("\\")) + 1]
        rest = wanted[len(folder) :]
        text = spelled(cell, node)
        if folder and name.endswith(rest) and folder in text:
            edit = replaced(cell, node, text.replace(folder, name[: len(name) - len(rest)], 1))
            return Proposal((edit,), reason, files)
    return None


def _one_whole(
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
        made = _whole(cell, text, name, reason, files, failure)
        if made is not None and not any(
            isinstance(part, ast.Name) and part.id in varying
            for _, node in context.nodes(ast.expr, cell)
            if (node.lineno, node.col_offset) == (made.edits[0].line, made.edits[0].column)
            for part in ast.walk(node)
        ):
            return made
    return None


def _whole(
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
    return Proposal((replaced(cell, best, repr(name)),), reason, files, restart=cell.index < failure.cell)


def _same(text: str, wanted: str) -> bool:
    return text.replace("\\", "/").lstrip("./") == wanted.replace("\\", "/").lstrip("./") and text != ""


def _texts(context: RepairContext, failure: CellFailure, wanted: str) -> list[tuple[Cell, ast.Constant]]:
    """Return the texts of the notebook that may be the path, those at the failure first."""
    near = [
        (cell, one) for cell, one in context.failing(failure, ast.Constant) if isinstance(one.value, str) and one.value
    ]
    rest = [(cell, node) for cell, node in context.nodes(ast.Constant) if isinstance(node.value, str) and node.value]
    return near + [
        pair for pair in rest if base_of(str(pair[1].value)) == base_of(wanted) or wanted.startswith(str(pair[1].value))
    ]
