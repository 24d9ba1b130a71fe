"""What becomes of a model's predictions: the [decisions:NAME] section, read and held against the model's contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from d2c_mlops.decisions.callers import Callers
from d2c_mlops.decisions.rules import DecisionRule, Unknown
from d2c_mlops.decisions.words import NAMES, Words
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.models.core.contract import Contract, Field, record_model
from d2c_mlops.serving.batch.score import identity_of
from d2c_mlops.serving.paths import keys_file
from d2c_mlops.settings import PolicySettings, Settings
from d2c_mlops.settings.parsing import age

Values = Mapping[str, Any]
SHOWN = 60  # characters of a wrong value that an error repeats


@dataclass(frozen=True)
class Judged:
    """What a policy says of a prediction: auto, pending or rejected, and why."""

    status: str
    reason: str


@dataclass(frozen=True)
class Policy:
    """A policy that was read."""

    model: str
    said: PolicySettings
    auto: DecisionRule | None
    allow: DecisionRule | None
    deadline: timedelta
    max_age: timedelta
    keys: Path  # file of API keys

    @classmethod
    def of(cls, model: str, settings: Settings) -> Policy:
        """Return the policy of a model. Raises UsageError when it has none, or a rule of it cannot be read."""
        said = settings.policies.get(model)
        if said is None:
            known = ", ".join(settings.policies) or "none yet"
            raise UsageError(
                f"nothing is decided about {model}",
                where=f"settings.ini; sections: {known}",
                next=f"write a section [decisions:{model}] with `field = …`",
            )
        auto, allow = (
            DecisionRule.of(text, f"[decisions:{model}] {name}") if text else None
            for name, text in (("auto", said.auto), ("allow", said.allow))
        )
        deadline, max_age = (timedelta(seconds=age(text)) for text in (said.deadline, said.max_age))
        return cls(model, said, auto, allow, deadline, max_age, keys_file(settings))

    def callers(self, now: datetime) -> Callers:
        """Return whose predictions become decisions at a moment. Raises UsageError where the file of keys cannot be read."""
        return Callers.of(self.model, self.said.keys, self.keys, now)

    @property
    def where(self) -> str:
        """Where this policy is written."""
        return f"[decisions:{self.model}]"

    def check(self, contract: Contract) -> Field:
        """Return the field that is decided upon. Raises UsageError where the policy does not fit the contract."""
        outputs = {one.name: one for one in contract.output_fields}
        inputs = {one.name: one for one in contract.input_fields}
        if self.said.field not in outputs:
            known = ", ".join(outputs)
            raise UsageError(f"{self.said.field!r} is no output: {known}", where=f"{self.where} field")
        identity = identity_of(contract)
        hidden = {one.name for one in (*inputs.values(), *outputs.values()) if one.personal}
        wanted = {*identity, self.said.field}
        for name, rule in (("auto", self.auto), ("allow", self.allow)):
            if rule is not None:
                rule.check(inputs, outputs, f"{self.where} {name}")
                wanted |= {each for _, each in rule.names}
        if hidden & wanted:
            raise UsageError(
                f"{', '.join(sorted(hidden & wanted))} is personal: the log that decisions are made from does not have it",
                where=self.where,
                next="decide by a key that is no personal data, or mark the field as not personal in the contract",
            )
        return outputs[self.said.field]

    def judge(self, inputs: Values, outputs: Values, words: Words = NAMES) -> Judged:
        """Return whether a prediction is applied without asking, asked about, or against the limits; and why, in `words`."""
        against = self.against(inputs, outputs, words=words)
        if against:
            return Judged("rejected", against)
        if self.auto is None:
            return Judged("pending", "always asked")
        try:
            if self.auto.holds(inputs, outputs):
                return Judged("auto", f"applied unasked, because {words.sentence(self.auto)}")
        except Unknown as err:
            return Judged("pending", f"it cannot be told whether auto holds ({words.sentence(self.auto)}): {err}")
        broken = " and ".join(words.sentence(self.auto, each) for each in self.auto.broken(inputs, outputs))
        return Judged("pending", f"asked, because this does not hold: {broken}")

    def against(self, inputs: Values, outputs: Values, value: Any = None, words: Words = NAMES) -> str:
        """Return why a value must not be applied; empty when it may be. What cannot be told must not be."""
        if self.allow is None:
            return ""
        made = outputs if value is None else {**outputs, self.said.field: value}
        try:
            if self.allow.holds(inputs, made):
                return ""
        except Unknown as err:
            return f"it cannot be told whether allow holds ({words.sentence(self.allow)}): {err}"
        broken = " and ".join(words.sentence(self.allow, each) for each in self.allow.broken(inputs, made))
        return f"allow does not hold: {broken}"

    def may_decide(self, by: str) -> bool:
        """Whether somebody may decide."""
        return not self.said.deciders or by in self.said.deciders

    def snapshot(self) -> dict[str, Any]:
        """Return what held when a decision was proposed."""
        names = ("field", "auto", "allow", "deadline", "at_deadline", "max_auto")
        return {name: getattr(self.said, name) for name in names}


def checked(field: Field, value: Any) -> Any:
    """Return an edited value as the contract has it. Raises DataRefused."""
    try:
        made = record_model("Edited", (field,)).model_validate_json(json.dumps({field.name: value}), strict=True)
    except ValidationError as err:
        said = err.errors(include_url=False)[0]["msg"]
        raise DataRefused(f"{_short(value)} is no {field.name}: {said}", where=field.name) from None
    except (ValueError, RecursionError):  # a number of more digits than Python writes, a surrogate, a list in lists
        raise DataRefused(f"this is no {field.name} that can be read", where=field.name) from None
    found = made.model_dump(mode="json")[field.name]
    if found is None:
        raise DataRefused(f"a {field.name} is needed", where=field.name)
    return found


def read_value(field: Field, text: str) -> Any:
    """Return what somebody typed as a value of a field. Raises DataRefused."""
    if field.kind in ("integer", "number", "boolean"):
        plain = {"yes": "true", "no": "false"}.get(text.strip().lower(), text.strip().lower())
        try:
            value = json.loads(plain, parse_constant=float)
        except (ValueError, RecursionError):
            what = f"{_short(text)} is no {field.name}: it has to be a {field.kind}"
            raise DataRefused(what, where=field.name) from None
        return checked(field, value)
    return checked(field, text)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
