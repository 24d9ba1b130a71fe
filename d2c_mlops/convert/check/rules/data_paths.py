"""Rules about files and URLs that exist only on the author's machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from d2c_mlops.convert.check.notebook_urls import constant_text, find_url_sources, without_secrets
from d2c_mlops.convert.check.rule import Subject, make_hit, make_rule_example, rule
from d2c_mlops.convert.source.finding import Hit
from d2c_mlops.convert.source.notebook import Cell
from d2c_mlops.convert.source.path_exists import is_file, is_folder, path_exists_and_readable

_ABSOLUTE = re.compile(
    r"^(?:/(?:home|Users|mnt|media|data|tmp|var|opt|root|Volumes|dbfs|srv|private|work|export|scratch)/[^\n]+"
    r"|[A-Za-z]:[\\/]\S[^\n]*|~/[^\n]+|\\\\\w+\\[^\n]+)$"
)
_PLATFORM_PATH = re.compile(r"^(?:\.\.)?/(?:content|kaggle)/|^\.\./input/|^/dbfs/|^dbfs:/")
_URL = re.compile(r"^(?:https?|ftp|s3|gs|abfss?|hdfs)://[\w.-]+/\S+$")
_FILE = re.compile(
    r"^[\w .()\\/+&,'-]*[\w)]\.(csv|tsv|txt|xlsx?|json|parquet|feather|pkl|joblib|zip|gz|db|sqlite)$",
    re.IGNORECASE,
)
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_READS = re.compile(r"^pandas\.(read_\w+|ExcelFile)$|^numpy\.(load|loadtxt|genfromtxt)$|^(joblib|pickle)\.load$")
_DOWNLOADS = re.compile(
    r"^requests\.post$|^seaborn\.load_dataset$|^sklearn\.datasets\.fetch_|^yfinance\.|^pandas_datareader"
)


def _path_texts(subject: Subject) -> Iterator[tuple[Cell, ast.Constant]]:
    for cell, node in subject.nodes:
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 500):
            continue
        if id(node) not in subject.docstrings | subject.fstring_node_ids:
            yield cell, node


@rule(
    "D2C201",
    "absolute-path",
    "error",
    why="the path exists on one machine only",
    fix="store the data beside the notebook, or make the folder a parameter",
    bad=make_rule_example("import pandas as pd\nsales = pd.read_csv('C:/Users/ann/sales.csv')"),
    good=make_rule_example("import pandas as pd\nsales = pd.read_csv('data/sales.csv')\nrate = 'a/b'"),
)
def absolute_path(subject: Subject) -> Iterator[Hit]:
    for cell, node in _path_texts(subject):
        text = str(node.value)
        if _ABSOLUTE.match(text) and not _PLATFORM_PATH.match(text):
            yield make_hit(cell, node, f"`{text[:80]}` is a path of another machine")
    for cell in subject.notebook.code:
        for magic in cell.magics:
            if magic.name == "cd" and _ABSOLUTE.match(magic.argument.strip("'\"")):
                yield Hit(cell.index, magic.line, 1, f"`cd {magic.argument[:80]}` goes to a path of another machine")


@rule(
    "D2C202",
    "path-outside-folder",
    "warning",
    why="files above the notebook's folder are not copied with it",
    fix="move the file into the project, or make the folder a parameter",
    bad=make_rule_example("import pandas as pd\nsales = pd.read_csv('../raw/sales.csv')"),
    good=make_rule_example("import pandas as pd\nsales = pd.read_csv('raw/sales.csv')"),
)
def path_outside_folder(subject: Subject) -> Iterator[Hit]:
    for cell, node in _path_texts(subject):
        text = str(node.value).replace("\\", "/")
        if text.startswith("../") and not _PLATFORM_PATH.match(text) and re.search(r"[\w/]", text[3:]):
            yield make_hit(cell, node, f"`{text[:80]}` is outside the notebook's folder")


@rule(
    "D2C203",
    "file-missing",
    "warning",
    why="the cell raises FileNotFoundError unless the file is beside the notebook",
    fix="put the file beside the notebook, with exactly this name",
    bad=make_rule_example("import pandas as pd\nsales = pd.read_csv('no/such/sales.csv')"),
    good=make_rule_example(
        "import pandas as pd\nsales = pd.DataFrame({'a': [1]})\nsales.to_csv('s.csv')\npd.read_csv('s.csv')"
    ),
)
def file_missing(subject: Subject) -> Iterator[Hit]:
    folder = subject.folder or Path("/nonexistent")
    files_written = _files_written(subject)
    if any(magic.name == "cd" or "chdir" in magic.command for cell in subject.notebook.code for magic in cell.magics):
        return
    for cell, node, text in _read_files(subject):
        path = folder / text.replace("\\", "/")
        if text in files_written or Path(text).name in files_written or path_exists_and_readable(path):
            continue
        near = _similar_file(path)
        if near is not None:
            fix = f"use the name on disk: `{near}`"
            yield make_hit(cell, node, f"`{text}` has the name `{near}` on disk", fix=fix, severity="error")
        else:
            yield make_hit(cell, node, f"`{text}` does not exist")


def _read_files(subject: Subject) -> Iterator[tuple[Cell, ast.expr, str]]:
    for cell, call, path in subject.calls:
        if not (_READS.match(path) and call.args):
            continue
        path_node = call.args[0]
        binding = subject.inference.binding(path_node)
        value = binding.value if binding is not None and binding.position is None else path_node
        text = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
        if _FILE.match(text) and not _ABSOLUTE.match(text) and not _PLATFORM_PATH.match(text):
            yield cell, path_node, text


def _files_written(subject: Subject) -> set[str]:
    """Names of files that the notebook itself creates: written, opened, downloaded, unpacked."""
    read = {id(node) for _, node, _ in _read_files(subject)}
    names: set[str] = set()
    for _, node in _path_texts(subject):
        if id(node) not in read and _FILE.match(str(node.value)):
            names |= {str(node.value), Path(str(node.value)).name}
    for cell in subject.notebook.code:
        for magic in cell.magics:
            words = re.split(r"[\s'\"=/]+", magic.command)
            names |= {word for word in words if "." in word}
    return names


def _similar_file(path: Path) -> str | None:
    """The only file of the folder whose name differs just by case, spaces or a ` (1)`."""
    if not is_folder(path.parent):
        return None
    similar = [
        file.name for file in path.parent.iterdir() if _normalized_name(file.name) == _normalized_name(path.name)
    ]
    return similar[0] if len(similar) == 1 else None


def _normalized_name(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return re.sub(r"[\s_-]+", "", re.sub(r" ?\(\d+\)$", "", stem)).lower() + dot + suffix.lower()


@rule(
    "D2C204",
    "file-of-another-type",
    "error",
    why="the name says text but the content is a spreadsheet, so the reader fails or returns wrong data",
    fix="read it with pd.read_excel, or export it again as CSV",
    bad=make_rule_example(
        "import pandas as pd\nsales = pd.read_csv('sales.csv')", files={"sales.csv": b"PK\x03\x04..."}
    ),
    good=make_rule_example(
        "import pandas as pd\nsales = pd.read_csv('sales.csv')", files={"sales.csv": b"day,units\n"}
    ),
)
def file_of_another_type(subject: Subject) -> Iterator[Hit]:
    if subject.folder is None:
        return
    for cell, node, text in _read_files(subject):
        path = subject.folder / text
        if text.lower().endswith((".csv", ".txt", ".tsv")) and is_file(path):
            with path.open("rb") as stream:
                if stream.read(4) in _SPREADSHEETS:
                    yield make_hit(cell, node, f"the content of `{text}` is a spreadsheet")


@rule(
    "D2C205",
    "url-at-run-time",
    "warning",
    why="the run depends on a URL that may change, move or be unavailable",
    fix="ingest the data into the store once and read it from there; `d2c convert --fetch` downloads it before the run",
    bad=make_rule_example("import pandas as pd\nsales = pd.read_csv('https://shop.example/data/sales.csv')"),
    good=make_rule_example(
        "import pandas as pd\nsource = 'see https://shop.example/about'\nsales = pd.read_csv('sales.csv')"
    ),
)
def url_at_run_time(subject: Subject) -> Iterator[Hit]:
    read = {id(source.call): source.url for source in find_url_sources(subject) if source.call is not None}
    for cell, call, path in subject.calls:
        url_node = call.args[0] if call.args else None
        if id(call) in read:
            yield make_hit(cell, call, f"data is loaded from {without_secrets(read[id(call)])[:80]}")
        elif _DOWNLOADS.match(path) and not (
            path == "requests.post" and not _URL.match(constant_text(subject.inference, url_node))
        ):
            yield make_hit(
                cell, call, f"`{path}` downloads its data", fix="load it once into the store and read it from there"
            )
    for cell in subject.notebook.code:
        for magic in cell.magics:
            if magic.kind == "shell" and re.match(r"(wget|curl|gdown|kaggle|git clone)\b", magic.command):
                yield Hit(cell.index, magic.line, 1, f"`!{magic.name}` downloads at run time")


@rule(
    "D2C206",
    "hosted-notebook-only",
    "error",
    why="it exists only in Colab, Kaggle or Databricks",
    fix="read the file from the project's folder",
    bad=make_rule_example("from google.colab import drive\ndrive.mount('/content/drive')"),
    good=make_rule_example("content = 'content/sales.csv'"),
)
def hosted_notebook_only(subject: Subject) -> Iterator[Hit]:
    for index, flow in subject.flow.cells.items():
        for imported in flow.imports:
            if imported.module.startswith(("google.colab", "kaggle_secrets", "kaggle_datasets")):
                yield Hit(
                    index, imported.line, imported.column, f"`{imported.module}` exists only in a hosted notebook"
                )
    for cell, node in _path_texts(subject):
        if _PLATFORM_PATH.match(str(node.value)):
            yield make_hit(cell, node, f"`{str(node.value)[:80]}` is a folder of a hosted notebook")
