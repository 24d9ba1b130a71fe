"""Write the source of a model: training, preparation of records, contract and class."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.model_plan import ModelChoice, RecordEntry, learning_before_entry
from d2c_mlops.convert.plan.plan import Plan, exported_names
from d2c_mlops.convert.plan.row_dependence import LearningSite
from d2c_mlops.convert.plan.slicing import NeededColumns, take_if_needed
from d2c_mlops.convert.source.source_edits import append_return, indent_source
from d2c_mlops.convert.write.charter import charter_source
from d2c_mlops.convert.write.model_text import (
    assertion_cells,
    class_source,
    contract_source,
    metric_and_baseline,
    model_texts,
)
from d2c_mlops.convert.write.notebook_document import CellSource, export_cell
from d2c_mlops.convert.write.parameter_list import CodeParameters
from d2c_mlops.convert.write.step_functions import call_source, line_source

if TYPE_CHECKING:
    from d2c_mlops.convert.run.model_proof import CandidateModel, ProvenModel

TRAININGS = ("train", "train_model", "train_again", "train_the_model")  # names for the function that trains
NEEDS = """from datetime import date
from typing import Any, Self

import pandera.pandas as pa

from d2c_mlops.data.tables import Tables
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.core.model import Evaluation, Model
from d2c_mlops.models.converted.recorded_steps import Learned, load_fitted, save_fitted, steady
from d2c_mlops.models.converted.statistical import forecast_of, regression_of"""


@dataclass(frozen=True)
class ModelSource:
    """Source of one way to build the model, for trying it and for writing it."""

    way: RecordEntry | None  # None: the features themselves are the record
    train: str
    load: str
    prepare: str
    parameters: tuple[str, ...]
    load_parameters: tuple[str, ...]
    name: str = "train"  # of the function that trains
    load_name: str = ""  # of the function that returns the records
    seen: str = ""  # where the probe notes the type of the start
    estimator: str = ""  # the notebook's name for the fitted object
    skipped: tuple[LearningSite, ...] = ()  # what learns before the record enters: then it is not tried

    @property
    def key(self) -> tuple[str, int, bool, bool, bool]:
        """The values that distinguish two entries."""
        return self.way.key if self.way is not None else ("", -1, False, False, False)

    @property
    def functions(self) -> list[str]:
        """Source of the author's functions that use values learned in the training."""
        return self.way.replay.functions if self.way is not None else []

    def spec(self, index: int, name: str, score: str | None) -> CandidateModel:
        """The values that the probe needs to test the candidate."""
        return {"seen": self.seen, "index": index, "name": name, "start": self.way.start if self.way else "features", "train": self.name,
                "prepare": "prepare_records", "parameters": list(self.parameters), "score": score, "estimator": self.estimator,
                "load": self.load_name, "load_parameters": list(self.load_parameters),
                "sources": ["from typing import Any\nimport pandas as pd\nfrom d2c_mlops.models.converted.recorded_steps import Learned\n"
                            "from d2c_mlops.models.converted.statistical import forecast_of, regression_of",
                            self.train, self.load, "\n\n".join([*self.functions, self.prepare])]}  # fmt: skip


def model_sources(plan: Plan, model_choice: ModelChoice, parameters: CodeParameters) -> list[ModelSource]:
    """Return the ways to try, the rawest records first, the features themselves last."""
    return [
        replace(
            _model_candidate(way, plan, model_choice, parameters),
            estimator=model_choice.name,
            skipped=tuple(learning_before_entry(plan, model_choice, way)),
        )
        for way in [*model_choice.ways, None]
    ]


def _model_candidate(
    record_entry: RecordEntry | None, plan: Plan, model_choice: ModelChoice, parameters: CodeParameters
) -> ModelSource:
    name = _training_function_name(plan)
    replay_names = list(record_entry.replay.given) if record_entry is not None else []
    needed = [name for name in replay_names if parameters.find(name) is None]
    body, used = _step_calls(plan, model_choice, parameters, record_entry)
    features = ast.unparse(model_choice.features)
    answers = ast.unparse(model_choice.answers) if model_choice.answers is not None else "None"
    text = " ".join([*body, features, answers, *replay_names])
    used += [
        p.name for p in parameters.every if p.name not in used and re.search(rf"(?<![\w.]){p.name}\b(?!\s*=[^=])", text)
    ]
    order = [p.name for p in parameters.every if p.name in used]
    handed = ", ".join(
        f'"{name}": {name}' for name in dict.fromkeys([*needed, *(n for n in replay_names if n in order)])
    )
    if model_choice.kept == "forecast":
        return _forecast_source(name, model_choice, parameters, body, order)
    if record_entry is None:
        handed = f'"plain": not isinstance({features}, pd.DataFrame)'
    records = "records_seen" if record_entry is not None else f"as_frame({features})"
    model = f"regression_of({model_choice.name})" if model_choice.kept == "regression" else model_choice.name
    result = f'return {{"model": {model}, "records": {records}, "features": {features}, "answers": {answers}, "given": {{{handed}}}}}'
    train = (
        f"def {name}({_function_signature(order, parameters)}) -> dict[str, Any]:\n"
        f'    """Run the steps of the model; return it with its records and its evaluation data."""\n'
        + "\n".join(indent_source(line) for line in [*body, result])
    )
    if record_entry is None:
        return ModelSource(None, train, _AS_FRAME, _unchanged_features_source(), tuple(order), (), name)
    load, load_call, load_order = _loading_function(plan, model_choice, parameters, record_entry)
    lines = append_return(
        [f"{record_entry.start} = learned.records(records)", *record_entry.replay.lines], record_entry.replay.features
    )
    prepare = (
        "def prepare_records(records: pd.DataFrame, learned: Learned) -> Any:\n"
        '    """Return the features of records, prepared like the training data."""\n'
        + "\n".join(indent_source(line) for line in lines)
    )
    step = model_choice.blocks[record_entry.after]
    type_key = ""
    if step.kind == "step":
        first = step.like or step
        type_key = f"{first.name} -> {first.outputs[step.outputs.index(record_entry.start)]}"
    return ModelSource(record_entry, train, load, prepare, tuple(order), tuple(load_order), name, load_call, type_key)


def _loading_function(
    plan: Plan, model_choice: ModelChoice, parameters: CodeParameters, record_entry: RecordEntry
) -> tuple[str, str, list[str]]:
    """The function that returns the records, its name and its parameters; an existing step is used if it does just that."""
    blocks = _record_blocks(model_choice, plan, record_entry)
    used = _used_parameters(blocks, parameters)
    order = [p.name for p in parameters.every if p.name in used]
    if len(blocks) == 1 and blocks[0].kind == "step" and blocks[0].outputs == [record_entry.start]:
        if not [name for name in blocks[0].inputs if parameters.find(name) is None]:
            return "", blocks[0].called, order
    text = (
        f"def load_records({_function_signature(order, parameters)}) -> pd.DataFrame:\n"
        f'    """Return the training records before their preparation."""\n'
        + "\n".join(
            indent_source(line) for line in append_return(_source_lines(blocks, plan, parameters), record_entry.start)
        )
    )
    return text, "load_records", order


def _record_blocks(model_choice: ModelChoice, plan: Plan, record_entry: RecordEntry) -> list[Block]:
    """The blocks that create the records."""
    needed = NeededColumns(plan.inference, exported_names(plan))
    needed.want(record_entry.start)
    leading: list[Block] = []
    for block in reversed(model_choice.blocks[: record_entry.after + 1]):
        if block.kind == "step":
            is_needed = take_if_needed(block, needed)
        else:
            is_needed = any(needed.touches(line.statement, line.facts) for line in block.lines)
            for line in reversed(block.lines) if is_needed else ():
                needed.step_back_over(line.statement, line.facts)
        if is_needed:
            leading.insert(0, block)
    return leading


def _training_function_name(plan: Plan) -> str:
    """An unused name for the training function."""
    return next(name for name in TRAININGS if name not in plan.names)


def _forecast_source(
    name: str, model_choice: ModelChoice, parameters: CodeParameters, body: Sequence[str], order: Sequence[str]
) -> ModelSource:
    """A record is a step ahead: the fitted model is stored as a table of its forecasts."""
    freq = f', "{model_choice.freq}"' if model_choice.freq else ""
    result = [
        f"table = forecast_of({model_choice.name}, {model_choice.horizon}{freq})",
        'return {"model": table, "records": table.records(), "features": table.records(), "answers": None, "given": {}}',
    ]
    train = (
        f"def {name}({_function_signature(order, parameters)}) -> dict[str, Any]:\n"
        f'    """Run the steps of the model; return its forecast of the next {model_choice.horizon} periods."""\n'
        + "\n".join(indent_source(line) for line in [*body, *result])
    )
    prepare = (
        "def prepare_records(records: pd.DataFrame, learned: Learned) -> Any:\n"
        '    """Return the requested steps ahead, from 1."""\n'
        "    return learned.records(records)"
    )
    return ModelSource(None, train, "", prepare, tuple(order), (), name)


_AS_FRAME = '''def as_frame(features: Any) -> pd.DataFrame:
    """Return features as a table with a name for each column."""
    if isinstance(features, pd.DataFrame):
        return features
    columns = [f"feature_{number + 1}" for number in range(features.shape[1])]
    return pd.DataFrame(features, columns=columns)'''


def _unchanged_features_source() -> str:
    return (
        "def prepare_records(records: pd.DataFrame, learned: Learned) -> Any:\n"
        '    """Return the features: a record is already prepared like the training data."""\n'
        "    features = learned.records(records)\n"
        '    return features.to_numpy() if learned["plain"] else features'
    )


def _step_calls(
    plan: Plan, model_choice: ModelChoice, parameters: CodeParameters, record_entry: RecordEntry | None
) -> tuple[list[str], list[str]]:
    """The calls that lead to the model, and the parameters that they take."""
    blocks = list(model_choice.blocks)
    if record_entry is None:
        return _source_lines(blocks, plan, parameters), _used_parameters(blocks, parameters)
    first, later = blocks[: record_entry.after + 1], blocks[record_entry.after + 1 :]
    load, name, order = _loading_function(plan, model_choice, parameters, record_entry)
    produced = {n for block in first for n in (block.outputs or [n for line in block.lines for n in line.facts.binds])}
    needed = {n for block in later for n in [*block.inputs, *(n for line in block.lines for n in line.facts.loads)]}
    needed |= {n for n in re.findall(r"\w+", f"{model_choice.name} {ast.unparse(model_choice.features)}")}
    needed |= (
        {n for n in re.findall(r"\w+", ast.unparse(model_choice.answers))}
        if model_choice.answers is not None
        else set()
    )
    needed |= set(record_entry.replay.given)
    if load and produced & needed <= {record_entry.start}:
        begin = [f"{record_entry.start} = {name}({', '.join(f'{parameter}={parameter}' for parameter in order)})"]
        used = [*order, *_used_parameters(later, parameters)]
    else:
        begin, used = _source_lines(first, plan, parameters), _used_parameters(blocks, parameters)
    return [*begin, f"records_seen = {record_entry.start}.copy()", *_source_lines(later, plan, parameters)], used


def _source_lines(blocks: Sequence[Block], plan: Plan, parameters: CodeParameters) -> list[str]:
    sources: list[str] = []
    for block in blocks:
        if block.kind == "step":
            sources.append(call_source(block, parameters))
        else:
            sources += [line_source(line, plan, parameters).strip("\n") for line in block.lines]
    return sources


def _used_parameters(blocks: Sequence[Block], parameters: CodeParameters) -> list[str]:
    """The parameters that pieces take."""
    used: list[str] = []
    for block in blocks:
        if block.kind == "step":
            used += [name for name in [*block.inputs, *block.parameters] if parameters.find(name) is not None]
        else:
            used += [n for line in block.lines for n in line.facts.reads if parameters.find(n) is not None]
    return used


def _function_signature(names: Sequence[str], parameters: CodeParameters) -> str:
    return ", ".join(str(parameters.find(name)).partition(" = ")[0] for name in names)


def model_cells(
    name: str,
    model_choice: ModelChoice,
    candidate: ModelSource,
    proven: ProvenModel,
    parameters: CodeParameters,
) -> list[CellSource]:
    """Return the cells of the model, its assertions included."""
    texts = model_texts(model_choice, candidate, proven)
    helper = [export_cell(candidate.load)] if candidate.load else []
    cells = [
        CellSource("markdown", texts["head"]),
        *helper,
        export_cell(candidate.train),
        CellSource("markdown", texts["prepare"]),
        *(export_cell(function) for function in candidate.functions),
        export_cell(candidate.prepare),
        CellSource("markdown", texts["contract"]),
        *[export_cell(part) for part in contract_source(name, proven["contract"])],
        CellSource("markdown", texts["charter"]),
        export_cell(charter_source(*metric_and_baseline(model_choice, proven["classes"]))),
        CellSource("markdown", texts["model"]),
        export_cell(class_source(name, model_choice, candidate, proven, parameters)),
    ]
    return cells + assertion_cells(name, model_choice, parameters, candidate, proven)
