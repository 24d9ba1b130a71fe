"""Look up input files in the folder that the parameters name."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from d2c_mlops.convert.meaning.path_values import Values
from d2c_mlops.convert.plan.author_functions import function_reads
from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.plan import Plan
from d2c_mlops.convert.plan.row_dependence import functions_called
from d2c_mlops.convert.source.path_exists import is_file, path_exists_and_readable
from d2c_mlops.convert.source.source_edits import TextChange, node_text_change
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
    """The file reads of a notebook, and the changes that make it read them from the data folder."""

    def __init__(self, plan: Plan, data: Path | None) -> None:
        self.plan, self.data = plan, data
        self.values = Values(data or Path())
        self.written: set[str] = set()
        for line in plan.lines:
            self.values.record_assignment(line.statement.node)
            for call in ast.walk(line.statement.node):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _WRITERS:
                    arguments = [*call.args, *(word.value for word in call.keywords)]
                    texts = [
                        value for argument in arguments if (value := self.values.constant_path(argument)) is not None
                    ]
                    self.written |= {PurePosixPath(text.replace("\\", "/")).name for text in texts}

    def put(self, blocks: Sequence[Block], parameters: CodeParameters, used_names: set[str], default: str) -> None:
        """Put the changes into `parameters`; pieces that read files take the folder as a parameter."""
        functions = self._defined_functions()
        readers = {name for name, read in functions.items() if list(self._read_sites(read))}
        calling = {name for name, read in functions.items() if readers & {name, *functions_called(read, self.plan)}}
        handed = self._can_take_folder(calling)
        for block in blocks:
            if block.kind not in ("step", "plain", "definition"):
                continue
            for line in block.lines:
                definition = block.kind == "definition"
                sites = list(self._read_sites(line.statement.node))
                calls = bool(handed and calling & set(functions_called(line.statement.node, self.plan)))
                if not (sites or (calls and not definition)):
                    continue
                if not parameters.folder:
                    parameters.folder = next(folder_name for folder_name in FOLDERS if folder_name not in used_names)
                    used_names.add(parameters.folder)
                plain = definition and (not handed or line.statement.node.name not in calling)  # type: ignore[attr-defined]
                folder = repr(default) if plain else parameters.folder
                if plain:
                    parameters.fixed.append((line.statement.cell, line.statement.node.name))  # type: ignore[attr-defined]
                for node, file, pattern in sites:
                    change = self._path_change(node, file, pattern, folder, line.statement.source, line.statement.first)
                    parameters.changes.setdefault(line.statement.place, []).append(change)
                    parameters.files += self._inferred_files(node, file)
                    parameters.computed = parameters.computed or not (file or pattern)
                if block.kind != "definition" and parameters.folder not in block.parameters:
                    block.parameters.insert(0, parameters.folder)
        for name in calling if handed and parameters.folder else ():
            function = self.plan.functions[name]
            self.plan.functions[name] = replace(function, extras=(*function.extras, parameters.folder))

    def _defined_functions(self) -> dict[str, ast.stmt]:
        return {name: function.statement.node for name, function in self.plan.functions.items() if not function.reason}

    def _can_take_folder(self, names: set[str]) -> bool:
        """Whether all these functions can get the folder as an argument: none is a class or passed on as a value."""
        every = [line.statement.node for line in self.plan.lines]
        for name in names:
            if not isinstance(self.plan.functions[name].statement.node, ast.FunctionDef):
                return False
            if any(call is None for node in every for call, _ in function_reads(node, name)):
                return False
            if any(
                word.arg is None
                for node in every
                for call, _ in function_reads(node, name)
                if call
                for word in call.keywords
            ):
                return False
        return True

    def _read_sites(self, node: ast.AST) -> Iterator[tuple[ast.expr, str, bool]]:
        """Yield each path that is read: its node, the file if it is a constant, and whether it is a pattern."""
        for call in (part for part in ast.walk(node) if isinstance(part, ast.Call)):
            path = self.plan.inference.path(call.func)
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            opens = name == "open" and not path and _opens_for_reading(call)
            pattern = path in _PATTERNS
            if opens or pattern or (path.startswith(_READERS) and path not in _NO_FILES):
                words = [word.value for word in call.keywords if word.arg in _WORDS]
                for path_node in [*call.args[:1], *words]:
                    yield from self._read_site(path_node, pattern)
            elif isinstance(call.func, ast.Attribute) and call.func.attr in _PATH_METHODS and _is_path(path):
                owner = call.func.value
                if (
                    not isinstance(owner, ast.Constant)
                    and self.values.constant_path(owner) is not None
                    and _opens_for_reading(call)
                ):
                    yield from self._read_site(owner, False)

    def _read_site(self, path_node: ast.expr, pattern: bool) -> Iterator[tuple[ast.expr, str, bool]]:
        if isinstance(path_node, ast.Call) and self.plan.inference.path(path_node.func).startswith(
            ("io.", "urllib.", "requests.")
        ):
            return
        value = self.values.constant_path(path_node)
        text = (value or "").replace("\\", "/")
        if "://" in text or PurePosixPath(text).is_absolute() or PurePosixPath(text).name in self.written - {""}:
            return
        if pattern:
            yield path_node, "", True
        elif isinstance(path_node, ast.Constant):
            if (
                isinstance(path_node.value, str)
                and text
                and (self.data is None or path_exists_and_readable(self.data / text))
            ):
                yield path_node, str(PurePosixPath(text)), False
        elif isinstance(path_node, ast.Name | ast.Attribute | ast.Subscript | ast.BinOp | ast.JoinedStr | ast.Call):
            yield path_node, "", False

    def _inferred_files(self, node: ast.expr, file: str) -> list[str]:
        """Return the files of a path, as far as they can be inferred."""
        text = file or (self.values.constant_path(node) or "").replace("\\", "/")
        return [text] if text and (file or (self.data is not None and is_file(self.data / text))) else []

    def _path_change(
        self, node: ast.expr, file: str, pattern: bool, folder: str, source: str, first: int
    ) -> TextChange:
        if file:
            return node_text_change(node, f"find_data({folder}) / {file!r}")
        lines = [line.encode() for line in source.split("\n")]
        start, end = node.lineno - first, (node.end_lineno or node.lineno) - first
        if start == end:
            text = lines[start][node.col_offset : node.end_col_offset].decode()
        else:
            text = ast.unparse(node)
        return node_text_change(node, f"str(find_data({folder}) / {text})" if pattern else f"in_data({folder}, {text})")


def _is_path(path: str) -> bool:
    """Whether a method may belong to a path: its owner is a path or unknown."""
    return not path or path.startswith("pathlib.")


def _opens_for_reading(call: ast.Call) -> bool:
    """Whether `open` reads: no mode, or one that begins with r."""
    if isinstance(call.func, ast.Attribute) and call.func.attr != "open":
        return True
    place = 1 if isinstance(call.func, ast.Name) else 0
    mode_node = (
        call.args[place] if len(call.args) > place else next((w.value for w in call.keywords if w.arg == "mode"), None)
    )
    return mode_node is None or (isinstance(mode_node, ast.Constant) and str(mode_node.value).startswith("r"))
