"""What pandas 3 does differently without failing, and how frames of text, dates and counts are mended."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.era import before_version
from d2c_mlops.convert.finding import Edit
from d2c_mlops.convert.known import GROUPS
from d2c_mlops.convert.mending import (
    Proposal,
    Scene,
    Trouble,
    after,
    before,
    insertion,
    last_name,
    line_before,
    parent_of,
    replaced,
    spelled,
    statement_of,
    without_statement,
)
from d2c_mlops.convert.notebook import Cell
from d2c_mlops.convert.roles import keyword

_OBJECT = ("object", "O", "object_")


@before("text-is-str", "pandas", "3.0", "columns of text have the dtype `str`, no longer `object`", order=20)
def object_means_text(scene: Scene) -> Iterator[Proposal]:
    """`df[c].dtype == object` as `(df[c].dtype == object or ...)`, so that it holds for texts again."""
    for cell, node in scene.nodes(ast.Compare):
        if len(node.ops) != 1:
            continue
        left, right, op = node.left, node.comparators[0], node.ops[0]
        typed = left if _is_dtype(left) else right if _is_dtype(right) else None
        other = right if typed is left else left
        if typed is None:
            continue
        text = spelled(cell, typed)
        if f"({text} == 'str')" in cell.source or f"({text} != 'str')" in cell.source:
            continue
        if isinstance(op, ast.Eq | ast.NotEq | ast.Is | ast.IsNot) and _is_object(other):
            same = isinstance(op, ast.Eq | ast.Is)
            sign, joint = ("==", "|") if same else ("!=", "&")
            plain = f"({text} {sign} {spelled(cell, other)}) {joint} ({text} {sign} 'str')"
            yield Proposal((replaced(cell, node, f"({plain})"),))
        elif isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.List | ast.Tuple | ast.Set):
            if any(_is_object(one) for one in right.elts) and not _names_str(right.elts):
                last = right.elts[-1]
                yield Proposal((insertion(cell, last.end_lineno or 0, last.end_col_offset or 0, ", 'str'"),))


def _is_dtype(node: ast.expr) -> bool:
    """`x.dtype`, `df.dtypes`, `df.dtypes[c]`, `df[c].dtype.name`, `str(df[c].dtype)`."""
    if isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr == "name"):
        return _is_dtype(node.value)
    if isinstance(node, ast.Call) and last_name(node.func) in ("str", "get_dtype") and node.args:
        return _is_dtype(node.args[0])
    return isinstance(node, ast.Attribute) and node.attr in ("dtype", "dtypes")


def _is_object(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and last_name(node.func) == "dtype" and node.args:
        return _is_object(node.args[0])
    if isinstance(node, ast.Constant):
        return node.value in _OBJECT
    return last_name(node) in _OBJECT


def _names_str(nodes: list[ast.expr]) -> bool:
    return any(
        (isinstance(one, ast.Constant) and one.value in ("str", "string")) or last_name(one) == "str" for one in nodes
    )


@before("select-texts", "pandas", "3.0", "columns of text have the dtype `str`, no longer `object`", order=20)
def select_texts(scene: Scene) -> Iterator[Proposal]:
    """`select_dtypes(include='object')` takes texts too, and says so by a warning that will be an error."""
    for cell, call in scene.nodes(ast.Call):
        if last_name(call.func) != "select_dtypes":
            continue
        given = [*call.args, *(word.value for word in call.keywords)]
        for one in given:
            parts = one.elts if isinstance(one, ast.List | ast.Tuple | ast.Set) else [one]
            if _names_str(parts) or not any(_is_object(part) for part in parts):
                continue
            if isinstance(one, ast.List | ast.Tuple | ast.Set):
                last = parts[-1]
                yield Proposal((insertion(cell, last.end_lineno or 0, last.end_col_offset or 0, ", 'str'"),))
            else:
                yield Proposal((replaced(cell, one, f"[{spelled(cell, one)}, 'str']"),))


@before("grouped-columns", "pandas", "2.0", "several columns of a groupby need a list", order=20)
def grouped_columns(scene: Scene) -> Iterator[Proposal]:
    for cell, node in scene.nodes(ast.Subscript):
        if isinstance(node.slice, ast.Tuple) and node.slice.elts and _is_groups(scene, node.value):
            first, last = node.slice.elts[0], node.slice.elts[-1]
            end = (last.end_lineno or 0, last.end_col_offset or 0)
            if (first.lineno, first.col_offset) > (node.slice.lineno, node.slice.col_offset):
                continue
            yield Proposal((insertion(cell, first.lineno, first.col_offset, "["), insertion(cell, *end, "]")))


def _is_groups(scene: Scene, node: ast.expr) -> bool:
    called = isinstance(node, ast.Call) and last_name(node.func) in ("groupby", "resample", "rolling")
    return called or scene.subject.inference.kind(node) == GROUPS


@after("grouped-columns-late", "pandas", "2.0", "several columns of a groupby need a list", order=15)
def grouped_columns_late(scene: Scene, trouble: Trouble) -> Proposal | None:
    if not trouble.says("Cannot subset columns with a tuple"):
        return None
    for cell, node in scene.failing(trouble, ast.Subscript):
        if isinstance(node.slice, ast.Tuple):
            return Proposal((replaced(cell, node.slice, f"[{spelled(cell, node.slice)}]"),), "write a list of columns")
    return None


@before("counted-columns", "pandas", "2.0", "value_counts() is called `count`, no longer by its column", order=20)
def counted_columns(scene: Scene) -> Iterator[Proposal]:
    """Give the columns of counts the names that they had: `index` and the name of the data."""
    if _knows_count(scene):
        return
    yield from _counts_in_frames(scene)
    for cell, call in scene.nodes(ast.Call):
        if last_name(call.func) != "reset_index" or call.args or call.keywords:
            continue
        counts = call.func.value if isinstance(call.func, ast.Attribute) else None
        if not (isinstance(counts, ast.Call) and last_name(counts.func) == "value_counts"):
            continue
        column = counts.func.value if isinstance(counts.func, ast.Attribute) else None
        name = _column_name(cell, column)
        if (
            not name
            or _is_renamed(scene, cell, call)
            or scene.subject.inference.kind(column or call) == "pandas.DataFrame"
        ):
            continue
        new = f"{spelled(cell, counts)}.rename_axis('index').reset_index(name={name})"
        yield Proposal((replaced(cell, call, new),))


def _knows_count(scene: Scene) -> bool:
    """Whether the author had the new names already: `counts['count']`, and nowhere 'index'."""
    if before_version(scene.notebook.metadata, "pandas", "2.0"):
        return False
    said = {node.value for _, node in scene.nodes(ast.Constant) if node.value in ("count", "index")}
    return said == {"count"}


def _counts_in_frames(scene: Scene) -> Iterator[Proposal]:
    """Counts that become a frame by to_frame(), by DataFrame(), or later under their own name."""
    for cell, counts in scene.nodes(ast.Call):
        column = counts.func.value if isinstance(counts.func, ast.Attribute) else None
        name = _column_name(cell, column) if last_name(counts.func) == "value_counts" else ""
        if not name or scene.subject.inference.kind(column or counts) == "pandas.DataFrame":
            continue
        above = parent_of(cell, counts)
        further = parent_of(cell, above) if isinstance(above, ast.Attribute) else None
        framed = isinstance(above, ast.Attribute) and above.attr == "to_frame" and not getattr(further, "args", True)
        framed = framed or (
            isinstance(above, ast.Call) and last_name(above.func) == "DataFrame" and above.args[:1] == [counts]
        )
        if isinstance(above, ast.Assign) and isinstance(above.targets[0], ast.Name):
            framed = _framed_later(scene, above.targets[0].id)
        if framed:
            end = (counts.end_lineno or 0, counts.end_col_offset or 0)
            yield Proposal((insertion(cell, *end, f".rename_axis(None).rename({name})"),))


def _framed_later(scene: Scene, name: str) -> bool:
    """Whether a name is made a frame anywhere: `counts.reset_index()`, `counts.to_frame()`, `pd.DataFrame(counts)`."""
    for _, call in scene.nodes(ast.Call):
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        plain = not call.args and not call.keywords
        if (
            last_name(call.func) in ("reset_index", "to_frame")
            and plain
            and isinstance(owner, ast.Name)
            and owner.id == name
        ):
            return True
        if last_name(call.func) == "DataFrame" and len(call.args) == 1 and isinstance(call.args[0], ast.Name):
            if call.args[0].id == name and not call.keywords:
                return True
    return False


def _column_name(cell: Cell, column: ast.expr | None) -> str:
    if isinstance(column, ast.Subscript) and isinstance(column.slice, ast.Constant | ast.Name):
        return (
            spelled(cell, column.slice)
            if not isinstance(column.slice, ast.Constant) or isinstance(column.slice.value, str)
            else ""
        )
    return repr(column.attr) if isinstance(column, ast.Attribute) else ""


def _is_renamed(scene: Scene, cell: Cell, call: ast.Call) -> bool:
    """Whether all columns get new names right away, so that the old ones do not matter."""
    statement = statement_of(cell, call)
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
        return False
    name = statement.targets[0].id
    return any(
        isinstance(target, ast.Attribute) and target.attr == "columns" and last_name(target.value) == name
        for _, assign in scene.nodes(ast.Assign)
        for target in assign.targets
    )


@before("ten-digits", "pandas", "3.0", "dates are counted in microseconds, no longer in nanoseconds", order=20)
def nanoseconds(scene: Scene) -> Iterator[Proposal]:
    """`dates.astype('int64') // 10**9` counts seconds only from nanoseconds."""
    for cell, node in scene.nodes(ast.BinOp):
        if not isinstance(node.op, ast.Div | ast.FloorDiv) or not _is_billion(node.right):
            continue
        call = node.left
        if (
            isinstance(call, ast.Call)
            and last_name(call.func) in ("astype", "view")
            and isinstance(call.func, ast.Attribute)
        ):
            start = spelled(cell, call.func.value)
            if call.args and "int" in spelled(cell, call.args[0]) and "datetime64" not in start:
                where = call.func.value
                yield Proposal(
                    (insertion(cell, where.end_lineno or 0, where.end_col_offset or 0, ".astype('datetime64[ns]')"),)
                )


def _is_billion(node: ast.expr) -> bool:
    """Return whether an expression is 1e9, 10**9 or a million, written out."""
    if isinstance(node, ast.Constant):
        return node.value in (10**9, 10**6)
    return ast.unparse(node) in ("10 ** 9", "10 ** 6")


@before("month-unit", "pandas", "2.0", "months and years have no fixed length", order=20)
def month_units(scene: Scene) -> Iterator[Proposal]:
    """`/ np.timedelta64(1, 'M')`: a mean month is 2,629,746 seconds, a mean year 31,556,952."""
    seconds = {"M": 2629746, "Y": 31556952}
    for cell, call in scene.nodes(ast.Call):
        if last_name(call.func) != "timedelta64" or len(call.args) != 2:
            continue
        unit = call.args[1]
        above = parent_of(cell, call)
        if (
            isinstance(unit, ast.Constant)
            and unit.value in seconds
            and isinstance(above, ast.BinOp)
            and isinstance(above.op, ast.Div | ast.FloorDiv)
        ):
            count = spelled(cell, call.args[0])
            size = f"{seconds[unit.value]}" if count == "1" else f"{seconds[unit.value]} * {count}"
            yield Proposal((replaced(cell, call.args[0], size), replaced(cell, unit, "'s'")))


@after("days-of-differences", "pandas", "2.0", "differences of dates are not cast to days", order=15)
def days_of_differences(scene: Scene, trouble: Trouble) -> Proposal | None:
    if not trouble.says(
        "Cannot convert from timedelta64", "Supported resolutions are", "Units 'M', 'Y'", "Cannot cast"
    ):
        return None
    from d2c_mlops.convert.rewrites import rewritten

    for cell, call in scene.failing(trouble, ast.Call):
        if last_name(call.func) == "astype" and (edits := rewritten("pandas.Series.astype", cell, call)):
            return Proposal(edits, "pandas keeps only seconds and smaller units")
    return None


def chained(scene: Scene, cell: Cell, line: int, end_line: int) -> Proposal | None:
    """Mend an assignment to a copy, seen while the cell ran: the parts of one statement, in one step."""
    for node in ast.walk(cell.tree) if cell.tree else ():
        if not isinstance(node, ast.stmt) or node.lineno > line or (node.end_lineno or 0) < end_line:
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            edits = inplace_on_part(cell, node, node.value)
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            edits = tuple(edit for target in targets for edit in one_step(cell, target))
        else:
            continue
        if edits:
            return Proposal(edits, "under copy-on-write the value went into a copy; the frame stayed as it was")
    return None


def inplace_on_part(cell: Cell, statement: ast.Expr, call: ast.Call) -> tuple[Edit, ...]:
    """`df['a'].fillna(0, inplace=True)` as `df['a'] = df['a'].fillna(0)`."""
    given = keyword(call, "inplace")
    if not isinstance(call.func, ast.Attribute):
        return ()
    part = call.func.value
    if not isinstance(part, ast.Subscript | ast.Attribute):
        return ()
    target = spelled(cell, part)
    if given is None:
        if call.func.attr != "update" or not call.args:
            return ()
        new = f"{target} = {spelled(cell, call.args[0])}.combine_first({target})"
        return (replaced(cell, statement, new),)
    word = next(word for word in call.keywords if word.arg == "inplace")
    given_all: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
    order = sorted(given_all, key=lambda one: (one.lineno, one.col_offset))
    at = order.index(word)
    ends = (word.end_lineno or 0, word.end_col_offset or 0)
    if at:
        start = (order[at - 1].end_lineno or 0, order[at - 1].end_col_offset or 0)
    else:
        start = (word.lineno, word.col_offset)
        if len(order) > 1:
            ends = (order[1].lineno, order[1].col_offset)
    if isinstance(part, ast.Attribute):
        target = f"{spelled(cell, part.value)}[{part.attr!r}]"
    head = insertion(cell, statement.lineno, statement.col_offset, f"{target} = ")
    return head, Edit(cell.index, *start, *ends, "")


def one_step(cell: Cell, target: ast.expr) -> tuple[Edit, ...]:
    """`df['a'][mask] = v` and `df[mask]['a'] = v` as `df.loc[mask, 'a'] = v`; `.iloc` keeps positions."""
    if not isinstance(target, ast.Subscript):
        return ()
    middle, accessor = target.value, ""
    if isinstance(middle, ast.Attribute) and middle.attr in ("loc", "iloc", "at", "iat"):
        accessor, middle = middle.attr, middle.value
    key = spelled(cell, target.slice)
    if isinstance(middle, ast.Attribute) and middle.attr not in ("loc", "iloc", "values"):
        base, column = spelled(cell, middle.value), repr(middle.attr)
    elif isinstance(middle, ast.Subscript):
        base, column = spelled(cell, middle.value), spelled(cell, middle.slice)
    else:
        return ()
    if base.endswith((".loc", ".iloc")):
        base = base.rpartition(".")[0]
        if isinstance(target.slice, ast.Constant) and isinstance(target.slice.value, str):
            return (replaced(cell, target, f"{base}.loc[{column}, {key}]"),)
        return ()
    if accessor in ("iloc", "iat"):
        return (replaced(cell, target, f"{base}.loc[{base}.index[{key}], {column}]"),)
    text = isinstance(target.slice, ast.Constant) and isinstance(target.slice.value, str)
    names = isinstance(middle, ast.Subscript) and not _is_name(middle.slice)
    if text and names and isinstance(middle, ast.Subscript):
        return (replaced(cell, target, f"{base}.loc[{column}, {key}]"),)
    return (replaced(cell, target, f"{base}.loc[{key}, {column}]"),)


def _is_name(node: ast.expr) -> bool:
    """Whether a subscript picks a column: a text, or a plain name that is no mask."""
    return isinstance(node, ast.Constant | ast.Name | ast.List | ast.JoinedStr)


@after("texts-take-no-numbers", "pandas", "3.0", "a column of one dtype no longer takes values of another", order=40)
def other_values(scene: Scene, trouble: Trouble) -> Proposal | None:
    """Values of another kind set into a column: it becomes `object` before, as it did by itself."""
    if not trouble.says("Invalid value", "Cannot set non-string value") or not trouble.through("pandas/"):
        return None
    for frame in reversed(trouble.frames):
        cell = scene.cell(frame.cell)
        for node in ast.walk(cell.tree) if cell.tree else ():
            if not isinstance(node, ast.Assign | ast.Expr) or not node.lineno <= frame.line <= (node.end_lineno or 0):
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                if edits := inplace_on_part(cell, node, node.value):
                    return Proposal(edits, trouble.message[:120])
            column = _column_set(cell, node.targets[0] if isinstance(node, ast.Assign) else node.value)
            if column:
                text = _as_objects(column, scene.kinds([column]).get(column, "") if trouble.says("'str'") else "")
                if text not in cell.source:
                    return Proposal((line_before(cell, _outermost(cell, node), text),), trouble.message[:120])
    return None


def _as_objects(name: str, kind: str) -> str:
    """Return the cast of a column; of a frame only the columns of text are cast."""
    if kind != "pandas.DataFrame":
        return f"{name} = {name}.astype(object)"
    texts = f"{name}.select_dtypes(include='str')"
    return f"{name}[{texts}.columns] = {texts}.astype(object)"


def _outermost(cell: Cell, node: ast.stmt) -> ast.stmt:
    """Return the loop around a statement, or itself: a cast inside a loop would be made again and again."""
    loops = (one for one in ast.walk(cell.tree or node) if isinstance(one, ast.For | ast.While))
    return next((one for one in loops if any(part is node for part in ast.walk(one))), node)


def _column_set(cell: Cell, target: ast.expr) -> str:
    """Return what is set: a column where it can be told, else the name that is changed in place."""
    if isinstance(target, ast.Call) and isinstance(target.func, ast.Attribute):
        changes = keyword(target, "inplace") is not None or target.func.attr == "update"
        return target.func.value.id if changes and isinstance(target.func.value, ast.Name) else ""
    if not isinstance(target, ast.Subscript):
        return ""
    holder = target.value
    if isinstance(holder, ast.Attribute) and holder.attr in ("loc", "at"):
        if (
            isinstance(target.slice, ast.Tuple)
            and len(target.slice.elts) == 2
            and isinstance(target.slice.elts[1], ast.Constant)
        ):
            return f"{spelled(cell, holder.value)}[{spelled(cell, target.slice.elts[1])}]"
        return spelled(cell, holder.value) if not isinstance(target.slice, ast.Tuple) else ""
    if isinstance(holder, ast.Attribute) and holder.attr in ("iloc", "iat"):
        return spelled(cell, holder.value)
    return spelled(cell, holder) if isinstance(holder, ast.Subscript | ast.Name | ast.Attribute) else ""


@after("array-methods", "pandas", "3.0", "columns of text give their own kind of array", order=40)
def array_methods(scene: Scene, trouble: Trouble) -> Proposal | None:
    """`.unique().sort()` and the like on arrays of text: made a plain array first."""
    if trouble.kind != "AttributeError" or (
        "StringArray" not in trouble.message and "ArrowStringArray" not in trouble.message
    ):
        return None
    for cell, node in scene.failing(trouble, ast.Attribute):
        if node.attr == trouble.name:
            end = (node.value.end_lineno or 0, node.value.end_col_offset or 0)
            return Proposal(
                (insertion(cell, *end, ".to_numpy(dtype=object)"),), "texts are kept in an array of their own kind"
            )
    return None


@after("read-only", "pandas", "3.0", "arrays taken out of a frame are read-only", order=40)
def read_only(scene: Scene, trouble: Trouble) -> Proposal | None:
    """`a = df.values; a[0] = 1`: the array is copied where it is taken."""
    if not trouble.says("read-only", "is read only", "WRITEABLE"):
        return None
    names = {one.id for _, one in scene.failing(trouble, ast.Name)}
    for cell, node in reversed(list(scene.nodes(ast.Assign))):
        taken = node.value
        given = isinstance(taken, ast.Attribute) and taken.attr == "values"
        given = given or (isinstance(taken, ast.Call) and last_name(taken.func) in ("to_numpy", "asarray"))
        if given and {last_name(one) for one in node.targets} & names:
            end = (taken.end_lineno or 0, taken.end_col_offset or 0)
            return Proposal(
                (insertion(cell, *end, ".copy()"),), "arrays taken out of a frame are read-only", restart=True
            )
    return None


@after("plain-array", "pandas", "3.0", "the method is gone from Series", order=35)
def plain_array(scene: Scene, trouble: Trouble) -> Proposal | None:
    """Methods of arrays called on a Series: `.reshape`, `.ravel`, `.nonzero`, `.flatten`."""
    if trouble.kind != "AttributeError" or trouble.holder not in ("pandas.Series", "pandas.DataFrame"):
        return None
    if trouble.name not in (
        "reshape",
        "ravel",
        "nonzero",
        "flatten",
        "tolist",
        "item",
        "argsort",
        "compress",
        "itemsize",
        "data",
        "strides",
    ):
        return None
    for cell, node in scene.failing(trouble, ast.Attribute):
        if node.attr == trouble.name:
            end = (node.value.end_lineno or 0, node.value.end_col_offset or 0)
            return Proposal((insertion(cell, *end, ".to_numpy()"),), f"Series.{trouble.name} is gone: ask its array")
    return None


@after("rank-two", "pandas", "1.0", "a Series has no second axis to be made", order=35)
def second_axis(scene: Scene, trouble: Trouble) -> Proposal | None:
    """`series[:, None]`: asked of its array."""
    if not trouble.says("Multi-dimensional indexing", "key of type tuple not found", "tuple not found"):
        return None
    for cell, node in scene.failing(trouble, ast.Subscript):
        if isinstance(node.slice, ast.Tuple) and any(_is_none(one) for one in node.slice.elts):
            end = (node.value.end_lineno or 0, node.value.end_col_offset or 0)
            return Proposal((insertion(cell, *end, ".to_numpy()"),), "a Series takes no second axis: ask its array")
    return None


def _is_none(node: ast.expr) -> bool:
    return (isinstance(node, ast.Constant) and node.value is None) or last_name(node) == "newaxis"


@after("positions-by-number", "pandas", "3.0", "a number in brackets is a label, no longer a position", order=40)
def by_position(scene: Scene, trouble: Trouble) -> Proposal | None:
    """`series[0]` where the index holds no numbers: `.iloc[0]`."""
    if trouble.kind != "KeyError" or not trouble.arguments or not re.fullmatch(r"-?\d+", str(trouble.arguments[0])):
        return None
    if not trouble.through("pandas/"):
        return None
    for cell, node in scene.failing(trouble, ast.Subscript):
        holder = spelled(cell, node.value)
        if holder.endswith((".loc", ".iloc", ".at")) or isinstance(node.slice, ast.Slice):
            continue
        kind = scene.kinds([holder, f"{holder}.index"])
        if trouble.kinds.get(holder, kind.get(holder)) == "pandas.Series" and "Range" not in kind.get(
            f"{holder}.index", ""
        ):
            end = (node.value.end_lineno or 0, node.value.end_col_offset or 0)
            return Proposal((insertion(cell, *end, ".iloc"),), "a number in brackets is a label, no longer a position")
    return None


@after("infer-objects", "pandas", "3.0", "an option that no longer exists", order=40)
def gone_option(scene: Scene, trouble: Trouble) -> Proposal | None:
    """`pd.set_option` and `pd.options` of names that are gone: what they set, pandas does by itself or not at all."""
    if "OptionError" not in trouble.bases and "No such keys" not in trouble.message:
        return None
    for cell, node in [*scene.failing(trouble, ast.Call), *scene.failing(trouble, ast.Attribute)]:
        statement = statement_of(cell, node)
        known = {
            "'display.max_colwidth', -1": "None",
            "mode.chained_assignment": "",
        }
        if isinstance(statement, ast.Expr | ast.Assign) and known:
            return Proposal((without_statement(cell, statement, ""),), "pandas no longer has this option")
    return None


@after("colwidth", "pandas", "1.0", "no limit is None, no longer -1", order=40)
def no_limit(scene: Scene, trouble: Trouble) -> Proposal | None:
    if not trouble.says("Value must be a nonnegative integer or None"):
        return None
    for cell, node in scene.failing(trouble, ast.UnaryOp):
        return Proposal((replaced(cell, node, "None"),), "no limit is None, no longer -1")
    return None


@after("text-dates", "pandas", "2.0", "all dates of a column must have one form", order=40)
def mixed_dates(scene: Scene, trouble: Trouble) -> Proposal | None:
    """to_datetime over dates of several forms: each by itself, as before."""
    if not trouble.says(
        "doesn't match format", "does not match format", "unconverted data remains"
    ) or not trouble.through("pandas/"):
        return None
    for cell, call in scene.failing(trouble, ast.Call):
        taken = {word.arg for word in call.keywords}
        if last_name(call.func) == "to_datetime" and not taken & {"format"}:
            from d2c_mlops.convert.mending import argument_added

            return Proposal(
                (argument_added(cell, call, "format='mixed'"),), "dates of several forms are read one by one"
            )
    return None


@after("aggregate-renamed", "pandas", "1.0", "names inside agg() are given by keywords", order=40)
def nested_renamer(scene: Scene, trouble: Trouble) -> Proposal | None:
    """`agg({'total': 'sum'})` on one column, which renamed: `agg(total='sum')`."""
    if "nested renamer is not supported" not in trouble.message:
        return None
    for cell, call in scene.failing(trouble, ast.Call):
        given = call.args[0] if call.args else None
        if last_name(call.func) not in ("agg", "aggregate") or not isinstance(given, ast.Dict):
            continue
        pairs = list(zip(given.keys, given.values, strict=True))
        if all(
            isinstance(key, ast.Constant) and isinstance(value, ast.Constant | ast.Attribute | ast.Lambda | ast.Name)
            for key, value in pairs
        ):
            words = ", ".join(
                f"{key.value!r}: {spelled(cell, value)}" for key, value in pairs if isinstance(key, ast.Constant)
            )
            return Proposal((replaced(cell, given, f"**{{{words}}}"),), "names inside agg() are given by keywords")
    return None


@after("dummies-are-true", "pandas", "2.0", "dummies are True and False, no longer 0 and 1", order=45)
def dummies(scene: Scene, trouble: Trouble) -> Proposal | None:
    """Code that wants numbers of get_dummies: asked for as numbers."""
    if not trouble.says(
        "numpy boolean subtract", "dtype('bool')", "dtype bool", "bool_", "dtype of object", "object to float"
    ):
        return None
    from d2c_mlops.convert.mending import argument_added

    edits = tuple(
        argument_added(cell, call, "dtype=int")
        for cell, call in scene.nodes(ast.Call)
        if last_name(call.func) == "get_dummies" and keyword(call, "dtype") is None
    )
    return (
        Proposal(edits, "dummies are True and False since pandas 2; 0 and 1 are meant", restart=True) if edits else None
    )
