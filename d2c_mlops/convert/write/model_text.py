"""Texts of the model's cells: contract, class, prose and assertions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypedDict

from d2c_mlops.convert.plan.model_plan import ModelChoice
from d2c_mlops.convert.write.metric_source import metric_and_source
from d2c_mlops.convert.write.notebook_document import CellSource
from d2c_mlops.convert.write.parameter_list import CodeParameters

if TYPE_CHECKING:
    from d2c_mlops.convert.run.inferred_contract import ContractFacts, FieldFacts
    from d2c_mlops.convert.run.model_proof import ProvenModel
    from d2c_mlops.convert.write.model_source import ModelSource

A_CELL = 25  # columns of a contract in one cell


def class_name(name: str) -> str:
    """Return `TelcoChurnModel` for telco_churn."""
    class_title = "".join(part.capitalize() for part in name.split("_"))
    return class_title if class_title.endswith("Model") else f"{class_title}Model"


def contract_source(name: str, described: ContractFacts) -> list[str]:
    """Return the cells that build the contract."""
    fields = described["inputs"]
    parts = [fields[start : start + A_CELL] for start in range(0, len(fields), A_CELL)]
    cells, names = [], []
    for number, part in enumerate(parts):
        constant = "INPUTS" if len(parts) == 1 else f"INPUTS_{number + 1}"
        names.append(constant)
        cells.append(f"{constant} = {{\n" + "\n".join(f"    {_field_line(field)}," for field in part) + "\n}")
    outputs = "OUTPUTS = {\n" + "\n".join(f"    {_field_line(output)}," for output in described["outputs"]) + "\n}"
    inputs = "INPUTS" if len(parts) == 1 else "{" + ", ".join(f"**{word}" for word in names) + "}"
    whole = (
        f'CONTRACT = Contract(\n    name="{name}",\n    version="1.0.0",\n    key="{described["key"]}",\n'
        f"    inputs=pa.DataFrameSchema({inputs}),\n    outputs=pa.DataFrameSchema(OUTPUTS),\n)"
    )
    return [*cells, outputs + "\n" + whole]


def _field_line(field: FieldFacts) -> str:
    arguments = [repr(field["kind"]), repr(field["description"])]
    arguments += [f"{key}={value!r}" for key, value in field.items() if key not in ("name", "kind", "description")]
    return f"{field['name']!r}: column({', '.join(arguments)})"


def class_source(
    name: str,
    model_choice: ModelChoice,
    candidate: ModelSource,
    proven: ProvenModel,
    parameters: CodeParameters,
) -> str:
    """Return the model's class."""

    own_parameters = {parameter: parameters.find(parameter) for parameter in candidate.parameters}
    words = {parameter: ("data" if parameter == parameters.folder else parameter) for parameter in own_parameters}
    inner = [
        f"{words[parameter]}: {p.annotation} = {p.default}" for parameter, p in own_parameters.items() if p is not None
    ]
    sets = [f"        self.{words[parameter]} = {words[parameter]}" for parameter in own_parameters] or ["        pass"]
    handed = ", ".join(f"{parameter}=self.{words[parameter]}" for parameter in own_parameters)
    key = proven["contract"]["key"]
    answers = [f'            "{key}": records["{key}"].to_numpy(),',
               '            "prediction": steady(self.estimator.predict(features)),']  # fmt: skip
    if proven["probability"]:
        answers.append('            "probability": steady(self.estimator.predict_proba(features)[:, 1]),')
    if any(field["name"] == "period" for field in proven["contract"]["outputs"]):
        answers.append('            "period": pd.to_datetime(self.estimator.dates(features)),')
    need = [f["name"] for f in proven["contract"]["inputs"] if not f.get("nullable") and f["name"] != key]
    load = "self.estimator.records()" if model_choice.kept == "forecast" else f'{candidate.name}({handed})["records"]' if candidate.way is None else "{}({})".format(
        candidate.load_name, ", ".join(f"{load_parameter}=self.{words[load_parameter]}" for load_parameter in candidate.load_parameters)
    )  # fmt: skip
    loaded = (
        repr(need)
        if len(need) <= 6
        else f'[name for name, col in CONTRACT.inputs.columns.items() if not col.nullable and name != "{key}"]'
    )
    return "\n".join([
        f"class {class_name(name)}(Model):",
        f'    """{_class_summary(model_choice, proven["estimator"], len(proven["contract"]["inputs"]) - 1)}, fitted as in the notebook above."""',
        "",
        "    contract = CONTRACT",
        "    charter = CHARTER",
        f"    trusted: ClassVar[list[str]] = {proven['trusted']!r}",
        "",
        f"    def __init__(self{', ' if inner else ''}{', '.join(inner)}) -> None:",
        *sets,
        "",
        "    def fit(self, tables: Tables, as_of: date) -> Self:",
        '        """Fit on the files of the notebook. They have no time column, so `as_of` is only stored."""',
        f"        trained = {candidate.name}({handed})",
        "        self.estimator, self.as_of, self.learned = trained[\"model\"], as_of, Learned()",
        "        for name, value in trained[\"given\"].items():",
        "            self.learned.give(name, value)",
        "        prepare_records(trained[\"records\"], self.learned)",
        "        self.learned.learning = False",
        "        return self",
        "",
        "    def predict(self, records: pd.DataFrame) -> pd.DataFrame:",
        '        """Return one prediction per record, in the same order."""',
        "        features = prepare_records(records, self.learned)",
        "        answers = {",
        *answers,
        "        }",
        "        return self.contract.check_outputs(pd.DataFrame(answers))",
        "",
        *_evaluate_method(model_choice, proven["classes"], f"{candidate.name}({handed})"),
        "",
        "    def write(self, folder: Path) -> None:",
        '        save_fitted(self.estimator, folder / "estimator.skops")',
        "        self.learned.write(folder)",
        '        (folder / "as_of.txt").write_text(self.as_of.isoformat())',
        "",
        "    def read(self, folder: Path) -> None:",
        '        self.estimator = load_fitted(folder / "estimator.skops", self.trusted)',
        "        self.learned = Learned.read(folder, self.trusted)",
        '        self.as_of = date.fromisoformat((folder / "as_of.txt").read_text())',
        "",
        "    @classmethod",
        "    def example(cls) -> tuple[Tables, date]:",
        "        return Tables({}), date(2024, 1, 1)",
        "",
        "    def records(self, tables: Tables, as_of: date) -> pd.DataFrame:",
        f"        frame = {load}",
        f"        frame = frame.dropna(subset={loaded}).head(50).reset_index(drop=True)",
        "        keys = [str(number + 1) for number in range(len(frame))]",
        f'        return self.contract.check_inputs(frame.assign(**{{"{key}": keys}})[list(CONTRACT.inputs.columns)])',
    ])  # fmt: skip


def _class_summary(model_choice: ModelChoice, estimator: str, columns: int) -> str:
    if model_choice.kept == "forecast":
        return f"Forecast of the next {model_choice.horizon} periods by {estimator}"
    return f"{estimator} on {columns} column{'s' * (columns != 1)}"


def metric_and_baseline(model_choice: ModelChoice, classes: bool) -> tuple[str, str]:
    """Return the name of the metric that evaluate() reports, and of the baseline beside it."""
    if model_choice.kept == "forecast":
        return "mean_absolute_error_in_sample", "last value"
    metric = metric_and_source(model_choice, classes)[0]
    if model_choice.fit.kind == "clusterer":
        return metric, "random clusters"
    return (
        metric if model_choice.held_out else f"{metric}_on_training_data",
        "most frequent class" if classes else "mean",
    )


def _evaluate_method(model_choice: ModelChoice, classes: bool, training: str) -> list[str]:
    """Return the method that judges the model."""
    head = "    def evaluate(self, tables: Tables, as_of: date) -> Evaluation:"
    if model_choice.kept == "forecast":
        return [
            head,
            '        """Return the mean absolute error one step ahead in sample; the baseline carries the last value forward."""',
            f"        trained = {training}",
            '        table = trained["model"]',
            '        baselines = {"last value": table.naive}',
            '        return Evaluation("mean_absolute_error_in_sample", table.error, baselines, True, {"periods": len(table.values)})',
        ]
    plain, score, lower, _ = metric_and_source(model_choice, classes)
    metric, _ = metric_and_baseline(model_choice, classes)
    rows = (
        "on the held-out rows of the notebook"
        if model_choice.held_out
        else "on the training data; nothing was held out"
    )
    return [
        head,
        f'        """Return the {plain} {rows}."""',
        f"        trained = {training}",
        '        features, answers = trained["features"], trained["answers"]',
        '        predicted = trained["model"].predict(features)',
        f"        value = {score}",
        *_baseline_lines(model_choice, score, classes),
        f'        return Evaluation("{metric}", float(value), {{baseline: float(lazy)}}, {lower}, {{"rows": len(features)}})',
    ]


def _baseline_lines(model_choice: ModelChoice, score: str, classes: bool) -> list[str]:
    if model_choice.fit.kind == "clusterer":
        return ['        baseline, shuffled = "random clusters", np.random.default_rng(0).permutation(predicted)',
                f"        lazy = {score.replace('predicted', 'shuffled')}"]  # fmt: skip
    if classes:
        guess = "pd.Series(np.asarray(answers).ravel()).mode()[0]"
        return [
            '        baseline = "most frequent class"',
            f"        lazy = {score.replace('predicted', f'[{guess}] * len(predicted)')}",
        ]
    return [
        '        baseline = "mean"',
        f"        lazy = {score.replace('predicted', '[np.mean(answers)] * len(predicted)')}",
    ]


class ModelTexts(TypedDict):
    """The prose before the parts of a model, as Markdown."""

    head: str
    prepare: str
    contract: str
    charter: str
    model: str


def model_texts(model_choice: ModelChoice, candidate: ModelSource, proven: ProvenModel) -> ModelTexts:
    """Return the prose between the cells."""
    estimator = proven["estimator"]
    unused = proven["unused"]
    if model_choice.kept == "forecast":
        enter = (
            "A record is a step ahead: 1 is the first period after the data ends. The forecast of the next "
            f"{model_choice.horizon} periods is stored as a table, so predictions do not need the library."
        )
    elif candidate.way is None:
        enter = (
            "A record is a row of features, already prepared: between the files and the features, the steps above use "
            "many rows at once (or read other files), which cannot be repeated for a single record."
        )
    else:
        enter = f"A record is a row of `{candidate.way.start}` before the steps above prepare it. {_learned_sentence(candidate.prepare)}"
    if unused:
        shown = ", ".join(f"`{column}`" for column in unused[:8]) + (", …" if len(unused) > 8 else "")
        enter += (
            f" No prediction depends on {shown}, so a record does not contain {'them' if len(unused) > 1 else 'it'}."
        )
    judged_on = (
        "held out" if model_choice.held_out else "trained on (nothing was held out, so the value is too optimistic)"
    )
    figure = "the author's own metric" if model_choice.score else "the usual metric for its kind"
    judged = f"It is evaluated by {figure} on the rows that were {judged_on}, and compared with a baseline that needs no model."
    if model_choice.kept == "forecast":
        judged = (
            "It is evaluated by its one-step-ahead error in sample, compared with the last value carried forward. That "
            "is too optimistic: the gate evaluates it at past cutoffs, on periods that it has not seen, before it goes live."
        )
    inferred = (
        f"Inferred from {proven['rows']} rows at conversion: types, categories, nullable columns. Relax what holds "
        "only for this data."
    )
    if model_choice.kept == "forecast":
        inferred = "The input is the number of periods ahead; the output is the forecast, with the first day of its period where the data has days."
    return {
        "head": f"## The model in production\nThe {estimator} above becomes a model that can be retrained, evaluated, saved "
        f"and served. `{candidate.name}` runs only the steps of this notebook.",
        "prepare": f"### From a record to features\n{enter}",
        "contract": f"### Inputs and outputs\n{inferred}",
        "charter": "### Charter\nThe owner of the model fills in the empty fields; the gate requires them before the model goes live.",
        "model": f"### The class\n{judged}",
    }


def assertion_cells(
    name: str,
    model_choice: ModelChoice,
    parameters: CodeParameters,
    candidate: ModelSource,
    proven: ProvenModel,
) -> list[CellSource]:
    """Return the cells that assert what the model predicts, and the one that registers it."""
    argument_names = {
        parameter: ("data" if parameter == parameters.folder else parameter) for parameter in candidate.parameters
    }
    handed = ", ".join(f"{word}={parameter}" for parameter, word in argument_names.items())
    listed = ", ".join(f'"{word}": {parameter}' for parameter, word in argument_names.items())
    unchanged = " and ".join(f"{p.name} == {p.default}" for p in parameters.every if p.name in argument_names)
    value = proven.get("metric")
    tolerance = _metric_tolerance(value, proven["again"]) if value is not None else 0.0
    measured = f"\nif {unchanged or 'True'}:  # measured at conversion\n    assert abs(evaluation.value - {value!r}) <= {tolerance:.3g}" if value is not None else ""  # fmt: skip

    intro = "For known records, the model returns the predictions of the notebook, one per record."
    if model_choice.kept == "forecast":
        intro = "For a step ahead, the model returns the forecast of the notebook."
    return [
        CellSource("code", f"model = {class_name(name)}({handed}).fit(Tables({{}}), date.fromisoformat(as_of))\nevaluation = model.evaluate(Tables({{}}), model.as_of)\nevaluation".replace("model = ", f"{MODEL_NAME} = ").replace("model.", f"{MODEL_NAME}.")),
        CellSource("markdown", intro),
        CellSource("code", f"example_records = {MODEL_NAME}.records(Tables({{}}), {MODEL_NAME}.as_of)\npredictions = {MODEL_NAME}.predict(example_records)\n"
            f'assert predictions["{proven["contract"]["key"]}"].tolist() == example_records["{proven["contract"]["key"]}"].tolist()\n'
            f"assert {MODEL_NAME}.predict(example_records.iloc[[0]])[\"prediction\"].tolist() == predictions[\"prediction\"].tolist()[:1]{measured}\npredictions.head()"),
        CellSource("markdown", f"## Registration\n`d2c run` on this notebook registers the fitted model as a version of `{name}`; in JupyterLab, nothing is registered."),
        CellSource("code", "from d2c_mlops.registry.versions import new_model, register\nfrom d2c_mlops.runs.recording import record, run_id\nfrom d2c_mlops.settings import load_settings\n\n"
            "record(**{evaluation.metric: evaluation.value}, **{f\"baseline_{key}\": value for key, value in evaluation.baselines.items()})\n"
            "if run_id():\n    settings = load_settings()\n"
            f"    fitted = new_model(\"{name}\", settings, {{{listed}}}).fit(Tables({{}}), {MODEL_NAME}.as_of)\n"
            f"    version = register(\"{name}\", fitted, evaluation, settings=settings, as_of={MODEL_NAME}.as_of, run_id=run_id())\n"
            "    record(version=version.version)"),
    ]  # fmt: skip


_KEPT = (
    (r"learned\.encode\(|\.transform\(", "the fitted transformers"),
    (r"learned\.(codes|dummies)\(", "the categories"),
    (r"learned\.cut\(", "the edges of the bins"),
    (r"learned\.keep\(", "the figures"),
)


def _learned_sentence(prepare: str) -> str:
    """Return what a preparation keeps of the training data, as a sentence."""
    effects = [what for sign, what in _KEPT if re.search(sign, prepare)]
    if not effects:
        return "This needs no value of the training data."
    listed = " and ".join([", ".join(effects[:-1]), effects[-1]]) if len(effects) > 1 else effects[0]
    return f"Where a step learns from the training data, a record is prepared with {listed} from training."


MODEL_NAME = "in_production"


def _metric_tolerance(value: float, again: float | None) -> float:
    """Return the tolerance of a metric: large if a second training had another result, or was not run."""
    if value == again:
        return 0.01 * max(1.0, abs(value))
    return max(0.1 * abs(value), 0.01, 4 * abs(value - (value if again is None else again)))
