"""Group the lines of a plan into pieces: prose, the author's functions, steps that become functions, plain cells."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from d2c_mlops.convert.plan import naming
from d2c_mlops.convert.plan.cutting import merged, raw_pieces
from d2c_mlops.convert.plan.piece import Piece, in_order
from d2c_mlops.convert.plan.plan import Plan, PlanLine, visible

ASIDE = 5  # lines at most of a preparation that is left plain because it is only looked at


def pieces(plan: Plan) -> list[Piece]:
    """Return the pieces of a plan in document order, each step with its name and what goes in and out."""
    found = [part for each in merged(list(raw_pieces(plan)), plan) for part in _with_lists_before(each)]
    if plan.structure.models:
        _leave_asides(found)
    done: list[Piece] = []
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


def _with_lists_before(piece: Piece) -> Iterator[Piece]:
    """Put lists that a step writes down and later ones read before it, so that they go into the function."""
    moved: list[PlanLine] = []
    known: set[str] = set()
    for line in piece.lines if piece.kind == "step" else ():
        own = set(line.facts.binds)
        value = getattr(line.statement.node, "value", None)
        later = own & (piece.lines[-1].live | line.before) and isinstance(line.statement.node, ast.Assign)
        again = [each for each in piece.lines if own & {*each.facts.binds, *each.facts.mutates}]
        if line.role == "constant" and isinstance(value, _LISTS) and later and len(again) == 1 and not own & known:
            moved.append(line)
        known |= line.facts.loads | own
    if not moved or len(moved) == len(piece.lines):
        yield piece
        return
    for line in moved:
        line.kind = "plain"
        yield Piece("plain", [line.statement.cell], [line], heading=piece.heading, chapter=piece.chapter)
    piece.lines = [line for line in piece.lines if line not in moved]
    names = frozenset(name for line in moved for name in line.facts.binds)
    for line in piece.lines:
        line.before |= names
    yield piece


_LISTS = ast.List | ast.Tuple | ast.Dict | ast.Set


def _checked(piece: Piece, plan: Plan, handed: set[str]) -> Iterator[Piece]:
    """Work out what goes in and out; what cannot be told for certain stays a plain cell."""
    if piece.kind == "step" and all(line.role == "constant" for line in piece.lines):
        piece.kind = "plain"
    if piece.kind != "step":
        yield piece
        return
    seen = visible(plan)
    known: set[str] = set()
    inputs: dict[str, None] = {}
    bound: dict[str, None] = {}
    last_bound: dict[str, int] = {}
    passing: set[str] = set()
    before = piece.lines[0].before
    for number, line in enumerate(piece.lines):
        for name in [*line.facts.reads, *line.facts.mutates]:
            if name not in known and name in before and name not in seen:
                inputs.setdefault(name)
        for name in line.facts.binds:
            bound.setdefault(name)
            last_bound[name] = number
        passing |= line.facts.passing
        known |= line.facts.definite
    live = piece.lines[-1].live
    reads_after = {
        name for name, at in last_bound.items() for line in piece.lines[at + 1 :] if name in line.facts.loads
    } | {name for name, at in last_bound.items() if name not in piece.lines[at].facts.definite}
    changed = {name for line in piece.lines for name in line.facts.mutates if name in before and name not in bound}
    # A name that has a value already would keep the old one, were the new one not handed out.
    has_value = live | (before & handed)
    outputs = [n for n in bound if n in has_value or (n not in passing and n not in reads_after and n != "_")]
    own = [fit for fit in plan.fits if fit.cell in piece.cells and not fit.path.startswith("statsmodels.")]
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
        yield from _plain(piece, f"it may leave {', '.join(lost)} without a value")
        return
    outputs = [n for n in outputs if n not in lost]
    if not outputs:
        yield from _plain(piece, "nothing later uses what it does")
        return
    contested = plan.imports.contested & set(inputs)
    piece.imports = [text for name in sorted(contested) if (text := _import_of(plan, name, piece))]
    piece.inputs = _ordered([n for n in inputs if not any(_binds(text, n) for text in piece.imports)], piece)
    piece.outputs = in_order(piece, outputs)
    yield piece


def _supply(piece: Piece, done: Sequence[Piece]) -> None:
    """Leave a step plain that wants a name which the step that binds it does not hand out: it may be without a value."""
    for name in piece.inputs if piece.kind == "step" else ():
        binders = [each for each in done if any(name in line.facts.binds for line in each.lines)]
        if binders and binders[-1].kind == "step" and name not in binders[-1].outputs:
            piece.inputs, piece.outputs, piece.imports = [], [], []
            list(_plain(piece, f"{name} may be without a value before it"))
            return


def _leave_asides(found: Sequence[Piece]) -> None:
    """Leave short preparations plain that lead to nothing but what is shown: they are read, not run in production."""
    for place in reversed(range(len(found))):
        piece = found[place]
        if piece.kind != "step" or piece.role != "prepare" or piece.size > ASIDE:
            continue
        names = {name for line in piece.lines for name in (*line.facts.binds, *line.facts.mutates)}
        readers = [each for name in names for each in _readers(name, found[place + 1 :])]
        if readers and all(_looks(*each) for each in readers):
            piece.kind, piece.reasons = "plain", [*piece.reasons, "only what is shown uses it"]
            for line in piece.lines:
                line.kind = "show"


def _looks(piece: Piece, line: PlanLine) -> bool:
    """Whether a line that reads something only shows it: it asks no model, judges none, and stays for no other reason."""
    judges = line.role in ("fit", "predict", "evaluate", "split")
    return piece.kind == "plain" and not judges and not any(each.reason for each in piece.lines)


def _readers(name: str, later: Sequence[Piece]) -> Iterator[tuple[Piece, PlanLine]]:
    """The lines that read or change a name before it is bound anew."""
    for piece in later:
        for line in piece.lines:
            if name in line.facts.loads or name in line.facts.mutates:
                yield piece, line
            if name in line.facts.definite:
                return


def _plain(piece: Piece, reason: str) -> Iterator[Piece]:
    piece.kind, piece.reasons = "plain", [*piece.reasons, reason]
    for line in piece.lines:
        line.kind = "plain"
    yield piece


def _ordered(names: Sequence[str], piece: Piece) -> list[str]:
    """Order names by where the code first mentions them."""
    text = "\n".join(line.statement.source for line in piece.lines)

    def place(name: str) -> tuple[int, str]:
        found = re.search(rf"\b{re.escape(name)}\b", text)
        return (found.start() if found else len(text), name)

    return sorted(names, key=place)


def _binds(text: str, name: str) -> bool:
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.Import | ast.ImportFrom)
    return any((alias.asname or alias.name.split(".")[0]) == name for alias in node.names)


def _import_of(plan: Plan, name: str, piece: Piece) -> str:
    """The import that a contested name stands for where the piece begins, unless it stands for something else."""
    found = ""
    for line in plan.lines:
        if line.statement.place >= piece.lines[0].statement.place:
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


def _joined_plain(found: list[Piece]) -> list[Piece]:
    """Plain pieces of one cell that follow each other become one cell again."""
    done: list[Piece] = []
    for piece in found:
        if done and piece.kind == "plain" == done[-1].kind and piece.cells == done[-1].cells:
            done[-1].lines += piece.lines
            done[-1].reasons += piece.reasons
        else:
            done.append(piece)
    return done


def _name_steps(found: Sequence[Piece], plan: Plan) -> None:
    taken = plan.names | {"find_data", "in_data", "Learned", "train", "prepare_records"}
    project = naming.topic([plan.notebook.path.stem]) or "data"
    for piece in found:
        if piece.kind == "step":
            group = [line.statement for line in piece.lines]
            name = naming.step_name(group, piece.role, piece.outputs, piece.heading, plan.inference, project)
            hints = [*(naming.topic([each]) for each in piece.outputs), naming.command(piece.heading)]
            hints.append(naming.apart(piece.chapter))
            if piece.role == "fit" and any(name in line.facts.mutates for name in piece.inputs for line in piece.lines):
                hints.insert(0, "again")
            piece.base = name
            piece.quiet = naming.step_name(group, piece.role, piece.outputs, "", plan.inference, project, quiet=True)
            piece.name = naming.unique(name, taken, [hint for hint in hints if hint])
            taken.add(piece.name)
