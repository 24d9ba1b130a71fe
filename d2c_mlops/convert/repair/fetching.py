"""Addresses that a notebook reads, found without running it; downloaded before it runs in isolation, and read from there."""

from __future__ import annotations

import ast
import hashlib
import re
import shlex
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from d2c_mlops.convert.check.rule import Subject
from d2c_mlops.convert.meaning.inference import Inference
from d2c_mlops.convert.repair.importing import imported
from d2c_mlops.convert.repair.mending import Mender, Proposal, Scene, replaced, spelled, statement_of, without_statement
from d2c_mlops.convert.source.downloading import LARGEST, NotFetched, checked, download
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.magics import Magic
from d2c_mlops.convert.source.notebook import Cell

FOLDER = "fetched"  # beside the notebook: a cell may write a file of the same name
TOTAL = 4 << 30  # bytes of all files of a notebook
_WEB = re.compile(r"(?i)^(?:https?|ftp|s3|gs|abfss?|hdfs)://[^\s/]+")
_TABLE = re.compile(
    r"^(?:pandas|geopandas|polars|modin\.pandas|dask\.dataframe)\.(?:read_\w+|ExcelFile)$|^numpy\.(?:loadtxt|genfromtxt)$"
)
_OPENED = re.compile(r"^urllib\.request\.(?:urlopen|urlretrieve|Request)$")
_RESPONSE = re.compile(r"^(?:requests(?:\.api)?|requests(?:\.sessions)?\.[Ss]ession)\.get$")
_HTTPX = re.compile(r"^httpx\.get$")
_WGET = re.compile(r"^wget\.download$")
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
_SAVED = "__import__('d2c_mlops.saved_response', fromlist=['{0}']).{0}"
_MENDER = Mender("fetched", "", "", "the address is downloaded before the notebook runs, which has no network")


@dataclass(frozen=True)
class Source:
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


@dataclass(frozen=True)
class Fetched:
    """What became of an address; `cell` counts from 1."""

    url: str
    cell: int
    file: str = ""  # beside the notebook; empty where it was not fetched
    size: int = 0  # bytes
    sha256: str = ""
    reason: str = ""  # why it was not fetched

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)

    @property
    def text(self) -> str:
        """Return it in a line."""
        if self.reason:
            return f"cell {self.cell}: {shown(self.url)} was not fetched: {self.reason}"
        return f"cell {self.cell}: {shown(self.url)} is read from {self.file} ({self.size:,} bytes)"


def shown(url: str) -> str:
    """Return an address without what may be secret: its query, a user name, a password."""
    head = url.split("?")[0].split("#")[0]
    return re.sub(r"//[^/@]*@", "//", head)[:200]


def sources(subject: Subject) -> Iterator[Source]:
    """Yield the addresses that can be told without running the notebook, in document order."""
    for cell, call, path in subject.calls:
        reads = any(each.match(path) for each in (_TABLE, _OPENED, _RESPONSE, _HTTPX, _WGET))
        given = _given(call) if reads else None
        url = text_of(subject.inference, given) if given is not None else ""
        if given is None or not _WEB.match(url):
            continue
        words = {word.arg for word in call.keywords} & set(_ASKED_WITH) if not _TABLE.match(path) else set()
        refusal = f"it is asked for with {', '.join(sorted(map(str, words)))}" if words else ""
        if path.endswith((".urlopen", ".Request")) and len(call.args) > 1:
            refusal = "it is asked for with data"
        output = _retrieved(subject.inference, call) if path.endswith(".urlretrieve") else ""
        yield Source(url, cell, call.lineno, path, call, given, output=output, refusal=refusal)
    for cell in subject.notebook.code:
        for magic in cell.magics:
            if magic.kind == "shell" and magic.name in ("wget", "curl"):
                yield from _of_shell(cell, magic)


def text_of(inference: Inference, node: ast.expr | None, depth: int = 0) -> str:
    """Return the text that an expression has wherever it is run: literals, names that stand for them, and their sums."""
    if depth > 8 or node is None:
        return ""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.Name):
        binding = inference.binding(node)
        value = binding.value if binding is not None else None
        return text_of(inference, value, depth + 1) if isinstance(value, ast.expr) else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = (text_of(inference, side, depth + 1) for side in (node.left, node.right))
        return left + right if left and right else ""
    if isinstance(node, ast.JoinedStr):
        parts = [each.value if isinstance(each, ast.FormattedValue) else each for each in node.values]
        plain = all(not isinstance(each, ast.FormattedValue) or each.format_spec is None for each in node.values)
        texts = [text_of(inference, part, depth + 1) for part in parts]
        return "".join(texts) if plain and all(texts) else ""
    return ""


def _given(call: ast.Call) -> ast.expr | None:
    if call.args:
        return None if isinstance(call.args[0], ast.Starred) else call.args[0]
    named = {word.arg: word.value for word in call.keywords}
    return next((named[word] for word in _WORDS if word in named), None)


def _retrieved(inference: Inference, call: ast.Call) -> str:
    """Return the file into which `urlretrieve(url, file)` writes; empty where it cannot be told or lies outside the folder."""
    given = (
        call.args[1]
        if len(call.args) > 1
        else next((word.value for word in call.keywords if word.arg == "filename"), None)
    )
    text = text_of(inference, given)
    return text if _inside(text) else ""


def _inside(path: str) -> bool:
    """Whether a path lies in the notebook's folder."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and not path.startswith(("/", "~", "\\"))
        and ".." not in parts
        and "\\" not in path
        and ":" not in path
    )


def _of_shell(cell: Cell, magic: Magic) -> Iterator[Source]:
    """`!wget [-O FILE] URL`, `!curl -o FILE URL`; lines that do more are left as they are, and told."""
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
    output = output or (base_name(urls[0]) if urls else "")
    inside = _inside(output)
    refusal = "" if plain and inside else f"`!{magic.name}` with these words is not followed"
    for url in urls:
        yield Source(url, cell, magic.line, f"!{magic.name}", magic=magic, output=output, refusal=refusal)


def base_name(url: str) -> str:
    """Return the last part of an address's path, as programs name the file after it."""
    return PurePosixPath(unquote(urlsplit(url).path)).name or "index.html"


def safe_name(url: str, taken: Collection[str]) -> str:
    """Return a plain file name in FOLDER for an address: letters, digits, dots and dashes, never a hidden file or a module of Python."""
    try:
        base = base_name(url)
    except ValueError:
        base = "file"
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", base)[-80:].lstrip("._-") or "file"
    module = name.lower().endswith((".py", ".pyc", ".pth", ".so", ".pyd", ".ipynb", ".cfg", ".ini"))
    if module or f"{FOLDER}/{name}".lower() in {each.lower() for each in taken}:
        name = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}"
    return name


def fetch(
    found: Sequence[Source],
    folder: Path,
    *,
    allowed: Collection[str] = (),  # HOST or HOST:PORT that may be inside this network
    taken: Collection[str] = (),  # names of files that are beside the notebook
    progress: Callable[[str], None] = lambda text: None,
) -> list[Fetched]:
    """Download what was found into `folder`, which is emptied first; what cannot be had is told, with the reason."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made: dict[str, Fetched] = {}
    done: list[Fetched] = []
    names, left = set(taken), TOTAL
    for source in found:
        cell = source.cell.index + 1
        if source.refusal:
            done.append(Fetched(source.url, cell, reason=source.refusal))
            continue
        key = f"{source.url}\n{source.output}"
        if key not in made:
            try:
                checked(source.url)
                name = source.output or f"{FOLDER}/{safe_name(source.url, names)}"
                if source.output and source.output in {each.file for each in made.values()}:
                    raise NotFetched(f"another address is downloaded into {source.output}")
                names.add(name)
                progress(f"fetching {shown(source.url)}")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                got = download(source.url, target, allowed=allowed, largest=min(LARGEST, left))
                left -= got.size
                made[key] = Fetched(source.url, cell, name, got.size, got.sha256)
            except NotFetched as error:
                made[key] = Fetched(source.url, cell, reason=str(error))
        one = made[key]
        done.append(Fetched(one.url, cell, one.file, one.size, one.sha256, one.reason))
    return done


def offers(scene: Scene, fetched: Sequence[Fetched]) -> list[tuple[Mender, Proposal]]:
    """Return proposals that let the notebook read the local copies; each is a mend that the report names."""
    files = {(each.url, each.cell): each.file for each in fetched if each.file}
    made = []
    for source in sources(scene.subject):
        name = files.get((source.url, source.cell.index + 1))
        if name and not source.refusal and (edits := _edits(scene, source, name)):
            reason = f"{shown(source.url)} was downloaded before, and is read from {name}"
            made.append((_MENDER, Proposal(edits, reason)))
    return made


def _edits(scene: Scene, source: Source, name: str) -> tuple[Edit, ...]:
    cell, call, given = source.cell, source.call, source.given
    if source.magic is not None:
        lines = cell.source.split("\n")
        end = len(lines[source.magic.end_line - 1].encode())
        first = lines[source.magic.line - 1]
        text = ("pass  # " if first[:1].isspace() else "# ") + source.magic.command.replace("\n", " ")
        return (
            Edit(cell.index, source.magic.line, len(first) - len(first.lstrip()), source.magic.end_line, end, text),
        )
    if call is None or given is None:
        return ()
    path = f"__import__('pathlib').Path({name!r})"
    if source.output:
        around = statement_of(cell, call)
        if isinstance(around, ast.Expr) and around.value is call:
            return (without_statement(cell, around, ""),)
        return (replaced(cell, call, f"({name!r}, None)"),)
    if _OPENED.match(source.reader):
        return imported(scene, cell, (replaced(cell, given, f"{_SAVED.format('saved_url')}({name!r})"),))
    if _RESPONSE.match(source.reader):
        text = f"{_SAVED.format('saved_response')}({name!r}, {source.url!r})"
        return imported(scene, cell, (replaced(cell, call, text),))
    if _HTTPX.match(source.reader):
        module = "__import__('httpx')"
        text = f"{module}.Response(200, content={path}.read_bytes(), request={module}.Request('GET', {source.url!r}))"
        return imported(scene, cell, (replaced(cell, call, text),))
    if _WGET.match(source.reader):
        out = (
            call.args[1]
            if len(call.args) > 1
            else next((word.value for word in call.keywords if word.arg == "out"), None)
        )
        text = repr(name) if out is None else f"__import__('shutil').copyfile({name!r}, {spelled(cell, out)})"
        return imported(scene, cell, (replaced(cell, call, text),))
    if any(word.arg == "storage_options" for word in call.keywords):  # refused by pandas for a file
        words = [word for word in call.keywords if word.arg != "storage_options" and word.value is not given]
        plain = [repr(name), *(ast.unparse(each) for each in call.args[1:])]
        plain += [
            f"{word.arg}={ast.unparse(word.value)}" if word.arg else f"**{ast.unparse(word.value)}" for word in words
        ]
        return (replaced(cell, call, f"{ast.unparse(call.func)}({', '.join(plain)})"),)
    return (replaced(cell, given, repr(name)),)


def advice(fetched: Sequence[Mapping[str, Any]] | None) -> str:
    """Return what to do about a cell that wanted the network; `fetched` is None where nothing was to be fetched."""
    if fetched is None:
        return (
            "let d2c download it before the run: add --fetch; or download the file, and give its folder: --data FOLDER"
        )
    reasons = [f"{shown(each['url'])}: {each['reason']}" for each in fetched if each["reason"]]
    if reasons:
        return f"{'; '.join(reasons)}. Download the file, and give its folder: --data FOLDER"
    return (
        "its address cannot be told without running the notebook: download the file, and give its folder: --data FOLDER"
    )
