"""Download the URLs that a notebook reads before it runs, and let it read the local copies."""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict, cast

from d2c_mlops.convert.check.notebook_urls import (
    HTTPX,
    OPENED,
    RESPONSE,
    WGET,
    AddressSource,
    find_url_sources,
    url_file_name,
    without_secrets,
)
from d2c_mlops.convert.repair.added_imports import resolve_added_imports
from d2c_mlops.convert.repair.fix_registry import (
    Fix,
    Proposal,
    RepairContext,
    comment_out_edit,
    enclosing_statement,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.source.download import LARGEST, NotFetched, download, parse_address
from d2c_mlops.convert.source.finding import Edit

FOLDER = "fetched"  # beside the notebook: a cell may write a file of the same name
TOTAL = 4 << 30  # bytes of all files of a notebook
_SAVED = "__import__('d2c_mlops.saved_response', fromlist=['{0}']).{0}"
_FIX = Fix("fetched", "", "", "the URL is downloaded before the run, which has no network access")


class FetchedFacts(TypedDict):
    """A Fetched as JSON values."""

    url: str
    cell: int
    file: str
    size: int
    sha256: str
    reason: str


@dataclass(frozen=True)
class Fetched:
    """The result of a download; `cell` counts from 1."""

    url: str
    cell: int
    file: str = ""  # beside the notebook; empty where it was not fetched
    size: int = 0  # bytes
    sha256: str = ""
    reason: str = ""  # why it was not fetched

    def to_dict(self) -> FetchedFacts:
        """Return it as plain JSON values."""
        return cast("FetchedFacts", asdict(self))

    @property
    def text(self) -> str:
        """Return it in a line."""
        if self.reason:
            return f"cell {self.cell}: {without_secrets(self.url)} was not downloaded: {self.reason}"
        return f"cell {self.cell}: {without_secrets(self.url)} is read from {self.file} ({self.size:,} bytes)"


def safe_file_name(url: str, used_names: Collection[str]) -> str:
    """Return a plain file name in FOLDER for an address: letters, digits, dots and dashes, never a hidden file or a module of Python."""
    try:
        base = url_file_name(url)
    except ValueError:
        base = "file"
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", base)[-80:].lstrip("._-") or "file"
    module = name.lower().endswith((".py", ".pyc", ".pth", ".so", ".pyd", ".ipynb", ".cfg", ".ini"))
    if module or f"{FOLDER}/{name}".lower() in {used_name.lower() for used_name in used_names}:
        name = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}"
    return name


def download_urls(
    find_url_sources: Sequence[AddressSource],
    folder: Path,
    *,
    allowed: Collection[str] = (),  # HOST or HOST:PORT that may be inside this network
    used_names: Collection[str] = (),  # names of files that are beside the notebook
    progress: Callable[[str], None] = lambda text: None,
) -> list[Fetched]:
    """Download the sources into `folder`, which is emptied first; a failed download has a reason."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    by_target: dict[str, Fetched] = {}
    downloads: list[Fetched] = []
    names, bytes_left = set(used_names), TOTAL
    for source in find_url_sources:
        cell = source.cell.index + 1
        if source.refusal:
            downloads.append(Fetched(source.url, cell, reason=source.refusal))
            continue
        key = f"{source.url}\n{source.output}"
        if key not in by_target:
            try:
                parse_address(source.url)
                name = source.output or f"{FOLDER}/{safe_file_name(source.url, names)}"
                if source.output and source.output in {fetched.file for fetched in by_target.values()}:
                    raise NotFetched(f"another URL is already downloaded to {source.output}")
                names.add(name)
                progress(f"fetching {without_secrets(source.url)}")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                download_result = download(
                    source.url, target, allowed_private_hosts=allowed, max_bytes=min(LARGEST, bytes_left)
                )
                bytes_left -= download_result.size
                by_target[key] = Fetched(source.url, cell, name, download_result.size, download_result.sha256)
            except NotFetched as error:
                by_target[key] = Fetched(source.url, cell, reason=str(error))
        fetched = by_target[key]
        downloads.append(Fetched(fetched.url, cell, fetched.file, fetched.size, fetched.sha256, fetched.reason))
    return downloads


def download_fixes(context: RepairContext, fetched: Sequence[Fetched]) -> list[tuple[Fix, Proposal]]:
    """Return proposals that let the notebook read the local copies; the report lists them as fixes."""
    files = {(download.url, download.cell): download.file for download in fetched if download.file}
    pairs = []
    for source in find_url_sources(context.subject):
        name = files.get((source.url, source.cell.index + 1))
        if name and not source.refusal and (edits := _download_edits(context, source, name)):
            reason = f"{without_secrets(source.url)} was downloaded before and is read from {name}"
            pairs.append((_FIX, Proposal(edits, reason)))
    return pairs


def _download_edits(context: RepairContext, source: AddressSource, name: str) -> tuple[Edit, ...]:
    cell, call, url_argument = source.cell, source.call, source.given
    if source.magic is not None:
        lines = cell.source.split("\n")
        end = len(lines[source.magic.end_line - 1].encode())
        first = lines[source.magic.line - 1]
        text = ("pass  # " if first[:1].isspace() else "# ") + source.magic.command.replace("\n", " ")
        return (
            Edit(cell.index, source.magic.line, len(first) - len(first.lstrip()), source.magic.end_line, end, text),
        )
    if call is None or url_argument is None:
        return ()
    path = f"__import__('pathlib').Path({name!r})"
    if source.output:
        around = enclosing_statement(cell, call)
        if isinstance(around, ast.Expr) and around.value is call:
            return (comment_out_edit(cell, around, ""),)
        return (replace_node_edit(cell, call, f"({name!r}, None)"),)
    if OPENED.match(source.reader):
        return resolve_added_imports(
            context, cell, (replace_node_edit(cell, url_argument, f"{_SAVED.format('saved_url')}({name!r})"),)
        )
    if RESPONSE.match(source.reader):
        text = f"{_SAVED.format('saved_response')}({name!r}, {source.url!r})"
        return resolve_added_imports(context, cell, (replace_node_edit(cell, call, text),))
    if HTTPX.match(source.reader):
        module = "__import__('httpx')"
        text = f"{module}.Response(200, content={path}.read_bytes(), request={module}.Request('GET', {source.url!r}))"
        return resolve_added_imports(context, cell, (replace_node_edit(cell, call, text),))
    if WGET.match(source.reader):
        out = (
            call.args[1]
            if len(call.args) > 1
            else next((word.value for word in call.keywords if word.arg == "out"), None)
        )
        text = repr(name) if out is None else f"__import__('shutil').copyfile({name!r}, {source_text(cell, out)})"
        return resolve_added_imports(context, cell, (replace_node_edit(cell, call, text),))
    if any(word.arg == "storage_options" for word in call.keywords):  # refused by pandas for a file
        words = [word for word in call.keywords if word.arg != "storage_options" and word.value is not url_argument]
        plain = [repr(name), *(ast.unparse(argument) for argument in call.args[1:])]
        plain += [
            f"{word.arg}={ast.unparse(word.value)}" if word.arg else f"**{ast.unparse(word.value)}" for word in words
        ]
        return (replace_node_edit(cell, call, f"{ast.unparse(call.func)}({', '.join(plain)})"),)
    return (replace_node_edit(cell, url_argument, repr(name)),)


def download_advice(fetched: Sequence[FetchedFacts] | None) -> str:
    """Return the advice for a cell that needs the network; `fetched` is None if no download was requested."""
    if fetched is None:
        return "add --fetch to download it before the run, or download the file yourself and pass its folder: --data FOLDER"
    reasons = [
        f"{without_secrets(download['url'])}: {download['reason']}" for download in fetched if download["reason"]
    ]
    if reasons:
        return f"{'; '.join(reasons)}. Download the file and pass its folder: --data FOLDER"
    return "its URL is only known when the notebook runs: download the file and pass its folder: --data FOLDER"
