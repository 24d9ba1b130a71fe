"""Group the lines of a plan into blocks: prose, functions, steps, plain cells."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from d2c_mlops.convert.plan import naming
from d2c_mlops.convert.plan.block import Block, in_order
from d2c_mlops.convert.plan.block_splitting import merged, raw_blocks
from d2c_mlops.convert.plan.plan import Plan, PlanLine, visible

ASIDE = 5  # lines at most of a preparation that is left plain because it is only looked at


def blocks(plan: Plan) -> list[Block]:
    """Return the pieces of a plan in document order, each step with its name and what goes in and out."""
    found = [part for each in merged(list(raw_blocks(plan)), plan) for part in _with_lists_before(each)]
    if plan.structure.models:
        _leave_asides(found)
    done: list[Block] = []
    handed: set[str] = set()  # names that have a value in the new notebook
    for each in found:
        for part in _checked(each, plan, handed):
            _supply(part, done)
            done.append(part)
            bound = {name for line in part.lines for name in line.facts.binds}
            handed |= set(part.outputs) if part.kind == "step" else bound
    done = _joined_plain(done)
    _name_steps(done, plan)
    return done


def _with_lists_before(block: Block) -> Iterator[Block]:
    """Put lists that a step writes down and later ones read before it, so that they go into the function."""
    moved: list[PlanLine] = []
    known: set[str] = set()
    for line in block.lines if block.kind == "step" else ():
        own = set(line.facts.binds)
        value = getattr(line.statement.node, "value", None)
        later = own & (block.lines[-1].live | line.before) and isinstance(line.statement.node, ast.Assign)
        again = [plan_line for plan_line in block.lines if own & {*plan_line.facts.binds, *plan_line.facts.mutates}]
        if line.role == "constant" and isinstance(value, _LISTS) and later and len(again) == 1 and not own & known:
            moved.append(line)
        known |= line.facts.loads | own
    if not moved or len(moved) == len(block.lines):
        yield block
        return
    for line in moved:
        line.kind = "plain"
        yield Block("plain", [line.statement.cell], [line], heading=block.heading, chapter=block.chapter)
    block.lines = [line for line in block.lines if line not in moved]
    names = frozenset(name for line in moved for name in line.facts.binds)
    for line in block.lines:
        line.before |= names
    yield block


_LISTS = ast.List | ast.Tuple | ast.Dict | ast.Set


def _checked(block: Block, plan: Plan, handed: set[str]) -> Iterator[Block]:
    """Compute inputs and outputs; code that is uncertain stays a plain cell."""
    if block.kind == "step" and all(line.role == "constant" for line in block.lines):
        block.kind = "plain"
    if block.kind != "step":
        yield block
        return
    seen = visible(plan)
    known: set[str] = set()
    inputs: dict[str, None] = {}
    bound: dict[str, None] = {}
    last_bound: dict[str, int] = {}
    passing: set[str] = set()
    before = block.lines[0].before
    for number, line in enumerate(block.lines):
        for name in [*line.facts.reads, *line.facts.mutates]:
            if name not in known and name in before and name not in seen:
                inputs.setdefault(name)
        for name in line.facts.binds:
            bound.setdefault(name)
            last_bound[name] = number
        passing |= line.facts.passing
        known |= line.facts.definite
    live = block.lines[-1].live
    reads_after = {
        name for name, at in last_bound.items() for line in block.lines[at + 1 :] if name in line.facts.loads
    } | {name for name, at in last_bound.items() if name not in block.lines[at].facts.definite}
    changed = {name for line in block.lines for name in line.facts.mutates if name in before and name not in bound}
    # A name that has a value already would keep the old one, were the new one not handed out.
    has_value = live | (before & handed)
    outputs = [n for n in bound if n in has_value or (n not in passing and n not in reads_after and n != "_")]
    own = [fit for fit in plan.fits if fit.cell in block.cells and not fit.path.startswith("statsmodels.")]
    fitted = {fit.name for fit in own}
    outputs += [n for n in bound if n in fitted and n not in outputs and n not in passing]
    outputs += [n for n in sorted(changed & live) if n not in outputs and n not in seen]
    if not outputs:
        outputs = [n for n in sorted(changed) if n not in seen]
    unsure = [n for n in outputs if n in bound and n not in known]
    for name in unsure:
        if name in before:
            inputs.setdefault(name)
    lost = [n for n in unsure if n not in before]
    if lost and any(n in live for n in lost):
        yield from _plain(block, f"it may leave {', '.join(lost)} without a value")
        return
    outputs = [n for n in outputs if n not in lost]
    if not outputs:
        yield from _plain(block, "its results are not used later")
        return
    contested = plan.imports.contested & set(inputs)
    block.imports = [text for name in sorted(contested) if (text := _import_of(plan, name, block))]
    block.inputs = _ordered([n for n in inputs if not any(_binds(text, n) for text in block.imports)], block)
    block.outputs = in_order(block, outputs)
    yield block


def _supply(block: Block, done: Sequence[Block]) -> None:
    """Leave a step plain that wants a name which the step that binds it does not hand out: it may be without a value."""
    for name in block.inputs if block.kind == "step" else ():
        binders = [block for block in done if any(name in line.facts.binds for line in block.lines)]
        if binders and binders[-1].kind == "step" and name not in binders[-1].outputs:
            block.inputs, block.outputs, block.imports = [], [], []
            list(_plain(block, f"{name} may be without a value before it"))
            return


def _leave_asides(found: Sequence[Block]) -> None:
    """Leave short preparations plain that lead to nothing but what is shown: they are read, not run in production."""
    for place in reversed(range(len(found))):
        block = found[place]
        if block.kind != "step" or block.role != "prepare" or block.size > ASIDE:
            continue
        names = {name for line in block.lines for name in (*line.facts.binds, *line.facts.mutates)}
        readers = [reader for name in names for reader in _readers(name, found[place + 1 :])]
        if readers and all(_looks(*reader) for reader in readers):
            block.kind, block.reasons = "plain", [*block.reasons, "only outputs use it"]
            for line in block.lines:
                line.kind = "show"


def _looks(block: Block, line: PlanLine) -> bool:
    """Whether a line that reads something only shows it: it asks no model, judges none, and stays for no other reason."""
    judges = line.role in ("fit", "predict", "evaluate", "split")
    return block.kind == "plain" and not judges and not any(plan_line.reason for plan_line in block.lines)


def _readers(name: str, later: Sequence[Block]) -> Iterator[tuple[Block, PlanLine]]:
    """The lines that read or change a name before it is bound anew."""
    for block in later:
        for line in block.lines:
            if name in line.facts.loads or name in line.facts.mutates:
                yield block, line
            if name in line.facts.definite:
                return


def _plain(block: Block, reason: str) -> Iterator[Block]:
    block.kind, block.reasons = "plain", [*block.reasons, reason]
    for line in block.lines:
        line.kind = "plain"
    yield block


def _ordered(names: Sequence[str], block: Block) -> list[str]:
    """Order names by where the code first mentions them."""
    text = "\n".join(line.statement.source for line in block.lines)

    def place(name: str) -> tuple[int, str]:
        found = re.search(rf"\b{re.escape(name)}\b", text)
        return (found.start() if found else len(text), name)

    return sorted(names, key=place)


def _binds(text: str, name: str) -> bool:
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.Import | ast.ImportFrom)
    return any((alias.asname or alias.name.split(".")[0]) == name for alias in node.names)


def _import_of(plan: Plan, name: str, block: Block) -> str:
    """The import that a contested name stands for where the piece begins, unless it stands for something else."""
    found = ""
    for line in plan.lines:
        if line.statement.place >= block.lines[0].statement.place:
            break
        if name in line.facts.binds:
            node = line.statement.node
            found = ""
            if isinstance(node, ast.Import | ast.ImportFrom):
                alias = next((a for a in node.names if (a.asname or a.name.split(".")[0]) == name), None)
                part = [alias] if alias else [ast.alias(name)]
                made = (
                    ast.Import(part) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, part, node.level)
                )
                found = ast.unparse(made)
    return found


def _joined_plain(found: list[Block]) -> list[Block]:
    """Plain pieces of one cell that follow each other become one cell again."""
    done: list[Block] = []
    for block in found:
        if done and block.kind == "plain" == done[-1].kind and block.cells == done[-1].cells:
            done[-1].lines += block.lines
            done[-1].reasons += block.reasons
        else:
            done.append(block)
    return done


def _name_steps(found: Sequence[Block], plan: Plan) -> None:
    taken = plan.names | {"find_data", "in_data", "Learned", "train", "prepare_records"}
    project = naming.topic([plan.notebook.path.stem]) or "data"
    for block in found:
        if block.kind == "step":
            group = [line.statement for line in block.lines]
            name = naming.step_name(group, block.role, block.outputs, block.heading, plan.inference, project)
            hints = [*(naming.topic([output]) for output in block.outputs), naming.command(block.heading)]
            hints.append(naming.apart(block.chapter))
            if block.role == "fit" and any(name in line.facts.mutates for name in block.inputs for line in block.lines):
                hints.insert(0, "again")
            block.base = name
            block.quiet = naming.step_name(group, block.role, block.outputs, "", plan.inference, project, quiet=True)
            block.name = naming.unique(name, taken, [hint for hint in hints if hint])
            taken.add(block.name)
