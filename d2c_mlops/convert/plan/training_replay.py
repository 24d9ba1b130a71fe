"""Rewrite the preparation of the training data so that it replays recorded values on new records."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.plan import Plan, PlanLine
from d2c_mlops.convert.plan.recorded_functions import plan_function_replay, replay_function_sources
from d2c_mlops.convert.plan.recorded_transforms import AuthorFunctions, RecordedTransforms
from d2c_mlops.convert.plan.slicing import NeededColumns, column_assignment, take_if_needed

Words = Callable[[Block], str]  # how a step is called, as source


@dataclass
class ReplayPlan:
    """Source of the statements between a frame and the features, and the names that they take from the training."""

    start: str  # the frame that a record stands for
    lines: list[str] = field(default_factory=list)
    features: str = ""
    given: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)  # source of the author's functions with what they learned


@dataclass(frozen=True)
class ReplayOptions:
    """How a preparation is replayed."""

    words: Words | None = None  # how a step is called that does the same with a record; None: all is written anew
    every: bool = False  # whether choices of rows are left out, because a record is answered whatever it is
    inner: bool = False  # whether what learns inside the author's functions is learned once


def plan_replay(
    plan: Plan,
    blocks: Sequence[Block],
    start: str,
    features: ast.expr,
    visible_names: frozenset[str],
    manner: ReplayOptions,
) -> ReplayPlan | None:
    """Return the code from `start` to `features`, with the steps between them; None if it cannot be determined."""
    lines = [line for block in blocks for line in block.lines]
    needed = NeededColumns(plan.inference, visible_names, every=manner.every)
    needed.read(features)
    chosen = _needed_lines(lines, replace(needed, columns=dict(needed.columns)))
    if chosen is None:
        return None
    fitted = _transformers_fitted_once(plan, chosen)
    functions = plan_function_replay(plan, manner.inner)
    called = [
        block for block in blocks if manner.words and _can_replay_step(block, plan, fitted, manner.every, functions)
    ]
    chosen = _needed_lines(lines, replace(needed, seen=visible_names | fitted), called) or []
    undone = frozenset(
        column
        for line in lines
        if line not in chosen and (stored := column_assignment(line.statement.node, plan.inference)) is not None
        for column in stored.columns
    )
    builder, known_names = _ReplayBuilder(start, visible_names), {start, *functions.served.values()}
    for block in blocks:
        needed_lines = [line for line in block.lines if line in chosen]
        if manner.words and block in called and needed_lines:
            builder.add_statements(ast.parse(manner.words(block)).body, known_names | {block.called})
            known_names |= set(block.outputs)
            continue
        for line in needed_lines:
            key = f"{line.statement.cell + 1}_{line.statement.order + 1}"
            gone = undone if manner.every else frozenset[str]()
            turned = RecordedTransforms(plan.inference, fitted, key, manner.every, gone, functions)
            statement = turned.statement(line)
            if statement is not None:
                builder.add_statements(statement, known_names, block)
                known_names |= {name for name in line.facts.binds if name not in fitted}
    turned = RecordedTransforms(plan.inference, fitted, "features", manner.every, functions=functions)
    features_copy = turned.copied(ast.Expr(features))
    assert isinstance(features_copy, ast.Expr)
    replay = builder.build(turned.visit(features_copy.value), known_names)
    if functions.served:
        replay.functions = replay_function_sources("\n".join([*replay.lines, replay.features]), plan, functions)
    return replay


def _needed_lines(
    lines: Sequence[PlanLine], needed: NeededColumns, called_steps: Sequence[Block] = ()
) -> list[PlanLine] | None:
    """The lines that create the needed names; all lines of a step that is called."""
    whole = {id(line): block for block in called_steps for line in block.lines}
    chosen: list[PlanLine] = []
    for line in reversed(lines):
        block = whole.get(id(line))
        if block is not None:
            if line is block.lines[-1] and take_if_needed(block, needed):
                chosen = [*block.lines, *chosen]
        elif needed.touches(line.statement, line.facts):
            if line.facts.opaque or line.kind == "definition":
                return None
            chosen.insert(0, line)
            needed.step_back_over(line.statement, line.facts)
    return chosen


def _can_replay_step(
    block: Block, plan: Plan, fitted: set[str], keep_all_rows: bool, functions: AuthorFunctions
) -> bool:
    """Whether a step treats a record like the training data."""
    prepares = block.kind == "step" and block.role == "prepare"
    return prepares and all(_can_replay_line(line, plan, fitted, keep_all_rows, functions) for line in block.lines)


def _can_replay_line(
    line: PlanLine, plan: Plan, fitted: set[str], keep_all_rows: bool, functions: AuthorFunctions
) -> bool:
    node = line.statement.node
    if line.facts.opaque or any(
        isinstance(part, ast.Attribute) and part.attr.startswith(("fit", "predict", "score")) for part in ast.walk(node)
    ):
        return False
    plain = AuthorFunctions({}, functions.served, functions.inner)
    turned = RecordedTransforms(plan.inference, fitted, "", keep_all_rows, functions=plain).statement(line)
    return turned is not None and [ast.dump(node_part) for node_part in turned] == [ast.dump(node)]


class _ReplayBuilder:
    """Collects the statements of a replay, each with the step that it repeats."""

    def __init__(self, start: str, visible_names: frozenset[str]) -> None:
        self.replay, self.seen = ReplayPlan(start), visible_names
        self.lines: list[tuple[str, Block | None]] = []

    def add_statements(self, statements: Sequence[ast.stmt], known_names: set[str], block: Block | None = None) -> None:
        """Add statements; names that they read and that no earlier statement binds come from the training."""
        turn = _Given(known_names, self.seen)
        turn.before(statements)
        for statement in statements:
            self.lines.append((ast.unparse(ast.fix_missing_locations(turn.visit(statement))), block))
        self.replay.given += [name for name in turn.given if name not in self.replay.given]

    def build(self, features: ast.AST, known_names: set[str]) -> ReplayPlan:
        """Return the replay without unused statements and second names, with a comment on repeated code."""
        turn, replay = _Given(known_names, self.seen), self.replay
        text = ast.unparse(ast.fix_missing_locations(turn.visit(features)))
        lines = _remove_unused([line for line in self.lines if line[0]], text)
        lines, replay.features = _remove_second_names(lines, text)
        lines = _name_unused_outputs(lines, replay.features)
        text = "\n".join([*(line for line, _ in lines), replay.features])
        replay.given = [name for name in dict.fromkeys([*replay.given, *turn.given]) if f"learned['{name}']" in text]
        explained: Block | None = None
        for line, block in lines:
            why = (
                _repeat_reason(block, lines)
                if block is not None and block is not explained and block.kind == "step"
                else ""
            )
            replay.lines.append(f"# {why}\n{line}" if why else line)
            explained = block
        return replay


_WHY = (
    ("learned.encode(", "with the fitted values"),
    (".transform(", "with the fitted values"),
    ("learned.codes(", "with the categories of the training data"),
    ("learned.dummies(", "with the categories of the training data"),
    ("learned.cut(", "with the edges of the training data"),
    ("learned.keep(", "with the statistics of the training data"),
    ("learned.rows(", "but for all records"),
)


def _repeat_reason(block: Block, lines: Sequence[tuple[str, Block | None]]) -> str:
    """Return the reason why the code of a step is repeated instead of called."""
    text = "\n".join(line for line, plan_line in lines if plan_line is block)
    whys = dict.fromkeys(why for sign, why in _WHY if sign in text)
    return f"Same as {block.name}, {' and '.join(whys)}" if whys else f"The part of {block.name} that a record needs"


def _remove_unused(lines: Sequence[tuple[str, Block | None]], features: str) -> list[tuple[str, Block | None]]:
    """Remove assignments that are unused and learn nothing."""
    used = {node.id for node in ast.walk(ast.parse(features)) if isinstance(node, ast.Name)}
    living: list[tuple[str, Block | None]] = []
    for text, block in reversed(lines):
        node = ast.parse(text).body[0]
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id not in used and "learned." not in text:
            continue
        living.insert(0, (text, block))
        used |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
    return living


def _remove_second_names(
    lines: Sequence[tuple[str, Block | None]], features: str
) -> tuple[list[tuple[str, Block | None]], str]:
    """If `b = a` is the last use of `a`, use `a` instead of `b`."""
    shortened = list(lines)
    place = 0
    while place < len(shortened):
        node = ast.parse(shortened[place][0]).body[0]
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        later = ast.parse("\n".join([*(text for text, _ in shortened[place + 1 :]), features]))
        words = {getattr(part, "id", getattr(part, "arg", "")) for part in ast.walk(later)}
        if (
            isinstance(node, ast.Assign)
            and isinstance(target, ast.Name)
            and isinstance(node.value, ast.Name)
            and node.value.id not in words
            and not any(isinstance(child, ast.arg) and child.arg == target.id for child in ast.walk(later))
        ):
            for descendant in ast.walk(later):
                if isinstance(descendant, ast.Name) and descendant.id == target.id:
                    descendant.id = node.value.id
            texts = [ast.unparse(statement) for statement in later.body]
            shortened[place:] = [
                (text, block) for text, (_, block) in zip(texts[:-1], shortened[place + 1 :], strict=True)
            ]
            features = texts[-1]
        else:
            place += 1
    return shortened, features


def _transformers_fitted_once(plan: Plan, lines: Iterable[PlanLine]) -> set[str]:
    """Transformers that are fitted at one place among the lines, outside of loops: their last state is the right one."""
    places: dict[str, list[tuple[int, int]]] = {}
    looped: set[str] = set()
    for fit in plan.fits:
        if fit.kind == "transformer" and fit.name:
            places.setdefault(fit.name, []).append((fit.cell, fit.line))
    for line in lines:
        if isinstance(line.statement.node, ast.For | ast.While | ast.If | ast.With | ast.Try):
            for node in ast.walk(line.statement.node):
                if isinstance(node, ast.Attribute) and node.attr.startswith("fit") and isinstance(node.value, ast.Name):
                    looped.add(node.value.id)
        node = line.statement.node
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name):
            function = node.value.func
            if isinstance(function, ast.Attribute) and function.attr == "fit" and isinstance(function.value, ast.Call):
                if ".preprocessing." in plan.inference.path(function.value.func):
                    places.setdefault(node.targets[0].id, [(line.statement.cell, node.lineno)])
    inside = list(lines)
    names = set()
    for name, where in places.items():
        sites = [
            w for w in where if any(line.statement.cell == w[0] and _spans_functions(line, w[1]) for line in inside)
        ]
        if len(sites) <= 1 and name not in looped:
            names.add(name)
    return names


def _spans_functions(line: PlanLine, at: int) -> bool:
    node = line.statement.node
    return node.lineno <= at <= (node.end_lineno or node.lineno)


def _name_unused_outputs(lines: Sequence[tuple[str, Block | None]], features: str) -> list[tuple[str, Block | None]]:
    """Name unused outputs of a step `_`."""
    used = {node.id for node in ast.walk(ast.parse(features)) if isinstance(node, ast.Name)}
    unpacked: list[tuple[str, Block | None]] = []
    for text, block in reversed(lines):
        node = ast.parse(text).body[0]
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        loaded = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
        if block is None and isinstance(target, ast.Tuple):
            target.elts[:] = [
                ast.Name("_", ast.Store()) if isinstance(element, ast.Name) and element.id not in used else element
                for element in target.elts
            ]
            text = ast.unparse(node)
        used |= loaded
        unpacked.insert(0, (text, block))
    return unpacked


class _Given(ast.NodeTransformer):
    """Names that neither the record nor the module defines come from the training."""

    def __init__(self, known_names: set[str], visible_names: frozenset[str]) -> None:
        self.known, self.seen = set(known_names), visible_names
        self.given: list[str] = []

    def before(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            for node in ast.walk(statement):
                if isinstance(node, ast.comprehension | ast.For):
                    self.known |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
                elif isinstance(node, ast.arg):
                    self.known.add(node.arg)
                elif isinstance(node, ast.If | ast.For | ast.While | ast.With):
                    inner = [n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
                    self.known |= {n.id for n in inner}

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if not isinstance(node.ctx, ast.Load) or node.id in self.known or node.id in self.seen or node.id == "learned":
            return node
        if node.id not in self.given:
            self.given.append(node.id)
        return ast.Subscript(ast.Name("learned", ast.Load()), ast.Constant(node.id), ast.Load())
