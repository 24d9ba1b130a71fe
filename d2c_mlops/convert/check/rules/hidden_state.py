"""Rules about hidden state: names, the order of cells, changes between cells."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from d2c_mlops.convert.check.rule import Subject, make_hit, make_rule_example, rule
from d2c_mlops.convert.source.dataflow import BUILTINS, is_kernel_name
from d2c_mlops.convert.source.finding import Hit

_PLATFORM = {
    "spark": "a Spark session of the platform",
    "sc": "a Spark context of the platform",
    "dbutils": "the utilities of Databricks",
    "displayHTML": "a function of Databricks",
    "sqlContext": "a Spark context of the platform",
}
_FIRM = {
    "builtins.function": "a function",
    "builtins.type": "a class",
    "builtins.str": "a text",
    "builtins.int": "a number",
    "builtins.float": "a number",
    "pandas.DataFrame": "a DataFrame",
}
_PROUD = frozenset({"a module", "a function", "a class", "a DataFrame", "an estimator"})


@rule(
    "D2C101",
    "undefined-name",
    "error",
    why="the name existed only in the author's session; a fresh kernel raises NameError here",
    fix="define it in a cell above, or restore the deleted cell",
    bad=make_rule_example("total = price * 3"),
    good=make_rule_example("price = 2\ntotal = price * 3", "display(total, _, In)"),
)
def undefined_name(subject: Subject) -> Iterator[Hit]:
    for use in subject.flow.undefined:
        name = use.use.name
        what = _PLATFORM.get(name)
        through = f", read by {use.via}()" if use.via else ""
        message = f"`{name}` is {what}" if what else f"no cell defines `{name}`{through}"
        yield Hit(use.cell, use.use.line, use.use.column, message)


@rule(
    "D2C102",
    "use-before-definition",
    "error",
    why="the cells were not run from top to bottom; in that order the notebook fails here",
    fix="move the definition above this cell",
    bad=make_rule_example("print(total)", "total = 3"),
    good=make_rule_example("total = 3", "print(total)"),
)
def use_before_definition(subject: Subject) -> Iterator[Hit]:
    for use in subject.flow.early:
        later = use.defined_in
        place = "further down in the same cell" if later == use.cell else f"only in cell {(later or 0) + 1}"
        through = f" (read by {use.via}())" if use.via else ""
        yield Hit(use.cell, use.use.line, use.use.column, f"`{use.use.name}`{through} is defined {place}")


@rule(
    "D2C103",
    "run-out-of-order",
    "warning",
    why="the saved results come from another cell order than a run from top to bottom",
    fix="restart the kernel, run all cells, and check the results again",
    bad=make_rule_example("a = 1", "b = 2", counts=(7, 3)),
    good=make_rule_example("a = 1", "b = 2", counts=(1, 2)),
)
def run_out_of_order(subject: Subject) -> Iterator[Hit]:
    counts = {cell.index: cell.execution_count for cell in subject.notebook.code}
    backward_cells = subject.flow.order.backwards
    if backward_cells:
        others = f", and {len(backward_cells) - 1} more" if len(backward_cells) > 1 else ""
        message = f"this cell was last run before the cell above it (In [{counts[backward_cells[0]]}]){others}"
        yield Hit(backward_cells[0], 1, 1, message)


@rule(
    "D2C104",
    "gaps-in-order",
    "info",
    why="cells were rerun or deleted; the results may still depend on them",
    fix="restart the kernel, run all cells, and check the results again",
    bad=make_rule_example("a = 1", "b = 2", counts=(1, 9)),
    good=make_rule_example("a = 1", "b = 2", counts=(4, 5)),
)
def gaps_in_order(subject: Subject) -> Iterator[Hit]:
    gaps = subject.flow.order.gaps
    if gaps > 0:
        yield Hit(None, 1, 1, f"{gaps} execution counts are missing")


@rule(
    "D2C105",
    "shadowed-builtin",
    "warning",
    why="every later cell that uses the builtin gets this value instead",
    fix="use another name",
    bad=make_rule_example("list = [1, 2]", "print(list)"),
    good=make_rule_example("items = [1, 2]", "print(list(items))"),
)
def shadowed_builtin(subject: Subject) -> Iterator[Hit]:
    for index, flow in subject.flow.cells.items():
        imported = {imported.bound for imported in flow.imports}
        for name, use in flow.defines.items():
            if name in BUILTINS and name not in imported and not name.startswith("_") and not is_prompt_name(name):
                yield Hit(index, use.line, use.column, f"`{name}` shadows the builtin `{name}`")


def is_prompt_name(name: str) -> bool:
    """Names that nobody misses: they exist for the interactive prompt only."""
    return name in {"copyright", "credits", "license", "exit", "quit", "help"}


@rule(
    "D2C106",
    "rebound-to-another-kind",
    "warning",
    why="the meaning of the name depends on which cell ran last, so the cells cannot become functions",
    fix="use a new name for the second value",
    bad=make_rule_example("import pandas as pd\nsales = pd.read_csv('sales.csv')", "sales = 'sales.csv'"),
    good=make_rule_example("import pandas as pd\nsales = pd.read_csv('sales.csv')", "sales = sales.dropna()"),
)
def rebound_to_another_kind(subject: Subject) -> Iterator[Hit]:
    kinds: dict[str, str] = {}
    for binding in subject.inference.bindings:
        inferred = binding.thing
        if inferred is None or binding.position is not None or binding.changes or binding.name == "_":
            kinds.pop(binding.name, None) if inferred is None else None
            continue
        kind = _FIRM.get(inferred.path, "") if inferred.instance else "a module or what it holds"
        if inferred.instance and inferred.path.startswith(("sklearn.", "xgboost.", "lightgbm.")):
            kind = "an estimator"
        if not inferred.instance and inferred.path[:1].islower() and "." not in inferred.path:
            kind = "a module"
        before = kinds.get(binding.name, "")
        if before in _PROUD and kind and kind != before and "holds" not in kind:
            node_line = binding.line
            yield Hit(binding.cell, node_line, 1, f"`{binding.name}` was {before} and becomes {kind}")
        kinds[binding.name] = kind


@rule(
    "D2C107",
    "star-import",
    "warning",
    why="the imported names are not visible, and they may overwrite existing names",
    fix="import only the names that are used",
    bad=make_rule_example("from math import *\nprint(sqrt(4))"),
    good=make_rule_example("from math import sqrt\nprint(sqrt(4))"),
)
def star_import(subject: Subject) -> Iterator[Hit]:
    for index, flow in subject.flow.cells.items():
        for star_import in flow.stars:
            yield Hit(index, star_import.line, star_import.column, f"`from {star_import.module} import *`")


@rule(
    "D2C108",
    "change-in-another-cell",
    "info",
    why="running this cell twice changes the data twice, or fails the second time",
    fix="assign a new value: `sales = sales.drop(columns=[...])` in the cell that creates `sales`",
    bad=make_rule_example(
        "import pandas as pd\nsales = pd.read_csv('sales.csv')", "sales.drop(columns=['id'], inplace=True)"
    ),
    good=make_rule_example(
        "import pandas as pd\nsales = pd.read_csv('sales.csv')\nsales.drop(columns=['id'], inplace=True)"
    ),
)
def change_in_another_cell(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.code:
        first: dict[str, int] = {}  # line on which the cell binds a name
        for use in subject.flow.cells[cell.index].binds if cell.tree else ():
            first[use.name] = min(use.line, first.get(use.name, use.line))
        for statement in cell.tree.body if cell.tree else ():
            name = _changed_for_good(statement)
            made_here = first.get(name, statement.lineno) < statement.lineno
            if name and not made_here and subject.flow.definers.get(name):
                yield make_hit(cell, statement, f"`{name}` is defined in another cell and changed in place here")


def _changed_for_good(statement: ast.stmt) -> str:
    """The name that a statement changes so that a second run differs."""
    if isinstance(statement, ast.Delete) and isinstance(statement.targets[0], ast.Subscript):
        value = statement.targets[0].value
        return value.id if isinstance(value, ast.Name) else ""
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
        return ""
    holder = call.func.value
    in_place = any(
        word.arg == "inplace" and isinstance(word.value, ast.Constant) and word.value.value is True
        for word in call.keywords
    )
    once = call.func.attr in ("append", "extend", "insert", "pop", "remove") or (
        in_place and call.func.attr in ("drop", "rename", "reset_index", "set_index")
    )
    return holder.id if once and isinstance(holder, ast.Name) else ""


@rule(
    "D2C109",
    "function-reads-globals",
    "warning",
    why="the function works only in this notebook, and its result depends on the current value of the global name",
    fix="pass the value as an argument",
    bad=make_rule_example("rate = 0.2", "def net(price):\n    return price * (1 - rate)"),
    good=make_rule_example("def net(price, rate):\n    return price * (1 - rate)"),
)
def function_reads_globals(subject: Subject) -> Iterator[Hit]:
    every = subject.flow
    imported = {imported.bound for flow in every.cells.values() for imported in flow.imports}
    for index, flow in every.cells.items():
        for function in flow.functions.values():
            undefined = [
                use
                for use in function.reads
                if use.name in every.definers
                and use.name not in imported
                and use.name not in every.functions
                and not is_kernel_name(use.name)
                and not use.name.isupper()
            ]
            if undefined:
                names = ", ".join(f"`{use.name}`" for use in undefined)
                yield Hit(index, function.line, 1, f"{function.name}() reads the global names {names}")
