"""Rules about missing modules and installations that cannot be reproduced."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

from d2c_mlops.convert.check.rule import Subject, make_hit, make_rule_example, rule
from d2c_mlops.convert.check.rules.library_changes import import_change
from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.run.local_packages import distribution_on_index, find_local, import_roots
from d2c_mlops.convert.source.environment import OWN_NAMES, distribution_of, is_installed, missing_member
from d2c_mlops.convert.source.finding import Hit
from d2c_mlops.convert.source.magics import Magic

_INSTALL = re.compile(
    r"^(?:sudo\s+)?(?:(?=\S*python)\S++\s+-m\s+|\{sys\.executable\}\s+-m\s+)?(?:uv\s+)?(?:pip3?|conda|mamba)\s+install\b(.*)$"
)
_PINNED = re.compile(r"==|\.whl\b|@\s*\w+://|-r\s+\S+|--requirement")


@rule(
    "D2C401",
    "module-missing",
    "error",
    why="the import raises ModuleNotFoundError in this environment",
    fix="add the package to the project's requirements",
    bad=make_rule_example("import no_such_module_at_all"),
    good=make_rule_example("import json\ntry:\n    import no_such_module_at_all\nexcept ImportError:\n    pass"),
)
def module_missing(subject: Subject) -> Iterator[Hit]:
    folder = subject.folder
    reported: set[str] = set()
    guarded = _guarded_lines(subject)
    roots = import_roots(folder, subject.notebook) if folder is not None else []
    for index, flow in subject.flow.cells.items():
        for imported in flow.imports:
            top = imported.module.split(".")[0]
            if (
                not top
                or top in reported
                or imported.level
                or (index, imported.line) in guarded
                or import_change(imported)
            ):
                continue
            if top in ("google", "kaggle_secrets") and imported.module.startswith(("google.colab", "kaggle")):
                continue
            if is_installed(top) or find_local(top, roots) is not None:
                continue
            reported.add(top)
            if top in OWN_NAMES:
                text = f"`{top}` was not found beside the notebook or at the root of its repository"
                yield Hit(
                    index, imported.line, imported.column, text, "put the package there, or add its folder to sys.path"
                )
                continue
            package = distribution_of(top)
            missing_text = f"`{top}` is not installed" + (
                f"; it comes with the package {package}" if package != top else ""
            )
            yield Hit(
                index, imported.line, imported.column, missing_text, f"add {package} to the project's requirements"
            )


@rule(
    "D2C409",
    "name-of-two-packages",
    "error",
    why="the working folder decides which of the two is imported; the package on the index may belong to somebody else",
    fix="rename the file, or choose one at conversion: --local NAME or --index NAME",
    bad=make_rule_example("import plotly", files={"plotly.py": b"figure = 1"}),
    good=make_rule_example("import shop_figures", files={"shop_figures.py": b"figure = 1"}),
)
def name_of_two_packages(subject: Subject) -> Iterator[Hit]:
    roots = import_roots(subject.folder, subject.notebook) if subject.folder is not None else []
    reported: set[str] = set()
    for index, flow in subject.flow.cells.items():
        for imported in flow.imports:
            top = imported.module.split(".")[0]
            if not top or top in reported or imported.level or top in sys.stdlib_module_names:
                continue
            reported.add(top)
            local = find_local(top, roots)
            elsewhere = distribution_on_index(top, subject.notebook, roots) if local is not None else ""
            if local is not None and elsewhere and top != "d2c_mlops":
                yield Hit(index, imported.line, imported.column, f"`{top}` is both {local.place} and {elsewhere}")


def _guarded_lines(subject: Subject) -> set[tuple[int, int]]:
    """Lines inside a `try`, where a missing module is handled."""
    return {
        (cell.index, part.lineno)
        for cell, node in subject.nodes
        if isinstance(node, ast.Try)
        for part in ast.walk(node)
        if isinstance(part, ast.Import | ast.ImportFrom)
    }


@rule(
    "D2C402",
    "install-in-notebook",
    "warning",
    why="each run changes its environment, which other notebooks share",
    fix="move the package to the project's requirements and remove the line",
    bad=make_rule_example("!pip install prophet==1.1.5"),
    good=make_rule_example("import json"),
)
def install_in_notebook(subject: Subject) -> Iterator[Hit]:
    for index, magic, requirements in _install_commands(subject):
        if _PINNED.search(requirements):
            yield Hit(index, magic.line, 1, f"`{magic.name}` installs packages during the run")


@rule(
    "D2C403",
    "unpinned-install",
    "error",
    why="each run may install another version, so the same notebook may give another result or fail",
    fix="move the package with an exact version to the project's requirements and remove the line",
    bad=make_rule_example("!pip install prophet"),
    good=make_rule_example("!pip install prophet==1.1.5"),
)
def unpinned_install(subject: Subject) -> Iterator[Hit]:
    for index, magic, requirements in _install_commands(subject):
        names = [word for word in requirements.split() if not word.startswith("-")]
        if not _PINNED.search(requirements) and names:
            yield Hit(index, magic.line, 1, f"{', '.join(names[:5])} installed without a version")


def _install_commands(subject: Subject) -> Iterator[tuple[int, Magic, str]]:
    for cell in subject.notebook.code:
        for magic in cell.magics:
            match = _INSTALL.match(magic.command)
            if match and magic.kind in ("shell", "line", "automagic"):
                yield cell.index, magic, match[1].split("#")[0].split("&&")[0]


@rule(
    "D2C404",
    "name-not-in-module",
    "error",
    why="the installed version of the module does not have this name; the import raises",
    fix="look up its new location in the package's release notes",
    bad=make_rule_example("from json import no_such_function"),
    good=make_rule_example("from json import dumps\nfrom os.path import join"),
)
def name_not_in_module(subject: Subject) -> Iterator[Hit]:
    guarded = _guarded_lines(subject)
    for index, flow in subject.flow.cells.items():
        for imported in flow.imports:
            if imported.level or (index, imported.line) in guarded or import_change(imported) or not imported.module:
                continue
            gone = missing_member(imported.module, "" if imported.member == "*" else imported.member)
            if gone:
                yield Hit(index, imported.line, imported.column, gone)


@rule(
    "D2C405",
    "engine-missing",
    "error",
    why="pandas needs another package to read this kind of file; the cell raises ImportError",
    fix="add the package to the project's requirements",
    bad=make_rule_example("import pandas as pd\nsales = pd.read_excel('sales.xls')"),
    good=make_rule_example("import pandas as pd\nsales = pd.read_csv('sales.csv')"),
)
def engine_missing(subject: Subject) -> Iterator[Hit]:
    for cell, call, path in subject.calls:
        if path not in ("pandas.read_excel", "pandas.ExcelFile") or keyword_value(call, "engine") is not None:
            continue
        path_node = call.args[0] if call.args else None
        text = path_node.value if isinstance(path_node, ast.Constant) else None
        if isinstance(text, str):
            engine = "xlrd" if text.lower().endswith(".xls") else "openpyxl"
            if text.lower().endswith((".xls", ".xlsx", ".xlsm")) and not is_installed(engine):
                yield make_hit(
                    cell,
                    call,
                    f"`{text}` needs the package {engine}",
                    fix=f"add {engine} to the project's requirements",
                )
