"""Find the author's own packages beside or above the notebook and copy them for its runs."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from d2c_mlops.convert.run.folder_copies import copy_folder, is_visible_below, left_out_summary, repository_root
from d2c_mlops.convert.run.isolated_run import PACKAGE_ROOT
from d2c_mlops.convert.source.environment import DISTRIBUTIONS, TO_INSTALL
from d2c_mlops.convert.source.notebook import Notebook
from d2c_mlops.convert.source.path_exists import is_file, is_folder
from d2c_mlops.errors import DataRefused, Failure

FOLDER = "local"
LARGEST_PACKAGE = 64 << 20  # bytes of a package that is copied
_INSTALL = re.compile(r"(?:pip3?|conda|mamba)\s+install\s+(.*)")


@dataclass(frozen=True)
class LocalPackage:
    """One top-level module or package of the author: its name and the file or folder that holds it."""

    name: str
    place: Path


def import_roots(folder: Path, notebook: Notebook, data: Path | None = None) -> list[Path]:
    """Return the folders from which a notebook may import: its own, those it adds to sys.path, `data`, its repository's.

    The folders on the way to the root of the repository and its `src` count too. Folders outside of the notebook's folder, its
    repository and `data` do not: a notebook must not choose what is copied for it.
    """
    folder = folder.resolve()
    starts = [folder, *([data.resolve()] if data is not None else [])]
    roots, limits = [*starts], [*starts]
    for start in starts:
        if (top := repository_root(start)) is not None:
            limits.append(top)
            roots += [upward for upward in (start, *start.parents) if upward.is_relative_to(top)]
            if (top / "src").is_dir():
                roots.append(top / "src")
    roots[1:1] = [path for path in _added_folders(notebook, folder) if is_visible_below(path, limits)]
    return [path for path in dict.fromkeys(roots) if is_folder(path) and path != Path(path.anchor)]


def find_local(name: str, roots: Sequence[Path]) -> LocalPackage | None:
    """Return the author's module of a name, nearest root first: NAME.py, or a folder with Python files."""
    for root in roots:
        for place, proof in ((root / name, root / name / "__init__.py"), (root / f"{name}.py", root / f"{name}.py")):
            if is_file(proof) and is_visible_below(place, roots) and is_visible_below(proof, roots):
                return LocalPackage(name, place)
    for root in roots:
        if is_folder(root / name) and is_visible_below(root / name, roots) and _holds_python(root / name):
            return LocalPackage(name, root / name)
    return None


def _holds_python(folder: Path) -> bool:
    return any(folder.glob("*.py")) or any(folder.glob("*/*.py"))


def imported_modules(notebook: Notebook) -> dict[str, int]:
    """Return the top-level modules that a notebook imports, each with the first cell that does (from 1)."""
    first_cells: dict[str, int] = {}
    for cell in notebook.code:
        for name in _imported_packages(cell.tree) if cell.tree is not None else ():
            first_cells.setdefault(name, cell.index + 1)
    return first_cells


def _imported_packages(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def local_modules(notebook: Notebook, roots: Sequence[Path]) -> dict[str, LocalPackage]:
    """Return the author's modules that a notebook imports, and those that they import."""
    packages: dict[str, LocalPackage] = {}
    todo = list(imported_modules(notebook))
    while todo:
        name = todo.pop()
        if name in packages or name in sys.stdlib_module_names or not name.isidentifier():
            continue
        local = find_local(name, roots)
        if local is None or _is_d2c_package(local):
            continue
        packages[name] = local
        files = [local.place] if local.place.is_file() else sorted(local.place.rglob("*.py"))[:500]
        for file in files:
            try:
                todo += _imported_packages(ast.parse(file.read_text(encoding="utf-8", errors="replace")))
            except (SyntaxError, ValueError, OSError):
                continue
    return dict(sorted(packages.items()))


def _is_d2c_package(local: LocalPackage) -> bool:
    return local.place.resolve().is_relative_to(PACKAGE_ROOT / "d2c_mlops")


def distribution_on_index(name: str, notebook: Notebook, roots: Sequence[Path]) -> str:
    """Return the distribution of a name outside of the author's folders: installed, well known, or requested by the author; or "".

    No package index is queried for a local name.
    """
    try:
        spec = PathFinder.find_spec(
            name, [entry for entry in sys.path if entry and not _lies_in_roots(Path(entry), roots)]
        )
    except (ImportError, ValueError):
        spec = None
    places = [spec.origin] if spec is not None and spec.origin else []
    if places and not any(_lies_in_roots(Path(place), roots) for place in places):
        return f"the installed {DISTRIBUTIONS.get(name, name)}"
    distributions = {**DISTRIBUTIONS, **TO_INSTALL}
    if name in distributions or _normalized_name(name) in {
        _normalized_name(distribution) for distribution in distributions.values()
    }:
        return f"{distributions.get(name, name)} on the package index"
    for text, where in _installed_in_cells(notebook, roots):
        if _normalized_name(name) in {_normalized_name(re.split(r"[=<>!~\[; ]", word)[0]) for word in text.split()}:
            return f"{name} on the package index, required by {where}"
    return ""


def _lies_in_roots(place: Path, roots: Sequence[Path]) -> bool:
    resolved = place.resolve()
    inside = any(resolved == root or resolved.is_relative_to(root) for root in roots)
    return inside and "site-packages" not in resolved.parts


def _normalized_name(name: str) -> str:
    return name.lower().replace("_", "-").partition("<")[0]


def _installed_in_cells(notebook: Notebook, roots: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """The packages that the author installs, with the place of each command."""
    for cell in notebook.code:
        for magic in cell.magics:
            if command := _INSTALL.search(magic.command):
                yield command[1], f"cell {cell.number}"
    for root in roots:
        for file in sorted(root.glob("requirements*.txt")):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            names = [line.split("#")[0].strip() for line in lines if not line.startswith("-")]
            yield " ".join(re.split(r"[=<>!~\[; ]", name)[0] for name in names if name), file.name


def choose_local_packages(
    notebook: Notebook, roots: Sequence[Path], *, local: Collection[str] = (), index: Collection[str] = ()
) -> dict[str, LocalPackage]:
    """Return the author's modules to use. Raises DataRefused if a name is local and on the index and the user has not chosen.

    `local` and `index` hold the names for which the user has chosen.
    """
    packages = local_modules(notebook, roots)
    cells = imported_modules(notebook)
    twice: list[tuple[str, Failure]] = []
    for name, file in packages.items():
        elsewhere = "" if name in local or name in index else distribution_on_index(name, notebook, roots)
        if elsewhere:
            text = f"`{name}` is both {file.place} and {elsewhere}"
            twice.append((name, Failure(text, f"cell {cells[name]}" if name in cells else str(file.place))))
    if twice:
        name = twice[0][0]
        raise DataRefused(
            "a module name is ambiguous: a local module and a package have it",
            where=str(notebook.path),
            failures=[failure for _, failure in twice],
            next=f"choose one: --local {name} for the file beside the notebook, --index {name} for the package",
            cell=next((cells[ambiguous] for ambiguous, _ in twice if ambiguous in cells), 0),
        )
    return {name: path for name, path in packages.items() if name not in index}


def copy_packages(
    packages: Collection[LocalPackage], folder: Path, progress: Callable[[str], None] = lambda text: None
) -> list[str]:
    """Copy modules into a folder from which they can be imported, and return their names; earlier contents are removed.

    Files that are not copied are reported to `progress`. Raises DataRefused where a Python file is among them.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in packages:
        if file.place.is_file():
            shutil.copyfile(file.place, folder / file.place.name)
        else:
            left_out = copy_folder(
                file.place, folder / file.name, max_total_bytes=LARGEST_PACKAGE, max_files=None, max_depth=None
            )
            if code := [omitted for omitted in left_out if omitted.path.suffix == ".py" or omitted.path.is_dir()]:
                raise DataRefused(
                    f"the local package {file.name} cannot be copied whole",
                    where=str(file.place),
                    failures=[Failure(omitted.why, str(omitted.path)) for omitted in code],
                    next=f"make it smaller than {LARGEST_PACKAGE >> 20} MB, and replace links to other folders by copies",
                )
            if left_out:
                progress(f"not copied from {file.place}: {left_out_summary(left_out, file.place)}")
    return sorted(path.name for path in packages)


def _added_folders(notebook: Notebook, folder: Path) -> list[Path]:
    """The folders that cells add to sys.path, or change into, as far as they are written down."""
    from d2c_mlops.convert.meaning.path_values import Values

    folders: list[Path] = []
    values = Values(folder)
    for cell in notebook.code:
        for magic in cell.magics:
            if magic.name in ("%cd", "cd") and magic.argument:
                folders.append(folder / magic.argument.strip("'\""))
        for statement in cell.tree.body if cell.tree is not None else ():
            values.record_assignment(statement)
            for node in ast.walk(statement):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                text = ast.unparse(node.func)
                if text in ("sys.path.append", "sys.path.insert", "sys.path.extend", "os.chdir", "site.addsitedir"):
                    last_argument = node.args[-1:] if node.args else []
                    parts = (
                        last_argument[0].elts
                        if last_argument and isinstance(last_argument[0], ast.List | ast.Tuple)
                        else last_argument
                    )
                    for part in parts:
                        if (value := values.constant_path(part)) is not None:
                            folders.append(folder / value)
    return [path.resolve() for path in folders if is_folder(path)]
