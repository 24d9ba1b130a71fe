"""Split the lines of a plan into blocks by section, role and length."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.plan import Plan, PlanLine, draws_plot
from d2c_mlops.convert.plan.row_dependence import learning_sites
from d2c_mlops.convert.source.imports import is_import

LONGEST = 25  # lines of a step that was not written as one
_RANDOM = frozenset(
    [
        "sample",
        "shuffle",
        "permutation",
        "rand",
        "randn",
        "randint",
        "normal",
        "uniform",
        "choice",
        "random",
        "poisson",
        "binomial",
    ]
)
_TABLES = ("pandas.read_", "pandas.concat", "pandas.merge", "pandas.pivot", "pandas.crosstab")
_TABLE_METHODS = frozenset({"groupby", "pivot_table", "pivot", "merge", "join", "resample", "unstack"})
_JOINS = {("prepare", "split"), ("prepare", "fit"), ("prepare", "predict"), ("constant", "fit"), ("constant", "split")}


def raw_blocks(plan: Plan) -> Iterator[Block]:
    """Yield the pieces of every cell in document order."""
    heading = chapter = last = ""
    headed = any(cell.kind == "markdown" and "#" in cell.source for cell in plan.notebook.cells)
    level = "###" if headed else "##"
    for cell in plan.notebook.cells:
        if cell.kind == "markdown":
            if cell.source.strip():
                heading = _section_heading(cell.source) or heading
                chapter, last = (last or chapter), (heading if "#" in cell.source else "")
                yield Block("prose", [cell.index], text=cell.source)
            continue
        if cell.kind == "raw":
            yield Block("raw", [cell.index], text=cell.source)
            continue
        if any(magic.kind == "cell" and cell.tree is not None and not cell.python.strip() for magic in cell.magics):
            yield Block("raw", [cell.index], text=cell.source)
            continue
        for titles, lines in _split_at_titles(plan.of_cell(cell.index)):
            for title in titles:
                yield Block("prose", [cell.index], text=f"{level} {title}")
            heading = titles[-1] if titles else heading
            for block in _section_blocks(plan, cell.index, lines):
                block.heading, block.chapter = heading, chapter
                yield block
        heading = "" if plan.of_cell(cell.index) else heading
        last = ""


def _split_at_titles(lines: Sequence[PlanLine]) -> Iterator[tuple[tuple[str, ...], list[PlanLine]]]:
    """Split a cell at comments that are titles."""
    part: list[PlanLine] = []
    for line in lines:
        if line.titles and part:
            yield part[0].titles, part
            part = []
        part.append(line)
    if part:
        yield part[0].titles, part


def _section_heading(markdown: str) -> str:
    lines = [line.strip() for line in markdown.splitlines() if line.strip()]
    titles = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return (titles or lines or [""])[-1 if titles else 0]


def _section_blocks(plan: Plan, cell: int, lines: Sequence[PlanLine]) -> Iterator[Block]:
    for line in lines:
        if line.kind == "definition":
            yield Block("definition", [cell], [line], name=line.statement.node.name)  # type: ignore[attr-defined]
    ordered = _move_computation_up([line for line in lines if line.kind != "definition"], plan)
    group: list[PlanLine] = []
    for line in ordered:
        if group and (_begins_new_block(group, line) or _begins_learning(group, [line], plan)):
            yield _make_block(group, cell)
            group = []
        group.append(line)
    if group:
        yield _make_block(group, cell)


def _make_block(group: Sequence[PlanLine], cell: int) -> Block:
    kind = "step" if group[0].kind == "work" else "plain"
    reasons = [line.reason for line in group if line.reason]
    return Block(kind, [cell], list(group), role=_line_role(group), reasons=reasons)


def _line_role(group: Iterable[PlanLine]) -> str:
    plays = {line.role for line in group}
    return next((r for r in ("fit", "split", "predict", "evaluate", "load", "save") if r in plays), "prepare")


def _move_computation_up(lines: Sequence[PlanLine], plan: Plan) -> list[PlanLine]:
    """Move computation before lines that only show results if they are independent; a figure is never split."""
    ordered: list[PlanLine] = []
    for line in lines:
        place = len(ordered)
        while line.kind == "work" and place and ordered[place - 1].kind == "show":
            place -= 1
        between = ordered[place:]
        if line.kind == "work" and between:
            if all(_can_move_before(line, shown) for shown in between):
                line.live = line.live.union(*(shown.facts.loads for shown in between))
                ordered.insert(place, line)
                continue
            if any(draws_plot(shown.statement, plan.inference) for shown in between) and not _ends_figure(
                between[-1], plan
            ):
                line.kind = "plain"
                line.reason = "it stands between statements that draw the same figure"
        ordered.append(line)
    return ordered


def _ends_figure(line: PlanLine, plan: Plan) -> bool:
    """Whether a line shows a figure, so that the next line begins a new one."""
    value = getattr(line.statement.node, "value", None)
    return isinstance(value, ast.Call) and plan.inference.path(value.func) == "matplotlib.pyplot.show"


def _can_move_before(work: PlanLine, shown: PlanLine) -> bool:
    changed = {*work.facts.binds, *work.facts.mutates}
    touched = shown.facts.loads | {*shown.facts.binds, *shown.facts.mutates}
    bound = {*shown.facts.binds, *shown.facts.mutates} & (work.facts.loads | set(work.facts.binds))
    chance = _uses_random_numbers(work) and _uses_random_numbers(shown)
    files = work.role == "load" and _writes_file(shown)
    return not (changed & touched) and not bound and not chance and not files and not is_import(shown.statement.node)


def _writes_file(line: PlanLine) -> bool:
    methods = {node.attr for node in ast.walk(line.statement.node) if isinstance(node, ast.Attribute)}
    return any(method.startswith("to_") or method in ("dump", "save", "savetxt", "write") for method in methods)


def _uses_random_numbers(line: PlanLine) -> bool:
    return any(
        getattr(node, "attr", getattr(node, "id", "")) in _RANDOM
        for node in ast.walk(line.statement.node)
        if isinstance(node, ast.Attribute | ast.Name)
    )


def _begins_new_block(group: Sequence[PlanLine], line: PlanLine) -> bool:
    last = group[-1]
    if (line.kind == "work") != (last.kind == "work"):
        return True
    if line.kind != "work":
        return False
    role, size = _line_role(group), sum(line.statement.lines for line in group)
    if size + line.statement.lines > LONGEST:
        return True
    if _has_title_comment(line) and size >= 3:
        return True
    if line.role == "constant":
        return role == "load"
    if line.role == role:
        return False
    if role == "load":
        return line.role != "load"
    if (role, line.role) in _JOINS:
        return size > 4 or (_has_title_comment(line) and line.role == "fit")
    if line.role == "prepare":
        together = (
            role == "fit" and not _has_title_comment(line) and any(_has_title_comment(plan_line) for plan_line in group)
        )
        return not together and (role in ("split", "fit") or size >= 8)
    return {role, line.role} != {"predict", "evaluate"}


def _begins_learning(group: Sequence[PlanLine], lines: Sequence[PlanLine], plan: Plan) -> bool:
    """Whether lines learn from a table that the group before them creates: its rows are the records of a model."""
    work = all(line.kind == "work" for line in (*group, *lines))
    if not work or not any(_creates_table(line, plan) for line in group):
        return False
    return not learning_sites(group, plan) and bool(learning_sites(lines, plan))


def _creates_table(line: PlanLine, plan: Plan) -> bool:
    for node in ast.walk(line.statement.node):
        if isinstance(node, ast.Call):
            path = plan.inference.path(node.func)
            if path == "pandas.DataFrame" or path.startswith(_TABLES):
                return True
            if isinstance(node.func, ast.Attribute) and node.func.attr in _TABLE_METHODS:
                return True
    return False


def _has_title_comment(line: PlanLine) -> bool:
    """Whether the author set a statement apart by a comment with an empty line above it."""
    return bool(line.statement.comment) and line.statement.source.startswith(("\n", "# -", "# =", "#-", "#=", "###"))


def join_blocks(blocks: list[Block], plan: Plan) -> list[Block]:
    """Join steps of neighbouring cells that do one thing, with nothing shown between them."""
    joined: list[Block] = []
    for block in blocks:
        last = joined[-1] if joined else None
        if last is not None and block.kind == last.kind == "step" and block.cells != last.cells:
            same = last.role == block.role == "prepare" and not block.lines[0].statement.comment
            built = block.role == "fit" and last.size <= 6 and _fits_estimator_of(last, block)
            apart = _begins_learning(last.lines, block.lines, plan)
            if (same or built or _prepares_prediction(last, block)) and last.size + block.size <= LONGEST and not apart:
                last.lines += block.lines
                last.cells += [cell for cell in block.cells if cell not in last.cells]
                last.role = block.role
                continue
        joined.append(block)
    return joined


def _prepares_prediction(last: Block, block: Block) -> bool:
    """Whether a few lines only prepare the rows that the next step predicts."""
    created = {name for line in last.lines for name in (*line.facts.binds, *line.facts.mutates)}
    used = {name for line in block.lines for name in line.facts.loads}
    roles = (last.role, block.role) == ("prepare", "predict")
    return roles and last.size <= 3 and created <= used and not created & block.lines[-1].live


def _fits_estimator_of(last: Block, block: Block) -> bool:
    """Whether a block fits an estimator that the block before it only builds."""
    fits = any(
        isinstance(node, ast.Attribute) and node.attr.startswith("fit")
        for line in last.lines
        for node in ast.walk(line.statement.node)
    )
    if fits or last.role not in ("prepare", "fit"):
        return False
    created = {name for line in last.lines for name in line.facts.binds}
    return len(created) == 1 and bool(created & {name for line in block.lines for name in line.facts.mutates})
