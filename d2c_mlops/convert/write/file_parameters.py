"""Look up input files in the folder that the parameters name."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from d2c_mlops.convert.meaning.path_values import Values
from d2c_mlops.convert.plan.author_functions import mentions
from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.plan import Plan
from d2c_mlops.convert.plan.row_dependence import functions_called
from d2c_mlops.convert.source.path_exists import exists, is_file
from d2c_mlops.convert.source.source_edits import TextChange, replacing
from d2c_mlops.convert.write.parameter_list import CodeParameters

FOLDERS = ("data_folder", "data_dir", "input_folder", "files_folder")
_READERS = ("pandas.read_", "numpy.load", "numpy.genfromtxt", "numpy.fromfile", "pandas.ExcelFile", "pandas.HDFStore",
            "joblib.load", "sqlite3.connect", "zipfile.ZipFile", "gzip.open", "pyarrow.parquet.read", "os.listdir", "os.scandir",
            "os.walk", "os.path.exists", "os.path.isfile", "os.path.getsize", "polars.read_", "duckdb.read_", "io.open",
            "d2c_mlops.saved_response.")  # fmt: skip
_NO_FILES = ("pandas.read_sql", "pandas.read_clipboard", "pandas.read_gbq")
_PATTERNS = ("glob.glob", "glob.iglob")
_PATH_METHODS = frozenset({"glob", "rglob", "iterdir", "read_text", "read_bytes", "open", "exists", "is_file"})
_WORDS = ("filepath_or_buffer", "io", "path", "path_or_buf", "file", "fname", "database")
_WRITERS = frozenset(
    {"to_csv", "to_excel", "to_parquet", "to_pickle", "to_json", "to_feather", "dump", "save", "savetxt", "savefig"}
)


class FileReads:
    """Where a notebook reads files, and the changes that let it read them from the data's folder."""

    def __init__(self, plan: Plan, data: Path | None) -> None:
        self.plan, self.data = plan, data
        self.values = Values(data or Path())
        self.written: set[str] = set()
        for line in plan.lines:
            self.values.take(line.statement.node)
            for call in ast.walk(line.statement.node):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _WRITERS:
                    given = [*call.args, *(word.value for word in call.keywords)]
                    texts = [value for each in given if (value := self.values.of(each)) is not None]
                    self.written |= {PurePosixPath(text.replace("\\", "/")).name for text in texts}

    def put(self, found: Sequence[Block], made: CodeParameters, taken: set[str], default: str) -> None:
        """Put the changes into `made`; pieces that read files take the folder as a parameter."""
        functions = self._functions()
        readers = {name for name, read in functions.items() if list(self._sites(read))}
        calling = {name for name, read in functions.items() if readers & {name, *functions_called(read, self.plan)}}
        handed = self._can_take(calling)
        for block in found:
            if block.kind not in ("step", "plain", "definition"):
                continue
            for line in block.lines:
                definition = block.kind == "definition"
                sites = list(self._sites(line.statement.node))
                calls = bool(handed and calling & set(functions_called(line.statement.node, self.plan)))
                if not (sites or (calls and not definition)):
                    continue
                if not made.folder:
                    made.folder = next(each for each in FOLDERS if each not in taken)
                    taken.add(made.folder)
                plain = definition and (not handed or line.statement.node.name not in calling)  # type: ignore[attr-defined]
                folder = repr(default) if plain else made.folder
                if plain:
                    made.fixed.append((line.statement.cell, line.statement.node.name))  # type: ignore[attr-defined]
                for node, file, pattern in sites:
                    change = self._change(node, file, pattern, folder, line.statement.source, line.statement.first)
                    made.changes.setdefault(line.statement.place, []).append(change)
                    made.files += self._files(node, file)
                    made.computed = made.computed or not (file or pattern)
                if block.kind != "definition" and made.folder not in block.parameters:
                    block.parameters.insert(0, made.folder)
        for name in calling if handed and made.folder else ():
            own = self.plan.functions[name]
            self.plan.functions[name] = replace(own, extras=(*own.extras, made.folder))

    def _functions(self) -> dict[str, ast.stmt]:
        return {name: function.statement.node for name, function in self.plan.functions.items() if not function.reason}

    def _can_take(self, names: set[str]) -> bool:
        """Whether all these functions can be handed the folder: none is a class, none is passed on as a value."""
        every = [line.statement.node for line in self.plan.lines]
        for name in names:
            if not isinstance(self.plan.functions[name].statement.node, ast.FunctionDef):
                return False
            if any(call is None for node in every for call, _ in mentions(node, name)):
                return False
            if any(
                word.arg is None for node in every for call, _ in mentions(node, name) if call for word in call.keywords
            ):
                return False
        return True

    def _sites(self, node: ast.AST) -> Iterator[tuple[ast.expr, str, bool]]:
        """Yield each path that is read: its node, the file where that is written out, and whether it is a pattern."""
        for call in (part for part in ast.walk(node) if isinstance(part, ast.Call)):
            path = self.plan.inference.path(call.func)
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            opens = name == "open" and not path and _reads(call)
            pattern = path in _PATTERNS
            if opens or pattern or (path.startswith(_READERS) and path not in _NO_FILES):
                words = [word.value for word in call.keywords if word.arg in _WORDS]
                for given in [*call.args[:1], *words]:
                    yield from self._site(given, pattern)
            elif isinstance(call.func, ast.Attribute) and call.func.attr in _PATH_METHODS and _is_path(path):
                owner = call.func.value
                if not isinstance(owner, ast.Constant) and self.values.of(owner) is not None and _reads(call):
                    yield from self._site(owner, False)

    def _site(self, given: ast.expr, pattern: bool) -> Iterator[tuple[ast.expr, str, bool]]:
        if isinstance(given, ast.Call) and self.plan.inference.path(given.func).startswith(
            ("io.", "urllib.", "requests.")
        ):
            return
        value = self.values.of(given)
        text = (value or "").replace("\\", "/")
        if "://" in text or PurePosixPath(text).is_absolute() or PurePosixPath(text).name in self.written - {""}:
            return
        if pattern:
            yield given, "", True
        elif isinstance(given, ast.Constant):
            if isinstance(given.value, str) and text and (self.data is None or exists(self.data / text)):
                yield given, str(PurePosixPath(text)), False
        elif isinstance(given, ast.Name | ast.Attribute | ast.Subscript | ast.BinOp | ast.JoinedStr | ast.Call):
            yield given, "", False

    def _files(self, node: ast.expr, file: str) -> list[str]:
        """Return the files that a path stands for, as far as that can be inferred."""
        text = file or (self.values.of(node) or "").replace("\\", "/")
        return [text] if text and (file or (self.data is not None and is_file(self.data / text))) else []

    def _change(self, node: ast.expr, file: str, pattern: bool, folder: str, source: str, first: int) -> TextChange:
        if file:
            return replacing(node, f"find_data({folder}) / {file!r}")
        lines = [line.encode() for line in source.split("\n")]
        start, end = node.lineno - first, (node.end_lineno or node.lineno) - first
        if start == end:
            text = lines[start][node.col_offset : node.end_col_offset].decode()
        else:
            text = ast.unparse(node)
        return replacing(node, f"str(find_data({folder}) / {text})" if pattern else f"in_data({folder}, {text})")


def _is_path(path: str) -> bool:
    """Whether a method may be one of a path: nothing is known of its owner, or it is one."""
    return not path or path.startswith("pathlib.")


def _reads(call: ast.Call) -> bool:
    """Whether `open` reads: no mode, or one that begins with r."""
    if isinstance(call.func, ast.Attribute) and call.func.attr != "open":
        return True
    place = 1 if isinstance(call.func, ast.Name) else 0
    given = (
        call.args[place] if len(call.args) > place else next((w.value for w in call.keywords if w.arg == "mode"), None)
    )
    return given is None or (isinstance(given, ast.Constant) and str(given.value).startswith("r"))
