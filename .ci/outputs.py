"""Run the notebooks and compare what they show with what they store: `make outputs` stores it, `make test` and `make check` compare.

    python .ci/outputs.py [--write] [--changed] [NOTEBOOK …]

Every notebook runs in a process of its own. Text is compared word by word, numbers to six digits, pictures pixel by pixel. What
was compared and found equal is noted in `.notebooks_compared.json`, with a digest of all that it depends on: `--changed` leaves
those notebooks out that have not changed since.
"""

from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import io
import json
import math
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import structure

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "nbs"
COMPARED = ROOT / ".notebooks_compared.json"
MOST_BYTES = 60_000  # of a picture
COLOURS = 48  # of a picture, shades of its edges included
NEAR = 40  # of 255: a pixel that differs by less is drawn by another version of the fonts
SCREEN = 45  # lines of a notebook on the first screen of a browser, about 800 pixels
WIDTH = 100  # letters of a line of its text
FEW = 2e-4  # share of the pixels that may differ by more
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
CODE_NAME = re.compile(r"^[a-z]+[a-z0-9]*(_[a-z0-9]+)+$")
Output = dict[str, Any]


@dataclass
class Outcome:
    """What a run of a notebook showed, by the number of the cell, and what is wrong with it."""

    notebook: Path
    shown: dict[int, list[Output]]
    faults: list[str]
    seconds: float


def notebooks() -> list[Path]:
    """Return the notebooks of the project."""
    return sorted(file for file in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in file.parts)


def run(notebook: Path) -> tuple[Path, dict[int, list[Output]], list[str], float]:
    """Run a notebook in this process, as nbdev-test does; return the fields of its outcome."""
    from execnb.shell import CaptureShell
    from matplotlib.figure import Figure
    from nbdev.test import nb_test_cells

    os.chdir(notebook.parent)
    start = time.monotonic()
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    evaluated = {cell.id for cell in nb_test_cells(notebook)}
    shell = CaptureShell(notebook, mpl_format="png")
    faults: list[str] = []
    shell.display_formatter.formatters["image/png"].for_type(Figure, lambda figure: picture(figure, faults))
    shown: dict[int, list[Output]] = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] != "code" or cell["id"] not in evaluated:
            continue
        outputs = json.loads(json.dumps(shell.run("".join(cell["source"]), timeout=600)))
        if shell.exc is not None:
            text = "".join(next((o["traceback"] for o in outputs if o["output_type"] == "error"), [repr(shell.exc)]))
            faults.append(f"cell {number} ({cell['id']}) failed:\n{text.strip()}")
            break
        shown[number] = plain(outputs)
    return (
        notebook,
        shown,
        faults,
        time.monotonic() - start,
    )  # a shell takes the place of __main__, whose classes are lost


def picture(figure: Any, faults: list[str]) -> tuple[bytes, dict[str, int]] | None:
    """Return a figure as a PNG for screens of high resolution, with few colours, and its size in CSS pixels."""
    from IPython.core.pylabtools import print_figure
    from matplotlib.text import Text
    from PIL import Image

    drawn = print_figure(figure, "png", base64=False, dpi=2 * figure.dpi)
    if drawn is None:
        return None
    names = {text.get_text() for text in figure.findobj(Text) if text.get_visible()}
    for name in sorted(name for name in names if CODE_NAME.match(name)):
        faults.append(f"a picture is labelled {name!r}: label it in words")
    image = Image.open(io.BytesIO(drawn)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    written = io.BytesIO()
    image.save(written, "png", optimize=True)
    if len(written.getvalue()) > MOST_BYTES:
        faults.append(f"a picture has {len(written.getvalue()) // 1000} kB, {MOST_BYTES // 1000} at most: draw less")
    return written.getvalue(), {"width": image.width // 2, "height": image.height // 2}


def plain(outputs: Sequence[Output]) -> list[Output]:
    """Return outputs as they are stored: what was printed, then what was displayed; without warnings and numbers of cells."""
    printed = "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream" and o["name"] == "stdout")
    displayed = [
        {
            "data": {kind: _lines(value) for kind, value in sorted(output["data"].items())},
            "metadata": dict(output.get("metadata", {})),
            "output_type": output["output_type"],
            **({"execution_count": None} if output["output_type"] == "execute_result" else {}),
        }
        for output in outputs
        if output["output_type"] in ("display_data", "execute_result") and not _is_address(output["data"])
    ]
    stream = {"name": "stdout", "output_type": "stream", "text": printed.splitlines(keepends=True)}
    return [*([stream] if printed else []), *displayed]


def _is_address(data: dict[str, Any]) -> bool:
    """Tell whether a value is shown as its type and its place in memory, which say nothing to a reader."""
    return data.keys() == {"text/plain"} and re.fullmatch(r"<.+>", _shown("".join(data["text/plain"]))) is not None


def _shown(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _lines(value: Any) -> Any:
    """Return text of several lines as a list of lines, other values as they are."""
    text = "".join(value) if isinstance(value, list) else value
    text = _shown(text) if isinstance(text, str) else text
    return text.splitlines(keepends=True) if isinstance(text, str) and "\n" in text.strip() else text


def differences(notebook: Path, outcome: Outcome) -> Iterator[str]:
    """Yield where a notebook stores something else than it shows when it runs."""
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] != "code":
            continue
        place = f"cell {number} ({cell['id']})"
        fresh, stored = outcome.shown.get(number, []), plain(cell["outputs"])
        if any(output.get("name") == "stderr" for output in cell["outputs"]):
            yield f"{place} stores a warning"
        if fresh and not stored:
            yield f"{place} stores no output and shows {_kinds(fresh)}"
        elif len(fresh) != len(stored):
            yield f"{place} stores {_kinds(stored)} and shows {_kinds(fresh) or 'nothing'}"
        else:
            for old, new in zip(stored, fresh, strict=True):
                if reason := _difference(old, new):
                    yield f"{place} is stale: {reason}"


def _kinds(outputs: Sequence[Output]) -> str:
    return ", ".join("printed text" if o["output_type"] == "stream" else _kind(o["data"]) for o in outputs)


def _kind(data: dict[str, Any]) -> str:
    names = {"image/png": "a picture", "text/html": "a table"}
    return next((name for kind, name in names.items() if kind in data), "a value")


def _difference(stored: Output, fresh: Output) -> str:
    """Return in what a stored output differs from a fresh one; an empty text if in nothing that matters."""
    if stored["output_type"] == "stream" or fresh["output_type"] == "stream":
        return _words("".join(stored.get("text", "")), "".join(fresh.get("text", "")))
    if stored["data"].keys() != fresh["data"].keys():
        return f"it stores {_kind(stored['data'])} and shows {_kind(fresh['data'])}"
    for kind, value in stored["data"].items():
        now = fresh["data"][kind]
        if kind == "image/png":
            reason = _pixels("".join(value), "".join(now))
        elif kind == "text/plain" and len(stored["data"]) > 1:
            reason = ""  # a reader sees the picture or the table in HTML
        else:
            reason = _words("".join(value), "".join(now)) if isinstance(value, str | list) else ""
        if reason:
            return reason
    return ""


def _words(stored: str, fresh: str) -> str:
    """Return the first line in which two texts differ, numbers compared to six digits."""
    if stored.strip() == fresh.strip():
        return ""
    if NUMBER.sub("0", stored).split() == NUMBER.sub("0", fresh).split():
        pairs = zip(NUMBER.findall(stored), NUMBER.findall(fresh), strict=True)
        if all(math.isclose(float(old), float(new), rel_tol=1e-6) for old, new in pairs):
            return ""
    old, new = stored.strip().splitlines(), fresh.strip().splitlines()
    line = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    before, after = ("".join(lines[line : line + 1]).strip()[:60] for lines in (old, new))
    return f"{before!r} is stored, {after!r} is shown"


def _pixels(stored: str, fresh: str) -> str:
    """Return in what two pictures differ."""
    if stored.strip() == fresh.strip():
        return ""
    import numpy as np
    from PIL import Image

    old, new = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB"), int) for each in (stored, fresh)
    )
    if old.shape != new.shape:
        return f"a picture of {old.shape[1]} × {old.shape[0]} pixels is stored, one of {new.shape[1]} × {new.shape[0]} is shown"
    share = float((np.abs(old - new).max(axis=2) > NEAR).mean())
    return f"{share:.2%} of the pixels of a picture differ" if share > FEW else ""


def first_output(cells: Sequence[dict[str, Any]]) -> int | None:
    """Return how many lines of a notebook a reader passes before the first output or picture; None if there is none."""
    lines = 0.0
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            if re.search(r"!\[[^\]]*\]\(", text):
                return math.ceil(lines)
            lines += 1 + sum(
                2 if line.startswith("#") else max(1, math.ceil(len(line) / WIDTH)) for line in text.splitlines()
            )
        else:
            lines += 1.5 + len(text.splitlines())  # with the space between cells
            if cell.get("outputs"):
                return math.ceil(lines)
    return None


def late_outputs(files: Sequence[Path]) -> Iterator[str]:
    """Yield notebooks whose first number, table or picture lies below the first screen."""
    for file in files:
        line = first_output(json.loads(file.read_text(encoding="utf-8"))["cells"])
        if line is None or line > SCREEN:
            where = (
                "shows nothing" if line is None else f"shows its first output at line {line}, below the first screen"
            )
            yield f"{os.path.relpath(file, ROOT)} {where} ({SCREEN} lines): open with an example, definitions follow"


def dependencies(notebook: Path, imports: Any) -> set[str]:
    """Return the modules of the package that a notebook uses: those it imports, directly or through others, and all of `data`.

    Sources and layouts of `data` are found by entry points, which no import shows; its detectors of faults are not.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    names: set[str] = set()
    for cell in cells:
        if cell["cell_type"] == "code":
            code = re.sub(r"^\s*[%!].*$", "", "".join(cell["source"]), flags=re.M)
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    used = {module for module in imports.modules if module.startswith(f"{structure.NAME}.data")}
    used -= {module for module in used if module.startswith(f"{structure.NAME}.data.quality")}
    for name in names & imports.modules:
        used |= structure.reached(imports, name)
    return used


def digest(notebook: Path, imports: Any) -> str:
    """Return a digest of all that decides what a notebook shows: itself, the modules it uses, versions of libraries, this file."""
    hasher = hashlib.sha256(sys.version.encode())
    files = [ROOT / (module.replace(".", "/") + ".py") for module in sorted(dependencies(notebook, imports))]
    packages = [file.with_suffix("") / "__init__.py" for file in files]
    for file in (notebook, *files, *packages, ROOT / "requirements.lock", Path(__file__)):
        if file.exists():
            hasher.update(os.path.relpath(file, ROOT).encode() + b"\0" + file.read_bytes())
    return hasher.hexdigest()


def compared() -> dict[str, str]:
    """Return the digests of the notebooks that were compared and found equal on this machine."""
    try:
        return dict(json.loads(COMPARED.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def run_all(files: Sequence[Path]) -> Iterator[Outcome]:
    """Run notebooks in processes of their own, as many at once as there are processors, and yield what they show."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MPLBACKEND="agg", IN_TEST="1")
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", BENTOML_DO_NOT_TRACK="True", COLUMNS="100")
    sys.path.insert(0, str(ROOT))
    if sys.platform == "linux":  # a fork has the libraries already
        for library in PRELOADED:
            import_module(library)
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    largest_first = sorted(files, key=lambda file: (file.stem not in SLOW, str(file)))
    with context.Pool(min(os.cpu_count() or 1, max(1, len(files))), maxtasksperchild=1) as pool:
        for values in pool.imap_unordered(run, largest_first, chunksize=1):
            yield Outcome(*values)


PRELOADED = (
    "execnb.shell",
    "lightgbm",
    "matplotlib.pyplot",
    "nbdev.test",
    "pandera.pandas",
    "sklearn.ensemble",
    "statsmodels.api",
)
SLOW = ("ingest", "segmentation")  # begin with those that take longest


def store(outcome: Outcome) -> bool:
    """Write what a notebook shows into it, where that differs from what it stores; return whether it did."""
    if not any(differences(outcome.notebook, outcome)):
        return False
    document = json.loads(outcome.notebook.read_text(encoding="utf-8"))
    for number, cell in enumerate(document["cells"]):
        if cell["cell_type"] == "code":
            fresh, stored = outcome.shown.get(number, []), plain(cell["outputs"])
            same = len(fresh) == len(stored) and not any(map(_difference, stored, fresh))
            warned = any(output.get("name") == "stderr" for output in cell["outputs"])
            cell["outputs"] = cell["outputs"] if same and not warned else fresh
    text = json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True)
    outcome.notebook.write_text(text + "\n", encoding="utf-8")
    return True


def faults(files: Sequence[Path], write: bool = False, changed: bool = False) -> Iterator[str]:
    """Run notebooks and yield what is wrong with what they store; with `write`, store what they show."""
    imports = structure.graph(ROOT)
    equal = compared()
    names = {file: os.path.relpath(file, ROOT) for file in files}
    if changed:
        files = [file for file in files if equal.get(names[file]) != digest(file, imports)]
    for outcome in run_all(files):
        name = names[outcome.notebook]
        failed = any(" failed:\n" in fault for fault in outcome.faults)
        if write and not failed and store(outcome):
            print(f"stored {name}", flush=True)
        found = [*outcome.faults, *([] if failed else differences(outcome.notebook, outcome))]
        equal.pop(name, None)
        if not found and outcome.notebook.is_relative_to(NOTEBOOKS):
            equal[name] = digest(outcome.notebook, imports)
        COMPARED.write_text(json.dumps(equal, indent=1, sort_keys=True), encoding="utf-8")
        yield from (f"{name}: {fault}" for fault in found)


def main() -> int:
    """Compare, or store; return 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--write", action="store_true", help="store what the notebooks show")
    parser.add_argument("--changed", action="store_true", help="only notebooks that changed since they were compared")
    options = parser.parse_args()
    files = [file.resolve() for file in options.notebooks] or notebooks()
    wrong = 0
    for fault in faults(files, options.write, options.changed):
        wrong += 1
        print(fault, flush=True)
    if wrong and not options.write:
        print("store what they show: make outputs")
    print(f"{len(files)} notebooks, {wrong} faults")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
