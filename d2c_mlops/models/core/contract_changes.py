"""Compare two contracts: which differences break callers, and which version number the new contract needs.

A caller breaks when an input is newly required, when a value that was accepted is refused, or when an output is missing or may hold
values that it could not hold before. Limits of inputs may widen, limits of outputs may narrow.

Frequency and horizon are part of the contract too: another frequency or a shorter horizon breaks callers. A longer horizon breaks
nobody and needs no new number, because it comes from a parameter and not from code.
"""

from __future__ import annotations

from dataclasses import dataclass

from d2c_mlops.errors import Failure
from d2c_mlops.models.core.contract import PERIODS, TERMS, Contract, Field


@dataclass(frozen=True)
class ContractChange:
    """One difference between two contracts."""

    what: str
    where: str
    breaking: bool

    def __str__(self) -> str:
        return f"{'breaking' if self.breaking else 'compatible'}: {self.where}: {self.what}"


def contract_differences(old: Contract, new: Contract) -> list[ContractChange]:
    """Return every difference between two contracts, each with whether it breaks a caller."""
    contract_changes = []
    if old.key != new.key:
        contract_changes.append(ContractChange(f"the key {old.key!r} became {new.key!r}", "key", True))
    contract_changes += _term_changes(old, new)
    for side in ("inputs", "outputs"):
        before = {f.name: f for f in getattr(old, f"{side[:-1]}_fields")}
        after = {f.name: f for f in getattr(new, f"{side[:-1]}_fields")}
        for name in before.keys() - after.keys():
            contract_changes.append(ContractChange("is gone", f"{side}.{name}", True))
        for name in after.keys() - before.keys():
            demanded = side == "inputs" and not after[name].nullable
            contract_changes.append(
                ContractChange("is new and required" if demanded else "is new", f"{side}.{name}", demanded)
            )
        for name in before.keys() & after.keys():
            contract_changes += _field_changes(side, before[name], after[name])
    return sorted(contract_changes, key=lambda change: (not change.breaking, change.where, change.what))


def _term_changes(old: Contract, new: Contract) -> list[ContractChange]:
    """Return the differences of frequency and horizon: answers keep their period and reach as far as before."""
    was, now = (PERIODS.get(contract.frequency, "no periods") for contract in (old, new))
    if old.frequency and old.frequency != new.frequency:
        return [ContractChange(f"answers were for {was} and are for {now}", "frequency", True)]
    term_changes = (
        [] if old.frequency == new.frequency else [ContractChange(f"answers are for {now}", "frequency", False)]
    )
    if old.horizon != new.horizon:
        reach = [
            f"{contract.horizon} {now if new.frequency else 'periods'}" if contract.horizon else "any"
            for contract in (old, new)
        ]
        shorter = (
            bool(new.horizon) and (not old.horizon or new.horizon < old.horizon) and bool(old.frequency or old.horizon)
        )
        term_changes.append(ContractChange(f"the horizon was {reach[0]} and is {reach[1]}", "horizon", shorter))
    return term_changes


def _field_changes(side: str, old: Field, new: Field) -> list[ContractChange]:
    """Return the differences of one field: inputs must not get narrower, outputs must not get wider."""
    where = f"{side}.{new.name}"
    field_changes = []
    for name in ("kind", "unit", "pattern"):
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            field_changes.append(ContractChange(f"{name} was {was!r} and is {now!r}", where, True))
    for name, wide, narrow in (
        ("ge", _is_below, _is_above),
        ("le", _is_above, _is_below),
        ("max_length", _is_above, _is_below),
    ):
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            breaks = narrow(now, was, name) if side == "inputs" else wide(now, was, name)
            field_changes.append(ContractChange(f"{name} was {was} and is {now}", where, breaks))
    if old.choices != new.choices:
        lost, added = _value_set(old) - _value_set(new), _value_set(new) - _value_set(old)
        opened = old.choices is None or new.choices is None
        breaks = bool(lost) if side == "inputs" else bool(added)
        if opened:
            breaks = (new.choices is not None) == (side == "inputs")
        field_changes.append(ContractChange(f"choices lost {sorted(lost)} and gained {sorted(added)}", where, breaks))
    if old.nullable != new.nullable:
        field_changes.append(
            ContractChange(f"nullable is now {new.nullable}", where, new.nullable == (side == "outputs"))
        )
    if old.personal != new.personal:
        field_changes.append(ContractChange(f"personal was {old.personal} and is {new.personal}", where, False))
    if old.description != new.description:
        field_changes.append(ContractChange("the description changed", where, False))
    return field_changes


def _value_set(field: Field) -> set[str]:
    return set(field.choices or ())


def _bound_value(value: float | None, name: str) -> float:
    return value if value is not None else float("-inf") if name == "ge" else float("inf")


def _is_above(now: float | None, was: float | None, name: str) -> bool:
    return _bound_value(now, name) > _bound_value(was, name)


def _is_below(now: float | None, was: float | None, name: str) -> bool:
    return _bound_value(now, name) < _bound_value(was, name)


def broken_clauses(old: Contract, new: Contract) -> list[Failure]:
    """Return what callers cannot rely on: a break without a new major version, a change without a new version, a step back."""
    if new.order < old.order:
        return [Failure(f"{new.version} comes before {old.version}: callers of {old.version} would lose it", "version")]
    if new.major > old.major:
        return []
    all_changes = contract_differences(old, new)
    broken = [
        Failure(
            f"{change.what}, so {old.version} must be followed by {old.major + 1}.0.0, not {new.version}", change.where
        )
        for change in all_changes
        if change.breaking
    ]
    silent = [change for change in all_changes if change.what == "the description changed"]  # words bind no caller
    written = [change for change in all_changes if change.where not in TERMS and change not in silent]
    if written and not broken and new.order == old.order:
        listed = "; ".join(f"{change.where}: {change.what}" for change in written)
        later = f"{old.major}.{old.order[1] + 1}.0"
        broken = [Failure(f"two contracts cannot both be {old.version} ({listed}): call this one {later}", "version")]
    return broken
