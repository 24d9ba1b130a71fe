"""Candidate of the gate: a version, the champion that it would replace, the measurements of both, and how a change of the data counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

from sqlalchemy import select

from d2c_mlops.ledger.schema import alerts
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import PERIODS
from d2c_mlops.registry.charters import CharterExample, example_answers
from d2c_mlops.registry.compared_metrics import FigurePair, MeasuredModel
from d2c_mlops.registry.evaluators import ACTUAL, CHAMPION, MODEL, Evaluator, Metric
from d2c_mlops.registry.evidence import Evidence, EvidenceRequest, collect_evidence, find_evaluator
from d2c_mlops.registry.versions import Version
from d2c_mlops.settings import Settings
from d2c_mlops.wording import number_of

CHECK = "check"
ANSWERS = "answers"
OURS = "ours"
OTHER = "other"
THEIRS = "theirs"
CHANGE = "change"
METRICS = ("drift", "accuracy", "confidence")  # whose alerts date a change that a new version may answer


@dataclass(frozen=True)
class PromotionCandidate:
    """A version at the gate, the champion that it would replace, and the evidence about both."""

    version: Version
    champion: Version | None
    settings: Settings
    change: date | None = None  # first day of a change of the data or of the champion's errors that is on record

    @cached_property
    def example(self) -> CharterExample:
        """The charter fields that still have the values of the included example."""
        return example_answers(self.version, self.settings)

    @cached_property
    def evaluator(self) -> Evaluator | None:
        """The evaluator for this kind of model; None if there is none."""
        return find_evaluator(self.version, self.settings)

    @cached_property
    def evidence(self) -> dict[str, Evidence]:
        """The results of a clean process: rules of the class and of the predictions, measurements of both versions."""
        version, champion = self.version, self.champion
        requests = {
            CHECK: EvidenceRequest("rules", version, version),
            ANSWERS: EvidenceRequest("answers", version, version),
        }
        if self.evaluator is not None and (version.inputs or self.evaluator.own_files):
            requests[OURS] = EvidenceRequest("observe", version, version)
            if type(self.evaluator).disguise is not Evaluator.disguise or self.evaluator.own_files:
                requests[OTHER] = EvidenceRequest("disguise", version, version)
            if champion is not None and self.incomparable == "":
                requests[THEIRS] = EvidenceRequest("observe", champion, version)
                if self.change is not None:
                    requests[CHANGE] = EvidenceRequest("change", champion, version, self.change)
        return dict(zip(requests, collect_evidence(list(requests.values()), self.settings), strict=True))

    @cached_property
    def metric(self) -> Metric | None:
        """The metric that the gate measures: the charter's, unless it needs money values that are not set for this shop."""
        if self.evaluator is None:
            return None
        metrics = self.evaluator.metrics(self.version.case, self.version.params)
        usable = [
            metric for metric in metrics if not metric.judged_as and not self.example.uses_example(*metric.parameters)
        ]
        judging = judging_metric(metrics, self.version.case.metric)
        return next((metric for metric in usable if metric.name == judging), usable[0])

    @cached_property
    def own_measurement(self) -> MeasuredModel | None:
        """The measurement of the version; None if it is not possible."""
        return self._measured_model(OURS)

    @cached_property
    def judged_measurement(self) -> MeasuredModel | None:
        """The measurement of the version without predictions that a change made wrong for any model; all where nothing else is known."""
        measured, change = self.own_measurement, self.change
        if measured is None or change is None or "cutoff" not in measured.observations:
            return measured
        settled = measured.evaluator.without_change(measured.observations, self.version.schema, change)
        judged = MeasuredModel(measured.evaluator, measured.metric, settled)
        return judged if len(judged.answered_rows) else measured

    @cached_property
    def is_new_world(self) -> bool:
        """Whether the champion knows nothing of a change, and the version is measured on days after it: then the days before it say nothing of the two."""
        frame = self.evidence[CHANGE].frame if self.change is not None and CHANGE in self.evidence else None
        knows_nothing = (
            self.champion is not None
            and self.change is not None
            and date.fromisoformat(self.champion.as_of) < self.change
        )
        return knows_nothing and frame is not None and bool(frame[MODEL].notna().any())

    @cached_property
    def measurement_beside_baselines(self) -> MeasuredModel | None:
        """The measurement of the version beside the baselines: on the days after a change that the champion does not know, else at past cutoffs."""
        return self._measured_model(CHANGE) if self.is_new_world else self.judged_measurement

    @cached_property
    def champion_measurement(self) -> MeasuredModel | None:
        """The measurement of the champion on the version's data and day; None if it is not possible."""
        return self._measured_model(THEIRS)

    def _measured_model(self, name: str) -> MeasuredModel | None:
        evidence = self.evidence.get(name)
        if evidence is None or evidence.frame is None or self.evaluator is None or self.metric is None:
            return None
        return MeasuredModel(self.evaluator, self.metric, evidence.frame)

    @cached_property
    def incomparable(self) -> str:
        """Why the champion and the version cannot be compared; empty if they can."""
        if self.champion is None:
            return ""
        old, new = self.champion.schema, self.version.schema
        if old.frequency != new.frequency:
            was, now = (PERIODS.get(contract.frequency, "no periods") for contract in (old, new))
            return f"the champion predicts {was}, this version {now}"
        if difference := unit_difference(self.champion, self.version):
            return difference
        if self.evaluator is not None:
            was, now = (
                self.evaluator.population(version_side.params) for version_side in (self.champion, self.version)
            )
            if was != now:
                return f"the champion predicts {was}, this version {now}"
        if self.evaluator is None and self.champion.score.metric != self.version.score.metric:
            return f"the champion reports {self.champion.score.metric}, this version {self.version.score.metric}"
        return ""


def judging_metric(metrics: Sequence[Metric], name: str) -> str:
    """Return the name of the metric that is used for decisions if a charter names the metric `name`."""
    return next((metric.judged_as for metric in metrics if metric.name == name and metric.judged_as), name)


def unit_difference(champion: Version, version: Version) -> str:
    """Return the output whose unit differs from the champion's; empty if all units are equal."""
    new = {field.name: field.unit for field in version.schema.output_fields}
    for field in champion.schema.output_fields:
        if field.name in new and field.unit != new[field.name]:
            return f"{field.name} is in {new[field.name] or 'no unit'}, the champion's in {field.unit or 'no unit'}"
    return ""


def change_on_record(version: Version, champion: Version | None, settings: Settings) -> date | None:
    """Return the first day of the latest change that an alert about the model dates, if the gate's windows reach back to it; else None."""
    evaluator = find_evaluator(version, settings) if champion is not None else None
    days = evaluator.days_back(version.schema) if evaluator is not None else 0
    if champion is None or not days or not version.as_of:
        return None
    last = date.fromisoformat(version.as_of)
    with Ledger.of(settings).read() as connection:
        rows = connection.execute(select(alerts.c.signals)).scalars().all()
    changes = [
        date.fromisoformat(signal["since"])
        for signals in rows
        for signal in signals
        if signal["model"] == version.model and signal["metric"] in METRICS and signal["since"]
    ]
    return latest_change(changes, last, days)


def latest_change(changes: list[date], last: date, days: int) -> date | None:
    """Return the latest of some changes until the day `last` that the `days` before it reach back to."""
    return max((change for change in changes if last - timedelta(days=days) < change <= last), default=None)


def compare_after_change(candidate: PromotionCandidate, name: str) -> tuple[bool, str] | None:
    """Return whether a version is not worse than the champion as it stands on the days after a change, and the finding with its figures.

    None without a change, and where the champion knows it and too few later days are known: then both are compared as usual.
    """
    champion, since, evidence = candidate.champion, candidate.change, candidate.evidence.get(CHANGE)
    if since is None or champion is None or candidate.metric is None or evidence is None:
        return None
    if evidence.frame is None:
        knows_change = date.fromisoformat(champion.as_of) >= since
        return None if knows_change else (False, f"not compared with {name}: {evidence.error.strip().splitlines()[0]}")
    rows = evidence.frame[evidence.frame[MODEL].notna()]
    both = rows[rows[CHAMPION].notna()]
    if both.empty:
        return True, f"{name} has no predictions for the days after the change of {since}"
    errors = both.assign(gain=(both[CHAMPION] - both[ACTUAL]).abs() - (both[MODEL] - both[ACTUAL]).abs())
    by_day = errors.groupby("day")["gain"].sum()
    value, reference = (candidate.metric.score(both, column) for column in (MODEL, CHAMPION))
    pair = FigurePair(candidate.metric, value, reference, f"{name} as it stands")
    days = (
        f"{number_of(len(by_day), 'period')} after the change of {since}, better on {int((by_day > 0).sum())} of them"
    )
    return not pair.worse, f"{pair}, on {days}"
