"""APIs that the installed versions took away: the table of changes, before the run and as the answer to its failures."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from d2c_mlops.convert.change import Change, live_changes
from d2c_mlops.convert.finding import Edit, Hit, rekeying, renaming
from d2c_mlops.convert.importing import imported
from d2c_mlops.convert.mending import (
    Proposal,
    Scene,
    Trouble,
    after,
    argument_added,
    before,
    last_name,
    replaced,
    spelled,
)
from d2c_mlops.convert.notebook import Cell
from d2c_mlops.convert.rewrites import IMPORTED, call_of, inner, recalled, rewritten
from d2c_mlops.convert.rules.drift import changes

_UNEXPECTED = re.compile(
    r"(?:(?P<function>[\w.]+)\(\) )?got (?:an unexpected keyword argument|some positional-only arguments passed as keyword "
    r"arguments:?) '(?P<word>\w+)'"
)
_MANY = re.compile(r"(?P<function>[\w.]+)\(\) takes (?:from \d+ to )?(?P<count>\d+) positional arguments? but")
_BOUND = "too many positional arguments"  # in the words of inspect.Signature.bind
_HARMLESS = frozenset(
    [
        "n_jobs",
        "verbose",
        "disp",
        "iid",
        "presort",
        "warn_bad_lines",
        "infer_datetime_format",
        "precompute_distances",
        "squeeze",
        "full_output",
        "use_multiprocessing",
        "workers",
        "max_queue_size",
        "mangle_dupe_cols",
        "datetime_is_numeric",
        "low_memory",
        "use_line_collection",
        "null_counts",
        "iprint",
        "silent",
        "nthread",
        "use_label_encoder",
        "seed_everything",
    ]
)


@before("api", "", "", "the installed library no longer has it", order=10)
def api_before(scene: Scene) -> Iterator[Proposal]:
    for hit, change in changes(scene.subject):
        if hit.cell is None:
            continue
        cell = scene.cell(hit.cell)
        if change.kind == "behaviour" and change.path != "seaborn.distplot":
            continue
        edits = hit.edits or _rewritten(scene, cell, hit, change)
        if edits:
            yield Proposal(edits, f"{hit.message}: use {change.instead}")


def _rewritten(scene: Scene, cell: Cell, hit: Hit, change: Change) -> tuple[Edit, ...]:
    """Rewrite at the place of a hit that has no simple edit."""
    key = change.path + (f"|{change.argument}" if change.kind == "keyword" else "")
    for kind in (ast.Call, ast.Attribute):
        for _, node in scene.nodes(kind, cell):
            if (node.lineno, node.col_offset + 1) != (hit.line, hit.column):
                continue
            func = node.func if isinstance(node, ast.Call) else node
            same = scene.subject.inference.path(func)
            if same == change.path or (change.pattern and change.pattern.match(same)):
                real = node if change.kind in ("keyword", "value") else func
                if isinstance(real, ast.Call | ast.Attribute) and (edits := rewritten(key, cell, real)):
                    return plainly(scene, cell, edits)
    return ()


def aliased(scene: Scene, edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    """Write the name under which the notebook imported pandas."""
    name = alias_of(scene, "pandas")
    if name == "pd":
        return edits
    return tuple(replace(one, text=re.sub(r"(?<![\w.])pd\.", f"{name}.", one.text)) for one in edits)


def plainly(scene: Scene, cell: Cell, edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    """Write edits in the names that the notebook has, and import what it lacks."""
    return imported(scene, cell, aliased(scene, edits))


def alias_of(scene: Scene, module: str) -> str:
    """Return the name of an imported module, or an expression that imports it."""
    for _, node in scene.nodes(ast.Import):
        for one in node.names:
            if one.name == module:
                return one.asname or module
    return f"__import__('{module}')"


@before("moved-import", "", "", "the name has moved", order=5)
def moved_imports(scene: Scene) -> Iterator[Proposal]:
    for cell, node in scene.nodes(ast.ImportFrom):
        if node.level or not node.module:
            continue
        kept: list[str] = []
        lines: dict[str, list[str]] = {}
        uses: list[tuple[str, str]] = []
        reasons: list[str] = []
        for one in node.names:
            path = f"{node.module}.{one.name}"
            change = _gone(path)
            new, use = IMPORTED.get(path, ("", ""))
            if change is None or not (new or change.to):
                kept.append(_bound(one.name, one.asname))
                continue
            new = new or change.to + path[len(change.path) :]
            parent, _, last = new.rpartition(".")
            bound = one.asname or one.name
            if use and use != bound and ("." in use or one.asname is None):
                uses.append((bound, use))
                bound = last
            lines.setdefault(parent, []).append(_bound(last, bound))
            reasons.append(f"`{path}` is gone since {change.library} {change.since}: use {new}")
        if not lines:
            continue
        moved = [
            f"from {module} import {', '.join(dict.fromkeys(names))}" if module else f"import {', '.join(names)}"
            for module, names in lines.items()
        ]
        first = [f"from {node.module} import {', '.join(kept)}"] if kept else []
        text = ("\n" + " " * node.col_offset).join([*first, *moved])
        edits = [replaced(cell, node, text), *_used(scene, uses)]
        yield Proposal(tuple(edits), "; ".join(reasons))


def _bound(name: str, asname: str | None) -> str:
    return name if asname in (None, name) else f"{name} as {asname}"


def _gone(path: str) -> Change | None:
    found = [c for c in live_changes() if c.kind == "gone" and (path == c.path or path.startswith(c.path + "."))]
    return max(found, key=lambda change: len(change.path), default=None)


def _used(scene: Scene, uses: list[tuple[str, str]]) -> Iterator[Edit]:
    new = dict(uses)
    for cell, node in scene.nodes(ast.Name):
        if node.id in new and isinstance(node.ctx, ast.Load):
            yield replaced(cell, node, new[node.id])


@before("moved-attribute", "", "", "the name has moved", order=6)
def moved_attributes(scene: Scene) -> Iterator[Proposal]:
    """`metrics.plot_confusion_matrix(...)`: the module is there, the name in it is not."""
    for cell, node in scene.nodes(ast.Attribute):
        path = scene.subject.inference.path(node)
        new, use = IMPORTED.get(path, ("", ""))
        change = _gone(path) if new else None
        if change is None:
            continue
        if new.rpartition(".")[0] == path.rpartition(".")[0]:
            text = f"{spelled(cell, node.value)}.{use}"
        else:
            module, _, name = new.rpartition(".")
            text = f"__import__('{module}', fromlist=['{name}']).{use}"
        edits = plainly(scene, cell, (replaced(cell, node, text),))
        yield Proposal(edits, f"`{path}` is gone since {change.library} {change.since}")


@after("gone-attribute", "", "", "the installed library no longer has it", order=20)
def gone_attribute(scene: Scene, trouble: Trouble) -> Proposal | None:
    if trouble.kind != "AttributeError" or not trouble.name:
        return None
    holder = trouble.holder.removeprefix("module:").removeprefix("class:")
    short = holder.rpartition(".")[2]
    for change in live_changes():
        parent, _, name = change.path.rpartition(".")
        if change.kind != "gone" or name != trouble.name:
            continue
        if parent != holder and parent.rpartition(".")[2] != short:
            continue
        for cell, node in scene.failing(trouble, ast.Attribute):
            if node.attr != name:
                continue
            edits = _simple(cell, node, change) or plainly(scene, cell, rewritten(change.path, cell, node))
            edits = edits or _elsewhere(scene, cell, node, change)
            if edits:
                return Proposal(edits, _says(change))
    return None


def _simple(cell: Cell, node: ast.Attribute, change: Change) -> tuple[Edit, ...]:
    if change.text:
        return (replaced(cell, node, change.text),)
    if change.to and change.to.rpartition(".")[0] == change.path.rpartition(".")[0]:
        return (renaming(cell.index, node, change.to.rpartition(".")[2]),)
    return ()


def _elsewhere(scene: Scene, cell: Cell, node: ast.Attribute, change: Change) -> tuple[Edit, ...]:
    """A name that lives in another module now."""
    module, _, name = change.to.rpartition(".")
    if not module or module[0].isupper() or module.rpartition(".")[2][:1].isupper():
        return ()
    text = f"__import__('{module}', fromlist=['{name}']).{name}"
    return imported(scene, cell, (replaced(cell, node, text),))


def _says(change: Change) -> str:
    return f"`{change.title[:90]}` is gone since {change.library} {change.since}: use {change.instead}"


@after("unexpected-keyword", "", "", "the argument is no longer accepted", order=20)
def unexpected_keyword(scene: Scene, trouble: Trouble) -> Proposal | None:
    found = _UNEXPECTED.search(trouble.message) if trouble.kind in ("TypeError", "AttributeError") else None
    if found is None and trouble.kind == "AttributeError":
        found = re.search(
            r"(?P<function>\w+)\.set\(\) got an unexpected keyword argument '(?P<word>\w+)'", trouble.message
        )
    if found is None:
        return None
    word, function = found["word"], (found["function"] or "").split(".")
    names = {one for one in function if one and one != "__init__"}
    for cell, call in scene.failing(trouble, ast.Call):
        given = next((one for one in call.keywords if one.arg == word), None)
        if given is None:
            continue
        called = last_name(call.func)
        for change in live_changes():
            if change.kind != "keyword" or change.argument != word:
                continue
            if change.path.rpartition(".")[2] not in {called, *names}:
                continue
            if change.to:
                return Proposal((rekeying(cell.index, given, change.to),), _says(change))
            edits = plainly(scene, cell, rewritten(f"{change.path}|{change.argument}", cell, call))
            if edits:
                return Proposal(edits, _says(change))
        if word in _HARMLESS:
            edits = recalled(cell, call, spelled(cell, call.func), inner(cell, call, word))
            return Proposal(edits, f"{called} no longer takes `{word}`, which does not change what it computes")
    return None


@after("positional", "", "", "arguments have to be named", order=20)
def positional(scene: Scene, trouble: Trouble) -> Proposal | None:
    """Name positional arguments by the signature of the table; else by the words of the installed function's own error."""
    if trouble.kind != "TypeError":
        return None
    found = _MANY.search(trouble.message)
    if found is None:
        return _unbound(scene, trouble)
    wanted = found["function"].rpartition(".")[2]
    if wanted == "__init__":
        wanted = found["function"].split(".")[-2] if "." in found["function"] else ""
    for cell, call in scene.failing(trouble, ast.Call):
        called = last_name(call.func)
        if not call.args or (wanted and called != wanted):
            continue
        for change in live_changes():
            if change.kind == "positional" and change.path.rpartition(".")[2] == called:
                position = change.position or 0
                extra = call.args[position:]
                if len(change.names) >= len(extra) > 0:
                    return _named(cell, called, extra, change.names)
        names = signature(scene, cell, call)
        count = int(found["count"]) - (1 if "." in found["function"] or called != wanted else 0)
        for keep in dict.fromkeys((count, count - 1, int(found["count"]))):
            extra = call.args[keep:] if 0 <= keep < len(call.args) else []
            if extra and len(names) >= len(call.args):
                return _named(cell, called, extra, names[keep:])
    return None


def _unbound(scene: Scene, trouble: Trouble) -> Proposal | None:
    """A call that a signature's own check refuses: it does not say of which function, so each call is asked."""
    if _BOUND not in trouble.message:
        return None
    for cell, call in scene.failing(trouble, ast.Call):
        keep = len(signature(scene, cell, call, positional=True))
        extra = call.args[keep:]
        if not extra or any(isinstance(one, ast.Starred) for one in call.args):
            continue
        names = signature(scene, cell, call)[keep:]
        if len(names) >= len(extra) and not set(names[: len(extra)]) & {word.arg for word in call.keywords}:
            return _named(cell, last_name(call.func), extra, names)
    return None


def _named(cell: Cell, called: str, values: Sequence[ast.expr], names: Sequence[str]) -> Proposal:
    edits = tuple(
        Edit(cell.index, one.lineno, one.col_offset, one.lineno, one.col_offset, f"{name}=")
        for one, name in zip(values, names, strict=False)
    )
    return Proposal(edits, f"{called}() takes these arguments by name only")


def signature(scene: Scene, cell: Cell, call: ast.Call, *, positional: bool = False) -> list[str]:
    """Ask the child for the parameter names of what is called; with `positional` only those that need no name."""
    text = spelled(cell, call.func)
    which = " if p.kind < p.VAR_POSITIONAL" if positional else ""
    names = f"' '.join(n for n, p in __import__('inspect').signature({text}).parameters.items(){which})"
    asked = f"type('S', (), {{}}) if not callable({text}) else type({names}, (), {{}})"
    answer = scene.kinds([asked]).get(asked, "")
    return answer.removeprefix("class:").partition(".")[2].split() if answer.startswith("class:") else []


@after("value", "", "", "the value is no longer accepted", order=25)
def old_value(scene: Scene, trouble: Trouble) -> Proposal | None:
    """A value that the table knows, given through a name or a dictionary: the text is changed where it stands."""
    if not {"ValueError", "TypeError", "KeyError", "OSError"} & set(trouble.bases):
        return None
    said = set(re.findall(r"'([\w-]+)'", trouble.message)) | set(re.findall(r"frequency: (\w+)", trouble.message))
    if not said:
        return None
    around = {last_name(call.func) for _, call in scene.failing(trouble, ast.Call)}
    for change in live_changes():
        if change.kind != "value":
            continue
        known = {old: new for old, new in change.values.items() if old in said}
        if not known:
            continue
        named = change.path.rpartition(".")[2] in around
        for cell, text in scene.failing(trouble, ast.Constant):
            if text.value in known and named:
                new = known[text.value]
                if new is not None:
                    return Proposal((replaced(cell, text, repr(new)),), _changed(change, str(text.value), new))
                for _, call in scene.failing(trouble, ast.Call):
                    if last_name(call.func) == change.path.rpartition(".")[2] and (
                        edits := rewritten(change.path, cell, call)
                    ):
                        return Proposal(edits, _changed(change, str(text.value), change.instead))
        held = {name for name, value in trouble.strings.items() if value in known}
        for cell, assigned in scene.nodes(ast.Assign):
            value = assigned.value
            if isinstance(value, ast.Constant) and value.value in known and named:
                if {last_name(one) for one in assigned.targets} & held and (new := known[value.value]):
                    edits = (replaced(cell, value, repr(new)),)
                    return Proposal(edits, _changed(change, value.value, new), restart=True)
    return None


def _changed(change: Change, old: str, new: str) -> str:
    return f"{change.path} no longer takes {old!r} since {change.library} {change.since}: use {new!r}"


@after("cannot-import", "", "", "the name has moved", order=30)
def cannot_import(scene: Scene, trouble: Trouble) -> Proposal | None:
    """A name that its module no longer has: taken from where the table says, or left out where nothing uses it."""
    found = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", trouble.message)
    if trouble.kind != "ImportError" or found is None:
        return None
    for cell, node in scene.failing(trouble, ast.ImportFrom):
        if node.module is None or not any(one.name == found[1] for one in node.names):
            continue
        bound = next(one.asname or one.name for one in node.names if one.name == found[1])
        used = any(name.id == bound for _, name in scene.nodes(ast.Name))
        if used:
            continue
        rest = [_bound(one.name, one.asname) for one in node.names if one.name != found[1]]
        text = f"from {node.module} import {', '.join(rest)}" if rest else "pass"
        return Proposal((replaced(cell, node, text),), f"`{found[1]}` is gone from {found[2]}, and nothing uses it")
    return None


@after("no-numpy-alias", "", "", "the name is Python's own", order=30)
def python_two_names(scene: Scene, trouble: Trouble) -> Proposal | None:
    """Names of Python 2 that no longer exist."""
    names = {
        "xrange": "range",
        "unicode": "str",
        "raw_input": "input",
        "basestring": "str",
        "long": "int",
        "unichr": "chr",
    }
    if trouble.kind != "NameError" or trouble.name not in names:
        return None
    edits = tuple(
        replaced(cell, node, names[node.id]) for cell, node in scene.nodes(ast.Name) if node.id == trouble.name
    )
    return Proposal(edits, f"`{trouble.name}` was Python 2: use {names[trouble.name]}") if edits else None


@after("old-method", "", "", "dictionaries have no such method in Python 3", order=30)
def old_methods(scene: Scene, trouble: Trouble) -> Proposal | None:
    names = {"iteritems": "items", "itervalues": "values", "iterkeys": "keys"}
    if trouble.kind != "AttributeError" or trouble.name not in names:
        return None
    for cell, node in scene.failing(trouble, ast.Attribute):
        if node.attr == trouble.name:
            return Proposal((renaming(cell.index, node, names[node.attr]),), f"use .{names[node.attr]}()")
    return None


@after("show-counts", "pandas", "2.0", "the argument was renamed", order=15)
def renamed_arguments(scene: Scene, trouble: Trouble) -> Proposal | None:
    """Arguments that were renamed in methods whose class cannot be told from the text."""
    renamed = {"null_counts": "show_counts", "sheetname": "sheet_name", "line_terminator": "lineterminator"}
    renamed |= {
        "normed": "density",
        "shade": "fill",
        "n_iter": "max_iter",
        "axisbg": "facecolor",
        "lr": "learning_rate",
    }
    renamed |= {"nb_epoch": "epochs", "b": "visible", "closed": "inclusive", "vertical_labels": "labels"}
    found = _UNEXPECTED.search(trouble.message)
    if found is None or found["word"] not in renamed:
        return None
    for cell, call in scene.failing(trouble, ast.Call):
        for word in call.keywords:
            if word.arg == found["word"]:
                edit = rekeying(cell.index, word, renamed[found["word"]])
                return Proposal((edit,), f"`{word.arg}=` is now `{renamed[found['word']]}=`")
    return None


@after("numeric-only", "pandas", "2.0", "columns of text are no longer left out silently", order=15)
def numbers_only(scene: Scene, trouble: Trouble) -> Proposal | None:
    """Means, correlations and the like over frames that hold texts."""
    names = {
        "corr",
        "cov",
        "mean",
        "median",
        "std",
        "var",
        "sem",
        "skew",
        "kurt",
        "kurtosis",
        "quantile",
        "sum",
        "prod",
        "max",
        "min",
        "corrwith",
    }
    text = (
        "could not convert string to float",
        "does not support operation",
        "agg function failed",
        "Could not convert",
        "Cannot perform reduction",
        "unsupported operand type",
        "not supported for the input types",
        "can't multiply",
        "Cannot convert",
        "complex() arg",
        "cannot perform",
        "not supported between instances of",
        "datetime64 type does not",
        "does not support reduction",
        "Invalid value",
        "could not convert",
        "has no kernel matching input types",
        "does not support aggregation",
        "Cannot aggregate non-numeric type",
        "Cannot interpolate with",
    )
    if not trouble.says(*text) or not {"TypeError", "ValueError", "NotImplementedError"} & set(trouble.bases):
        return None
    if not trouble.through("pandas/"):
        return None
    for cell, call in scene.failing(trouble, ast.Call):
        name = last_name(call.func)
        taken = {word.arg for word in call.keywords}
        if name in names and isinstance(call.func, ast.Attribute) and "numeric_only" not in taken:
            return Proposal(
                (argument_added(cell, call, "numeric_only=True"),),
                f"{name}() over columns of text raises since pandas 2",
            )
        first = call.args[0] if call.args else None
        plain = isinstance(first, ast.Constant) or (first is not None and last_name(first) in names)
        if name in ("agg", "aggregate") and plain and "numeric_only" not in taken:
            return Proposal(
                (argument_added(cell, call, "numeric_only=True"),), "agg() over columns of text raises since pandas 2"
            )
        inner_call = call_of(cell, call)
        if inner_call is not None and last_name(inner_call.func) in names:
            return Proposal(
                (argument_added(cell, inner_call, "numeric_only=True"),), "columns of text raise since pandas 2"
            )
    return None
