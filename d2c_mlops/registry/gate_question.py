"""What the gate is asked: a version, the champion that it would replace, and what was measured of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from d2c_mlops.models.core.contract import PERIODS
from d2c_mlops.registry.charters import CharterExample, example_of
from d2c_mlops.registry.evaluators import Evaluator, Metric
from d2c_mlops.registry.evidence import Evidence, EvidenceRequest, evaluator, evidence
from d2c_mlops.registry.figures import Measured
from d2c_mlops.registry.versions import Version
from d2c_mlops.settings import Settings

CHECK = "check"
ANSWERS = "answers"
OURS = "ours"
OTHER = "other"
THEIRS = "theirs"


@dataclass(frozen=True)
class Question:
    """A version at the gate, the champion that it would replace, and what was found out about both."""

    version: Version
    champion: Version | None
    settings: Settings

    @cached_property
    def example(self) -> CharterExample:
        """The answers of the charter that are the shipped example's."""
        return example_of(self.version, self.settings)

    @cached_property
    def evaluator(self) -> Evaluator | None:
        """What measures this kind of model."""
        return evaluator(self.version, self.settings)

    @cached_property
    def evidence(self) -> dict[str, Evidence]:
        """What a clean process found out: the rules of the class, of the version's answers, and both measured."""
        version, champion = self.version, self.champion
        asked = {
            CHECK: EvidenceRequest("rules", version, version),
            ANSWERS: EvidenceRequest("answers", version, version),
        }
        if self.evaluator is not None and (version.inputs or self.evaluator.own_files):
            asked[OURS] = EvidenceRequest("observe", version, version)
            if type(self.evaluator).disguise is not Evaluator.disguise or self.evaluator.own_files:
                asked[OTHER] = EvidenceRequest("disguise", version, version)
            if champion is not None and self.incomparable == "":
                asked[THEIRS] = EvidenceRequest("observe", champion, version)
        return dict(zip(asked, evidence(list(asked.values()), self.settings), strict=True))

    @cached_property
    def metric(self) -> Metric | None:
        """The metric that the gate measures: the charter's, unless it needs money that nobody named for this shop."""
        if self.evaluator is None:
            return None
        known = self.evaluator.metrics(self.version.case, self.version.params)
        usable = [each for each in known if not each.judged_as and not self.example.rests_on(*each.parameters)]
        wanted = judging_metric(known, self.version.case.metric)
        return next((each for each in usable if each.name == wanted), usable[0])

    @cached_property
    def ours(self) -> Measured | None:
        """The version measured; None where that is not possible."""
        return self._measured(OURS)

    @cached_property
    def theirs(self) -> Measured | None:
        """The champion measured on the data and the day of the version; None where that is not possible."""
        return self._measured(THEIRS)

    def _measured(self, name: str) -> Measured | None:
        found = self.evidence.get(name)
        if found is None or found.frame is None or self.evaluator is None or self.metric is None:
            return None
        return Measured(self.evaluator, self.metric, found.frame)

    @cached_property
    def incomparable(self) -> str:
        """Why the champion cannot be compared with the version; empty where it can."""
        if self.champion is None:
            return ""
        old, new = self.champion.schema, self.version.schema
        if old.frequency != new.frequency:
            was, now = (PERIODS.get(each.frequency, "no periods") for each in (old, new))
            return f"the champion answers for {was}, this version for {now}"
        if other := other_units(self.champion, self.version):
            return other
        if self.evaluator is not None:
            was, now = (self.evaluator.population(each.params) for each in (self.champion, self.version))
            if was != now:
                return f"the champion answers for {was}, this version for {now}"
        if self.evaluator is None and self.champion.score.metric != self.version.score.metric:
            return f"the champion reports {self.champion.score.metric}, this version {self.version.score.metric}"
        return ""


def judging_metric(known: Sequence[Metric], name: str) -> str:
    """Return the name of the metric that judges versions where a charter names `name`."""
    return next((metric.judged_as for metric in known if metric.name == name and metric.judged_as), name)


def other_units(champion: Version, version: Version) -> str:
    """Return which answer is in another unit than the champion's; empty where all are in the same."""
    new = {field.name: field.unit for field in version.schema.output_fields}
    for field in champion.schema.output_fields:
        if field.name in new and field.unit != new[field.name]:
            return f"{field.name} is in {new[field.name] or 'no unit'}, the champion's in {field.unit or 'no unit'}"
    return ""
