"""Read any notebook into frozen cells: nbformat 3 and 4, damaged metadata, other kernels, IPython syntax, old Python."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from d2c_mlops.convert.source.magics import Magic, split_magics
from d2c_mlops.errors import DataRefused, UsageError

KERNEL_NAMES = frozenset(
    [
        "In",
        "Out",
        "_",
        "__",
        "___",
        "_dh",
        "_i",
        "_ih",
        "_ii",
        "_iii",
        "_oh",
        "display",
        "exit",
        "get_ipython",
        "quit",
        "open",
        "__name__",
        "__doc__",
        "__builtins__",
    ]
)
_PYTHON_2 = (
    "Missing parentheses in call to",
    "multiple exception types must be parenthesized",
    "leading zeros in decimal integer literals",
    "invalid hexadecimal literal",
)
_PYTHON_2_LINE = re.compile(
    r"^\s*(?:print\s+[\"'\w]|print\s*$|exec\s+[\"'\w]|raise\s+\w+\s*,\s|except\s+[\w.]+\s*,\s*\w+\s*:)|<>|`\w+`|\bur['\"]"
)
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PARSE = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True)
class SyntaxProblem:
    """Why a cell cannot be read as Python 3; lines and columns count from 1 within the cell."""

    kind: str  # python2, automagic or invalid
    message: str
    line: int
    column: int


@dataclass(frozen=True)
class Output:
    """One saved output; `data` maps MIME types to text, `text` is the visible text without colours."""

    kind: str  # stream, display, result or error
    text: str
    data: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Cell:
    """One cell; `python` has as many lines as `source`, without IPython's own syntax."""

    index: int  # place among all cells, from 0
    kind: str  # code, markdown or raw
    source: str
    python: str = ""
    magics: tuple[Magic, ...] = ()
    tags: tuple[str, ...] = ()
    execution_count: int | None = None
    outputs: tuple[Output, ...] = ()
    id: str = ""
    tree: ast.Module | None = field(default=None, compare=False, repr=False)
    problem: SyntaxProblem | None = None

    @property
    def number(self) -> int:
        """Place among all cells as a reader counts, from 1."""
        return self.index + 1


@dataclass(frozen=True)
class Notebook:
    """A notebook as stored on disk, with every cell in document order."""

    path: Path
    cells: tuple[Cell, ...]
    language: str  # python, r, julia, ...; lower case
    kernel: str
    nbformat: int
    metadata: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    @property
    def code(self) -> tuple[Cell, ...]:
        """The code cells."""
        return tuple(cell for cell in self.cells if cell.kind == "code")

    @property
    def is_python(self) -> bool:
        """Whether the kernel language is Python."""
        return self.language in ("python", "ipython")


def read_notebook(path: Path | str) -> Notebook:
    """Read a notebook without running it; raises UsageError for a wrong path, DataRefused if the file is not a notebook."""
    path = Path(path)
    if path.is_dir():
        raise UsageError("this is a folder, not a notebook", where=str(path), next=f"d2c check {path}")
    if not path.exists():
        raise UsageError("there is no such notebook", where=str(path), next=f"ls {path.parent}")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the file cannot be read: {error.strerror}", where=str(path), next=f"ls -l {path}") from error
    return parse_notebook(raw, path)


def parse_notebook(raw: bytes | str, path: Path | str = "notebook.ipynb") -> Notebook:
    """Read a notebook from its JSON; messages name `path`. Raises DataRefused if it is not a notebook."""
    path = Path(path)
    document = json_document(decode_notebook(raw, path), path)
    major = document.get("nbformat")
    major = major if isinstance(major, int) and not isinstance(major, bool) else 4
    cells = json_cells(document, path)
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    language = _kernel_language(metadata, cells)
    is_python = language in ("python", "ipython")
    spec = _as_mapping(metadata.get("kernelspec"))
    return Notebook(
        path=path,
        cells=tuple(_parse_cell(number, cell, is_python) for number, cell in enumerate(cells)),
        language=language,
        kernel=str(spec.get("name") or ""),
        nbformat=major,
        metadata=metadata,
    )


def code_cell(
    index: int,
    source: str,
    *,
    tags: tuple[str, ...] = (),
    outputs: tuple[Output, ...] = (),
    id: str = "",
    execution_count: int | None = None,
) -> Cell:
    """Build a code cell from its source: without magics, parsed, with a syntax problem instead of an exception."""
    python, magics = split_magics(source)
    tree, problem = _parse_code(python)
    return Cell(index, "code", source, python, magics, tags, execution_count, outputs, id, tree, problem)


def decode_notebook(raw: bytes | str, path: Path) -> str:
    """Decode a notebook's bytes; raises DataRefused for a binary file."""
    if isinstance(raw, str):
        return raw
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        if raw[:1] == b"{":
            return raw.decode("latin-1")
        raise DataRefused(
            "this is a binary file, not a notebook",
            where=str(path),
            next=f"open {path.name} in JupyterLab and save it as .ipynb",
        ) from None


def json_document(text: str, path: Path) -> dict[str, object]:
    """Parse a notebook's JSON; raises DataRefused with the actual kind of the file."""
    start = text.lstrip()[:200].lower()
    again = f"download {path.name} again"
    if not start:
        raise DataRefused("the file is empty", where=str(path), next=f"restore {path.name} from its checkpoint")
    if start.startswith("<"):
        what = "this is a web page, not a notebook: the page was saved instead of the file"
        if start.startswith("<<<<<<<"):
            what = "the file contains unresolved merge conflicts"
            again = "resolve them, with `nbdev-fix` or `git checkout --theirs`"
        raise DataRefused(what, where=str(path), next=again + (" by its raw link" if "fetch" in again else ""))
    if start.startswith("version https://git-lfs"):
        raise DataRefused("this is a Git LFS pointer, not the notebook itself", where=str(path), next="git lfs pull")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f"{path}, row {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        ended = isinstance(error, json.JSONDecodeError) and error.pos >= len(text.rstrip()) - 1
        ended = ended or not text.rstrip().endswith("}")
        what = "the notebook is truncated" if start.startswith("{") and ended else "this is not valid JSON"
        if re.search(r"^(<<<<<<<|>>>>>>>) ", text, re.MULTILINE):
            what, again = (
                "the file contains unresolved merge conflicts",
                "resolve them, with `nbdev-fix` or by hand",
            )
        raise DataRefused(f"{what}: {error}", where=place, next=again) from error
    if not isinstance(document, dict):
        raise DataRefused(
            "this is JSON, but not a notebook: the top level is not an object", where=str(path), next=again
        )
    return document


def json_cells(document: Mapping[str, object], path: Path) -> list[dict[str, object]]:
    """Return the cells of a notebook's JSON, of all worksheets in nbformat 3; raises DataRefused if it has none."""
    cells = document.get("cells")
    if not isinstance(cells, list):
        sheets = document.get("worksheets")
        sheets = sheets if isinstance(sheets, list) else []
        cell_lists = [
            sheet["cells"] for sheet in sheets if isinstance(sheet, dict) and isinstance(sheet.get("cells"), list)
        ]
        if not cell_lists:
            where = str(path)
            raise DataRefused(
                "this is JSON, but not a notebook: it has no cells", where=where, next=f"check {path.name}"
            )
        cells = [cell for sheet in cell_lists for cell in sheet]
    major = document.get("nbformat")
    if isinstance(major, int) and major > 4:
        where = str(path)
        raise DataRefused(f"notebook format {major} is newer than 4", where=where, next="save it as nbformat 4")
    return [cell for cell in cells if isinstance(cell, dict)]


def _kernel_language(metadata: Mapping[str, object], cells: Sequence[Mapping[str, object]]) -> str:
    """The kernel's language, from the first place of the metadata that has it."""
    spec, info = _as_mapping(metadata.get("kernelspec")), _as_mapping(metadata.get("language_info"))
    for language in (info.get("name"), spec.get("language"), metadata.get("language")):
        if isinstance(language, str) and language.strip():
            return _plain_language(language)
    for cell in cells:
        language = cell.get("language")
        if isinstance(language, str):
            return _plain_language(language)
    name = str(spec.get("name") or spec.get("display_name") or "")
    kernel = name.strip().lower()
    is_other = kernel in ("ir", "r") or kernel.startswith(("julia", "scala")) or "spylon" in kernel
    return _plain_language(name) if is_other else "python"


def _plain_language(language: str) -> str:
    language = language.strip().lower()
    if language in ("ir", "r"):
        return "r"
    return "julia" if language.startswith("julia") else "python" if language.startswith("python") else language


def _parse_cell(number: int, raw: Mapping[str, object], is_python: bool) -> Cell:
    kind = raw.get("cell_type")
    metadata = _as_mapping(raw.get("metadata"))
    tags = metadata.get("tags")
    source = _join_lines(raw.get("source", raw.get("input", ""))).replace("\r\n", "\n").replace("\r", "\n")
    cell_id = str(raw.get("id") or "")
    names = tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()
    if kind != "code":
        kind = "raw" if kind == "raw" else "markdown"
        if raw.get("cell_type") == "heading":
            level = raw.get("level")
            source = f"{'#' * (level if isinstance(level, int) and 0 < level < 7 else 1)} {source}"
        return Cell(number, kind, source, tags=names, id=cell_id)
    count = raw.get("execution_count", raw.get("prompt_number"))
    outputs = raw.get("outputs")
    saved = (
        tuple(_parse_output(output) for output in outputs if isinstance(output, dict))
        if isinstance(outputs, list)
        else ()
    )
    count = count if isinstance(count, int) and not isinstance(count, bool) else None
    if is_python:
        return code_cell(number, source, tags=names, outputs=saved, id=cell_id, execution_count=count)
    return Cell(number, "code", source, tags=names, execution_count=count, outputs=saved, id=cell_id)


def _parse_output(raw: Mapping[str, object]) -> Output:
    kind = {
        "stream": "stream",
        "error": "error",
        "pyerr": "error",
        "pyout": "result",
        "execute_result": "result",
    }
    output_kind = kind.get(str(raw.get("output_type")), "display")
    data = {str(key): _join_lines(value) for key, value in _as_mapping(raw.get("data")).items()}
    short = {"text": "text/plain", "html": "text/html", "png": "image/png", "svg": "image/svg+xml"}
    if output_kind != "stream":
        data |= {mime: _join_lines(raw[key]) for key, mime in short.items() if key in raw}
    text = _join_lines(raw.get("text", "")) if output_kind == "stream" else data.get("text/plain", "")
    if output_kind == "error":
        trace = raw.get("traceback")
        lines = [_join_lines(line) for line in trace] if isinstance(trace, list) else []
        text = "\n".join(lines) or f"{raw.get('ename', '')}: {raw.get('evalue', '')}"
    return Output(output_kind, _ANSI.sub("", text), data)


def _parse_code(python: str) -> tuple[ast.Module | None, SyntaxProblem | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = compile(python, "cell", "exec", flags=_PARSE, dont_inherit=True)
            if not isinstance(tree, ast.Module):
                return None, None
            for statement in tree.body:  # IPython compiles each statement by itself, so a late __future__ is fine
                alone = ast.Module([statement], [])
                compile(alone, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        return None, _syntax_problem(python, error)
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return None, SyntaxProblem("invalid", f"it cannot be parsed: {error}", 1, 1)
    return tree, None


def _syntax_problem(python: str, error: SyntaxError) -> SyntaxProblem:
    line = max(1, error.lineno or 1)
    lines = python.split("\n")
    text = lines[line - 1] if line <= len(lines) else ""
    message = error.msg or "invalid syntax"
    if message.startswith(_PYTHON_2) or _PYTHON_2_LINE.search(text):
        return SyntaxProblem("python2", message, line, max(1, error.offset or 1))
    if re.match(r"\s*(?:pip3?|conda|uv)\s+(?:install|uninstall|pip)\b", text):
        return SyntaxProblem("automagic", message, line, 1)
    return SyntaxProblem("invalid", message, line, max(1, error.offset or 1))


def _as_mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _join_lines(value: object) -> str:
    """Join nbformat's lists of lines; lone surrogates become replacement marks, so that every text can be encoded."""
    if isinstance(value, list):
        value = "".join(part for part in value if isinstance(part, str))
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8")
