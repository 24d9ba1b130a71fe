"""Group the lines of a plan into pieces: prose, the author's functions, steps that become functions, plain cells."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from d2c_mlops.convert import naming
from d2c_mlops.convert.imports import is_import
from d2c_mlops.convert.plan import Line, Plan, plots, visible

LONGEST = 25  # lines of a step that was not written as one
ASIDE = 5  # lines at most of a preparation that is left plain because it is only looked at
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
_JOINS = {("prepare", "split"), ("prepare", "fit"), ("prepare", "predict"), ("constant", "fit"), ("constant", "split")}


@dataclass
class Piece:
    """A part of the notebook to write, in the order of the original."""

    kind: str  # prose, raw, definition, step or plain
    cells: list[int]
    lines: list[Line] = field(default_factory=list)
    text: str = ""
    role: str = ""
    name: str = ""  # of the function
    heading: str = ""  # the author's words above it
    chapter: str = ""  # the heading above that one
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)  # that hold only inside
    parameters: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)  # parameter -> what the function calls it, where that differs
    quiet: str = ""  # the name that it would have without the author's words
    spoken_above: bool = False  # whether the author's comment stands above the call, not in the function
    like: Piece | None = None  # the earlier step whose function does the same

    @property
    def called(self) -> str:
        """The name of the function that is called."""
        return self.like.name if self.like is not None else self.name

    @property
    def size(self) -> int:
        """Lines of code."""
        return sum(line.statement.lines for line in self.lines)


def pieces(plan: Plan) -> list[Piece]:
    """Return the pieces of a plan in document order, each step with its name and what goes in and out."""
    found = _merged(list(_raw_pieces(plan)), plan)
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


def _raw_pieces(plan: Plan) -> Iterator[Piece]:
    heading = chapter = last = ""
    headed = any(cell.kind == "markdown" and "#" in cell.source for cell in plan.notebook.cells)
    level = "###" if headed else "##"
    for cell in plan.notebook.cells:
        if cell.kind == "markdown":
            if cell.source.strip():
                heading = _heading(cell.source) or heading
                chapter, last = (last or chapter), (heading if "#" in cell.source else "")
                yield Piece("prose", [cell.index], text=cell.source)
            continue
        if cell.kind == "raw":
            yield Piece("raw", [cell.index], text=cell.source)
            continue
        if any(magic.kind == "cell" and cell.tree is not None and not cell.python.strip() for magic in cell.magics):
            yield Piece("raw", [cell.index], text=cell.source)
            continue
        for titles, lines in _sections(plan.of_cell(cell.index)):
            for title in titles:
                yield Piece("prose", [cell.index], text=f"{level} {title}")
            heading = titles[-1] if titles else heading
            for piece in _section_pieces(plan, cell.index, lines):
                piece.heading, piece.chapter = heading, chapter
                yield piece
        heading = "" if plan.of_cell(cell.index) else heading
        last = ""


def _sections(lines: Sequence[Line]) -> Iterator[tuple[tuple[str, ...], list[Line]]]:
    """Cut a cell where its author set a title by a comment."""
    part: list[Line] = []
    for line in lines:
        if line.titles and part:
            yield part[0].titles, part
            part = []
        part.append(line)
    if part:
        yield part[0].titles, part


def _heading(markdown: str) -> str:
    lines = [line.strip() for line in markdown.splitlines() if line.strip()]
    titles = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return (titles or lines or [""])[-1 if titles else 0]


def _section_pieces(plan: Plan, cell: int, lines: Sequence[Line]) -> Iterator[Piece]:
    for line in lines:
        if line.kind == "definition":
            yield Piece("definition", [cell], [line], name=line.statement.node.name)  # type: ignore[attr-defined]
    ordered = _hoisted([line for line in lines if line.kind != "definition"], plan)
    group: list[Line] = []
    for line in ordered:
        if group and _breaks(group, line):
            yield _piece(group, cell)
            group = []
        group.append(line)
    if group:
        yield _piece(group, cell)


def _piece(group: Sequence[Line], cell: int) -> Piece:
    kind = "step" if group[0].kind == "work" else "plain"
    reasons = [line.reason for line in group if line.reason]
    return Piece(kind, [cell], list(group), role=_role(group), reasons=reasons)


def _role(group: Iterable[Line]) -> str:
    plays = {line.role for line in group}
    return next((r for r in ("fit", "split", "predict", "evaluate", "load", "save") if r in plays), "prepare")


def _hoisted(lines: Sequence[Line], plan: Plan) -> list[Line]:
    """Move work in front of what only shows, where neither sees the other; a figure is never torn apart."""
    done: list[Line] = []
    for line in lines:
        place = len(done)
        while line.kind == "work" and place and done[place - 1].kind == "show":
            place -= 1
        between = done[place:]
        if line.kind == "work" and between:
            if all(_independent(line, shown) for shown in between):
                line.live = line.live.union(*(shown.facts.loads for shown in between))
                done.insert(place, line)
                continue
            if any(plots(shown.statement, plan.inference) for shown in between) and not _closes(between[-1], plan):
                line.kind = "plain"
                line.reason = "it stands in the middle of a figure"
        done.append(line)
    return done


def _closes(line: Line, plan: Plan) -> bool:
    """Whether a line shows a figure, so that what follows begins a new one."""
    value = getattr(line.statement.node, "value", None)
    return isinstance(value, ast.Call) and plan.inference.path(value.func) == "matplotlib.pyplot.show"


def _independent(work: Line, shown: Line) -> bool:
    changed = {*work.facts.binds, *work.facts.mutates}
    seen = shown.facts.loads | {*shown.facts.binds, *shown.facts.mutates}
    bound = {*shown.facts.binds, *shown.facts.mutates} & (work.facts.loads | set(work.facts.binds))
    chance = _uses_chance(work) and _uses_chance(shown)
    return not (changed & seen) and not bound and not chance and not is_import(shown.statement.node)


def _uses_chance(line: Line) -> bool:
    return any(
        getattr(node, "attr", getattr(node, "id", "")) in _RANDOM
        for node in ast.walk(line.statement.node)
        if isinstance(node, ast.Attribute | ast.Name)
    )


def _breaks(group: Sequence[Line], line: Line) -> bool:
    last = group[-1]
    if (line.kind == "work") != (last.kind == "work"):
        return True
    if line.kind != "work":
        return False
    role, size = _role(group), sum(each.statement.lines for each in group)
    if size + line.statement.lines > LONGEST:
        return True
    if _titled(line) and size >= 3:
        return True
    if line.role == "constant":
        return role == "load"
    if line.role == role:
        return False
    if role == "load":
        return line.role != "load"
    if (role, line.role) in _JOINS:
        return size > 4 or (_titled(line) and line.role == "fit")
    if line.role == "prepare":
        together = role == "fit" and not _titled(line) and any(_titled(each) for each in group)
        return not together and (role in ("split", "fit") or size >= 8)
    return {role, line.role} != {"predict", "evaluate"}


def _titled(line: Line) -> bool:
    """Whether the author set a statement apart by a comment with an empty line above it."""
    return bool(line.statement.comment) and line.statement.source.startswith(("\n", "# -", "# =", "#-", "#=", "###"))


def _merged(found: list[Piece], plan: Plan) -> list[Piece]:
    """Join steps of neighbouring cells that do one thing, with nothing shown between them."""
    done: list[Piece] = []
    for piece in found:
        last = done[-1] if done else None
        if last is not None and piece.kind == last.kind == "step" and piece.cells != last.cells:
            same = last.role == piece.role == "prepare" and not piece.lines[0].statement.comment
            built = piece.role == "fit" and last.size <= 6 and _builds(last, piece)
            if (same or built or _asks(last, piece)) and last.size + piece.size <= LONGEST:
                last.lines += piece.lines
                last.cells += [cell for cell in piece.cells if cell not in last.cells]
                last.role = piece.role
                continue
        done.append(piece)
    return done


def _asks(last: Piece, piece: Piece) -> bool:
    """Whether a few lines only prepare what the next step predicts for."""
    made = {name for line in last.lines for name in (*line.facts.binds, *line.facts.mutates)}
    used = {name for line in piece.lines for name in line.facts.loads}
    roles = (last.role, piece.role) == ("prepare", "predict")
    return roles and last.size <= 3 and made <= used and not made & piece.lines[-1].live


def _builds(last: Piece, piece: Piece) -> bool:
    """Whether a piece fits what the one before it only builds."""
    fits = any(
        isinstance(node, ast.Attribute) and node.attr.startswith("fit")
        for line in last.lines
        for node in ast.walk(line.statement.node)
    )
    if fits or last.role not in ("prepare", "fit"):
        return False
    made = {name for line in last.lines for name in line.facts.binds}
    return len(made) == 1 and bool(made & {name for line in piece.lines for name in line.facts.mutates})


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


def in_order(piece: Piece, names: Collection[str]) -> list[str]:
    """Order names as the step binds them, what it only changes last."""
    bound = [name for line in piece.lines for name in line.facts.binds]
    return sorted(names, key=lambda name: (bound.index(name) if name in bound else len(bound), name))


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
        if readers and all(each.kind == "plain" and not any(line.reason for line in each.lines) for each in readers):
            piece.kind, piece.reasons = "plain", [*piece.reasons, "only what is shown uses it"]
            for line in piece.lines:
                line.kind = "show"


def _readers(name: str, later: Sequence[Piece]) -> Iterator[Piece]:
    """The pieces that read or change a name before it is bound anew."""
    for piece in later:
        for line in piece.lines:
            if name in line.facts.loads or name in line.facts.mutates:
                yield piece
                break
            if name in line.facts.definite:
                return
        if any(name in line.facts.definite for line in piece.lines):
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
    taken = plan.names | {"find_data", "Learned", "train", "prepare_records"}
    project = naming.topic([plan.notebook.path.stem]) or "data"
    for piece in found:
        if piece.kind == "step":
            group = [line.statement for line in piece.lines]
            name = naming.step_name(group, piece.role, piece.outputs, piece.heading, plan.inference, project)
            hints = [*(naming.topic([each]) for each in piece.outputs), naming.command(piece.heading)]
            hints.append(naming.apart(piece.chapter))
            piece.quiet = naming.step_name(group, piece.role, piece.outputs, "", plan.inference, project, quiet=True)
            piece.name = naming.unique(name, taken, [hint for hint in hints if hint])
            taken.add(piece.name)
