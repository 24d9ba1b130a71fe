"""Rewrite the notebook's fitting functions so that they use values recorded in training."""

from __future__ import annotations

import ast
import copy

from d2c_mlops.convert.meaning.api_signatures import ARRAY, FRAME, SERIES
from d2c_mlops.convert.meaning.inference import Inference
from d2c_mlops.convert.plan.plan import Plan
from d2c_mlops.convert.plan.recorded_transforms import AuthorFunctions, RecordedTransforms, learned_call, learned_method
from d2c_mlops.convert.plan.slicing import inplace_filtered_table, table_of_row_selection

_NOT_FITTED = ("matplotlib.", "seaborn.", "builtins.", "numpy.", "pandas.")


def plan_function_replay(plan: Plan, rewrite_learning: bool) -> AuthorFunctions:
    """Return how calls of the author's functions are replayed; with `rewrite_learning` those that learn are written anew."""
    extras = {
        name: function.extras for name, function in plan.functions.items() if function.extras and not function.reason
    }
    if not rewrite_learning:
        return AuthorFunctions(extras)
    names = {
        name
        for name, function in plan.functions.items()
        if not function.reason and _can_be_rewritten(function.statement.node)
    }
    served: dict[str, str] = {}
    while True:
        trial = AuthorFunctions(extras, {name: _function_name(name, plan) for name in served}, inner=True)
        grown = {name for name in names - set(served) if _differs_in_replay(name, plan, trial)}
        if not grown:
            return trial
        served |= dict.fromkeys(grown, "")


def replay_function_sources(text: str, plan: Plan, functions: AuthorFunctions) -> list[str]:
    """Return the functions that replay the author's learning functions and that `text` calls, in the author's order."""
    needed_names: set[str] = set()
    todo = [text]
    while todo:
        names = {node.id for node in ast.walk(ast.parse(todo.pop())) if isinstance(node, ast.Name)}
        for name, served in functions.served.items():
            if served in names and name not in needed_names:
                needed_names.add(name)
                todo.append(_function_source(name, plan, functions))
    return [_function_source(name, plan, functions) for name in plan.functions if name in needed_names]


def _function_name(name: str, plan: Plan) -> str:
    variable = f"{name}_as_trained"
    while variable in plan.names:
        variable += "_"
    return variable


def _can_be_rewritten(node: ast.AST) -> bool:
    """Whether a function can be written anew: a plain one, without a name that the new one needs."""
    if not isinstance(node, ast.FunctionDef) or node.decorator_list:
        return False
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    names |= {child.arg for child in ast.walk(node) if isinstance(child, ast.arg)}
    return "learned" not in names and not any(
        isinstance(descendant, ast.Yield | ast.YieldFrom) for descendant in ast.walk(node)
    )


def _differs_in_replay(name: str, plan: Plan, functions: AuthorFunctions) -> bool:
    node = plan.functions[name].statement.node
    assert isinstance(node, ast.FunctionDef)
    changed = _Inside(plan.inference, name, functions).function(node)
    plain = _Inside(plan.inference, name, AuthorFunctions(functions.extras), learns=False).function(node)
    return ast.dump(changed) != ast.dump(plain)


def _function_source(name: str, plan: Plan, functions: AuthorFunctions) -> str:
    function = plan.functions[name]
    node = function.statement.node
    assert isinstance(node, ast.FunctionDef)
    served_copy = _Inside(plan.inference, name, functions).function(node)
    served_copy.name = functions.served[name]
    served_copy.returns = None
    arguments = served_copy.args
    for extra in (*function.extras, "learned"):
        arguments.kwonlyargs.append(ast.arg(extra, ast.Name("Learned", ast.Load()) if extra == "learned" else None))
        arguments.kw_defaults.append(None)
    body = served_copy.body[1:] if ast.get_docstring(served_copy) is not None else served_copy.body
    served_copy.body = [
        ast.Expr(ast.Constant(f"Same as `{name}`, with the values learned from the training data.")),
        *body,
    ]
    return ast.unparse(ast.fix_missing_locations(served_copy))


class _Inside(RecordedTransforms, ast.NodeTransformer):
    """Rewrites the body of a function: fits are recorded, and row selections are those of the training."""

    def __init__(self, inference: Inference, name: str, functions: AuthorFunctions, learns: bool = True) -> None:
        super().__init__(inference, set(), name, functions=functions)
        self.learns = learns

    def function(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Return the function with its body rewritten."""
        served_copy = self.copied(node)
        assert isinstance(served_copy, ast.FunctionDef)
        served_copy.body = [
            result for statement in served_copy.body for result in self._as_statement_list(self.visit(statement))
        ]
        return served_copy

    def _as_statement_list(self, result: ast.AST | list[ast.stmt] | None) -> list[ast.stmt]:
        if result is None:
            return []
        return list(result) if isinstance(result, list) else [result]  # type: ignore[list-item]

    def next_key(self) -> ast.Constant:
        self.count += 1
        return ast.Constant(f"{self.key}_{self.count}")

    def visit_Expr(self, node: ast.Expr) -> ast.AST | list[ast.stmt]:
        """`scaler.fit(x)` binds the scaler as the training fitted it; `df.dropna(inplace=True)` the rows that it chose."""
        call = node.value
        if not self.learns or not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            self.generic_visit(node)
            return node
        owner = call.func.value
        if call.func.attr == "fit" and isinstance(owner, ast.Name) and self._fits_inside(owner):
            return ast.Assign([ast.Name(owner.id, ast.Store())], self._fit_expression(call))
        if (name := inplace_filtered_table(call)) is not None:
            chosen = copy.deepcopy(call)
            chosen.keywords = [word for word in chosen.keywords if word.arg != "inplace"]
            return ast.Assign([ast.Name(name, ast.Store())], learned_call("rows", [ast.Name(name, ast.Load()), chosen]))
        self.generic_visit(node)
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        """A condition on all rows is decided in the training: `if df["x"].isna().any():`."""
        if self.learns and not self.inside and _depends_on_all_rows(node.test):
            node.test = self.kept(node.test)  # type: ignore[assignment]
        else:
            node.test = self.visit(node.test)
        node.body = [result for statement in node.body for result in self._as_statement_list(self.visit(statement))]
        node.orelse = [result for statement in node.orelse for result in self._as_statement_list(self.visit(statement))]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not self.learns:
            if isinstance(node.func, ast.Name) and node.func.id in self.functions.extras:
                return self.author(node, node.func)
            self.generic_visit(node)
            return node
        path, function = self.paths.get(id(node), ""), node.func
        if path.endswith(".train_test_split"):
            return self._replay_parts_call(node, 2)
        if path == "sklearn.utils.resample" or path == "sklearn.utils.shuffle":
            return (
                self._replay_parts_call(node, 1)
                if len(node.args) > 1
                else learned_call("rows", [copy.deepcopy(node.args[0]), node])
            )
        if isinstance(function, ast.Attribute) and function.attr in ("fit_resample", "fit_sample"):
            return self._replay_parts_call(node, 1)
        if isinstance(function, ast.Attribute) and function.attr == "fit" and self._fits_inside(function.value):
            return self._fit_expression(node)
        if not self.inside and self._selects_rows(node):
            self.generic_visit(node)
            assert isinstance(function, ast.Attribute)
            return learned_call("rows", [copy.deepcopy(function.value), node])
        return super().visit_Call(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if self.learns:
            return super().visit_Attribute(node)
        self.generic_visit(node)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if self.learns:
            return super().visit_BinOp(node)
        self.generic_visit(node)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        base = table_of_row_selection(node) if self.learns and not self.inside else None
        if base is not None and isinstance(base, ast.Attribute) and base.attr == "columns":
            return self.kept(node)
        if base is not None and self._rows_of_table(node, base):
            self.generic_visit(node)
            again = table_of_row_selection(node)
            return learned_call("rows", [copy.deepcopy(again), node]) if again is not None else node
        if self.learns:
            return super().visit_Subscript(node)
        self.generic_visit(node)
        return node

    def _rows_of_table(self, node: ast.Subscript, base: ast.expr) -> bool:
        if isinstance(base, ast.Attribute) and base.attr == "str":
            return False
        if not isinstance(node.slice, ast.Slice):
            return True
        by_place = isinstance(node.value, ast.Attribute) and node.value.attr in ("iloc", "loc")
        return by_place or self.kinds.get(id(base), "") in (FRAME, SERIES, ARRAY)

    def _selects_rows(self, node: ast.Call) -> bool:
        return table_of_row_selection(node) is not None

    def _fits_inside(self, owner: ast.expr) -> bool:
        kind = self.kinds.get(id(owner), "")
        return not self.inside and not kind.startswith(_NOT_FITTED)

    def _fit_expression(self, call: ast.Call) -> ast.expr:
        assert isinstance(call.func, ast.Attribute)
        arguments = [self.next_key(), self.visit(call.func.value), *(self.visit(argument) for argument in call.args)]
        words = [ast.keyword(word.arg, self.visit(word.value)) for word in call.keywords]
        return ast.Call(learned_method("fit"), arguments, words)

    def _replay_parts_call(self, call: ast.Call, count: int) -> ast.expr:
        wholes = [self.visit(copy.deepcopy(argument)) for argument in call.args]
        nothing = ast.arguments([], [], None, [], [], None, [])
        words = [ast.keyword("each", ast.Constant(count))] if count > 1 else []
        return ast.Call(learned_method("parts"), [ast.Lambda(nothing, call), *wholes], words)


def _depends_on_all_rows(test: ast.expr) -> bool:
    """Whether a condition depends on all rows: `.any()`, `.sum() > 0`, `.nunique() < 10`, `len(df) > 5`, `df.empty`."""
    for node in ast.walk(test):
        if isinstance(node, ast.Attribute) and node.attr == "empty":
            return True
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute) and function.attr in (
                "any",
                "all",
                "sum",
                "nunique",
                "mean",
                "count",
            ):
                return True
            if isinstance(function, ast.Name) and function.id == "len":
                return True
    return False
