"""Promote a version if the gate accepts it, roll back, and record both."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from math import isclose
from typing import Any

from sqlalchemy import Connection, insert, select

from d2c_mlops.registry.promotion_history import (
    Promotion,
    champion_at_time,
    former_champions,
    live_version,
    promotions_until,
)

from ..errors import Failure, GateRefused, Temporary, UsageError
from ..ledger.schema import promotions
from ..ledger.store import Ledger
from ..settings import Settings
from . import artifacts
from .charters import example_answers
from .compared_metrics import TOLERANCE
from .gate import Clause, judge_clauses
from .versions import Version, code_digest_of_version, find_version, version_params

OnPromotion = Callable[[Promotion], None]


def no_action(promotion: Promotion) -> None:
    """Do nothing after a promotion."""


def judge_and_promote(
    model: str,
    settings: Settings,
    *,
    number: int | None = None,  # the newest version when None
    by: str | None = None,  # the user's name when None
    reason: str = "",
    override: bool = False,  # promote although a clause fails; requires a name and a reason
    on_promotion: OnPromotion = no_action,  # called as soon as the champion has changed
) -> tuple[Promotion | None, list[Clause]]:
    """Make a version champion if the gate accepts it; None if it, or an equal version, is already champion. Raises GateRefused."""
    if override and not (by and reason.strip()):
        raise UsageError("an override requires a name and a reason", next="add --by NAME --reason TEXT")
    ledger = Ledger.of(settings)
    version, current = find_version(ledger, model, number), champion_at_time(ledger, model)
    if current and current.version == version.version:
        return None, []
    if current and not override and is_same_version(version, current, settings):
        text = f"version {version.version} is version {current.version}, the champion: same data, parameters, code and metrics"
        return None, [Clause("no change", True, text)]
    clauses = judge_clauses(version, current, settings)
    store_clauses(version, clauses, settings)
    broken = [clause for clause in clauses if not clause.holds]
    if broken and not override:
        example = example_answers(version, settings)
        rests = f"; it was judged by the {example}" if example.fields else ""
        raise GateRefused(
            f"version {version.version} of {model} failed the gate: {len(broken)} of {len(clauses)} clauses do not hold{rests}",
            failures=[Failure(clause.finding, clause.name) for clause in broken],
            next=(f"{example.instructions(model)}; " if example.fields else "")
            + f"{'or ' if example.fields else ''}fix the cause and train again, or `d2c promote {model} --version {version.version} "
            "--override --by NAME --reason TEXT`",
        )
    action = "override" if broken else "promote"
    reason_text = reason or "passed the gate"
    return _append_promotion(
        ledger, settings, version, current, action, by, reason_text, clauses, on_promotion
    ), clauses


def is_same_version(version: Version, champion: Version, settings: Settings) -> bool:
    """Return whether two versions are equal: data, day, class, code, parameters, contract, charter and metrics."""
    terms = ("model_class", "inputs", "as_of", "package_version", "contract", "charter")
    if any(getattr(version, name) != getattr(champion, name) for name in terms) or not version.inputs:
        return False
    if version_params(version, settings) != version_params(champion, settings):
        return False
    if version.sha256 == champion.sha256:
        return True
    codes = {code_digest_of_version(version_side, settings) for version_side in (version, champion)}
    mine, theirs = version.score, champion.score
    names = mine.baselines.keys() | theirs.baselines.keys()
    figures = [(mine.value, theirs.value), *((mine.baselines.get(n), theirs.baselines.get(n)) for n in names)]
    close = all(None not in pair and isclose(*pair, rel_tol=TOLERANCE) for pair in figures)  # type: ignore[arg-type]
    return len(codes) == 1 and codes != {""} and mine.metric == theirs.metric and close


def store_clauses(version: Version, clauses: list[Clause], settings: Settings) -> None:
    """Store the clauses with the version's files, as gate.json."""
    document = {"at": datetime.now(UTC).isoformat(), "clauses": [clause.to_dict() for clause in clauses]}
    artifacts.store_document(settings, version.artifact_uri, "gate.json", document)


def revert_promotion(
    model: str,
    settings: Settings,
    *,
    number: int | None = None,  # the champion before the present one when None
    by: str | None = None,
    reason: str = "",
    on_promotion: OnPromotion = no_action,
) -> Promotion:
    """Roll back to a former champion. Raises UsageError if there is none, or the version never was champion."""
    ledger = Ledger.of(settings)
    current, before = live_version(ledger, model), former_champions(promotions_until(ledger, model))
    target = number if number is not None else (before[-1] if before else None)
    if target is None or (target not in before and number is not None):
        listed = ", ".join(map(str, before)) or "none"
        raise UsageError(f"{model} has no earlier champion to roll back to (former champions: {listed})")
    version = find_version(ledger, model, target)
    return _append_promotion(
        ledger, settings, version, current, "rollback", by, reason or "rolled back", [], on_promotion
    )


def _append_promotion(
    ledger: Ledger,
    settings: Settings,
    version: Version,
    current: Version | None,
    action: str,
    by: str | None,
    reason: str,
    clauses: list[Clause],
    on_promotion: OnPromotion,
) -> Promotion:
    row: dict[str, Any] = {
        "model": version.model,
        "version": version.version,
        "previous": current.version if current else None,
        "action": action,
        "at": datetime.now(UTC),
        "by": by or getpass.getuser(),
        "reason": reason,
        "gate": [clause.to_dict() for clause in clauses],
    }
    with ledger.write() as connection:
        id = _insert_promotion(connection, row)
    promotion = Promotion(id=id, **row)
    on_promotion(promotion)
    artifacts.set_alias(settings, version.model, "champion", version.version)
    return promotion


def _insert_promotion(connection: Connection, row: dict[str, Any]) -> int:
    """Append the row unless another process has changed the champion in the meantime."""
    last = select(promotions.c.version).where(promotions.c.model == row["model"]).order_by(promotions.c.id.desc())
    if connection.execute(last.limit(1)).scalar() != row["previous"]:
        raise Temporary(
            f"the champion of {row['model']} was changed by another process at the same time",
            next="run `d2c models history` and repeat",
        )
    key = connection.execute(insert(promotions).values(row)).inserted_primary_key
    assert key is not None
    return int(key[0])
