"""Write the source of each step: a function with typed arguments, and the cell that calls it."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from d2c_mlops.convert.plan import naming
from d2c_mlops.convert.plan.author_functions import function_reads
from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.plan import Plan, PlanLine
from d2c_mlops.convert.source.source_edits import (
    TextChange,
    add_keyword_arguments,
    append_return,
    apply_changes,
    indent_source,
    with_keyword_parameters,
)
from d2c_mlops.convert.write.parameter_list import CodeParameters

Types = Mapping[tuple[str, str], str]  # (step, name) -> annotation


def line_source(
    line: PlanLine, plan: Plan, parameters: CodeParameters, renamed_parameters: Mapping[str, str] | None = None
) -> str:
    """Return a statement with parameters put in, by the words of its function, and calls of the author's functions adapted."""
    insertions = [
        replace(change, text=renamed_parameters.get(change.text, change.text)) if renamed_parameters else change
        for change in parameters.changes.get(line.statement.place, ())
    ]
    return apply_changes(line.statement, [*insertions, *author_call_changes(line.statement.node, plan)])


def author_call_changes(node: ast.AST, plan: Plan, source: str = "") -> list[TextChange]:
    """Return the changes that pass former global names as arguments to the author's functions."""
    insertions = []
    for name, function in plan.functions.items():
        if function.extras and not function.reason:
            for call, _ in function_reads(node, name):
                if call is not None:
                    lines = _cell_lines(plan, node)
                    insertions.append(add_keyword_arguments(call, function.extras, lines))
    return insertions


def _cell_lines(plan: Plan, node: ast.AST) -> Sequence[str]:
    cell = next((line.statement.cell for line in plan.lines if line.statement.node is node), -1)
    return next((c.python.split("\n") for c in plan.notebook.code if c.index == cell), [])


def definition_source(block: Block, plan: Plan, parameters: CodeParameters) -> str:
    """Return an author's function with keyword arguments for its former global names."""
    line = block.lines[0]
    node = line.statement.node
    insertions = parameters.changes.get(line.statement.place, ())
    source = apply_changes(line.statement, [*insertions, *author_call_changes(node, plan)]).strip("\n")
    extras = plan.functions[block.name].extras
    if not extras or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return source
    lines = source.split("\n")
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
    first = tree.body[0]
    head = lines[: tree.lineno - 1]
    if first.lineno == tree.lineno or not _starts_its_line(lines, first):
        body = [f"    {text}" for part in tree.body for text in ast.unparse(part).split("\n")]
    else:
        start = first.lineno - 1
        while start > tree.lineno and lines[start - 1].lstrip().startswith("#"):
            start -= 1
        body = lines[start:]
    return "\n".join([*head, with_keyword_parameters(tree, extras), *body])


def _starts_its_line(lines: Sequence[str], node: ast.stmt) -> bool:
    return not lines[node.lineno - 1].encode()[: node.col_offset].decode().strip()


def function_source(block: Block, plan: Plan, parameters: CodeParameters, types: Types) -> str:
    """Return the function of a step."""
    arguments = [
        f"{name}: {_type_text(block, name, parameters, types)}"
        for name in block.inputs
        if parameters.find(name) is None
    ]
    for name in step_parameters(block, parameters):
        arguments.append(f"{block.words.get(name, name)}: {_type_text(block, name, parameters, types)}")
    returned = [types.get((block.name, f"-> {name}"), "Any") for name in block.outputs]
    arrow = returned[0] if len(returned) == 1 else f"tuple[{', '.join(returned)}]"
    sources = [line_source(line, plan, parameters, block.words).strip("\n") for line in block.lines]
    description = _step_description(block, plan)
    spoken, sources[0] = _comment_sentence(sources[0], block, description)
    sentence = _docstring_sentence(
        spoken or description or (block.quiet if block.spoken_above else block.base).replace("_", " ")
    )
    body = [f'"""{sentence}"""', *block.imports]
    text = "\n".join(indent_source(part) for part in [*body, *append_return(sources, ", ".join(block.outputs))] if part)
    return f"def {block.name}({', '.join(arguments)}) -> {arrow}:\n{text}"


def comment_above(block: Block) -> str:
    """Return the author's comment above a step, as he wrote it."""
    lines = block.lines[0].statement.source.lstrip("\n").split("\n")
    return "\n".join(itertools.takewhile(lambda line: line.startswith("#"), lines))


def _comment_sentence(source: str, block: Block, fallback: str) -> tuple[str, str]:
    """The sentence of a comment above a step that describes it, and the source without the comment."""
    spoken = block.lines[0].statement.comment
    if block.spoken_above:
        return "", source.removeprefix(comment_above(block)).lstrip("\n")
    alone = source.startswith("#") and not re.match(r"#[^\n]*\n#", source)
    if alone and (_describes_step(spoken) or (not fallback and len(spoken.split()) >= 2 and len(spoken) <= 100)):
        return spoken, source.split("\n", 1)[1].lstrip("\n")
    return "", source


def _describes_step(comment: str) -> bool:
    """Whether a comment describes a step: a short sentence that begins with a verb."""
    words = re.sub(
        r"^\W*(\d+[.)]\s*)?(let'?s|now|then|first|next|finally)?\W*", "", comment, flags=re.IGNORECASE
    ).split()
    return len(words) >= 2 and len(comment) <= 100 and bool(naming.base_verb(words[0].lower().strip(":,.")))


def call_source(block: Block, parameters: CodeParameters) -> str:
    """Return the call that binds the same names as the original did."""
    return f"{', '.join(block.outputs)} = {call_text(block, parameters)}"


def call_text(block: Block, parameters: CodeParameters) -> str:
    """Return the call alone."""
    words = [name for name in block.inputs if parameters.find(name) is None]
    words += [f"{block.words.get(name, name)}={name}" for name in step_parameters(block, parameters)]
    return f"{block.called}({', '.join(words)})"


def step_parameters(block: Block, parameters: CodeParameters) -> list[str]:
    """Return the parameters of the notebook that a step takes, after the values that go in."""
    names = [name for name in block.inputs if parameters.find(name) is not None]
    return [*(name for name in block.parameters if name not in names), *names]


def _type_text(block: Block, name: str, parameters: CodeParameters, types: Types) -> str:
    parameter = parameters.find(name)
    return parameter.annotation if parameter is not None else types.get((block.name, name), "Any")


def _docstring_sentence(text: str) -> str:
    text = text.strip(" -=#*:.").replace("\\", "/").replace('"', "'")
    text = re.sub(r"^\d+[.)]\s*", "", text)
    return f"{text[0].upper()}{text[1:]}."


def _step_description(block: Block, plan: Plan) -> str:
    """A description of a step in addition to its name."""
    name = block.quiet if block.spoken_above else block.base
    return _file_read(block) or _estimator_name(name, block, plan) or naming.SENTENCES.get(name, "")


def _estimator_name(name: str, block: Block, plan: Plan) -> str:
    """Name the estimators of `fit_random_forest` as their library does."""
    verb, _, name_end = name.partition("_")
    calls = [node for line in block.lines for node in ast.walk(line.statement.node) if isinstance(node, ast.Call)]
    owners = [call.func.value for call in calls if isinstance(call.func, ast.Attribute) and "fit" in call.func.attr]
    paths = dict.fromkeys(
        [*(plan.inference.path(call.func) for call in calls), *(plan.inference.kind(owner) for owner in owners)]
    )
    class_names = [path.rpartition(".")[2] for path in paths if path and naming.estimator_name(path) in name_end]
    estimators = list(dict.fromkeys(word for word in class_names if word[:1].isupper()))
    if verb == "compare" and estimators:
        return f"fit {' and '.join(estimators)} with several settings"
    return f"{verb} {' and '.join(estimators)}" if verb in ("fit", "build") and estimators else ""


def _file_read(block: Block) -> str:
    """Return the file that a step reads, if it does little else."""
    if block.role != "load" or len(block.lines) > 3:
        return ""
    texts = (
        node.value for line in block.lines for node in ast.walk(line.statement.node) if isinstance(node, ast.Constant)
    )
    files = [text for text in texts if isinstance(text, str) and re.search(r"[^/\\\s]\.[A-Za-z]{2,7}$", text)]
    name = re.split(r"[/\\]", files[0])[-1] if len(files) == 1 else ""
    return f"read {name}" if name and '"' not in name else ""
