"""The source of a model: how it is trained, how a record is prepared, its contract and its class."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2c_mlops.convert.model_plan import SCORES, Chosen, Way
from d2c_mlops.convert.plan import Plan
from d2c_mlops.convert.rewrite import indented
from d2c_mlops.convert.steps import Piece
from d2c_mlops.convert.write.document import Out, exported
from d2c_mlops.convert.write.functions import call_source, line_source
from d2c_mlops.convert.write.parameters import Parameters

NEEDS = """from datetime import date
from typing import Any, Self

import pandera.pandas as pa

from d2c_mlops.data.tables import Tables
from d2c_mlops.models.charter import Charter
from d2c_mlops.models.contract import Contract, column
from d2c_mlops.models.model import Evaluation, Model
from d2c_mlops.models.replay import Learned, load_fitted, save_fitted, steady
from d2c_mlops.models.statistical import forecast_of, regression_of"""


@dataclass(frozen=True)
class Candidate:
    """Source of one way to build the model, for trying it and for writing it."""

    way: Way | None  # None: the features themselves are the record
    train: str
    load: str
    prepare: str
    parameters: tuple[str, ...]
    load_parameters: tuple[str, ...]
    seen: str = ""  # where the probe notes the type of the start

    def spec(self, index: int, name: str, score: str | None) -> dict[str, Any]:
        """What the probe needs to try it."""
        return {"seen": self.seen, "index": index, "name": name, "start": self.way.start if self.way else "features", "train": "train",
                "prepare": "prepare_records", "parameters": list(self.parameters), "score": score,
                "sources": ["from typing import Any\nimport pandas as pd\nfrom d2c_mlops.models.replay import Learned\n"
                            "from d2c_mlops.models.statistical import forecast_of, regression_of",
                            self.train, self.load, self.prepare]}  # fmt: skip


def candidates(plan: Plan, chosen: Chosen, parameters: Parameters) -> list[Candidate]:
    """Return the ways to try, the rawest records first, the features themselves last."""
    return [_candidate(way, plan, chosen, parameters) for way in [*chosen.ways, None]]


def _candidate(way: Way | None, plan: Plan, chosen: Chosen, parameters: Parameters) -> Candidate:
    given = list(way.replay.given) if way is not None else []
    needed = [name for name in given if parameters.of(name) is None]
    body, used = _steps(plan, chosen, parameters, len(chosen.pieces) - 1, way)
    features = ast.unparse(chosen.features)
    answers = ast.unparse(chosen.answers) if chosen.answers is not None else "None"
    text = " ".join([*body, features, answers, *given])
    used += [p.name for p in parameters.every if p.name not in used and re.search(rf"\b{p.name}\b", text)]
    order = [p.name for p in parameters.every if p.name in used]
    handed = ", ".join(f'"{name}": {name}' for name in dict.fromkeys([*needed, *(n for n in given if n in order)]))
    if chosen.kept == "forecast":
        return _forecast(chosen, parameters, body, order)
    if way is None:
        handed = f'"plain": not isinstance({features}, pd.DataFrame)'
    records = "records_seen" if way is not None else f"as_frame({features})"
    model = f"regression_of({chosen.name})" if chosen.kept == "regression" else chosen.name
    result = f'return {{"model": {model}, "records": {records}, "features": {features}, "answers": {answers}, "given": {{{handed}}}}}'
    train = (
        f"def train({_signature(order, parameters)}) -> dict[str, Any]:\n"
        f'    """Run the steps that lead to the model; return it with its records and what it is judged on."""\n'
        + "\n".join(indented(each) for each in [*body, result])
    )
    if way is None:
        return Candidate(None, train, _AS_FRAME, _features_only(), tuple(order), ())
    loading, load_used = _steps(plan, chosen, parameters, way.after, None, way.start)
    load_order = [p.name for p in parameters.every if p.name in load_used]
    load = (
        f"def load_records({_signature(load_order, parameters)}) -> pd.DataFrame:\n"
        f'    """Return the records that the model learns from, before they are prepared."""\n'
        + "\n".join(indented(each) for each in [*loading, f"return {way.start}"])
    )
    lines = [f"{way.start} = learned.records(records)", *way.replay.lines, f"return {way.replay.features}"]
    prepare = (
        "def prepare_records(records: pd.DataFrame, learned: Learned) -> Any:\n"
        '    """Return the features of records, prepared as the training data was."""\n'
        + "\n".join(indented(each) for each in lines)
    )
    step = chosen.pieces[way.after]
    seen = f"{step.name} -> {way.start}" if step.kind == "step" else ""
    return Candidate(way, train, load, prepare, tuple(order), tuple(load_order), seen)


def _forecast(chosen: Chosen, parameters: Parameters, body: Sequence[str], order: Sequence[str]) -> Candidate:
    """A record is a step ahead: the fitted model is kept as the table of what it says of them."""
    freq = f', "{chosen.freq}"' if chosen.freq else ""
    result = [
        f"table = forecast_of({chosen.name}, {chosen.horizon}{freq})",
        'return {"model": table, "records": table.records(), "features": table.records(), "answers": None, "given": {}}',
    ]
    train = (
        f"def train({_signature(order, parameters)}) -> dict[str, Any]:\n"
        f'    """Run the steps that lead to the model; return its forecast of the next {chosen.horizon} periods."""\n'
        + "\n".join(indented(each) for each in [*body, *result])
    )
    prepare = (
        "def prepare_records(records: pd.DataFrame, learned: Learned) -> Any:\n"
        '    """Return the steps ahead that are asked for, from 1."""\n'
        "    return learned.records(records)"
    )
    return Candidate(None, train, "", prepare, tuple(order), ())


_AS_FRAME = '''def as_frame(features: Any) -> pd.DataFrame:
    """Return features as a table with a name for each column."""
    if isinstance(features, pd.DataFrame):
        return features
    columns = [f"feature_{number + 1}" for number in range(features.shape[1])]
    return pd.DataFrame(features, columns=columns)'''


def _features_only() -> str:
    return (
        "def prepare_records(records: pd.DataFrame, learned: Learned) -> Any:\n"
        '    """Return the features: a record is what the estimator was trained on, already prepared."""\n'
        "    features = learned.records(records)\n"
        '    return features.to_numpy() if learned["plain"] else features'
    )


def _steps(
    plan: Plan, chosen: Chosen, parameters: Parameters, last: int, way: Way | None, only: str = ""
) -> tuple[list[str], list[str]]:
    """Return the calls up to a step; with `only`, no more than that name needs."""
    pieces = list(enumerate(chosen.pieces))[: last + 1]
    if only:
        needed: set[str] = {only}
        kept: list[tuple[int, Piece]] = []
        for place, piece in reversed(pieces):
            outputs = (
                set(piece.outputs) if piece.kind == "step" else {n for line in piece.lines for n in line.facts.binds}
            )
            if outputs & needed:
                kept.insert(0, (place, piece))
                needed |= set(piece.inputs) | {n for line in piece.lines for n in line.facts.reads}
        pieces = kept
    body, used = [], []
    for place, piece in pieces:
        if piece.kind == "step":
            body.append(call_source(piece, parameters))
            used += [name for name in [*piece.inputs, *piece.parameters] if parameters.of(name) is not None]
        else:
            body += [line_source(line, plan, parameters).strip("\n") for line in piece.lines]
            used += [n for line in piece.lines for n in line.facts.reads if parameters.of(n) is not None]
        if way is not None and place == way.after:
            body.append(f"records_seen = {way.start}.copy()")
    return body, used


def _signature(names: Sequence[str], parameters: Parameters) -> str:
    return ", ".join(str(parameters.of(name)).partition(" = ")[0] for name in names)


def score_source(chosen: Chosen, classes: bool) -> tuple[str, str, bool, str]:
    """Return the metric's name, its source over (answers, predicted, features), whether lower is better, its import."""
    metric = chosen.score if chosen.score in SCORES else ""
    if chosen.fit.kind == "clusterer":
        metric = "silhouette_score"
    elif metric == "silhouette_score" or not metric:
        metric = "accuracy_score" if classes else "r2_score"
    name, lower = SCORES[metric]
    given = "features, predicted" if metric == "silhouette_score" else "answers, predicted"
    return name, f"{metric}({given})", lower, f"from sklearn.metrics import {metric}"


def model_cells(
    name: str, chosen: Chosen, candidate: Candidate, found: Mapping[str, Any], parameters: Parameters, day: str
) -> list[Out]:
    """Return the cells of the model, its assertions included."""
    from d2c_mlops.convert.write.model_text import class_source, contract_source, prose

    words = prose(name, chosen, candidate, found)
    helper = [exported(candidate.load)] if candidate.load else []
    cells = [
        Out("markdown", words["head"]),
        *helper,
        exported(candidate.train),
        Out("markdown", words["prepare"]),
        exported(candidate.prepare),
        Out("markdown", words["contract"]),
        *[exported(part) for part in contract_source(name, found["contract"])],
        Out("markdown", words["charter"]),
        exported("CHARTER = Charter()"),
        Out("markdown", words["model"]),
        exported(class_source(name, chosen, candidate, found, parameters)),
    ]
    checks: list[Out] = words["checks"](parameters, candidate, found, day)
    return cells + checks
