"""Choose the fitted estimator that becomes the model, its steps, and where records enter."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from d2c_mlops.convert.meaning.roles import Fit
from d2c_mlops.convert.plan.block import Block, in_binding_order
from d2c_mlops.convert.plan.evaluation_plan import (
    AuthorEvaluation,
    author_evaluation,
    bound_name,
    fits_at_call_sites,
    lines_with_aliases,
    names_in_code,
    training_arguments,
)
from d2c_mlops.convert.plan.plan import Plan, PlanLine, draws_plot, exported_names
from d2c_mlops.convert.plan.row_dependence import LearningSite, learning_sites
from d2c_mlops.convert.plan.slicing import NeededColumns, take_if_needed
from d2c_mlops.convert.plan.training_replay import ReplayOptions, ReplayPlan, Words, plan_replay

FAMILIES = ("sklearn.", "xgboost.", "lightgbm.", "imblearn.")
FORECASTERS = frozenset(
    "SARIMAX ARIMA ARMA ExponentialSmoothing SimpleExpSmoothing Holt ETSModel AutoReg AR UnobservedComponents ThetaModel "  # noqa: SIM905
    "Prophet AutoARIMA".split()
)
REGRESSIONS = frozenset("OLS WLS GLS GLM RLM Logit Probit Poisson NegativeBinomial QuantReg".split())  # noqa: SIM905
STATISTICAL = ("statsmodels.", "prophet.", "fbprophet.", "pmdarima.", "pyramid.")
HORIZON = 12  # periods ahead, where the notebook does not say
MOST_CHOICES = 3


@dataclass
class ModelChoice:
    """The estimator that becomes the model."""

    fit: Fit
    name: str
    blocks: list[Block]  # the steps that lead to it, in order
    features: ast.expr  # what the notebook predicts for
    answers: ast.expr | None  # the truth that belongs to them
    held_out: bool  # whether they were kept from the fit
    score: str = ""  # the author's metric, among SCORES
    kept: str = "estimator"  # or regression, or forecast: what is kept of it
    horizon: int = HORIZON  # of a forecast
    freq: str = ""  # of Prophet's dates
    ways: list[RecordEntry] = field(default_factory=list)
    hands: list[tuple[Block, set[str]]] = field(default_factory=list)  # names that steps must hand out for it


@dataclass
class RecordEntry:
    """A possible entry of records: the table `start` after a step."""

    start: str
    after: int  # index among the chosen pieces
    replay: ReplayPlan
    manner: ReplayOptions

    @property
    def key(self) -> tuple[str, int, bool, bool, bool]:
        """The values that distinguish two entries."""
        return self.start, self.after, self.manner.every, self.manner.words is not None, self.manner.inner


def model_choices(plan: Plan, blocks: Sequence[Block]) -> list[ModelChoice] | str:
    """Return the estimators that can become the model, the last one of the notebook first, or the reason why there is none."""
    fits = [fit for fit in plan.structure.models if serialization_format(fit)]
    if not fits:
        others = [fit for fit in plan.structure.models if fit.path]
        if others:
            return f"{others[-1].path} cannot be saved without pickle"
        return "the notebook fits no estimator"
    supervised = [fit for fit in fits if fit.kind == "model"] or fits
    chosen: list[ModelChoice] = []
    reasons: list[str] = []
    for fit in [*reversed(supervised), *reversed([fit for fit in fits if fit not in supervised])]:
        candidate = _choice_from_fit(fit, plan, blocks)
        if isinstance(candidate, ModelChoice):
            chosen.append(candidate)
            if len(chosen) == MOST_CHOICES:
                break
        else:
            reasons.append(f"{fit.path.rpartition('.')[2]} of cell {fit.cell + 1}: {candidate}")
    return chosen or reasons[0]


def limit_outputs(blocks: Sequence[Block], model_choice: ModelChoice | None, start: str = "") -> None:
    """Reduce the outputs of steps to those that the notebook and the model use; shared functions are not changed."""
    shared = [block.like for block in blocks if block.like is not None]
    for block in blocks:
        if block.extra and block.like is None and block not in shared:
            needed_names = {
                name for hand, names in (model_choice.hands if model_choice else ()) if hand is block for name in names
            }
            needed_names |= {start}
            block.outputs = [name for name in block.outputs if name not in block.extra - needed_names] or block.outputs


def serialization_format(fit: Fit) -> str:
    """Return how a fitted object is saved without pickle: estimator, regression or forecast; empty if this is not possible."""
    if fit.path.startswith(FAMILIES):
        return "estimator"
    last = fit.path.rpartition(".")[2]
    if not fit.path.startswith(STATISTICAL):
        return ""
    if last in FORECASTERS or fit.path.startswith(("pmdarima.", "pyramid.")):
        return "forecast"
    return "regression" if last in REGRESSIONS else ""


def _choice_from_fit(fit: Fit, plan: Plan, blocks: Sequence[Block]) -> ModelChoice | str:
    line = next(
        (
            line
            for line in plan.lines
            if line.statement.cell == fit.cell and fit.call in list(ast.walk(line.statement.node))
        ),
        None,
    )
    kind_kept = serialization_format(fit)
    results = fit.path.startswith("statsmodels.")  # its fit returns the fitted object
    if line is None or line.kind == "definition":
        calls = fits_at_call_sites(fit, plan) if kind_kept == "estimator" else []
        if not calls:
            return "it is fitted inside a function of the notebook"
        fit, line, name = calls[-1]
    else:
        own_name = bound_name(line) if getattr(line.statement.node, "value", None) is fit.call else ""
        name = bound_name(line) if results else fit.name or own_name
    if not name:
        return "it has no name"
    if not isinstance(line.statement.node, ast.Expr | ast.Assign):
        return "it is fitted in a loop"
    after = [plan_line for plan_line in plan.lines if plan_line.statement.place >= line.statement.place]
    fitted_names = {name, bound_name(line)} if _returns_itself(line, fit) else {name}
    later, names_at = lines_with_aliases(after, fitted_names - {""})
    judged = AuthorEvaluation(ast.Name(name, ast.Load()), None, False)
    if kind_kept != "forecast":
        judged = author_evaluation(plan, later, names_at, fit)
    candidate = _model_choice_of_evaluation(fit, name, line, judged, later, plan, blocks)
    if isinstance(candidate, str) and judged.held_out and (trained := training_arguments(plan, fit)):
        target = trained[1] if len(trained) > 1 else None
        candidate = _model_choice_of_evaluation(
            fit, name, line, AuthorEvaluation(trained[0], target, False), later, plan, blocks
        )
    return candidate


def _model_choice_of_evaluation(
    fit: Fit,
    name: str,
    line: PlanLine,
    judged: AuthorEvaluation,
    later: Sequence[PlanLine],
    plan: Plan,
    all_blocks: Sequence[Block],
) -> ModelChoice | str:
    """The estimator with the steps to it and to its evaluation rows."""
    features, answers, judged_rows, kind_kept = judged.features, judged.answers, judged.asked, serialization_format(fit)
    if features is None:
        return "its features cannot be inferred"
    names = {name} | names_in_code(features) | (names_in_code(answers) if answers is not None else set())
    end = next(i for i, block in enumerate(all_blocks) if line in block.lines)
    asking = (
        next((line for line in later if line.statement.node is judged_rows.statement), line) if judged_rows else line
    )
    last = max(end, next((i for i, block in enumerate(all_blocks) if asking in block.lines), end))
    if asking is not line:
        last = max(end, last - 1) if last > end else end
    missing, hands = set(names), list[tuple[Block, set[str]]]()
    for block in reversed(all_blocks[: last + 1]):
        bound = {name for plan_line in block.lines for name in plan_line.facts.binds}
        if block.kind == "step" and (handed := missing & bound):
            block.extra |= handed - set(block.outputs)
            block.outputs = in_binding_order(block, {*block.outputs, *handed})
            hands.append((block, handed))
        missing -= bound
    needed = NeededColumns(plan.inference, exported_names(plan))
    needed.want(name)
    for part in (features, answers):
        if part is not None:
            needed.read(part)
    blocks = _needed_blocks(all_blocks[: last + 1], needed)
    if isinstance(blocks, str):
        return blocks
    bound = {bind for block in blocks for line in block.lines for bind in (*line.facts.binds, *line.facts.mutates)}
    if lost := names - bound - exported_names(plan) - _parameter_names(plan):
        return f"{', '.join(sorted(lost))} is defined after the steps that use it"
    chosen = ModelChoice(fit, name, blocks, features, answers, judged.held_out, judged.score, kind_kept, hands=hands)
    if kind_kept == "forecast":
        chosen.horizon, chosen.freq = _forecast_horizon(plan, name)
    return chosen


def _forecast_horizon(plan: Plan, name: str) -> tuple[int, str]:
    """The number of periods that the notebook forecasts, and the frequency of Prophet's dates."""
    horizon, freq = 0, ""
    for line in plan.lines:
        for call in ast.walk(line.statement.node):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if not (isinstance(call.func.value, ast.Name) and call.func.value.id == name):
                continue
            if call.func.attr in ("forecast", "get_forecast", "make_future_dataframe", "predict"):
                words = {word.arg: word.value for word in call.keywords}
                first = call.args[0] if call.args and call.func.attr != "predict" else None
                steps = words.get("steps") or words.get("periods") or words.get("n_periods") or first
                if isinstance(steps, ast.Constant) and isinstance(steps.value, int):
                    horizon = max(horizon, steps.value)
                if call.func.attr == "make_future_dataframe":
                    spelled = words.get("freq", ast.Constant("D"))
                    freq = str(spelled.value) if isinstance(spelled, ast.Constant) else ""
    return (horizon if horizon > 1 else HORIZON), freq


def _parameter_names(plan: Plan) -> set[str]:
    """Names that a cell sets to a constant: they are parameters."""
    return {name for line in plan.lines if line.role == "constant" for name in line.facts.binds}


def _returns_itself(line: PlanLine, fit: Fit) -> bool:
    """Whether a statement binds what `estimator.fit(...)` returns, which is the estimator."""
    return getattr(line.statement.node, "value", None) is fit.call and fit.method == "fit"


def _needed_blocks(all_blocks: Sequence[Block], needed: NeededColumns) -> list[Block] | str:
    """The blocks that create the needed names, in order."""
    chosen: list[Block] = []
    for block in reversed(all_blocks):
        if block.kind == "step" and take_if_needed(block, needed):
            chosen.insert(0, block)
        elif block.kind == "plain":
            lines: list[PlanLine] = []
            for line in reversed(block.lines):
                touched = {*line.facts.binds, *line.facts.mutates} & set(needed.columns)
                if not needed.touches(line.statement, line.facts):
                    continue
                if not isinstance(line.statement.node, ast.Assign) or line.facts.opaque:
                    return f"{', '.join(sorted(touched))} is changed in cell {block.cells[0] + 1}, which is not converted to a function"
                lines.insert(0, line)
                needed.step_back_over(line.statement, line.facts)
            if lines:
                chosen.insert(0, Block("inline", block.cells, lines))
    return chosen


def find_record_entries(plan: Plan, model_choice: ModelChoice, words: Words) -> list[RecordEntry]:
    """Every table before the features, the rawest first; calling a step is tried before repeating its code."""
    visible_names = exported_names(plan)
    ways: list[RecordEntry] = []
    for place, block in enumerate(model_choice.blocks):
        later_blocks = model_choice.blocks[place + 1 :]
        touched = [name for line in block.lines for name in (*line.facts.binds, *line.facts.mutates)]
        for start in block.outputs if block.kind == "step" else dict.fromkeys(touched):
            if draws_plot(block.lines[-1].statement, plan.inference):
                continue
            plain = (ReplayOptions(words, every=True), ReplayOptions(words), ReplayOptions())
            for manner in (*(replace(manner, inner=True) for manner in plain), *plain):
                replay_plan = plan_replay(plan, later_blocks, start, model_choice.features, visible_names, manner)
                if replay_plan is None or start in replay_plan.given or not _depends_on_start_table(replay_plan):
                    continue
                if not any(
                    (way.start, way.replay.lines, way.replay.functions)
                    == (start, replay_plan.lines, replay_plan.functions)
                    for way in ways
                ):
                    ways.append(RecordEntry(start, place, replay_plan, manner))
    return ways


def _depends_on_start_table(replay: ReplayPlan) -> bool:
    """Whether the features are computed from the start table."""
    text = "\n".join([*replay.lines, replay.features])
    return replay.start in names_in_code(ast.parse(text))


def learning_before_entry(
    plan: Plan, model_choice: ModelChoice, record_entry: RecordEntry | None
) -> list[LearningSite]:
    """Return the code that learns before the entry of records (without an entry: before the features).

    A caller who provides such a record would have to compute the learned values.
    """
    blocks = model_choice.blocks[: record_entry.after + 1] if record_entry is not None else model_choice.blocks
    before = {id(line) for block in blocks for line in block.lines}
    needed = NeededColumns(plan.inference, exported_names(plan), every=True)
    needed.read(model_choice.features)
    lines: list[PlanLine] = []
    for line in reversed([line for block in model_choice.blocks for line in block.lines]):
        if needed.touches(line.statement, line.facts):
            if id(line) in before and model_choice.fit.call not in list(ast.walk(line.statement.node)):
                lines.insert(0, line)
            needed.step_back_over(line.statement, line.facts)
    return learning_sites(lines, plan)
