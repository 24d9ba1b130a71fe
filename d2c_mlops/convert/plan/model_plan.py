"""Choose the fitted estimator that becomes the model, its steps, and where records enter."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from d2c_mlops.convert.meaning.roles import Fit
from d2c_mlops.convert.plan.block import Block, in_order
from d2c_mlops.convert.plan.evaluation_plan import (
    Evaluated,
    bound_name,
    evaluated,
    fitted_by_function,
    names_of,
    trained_on,
    with_aliases,
)
from d2c_mlops.convert.plan.plan import Plan, PlanLine, plots, visible
from d2c_mlops.convert.plan.replay import Manner, ReplayPlan, Words, replayed
from d2c_mlops.convert.plan.row_dependence import Site, sites
from d2c_mlops.convert.plan.slicing import Wanted, takes

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
class Chosen:
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
    ways: list[Way] = field(default_factory=list)
    hands: list[tuple[Block, set[str]]] = field(default_factory=list)  # names that steps must hand out for it


@dataclass
class Way:
    """One place where a record may enter: the table `start` as it stands after a step."""

    start: str
    after: int  # index among the chosen pieces
    replay: ReplayPlan
    manner: Manner

    @property
    def key(self) -> tuple[str, int, bool, bool, bool]:
        """What tells one way from another."""
        return self.start, self.after, self.manner.every, self.manner.words is not None, self.manner.inner


def choose(plan: Plan, found: Sequence[Block]) -> list[Chosen] | str:
    """Return the estimators that may become the model, the last one of the notebook first, or why there is none."""
    fits = [fit for fit in plan.structure.models if kept_as(fit)]
    if not fits:
        others = [fit for fit in plan.structure.models if fit.path]
        if others:
            return f"{others[-1].path} cannot be saved without pickle"
        return "the notebook fits no estimator"
    supervised = [fit for fit in fits if fit.kind == "model"] or fits
    chosen: list[Chosen] = []
    reasons: list[str] = []
    for fit in [*reversed(supervised), *reversed([fit for fit in fits if fit not in supervised])]:
        made = _for_fit(fit, plan, found)
        if isinstance(made, Chosen):
            chosen.append(made)
            if len(chosen) == MOST_CHOICES:
                break
        else:
            reasons.append(f"{fit.path.rpartition('.')[2]} of cell {fit.cell + 1}: {made}")
    return chosen or reasons[0]


def settle(found: Sequence[Block], chosen: Chosen | None, start: str = "") -> None:
    """Let steps hand out no more than the notebook and the model that was built want; shared functions stay as they are."""
    shared = [block.like for block in found if block.like is not None]
    for block in found:
        if block.extra and block.like is None and block not in shared:
            wanted = {name for hand, names in (chosen.hands if chosen else ()) if hand is block for name in names}
            wanted |= {start}
            block.outputs = [name for name in block.outputs if name not in block.extra - wanted] or block.outputs


def kept_as(fit: Fit) -> str:
    """Return how a fitted object is kept without pickle: estimator, regression or forecast; empty where it cannot be."""
    if fit.path.startswith(FAMILIES):
        return "estimator"
    last = fit.path.rpartition(".")[2]
    if not fit.path.startswith(STATISTICAL):
        return ""
    if last in FORECASTERS or fit.path.startswith(("pmdarima.", "pyramid.")):
        return "forecast"
    return "regression" if last in REGRESSIONS else ""


def _for_fit(fit: Fit, plan: Plan, found: Sequence[Block]) -> Chosen | str:
    line = next(
        (
            line
            for line in plan.lines
            if line.statement.cell == fit.cell and fit.call in list(ast.walk(line.statement.node))
        ),
        None,
    )
    kept = kept_as(fit)
    results = fit.path.startswith("statsmodels.")  # its fit returns the fitted object
    if line is None or line.kind == "definition":
        calls = fitted_by_function(fit, plan) if kept == "estimator" else []
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
    own = {name, bound_name(line)} if _returns_itself(line, fit) else {name}
    later, names_at = with_aliases(after, own - {""})
    judged = Evaluated(ast.Name(name, ast.Load()), None, False)
    if kept != "forecast":
        judged = evaluated(plan, later, names_at, fit)
    made = _for_judged(fit, name, line, judged, later, plan, found)
    if isinstance(made, str) and judged.held_out and (trained := trained_on(plan, fit)):
        target = trained[1] if len(trained) > 1 else None
        made = _for_judged(fit, name, line, Evaluated(trained[0], target, False), later, plan, found)
    return made


def _for_judged(
    fit: Fit,
    name: str,
    line: PlanLine,
    judged: Evaluated,
    later: Sequence[PlanLine],
    plan: Plan,
    found: Sequence[Block],
) -> Chosen | str:
    """The estimator with the steps that lead to it and to what it is judged on."""
    features, answers, asked, kept = judged.features, judged.answers, judged.asked, kept_as(fit)
    if features is None:
        return "its features cannot be inferred"
    names = {name} | names_of(features) | (names_of(answers) if answers is not None else set())
    end = next(i for i, block in enumerate(found) if line in block.lines)
    asking = next((line for line in later if line.statement.node is asked.statement), line) if asked else line
    last = max(end, next((i for i, block in enumerate(found) if asking in block.lines), end))
    if asking is not line:
        last = max(end, last - 1) if last > end else end
    missing, hands = set(names), list[tuple[Block, set[str]]]()
    for block in reversed(found[: last + 1]):
        bound = {name for plan_line in block.lines for name in plan_line.facts.binds}
        if block.kind == "step" and (handed := missing & bound):
            block.extra |= handed - set(block.outputs)
            block.outputs = in_order(block, {*block.outputs, *handed})
            hands.append((block, handed))
        missing -= bound
    wanted = Wanted(plan.inference, visible(plan))
    wanted.want(name)
    for part in (features, answers):
        if part is not None:
            wanted.read(part)
    blocks = _slice(found[: last + 1], wanted)
    if isinstance(blocks, str):
        return blocks
    bound = {bind for block in blocks for line in block.lines for bind in (*line.facts.binds, *line.facts.mutates)}
    if lost := names - bound - visible(plan) - _constants(plan):
        return f"{', '.join(sorted(lost))} is defined after the steps that use it"
    chosen = Chosen(fit, name, blocks, features, answers, judged.held_out, judged.score, kept, hands=hands)
    if kept == "forecast":
        chosen.horizon, chosen.freq = _horizon(plan, name)
    return chosen


def _horizon(plan: Plan, name: str) -> tuple[int, str]:
    """How many periods ahead the notebook asks for, and at which frequency Prophet lays its dates."""
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
                given = words.get("steps") or words.get("periods") or words.get("n_periods") or first
                if isinstance(given, ast.Constant) and isinstance(given.value, int):
                    horizon = max(horizon, given.value)
                if call.func.attr == "make_future_dataframe":
                    spelled = words.get("freq", ast.Constant("D"))
                    freq = str(spelled.value) if isinstance(spelled, ast.Constant) else ""
    return (horizon if horizon > 1 else HORIZON), freq


def _constants(plan: Plan) -> set[str]:
    """Names that a cell sets to a constant: they are parameters."""
    return {name for line in plan.lines if line.role == "constant" for name in line.facts.binds}


def _returns_itself(line: PlanLine, fit: Fit) -> bool:
    """Whether a statement binds what `estimator.fit(...)` returns, which is the estimator."""
    return getattr(line.statement.node, "value", None) is fit.call and fit.method == "fit"


def _slice(found: Sequence[Block], wanted: Wanted) -> list[Block] | str:
    """The pieces that make what is wanted, in order."""
    chosen: list[Block] = []
    for block in reversed(found):
        if block.kind == "step" and takes(block, wanted):
            chosen.insert(0, block)
        elif block.kind == "plain":
            lines: list[PlanLine] = []
            for line in reversed(block.lines):
                touched = {*line.facts.binds, *line.facts.mutates} & set(wanted.columns)
                if not wanted.touches(line.statement, line.facts):
                    continue
                if not isinstance(line.statement.node, ast.Assign) or line.facts.opaque:
                    return f"{', '.join(sorted(touched))} is changed in cell {block.cells[0] + 1}, which is not converted to a function"
                lines.insert(0, line)
                wanted.take(line.statement, line.facts)
            if lines:
                chosen.insert(0, Block("inline", block.cells, lines))
    return chosen


def find_ways(plan: Plan, chosen: Chosen, words: Words) -> list[Way]:
    """Every table on the way, the rawest first; where a step can be called it is tried so before it is written anew."""
    seen = visible(plan)
    found: list[Way] = []
    for place, block in enumerate(chosen.blocks):
        rest = chosen.blocks[place + 1 :]
        touched = [name for line in block.lines for name in (*line.facts.binds, *line.facts.mutates)]
        for start in block.outputs if block.kind == "step" else dict.fromkeys(touched):
            if plots(block.lines[-1].statement, plan.inference):
                continue
            plain = (Manner(words, every=True), Manner(words), Manner())
            for manner in (*(replace(each, inner=True) for each in plain), *plain):
                made = replayed(plan, rest, start, chosen.features, seen, manner)
                if made is None or start in made.given or not _reaches(made):
                    continue
                if not any(
                    (way.start, way.replay.lines, way.replay.functions) == (start, made.lines, made.functions)
                    for way in found
                ):
                    found.append(Way(start, place, made, manner))
    return found


def _reaches(replay: ReplayPlan) -> bool:
    """Whether the features are made from the start."""
    text = "\n".join([*replay.lines, replay.features])
    return replay.start in names_of(ast.parse(text))


def skipped(plan: Plan, chosen: Chosen, way: Way | None) -> list[Site]:
    """Return what learns before the record enters (before the features themselves without a way).

    A caller who has to give a record there would have to learn it himself.
    """
    blocks = chosen.blocks[: way.after + 1] if way is not None else chosen.blocks
    before = {id(line) for block in blocks for line in block.lines}
    wanted = Wanted(plan.inference, visible(plan), every=True)
    wanted.read(chosen.features)
    taken: list[PlanLine] = []
    for line in reversed([line for block in chosen.blocks for line in block.lines]):
        if wanted.touches(line.statement, line.facts):
            if id(line) in before and chosen.fit.call not in list(ast.walk(line.statement.node)):
                taken.insert(0, line)
            wanted.take(line.statement, line.facts)
    return sites(taken, plan)
