"""Fixes of time series models of statsmodels and Prophet."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

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
    last_name,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.repair.replacement_registry import IMPORTED, argument_texts, receiver_text, replace_call
from d2c_mlops.convert.source.notebook import Cell

_OLD = "statsmodels.tsa.arima_model"
_FIT = (
    "disp",
    "transparams",
    "solver",
    "trend",
    "method",
    "maxiter",
    "full_output",
    "callback",
    "tol",
    "start_ar_lags",
    "css_tol",
)


@fix_before_run(
    "old-arima", "statsmodels", "0.13", "the former ARIMA class was removed; its successor has other arguments", order=4
)
def old_arima(context: RepairContext) -> Iterator[Proposal]:
    """`ARMA(y, (p, q))` as an ARIMA, the constant of differences as a trend, `fit()` without the old options."""
    names = {
        alias.asname or alias.name: alias.name
        for _, node in context.nodes(ast.ImportFrom)
        if node.module == _OLD
        for alias in node.names
    }
    if not names:
        return
    for cell, call in context.nodes(ast.Call):
        kind = names.get(last_name(call.func))
        if kind not in ("ARIMA", "ARMA"):
            continue
        order = keyword_value(call, "order") or (call.args[1] if len(call.args) > 1 else None)
        fits = list(_fit_calls(context, cell, call))
        trend = next((keyword_value(fit, "trend") for _, fit in fits if keyword_value(fit, "trend") is not None), None)
        none = isinstance(trend, ast.Constant) and trend.value == "nc"
        arguments = [source_text(cell, argument) for argument in call.args if argument is not order] + argument_texts(
            cell, ast.Call(call.func, [], call.keywords), "order"
        )
        text = source_text(cell, order) if order is not None else ""
        if kind == "ARMA" and isinstance(order, ast.Tuple) and len(order.elts) == 2:
            p, q = (source_text(cell, element) for element in order.elts)
            text = f"({p}, 0, {q})"
        differences = order.elts[1] if isinstance(order, ast.Tuple) and len(order.elts) == 3 else None
        once = isinstance(differences, ast.Constant) and differences.value == 1
        trend_argument = ", trend='n'" if none else ", trend='t'" if once else ""
        name = "ARIMA" if kind == "ARMA" and isinstance(call.func, ast.Name) else source_text(cell, call.func)
        if keyword_value(call, "trend") is not None:
            continue
        new_call = f"{name}({', '.join([*arguments, f'order={text}'])}{trend_argument})"
        if new_call == source_text(cell, call):
            continue
        yield Proposal(
            (replace_node_edit(cell, call, new_call),),
            "the former ARIMA class was removed; its constant is now a trend",
        )


@fix_before_run(
    "old-autoregression", "statsmodels", "0.13", "AR selected its lags; AutoReg requires their number", order=4
)
def old_autoregression(context: RepairContext) -> Iterator[Proposal]:
    """`AR(y).fit()` as an AutoReg with as many lags as AR took for the length of its series."""
    names = {
        alias.asname or alias.name
        for _, node in context.nodes(ast.ImportFrom)
        if node.module == "statsmodels.tsa.ar_model"
        for alias in node.names
        if alias.name == "AR"
    }
    for cell, call in context.nodes(ast.Call):
        if last_name(call.func) in names and len(call.args) == 1 and keyword_value(call, "lags") is None:
            values = source_text(cell, call.args[0])
            lags = f"lags=round(12 * (len({values}) / 100) ** 0.25)"
            start = (
                "AutoReg" if isinstance(call.func, ast.Name) and call.func.id == "AR" else source_text(cell, call.func)
            )
            yield Proposal(replace_call(cell, call, start, [*argument_texts(cell, call), lags]))


@fix_before_run("old-arima-fit", "statsmodels", "0.13", "fit() no longer accepts these options", order=3)
def old_arima_fit(context: RepairContext) -> Iterator[Proposal]:
    names = {
        alias.asname or alias.name
        for _, node in context.nodes(ast.ImportFrom)
        if node.module == _OLD
        for alias in node.names
    }
    for cell, call in context.nodes(ast.Call):
        if last_name(call.func) in names:
            for where, fit in _fit_calls(context, cell, call):
                arguments = argument_texts(where, fit, *_FIT)
                if len(arguments) < len(fit.args) + len(fit.keywords):
                    start = receiver_text(where, fit)
                    if fit.func.value is call:  # type: ignore[attr-defined]
                        end = (fit.func.end_lineno or 0, fit.func.end_col_offset or 0)
                        from d2c_mlops.convert.source.finding import Edit

                        text = f"({', '.join(arguments)})"
                        yield Proposal((Edit(where.index, *end, fit.end_lineno or 0, fit.end_col_offset or 0, text),))
                    else:
                        yield Proposal(replace_call(where, fit, f"{start}.fit", arguments))


def _fit_calls(context: RepairContext, cell: Cell, call: ast.Call) -> Iterator[tuple[Cell, ast.Call]]:
    """Yield the calls of fit on a model: on the expression, or on its name."""
    statement = enclosing_statement(cell, call)
    bound = (
        {last_name(target) for target in statement.targets}
        if isinstance(statement, ast.Assign) and statement.value is call
        else set()
    )
    for where, fit in context.nodes(ast.Call):
        if isinstance(fit.func, ast.Attribute) and fit.func.attr == "fit":
            if fit.func.value is call or (isinstance(fit.func.value, ast.Name) and fit.func.value.id in bound):
                yield where, fit


_SMOOTHING = {"SimpleExpSmoothing": 1, "Holt": 3}  # positional arguments before the method


@fix_before_run(
    "initial-values",
    "statsmodels",
    "0.15",
    "the way to the initial values of exponential smoothing must be named",
    order=14,
)
def initial_values(context: RepairContext) -> Iterator[Proposal]:
    """`Holt(y)`: initial values are estimated with the other parameters, or from the first observations where nothing is optimized."""
    imported = {
        alias.asname or alias.name
        for _, node in context.nodes(ast.ImportFrom)
        if (node.module or "").startswith("statsmodels.tsa")
        for alias in node.names
    }
    modules = {
        alias.asname
        for _, node in context.nodes(ast.Import)
        for alias in node.names
        if alias.name.startswith("statsmodels.tsa") and alias.asname
    }
    for cell, call in context.nodes(ast.Call):
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        is_imported = last_name(owner) in modules | imported if owner is not None else last_name(call.func) in imported
        if not is_imported or len(call.args) > _SMOOTHING.get(last_name(call.func), -1):
            continue
        if any(word.arg in ("initialization_method", None) for word in call.keywords):
            continue
        fits = [keyword_value(fit, "optimized") for _, fit in _fit_calls(context, cell, call)]
        fixed = bool(fits) and all(isinstance(value, ast.Constant) and value.value is False for value in fits)
        method = "legacy-heuristic" if fixed else "estimated"
        yield Proposal((add_argument_edit(cell, call, f"initialization_method={method!r}"),))


@fix_after_failure("forecast-triple", "statsmodels", "0.13", "forecast() returns only the forecast", order=14)
def forecast_triple(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`forecast, error, interval = fitted.forecast(n)`: from get_forecast, which returns all three."""
    if not failure.says("to unpack", "unexpected keyword argument 'alpha'", "Unknown keyword arguments: ['alpha']"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if last_name(call.func) == "forecast" and isinstance(call.func, ast.Attribute):
            return _order_proposal(cell, call)
    for cell, node in context.failing(failure, ast.Assign):
        value = node.value
        if (
            isinstance(value, ast.Call)
            and last_name(value.func) == "forecast"
            and isinstance(value.func, ast.Attribute)
        ):
            return _order_proposal(cell, value)
    return None


@fix_before_run("three-answers", "statsmodels", "0.13", "forecast() returns only the forecast", order=14)
def forecast_unpacked(context: RepairContext) -> Iterator[Proposal]:
    """Three names bound to a forecast: for three steps this would not even fail."""
    for cell, node in context.nodes(ast.Assign):
        call, target = node.value, node.targets[0]
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "forecast":
            if isinstance(target, ast.Tuple) and len(target.elts) == 3 and len(call.args) + len(call.keywords) == 1:
                yield _order_proposal(cell, call)


def _order_proposal(cell: Cell, call: ast.Call) -> Proposal:
    alpha = keyword_value(call, "alpha")
    level = f"alpha={source_text(cell, alpha)}" if alpha is not None else ""
    arguments = ", ".join(argument_texts(cell, call, "alpha"))
    lambda_call = f"(lambda made: (made.predicted_mean, made.se_mean, made.conf_int({level})))({receiver_text(cell, call)}.get_forecast({arguments}))"
    return Proposal(
        (replace_node_edit(cell, call, lambda_call),),
        "forecast() returns only the forecast; get_forecast() also returns errors and intervals",
    )


@fix_after_failure("first-forecast", "statsmodels", "0.13", "forecast() returns only the forecast", order=14)
def first_forecast(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`fitted.forecast(n)[0]` was the forecast itself."""
    if failure.kind not in ("KeyError", "TypeError", "IndexError"):
        return None
    for cell, node in context.failing(failure, ast.Subscript):
        call = node.value
        if (
            isinstance(call, ast.Call)
            and last_name(call.func) == "forecast"
            and isinstance(node.slice, ast.Constant)
            and node.slice.value == 0
        ):
            return Proposal(
                (replace_node_edit(cell, node, source_text(cell, call)),), "forecast() returns only the forecast"
            )
    return None


@fix_after_failure("plot-predict", "statsmodels", "0.13", "plot_predict is now a function", order=14)
def plot_predict(context: RepairContext, failure: CellFailure) -> Proposal | None:
    if failure.name != "plot_predict":
        return None
    for cell, node in context.failing(failure, ast.Attribute):
        call = next((part for _, part in context.nodes(ast.Call, cell) if part.func is node), None)
        statement = enclosing_statement(cell, node)
        if call is not None and statement is not None:
            arguments = [source_text(cell, node.value), *argument_texts(cell, call, "plot_insample", "typ")]
            head = insert_line_edit(cell, statement, "from statsmodels.graphics.tsaplots import plot_predict")
            return Proposal(
                (head, replace_node_edit(cell, call, f"plot_predict({', '.join(arguments)})")),
                "plot_predict is now a function",
            )
    return None


@fix_after_failure("gone-criterion", "statsmodels", "0.13", "the argument was removed", order=30)
def old_types(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`predict(typ='levels')`: predict always returns levels."""
    match = re.search(r"unexpected keyword argument '(typ|transparams|disp|dynamic_only)'", failure.message)
    match = match or re.search(r"Unknown keyword arguments.*'(typ)'", failure.message)
    if match is None:
        return None
    for cell, call in context.failing(failure, ast.Call):
        if keyword_value(call, match[1]) is not None:
            return Proposal(
                replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, match[1])),
                f"`{match[1]}` was removed",
            )
    return None


@fix_after_failure("label-out-of-range", "statsmodels", "0.13", "the imported functions were renamed", order=90)
def renamed_later(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A removed module that is imported as a whole."""
    if failure.kind not in ("NotImplementedError", "AttributeError") or not failure.says("arima_model"):
        return None
    for cell, node in context.failing(failure, ast.ImportFrom):
        name = node.names[0].name
        new = IMPORTED.get(f"{node.module}.{name}")
        if new is not None:
            return Proposal(
                (replace_node_edit(cell, node, f"from {new[0].rpartition('.')[0]} import {new[1]}"),),
                "the module was removed",
            )
    return None
