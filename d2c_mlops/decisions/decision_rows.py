"""Decisions in the ledger: read, list and record events."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import blake2b
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, text

from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.schema import decision_events, decisions, feedback, predictions
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.registry.versions import find_version

STATUSES = ("pending", "approved", "rejected", "edited", "auto", "expired", "applied", "failed")
AUTOMATIC = ("policy", "deadline")  # who decided where no person did
DUE = ("auto", "approved", "edited")  # what is to be applied


@dataclass(frozen=True)
class Decision:
    """A decision: proposed value, verdict, who decided, and the times of each step."""

    id: str
    prediction_id: str
    model: str
    version: int
    key: str | None
    subject: str
    field: str
    proposed: Any
    edited: Any
    status: str
    verdict: str | None
    reason: str
    by: str | None
    predicted_at: datetime
    proposed_at: datetime
    deadline_at: datetime
    notified_at: datetime | None
    decided_at: datetime | None
    applied_at: datetime | None
    dry_run: bool
    policy: dict[str, Any]
    attempts: int
    not_before: datetime | None
    claimed_until: datetime | None
    error: str | None

    @property
    def value(self) -> Any:
        """The value to apply: the edited one, else the proposed one."""
        return self.proposed if self.edited is None else self.edited

    @property
    def automatic(self) -> bool:
        """Whether the policy or the deadline decided."""
        return self.by in AUTOMATIC

    @property
    def about(self) -> dict[str, Any]:
        """The subject: the key, and the date where a key has several."""
        subject: dict[str, Any] = json.loads(self.subject)
        return subject

    @property
    def title(self) -> str:
        """The subject as short text."""
        return ", ".join(str(part) for part in self.about.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as JSON values."""
        hidden = ("subject", "not_before", "claimed_until")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in hidden}
        plain = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
        return plain | {"about": self.about, "value": self.value}


def decision_id_of(prediction_id: str) -> str:
    """Return the id of a prediction's decision; deterministic."""
    return blake2b(prediction_id.encode(), digest_size=12).hexdigest()


def prediction_subject(identity: Sequence[str], inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> str:
    """Return the subject of a prediction as JSON: the key, and the date where a key has several."""
    return json.dumps({name: outputs.get(name, inputs.get(name)) for name in identity}, ensure_ascii=False)


def find_decision(ledger: Ledger, id: str) -> Decision:
    """Return a decision by its id or a unique prefix of it. Raises UsageError."""
    with ledger.read() as connection:
        query = select(decisions).where(decisions.c.id.startswith(id, autoescape=True)).limit(2)
        rows = connection.execute(query).all()
    if len(rows) != 1:
        what = "there is no decision" if not rows else "there are several decisions"
        raise UsageError(f"{what} {id!r}", next="`d2c decisions list --all` shows them")
    return Decision(**rows[0]._mapping)


def list_decisions(
    ledger: Ledger, models: Sequence[str] | None = None, statuses: Sequence[str] | None = None, limit: int = 100
) -> list[Decision]:
    """Return decisions, newest first; filtered by models and statuses."""
    query = select(decisions).order_by(decisions.c.predicted_at.desc(), decisions.c.id).limit(limit)
    if models is not None:
        query = query.where(decisions.c.model.in_(models))
    if statuses is not None:
        query = query.where(decisions.c.status.in_(statuses))
    with ledger.read() as connection:
        return [Decision(**row._mapping) for row in connection.execute(query)]


def prediction_of(ledger: Ledger, decision: Decision) -> dict[str, Any]:
    """Return the prediction that a decision is about: inputs, outputs and reasons."""
    return predictions_of(ledger, [decision])[decision.id]


def predictions_of(ledger: Ledger, decisions_: Sequence[Decision]) -> dict[str, dict[str, Any]]:
    """Return the predictions that decisions are about, by the decision's id."""
    query = select(predictions).where(predictions.c.id.in_([decision.prediction_id for decision in decisions_]))
    names = ("inputs", "outputs", "reasons")
    with ledger.read() as connection:
        rows = {row.id: {name: row._mapping[name] for name in names} for row in connection.execute(query)}
    empty: dict[str, Any] = {"inputs": {}, "outputs": {}, "reasons": None}
    return {decision.id: rows.get(decision.prediction_id, empty) for decision in decisions_}


def events_of_decision(ledger: Ledger, decision: Decision) -> list[dict[str, Any]]:
    """Return the events of a decision, oldest first."""
    query = select(decision_events).where(decision_events.c.decision_id == decision.id).order_by(decision_events.c.id)
    names = ("at", "status", "by", "how", "reason")
    with ledger.read() as connection:
        rows = connection.execute(query).all()
    return [{name: row._mapping[name] for name in names} | {"at": row.at.isoformat()} for row in rows]


def add_events(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store events: decision_id, at, status, by, how, reason."""
    if rows:
        connection.execute(insert(decision_events), list(rows))


def add_feedback(
    connection: Connection, decision: Decision, action: str, time: datetime, decider: str | None, reason: str
) -> None:
    """Store feedback on the decision's prediction: followed, overridden or ignored; once for each prediction and kind."""
    f = feedback.c
    same = select(f.id).where(f.prediction_id == decision.prediction_id, f.action == action).limit(1)
    if connection.execute(same).first() is not None:
        return
    row = {"id": f"decision-{decision.id}", "model": decision.model, "prediction_id": decision.prediction_id,
           "key": decision.key, "at": time, "action": action, "reason": reason or None, "value": decision.edited,
           "caller": decider[:64] if decider else None}  # fmt: skip
    insert_new(connection, feedback, [row])


def is_caused_by(permitted: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that a decision replaces older ones: a permitted caller caused it, a person made it, or it was applied.

    The query must join the decisions' predictions; where the ledger no longer has one, its caller counts as permitted.
    """
    is_by_person = and_(decisions.c.by.is_not(None), decisions.c.by.not_in(AUTOMATIC))
    return or_(
        decisions.c.status == "applied", is_by_person, predictions.c.id.is_(None), predictions.c.caller.in_(permitted)
    )


def lock_name(connection: Connection, name: str) -> None:
    """Lock a name for this transaction; other processes wait until it ends."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        number = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


def contract_of(ledger: Ledger, model: str, version: int | None = None) -> Contract:
    """Return the contract of a version, of the newest one when none is named."""
    return find_version(ledger, model, version).schema
