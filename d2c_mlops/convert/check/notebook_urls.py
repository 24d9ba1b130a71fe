"""Find the URLs that a notebook reads, without running it."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from d2c_mlops.convert.check.rule import Subject
from d2c_mlops.convert.meaning.inference import Inference
from d2c_mlops.convert.source.magics import Magic
from d2c_mlops.convert.source.notebook import Cell

_WEB = re.compile(r"(?i)^(?:https?|ftp|s3|gs|abfss?|hdfs)://[^\s/]+")
_TABLE = re.compile(
    r"^(?:pandas|geopandas|polars|modin\.pandas|dask\.dataframe)\.(?:read_\w+|ExcelFile)$|^numpy\.(?:loadtxt|genfromtxt)$"
)
OPENED = re.compile(r"^urllib\.request\.(?:urlopen|urlretrieve|Request)$")
RESPONSE = re.compile(r"^(?:requests(?:\.api)?|requests(?:\.sessions)?\.[Ss]ession)\.get$")
HTTPX = re.compile(r"^httpx\.get$")
WGET = re.compile(r"^wget\.download$")
_WORDS = ("filepath_or_buffer", "path_or_buf", "path_or_buffer", "path", "io", "source", "fname", "url", "fullurl")
_ASKED_WITH = ("params", "auth", "data", "json", "cookies", "cert", "method")
_SECRET_OPTIONS = {
    "-u",
    "--user",
    "--password",
    "--http-password",
    "--post-data",
    "-d",
    "--data",
    "-H",
    "--header",
    "-X",
}


@dataclass(frozen=True)
class AddressSource:
    """An address in a cell: what reads it, and the nodes or the line to rewrite."""

    url: str
    cell: Cell
    line: int
    reader: str
    call: ast.Call | None = None
    given: ast.expr | None = None
    magic: Magic | None = None
    output: str = ""  # the file into which a shell line writes it
    refusal: str = ""  # why it cannot be fetched, though it was found


def without_secrets(url: str) -> str:
    """Return an address without its query, user name and password, which may be secret."""
    head = url.split("?")[0].split("#")[0]
    return re.sub(r"//[^/@]*@", "//", head)[:200]


def find_url_sources(subject: Subject) -> Iterator[AddressSource]:
    """Yield the URLs that can be inferred without running the notebook, in document order."""
    for cell, call, path in subject.calls:
        reads = any(pattern.match(path) for pattern in (_TABLE, OPENED, RESPONSE, HTTPX, WGET))
        url_node = _path_argument(call) if reads else None
        url = constant_text(subject.inference, url_node) if url_node is not None else ""
        if url_node is None or not _WEB.match(url):
            continue
        words = {word.arg for word in call.keywords} & set(_ASKED_WITH) if not _TABLE.match(path) else set()
        refusal = f"it is requested with {', '.join(sorted(map(str, words)))}" if words else ""
        if path.endswith((".urlopen", ".Request")) and len(call.args) > 1:
            refusal = "it is requested with POST data"
        output = _retrieved_file(subject.inference, call) if path.endswith(".urlretrieve") else ""
        yield AddressSource(url, cell, call.lineno, path, call, url_node, output=output, refusal=refusal)
    for cell in subject.notebook.code:
        for magic in cell.magics:
            if magic.kind == "shell" and magic.name in ("wget", "curl"):
                yield from _shell_download_sources(cell, magic)


def constant_text(inference: Inference, node: ast.expr | None, depth: int = 0) -> str:
    """Return the constant text of an expression: literals, names of literals, and their sums; empty if it is not constant."""
    if depth > 8 or node is None:
        return ""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.Name):
        binding = inference.binding(node)
        value = binding.value if binding is not None else None
        return constant_text(inference, value, depth + 1) if isinstance(value, ast.expr) else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left_text, right = (constant_text(inference, side, depth + 1) for side in (node.left, node.right))
        return left_text + right if left_text and right else ""
    if isinstance(node, ast.JoinedStr):
        parts = [value.value if isinstance(value, ast.FormattedValue) else value for value in node.values]
        plain = all(not isinstance(value, ast.FormattedValue) or value.format_spec is None for value in node.values)
        texts = [constant_text(inference, part, depth + 1) for part in parts]
        return "".join(texts) if plain and all(texts) else ""
    return ""


def _path_argument(call: ast.Call) -> ast.expr | None:
    if call.args:
        return None if isinstance(call.args[0], ast.Starred) else call.args[0]
    keywords = {word.arg: word.value for word in call.keywords}
    return next((keywords[word] for word in _WORDS if word in keywords), None)


def _retrieved_file(inference: Inference, call: ast.Call) -> str:
    """Return the file into which `urlretrieve(url, file)` writes; empty if it is unknown or outside the folder."""
    url_node = (
        call.args[1]
        if len(call.args) > 1
        else next((word.value for word in call.keywords if word.arg == "filename"), None)
    )
    text = constant_text(inference, url_node)
    return text if _lies_in_folder(text) else ""


def _lies_in_folder(path: str) -> bool:
    """Whether a path lies in the notebook's folder."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and not path.startswith(("/", "~", "\\"))
        and ".." not in parts
        and "\\" not in path
        and ":" not in path
    )


def _shell_download_sources(cell: Cell, magic: Magic) -> Iterator[AddressSource]:
    """`!wget [-O FILE] URL`, `!curl -o FILE URL`; other forms are not changed, and the report names them."""
    try:
        words = shlex.split(magic.argument)
    except ValueError:
        return
    urls = [word for word in words if _WEB.match(word)]
    output, plain = "", not magic.target and len(urls) == 1
    for number, word in enumerate(words):
        if word in ("-O", "-o", "--output", "--output-document") and number + 1 < len(words):
            curl_remote = magic.name == "curl" and word == "-O"
            wget_log = magic.name == "wget" and word == "-o"
            output = output if curl_remote or wget_log else words[number + 1]
        plain = (
            plain
            and not (set("|;&<>`$") & set(word) - set("&" if word in urls else ""))
            and word not in _SECRET_OPTIONS
        )
        plain = plain and word not in ("-P", "--directory-prefix", "-i", "--input-file", "-r", "--recursive")
    if magic.name == "curl" and not output and not {"-O", "--remote-name", "-LO", "-OL", "-sLO", "-JLO"} & set(words):
        plain = False  # it shows the file instead of writing it
    output = output or (url_file_name(urls[0]) if urls else "")
    inside = _lies_in_folder(output)
    refusal = "" if plain and inside else f"`!{magic.name}` with these options is not supported"
    for url in urls:
        yield AddressSource(url, cell, magic.line, f"!{magic.name}", magic=magic, output=output, refusal=refusal)


def url_file_name(url: str) -> str:
    """Return the last part of an address's path, as programs name the file after it."""
    return PurePosixPath(unquote(urlsplit(url).path)).name or "index.html"
