"""Fixes of missing modules: install them where allowed, remove unused imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from d2c_mlops.convert.repair.added_imports import resolve_added_imports
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    comment_out_edit,
    enclosing_statement,
    fix_after_failure,
    fix_before_run,
    last_name,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.source.environment import OWN_NAMES, TO_INSTALL
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell
from d2c_mlops.convert.source.path_exists import is_folder, path_exists_and_readable

_MISSING = re.compile(r"No module named '([\w.]+)'")
_OPTIONAL = re.compile(
    r"Missing optional dependency '([\w.-]+)'|`?Import (\w+) failed|requires? (?:the )?`?(\w+)`? (?:library|package|to be installed)"
)
_INSTALL = re.compile(r"^(?:-m\s+pip\s+|3?\s*)?install\s+(.+)$")
_COLAB = ("google.colab", "kaggle_datasets", "kaggle_secrets")


def distribution_of(module: str) -> str:
    """Return the distribution that contains a module; the module's own name if no table lists it."""
    top = module.partition(".")[0]
    return TO_INSTALL.get(module) or TO_INSTALL.get(top) or top.replace("_", "-")


@fix_before_run("notebook-of-colab", "", "", "the module exists only on Colab or Kaggle", order=2)
def hosted_service(context: RepairContext) -> Iterator[Proposal]:
    """Remove code that only works on a hosted notebook service: its import, the mounted drive, the upload form."""
    names: set[str] = set()
    imports: list[tuple[Cell, ast.Import | ast.ImportFrom]] = [
        *context.nodes(ast.Import),
        *context.nodes(ast.ImportFrom),
    ]
    for cell, node in imports:
        module = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
        path = f"{module}.{node.names[0].name}" if isinstance(node, ast.ImportFrom) else module
        if path.startswith(_COLAB) or module.startswith(_COLAB):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            yield Proposal((comment_out_edit(cell, node, ""),))
    for cell, statement in context.nodes(ast.Expr):
        call = statement.value
        if isinstance(call, ast.Call) and names & {
            part.id for part in ast.walk(call.func) if isinstance(part, ast.Name)
        }:
            yield Proposal((comment_out_edit(cell, statement, ""),))
    for cell, assign in context.nodes(ast.Assign):
        call = assign.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "upload":
            if last_name(call.func.value) in names | {"files"}:
                contents = "{p.name: p.read_bytes() for p in __import__('pathlib').Path('.').iterdir() if p.is_file()}"
                edits = resolve_added_imports(context, cell, (replace_node_edit(cell, call, contents),))
                yield Proposal(edits, "no upload form is available: the files of the folder are read")


@fix_before_run("install-in-a-cell", "", "", "packages are installed by the environment, not by a cell", order=1)
def package_installs(context: RepairContext) -> Iterator[Proposal]:
    """Remove `!pip install x`; the package is listed, and installed if this is allowed."""
    for cell in context.notebook.code:
        for magic in cell.magics:
            match = _INSTALL.match(magic.argument)
            tool = magic.name.lstrip("!%")
            if (
                tool not in ("pip", "pip3", "conda", "mamba", "uv", "python", "python3")
                or match is None
                or magic.target
            ):
                continue
            edit = Edit(cell.index, magic.line, 0, magic.end_line, _common_length(cell, magic.end_line), "")
            yield Proposal((edit,), f"`{magic.command}`: packages are installed by the environment, not by a cell")


def _common_length(cell: Cell, line: int) -> int:
    return len(cell.source.split("\n")[line - 1].encode())


@fix_after_failure("unused-module", "", "", "the module is missing and unused", order=4)
def unused_import(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Remove the import of a missing module that no cell uses."""
    match = _MISSING.search(failure.message)
    if "ImportError" not in failure.bases or match is None:
        return None
    plain, from_imports = context.failing(failure, ast.Import), context.failing(failure, ast.ImportFrom)
    imports: list[tuple[Cell, ast.Import | ast.ImportFrom]] = [*plain, *from_imports]
    for cell, node in imports:
        names = [
            resolve_added_imports.asname or resolve_added_imports.name.partition(".")[0]
            for resolve_added_imports in node.names
        ]
        if isinstance(node, ast.ImportFrom):
            if not (node.module or "").startswith(match[1].partition(".")[0]) or "*" in names:
                continue
            gone = node.names
        else:
            gone = [alias for alias in node.names if alias.name.partition(".")[0] == match[1].partition(".")[0]]
        bound = {alias.asname or alias.name.partition(".")[0] for alias in gone}
        if not bound or _is_used(context, bound):
            continue
        used_aliases = [alias for alias in node.names if alias not in gone]
        if used_aliases and isinstance(node, ast.Import):
            text = "import " + ", ".join(
                f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in used_aliases
            )
            return Proposal((replace_node_edit(cell, node, text),), f"`{match[1]}` is not installed and unused")
        return Proposal((comment_out_edit(cell, node, "unused"),), f"`{match[1]}` is not installed and unused")
    return None


def _is_used(context: RepairContext, names: set[str]) -> bool:
    return any(node.id in names and isinstance(node.ctx, ast.Load) for _, node in context.nodes(ast.Name)) or any(
        cell.problem is not None for cell in context.notebook.code
    )


@fix_after_failure("own-module", "", "", "a module of the author's own", order=5)
def own_module(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A missing module that is a file in one of the folders."""
    match = _MISSING.search(failure.message)
    if "ImportError" not in failure.bases or match is None:
        return None
    name = match[1].partition(".")[0]
    for folder in context.data_files.folders:
        for file in context.data_files.files(folder):
            if file.name == f"{name}.py" and not (context.data_files.folders[0] / file.name).exists():
                return Proposal(files=((file, file.name),), reason=f"{file.name} is copied beside the notebook")
    return None


_PYTHON_2_MODULES = {
    "StringIO": "io", "cStringIO": "io", "cPickle": "pickle", "urllib2": "urllib.request", "Queue": "queue",
    "ConfigParser": "configparser", "__builtin__": "builtins", "HTMLParser": "html.parser",
}  # fmt: skip


@fix_after_failure("python-2-module", "", "", "the module has another name in Python 3", order=3)
def python_two_module(context: RepairContext, failure: CellFailure) -> Proposal | None:
    match = _MISSING.search(failure.message)
    new = _PYTHON_2_MODULES.get(match[1], "") if match is not None and "ImportError" in failure.bases else ""
    if match is None or not new:
        return None
    reason = f"`{match[1]}` is `{new}` in Python 3"
    for cell, node in context.failing(failure, ast.ImportFrom):
        if node.module == match[1]:
            names = ", ".join(f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in node.names)
            return Proposal((replace_node_edit(cell, node, f"from {new} import {names}"),), reason)
    for cell, plain in context.failing(failure, ast.Import):
        imported_module = plain.names[0]
        if imported_module.name == match[1] and len(plain.names) == 1:
            return Proposal(
                (replace_node_edit(cell, plain, f"import {new} as {imported_module.asname or imported_module.name}"),),
                reason,
            )
    return None


@fix_after_failure("inner-module", "", "", "the module was moved inside its package or is private", order=7)
def inner_module(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`from sklearn.ensemble.forest import X`: the package contains the name too."""
    match = _MISSING.search(failure.message)
    if "ImportError" not in failure.bases or match is None or "." not in match[1]:
        return None
    for cell, node in context.failing(failure, ast.ImportFrom):
        if node.module is None or not node.module.startswith(match[1]):
            continue
        package = match[1].rpartition(".")[0]
        while package:
            expressions = [f"__import__('{package}', fromlist=['x']).{alias.name}" for alias in node.names]
            if all(context.kinds(expressions).values()):
                names = ", ".join(
                    f"{resolve_added_imports.name} as {resolve_added_imports.asname}"
                    if resolve_added_imports.asname
                    else resolve_added_imports.name
                    for resolve_added_imports in node.names
                )
                return Proposal(
                    (replace_node_edit(cell, node, f"from {package} import {names}"),), f"{package} provides it"
                )
            package = package.rpartition(".")[0]
    return None


@fix_after_failure("missing-module", "", "", "the module is not installed", order=60)
def install_missing_module(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Install the distribution of a missing module into the run's own folder, if this is allowed."""
    name = missing_module(failure)
    if not name or not context.install:
        return None
    distribution = distribution_of(name)
    if distribution in context.tried or name.partition(".")[0] in OWN_NAMES:
        return None
    return Proposal(distributions=(distribution,), reason=f"`{name}` is part of {distribution}", restart=False)


def missing_module(failure: CellFailure) -> str:
    """Return the module whose import failed; empty for other failures."""
    if "ImportError" not in failure.bases:
        return ""
    match = _MISSING.search(failure.message)
    if match is not None:
        return match[1]
    optional = _OPTIONAL.search(failure.message)
    return next((group for group in optional.groups() if group), "") if optional is not None else ""


def distributions_needed(context: RepairContext, folder: Path, own_modules: Collection[str] = ()) -> list[str]:
    """List the distributions of all imports that are not installed; modules of the author's own are not among them."""
    from importlib.util import find_spec

    distributions: list[str] = []
    imports: list[tuple[Cell, ast.Import | ast.ImportFrom]] = [
        *context.nodes(ast.Import),
        *context.nodes(ast.ImportFrom),
    ]
    for _, node in imports:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        if isinstance(node, ast.ImportFrom) and node.level:
            continue
        for module in modules:
            top = module.partition(".")[0]
            if (
                not top
                or top in own_modules
                or top in OWN_NAMES
                or path_exists_and_readable(folder / f"{top}.py")
                or is_folder(folder / top)
                or top in ("google", "kaggle_datasets")
            ):
                continue
            try:
                absent = find_spec(top) is None
            except (ImportError, ValueError):
                absent = True
            if absent:
                distributions.append(distribution_of(module))
    return list(dict.fromkeys(distributions))


@fix_after_failure("no-change-of-folder", "", "", "the folder does not exist", order=12)
def change_of_folder(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`os.chdir` into a folder of another machine: the notebook runs where its data is."""
    if not {"FileNotFoundError", "NotADirectoryError", "PermissionError"} & set(failure.bases):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if source_text(cell, call.func) in ("os.chdir", "chdir", "os.listdir", "listdir") and call.args:
            if last_name(call.func) == "listdir":
                return Proposal((replace_node_edit(cell, call.args[0], "'.'"),), "the notebook runs in its data folder")
            statement = enclosing_statement(cell, call)
            if isinstance(statement, ast.Expr):
                return Proposal((comment_out_edit(cell, statement, ""),), "the notebook runs in its data folder")
    return None


@fix_before_run("folder-magic", "", "", "the notebook runs in its data folder", order=3)
def folder_magics(context: RepairContext) -> Iterator[Proposal]:
    """`%cd /content/drive/...`: removed."""
    for cell in context.notebook.code:
        for magic in cell.magics:
            if (
                magic.name == "cd"
                and magic.kind in ("line", "automagic", "shell")
                and magic.argument.startswith(("/", "~", "C:", '"', "'"))
            ):
                yield Proposal(
                    (Edit(cell.index, magic.line, 0, magic.end_line, _common_length(cell, magic.end_line), ""),)
                )


@fix_before_run("gone-extension", "", "", "the extension is not installed", order=3)
def notebook_extensions(context: RepairContext) -> Iterator[Proposal]:
    """Formatters and profilers that only serve the author's screen."""
    for cell in context.notebook.code:
        for magic in cell.magics:
            if magic.kind == "line" and magic.name == "load_ext" and magic.argument.split()[:1] and magic.argument.split()[0] in (
                "nb_black", "lab_black", "jupyternotify", "autotime", "google.cloud.bigquery", "tensorboard", "watermark", "google.colab.data_table",
            ):  # fmt: skip
                yield Proposal(
                    (Edit(cell.index, magic.line, 0, magic.end_line, _common_length(cell, magic.end_line), ""),)
                )
            if magic.kind == "line" and magic.name in (
                "watermark",
                "tensorflow_version",
                "tensorboard",
                "autotime",
                "nb_black",
            ):
                yield Proposal(
                    (Edit(cell.index, magic.line, 0, magic.end_line, _common_length(cell, magic.end_line), ""),)
                )
            if (
                magic.kind == "line"
                and magic.name == "matplotlib"
                and magic.argument.split()[:1]
                in (["notebook"], ["widget"], ["qt"], ["ipympl"], ["nbagg"], ["qt5"], ["tk"])
            ):
                edit = Edit(
                    cell.index,
                    magic.line,
                    0,
                    magic.end_line,
                    _common_length(cell, magic.end_line),
                    "%matplotlib inline",
                )
                yield Proposal((edit,), "interactive plots need a browser")
