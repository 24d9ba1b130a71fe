"""Rewrite the preparation of the training data so that it replays recorded values on new records."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.plan import Plan, PlanLine
from d2c_mlops.convert.plan.recorded_functions import functions_of, served_sources
from d2c_mlops.convert.plan.recorded_transforms import Functions, Turned
from d2c_mlops.convert.plan.slicing import Wanted, stored_in, takes

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
class Manner:
    """How a preparation is replayed."""

    words: Words | None = None  # how a step is called that does the same with a record; None: all is written anew
    every: bool = False  # whether choices of rows are left out, because a record is answered whatever it is
    inner: bool = False  # whether what learns inside the author's functions is learned once


def replayed(
    plan: Plan, blocks: Sequence[Block], start: str, features: ast.expr, seen: frozenset[str], manner: Manner
) -> ReplayPlan | None:
    """Return how to get from `start` to `features` by the steps after it; None where that cannot be told."""
    lines = [line for block in blocks for line in block.lines]
    wanted = Wanted(plan.inference, seen, every=manner.every)
    wanted.read(features)
    chosen = _needed(lines, replace(wanted, columns=dict(wanted.columns)))
    if chosen is None:
        return None
    fitted = _fitted_once(plan, chosen)
    functions = functions_of(plan, manner.inner)
    called = [block for block in blocks if manner.words and _callable(block, plan, fitted, manner.every, functions)]
    chosen = _needed(lines, replace(wanted, seen=seen | fitted), called) or []
    undone = frozenset(
        column
        for line in lines
        if line not in chosen and (stored := stored_in(line.statement.node, plan.inference)) is not None
        for column in stored.columns
    )
    made, known = _Made(start, seen), {start, *functions.served.values()}
    for block in blocks:
        kept = [line for line in block.lines if line in chosen]
        if manner.words and block in called and kept:
            made.add(ast.parse(manner.words(block)).body, known | {block.called})
            known |= set(block.outputs)
            continue
        for line in kept:
            key = f"{line.statement.cell + 1}_{line.statement.order + 1}"
            gone = undone if manner.every else frozenset[str]()
            turned = Turned(plan.inference, fitted, key, manner.every, gone, functions)
            statement = turned.statement(line)
            if statement is not None:
                made.add(statement, known, block)
                known |= {name for name in line.facts.binds if name not in fitted}
    turned = Turned(plan.inference, fitted, "features", manner.every, functions=functions)
    asked = turned.copied(ast.Expr(features))
    assert isinstance(asked, ast.Expr)
    replay = made.done(turned.visit(asked.value), known)
    if functions.served:
        replay.functions = served_sources("\n".join([*replay.lines, replay.features]), plan, functions)
    return replay


def _needed(lines: Sequence[PlanLine], wanted: Wanted, called: Sequence[Block] = ()) -> list[PlanLine] | None:
    """The lines that make what is wanted; of a step that is called, all of them."""
    whole = {id(line): block for block in called for line in block.lines}
    chosen: list[PlanLine] = []
    for line in reversed(lines):
        block = whole.get(id(line))
        if block is not None:
            if line is block.lines[-1] and takes(block, wanted):
                chosen = [*block.lines, *chosen]
        elif wanted.touches(line.statement, line.facts):
            if line.facts.opaque or line.kind == "definition":
                return None
            chosen.insert(0, line)
            wanted.take(line.statement, line.facts)
    return chosen


def _callable(block: Block, plan: Plan, fitted: set[str], every: bool, functions: Functions) -> bool:
    """Whether a step does with a record what it does with the training data."""
    prepares = block.kind == "step" and block.role == "prepare"
    return prepares and all(_pure(line, plan, fitted, every, functions) for line in block.lines)


def _pure(line: PlanLine, plan: Plan, fitted: set[str], every: bool, functions: Functions) -> bool:
    node = line.statement.node
    if line.facts.opaque or any(
        isinstance(part, ast.Attribute) and part.attr.startswith(("fit", "predict", "score")) for part in ast.walk(node)
    ):
        return False
    plain = Functions({}, functions.served, functions.inner)
    turned = Turned(plan.inference, fitted, "", every, functions=plain).statement(line)
    return turned is not None and [ast.dump(each) for each in turned] == [ast.dump(node)]


class _Made:
    """Collects the statements of a replay, each with the step that it repeats."""

    def __init__(self, start: str, seen: frozenset[str]) -> None:
        self.replay, self.seen = ReplayPlan(start), seen
        self.lines: list[tuple[str, Block | None]] = []

    def add(self, statements: Sequence[ast.stmt], known: set[str], block: Block | None = None) -> None:
        """Add statements; what they read and nobody before them made is given by the training."""
        turn = _Given(known, self.seen)
        turn.before(statements)
        for statement in statements:
            self.lines.append((ast.unparse(ast.fix_missing_locations(turn.visit(statement))), block))
        self.replay.given += [name for name in turn.given if name not in self.replay.given]

    def done(self, features: ast.AST, known: set[str]) -> ReplayPlan:
        """Return the replay: no statement whose value nothing uses, no second name for one thing, a word on what is repeated."""
        turn, made = _Given(known, self.seen), self.replay
        text = ast.unparse(ast.fix_missing_locations(turn.visit(features)))
        lines = _living([line for line in self.lines if line[0]], text)
        lines, made.features = _named_once(lines, text)
        lines = _unpacked(lines, made.features)
        text = "\n".join([*(line for line, _ in lines), made.features])
        made.given = [name for name in dict.fromkeys([*made.given, *turn.given]) if f"learned['{name}']" in text]
        said: Block | None = None
        for line, block in lines:
            why = _why(block, lines) if block is not None and block is not said and block.kind == "step" else ""
            made.lines.append(f"# {why}\n{line}" if why else line)
            said = block
        return made


_WHY = (
    ("learned.encode(", "with the fitted values"),
    (".transform(", "with the fitted values"),
    ("learned.codes(", "with the categories of the training data"),
    ("learned.dummies(", "with the categories of the training data"),
    ("learned.cut(", "with the edges of the training data"),
    ("learned.keep(", "with the statistics of the training data"),
    ("learned.rows(", "but for all records"),
)


def _why(block: Block, lines: Sequence[tuple[str, Block | None]]) -> str:
    """Say why a step is repeated instead of called."""
    text = "\n".join(line for line, plan_line in lines if plan_line is block)
    whys = dict.fromkeys(why for sign, why in _WHY if sign in text)
    return f"Same as {block.name}, {' and '.join(whys)}" if whys else f"Of {block.name}, what a record needs"


def _living(lines: Sequence[tuple[str, Block | None]], features: str) -> list[tuple[str, Block | None]]:
    """Leave out assignments whose value nothing uses and which learn nothing."""
    used = {node.id for node in ast.walk(ast.parse(features)) if isinstance(node, ast.Name)}
    kept: list[tuple[str, Block | None]] = []
    for text, block in reversed(lines):
        node = ast.parse(text).body[0]
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id not in used and "learned." not in text:
            continue
        kept.insert(0, (text, block))
        used |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
    return kept


def _named_once(lines: Sequence[tuple[str, Block | None]], features: str) -> tuple[list[tuple[str, Block | None]], str]:
    """Where `b = a` is all that still happens to `a`, go on with `a`."""
    done = list(lines)
    place = 0
    while place < len(done):
        node = ast.parse(done[place][0]).body[0]
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        later = ast.parse("\n".join([*(text for text, _ in done[place + 1 :]), features]))
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
            done[place:] = [(text, block) for text, (_, block) in zip(texts[:-1], done[place + 1 :], strict=True)]
            features = texts[-1]
        else:
            place += 1
    return done, features


def _fitted_once(plan: Plan, lines: Iterable[PlanLine]) -> set[str]:
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
    found = set()
    for name, where in places.items():
        sites = [w for w in where if any(each.statement.cell == w[0] and _spans(each, w[1]) for each in inside)]
        if len(sites) <= 1 and name not in looped:
            found.add(name)
    return found


def _spans(line: PlanLine, at: int) -> bool:
    node = line.statement.node
    return node.lineno <= at <= (node.end_lineno or node.lineno)


def _unpacked(lines: Sequence[tuple[str, Block | None]], features: str) -> list[tuple[str, Block | None]]:
    """Call `_` what a step hands out and nothing uses."""
    used = {node.id for node in ast.walk(ast.parse(features)) if isinstance(node, ast.Name)}
    done: list[tuple[str, Block | None]] = []
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
        done.insert(0, (text, block))
    return done


class _Given(ast.NodeTransformer):
    """Names that neither the record nor the module gives come from the training."""

    def __init__(self, known: set[str], seen: frozenset[str]) -> None:
        self.known, self.seen = set(known), seen
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
