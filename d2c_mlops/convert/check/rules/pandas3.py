"""Rules about silent changes in pandas 3: copies, text columns, column names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.api_changes.change import is_installed_at_least
from d2c_mlops.convert.check.rule import Subject, make_hit, make_rule_example, rule
from d2c_mlops.convert.meaning.api_signatures import FRAME, GROUPS, SERIES
from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.source.finding import Edit, Hit
from d2c_mlops.convert.source.notebook import Cell

_LOAD = "import pandas as pd\ndf = pd.read_csv('sales.csv')\n"
_TEXT_COLUMN = re.compile(r"^[ \t]*(?:\d+[ \t]+)?\S.*[ \t](?:object|string|str)[ \t]*$", re.MULTILINE)


@rule(
    "D2C511",
    "chained-assignment",
    "error",
    why="under copy-on-write the value is written to a temporary copy; the DataFrame does not change",
    fix="assign in one step: df.loc[rows, 'column'] = value",
    bad=make_rule_example(_LOAD + "df['units'][df['units'] < 0] = 0"),
    good=make_rule_example(_LOAD + "df.loc[df['units'] < 0, 'units'] = 0\ndf['size'] = df['units']"),
)
def chained_assignment(subject: Subject) -> Iterator[Hit]:
    if not is_installed_at_least("pandas", "3.0"):
        return
    for cell, node in subject.nodes:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = list(node.targets)
        elif isinstance(node, ast.AugAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Subscript) and _is_part(subject, target.value):
                yield make_hit(cell, target, f"`{ast.unparse(target)} = ...` changes a copy")


def _is_part(subject: Subject, node: ast.expr) -> bool:
    """A column or a selection of rows, taken out of a frame in the same expression."""
    if isinstance(node, ast.Attribute) and node.attr in ("loc", "iloc", "at", "iat"):
        node = node.value
    kind = subject.inference.kind(node)
    if isinstance(node, ast.Subscript):
        holder = node.value
        if isinstance(holder, ast.Attribute) and holder.attr in ("loc", "iloc"):
            holder = holder.value
        return kind in (FRAME, SERIES) and subject.inference.kind(holder) == FRAME
    return isinstance(node, ast.Attribute) and kind == SERIES and subject.inference.kind(node.value) == FRAME


@rule(
    "D2C512",
    "inplace-on-a-column",
    "error",
    why="under copy-on-write the column is a copy: `inplace=True` changes the copy, the DataFrame does not change",
    fix="assign the result: df['column'] = df['column'].fillna(0)",
    bad=make_rule_example(_LOAD + "df['units'].fillna(0, inplace=True)"),
    good=make_rule_example(_LOAD + "df['units'] = df['units'].fillna(0)\ndf.dropna(inplace=True)"),
)
def inplace_on_a_column(subject: Subject) -> Iterator[Hit]:
    if not is_installed_at_least("pandas", "3.0"):
        return
    for cell, node in subject.nodes:
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            continue
        call = node.value
        argument = keyword_value(call, "inplace")
        if not (isinstance(argument, ast.Constant) and argument.value is True and isinstance(call.func, ast.Attribute)):
            continue
        if _is_part(subject, call.func.value) and isinstance(call.func.value, ast.Subscript | ast.Attribute):
            yield make_hit(
                cell,
                call,
                f"`{ast.unparse(call.func)}(..., inplace=True)` changes a copy",
                edits=_assignment_edit(cell, call, call.func.value),
            )


def _assignment_edit(cell: Cell, call: ast.Call, column: ast.expr) -> tuple[Edit, ...]:
    """`df['a'].fillna(0, inplace=True)` as `df['a'] = df['a'].fillna(0)`, on one line and for plain columns only."""
    if call.lineno != call.end_lineno or not call.keywords or call.keywords[-1].arg != "inplace":
        return ()
    if not (isinstance(column, ast.Subscript) and isinstance(column.slice, ast.Constant)):
        return ()
    parts: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
    word = call.keywords[-1]
    start = parts[-2].end_col_offset if len(parts) > 1 else word.col_offset
    return (
        Edit(
            cell.index,
            call.lineno,
            call.col_offset,
            call.lineno,
            call.col_offset,
            f"{ast.unparse(column)} = ",
        ),
        Edit(cell.index, word.lineno, start or 0, word.end_lineno or 0, word.end_col_offset or 0, ""),
    )


@rule(
    "D2C513",
    "object-means-text",
    "error",
    why="text columns have the dtype `str` in pandas 3, so a comparison with `object` silently matches no column",
    fix="use pd.api.types.is_string_dtype(column), or select_dtypes(include=['object', 'string'])",
    bad=make_rule_example(_LOAD + "texts = [c for c in df.columns if df[c].dtype == object]"),
    good=make_rule_example(_LOAD + "texts = [c for c in df.columns if df[c].dtype == 'category']"),
)
def object_means_text(subject: Subject) -> Iterator[Hit]:
    if not is_installed_at_least("pandas", "3.0"):
        return
    for cell, node in subject.nodes:
        if not (isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.Is | ast.IsNot)):
            continue
        sides = [node.left, node.comparators[0]]
        typed = any(isinstance(side, ast.Attribute) and side.attr in ("dtype", "dtypes") for side in sides)
        if typed and any(_is_object(subject, side) for side in sides):
            yield make_hit(cell, node, f"`{ast.unparse(node)}` is no longer true for text columns")


def _is_object(subject: Subject, node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return node.value in ("O", "object")
    is_name = isinstance(node, ast.Name) and node.id == "object"
    return is_name or subject.inference.path(node) in ("numpy.object", "numpy.object_")


@rule(
    "D2C514",
    "several-columns-of-a-group",
    "error",
    why="pandas no longer takes several columns of a groupby without a list; the cell raises",
    fix="write a list: groupby(...)[['a', 'b']]",
    bad=make_rule_example(_LOAD + "x = df.groupby('shop')['units', 'price'].sum()"),
    good=make_rule_example(_LOAD + "x = df.groupby('shop')[['units', 'price']].sum()"),
)
def several_columns_of_a_group(subject: Subject) -> Iterator[Hit]:
    for cell, node in subject.nodes:
        if not (isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple)):
            continue
        called = node.value.func if isinstance(node.value, ast.Call) else None
        grouped = isinstance(called, ast.Attribute) and called.attr == "groupby"
        if (grouped or subject.inference.kind(node.value) == GROUPS) and len(node.slice.elts) > 1:
            first, last = node.slice.elts[0], node.slice.elts[-1]
            edits = (
                Edit(cell.index, first.lineno, first.col_offset, first.lineno, first.col_offset, "["),
                Edit(
                    cell.index,
                    last.end_lineno or 0,
                    last.end_col_offset or 0,
                    last.end_lineno or 0,
                    last.end_col_offset or 0,
                    "]",
                ),
            )
            yield make_hit(cell, node, f"`[{ast.unparse(node.slice).strip('()')}]` on a groupby", edits=edits)


@rule(
    "D2C515",
    "numbers-over-texts",
    "warning",
    why="means and correlations over text columns raise since pandas 2; earlier versions skipped them silently",
    fix="pass numeric_only=True, or name the columns",
    bad=make_rule_example(_LOAD + "df.dtypes", "df.corr()", outputs={0: "shop     object\nunits     int64"}),
    good=make_rule_example(_LOAD + "df.dtypes", "df.corr(numeric_only=True)", outputs={0: "shop     object"}),
)
def numbers_over_texts(subject: Subject) -> Iterator[Hit]:
    evidence = any(
        _TEXT_COLUMN.search(output.text)
        for cell in subject.notebook.code
        for output in cell.outputs
        if "dtypes" in cell.source or ".info(" in cell.source
    )
    names = ["mean", "median", "std", "var", "corr", "cov", "quantile", "skew", "kurt", "sem"]
    paths = {f"pandas.DataFrame.{name}" for name in names} | {
        f"{GROUPS}.{name}" for name in ("mean", "median", "std", "var")
    }
    for cell, call, path in subject.calls:
        if (
            path not in paths
            or keyword_value(call, "numeric_only") is not None
            or not isinstance(call.func, ast.Attribute)
        ):
            continue
        if _is_whole_frame(subject, call.func.value) and evidence and not keyword_value(call, "axis"):
            what = f"`{ast.unparse(call.func)}()` is applied to all columns, and the DataFrame had text columns"
            yield make_hit(cell, call, what)


def _is_whole_frame(subject: Subject, node: ast.expr) -> bool:
    """A whole frame as it was read, or its groups: no columns picked since."""
    if isinstance(node, ast.Call) and subject.inference.path(node.func) == "pandas.DataFrame.groupby":
        node = node.func.value if isinstance(node.func, ast.Attribute) else node
    binding = subject.inference.binding(node)
    while binding is not None and binding.changes is not None:
        if binding.column is None:
            return False
        binding = binding.changes
    return (
        binding is not None
        and isinstance(binding.value, ast.Call)
        and subject.inference.path(binding.value.func).startswith("pandas.read_")
        and not binding.value.keywords
    )


@rule(
    "D2C516",
    "column-called-index",
    "warning",
    why="since pandas 2, value_counts().reset_index() names its columns after the data and `count`, not `index` and the data",
    fix="rename_axis('name').reset_index(name='count'), which sets both names",
    bad=make_rule_example(_LOAD + "top = df['shop'].value_counts().reset_index().rename(columns={'index': 'shop'})"),
    good=make_rule_example(_LOAD + "top = df['shop'].value_counts().rename_axis('shop').reset_index(name='count')"),
)
def column_called_index(subject: Subject) -> Iterator[Hit]:
    frame_cells: dict[str, int] = {}
    for cell, node in subject.nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _is_counted(node.value):
            frame_cells[node.targets[0].id] = cell.index
        renamed = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "rename"
        if renamed and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            columns = keyword_value(node, "columns")
            if _is_counted(node.func.value) and columns is not None and _says_index(columns):
                yield make_hit(cell, node, "the column `index` to rename does not exist")
        if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)):
            continue
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if key == "index" and node.value.id in frame_cells:
            yield make_hit(cell, node, f"`{node.value.id}` has no column `index`")


def _says_index(node: ast.expr) -> bool:
    return isinstance(node, ast.Dict) and any(
        isinstance(key, ast.Constant) and key.value == "index" for key in node.keys
    )


def _is_counted(node: ast.expr) -> bool:
    """`….value_counts().reset_index()` without arguments."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reset_index"):
        return False
    inner = node.func.value
    return (
        isinstance(inner, ast.Call)
        and isinstance(inner.func, ast.Attribute)
        and inner.func.attr == "value_counts"
        and not any(word.arg == "drop" for word in node.keywords)
    )
