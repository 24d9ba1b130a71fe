"""Merge steps that do the same into one function that is called several times."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Sequence

from d2c_mlops.convert.plan import naming
from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.plan import Plan
from d2c_mlops.convert.write.parameter_list import CodeParameters
from d2c_mlops.convert.write.step_functions import function_source, step_parameters


def share_equal_steps(blocks: Sequence[Block], plan: Plan, parameters: CodeParameters) -> None:
    """Find for each step an earlier one with the same code except for the names of inputs and outputs."""
    firsts: dict[str, Block] = {}
    for block in blocks:
        if block.kind != "step":
            continue
        block.words = _keyword_names(block, plan, parameters)
        tree = ast.parse(function_source(block, plan, parameters, {})).body[0]
        assert isinstance(tree, ast.FunctionDef)
        tree.name, tree.body = "f", tree.body[1:]
        exact = ast.dump(tree)
        key = "\n".join([_with_numbered_names(tree), *_inner_comments(block)])
        first = firsts.setdefault(key, block)
        if first is block or not _are_equal_steps(first, block, exact, plan, parameters):
            continue
        block.like = first
        names = step_parameters(first, parameters)
        block.words = {
            ours: first.words.get(theirs, theirs)
            for ours, theirs in zip(step_parameters(block, parameters), names, strict=True)
        }
        if block.lines[0].statement.comment != first.lines[0].statement.comment:
            first.spoken_above = block.spoken_above = True
            used_names = plan.names | {block.name for block in blocks if block.kind == "step"}
            if first.name != first.quiet:
                first.name = naming.unique_name(first.quiet, used_names, ())


def _keyword_names(block: Block, plan: Plan, parameters: CodeParameters) -> dict[str, str]:
    """The parameter names of a function: the library's keywords, if each has one meaning in the function."""
    words = {
        name: parameter.word or name
        for name in step_parameters(block, parameters)
        if (parameter := parameters.find(name))
    }
    used = {name for line in block.lines for name in (*line.facts.loads, *line.facts.binds)} | set(plan.imports.paths)
    counts = Counter([*words.values(), *block.inputs])
    return {name: word for name, word in words.items() if word != name and counts[word] == 1 and word not in used}


def _are_equal_steps(first: Block, block: Block, exact: str, plan: Plan, parameters: CodeParameters) -> bool:
    tree = ast.parse(function_source(first, plan, parameters, {})).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.name, tree.body = "f", tree.body[1:]
    return ast.dump(tree) == exact or first.quiet == block.quiet


def _with_numbered_names(tree: ast.FunctionDef) -> str:
    """Return a function as a text in which its own names are numbers."""
    renamed_tree = ast.parse(ast.unparse(tree)).body[0]
    numbers: dict[str, str] = {}
    for node in ast.walk(renamed_tree):
        if isinstance(node, ast.arg):
            numbers.setdefault(node.arg, f"_{len(numbers)}")
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            numbers.setdefault(node.id, f"_{len(numbers)}")
    for node in ast.walk(renamed_tree):
        if isinstance(node, ast.arg):
            node.arg = numbers[node.arg]
        elif isinstance(node, ast.Name):
            node.id = numbers.get(node.id, node.id)
    return ast.dump(renamed_tree)


def _inner_comments(block: Block) -> list[str]:
    """The author's comments inside a step; the comment above it stays at its call."""
    text = "\n".join(line.statement.source for line in block.lines).lstrip("\n")
    comments = [
        token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.COMMENT
    ]
    above = next((n for n, line in enumerate(text.split("\n"), 1) if not line.startswith("#")), 1)
    return [block.string for block in comments if block.start[0] >= above]
