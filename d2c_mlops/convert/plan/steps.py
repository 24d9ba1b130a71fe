"""Group the lines of a plan into blocks: prose, functions, steps, plain cells."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from d2c_mlops.convert.plan import naming
from d2c_mlops.convert.plan.block import Block, in_binding_order
from d2c_mlops.convert.plan.block_splitting import join_blocks, raw_blocks
from d2c_mlops.convert.plan.plan import Plan, PlanLine, exported_names

ASIDE = 5  # lines at most of a preparation that is left plain because it is only looked at


def plan_blocks(plan: Plan) -> list[Block]:
    """Return the blocks of a plan in document order, each step with its name, inputs and outputs."""
    merged_blocks = [
        part for merged_block in join_blocks(list(raw_blocks(plan)), plan) for part in _move_lists_before(merged_block)
    ]
    if plan.structure.models:
        _demote_display_steps(merged_blocks)
    named_blocks: list[Block] = []
    handed: set[str] = set()  # names that have a value in the new notebook
    for merged_block in merged_blocks:
        for part in _set_inputs_and_outputs(merged_block, plan, handed):
            _inline_unsupplied(part, named_blocks)
            named_blocks.append(part)
            bound = {name for line in part.lines for name in line.facts.binds}
            handed |= set(part.outputs) if part.kind == "step" else bound
    named_blocks = _join_plain_blocks(named_blocks)
    _name_steps(named_blocks, plan)
    return named_blocks


def _move_lists_before(block: Block) -> Iterator[Block]:
    """Put lists that a step writes down and later ones read before it, so that they go into the function."""
    moved: list[PlanLine] = []
    read_before: set[str] = set()
    for line in block.lines if block.kind == "step" else ():
        assigned = set(line.facts.binds)
        value = getattr(line.statement.node, "value", None)
        later = assigned & (block.lines[-1].live | line.before) and isinstance(line.statement.node, ast.Assign)
        again = [
            plan_line for plan_line in block.lines if assigned & {*plan_line.facts.binds, *plan_line.facts.mutates}
        ]
        if (
            line.role == "constant"
            and isinstance(value, _LISTS)
            and later
            and len(again) == 1
            and not assigned & read_before
        ):
            moved.append(line)
        read_before |= line.facts.loads | assigned
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


def _set_inputs_and_outputs(block: Block, plan: Plan, handed: set[str]) -> Iterator[Block]:
    """Compute inputs and outputs; code that is uncertain stays a plain cell."""
    if block.kind == "step" and all(line.role == "constant" for line in block.lines):
        block.kind = "plain"
    if block.kind != "step":
        yield block
        return
    visible_names = exported_names(plan)
    bound_surely: set[str] = set()
    inputs: dict[str, None] = {}
    bound: dict[str, None] = {}
    last_bound: dict[str, int] = {}
    passing: set[str] = set()
    before = block.lines[0].before
    for number, line in enumerate(block.lines):
        for name in [*line.facts.reads, *line.facts.mutates]:
            if name not in bound_surely and name in before and name not in visible_names:
                inputs.setdefault(name)
        for name in line.facts.binds:
            bound.setdefault(name)
            last_bound[name] = number
        passing |= line.facts.passing
        bound_surely |= line.facts.definite
    live = block.lines[-1].live
    reads_after = {
        name for name, at in last_bound.items() for line in block.lines[at + 1 :] if name in line.facts.loads
    } | {name for name, at in last_bound.items() if name not in block.lines[at].facts.definite}
    changed = {name for line in block.lines for name in line.facts.mutates if name in before and name not in bound}
    # A name that has a value already would keep the old one, were the new one not handed out.
    has_value = live | (before & handed)
    outputs = [n for n in bound if n in has_value or (n not in passing and n not in reads_after and n != "_")]
    block_fits = [fit for fit in plan.fits if fit.cell in block.cells and not fit.path.startswith("statsmodels.")]
    fitted = {fit.name for fit in block_fits}
    outputs += [n for n in bound if n in fitted and n not in outputs and n not in passing]
    outputs += [n for n in sorted(changed & live) if n not in outputs and n not in visible_names]
    if not outputs:
        outputs = [n for n in sorted(changed) if n not in visible_names]
    unsure = [n for n in outputs if n in bound and n not in bound_surely]
    for name in unsure:
        if name in before:
            inputs.setdefault(name)
    lost = [n for n in unsure if n not in before]
    if lost and any(n in live for n in lost):
        yield from _as_plain_code(block, f"it may leave {', '.join(lost)} without a value")
        return
    outputs = [n for n in outputs if n not in lost]
    if not outputs:
        yield from _as_plain_code(block, "its results are not used later")
        return
    contested = plan.imports.contested & set(inputs)
    block.imports = [text for name in sorted(contested) if (text := _contested_import(plan, name, block))]
    block.inputs = _order_names([n for n in inputs if not any(_binds_name(text, n) for text in block.imports)], block)
    block.outputs = in_binding_order(block, outputs)
    yield block


def _inline_unsupplied(block: Block, earlier: Sequence[Block]) -> None:
    """Keep a step as plain code if it reads a name that no earlier step returns, because the name may have no value."""
    for name in block.inputs if block.kind == "step" else ():
        binders = [block for block in earlier if any(name in line.facts.binds for line in block.lines)]
        if binders and binders[-1].kind == "step" and name not in binders[-1].outputs:
            block.inputs, block.outputs, block.imports = [], [], []
            list(_as_plain_code(block, f"{name} may be without a value before it"))
            return


def _demote_display_steps(all_blocks: Sequence[Block]) -> None:
    """Keep short preparations as plain code if only shown results use them: production does not need them."""
    for first_mention in reversed(range(len(all_blocks))):
        block = all_blocks[first_mention]
        if block.kind != "step" or block.role != "prepare" or block.size > ASIDE:
            continue
        names = {name for line in block.lines for name in (*line.facts.binds, *line.facts.mutates)}
        readers = [reader for name in names for reader in _later_readers(name, all_blocks[first_mention + 1 :])]
        if readers and all(_only_displays(*reader) for reader in readers):
            block.kind, block.reasons = "plain", [*block.reasons, "only displayed outputs use it"]
            for line in block.lines:
                line.kind = "show"


def _only_displays(block: Block, line: PlanLine) -> bool:
    """Whether a line only shows what it reads: it uses no model, evaluates none, and has no other reason to be kept."""
    judges = line.role in ("fit", "predict", "evaluate", "split")
    return block.kind == "plain" and not judges and not any(plan_line.reason for plan_line in block.lines)


def _later_readers(name: str, later: Sequence[Block]) -> Iterator[tuple[Block, PlanLine]]:
    """The lines that read or change a name before it is bound anew."""
    for block in later:
        for line in block.lines:
            if name in line.facts.loads or name in line.facts.mutates:
                yield block, line
            if name in line.facts.definite:
                return


def _as_plain_code(block: Block, reason: str) -> Iterator[Block]:
    block.kind, block.reasons = "plain", [*block.reasons, reason]
    for line in block.lines:
        line.kind = "plain"
    yield block


def _order_names(names: Sequence[str], block: Block) -> list[str]:
    """Order names by where the code first mentions them."""
    text = "\n".join(line.statement.source for line in block.lines)

    def first_mention(name: str) -> tuple[int, str]:
        match = re.search(rf"\b{re.escape(name)}\b", text)
        return (match.start() if match else len(text), name)

    return sorted(names, key=first_mention)


def _binds_name(text: str, name: str) -> bool:
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.Import | ast.ImportFrom)
    return any((alias.asname or alias.name.split(".")[0]) == name for alias in node.names)


def _contested_import(plan: Plan, name: str, block: Block) -> str:
    """The import of a contested name at the beginning of the block, unless the name has another value there."""
    import_text = ""
    for line in plan.lines:
        if line.statement.place >= block.lines[0].statement.place:
            break
        if name in line.facts.binds:
            node = line.statement.node
            import_text = ""
            if isinstance(node, ast.Import | ast.ImportFrom):
                alias = next((a for a in node.names if (a.asname or a.name.split(".")[0]) == name), None)
                part = [alias] if alias else [ast.alias(name)]
                import_node = (
                    ast.Import(part) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, part, node.level)
                )
                import_text = ast.unparse(import_node)
    return import_text


def _join_plain_blocks(all_blocks: list[Block]) -> list[Block]:
    """Plain pieces of one cell that follow each other become one cell again."""
    joined: list[Block] = []
    for block in all_blocks:
        if joined and block.kind == "plain" == joined[-1].kind and block.cells == joined[-1].cells:
            joined[-1].lines += block.lines
            joined[-1].reasons += block.reasons
        else:
            joined.append(block)
    return joined


def _name_steps(all_blocks: Sequence[Block], plan: Plan) -> None:
    used_names = plan.names | {"find_data", "in_data", "Learned", "train", "prepare_records"}
    project = naming.first_descriptive_name([plan.notebook.path.stem]) or "data"
    for block in all_blocks:
        if block.kind == "step":
            group = [line.statement for line in block.lines]
            name = naming.step_name(group, block.role, block.outputs, block.heading, plan.inference, project)
            hints = [
                *(naming.first_descriptive_name([output]) for output in block.outputs),
                naming.name_from_command(block.heading),
            ]
            hints.append(naming.distinguishing_words(block.chapter))
            if block.role == "fit" and any(name in line.facts.mutates for name in block.inputs for line in block.lines):
                hints.insert(0, "again")
            block.base = name
            block.quiet = naming.step_name(
                group, block.role, block.outputs, "", plan.inference, project, ignore_comments=True
            )
            block.name = naming.unique_name(name, used_names, [hint for hint in hints if hint])
            used_names.add(block.name)
