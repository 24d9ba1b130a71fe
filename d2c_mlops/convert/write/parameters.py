"""Turn literals into one typed parameters cell."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

from d2c_mlops.convert.plan import naming
from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.plan import PLOTS, Plan, PlanLine
from d2c_mlops.convert.source.source_edits import TextChange, node_text_change
from d2c_mlops.convert.write.file_parameters import FileReads
from d2c_mlops.convert.write.parameter_list import CodeParameter, CodeParameters

FLOATS = frozenset(
    "C alpha beta gamma eta learning_rate l1_ratio test_size train_size min_support min_threshold threshold contamination eps "  # noqa: SIM905
    "subsample colsample_bytree reg_alpha reg_lambda interval_width changepoint_prior_scale bandwidth quantile var_smoothing "
    "discount_rate penalizer_coef smoothing_level smoothing_slope smoothing_trend smoothing_seasonal validation_split".split()
)
WORDS = FLOATS | frozenset(
    "random_state seed n_estimators n_clusters max_depth n_neighbors n_components min_samples_split min_samples_leaf n_iter "  # noqa: SIM905
    "max_iter max_features max_leaf_nodes num_leaves epochs batch_size n_splits cv periods steps horizon order seasonal_order "
    "seasonal_periods n_init min_samples min_child_weight k_neighbors degree tol n_bins lags nlags".split()
)
_DATE = re.compile(r"^\d{4}[-/]\d{1,2}[-/]\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2})?)?$")


def extract_parameters(plan: Plan, blocks: list[Block], data: Path | None, default_folder: str) -> CodeParameters:
    """Take literals out of the steps; constants that a cell sets once move to the parameters cell as they are."""
    parameters = CodeParameters()
    reads = FileReads(plan, data)
    used_names = plan.names | {block.name for block in blocks}
    _move_constants(plan, blocks, parameters)
    names_by_literal: dict[tuple[str, str], str] = {}
    for block in blocks:
        if block.kind not in ("step", "plain"):
            continue
        for line in block.lines:
            for name, change in _literal_parameters(line, plan, names_by_literal, used_names, parameters):
                parameters.changes.setdefault(line.statement.place, []).append(change)
                if name not in block.parameters:
                    block.parameters.append(name)
    reads.put(blocks, parameters, used_names, default_folder)
    if parameters.folder:
        parameters.every.insert(
            0, CodeParameter(parameters.folder, "str", repr(default_folder), "folder of the input files")
        )
    return parameters


def _move_constants(plan: Plan, blocks: list[Block], parameters: CodeParameters) -> None:
    """Move `name = literal` to the parameters if the name has no other value."""
    counts: dict[str, int] = {}
    for line in plan.lines:
        for name in line.facts.binds:
            counts[name] = counts.get(name, 0) + 1
    deleted = {name for line in plan.lines for name in line.facts.deletes} | _column_name_texts(plan)
    for block in blocks:
        if block.kind not in ("step", "plain"):
            continue
        for line in list(block.lines):
            node = line.statement.node
            if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
                continue
            name, value = node.targets[0].id, node.value
            early = any(
                name in plan_line.facts.loads
                for plan_line in plan.lines
                if plan_line.statement.place < line.statement.place
            )
            if counts[name] > 1 or early or name in deleted or name.startswith("_") or name in plan.imports.contested:
                continue
            literal = _scalar_literal(value)
            if literal is None or line.kind not in ("work", "plain") or line.facts.opaque:
                continue
            note = line.statement.comment[:90] or _trailing_comment(line)
            parameters.every.append(CodeParameter(name, type(literal).__name__, repr(literal), note))
            block.lines.remove(line)
            block.outputs = [output for output in block.outputs if output != name]
            used = any(name in plan_line.facts.loads for plan_line in block.lines)
            if block.kind == "step" and used and name not in block.inputs:
                block.inputs.append(name)
    blocks[:] = [cell for cell in blocks if cell.lines or cell.kind in ("prose", "raw")]


def _column_name_texts(plan: Plan) -> set[str]:
    """Names of texts that are column names: they do not become parameters."""
    key_names: set[str] = set()
    for line in plan.lines:
        for node in ast.walk(line.statement.node):
            inside = [node.slice] if isinstance(node, ast.Subscript) else []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in ("drop", "groupby", "pop", "set_index", "sort_values"):
                    inside = [*node.args[:1], *(word.value for word in node.keywords)]
            for part in inside:
                parts = part.elts if isinstance(part, ast.List | ast.Tuple) else [part]
                key_names |= {part.id for part in parts if isinstance(part, ast.Name)}
    texts = {name for line in plan.lines for name in line.facts.binds if _is_text(line.statement.node)}
    return key_names & texts


def _is_text(node: ast.stmt) -> bool:
    value = getattr(node, "value", None)
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _trailing_comment(line: PlanLine) -> str:
    last = line.statement.source.rstrip().split("\n")[-1]
    return last.rpartition("#")[2].strip()[:90] if "#" in last and "'" not in last and '"' not in last else ""


def _scalar_literal(node: ast.expr) -> int | float | str | bool | None:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    if isinstance(value, str) and (len(value) > 120 or "\n" in value):
        return None
    if isinstance(value, float) and value != value:
        return None
    return value if isinstance(value, int | float | str | bool) else None


def _literal_parameters(
    line: PlanLine,
    plan: Plan,
    names_by_literal: dict[tuple[str, str], str],
    used_names: set[str],
    parameters: CodeParameters,
) -> Sequence[tuple[str, TextChange]]:
    changes = []
    for call in (node for node in ast.walk(line.statement.node) if isinstance(node, ast.Call)):
        path = plan.inference.path(call.func)
        if path.startswith((*PLOTS, "statsmodels.graphics.")) or (line.kind == "plain" and not _builds_estimator(path)):
            continue
        if line.kind == "show":
            continue
        for word in call.keywords:
            if word.arg not in WORDS or not isinstance(word.value, ast.Constant | ast.Tuple | ast.UnaryOp):
                continue
            if (literal := _number_literal(word.value)) is None:
                continue
            text = repr(literal)
            kind = "float" if word.arg in FLOATS and isinstance(literal, int | float) else _type_annotation(literal)
            owner = naming.estimator_name(path) if path else ""
            name = _parameter_name(word.arg, text, owner, names_by_literal, used_names)
            parameters.add(CodeParameter(name, kind, text, _argument_owner(call, path), _name_word(word.arg)))
            changes.append((name, node_text_change(word.value, name)))
        for part, name in _date_literals(call, path):
            text = repr(part.value)
            text_name = _parameter_name(name, text, "", names_by_literal, used_names)
            if parameters.find(text_name) is None:
                parameters.every.append(CodeParameter(text_name, "str", text))
            changes.append((text_name, node_text_change(part, text_name)))
    return changes


def _builds_estimator(path: str) -> bool:
    return path.startswith(("sklearn.", "xgboost.", "lightgbm.", "statsmodels.", "imblearn."))


def _argument_owner(call: ast.Call, path: str) -> str:
    """The estimator or the function that takes a parameter."""
    return path.rpartition(".")[2] or (call.func.attr if isinstance(call.func, ast.Attribute) else "")


def _number_literal(node: ast.expr) -> int | float | tuple[int, ...] | None:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        return None
    if isinstance(value, tuple):
        return value if value and all(type(element) is int for element in value) else None
    return value if type(value) in (int, float) and value == value else None


def _type_annotation(value: object) -> str:
    return "tuple[int, ...]" if isinstance(value, tuple) else type(value).__name__


def _date_literals(call: ast.Call, path: str) -> list[tuple[ast.Constant, str]]:
    names = ("pandas.Timestamp", "pandas.to_datetime", "pandas.date_range", "numpy.datetime64")
    if path not in names:
        return []
    arguments = [(argument, "date") for argument in call.args] + [
        (word.value, word.arg or "date") for word in call.keywords
    ]
    dates = []
    for node, word in arguments:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _DATE.match(node.value):
            dates.append((node, {"start": "start_date", "end": "end_date"}.get(word, "cutoff_date")))
    return dates


def _name_word(word: str) -> str:
    return naming.snake_case(word) if len(word) > 1 else word


def _parameter_name(
    word: str, text: str, owner: str, names_by_literal: dict[tuple[str, str], str], used_names: set[str]
) -> str:
    if (word, text) in names_by_literal:
        return names_by_literal[(word, text)]
    base = _name_word(word)
    for name in (base, f"{owner}_{base}" if owner else "", *(f"{owner}_{base}_{n}".strip("_") for n in range(2, 99))):
        if name and name not in used_names:
            used_names.add(name)
            names_by_literal[(word, text)] = name
            return name
    return base
