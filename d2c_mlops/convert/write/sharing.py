"""Steps that do the same are one function, called once for each of them; its arguments have the words of the field."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Sequence

from d2c_mlops.convert.plan import naming
from d2c_mlops.convert.plan.piece import Piece
from d2c_mlops.convert.plan.plan import Plan
from d2c_mlops.convert.write.functions import function_source, own_parameters
from d2c_mlops.convert.write.parameter_list import CodeParameters


def share(found: Sequence[Piece], plan: Plan, parameters: CodeParameters) -> None:
    """Find for each step the earlier one that does the same but for the names of what goes in and out."""
    firsts: dict[str, Piece] = {}
    for piece in found:
        if piece.kind != "step":
            continue
        piece.words = _words(piece, plan, parameters)
        tree = ast.parse(function_source(piece, plan, parameters, {})).body[0]
        assert isinstance(tree, ast.FunctionDef)
        tree.name, tree.body = "f", tree.body[1:]
        exact = ast.dump(tree)
        key = "\n".join([_renamed(tree), *_comments(piece)])
        first = firsts.setdefault(key, piece)
        if first is piece or not _alike(first, piece, exact, plan, parameters):
            continue
        piece.like = first
        names = own_parameters(first, parameters)
        piece.words = {
            own: first.words.get(other, other)
            for own, other in zip(own_parameters(piece, parameters), names, strict=True)
        }
        if piece.lines[0].statement.comment != first.lines[0].statement.comment:
            first.spoken_above = piece.spoken_above = True
            taken = plan.names | {each.name for each in found if each.kind == "step"}
            if first.name != first.quiet:
                first.name = naming.unique(first.quiet, taken, ())


def _words(piece: Piece, plan: Plan, parameters: CodeParameters) -> dict[str, str]:
    """What a function calls its parameters: the words of the library, where they mean one thing in it."""
    own = {name: known.word or name for name in own_parameters(piece, parameters) if (known := parameters.of(name))}
    used = {name for line in piece.lines for name in (*line.facts.loads, *line.facts.binds)} | set(plan.imports.paths)
    counts = Counter([*own.values(), *piece.inputs])
    return {name: word for name, word in own.items() if word != name and counts[word] == 1 and word not in used}


def _alike(first: Piece, piece: Piece, exact: str, plan: Plan, parameters: CodeParameters) -> bool:
    tree = ast.parse(function_source(first, plan, parameters, {})).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.name, tree.body = "f", tree.body[1:]
    return ast.dump(tree) == exact or first.quiet == piece.quiet


def _renamed(tree: ast.FunctionDef) -> str:
    """Return a function as a text in which its own names are numbers."""
    made = ast.parse(ast.unparse(tree)).body[0]
    numbers: dict[str, str] = {}
    for node in ast.walk(made):
        if isinstance(node, ast.arg):
            numbers.setdefault(node.arg, f"_{len(numbers)}")
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            numbers.setdefault(node.id, f"_{len(numbers)}")
    for node in ast.walk(made):
        if isinstance(node, ast.arg):
            node.arg = numbers[node.arg]
        elif isinstance(node, ast.Name):
            node.id = numbers.get(node.id, node.id)
    return ast.dump(made)


def _comments(piece: Piece) -> list[str]:
    """The author's comments inside of a step; the one above it is kept at its call."""
    text = "\n".join(line.statement.source for line in piece.lines).lstrip("\n")
    found = [each for each in tokenize.generate_tokens(io.StringIO(text).readline) if each.type == tokenize.COMMENT]
    above = next((n for n, line in enumerate(text.split("\n"), 1) if not line.startswith("#")), 1)
    return [each.string for each in found if each.start[0] >= above]
