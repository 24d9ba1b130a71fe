"""Apply decisions to their target: one process claims each, the decision's id is the idempotency key, failed attempts are retried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import and_, or_, select, update

from d2c_mlops.decisions.apply_targets import ApplyOutcome, DecisionTarget, open_target
from d2c_mlops.decisions.decision_rows import (
    DUE,
    Decision,
    add_events,
    add_feedback,
    contract_of,
    find_decision,
    is_caused_by,
    prediction_of,
)
from d2c_mlops.decisions.policy import Policy
from d2c_mlops.errors import D2CError, Temporary, UsageError
from d2c_mlops.ledger.schema import BATCH, decisions, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import Contract

LEASE = timedelta(minutes=2)  # longer than one attempt can take; then another process may try
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=15), timedelta(hours=1)  # between attempts: doubled each time
SHOWN = 200  # characters of a key or an error that a message repeats
Clock = Callable[[], datetime]
Contracts = dict[int, Contract]  # by version


@dataclass
class ApplyCounts:
    """Counts of applied, failed, expired and retried decisions."""

    applied: int = 0
    waiting: int = 0  # target unavailable: retried automatically
    failed: int = 0  # refused, or unavailable too often: dead letters
    expired: int = 0  # too old, or superseded by a newer decision
    dry_run: int = 0  # decided, not applied: the policy is a dry run
    asked: int = 0  # the target has no row for the subject and no person approved it: pending again
    nowhere: int = 0  # decided, but the policy has no target

    def to_dict(self) -> dict[str, int]:
        """Return the counts as JSON values."""
        return asdict(self)


def now_utc() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def apply_due(
    ledger: Ledger,
    policy: Policy,
    *,
    clock: Clock = now_utc,
    lease: timedelta = LEASE,
    target: DecisionTarget | None = None,
) -> ApplyCounts:
    """Apply all due decisions, oldest prediction first.

    The process that claims a decision has `lease` to apply it. If it is killed, the next process sends the same under the same key: an
    idempotent receiver and a database table apply it once.
    """
    counts = ApplyCounts()
    due = list(_due_decisions(ledger, policy, clock()))
    counts.dry_run = sum(decision.dry_run for decision in due)
    ours = [decision for decision in due if not decision.dry_run]
    if not policy.options.apply and target is None:
        counts.nowhere = len(ours)
        return counts
    if not ours:
        return counts
    opened = target or open_target(policy)
    contracts: Contracts = {}
    try:
        for decision in ours:
            claimed = _claim_decision(ledger, decision, clock(), lease)
            if claimed is not None:
                name = _apply_claimed(ledger, policy, claimed, opened, clock, contracts)
                setattr(counts, name, getattr(counts, name) + 1)
    finally:
        opened.close()
    return counts


def apply_again(ledger: Ledger, policy: Policy, id: str, *, clock: Clock = now_utc) -> Decision:
    """Apply one decision now: one that waits for its next attempt, or a dead letter. Raises UsageError, Temporary."""
    decision = find_decision(ledger, id)
    if decision.status == "failed":
        values = {"status": decision.verdict, "attempts": 0, "not_before": None, "claimed_until": None}
        mine = and_(decisions.c.id == decision.id, decisions.c.status == "failed")
        with ledger.write() as connection:
            connection.execute(update(decisions).where(mine).values(values))
        decision = find_decision(ledger, decision.id)
    if decision.status not in DUE or decision.dry_run:
        why = "it is a dry run" if decision.dry_run else f"it is {decision.status}"
        raise UsageError(
            f"this decision cannot be applied: {why}", where=decision.id, next=f"d2c decisions show {decision.id}"
        )
    if not policy.options.apply:
        raise UsageError(
            "the policy has no target", where=f"{policy.where} apply", next="set `apply` to a web hook or a table"
        )
    claimed = _claim_decision(ledger, decision, clock(), LEASE)
    if claimed is None:
        raise Temporary(
            "another process is applying this decision", where=decision.id, next="check again in two minutes"
        )
    target = open_target(policy)
    try:
        _apply_claimed(ledger, policy, claimed, target, clock, {})
    finally:
        target.close()
    return find_decision(ledger, decision.id)


def _due_decisions(ledger: Ledger, policy: Policy, now: datetime) -> Iterator[Decision]:
    free = or_(decisions.c.claimed_until.is_(None), decisions.c.claimed_until <= now)
    ripe = or_(decisions.c.not_before.is_(None), decisions.c.not_before <= now)
    mine = and_(decisions.c.model == policy.model, decisions.c.status.in_(DUE), free, ripe)
    query = select(decisions).where(mine).order_by(decisions.c.predicted_at, decisions.c.id)
    with ledger.read() as connection:
        rows = connection.execute(query).all()
    return (Decision(**row._mapping) for row in rows)


def _claim_decision(ledger: Ledger, decision: Decision, now: datetime, lease: timedelta) -> Decision | None:
    """Claim a decision and return it; None when another process has claimed it."""
    free = or_(decisions.c.claimed_until.is_(None), decisions.c.claimed_until <= now)
    mine = and_(decisions.c.id == decision.id, decisions.c.status == decision.status, free)
    values = {"claimed_until": now + lease, "attempts": decisions.c.attempts + 1}
    with ledger.write() as connection:
        row = connection.execute(update(decisions).where(mine).values(values).returning(decisions)).one_or_none()
    return Decision(**row._mapping) if row is not None else None


def _apply_claimed(
    ledger: Ledger, policy: Policy, claimed: Decision, target: DecisionTarget, clock: Clock, contracts: Contracts
) -> str:
    outdated = _outdated_reason(ledger, policy, claimed, clock())
    if outdated:
        return _close_decision(ledger, claimed, clock(), "expired", outdated)
    try:
        if claimed.version not in contracts:
            contracts[claimed.version] = contract_of(ledger, claimed.model, claimed.version)
        outcome = target.apply(claimed, contracts[claimed.version], clock())
    except Temporary as err:
        outcome = ApplyOutcome(err.what, away=True)
    except D2CError as err:
        outcome = ApplyOutcome(err.what)
    except (ValueError, OverflowError) as err:  # a value that the driver of the target cannot send
        outcome = ApplyOutcome(f"{claimed.title[:SHOWN]} cannot be sent to the target: {str(err)[:SHOWN]}")
    now = clock()
    if outcome.absent:
        return _return_to_deciders(ledger, policy, claimed, now, outcome.what)
    if not outcome.what:
        return _close_decision(ledger, claimed, now, "applied", target.display_location)
    if not outcome.away or claimed.attempts >= policy.options.tries:
        return _close_decision(ledger, claimed, now, "failed", outcome.what)
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(claimed.attempts - 1, 12))
    wait = max(wait, timedelta(seconds=min(outcome.retry_after, LONGEST_WAIT.total_seconds())))
    values = {"claimed_until": None, "not_before": now + wait, "error": outcome.what}
    with ledger.write() as connection:
        connection.execute(update(decisions).where(_is_claimed(claimed)).values(values))
        add_events(
            connection, [_event_row(claimed, now, claimed.status, f"attempt {claimed.attempts}: {outcome.what}")]
        )
    return "waiting"


def _return_to_deciders(ledger: Ledger, policy: Policy, claimed: Decision, now: datetime, why: str) -> str:
    """Ask a person about a decision whose row is missing in the target; close it when a deadline had approved it."""
    if claimed.by == "deadline":
        return _close_decision(ledger, claimed, now, "expired", why)
    values = {
        "status": "pending", "verdict": None, "by": None, "decided_at": None, "reason": why, "claimed_until": None,
        "not_before": None, "notified_at": None, "deadline_at": now + policy.deadline, "attempts": 0,
    }  # fmt: skip
    with ledger.write() as connection:
        if connection.execute(update(decisions).where(_is_claimed(claimed)).values(values)).rowcount:
            add_events(connection, [_event_row(claimed, now, "pending", why)])
    return "asked"


def _outdated_reason(ledger: Ledger, policy: Policy, claimed: Decision, now: datetime) -> str:
    """Return why a decision can no longer be applied; empty when it can."""
    if claimed.predicted_at <= now - policy.max_age:
        return f"older than {policy.options.max_age}"
    newer = and_(
        decisions.c.model == claimed.model,
        decisions.c.subject == claimed.subject,
        decisions.c.predicted_at > claimed.predicted_at,
        decisions.c.status.in_((*DUE, "applied", "failed")),
        decisions.c.dry_run.is_(False),
    )
    permitted = policy.callers(now).permitted
    with_prediction = decisions.outerjoin(predictions, decisions.c.prediction_id == predictions.c.id)
    query = select(decisions.c.id).select_from(with_prediction).where(newer, is_caused_by(permitted)).limit(1)
    with ledger.read() as connection:
        if connection.execute(query).first():
            return "superseded by a newer decision"
    if next(iter(claimed.about.values()), None) is None:
        return "the prediction has no key"
    if claimed.automatic and (asker := _prediction_caller(ledger, claimed)) not in permitted:
        return f"{f'the API key {asker}' if asker else 'a call without an API key'} causes no decision"
    base = prediction_of(ledger, claimed)
    return policy.violation(base["inputs"], base["outputs"], claimed.edited)


def _prediction_caller(ledger: Ledger, claimed: Decision) -> str | None:
    """Return the caller of the prediction; BATCH where the ledger no longer has the prediction."""
    query = select(predictions.c.caller).where(predictions.c.id == claimed.prediction_id)
    with ledger.read() as connection:
        row = connection.execute(query).first()
    return row.caller if row is not None else BATCH


def _is_claimed(claimed: Decision) -> Any:
    """Return the condition that the row is still claimed by this process."""
    same_claim = decisions.c.claimed_until == claimed.claimed_until
    return and_(decisions.c.id == claimed.id, decisions.c.status == claimed.status, same_claim)


def _event_row(claimed: Decision, time: datetime, status: str, reason: str) -> dict[str, Any]:
    return {"decision_id": claimed.id, "at": time, "status": status, "by": None, "how": "apply", "reason": reason}


def _close_decision(ledger: Ledger, claimed: Decision, now: datetime, status: str, why: str) -> str:
    is_applied = status == "applied"
    values = {"status": status, "claimed_until": None, "not_before": None, "error": None if is_applied else why}
    with ledger.write() as connection:
        mine = (
            _is_claimed(claimed)
            if not is_applied
            else and_(decisions.c.id == claimed.id, decisions.c.status == claimed.status)
        )
        changed = connection.execute(
            update(decisions).where(mine).values({**values, "applied_at": now if is_applied else None})
        ).rowcount
        if changed:
            add_events(connection, [_event_row(claimed, now, status, why)])
            if is_applied and claimed.verdict == "edited":
                add_feedback(connection, claimed, "overridden", now, claimed.by, claimed.reason)
            elif is_applied:
                add_feedback(connection, claimed, "followed", now, claimed.by, claimed.reason)
    return status
