"""Find the rows on which the author evaluated an estimator, including fits inside functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from d2c_mlops.convert.meaning.roles import Fit, constructor_call
from d2c_mlops.convert.plan.plan import Plan, PlanLine

SCORES = {
    "accuracy_score": ("accuracy", False),
    "r2_score": ("r2", False),
    "mean_absolute_error": ("mean_absolute_error", True),
    "mean_squared_error": ("mean_squared_error", True),
    "silhouette_score": ("silhouette", False),
}
_HELD_OUT = re.compile(r"test|valid|hold|eval|unseen|_te$|_va$|^xte|^xva|dev$|oos", re.IGNORECASE)
_ASKS = ("predict", "score", "predict_proba", "fit_predict")
_SAME_OBJECT = ("best_estimator_", "best_estimator")


@dataclass(frozen=True)
class JudgedRows:
    """One question to an estimator: for which features, in which statement, and by which name of it."""

    features: ast.expr
    statement: ast.stmt
    name: str


@dataclass(frozen=True)
class AuthorEvaluation:
    """Features and answers of the author's own evaluation, whether they are others than those of the fit, his metric."""

    features: ast.expr | None
    answers: ast.expr | None
    held_out: bool
    score: str = ""
    asked: JudgedRows | None = None


def names_in_code(node: ast.AST) -> set[str]:
    """Return the names in a piece of code."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def bound_name(line: PlanLine, position: int | None = None) -> str:
    """Return the name that a statement binds, or the name at a position of its tuple; empty if it binds none."""
    node = line.statement.node
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    if isinstance(target, ast.Tuple) and position is not None and position < len(target.elts):
        target = target.elts[position]
    return target.id if isinstance(target, ast.Name) else ""


def lines_with_aliases(
    lines: Sequence[PlanLine], names: Iterable[str]
) -> tuple[list[PlanLine], dict[int, frozenset[str]]]:
    """Return the lines until the fitted object changes, and the names that it has in each of them.

    `model = reg.fit(...)`, `clf2 = clf`, `a, b = clf, other` and `best = search.best_estimator_` give it further names.
    """
    aliases = set(names)
    alias_lines, names_at = [lines[0]], {id(lines[0]): frozenset(aliases)}
    for line in lines[1:]:
        if aliases & set(line.facts.mutates):
            break
        new_aliases = _alias_names(line.statement.node, aliases)
        aliases = (aliases - set(line.facts.binds)) | new_aliases
        if not aliases:
            break
        alias_lines.append(line)
        names_at[id(line)] = frozenset(aliases)
    return alias_lines, names_at


def _alias_names(node: ast.stmt, model_names: set[str]) -> set[str]:
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        node = ast.Assign([node.target], node.value)
    if not isinstance(node, ast.Assign):
        return set()
    aliases: set[str] = set()
    for target in node.targets:
        pairs: list[tuple[ast.expr, ast.expr]] = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        for name, value in pairs:
            same = value.value if isinstance(value, ast.Attribute) and value.attr in _SAME_OBJECT else value
            if isinstance(name, ast.Name) and isinstance(same, ast.Name) and same.id in model_names:
                aliases.add(name.id)
    return aliases


def fits_at_call_sites(fit: Fit, plan: Plan) -> list[tuple[Fit, PlanLine, str]]:
    """Return the calls of the author's function that contains a fit, as fits of the returned objects, with their names."""
    fits: list[tuple[Fit, PlanLine, str]] = []
    for name, function in plan.functions.items():
        node = function.statement.node
        if not isinstance(node, ast.FunctionDef) or fit.call is None or fit.call not in list(ast.walk(node)):
            continue
        position = _position_in_result(node, fit)
        if position is None:
            continue
        for line in plan.lines:
            value = getattr(line.statement.node, "value", None)
            called = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == name
            if called and isinstance(line.statement.node, ast.Assign):
                bound = bound_name(line, position)
                assert isinstance(value, ast.Call)
                call = _fit_at_call_site(fit.call, node, value)
                if bound and call is not None:
                    outer_fit = replace(
                        fit, cell=line.statement.cell, line=line.statement.node.lineno, name=bound, call=call
                    )
                    fits.append((outer_fit, line, bound))
    return fits


def _position_in_result(node: ast.FunctionDef, fit: Fit) -> int | None:
    """The position of the fitted object in the function's result, 0 if it is the whole result; None if unsure."""
    returns = [child.value for child in ast.walk(node) if isinstance(child, ast.Return)]
    if len(returns) != 1 or returns[0] is None:
        return None
    names = {fit.name}
    for descendant in ast.walk(node):
        if (
            isinstance(descendant, ast.Assign)
            and isinstance(descendant.targets[0], ast.Name)
            and descendant.value is fit.call
        ):
            names.add(descendant.targets[0].id)
    parts = returns[0].elts if isinstance(returns[0], ast.Tuple) else [returns[0]]
    for place, part in enumerate(parts):
        if part is fit.call or (isinstance(part, ast.Name) and part.id in names - {""}):
            return place
        same = part.value if isinstance(part, ast.Attribute) and part.attr in _SAME_OBJECT else None
        if isinstance(same, ast.Name) and same.id in names:
            return place
    return None


def _fit_at_call_site(fit: ast.Call, function: ast.FunctionDef, call: ast.Call) -> ast.Call | None:
    """The fit with the caller's arguments, if it is fitted on exactly these."""
    names = [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]]
    handed = dict(zip(names, call.args, strict=False)) | {word.arg: word.value for word in call.keywords if word.arg}
    assigned_names = {
        node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    words = {word.arg: word.value for word in fit.keywords}
    argument_nodes = [*fit.args, *(words[name] for name in ("X", "y") if name in words)]
    outside = [
        handed.get(value.id) if isinstance(value, ast.Name) and value.id not in assigned_names else None
        for value in argument_nodes
    ]
    if not outside or any(value is None for value in outside):
        return None
    return ast.Call(fit.func, [value for value in outside if value is not None], [])


def training_arguments(plan: Plan, fit: Fit) -> list[ast.expr]:
    """Return features and target of a fit; statsmodels takes them when it is built, the target first."""
    call = fit.call
    if call is None:
        return []
    if not fit.path.startswith("statsmodels."):
        words = {word.arg: word.value for word in call.keywords}
        keywords_given = [words[name] for name in ("X", "y") if name in words]
        return [*call.args, *keywords_given[len(call.args) :]] if len(call.args) < 2 else call.args
    built = constructor_call(call.func.value, plan.inference) if isinstance(call.func, ast.Attribute) else None
    if built is None:
        return []
    words = {word.arg: word.value for word in built.keywords}
    target = built.args[0] if built.args else words.get("endog")
    features = built.args[1] if len(built.args) > 1 else words.get("exog")
    return [part for part in (features, target) if part is not None] if features is not None else []


def author_evaluation(
    plan: Plan, lines: Sequence[PlanLine], names: dict[int, frozenset[str]], fit: Fit
) -> AuthorEvaluation:
    """Return how the author evaluated an estimator: on held-out rows if possible, else on other rows, else on the training rows."""
    trained = training_arguments(plan, fit)
    target = trained[1] if len(trained) > 1 else None
    questions = predicted_rows(plan, lines, names, trained)
    for question in questions:
        if trained and ast.dump(question.features) == ast.dump(trained[0]):
            continue
        truth, score = _actual_values_and_metric(plan, lines, names, question)
        if trained and (truth is not None or fit.kind == "clusterer"):
            return AuthorEvaluation(question.features, truth, True, score, question)
    if trained and (handed := _evaluation_in_function(plan, lines, names, trained)) is not None:
        return handed
    if not trained:
        return AuthorEvaluation(None, None, False)
    first = questions[0] if questions else None
    score = _actual_values_and_metric(plan, lines, names, first)[1] if first is not None else ""
    same = first is not None and ast.dump(first.features) == ast.dump(trained[0])
    return AuthorEvaluation(trained[0], target, False, score, first if same else None)


def predicted_rows(
    plan: Plan, lines: Sequence[PlanLine], names: dict[int, frozenset[str]], trained: Sequence[ast.expr]
) -> list[JudgedRows]:
    """Return the rows that the estimator predicts: first those named as held out, then other rows than those of the fit."""
    judged: list[JudgedRows] = []
    for line in lines:
        for node in ast.walk(line.statement.node):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                owner = node.func.value
                if isinstance(owner, ast.Attribute) and owner.attr in _SAME_OBJECT:
                    owner = owner.value
                if isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute) and owner.func.attr == "fit":
                    owner = owner.func.value  # reg.fit(X_train, y_train).predict(X_test)
                is_fitted = isinstance(owner, ast.Name) and owner.id in names[id(line)]
                if is_fitted and node.func.attr in _ASKS and isinstance(line.statement.node, ast.Assign | ast.Expr):
                    judged.append(JudgedRows(node.args[0], line.statement.node, owner.id))  # type: ignore[attr-defined]
    training_features = ast.dump(trained[0]) if trained else ""
    parts = _other_split_part(plan, trained[0]) if trained else set()

    def evaluation_priority(judged_rows: JudgedRows) -> int:
        read = names_in_code(judged_rows.features)
        if ast.dump(judged_rows.features) == training_features:
            return 3
        if read & parts:
            return 0
        return 1 if any(_HELD_OUT.search(name) for name in read) else 2

    return sorted(judged, key=evaluation_priority)


def _other_split_part(plan: Plan, part: ast.expr) -> set[str]:
    """The other part of the split of a name: X_test for X_train."""
    siblings: set[str] = set()
    for line in plan.lines:
        node = line.statement.node
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        if not plan.inference.path(node.value.func).endswith(".train_test_split"):
            continue
        target = node.targets[0]
        parts = [element.id if isinstance(element, ast.Name) else "" for element in getattr(target, "elts", [])]
        for place, name in enumerate(parts):
            if name and isinstance(part, ast.Name) and name == part.id and place ^ 1 < len(parts):
                siblings.add(parts[place ^ 1])
    return siblings - {""}


def _evaluation_in_function(
    plan: Plan, lines: Sequence[PlanLine], names: dict[int, frozenset[str]], trained: Sequence[ast.expr]
) -> AuthorEvaluation | None:
    """`report(model, X_test, y_test)`: the author's function is handed the other part of the split."""
    if len(trained) < 2:
        return None
    features, answers = _other_split_part(plan, trained[0]), _other_split_part(plan, trained[1])
    for line in lines:
        for node in ast.walk(line.statement.node):
            if not isinstance(node, ast.Call):
                continue
            argument_nodes = [*node.args, *(word.value for word in node.keywords)]
            read = {value.id for value in argument_nodes if isinstance(value, ast.Name)}
            if read & names[id(line)] and read & features and read & answers:
                by_name = {value.id: value for value in argument_nodes if isinstance(value, ast.Name)}
                first, second = (by_name[next(iter(read & part))] for part in (features, answers))
                judged_rows = JudgedRows(first, line.statement.node, next(iter(read & names[id(line)])))
                return AuthorEvaluation(first, second, True, "", judged_rows)
    return None


def _actual_values_and_metric(
    plan: Plan, lines: Sequence[PlanLine], names: dict[int, frozenset[str]], judged_rows: JudgedRows
) -> tuple[ast.expr | None, str]:
    """The answers with which the author compared the predictions, and his metric."""
    predicted = {use for line in lines if line.statement.node is judged_rows.statement for use in line.facts.binds}
    answers: list[tuple[ast.expr, str]] = []
    for line in lines:
        predicted |= _derived_from_predictions(line, predicted, plan)
        for node in ast.walk(line.statement.node):
            if not isinstance(node, ast.Call):
                continue
            path = plan.inference.path(node.func)
            metric = path.rpartition(".")[2]
            if path.startswith("sklearn.metrics.") and len(node.args) > 1:
                if metric == "silhouette_score":
                    answers.append((node.args[0], metric))
                    continue
                for truth, guess in ((node.args[0], node.args[1]), (node.args[1], node.args[0])):
                    if (
                        _is_complete_prediction(guess, predicted, names[id(line)], judged_rows)
                        and not names_in_code(truth) & predicted
                    ):
                        answers.append((truth, metric if metric in SCORES else ""))
                        break
            is_score_method = isinstance(node.func, ast.Attribute) and node.func.attr == "score" and len(node.args) > 1
            if (
                is_score_method
                and names[id(line)] & names_in_code(node.func)
                and ast.dump(node.args[0]) == ast.dump(judged_rows.features)
            ):
                answers.append((node.args[1], ""))
    score = next((metric for _, metric in answers if metric), "")
    plain = [truth for truth, metric in answers if metric != "silhouette_score"]
    return (plain[0] if plain else None), score


def _is_complete_prediction(
    prediction: ast.expr, predicted: set[str], names: frozenset[str], judged_rows: JudgedRows
) -> bool:
    """Whether an expression is the complete prediction; a part of it belongs to other rows."""
    if isinstance(prediction, ast.Subscript):
        key = prediction.slice
        whole = isinstance(key, ast.Tuple) and isinstance(key.elts[0], ast.Slice) and key.elts[0].lower is None
        return (
            whole
            and key.elts[0].upper is None  # type: ignore[attr-defined]
            and _is_complete_prediction(prediction.value, predicted, names, judged_rows)
        )
    if (
        isinstance(prediction, ast.Call)
        and isinstance(prediction.func, ast.Attribute)
        and prediction.func.attr in _ASKS
    ):
        return (
            bool(prediction.args)
            and ast.dump(prediction.args[0]) == ast.dump(judged_rows.features)
            and bool(names & names_in_code(prediction.func))
        )
    return bool(names_in_code(prediction) & predicted)


def _derived_from_predictions(line: PlanLine, predicted: set[str], plan: Plan) -> set[str]:
    """Names that are computed only from predictions: `labels = (chance > 0.5).astype(int)`."""
    node = line.statement.node
    if not isinstance(node, ast.Assign) or not predicted:
        return set()
    read = names_in_code(node.value) - set(plan.imports.paths)
    indexed = any(
        isinstance(part, ast.Subscript) and not isinstance(part.slice, ast.Tuple) for part in ast.walk(node.value)
    )
    is_derived = bool(read) and read <= predicted | {"int", "float", "round", "list", "len"} and not indexed
    return {target.id for target in node.targets if isinstance(target, ast.Name)} if is_derived else set()
