"""Candidate of the gate: a version, the champion that it would replace, and the measurements of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from d2c_mlops.models.core.contract import PERIODS
from d2c_mlops.registry.charters import CharterExample, example_answers
from d2c_mlops.registry.compared_metrics import MeasuredModel
from d2c_mlops.registry.evaluators import Evaluator, Metric
from d2c_mlops.registry.evidence import Evidence, EvidenceRequest, collect_evidence, find_evaluator
from d2c_mlops.registry.versions import Version
from d2c_mlops.settings import Settings

CHECK = "check"
ANSWERS = "answers"
OURS = "ours"
OTHER = "other"
THEIRS = "theirs"


@dataclass(frozen=True)
class PromotionCandidate:
    """A version at the gate, the champion that it would replace, and the evidence about both."""

    version: Version
    champion: Version | None
    settings: Settings

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
