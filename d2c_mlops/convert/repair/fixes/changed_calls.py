"""Fixes of calls whose arguments or results changed and that fail only at run time."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.api_changes.library_versions import before_version
from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    add_argument_edit,
    enclosing_statement,
    fix_after_failure,
    fix_before_run,
    insert_line_edit,
    insert_text_edit,
    last_name,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.repair.replacement_registry import argument_texts, replace_call


@fix_before_run("clusters", "scikit-learn", "1.4", "the default n_init of KMeans changed from 10 to 1", order=20)
def n_init_default(context: RepairContext) -> Iterator[Proposal]:
    """`n_init=10` was the default of older versions of scikit-learn."""
    warned = any(
        "n_init" in output.text and "will change from 10" in output.text
        for cell in context.notebook.code
        for output in cell.outputs
    )
    if not warned and not before_version(context.notebook.metadata, "scikit-learn", "1.4"):
        return
    for cell, call in context.nodes(ast.Call):
        if last_name(call.func) != "KMeans" or any(word.arg in ("n_init", None) for word in call.keywords):
            continue
        if len(call.args) < 3 and keyword_value(call, "init") is None:
            yield Proposal((add_argument_edit(cell, call, "n_init=10"),))


@fix_after_failure("ragged", "numpy", "1.24", "rows of unequal length need dtype=object", order=40)
def ragged_arrays(context: RepairContext, failure: CellFailure) -> Proposal | None:
    if not failure.says("inhomogeneous shape"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if last_name(call.func) in ("array", "asarray") and keyword_value(call, "dtype") is None:
            return Proposal(
                (add_argument_edit(cell, call, "dtype=object"),), "rows of unequal length need dtype=object"
            )
    return None


@fix_after_failure(
    "most-frequent", "scipy", "1.11", "stats.mode returns scalars instead of arrays of length 1", order=40
)
def mode_results(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`stats.mode(x)[0][0]`; of texts, the mode of pandas."""
    if failure.says("is not recognized as numeric", "Argument `a` is not"):
        for cell, node in context.failing(failure, ast.Subscript):
            inside = node.value
            while isinstance(inside, ast.Subscript | ast.Attribute):
                inside = inside.value
            if isinstance(inside, ast.Call) and last_name(inside.func) == "mode" and inside.args:
                text = f"{source_text(cell, inside.args[0])}.mode()[0]"
                return Proposal(
                    (replace_node_edit(cell, node, text),),
                    "stats.mode accepts only numbers; pandas also accepts strings",
                )
    if not failure.says("invalid index to scalar variable", "object is not subscriptable"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if last_name(call.func) == "mode" and call.args and keyword_value(call, "keepdims") is None:
            edit = add_argument_edit(cell, call, "keepdims=True")
            return Proposal((edit,), "stats.mode returns scalars unless keepdims=True")
    return None


@fix_after_failure("labels-not-there", "pandas", "1.0", ".loc no longer accepts missing labels", order=62)
def missing_labels(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`series.loc[['a', 'z']]` returned NaN for missing labels: `.reindex(['a', 'z'])`."""
    if failure.kind != "KeyError" or "not in index" not in failure.message or not failure.through("pandas/"):
        return None
    for cell, node in context.failing(failure, ast.Subscript):
        holder = node.value
        if isinstance(holder, ast.Attribute) and holder.attr == "loc" and isinstance(node.ctx, ast.Load):
            if not isinstance(node.slice, ast.Tuple | ast.Slice):
                text = f"{source_text(cell, holder.value)}.reindex({source_text(cell, node.slice)})"
                return Proposal((replace_node_edit(cell, node, text),), "missing labels are selected with reindex()")
    return None


@fix_after_failure("not-in-place", "pandas", "1.5", "the method no longer supports inplace", order=19)
def inplace_removed(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`df.set_axis(names, axis=1, inplace=True)` as `df = df.set_axis(names, axis=1)`."""
    if not failure.says("unexpected keyword argument 'inplace'"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if keyword_value(call, "inplace") is None or not isinstance(call.func, ast.Attribute):
            continue
        statement = enclosing_statement(cell, call)
        owner: ast.expr = call.func.value
        if isinstance(owner, ast.Attribute) and owner.attr == "cat":
            owner = owner.value
        new = replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, "inplace"))
        if isinstance(statement, ast.Expr) and statement.value is call:
            place = insert_text_edit(cell, call.lineno, call.col_offset, f"{source_text(cell, owner)} = ")
            return Proposal((place, *new), f"{call.func.attr}() no longer supports inplace")
        return Proposal(new, f"{call.func.attr}() no longer supports inplace")
    return None


@fix_after_failure("date-parser", "pandas", "3.0", "read_csv no longer accepts date_parser", order=19)
def date_parser(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`parse_dates=['day'], date_parser=f` as `converters={'day': f}`: f reads each value of these columns."""
    if not failure.says("unexpected keyword argument 'date_parser'"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        parser_node = keyword_value(call, "date_parser")
        if parser_node is None:
            continue
        columns = keyword_value(call, "parse_dates")
        index = keyword_value(call, "index_col")
        parser = source_text(cell, parser_node)
        arguments = argument_texts(cell, call, "date_parser")
        keys: list[ast.expr] = []
        if isinstance(columns, ast.List | ast.Tuple):
            keys = [element for element in columns.elts if isinstance(element, ast.Constant)]
        elif isinstance(columns, ast.Constant) and columns.value is True and index is not None:
            keys = [index] if isinstance(index, ast.Constant) else []
        if keys and keyword_value(call, "converters") is None:
            arguments.append(f"converters={{{', '.join(f'{source_text(cell, key)}: {parser}' for key in keys)}}}")
        elif columns is not None:
            return None
        return Proposal(
            replace_call(cell, call, source_text(cell, call.func), arguments),
            "date_parser was replaced by a converter",
        )
    return None


@fix_after_failure(
    "errors-ignored",
    "pandas",
    "3.0",
    "errors='ignore' was removed: values that cannot be parsed stay unchanged",
    order=24,
)
def errors_ignored(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`pd.to_numeric(x, errors='ignore')`: a function that returns unreadable values unchanged."""
    if not failure.says("invalid error value specified", "errors must be one of 'raise'"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        errors_node = keyword_value(call, "errors")
        if not (isinstance(errors_node, ast.Constant) and errors_node.value == "ignore") or cell.tree is None:
            continue
        handed = last_name(call.func) == "apply" and bool(call.args)
        function_node = call.args[0] if handed else call.func
        name = last_name(function_node)
        if name not in ("to_numeric", "to_datetime", "to_timedelta"):
            continue
        wrapper = f"{name}_or_same"
        arguments = argument_texts(cell, call, "errors")
        if handed:
            arguments[0] = wrapper
        edits = replace_call(cell, call, source_text(cell, call.func) if handed else wrapper, arguments)
        if not any(node.name == wrapper for _, node in context.nodes(ast.FunctionDef)):
            text = (
                f"def {wrapper}(values, **options):\n    try:\n        return {source_text(cell, function_node)}(values, **options)\n"
                "    except (ValueError, TypeError):\n        return values\n\n"
            )
            edits = (insert_line_edit(cell, cell.tree.body[0], text), *edits)
        return Proposal(edits, "errors='ignore' was removed: values that cannot be parsed stay unchanged")
    return None


@fix_after_failure(
    "one-against-the-rest", "scikit-learn", "1.8", "liblinear no longer supports multiclass targets", order=40
)
def one_vs_rest(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """The solver fitted one model for each class against the rest: so does OneVsRestClassifier."""
    if not failure.says("'liblinear' solver does not support multiclass"):
        return None
    from d2c_mlops.convert.repair.added_imports import resolve_added_imports

    for cell, call in context.nearest(failure, ast.Call):
        solver = keyword_value(call, "solver")
        if (
            last_name(call.func).startswith("LogisticRegression")
            and isinstance(solver, ast.Constant)
            and solver.value == "liblinear"
        ):
            text = f"__import__('sklearn.multiclass', fromlist=['OneVsRestClassifier']).OneVsRestClassifier({source_text(cell, call)})"
            edits = resolve_added_imports(context, cell, (replace_node_edit(cell, call, text),))
            return Proposal(edits, "liblinear fitted one-vs-rest models, as OneVsRestClassifier does")
    return None


@fix_after_failure(
    "smoothing-names", "statsmodels", "0.13", "arguments of exponential smoothing were renamed or moved", order=18
)
def smoothing_names(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`fit(smoothing_slope=...)` is `smoothing_trend`; the Box-Cox transformation is an argument of the model."""
    match = re.search(
        r"unexpected keyword argument '(smoothing_slope|use_boxcox|use_basinhopping|damping_slope)'", failure.message
    )
    if match is None:
        return None
    renamed = {"smoothing_slope": "smoothing_trend", "damping_slope": "damping_trend"}
    for cell, call in context.failing(failure, ast.Call):
        argument = keyword_value(call, match[1])
        if argument is None or not isinstance(call.func, ast.Attribute):
            continue
        arguments = argument_texts(cell, call, match[1])
        if match[1] in renamed:
            arguments.append(f"{renamed[match[1]]}={source_text(cell, argument)}")
        owner = call.func.value
        start = source_text(cell, call.func)
        if match[1] == "use_boxcox":
            if not isinstance(owner, ast.Call):
                return None
            model = f"{source_text(cell, owner.func)}({', '.join([*argument_texts(cell, owner), f'use_boxcox={source_text(cell, argument)}'])})"
            start = f"{model}.{call.func.attr}"
        return Proposal(
            replace_call(cell, call, start, arguments), "arguments of exponential smoothing were renamed or moved"
        )
    return None


@fix_before_run("ljung-box", "statsmodels", "0.12", "acorr_ljungbox returns a DataFrame", order=20)
def ljung_box(context: RepairContext) -> Iterator[Proposal]:
    """`statistic, p = acorr_ljungbox(...)` would bind the names of the columns."""
    for cell, node in context.nodes(ast.Assign):
        call = node.value
        if isinstance(node.targets[0], ast.Tuple) and isinstance(call, ast.Call):
            if last_name(call.func) == "acorr_ljungbox" and keyword_value(call, "return_df") is None:
                yield Proposal(
                    (insert_text_edit(cell, call.end_lineno or 0, call.end_col_offset or 0, ".to_numpy().T"),)
                )


@fix_after_failure("old-objective", "xgboost", "1.0", "the objective was renamed", order=40)
def old_objective(context: RepairContext, failure: CellFailure) -> Proposal | None:
    if "reg:linear" not in failure.message:
        return None
    edits = tuple(
        replace_node_edit(cell, text, "'reg:squarederror'")
        for cell, text in context.nodes(ast.Constant)
        if text.value == "reg:linear"
    )
    return Proposal(edits, "reg:linear was renamed to reg:squarederror", restart=True) if edits else None
