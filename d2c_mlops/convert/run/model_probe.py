"""Run the converted cells in an isolated process, record types, and test which model can be built."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import types as kinds
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from d2c_mlops.convert.run.model_proof import CandidateModel, ProvenModel

os.environ.setdefault("MPLBACKEND", "Agg")
PATIENCE = 180.0  # seconds after which only the last way is tried


class ProbedCell(TypedDict):
    """A code cell of the conversion."""

    source: str
    step: str  # the function defined or called here
    exported: bool
    returns: list[str]  # names of what the step returns
    tags: list[str]


class ProbeSpec(TypedDict):
    """What is to be run: the cells, then the candidate models in the order in which they are tested."""

    cells: list[ProbedCell]
    candidates: list[CandidateModel]
    kernel: bool  # whether cells use `_`, `Out` or magics
    overrides: dict[str, str]  # of parameters


class ProbeError(TypedDict):
    """A failed cell, by its place in the spec."""

    cell: int
    what: str


class ProbeAnswer(TypedDict):
    """What was observed."""

    types: dict[str, str]  # annotations by `step name` and `step -> name`
    error: ProbeError | None
    model: ProvenModel | None  # the first candidate that predicts like the notebook
    tried: list[str]  # candidates that failed, and why
    files: list[str]  # files that the cells read, relative to their folder


def main(spec_file: str, answer_file: str, *folders: str) -> None:
    """Run the spec, importing from this folder and from `folders`; the answer has `error` if a cell failed."""
    import d2c_mlops.convert.run.evaluation_overlap
    import d2c_mlops.convert.run.feature_agreement
    import d2c_mlops.convert.run.inferred_contract
    import d2c_mlops.models.converted.recorded_steps
    import d2c_mlops.models.converted.statistical  # noqa: F401
    from d2c_mlops.convert.run.model_proof import prove_model

    # Only now: a json.py or d2c_mlops.py of the notebook must not stand in for what was imported above.
    sys.path[0:0] = [str(Path.cwd()), *folders]
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    spec: ProbeSpec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
    answer: ProbeAnswer = {"types": {}, "error": None, "model": None, "tried": [], "files": []}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        reads = _record_files_read(Path.cwd())
        space = _run_probe(spec, answer)
        answer["files"] = sorted(reads)
        _save_results(answer, answer_file)
        began = time.monotonic()
        for candidate in spec["candidates"] if answer["error"] is None else []:
            last = candidate is spec["candidates"][-1]
            if answer["types"].get(candidate["seen"], "pd.DataFrame") != "pd.DataFrame":
                continue
            if time.monotonic() - began > PATIENCE and not last:
                continue
            try:
                answer["model"] = prove_model(candidate, space)
                break
            except BaseException as error:  # whatever the author's code raises, the next way is tried
                answer["tried"].append(f"{candidate['start']}: {type(error).__name__}: {str(error)[:300]}")
                _save_results(answer, answer_file)
    _save_results(answer, answer_file)


def _record_files_read(folder: Path) -> set[str]:
    """Record the files of a folder that are opened from now on, relative to it; without files that are created later."""
    base = folder.resolve()
    there = {path for path in base.rglob("*") if path.is_file()}
    files_read: set[str] = set()

    def opened(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            place = Path(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100 - resolve() follows links
            if place in there and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
                files_read.add(place.relative_to(base).as_posix())

    sys.addaudithook(opened)
    return files_read


def _save_results(answer: ProbeAnswer, answer_file: str) -> None:
    """Write the results so far, so that the steps can be written even after a timeout."""
    draft = Path(f"{answer_file}.draft")
    draft.write_text(json.dumps(answer, default=str), encoding="utf-8")
    draft.replace(answer_file)


def _run_probe(spec: ProbeSpec, answer: ProbeAnswer) -> dict[str, object]:
    module = kinds.ModuleType("__main__")
    sys.modules["__main__"] = module
    space = module.__dict__
    space["display"] = lambda *args, **kwargs: None
    types = answer["types"]
    execute = (
        _kernel_executor(module)
        if spec.get("kernel")
        else lambda source, name: exec(compile(source, name, "exec"), space)  # noqa: S102
    )
    for number, cell in enumerate(spec["cells"]):
        try:
            execute(cell["source"], f"<cell {number}>")
        except BaseException as error:
            answer["error"] = {"cell": number, "what": f"{type(error).__name__}: {str(error)[:500]}"}
            return space
        if "parameters" in cell["tags"]:
            space.update(spec["overrides"])
        if "in_data" in space and not hasattr(space["in_data"], "plain"):
            space["in_data"] = _opening_files(space["in_data"])
        if cell["exported"] and cell["step"] in space:
            space[cell["step"]] = _recording_types(space[cell["step"]], cell["step"], cell["returns"], types)
        if "plt" in space and hasattr(space["plt"], "close"):
            space["plt"].close("all")
    return space


def _opening_files(in_data: Callable[..., object]) -> Callable[..., object]:
    """Open each file that is looked up once, so that files are recorded which a library opens in C code."""

    def look_up(folder: str, path: object) -> object:
        place = in_data(folder, path)
        for file_or_folder in [place] if isinstance(place, str | Path) else []:
            files = (
                [file_or_folder]
                if Path(file_or_folder).is_file()
                else sorted(Path(file_or_folder).glob("*"))
                if Path(file_or_folder).is_dir()
                else []
            )
            for file in files:
                if Path(file).is_file():
                    Path(file).open("rb").close()
        return place

    look_up.plain = in_data  # type: ignore[attr-defined]
    return look_up


def _kernel_executor(module: kinds.ModuleType) -> Callable[[str, str], None]:
    """Execute like a kernel, for cells that use `_`, `Out` or magics."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    quiet = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell.instance(config=quiet, user_module=module, user_ns=module.__dict__)

    def execute(source: str, name: str) -> None:
        shell.run_cell(source, store_history=True).raise_error()

    return execute


def _recording_types(
    function: Callable[..., object], step: str, returns: list[str], types: dict[str, str]
) -> Callable[..., object]:
    if not isinstance(function, kinds.FunctionType):
        return function
    names = function.__code__.co_varnames[: function.__code__.co_argcount]

    def call(*args: object, **kwargs: object) -> object:
        for name, value in [*zip(names, args, strict=False), *kwargs.items()]:
            types[f"{step} {name}"] = merged_annotation(types.get(f"{step} {name}"), annotation_text(value))
        result = function(*args, **kwargs)
        parts = result if len(returns) > 1 else (result,)
        for name, value in zip(returns, parts, strict=True) if returns else ():
            types[f"{step} -> {name}"] = merged_annotation(types.get(f"{step} -> {name}"), annotation_text(value))
        return result

    call.__name__ = call.__qualname__ = function.__name__  # a fitted object that holds it is reported by its name
    return call


def merged_annotation(before: str | None, now: str) -> str:
    """Return one annotation for two calls."""
    if before in (None, now):
        return now
    both = {before, now}
    return "float" if both == {"int", "float"} else "Any"


def annotation_text(value: object) -> str:
    """Return how the type of a value is written."""
    import numpy as np
    import pandas as pd

    pandas_types = {"DataFrame": "pd.DataFrame", "Series": "pd.Series", "Timestamp": "pd.Timestamp"}
    kind = type(value)
    if kind.__module__.startswith("pandas") and kind.__name__ in pandas_types:
        return pandas_types[kind.__name__]
    if isinstance(value, pd.Index):
        return "pd.Index"
    if isinstance(value, np.ndarray):
        return "np.ndarray"
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer):
        return "int"
    if isinstance(value, float | np.floating):
        return "float"
    if isinstance(value, str):
        return "str"
    if isinstance(value, list | set) and kind in (list, set) and value:
        inner = {annotation_text(element) for element in value}
        single = next(iter(inner)) if len(inner) == 1 else "Any"
        return f"{kind.__name__}[{single if single in ('int', 'float', 'str') else 'Any'}]"
    if kind in (list, dict, set, tuple):
        whole = {"list": "list[Any]", "dict": "dict[Any, Any]", "set": "set[Any]", "tuple": "tuple[Any, ...]"}
        return whole[kind.__name__]
    if kind.__module__.startswith(("sklearn.", "xgboost.", "lightgbm.", "imblearn.", "statsmodels.")):
        return f"class:{kind.__name__}"
    return "Any"


if __name__ == "__main__":
    main(*sys.argv[1:])
