"""Decision policy of a model: the section [decisions:NAME], checked against the model's contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from d2c_mlops.decisions.callers import Callers
from d2c_mlops.decisions.rules import DecisionRule, NotEvaluable
from d2c_mlops.decisions.wording import FIELD_NAMES, Wording
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.models.core.contract import Contract, Field, record_model
from d2c_mlops.serving.batch.score import identity_columns
from d2c_mlops.serving.state_paths import keys_file
from d2c_mlops.settings import PolicySettings, Settings
from d2c_mlops.settings.parsing import parse_age

Values = Mapping[str, Any]
SHOWN = 60  # characters of a wrong value that an error repeats


@dataclass(frozen=True)
class PolicyVerdict:
    """Verdict of a policy on a prediction: auto, pending or rejected, with the reason."""

    status: str
    reason: str


@dataclass(frozen=True)
class Policy:
    """A parsed decision policy."""

    model: str
    options: PolicySettings
    auto: DecisionRule | None
    allow: DecisionRule | None
    deadline: timedelta
    max_age: timedelta
    keys: Path  # file of API keys

    @classmethod
    def of(cls, model: str, settings: Settings) -> Policy:
        """Return the policy of a model. Raises UsageError when it has none, or a rule of it cannot be read."""
        options = settings.policies.get(model)
        if options is None:
            sections = ", ".join(settings.policies) or "none yet"
            raise UsageError(
                f"{model} has no decision policy",
                where=f"settings.ini; sections: {sections}",
                next=f"add a section [decisions:{model}] with `field = …`",
            )
        auto, allow = (
            DecisionRule.of(text, f"[decisions:{model}] {name}") if text else None
            for name, text in (("auto", options.auto), ("allow", options.allow))
        )
        deadline, max_age = (timedelta(seconds=parse_age(text)) for text in (options.deadline, options.max_age))
        return cls(model, options, auto, allow, deadline, max_age, keys_file(settings))

    def callers(self, now: datetime) -> Callers:
        """Return the callers whose predictions become decisions at a moment. Raises UsageError where the API key file cannot be read."""
        return Callers.of(self.model, self.options.keys, self.keys, now)

    @property
    def where(self) -> str:
        """The section of settings.ini with this policy."""
        return f"[decisions:{self.model}]"

    def check(self, contract: Contract) -> Field:
        """Return the field that decisions set. Raises UsageError where the policy does not fit the contract."""
        outputs = {field.name: field for field in contract.output_fields}
        inputs = {field.name: field for field in contract.input_fields}
        if self.options.field not in outputs:
            names = ", ".join(outputs)
            raise UsageError(f"{self.options.field!r} is not an output; outputs: {names}", where=f"{self.where} field")
        identity = identity_columns(contract)
        hidden = {field.name for field in (*inputs.values(), *outputs.values()) if field.personal}
        used = {*identity, self.options.field}
        for name, rule in (("auto", self.auto), ("allow", self.allow)):
            if rule is not None:
                rule.check(inputs, outputs, f"{self.where} {name}")
                used |= {name_ for _, name_ in rule.names}
        if hidden & used:
            raise UsageError(
                f"{', '.join(sorted(hidden & used))} is personal data, which the prediction log does not contain",
                where=self.where,
                next="use a key that is not personal data, or mark the field as not personal in the contract",
            )
        return outputs[self.options.field]

    def judge(self, inputs: Values, outputs: Values, wording: Wording = FIELD_NAMES) -> PolicyVerdict:
        """Return whether a prediction is applied automatically, needs approval, or violates the limits; with the reason as text."""
        against = self.violation(inputs, outputs, wording=wording)
        if against:
            return PolicyVerdict("rejected", against)
        if self.auto is None:
            return PolicyVerdict("pending", "always needs approval")
        try:
            if self.auto.holds(inputs, outputs):
                return PolicyVerdict("auto", f"applied automatically, because {wording.sentence(self.auto)}")
        except NotEvaluable as err:
            return PolicyVerdict("pending", f"auto cannot be evaluated ({wording.sentence(self.auto)}): {err}")
        broken = " and ".join(wording.sentence(self.auto, part) for part in self.auto.failed_parts(inputs, outputs))
        return PolicyVerdict("pending", f"needs approval, because this does not hold: {broken}")

    def violation(self, inputs: Values, outputs: Values, value: Any = None, wording: Wording = FIELD_NAMES) -> str:
        """Return how a value violates `allow`; empty when it does not. A rule that cannot be evaluated counts as violated."""
        if self.allow is None:
            return ""
        changed = outputs if value is None else {**outputs, self.options.field: value}
        try:
            if self.allow.holds(inputs, changed):
                return ""
        except NotEvaluable as err:
            return f"allow cannot be evaluated ({wording.sentence(self.allow)}): {err}"
        broken = " and ".join(wording.sentence(self.allow, part) for part in self.allow.failed_parts(inputs, changed))
        return f"allow does not hold: {broken}"

    def may_decide(self, decider: str) -> bool:
        """Whether a person is a decider."""
        return not self.options.deciders or decider in self.options.deciders

    def snapshot(self) -> dict[str, Any]:
        """Return the options that are stored with a new decision."""
        names = ("field", "auto", "allow", "deadline", "at_deadline", "max_auto")
        return {name: getattr(self.options, name) for name in names}


def check_value(field: Field, value: Any) -> Any:
    """Return an edited value converted to the field's type. Raises DataRefused."""
    try:
        record = record_model("Edited", (field,)).model_validate_json(json.dumps({field.name: value}), strict=True)
    except ValidationError as err:
        message = err.errors(include_url=False)[0]["msg"]
        raise DataRefused(f"{_shorten_text(value)} is not a valid {field.name}: {message}", where=field.name) from None
    except (ValueError, RecursionError):  # a number of more digits than Python writes, a surrogate, a list in lists
        raise DataRefused(f"the value of {field.name} cannot be parsed", where=field.name) from None
    converted = record.model_dump(mode="json")[field.name]
    if converted is None:
        raise DataRefused(f"{field.name} is required", where=field.name)
    return converted


def parse_value(field: Field, text: str) -> Any:
    """Parse a typed text as a value of a field. Raises DataRefused."""
    if field.kind in ("integer", "number", "boolean"):
        plain = {"yes": "true", "no": "false"}.get(text.strip().lower(), text.strip().lower())
        try:
            value = json.loads(plain, parse_constant=float)
        except (ValueError, RecursionError):
            what = f"{_shorten_text(text)} is not a valid {field.name}: expected {field.kind}"
            raise DataRefused(what, where=field.name) from None
        return check_value(field, value)
    return check_value(field, text)


def _shorten_text(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
