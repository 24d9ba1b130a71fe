"""Write a plan as a literate notebook, its module and, where possible, its model."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypedDict, cast

from d2c_mlops.convert.plan import naming
from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.model_plan import ModelChoice, find_record_entries, limit_outputs, model_choices
from d2c_mlops.convert.plan.plan import Plan
from d2c_mlops.convert.plan.row_dependence import row_dependence_advice
from d2c_mlops.convert.plan.steps import plan_blocks
from d2c_mlops.convert.run.folder_copies import clone_folder, read_result
from d2c_mlops.convert.run.isolated_run import ChildLimits, run_program
from d2c_mlops.convert.write.metric_source import metric_and_source
from d2c_mlops.convert.write.model_source import NEEDS, ModelSource, model_cells, model_sources
from d2c_mlops.convert.write.model_text import class_name
from d2c_mlops.convert.write.notebook_document import CellSource, add_folder_guard, join_short_cells, notebook_cells
from d2c_mlops.convert.write.parameter_list import CodeParameter, CodeParameters
from d2c_mlops.convert.write.parameters import extract_parameters
from d2c_mlops.convert.write.project import (
    Project,
    check_import,
    copy_local_modules,
    export_module,
    pasted_pictures,
    write_notebook,
)
from d2c_mlops.convert.write.shared_steps import share_equal_steps
from d2c_mlops.convert.write.step_functions import call_source
from d2c_mlops.errors import Failure, NotebookFailed

if TYPE_CHECKING:
    from d2c_mlops.convert.run.feature_agreement import AgreementFigures
    from d2c_mlops.convert.run.model_probe import ProbeAnswer, ProbedCell, ProbeSpec
    from d2c_mlops.convert.run.model_proof import CandidateModel, ProvenModel

TRAININGS = 3  # the cells are run once, then a model is trained and trained again


class AlignedCells(TypedDict):
    """A cell of the converted notebook, the cells of the original that it replaces (all from 1), and the names both bind."""

    converted: int
    original: list[int]
    names: list[str]


class NotebookStructure(TypedDict):
    """Counts of the original and of the conversion: cells, code cells, functions, parameters, exports."""

    before: dict[str, int]
    after: dict[str, int]


class PlainCell(TypedDict):
    """A cell that stays as it is, and why."""

    what: str
    where: str


class WrittenFacts(TypedDict):
    """A WrittenNotebook as JSON values."""

    notebook: str
    module: str
    module_file: str
    model: str
    no_model: str
    parameters: list[str]
    functions: list[str]
    alignment: list[AlignedCells]
    plain: list[PlainCell]
    dropped: list[str]
    structure: NotebookStructure
    tried: list[str]
    agreement: AgreementFigures | None


@dataclass(frozen=True)
class WrittenNotebook:
    """A converted notebook and the places of its parts."""

    notebook: Path
    module: str  # dotted
    module_file: Path
    model: str  # package.module:Class, "" without one
    no_model: str  # why there is none
    parameters: tuple[str, ...]
    functions: tuple[str, ...]
    alignment: tuple[AlignedCells, ...]
    plain: tuple[Failure, ...]  # cells that stay as they are, and why
    dropped: tuple[str, ...]  # magics left out
    structure: NotebookStructure | None = None
    tried: tuple[str, ...] = ()  # ways to build the model that did not hold
    agreement: AgreementFigures | None = None  # records that were asked alone and in pairs

    def to_dict(self) -> WrittenFacts:
        """Return the result as JSON values."""
        values = asdict(self) | {"structure": self.structure or {}, "agreement": self.agreement or {}}
        return cast("WrittenFacts", json.loads(json.dumps(values, default=str)))


def write_notebook_and_module(
    plan: Plan,
    project: Project,
    name: str,
    *,
    data: Path | None = None,  # folder in which the notebook finds its files
    keep: str = "",  # folder of the project, relative to its root, that takes copies of the files; none when empty
    day: str = "2024-01-01",  # as_of noted with the model
    run: bool = True,  # whether code may be executed: types and models need it
    timeout: float = 600.0,  # seconds for one execution of the notebook
    memory: int = ChildLimits.memory,  # bytes for one execution of the notebook
    isolation: str = "",  # name of a mode; the best that works here when empty
    packages: Sequence[Path] = (),  # folders with what was installed for this notebook alone
    local: Path | None = None,  # folder with the author's own modules, which the project's package takes in
) -> WrittenNotebook:
    """Write notebook and module. Raises NotebookFailed if the converted cells do not run."""
    all_blocks = plan_blocks(plan)
    parameters = extract_parameters(plan, all_blocks, data, _output_folder(project, keep, data))
    choices = model_choices(plan, all_blocks) if run else "the notebook was not run, so no model was tested"
    chosen: ModelChoice | str = choices if isinstance(choices, str) else choices[0]
    module = f"models.{name}"
    types: dict[tuple[str, str], str] = {}
    model: list[CellSource] = []
    tried: list[str] = []
    proven: ProvenModel | None = None
    share_equal_steps(all_blocks, plan, parameters)
    if run:
        cells = notebook_cells(plan, all_blocks, parameters, types, module)
        ways = (
            []
            if isinstance(choices, str)
            else [way for choice in choices for way in _model_candidates(plan, choice, parameters)]
        )
        refused = [way for way, _, _ in ways if way.skipped]
        specs = [way.spec(i, name, score) for i, (way, score, _) in enumerate(ways) if not way.skipped]
        overrides = {parameters.folder: "."} if parameters.folder and data is not None else {}
        answer = run_model_probe(cells, all_blocks, specs, data, timeout, overrides, packages, memory, isolation)
        types = _step_types(answer["types"], plan)
        parameters.files += answer["files"]
        tried, proven = answer["tried"], answer["model"]
        if proven is not None:
            way, _, chosen_fit = ways[proven["index"]]
            if proven.get("overlap") and chosen_fit.fit.kind != "clusterer":
                chosen_fit.held_out = False
            if chosen_fit.kept != "estimator":
                proven = {**proven, "estimator": chosen_fit.fit.path.rpartition(".")[2]}
            way = _with_needed_outputs(way, chosen_fit, plan, all_blocks, parameters)
            chosen, model = chosen_fit, model_cells(name, chosen_fit, way, proven, parameters)
            parameters.every.append(CodeParameter("as_of", "str", repr(day), "day of the data, stored with the model"))
        elif isinstance(chosen, ModelChoice):
            what = chosen.fit.path.rpartition(".")[2]
            why = "; ".join(dict.fromkeys(reason.partition("\n")[0] for reason in tried))
            chosen = f"no verified way to predict records with {what} was found" + (f": {why}" if why else "")
            if refused:
                chosen = f"{what} cannot predict raw records: {row_dependence_advice(refused[-1].skipped)}"
        if proven is None:
            limit_outputs(all_blocks, None)
    cells = add_folder_guard(join_short_cells(notebook_cells(plan, all_blocks, parameters, types, module)), parameters)
    cells = _add_model_cells(cells, model, chosen, proven)
    if local is not None:
        cells[2:2] = [CellSource("code", copy_local_modules(project, local))]
    if keep and data is not None:
        copy_files(data, parameters.files, project.root / keep)
    notebook = project.notebooks / "models" / f"{name}.ipynb"
    write_notebook(notebook, cells, pasted_pictures(plan.notebook.path))
    export_module(project, notebook)
    dotted = f"{project.lib}.{module}"
    if run:
        check_import(project, dotted, packages, isolation)
    return WrittenNotebook(
        notebook=notebook,
        module=dotted,
        module_file=project.package / "models" / f"{name}.py",
        model=f"{dotted}:{class_name(name)}" if model else "",
        no_model="" if model else str(chosen),
        parameters=tuple(str(parameter) for parameter in parameters.every),
        functions=tuple(dict.fromkeys(cell.step for cell in cells if cell.exported and cell.step)),
        alignment=tuple(_align_cells(cells)),
        plain=(
            *(Failure(reason, f"cell {p.cells[0] + 1}") for p in all_blocks if p.kind == "plain" for reason in dict.fromkeys(p.reasons)),
            *(Failure(f"{file_name} reads its files from {_output_folder(project, keep, data)}, independent of {parameters.folder}", f"cell {cell + 1}")
              for cell, file_name in dict.fromkeys(parameters.fixed)),
        ),
        dropped=tuple(plan.dropped),
        structure=_notebook_structure(plan, cells, parameters),
        tried=tuple(tried),
        agreement=proven["agreement"] if proven is not None else None,
    )  # fmt: skip


def _output_folder(project: Project, keep: str, data: Path | None) -> str:
    if keep:
        return keep
    return str(data.resolve()) if data is not None else "."


def copy_files(data: Path, files: Sequence[str], target: Path) -> None:
    """Copy the files that the notebook reads into the project; a file that is there already stays."""
    for file in dict.fromkeys(files):
        source, copy = data / file, target / file
        if source.is_file() and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def _model_candidates(
    plan: Plan, model_choice: ModelChoice, parameters: CodeParameters
) -> list[tuple[ModelSource, str | None, ModelChoice]]:
    """The ways to build one estimator's model, with the source of its metric."""
    classes = "Classifier" in model_choice.fit.path or bool(
        re.search(r"Logistic|SVC|NB$|SGDClassifier|Perceptron", model_choice.fit.path)
    )
    text = None
    if model_choice.kept != "forecast":
        _, score, _, line = metric_and_source(model_choice, classes)
        text = f"{line}\ndef score(answers, predicted, features):\n    return {score}\n"
        model_choice.ways = find_record_entries(plan, model_choice, lambda block: call_source(block, parameters))
    return [(candidate, text, model_choice) for candidate in model_sources(plan, model_choice, parameters)]


def _with_needed_outputs(
    model_source: ModelSource,
    model_choice: ModelChoice,
    plan: Plan,
    all_blocks: Sequence[Block],
    parameters: CodeParameters,
) -> ModelSource:
    """The same candidate with steps that return only the needed outputs."""
    limit_outputs(all_blocks, model_choice, model_source.way.start if model_source.way is not None else "")
    again = [model_source for model_source, _, _ in _model_candidates(plan, model_choice, parameters)]
    return next(line for line in again if line.key == model_source.key)


def run_model_probe(
    cells: list[CellSource],
    all_blocks: list[Block],
    specs: list[CandidateModel],
    data: Path | None,
    timeout: float,
    overrides: Mapping[str, str],
    packages: Sequence[Path] = (),
    memory: int = ChildLimits.memory,
    isolation: str = "",
) -> ProbeAnswer:
    """Run the cells in a separate process and return the observed types and models; raises NotebookFailed if one fails."""
    returns = {block.name: block.outputs for block in all_blocks if block.kind == "step" and block.like is None}
    code = [
        cell
        for cell in cells
        if cell.kind == "code" and not cell.source.startswith(("#| default_exp", "#| eval: false"))
    ]
    listed: list[ProbedCell] = [{"source": c.source, "step": c.step, "exported": c.exported, "returns": returns.get(c.step, []), "tags": c.tags}
              for c in code]  # fmt: skip
    with TemporaryDirectory() as name:
        home = Path(name, "home")
        home.mkdir()
        spec, answer = home / "spec.json", home / "answer.json"
        kernel = any(
            re.search(r"get_ipython\(|\b(_|__|_\d+|In|CellSource)\b", cell.source) for cell in code if not cell.exported
        )
        request: ProbeSpec = {"cells": listed, "candidates": specs, "kernel": kernel, "overrides": dict(overrides)}
        spec.write_text(json.dumps(request), encoding="utf-8")
        command = [
            sys.executable,
            "-P",
            "-m",
            "d2c_mlops.convert.run.model_probe",
            str(spec),
            str(answer),
            *map(str, packages),
        ]
        folder = Path(name, "run")
        if data is not None:
            clone_folder(data, folder)
        else:
            folder.mkdir()
        ended = run_program(command, folder, home, ChildLimits(timeout * TRAININGS, memory, isolation), extra=packages)
        answer_bytes = read_result(answer)
        if answer_bytes is None:
            raise NotebookFailed(f"{ended.says}: {ended.output.strip()[-200:]}", where="the converted notebook",
                                 next="d2c convert --no-run writes the conversion without running it")  # fmt: skip
        probed: ProbeAnswer = json.loads(answer_bytes)
    if ended.status in ("timeout", "memory"):
        probed["tried"].append(f"while a model was tested: {ended.says}")
    if error := probed["error"]:
        cell = code[error["cell"]]
        number = cell.cells[0] + 1 if cell.cells else 0
        raise NotebookFailed(
            error["what"],
            where=f"cell {number}" if number else "the first cells",
            next="d2c convert --no-run writes the conversion without running it",
            cell=number,
        )
    return probed


def _step_types(seen_types: Mapping[str, str], plan: Plan) -> dict[tuple[str, str], str]:
    bound = {
        path.rpartition(".")[2]: name for name, path in plan.imports.paths.items() if name not in plan.imports.contested
    }
    types = {}
    for place, text in seen_types.items():
        step, _, name = place.partition(" ")
        if text.startswith("class:"):
            text = bound.get(text.removeprefix("class:"), "Any")
        types[(step, name)] = text
    return types


def _add_model_cells(
    cells: list[CellSource], model: list[CellSource], model_choice: ModelChoice | str, proven: ProvenModel | None
) -> list[CellSource]:
    """Add the model and its imports; separate exported imports from those that only the notebook's cells need."""
    if model and isinstance(model_choice, ModelChoice) and proven is not None:
        _, _, _, line = metric_and_source(model_choice, proven["classes"])
        extra = f"{NEEDS}\n{line}\nfrom pathlib import Path\nfrom typing import ClassVar\nimport numpy as np\nimport pandas as pd"
    else:
        extra = ""
        if isinstance(model_choice, str):
            model = [
                CellSource(
                    "markdown",
                    f"## No model\nThis notebook has no model to serve: {model_choice}. Its steps are exported anyway.",
                )
            ]
    cells = [*cells, *model]
    place = next(i for i, cell in enumerate(cells) if cell.source.startswith("#| export\nfrom __future__"))
    lines = [*cells[place].source.split("\n")[3:], *extra.split("\n")]
    code = "\n".join(cell.source for i, cell in enumerate(cells) if cell.exported and i != place)
    exported_imports = [line for line in dict.fromkeys(lines) if line.strip() and _is_needed_import(line, code, lines)]
    plain_code = "\n".join(cell.source for cell in cells if cell.kind == "code" and not cell.exported)
    shown = [
        line
        for line in dict.fromkeys(lines)
        if line.strip() and line not in exported_imports and _is_needed_import(line, plain_code, lines)
    ]
    head = [CellSource("code", "\n".join(["#| export", "from __future__ import annotations", "", *exported_imports]))]
    if shown:
        head.append(CellSource("code", "\n".join(shown)))
    return [*cells[:place], *head, *cells[place + 1 :]]


def _is_needed_import(line: str, code: str, lines: list[str]) -> bool:
    if line.startswith((" ", "try", "except", "else", "finally")) or "import *" in line:
        return True
    names = re.findall(r"\w+", line.partition(" as ")[2] or line.rpartition("import ")[2])
    return any(re.search(rf"\b{re.escape(name)}\b", code) for name in names)


def _align_cells(cells: list[CellSource]) -> list[AlignedCells]:
    """For each cell of the author: the last cell that replaces it, and every name that its parts bind."""
    entries: dict[int, AlignedCells] = {}
    for number, out in enumerate(cells, 1):
        if out.kind == "code" and out.cells and not out.exported:
            last = entries.setdefault(max(out.cells), {"converted": number, "original": [], "names": []})
            last["converted"] = number
            last["original"] = sorted({*last["original"], *(cell + 1 for cell in out.cells)})
            last["names"] += [name for name in out.names if name not in last["names"]]
    return [entry for entry in entries.values() if entry["names"]]


def _notebook_structure(plan: Plan, cells: list[CellSource], parameters: CodeParameters) -> NotebookStructure:
    before = plan.notebook
    return {
        "before": {
            "cells": len(before.cells),
            "code cells": len(before.code),
            "functions": sum(1 for line in plan.lines if line.kind == "definition"),
            "parameters": 0,
            "exports": 0,
        },
        "after": {
            "cells": len(cells),
            "code cells": sum(cell.kind == "code" for cell in cells),
            "functions": len({cell.step for cell in cells if cell.exported and cell.step}),
            "parameters": len(parameters.every),
            "exports": sum(cell.exported for cell in cells),
        },
    }


def default_module_name(plan: Plan) -> str:
    """Return a module name for a notebook: its file's name."""
    stem = naming.snake_case(plan.notebook.path.stem)
    stem = re.sub(r"[^a-z0-9_]", "", stem).strip("_")
    return stem if re.fullmatch(r"[a-z][a-z0-9_]*", stem) else "notebook"
