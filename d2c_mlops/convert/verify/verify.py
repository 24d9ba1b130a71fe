"""Verify a conversion: run the repaired notebook twice and the conversion once, and compare all common results."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict, cast

import numpy as np

from d2c_mlops.convert.repair.repair_result import RepairResult
from d2c_mlops.convert.repair.save_repaired import save_notebook
from d2c_mlops.convert.run.folder_copies import clone_folder, copy_folder, is_visible_below, left_out_summary
from d2c_mlops.convert.run.isolated_run import ChildLimits, Stopped
from d2c_mlops.convert.run.result_capture import IN_MEMORY
from d2c_mlops.convert.run.session import CellRun, Form, Session, SnapshotHead
from d2c_mlops.convert.source.notebook import Cell, Notebook, read_notebook
from d2c_mlops.convert.write.file_parameters import FOLDERS
from d2c_mlops.convert.write.write_conversion import AlignedCells, WrittenNotebook

RTOL, ATOL = 1e-6, 1e-9
_PLAIN_DTYPE = re.compile(r"[<>|=][biufcmM]\d{1,2}(\[[0-9]*[A-Za-z]+\])?")
SAVED_RTOL = 2e-3  # outputs are rounded
MOST_FIGURES = 2000
AT_ONCE = 2  # executions side by side
AGAIN = 4  # further runs of the original where a difference was found


class ComparedFacts(TypedDict):
    """A ComparedName as JSON values."""

    name: str
    cell: int
    status: str
    values: int
    difference: str


class SavedFigures(TypedDict, total=False):
    """How many cells have figures in their saved outputs, how many give the same ones, and the other cells, from 1."""

    cells: int
    same: int
    other: list[int]


class VerdictFacts(TypedDict):
    """A Verdict as JSON values."""

    status: str
    reason: str
    items: list[ComparedFacts]
    saved: SavedFigures
    tolerance: str
    runs: int


@dataclass(frozen=True)
class ComparedName:
    """One name after one cell, and how it compares."""

    name: str
    cell: int  # of the original, from 1
    status: str  # equal, differs, random, not compared
    values: int  # numbers and texts that were compared
    difference: str


@dataclass(frozen=True)
class Verdict:
    """The result of the comparison: 'equivalent', 'differs' or 'not comparable', and why."""

    status: str
    reason: str
    items: tuple[ComparedName, ...] = ()
    saved: SavedFigures = field(
        default_factory=lambda: SavedFigures()
    )  # of the outputs with which the original was saved
    tolerance: str = f"relative {RTOL:g}, absolute {ATOL:g}"
    runs: int = 0  # times that the two notebooks were run, in all

    def to_dict(self) -> VerdictFacts:
        """Return the verdict as JSON values."""
        return {
            "status": self.status,
            "reason": self.reason,
            "items": [cast("ComparedFacts", asdict(item)) for item in self.items],
            "saved": self.saved,
            "tolerance": self.tolerance,
            "runs": self.runs,
        }


class Incomparable(Exception):
    """A run ended before its results were complete."""


def verify(
    repair: RepairResult,
    written: WrittenNotebook,
    work: Path,
    *,
    timeout: float = 600.0,
    memory: int = 4 << 30,
    isolation: str = "",
) -> Verdict:
    """Compare a conversion with its original notebook; failures of the notebooks become a verdict, not an exception.

    The outputs of the run are stored in the conversion, with tables and figures.
    """
    if repair.notebook is None:
        return Verdict("not comparable", "the original does not run")
    aligned = [entry for entry in written.alignment if entry["names"]]
    if not aligned:
        return Verdict("not comparable", "the two notebooks have no name in common")
    limits = ChildLimits(timeout * AT_ONCE, memory, isolation)  # side by side, each may take as long
    packages = [packages_folder for name in ("local", "packages") if (packages_folder := work / name).is_dir()]
    with TemporaryDirectory(prefix="d2c-verify-") as name:
        place = Path(name)
        copy_folder(repair.notebook.parent, place / "files", max_files=None, max_depth=None)
        (place / "files").mkdir(exist_ok=True)
        original, converted = read_notebook(repair.notebook), read_notebook(written.notebook)
        after = {max(e["original"]): sorted({n for o in aligned if max(o["original"]) == max(e["original"]) for n in o["names"]})
                 for e in aligned}  # fmt: skip
        mine = {entry["converted"]: list(entry["names"]) for entry in aligned}
        # A notebook can name any folder as its data's: the runs read our own copy alone.
        data_folders = [
            data for data in uncopied_data_folder(written) if is_visible_below(data, [repair.notebook.parent])
        ]
        runner = Runner(place, limits, packages)
        count = 3
        try:
            shop = project_copy(written, place / "shop")
            with ThreadPoolExecutor(AT_ONCE) as pool:
                first, second = (pool.submit(runner.run, original, after, label) for label in ("first", "second"))
                third = pool.submit(runner.run, converted, mine, "third", shop, Path(written.notebook), data_folders)
                runs, converted_run = [first.result(), second.result()], third.result()
                items = _compared_names(aligned, runs, converted_run)
                if any(item.status == "differs" for item in items):
                    # What is drawn by chance may be the same twice: only what stays the same more often can differ.
                    count += AGAIN
                    again = [pool.submit(runner.run, original, after, f"again-{i}") for i in range(AGAIN)]
                    items = _compared_names(aligned, [*runs, *(line.result() for line in again)], converted_run)
        except Incomparable as why:
            return Verdict("not comparable", str(why), saved=_compare_with_saved(repair), runs=count)
        return replace(_build_verdict(items), saved=_compare_with_saved(repair), runs=count)


def project_copy(written: WrittenNotebook, target: Path) -> Path | None:
    """Copy the package, settings and data of a conversion; return the folder in which `d2c run` runs it.

    None if the conversion is not in a project. Raises Incomparable if a file cannot be copied.
    """
    module = getattr(written, "module_file", None)
    if module is None:
        return None
    root = Path(module).parents[2]
    notebook = Path(written.notebook)
    package = Path(module).parents[1].name
    left_out = copy_folder(root / package, target / package, max_files=None, max_depth=None)
    for name in ("settings.ini", "pyproject.toml"):
        if (root / name).is_file():
            shutil.copyfile(root / name, target / name)
    for data in _data_folders(written):
        if (
            not data.is_absolute()
            and (root / data).is_dir()
            and data != Path()
            and is_visible_below(root / data, [root])
        ):
            left_out += copy_folder(root / data, target / data, max_files=None, max_depth=None)
    if left_out:
        raise Incomparable(f"the project cannot be copied for the comparison: {left_out_summary(left_out, root)}")
    target_folder = target / notebook.parent.relative_to(root)
    target_folder.mkdir(parents=True, exist_ok=True)
    return target_folder


def uncopied_data_folder(written: WrittenNotebook) -> list[Path]:
    """Return the data folder if it was too large for a copy in the project."""
    return [data_folder for data_folder in _data_folders(written) if data_folder.is_absolute() and data_folder.is_dir()]


def _data_folders(written: WrittenNotebook) -> list[Path]:
    folders = []
    for line in written.parameters:
        name, _, declaration = line.partition(":")
        default = re.match(r"\s*str = ('[^']*'|\"[^\"]*\")", declaration)
        if name in FOLDERS and default:
            folders.append(Path(ast.literal_eval(default[1])))
    return folders


def _compared_names(
    aligned: Sequence[AlignedCells], runs: Sequence[Mapping[int, Snapshot]], converted_run: Mapping[int, Snapshot]
) -> list[ComparedName]:
    items = []
    for entry in aligned:
        cell = max(entry["original"])
        for name in entry["names"]:
            try:
                items.append(_compared_name(name, cell, [run[cell] for run in runs], converted_run[entry["converted"]]))
            except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
                raise Incomparable(f"{name} after cell {cell} cannot be compared ({type(error).__name__})") from None
    return items


def _build_verdict(items: Sequence[ComparedName]) -> Verdict:
    different = [item for item in items if item.status == "differs"]
    equal = [item for item in items if item.status == "equal"]
    count = sum(item.values for item in equal)
    if different:
        names = ", ".join(f"{i.name} after cell {i.cell} ({i.difference})" for i in different[:5])
        return Verdict(
            "differs", f"{len(different)} of {len(different) + len(equal)} results differ: {names}", tuple(items)
        )
    if not count:
        return Verdict("not comparable", "no result can be compared", tuple(items))
    chance = sorted({i.name for i in items if i.status == "random"})
    remarks = f"; random and not compared: {', '.join(chance)}" if chance else ""
    models = sorted({i.name for i in items if i.difference == IN_MEMORY})
    remarks += f"; not compared: {', '.join(models)} ({IN_MEMORY})" if models else ""
    return Verdict("equivalent", f"{len(equal)} results with {count:,} values are the same{remarks}", tuple(items))


@dataclass(frozen=True)
class Runner:
    """Runs notebooks side by side, each in a copy of the files."""

    place: Path
    limits: ChildLimits
    packages: Sequence[Path]

    def folders(self, run_folder: Path) -> list[Path]:
        """The folders from which the paths of a run are compared: those of its data, then the one that it runs in."""
        shop = self.place / "shop"
        return [*(path for path in sorted(shop.glob("data/*")) if path.is_dir()), run_folder]

    def run(
        self,
        notebook: Notebook,
        names_by_cell: Mapping[int, Sequence[str]],
        label: str,
        folder: Path | None = None,
        output_folder: Path | None = None,
        data: Sequence[Path] = (),
    ) -> dict[int, Snapshot]:
        """Run a notebook; return the named values after the cells asked for (from 1). `output_folder` takes the outputs.

        It runs in `folder`, from which it sees `data` where that lies elsewhere, or in a copy of the original's files.
        """
        run_folder = folder or self.place / label
        if folder is None:
            clone_folder(self.place / "files", run_folder)
        snapshots: dict[int, Snapshot] = {}
        shown: dict[int, CellRun] = {}
        which = "the conversion" if output_folder is not None else "the original"
        home = self.place / f"home-{label}"
        readable = [self.place / "shop", *data] if folder is not None else []
        with Session(
            run_folder,
            home,
            self.limits,
            extra=self.packages,
            plots=output_folder is not None,
            readable=readable,
            proof=True,
        ) as session:
            try:
                for cell in notebook.cells:
                    number = cell.index + 1
                    if cell.kind == "code" and not cell.source.startswith(("#| default_exp", "#| eval: false")):
                        cell_run = shown[cell.index] = session.run(number, cell.source)
                        if cell_run.error is not None:
                            error_text = f"{cell_run.error['kind']}: {str(cell_run.error['message'])[:200]}"
                            raise Incomparable(f"cell {number} of {which} raised {error_text}")
                    if number in names_by_cell:
                        snapshots[number] = Snapshot.read(
                            session.snapshot(names_by_cell[number]), [*self.folders(run_folder), session.inside]
                        )
                        if changed := snapshots[number].replaced:
                            others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
                            raise Incomparable(f"{which} replaced {changed[0]}{others}: this can forge results")
                    if len(snapshots) == len(names_by_cell) and output_folder is None:
                        break
            except Stopped as stopped:
                raise Incomparable(f"{which} did not finish: {stopped}") from None
        missing = sorted(set(names_by_cell) - set(snapshots))
        if missing:
            raise Incomparable(f"cell {missing[0]} of {which} was not reached")
        if output_folder is not None:
            save_notebook(notebook, notebook, [cell.index for cell in notebook.cells], shown, output_folder)
        return snapshots


@dataclass(frozen=True)
class Snapshot:
    """Comparable forms of named values, with their arrays; read without running anything of the child's."""

    forms: Mapping[str, Form]
    arrays: Sequence[np.ndarray]
    folders: tuple[str, ...] = ()  # where it ran: paths below them are compared from there
    replaced: tuple[str, ...] = ()  # functions of Python and its libraries that were replaced

    @classmethod
    def read(cls, data: bytes, folders: Sequence[Path] = ()) -> Snapshot:
        """Read the child's answer; raises Incomparable if it cannot be read."""
        line, _, payload = data.partition(b"\n")
        try:
            head: SnapshotHead = json.loads(line)
            arrays, start = [], 0
            for dtype, shape, size in head["arrays"]:
                arrays.append(_array_from_bytes(dtype, shape, payload[start : start + size]))
                start += size
            replaced = tuple(str(name) for name in head["replaced"])
            return cls(dict(head["forms"]), arrays, tuple(f"{folder}/" for folder in folders), replaced)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Incomparable(f"its results cannot be read ({type(error).__name__})") from None

    def plain(self, text: str) -> str:
        """Return a text with the paths in it as seen from the data's folder."""
        for folder in self.folders:
            text = text.replace(folder, "")
        return text


def _array_from_bytes(dtype: str, shape: Sequence[int], data: bytes) -> np.ndarray:
    """Return an array of its bytes; one of texts is a JSON list."""
    if dtype == "text":
        return np.array(json.loads(data), dtype=str).reshape(shape)
    if not _PLAIN_DTYPE.fullmatch(dtype):
        raise ValueError(dtype)
    array = np.frombuffer(data, dtype=np.dtype(dtype)).reshape(shape)
    if array.dtype.kind in "mM":  # in one unit, whatever theirs is
        return array.astype(f"{array.dtype.kind}8[ns]").astype("int64")
    return array


def _compared_name(name: str, cell: int, runs: Sequence[Snapshot], converted_run: Snapshot) -> ComparedName:
    first = runs[0]
    if name not in first.forms or name not in converted_run.forms:
        absent = "the original" if name not in first.forms else "the conversion"
        return ComparedName(name, cell, "not compared", 0, f"{absent} does not define it there")
    for again in runs[1:]:
        if name not in again.forms or _compare_values(first, first.forms[name], again, again.forms[name])[1]:
            return ComparedName(name, cell, "random", 0, "it differs between two runs of the original")
    values, difference = _compare_values(first, first.forms[name], converted_run, converted_run.forms[name])
    if difference:
        return ComparedName(name, cell, "differs", values, difference)
    why = "" if values else str(first.forms[name].get("why") or "it has no comparable values")
    return ComparedName(name, cell, "equal" if values else "not compared", values, why)


def _compare_values(
    first_snapshot: Snapshot, first_form: Form, second_snapshot: Snapshot, second_form: Form
) -> tuple[int, str]:
    """Return how many values were compared, and the first difference."""
    if first_form["t"] != second_form["t"]:
        return 0, f"a {first_form['t']} became a {second_form['t']}"
    if first_form["t"] == "other":
        return 0, ""
    if first_form["t"] == "text":
        same = first_snapshot.plain(str(first_form["v"])) == second_snapshot.plain(str(second_form["v"]))
        return 1, "" if same else f"{str(first_form['v'])[:60]!r} became {str(second_form['v'])[:60]!r}"
    if first_form["t"] == "number":
        close = bool(np.isclose(cast("float", first_form["v"]), cast("float", second_form["v"]), rtol=RTOL, atol=ATOL))
        return 1, "" if close else f"{first_form['v']} became {second_form['v']}"
    if first_form["t"] == "array":
        return _compare_arrays(
            _snapshot_array(first_snapshot, first_form["key"]), _snapshot_array(second_snapshot, second_form["key"])
        )
    if first_form.get("names") != second_form.get("names") or first_form.get("class") != second_form.get("class"):
        return 0, "different keys" if first_form.get("class") == second_form.get(
            "class"
        ) else f"{first_form['class']} became {second_form['class']}"
    if len(first_form["parts"]) != len(second_form["parts"]):
        return 0, f"{len(first_form['parts'])} parts became {len(second_form['parts'])}"
    total = 0
    for index, (part, counterpart) in enumerate(zip(first_form["parts"], second_form["parts"], strict=True)):
        count, difference = _compare_values(first_snapshot, part, second_snapshot, counterpart)
        total += count
        if difference:
            inside = first_form["names"][index] if first_form.get("names") else str(index)
            return total, f"{inside}: {difference}"
    return total, ""


def _snapshot_array(snapshot: Snapshot, key: int) -> np.ndarray:
    """An array of a snapshot, paths in it as seen from the data's folder."""
    array = snapshot.arrays[int(key)]
    if array.dtype.kind != "U" or not snapshot.folders:
        return array
    return np.array([snapshot.plain(value) for value in array.ravel().tolist()], dtype=str).reshape(array.shape)


def _compare_arrays(a: np.ndarray, b: np.ndarray) -> tuple[int, str]:
    if a.shape != b.shape:
        return 0, f"shape {a.shape} became {b.shape}"
    if a.dtype.kind in "biufc" and b.dtype.kind in "biufc":
        wrong = ~np.isclose(a, b, rtol=RTOL, atol=ATOL, equal_nan=True)
    else:
        wrong = np.asarray(a.astype(str) != b.astype(str))
    if not wrong.any():
        return int(a.size), ""
    where = tuple(int(i[0]) for i in np.nonzero(wrong))
    return int(a.size), f"{int(wrong.sum())} of {a.size} values differ, first {a[where]} became {b[where]}"


def _compare_with_saved(repair: RepairResult) -> SavedFigures:
    """How the figures that the original showed when it was saved compare with those of the repaired run."""
    assert repair.notebook is not None
    then, now = read_notebook(repair.original), read_notebook(repair.notebook)
    same: list[int] = []
    different: list[int] = []
    for cell in now.code:
        at = repair.order[cell.index] if cell.index < len(repair.order) else cell.index
        old, new = _shown_figures(then.cells[at]), _shown_figures(cell)
        if old:
            (same if _same_figures(old, new) else different).append(at + 1)
    return {"cells": len(same) + len(different), "same": len(same), "other": different}


_NOT_RESULTS = re.compile(
    r"<[^<>]*>|0x[0-9a-f]+|shape=\([^()]*\)|dtype=\w+|\b\d{4}-\d{2}-\d{2}\b|\d{1,2}:\d{2}:\d{2}|(Date|Time):.*",
    re.S,
)
_FIGURE = re.compile(r"(?<![\w.])-?\d+(?:\.\d*)?(?:e[+-]?\d+)?(?![\w.])")


def _shown_figures(cell: Cell) -> list[float]:
    """The numbers in a cell's results, without those of warnings, sizes, times and days."""
    texts = []
    for output in cell.outputs:
        if output.kind == "stream" and "Warning" in output.text:
            continue
        if output.kind in ("result", "display", "stream"):
            texts.append(output.data.get("text/html") or output.text)
    plain = "\n".join(_NOT_RESULTS.sub(" ", line) for text in texts for line in _text_lines(text))
    return [float(match) for match in _FIGURE.findall(plain)][:MOST_FIGURES]


def _text_lines(text: str) -> list[str]:
    """Lines of a text; each row of an HTML table is one."""
    first, *styles = text.split("<style")
    flat = first + "".join(style.partition("</style>")[2] if "</style>" in style else style for style in styles)
    lines = flat.split("\n")
    if "<table" not in flat:
        return lines
    return " ".join(line.strip() for line in lines).replace("</tr>", "\n").split("\n")


def _same_figures(old: Sequence[float], new: Sequence[float]) -> bool:
    return len(old) == len(new) and bool(np.allclose(old, new, rtol=SAVED_RTOL, atol=1e-9))
