"""Create decisions from predictions, and decide them exactly once: by people, by the policy or at the deadline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, func, or_, select, update

from d2c_mlops.decisions.callers import Callers
from d2c_mlops.decisions.decision_rows import (
    Decision,
    add_events,
    add_feedback,
    contract_of,
    decision_id_of,
    find_decision,
    is_caused_by,
    lock_name,
    prediction_of,
    prediction_subject,
)
from d2c_mlops.decisions.policy import Policy, PolicyVerdict, check_value
from d2c_mlops.decisions.wording import Wording, display_value
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.ledger.schema import by_callers, decision_links, decisions, predictions
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.serving.batch.score import identity_columns

CHUNK = 2000  # predictions that are looked at in one transaction
VERDICTS = {"approve": "approved", "reject": "rejected", "edit": "edited"}


class DecisionClosed(UsageError):
    """The decision is closed: already decided, or its deadline has passed."""


class NotAllowed(UsageError):
    """The person is not a decider of this model."""


class LinkReplayed(UsageError):
    """A link is used a second time."""


@dataclass
class ProposalCounts:
    """Counts of new predictions by their result."""

    predictions: int = 0
    auto: int = 0
    pending: int = 0
    rejected: int = 0  # against `allow`
    superseded: int = 0  # a newer prediction for the same key came
    without_scope: int = 0  # from API keys that cause no decision: ignored
    without_key: int = 0  # from callers without an API key, or unknown to the ledger: ignored
    keys: str = ""  # names of those keys
    unknown: tuple[str, ...] = ()  # entries of the policy's `keys` that are no key of the model

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return asdict(self)


def create_decisions(ledger: Ledger, policy: Policy, now: datetime, *, write: bool = True) -> ProposalCounts:
    """Create a decision for every prediction that has none; safe when several processes run it at once.

    Of several predictions with the same subject the newest counts. Predictions of shadows and probes are ignored;
    those of callers that cause no decision are counted only. With `write` false nothing is stored.
    """
    counts, after = ProposalCounts(), ("", "")
    policy.check(contract_of(ledger, policy.model))
    callers = policy.callers(now)
    _count_ignored(ledger, policy, callers, counts, now)
    while True:
        with ledger.write() as connection:
            lock_name(connection, f"decisions {policy.model}")
            rows = connection.execute(_undecided_predictions(policy, callers, now, after)).mappings().all()
            new_rows = _new_decisions(ledger, connection, policy, callers, rows, now)
            _store_decisions(connection, new_rows, counts, now, write)
        if len(rows) < CHUNK or (write and not new_rows):
            return counts
        after = (rows[-1]["at"], rows[-1]["id"]) if not write else ("", "")


def _needs_decision(policy: Policy, now: datetime) -> Any:
    """Return the condition that a prediction is recent, was given to a caller and has no decision."""
    return and_(
        predictions.c.model == policy.model,
        predictions.c.variant != "shadow",
        by_callers(predictions),
        predictions.c.at > now - policy.max_age,
        decisions.c.id.is_(None),
    )


_WITH_DECISION = predictions.outerjoin(decisions, decisions.c.prediction_id == predictions.c.id)


def _count_ignored(
    ledger: Ledger, policy: Policy, callers: Callers, proposal_counts: ProposalCounts, now: datetime
) -> None:
    """Count the predictions of callers that cause no decision."""
    caller = predictions.c.caller
    is_other_caller = or_(caller.is_(None), caller.not_in(callers.permitted))
    query = (
        select(caller, func.count())
        .select_from(_WITH_DECISION)
        .where(_needs_decision(policy, now), is_other_caller)
        .group_by(caller)
    )
    with ledger.read() as connection:
        counts = {id: count for id, count in connection.execute(query)}
    proposal_counts.without_scope = sum(count for id, count in counts.items() if id in callers.names)
    proposal_counts.without_key = sum(counts.values()) - proposal_counts.without_scope
    proposal_counts.keys, proposal_counts.unknown = (
        callers.names_text([id for id in counts if id in callers.names]),
        callers.unknown,
    )


def _undecided_predictions(policy: Policy, callers: Callers, now: datetime, after: tuple[Any, str]) -> Any:
    mine = and_(_needs_decision(policy, now), predictions.c.caller.in_(callers.permitted))
    query = select(predictions).select_from(_WITH_DECISION).where(mine).order_by(predictions.c.at, predictions.c.id)
    if after[1]:
        at, id = predictions.c.at, predictions.c.id
        query = query.where((at > after[0]) | ((at == after[0]) & (id > after[1])))
    return query.limit(CHUNK)


def _new_decisions(
    ledger: Ledger,
    connection: Connection,
    policy: Policy,
    callers: Callers,
    rows: Iterable[RowMapping],
    now: datetime,
) -> list[dict[str, Any]]:
    """Return a decision for each prediction, and close the decisions that these supersede."""
    new_rows: list[dict[str, Any]] = []
    contracts: dict[int, tuple[Contract, str]] = {}
    words: dict[int, Wording] = {}
    for row in rows:
        if row["version"] not in contracts:
            contracts[row["version"]] = _contract_with_mismatch(
                policy, contract_of(ledger, policy.model, row["version"])
            )
            words[row["version"]] = Wording.of(contracts[row["version"]][0])
        new_rows.append(_new_decision(policy, *contracts[row["version"]], words[row["version"]], row, now))
    last = {new_row["subject"]: new_row["id"] for new_row in new_rows}
    newest = _newest_prediction_times(connection, policy.model, callers, list(last))
    remaining = _remaining_automatic(connection, policy, now)
    for new_row in new_rows:
        if (
            last[new_row["subject"]] != new_row["id"]
            or newest.get(new_row["subject"], new_row["predicted_at"]) > new_row["predicted_at"]
        ):
            new_row |= {"status": "expired", "verdict": "superseded", "reason": "superseded by a newer prediction"}
        elif new_row["status"] == "auto":
            if remaining == 0:
                new_row |= {
                    "status": "pending",
                    "reason": f"max_auto: at most {policy.options.max_auto} a day are applied automatically",
                }
            remaining -= remaining > 0
        decided = new_row["status"] != "pending"
        by = "policy" if decided else None
        new_row |= {"verdict": new_row["verdict"] or (new_row["status"] if decided else None), "by": by}
        new_row |= {"decided_at": now if decided else None}
    _supersede_pending(connection, policy.model, [s for s, id in last.items() if _is_not_superseded(new_rows, id)], now)
    return new_rows


def _is_not_superseded(decision_rows: list[dict[str, Any]], id: str) -> bool:
    return any(row["id"] == id and row["verdict"] != "superseded" for row in decision_rows)


def _contract_with_mismatch(policy: Policy, contract: Contract) -> tuple[Contract, str]:
    """Return the contract of a version, and why the policy does not fit it (such as a former major version)."""
    try:
        policy.check(contract)
    except UsageError as err:
        return contract, f"contract {contract.version}: {err.what}"
    return contract, ""


def _new_decision(
    policy: Policy, contract: Contract, mismatch_reason: str, wording: Wording, row: RowMapping, now: datetime
) -> dict[str, Any]:
    inputs, outputs = row["inputs"], row["outputs"]
    value, identity = outputs.get(policy.options.field), identity_columns(contract)
    missing = [name for name in (identity[0], policy.options.field) if outputs.get(name, inputs.get(name)) is None]
    mismatch_reason = mismatch_reason or (f"the prediction has no {missing[0]}" if missing else "")
    judged = PolicyVerdict("rejected", mismatch_reason) if mismatch_reason else policy.judge(inputs, outputs, wording)
    return {
        "id": decision_id_of(row["id"]), "prediction_id": row["id"], "model": policy.model, "version": row["version"],
        "key": row["key"], "subject": prediction_subject(identity, inputs, outputs), "field": policy.options.field,
        "proposed": value, "status": judged.status, "verdict": None, "reason": judged.reason, "by": None,
        "predicted_at": row["at"], "proposed_at": now, "deadline_at": now + policy.deadline, "decided_at": None,
        "dry_run": policy.options.dry_run, "policy": policy.snapshot(), "attempts": 0,
    }  # fmt: skip


def _newest_prediction_times(
    connection: Connection, model: str, callers: Callers, subjects: list[str]
) -> dict[str, datetime]:
    """Return the time of the newest prediction with a decision by subject; those of callers that cause no decision are ignored."""
    query = (
        select(decisions.c.subject, func.max(decisions.c.predicted_at, type_=decisions.c.predicted_at.type))
        .select_from(decisions.outerjoin(predictions, decisions.c.prediction_id == predictions.c.id))
        .where(decisions.c.model == model, decisions.c.subject.in_(subjects), is_caused_by(callers.permitted))
        .group_by(decisions.c.subject)
    )
    return {subject: at for subject, at in connection.execute(query)}


def _remaining_automatic(connection: Connection, policy: Policy, now: datetime) -> int:
    """Return how many decisions may still be applied automatically today; -1 for no limit."""
    if not policy.options.max_auto:
        return -1
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    mine = and_(decisions.c.model == policy.model, decisions.c.verdict == "auto", decisions.c.decided_at >= day)
    count = connection.execute(select(func.count()).select_from(decisions).where(mine)).scalar() or 0
    return max(0, policy.options.max_auto - int(count))


def _supersede_pending(connection: Connection, model: str, subjects: list[str], now: datetime) -> None:
    """Close pending decisions that a newer prediction replaces."""
    mine = and_(decisions.c.model == model, decisions.c.status == "pending", decisions.c.subject.in_(subjects))
    reason = "superseded by a newer prediction"
    values = {"status": "expired", "verdict": "superseded", "by": "policy", "decided_at": now, "reason": reason}
    closed = connection.execute(update(decisions).where(mine).values(values).returning(decisions.c.id)).scalars()
    add_events(connection, [_event_row(id, now, "expired", "policy", "policy", reason) for id in closed])


def _store_decisions(
    connection: Connection, new_rows: list[dict[str, Any]], counts: ProposalCounts, now: datetime, write: bool
) -> None:
    added = {key[0] for key in insert_new(connection, decisions, new_rows)} if new_rows else set()
    new = [new_row for new_row in new_rows if new_row["id"] in added]
    add_events(connection, [_event_row(e["id"], now, e["status"], e["by"], "policy", e["reason"]) for e in new])
    for new_row in new:
        counts.predictions += 1
        name = "superseded" if new_row["verdict"] == "superseded" else new_row["status"]
        setattr(counts, name, getattr(counts, name) + 1)
    if not write:
        connection.rollback()


def _event_row(id: str, time: datetime, status: str, decider: str | None, channel: str, reason: str) -> dict[str, Any]:
    return {"decision_id": id, "at": time, "status": status, "by": decider, "how": channel, "reason": reason}


def decide(
    ledger: Ledger,
    policy: Policy,
    id: str,
    action: str,  # approve, reject or edit
    *,
    decider: str,
    now: datetime,
    value: Any = None,  # the value to apply instead, for edit
    reason: str = "",
    channel: str = "cli",
    nonce: str = "",  # of a link, which is used up by this
) -> tuple[Decision, bool]:
    """Approve, reject or edit a decision; return it and whether it changed (a repetition by the same person changes nothing).

    Raises NotAllowed, DecisionClosed, LinkReplayed, or DataRefused where a value breaks the contract or the policy's limits.
    """
    if action not in VERDICTS:
        raise UsageError(f"{action!r} is not one of {', '.join(VERDICTS)}")
    decision = find_decision(ledger, id)
    if not policy.may_decide(decider):
        may = ", ".join(policy.options.deciders)
        raise NotAllowed(f"{decider} is not a decider for {policy.model}", where=f"{policy.where} deciders", next=may)
    edited = _checked_edit(ledger, policy, decision, value) if action == "edit" else None
    if action == "edit" and not reason:
        raise DataRefused("an edited value needs a reason", next="give a reason: the model's owner reads it")
    if action != "reject" and nonce == "" and _is_repetition(decision, action, edited, decider):
        return decision, False
    if action != "reject":
        _check_limits(ledger, policy, decision, edited)
    with ledger.write() as connection:
        lock_name(connection, f"decision {decision.id}")
        if nonce:
            _use_link(connection, decision, action, decider, nonce, now)
        verdict = VERDICTS[action]
        values = {
            "status": verdict,
            "verdict": verdict,
            "by": decider,
            "decided_at": now,
            "reason": reason,
            "edited": edited,
        }
        open_ = and_(decisions.c.id == decision.id, decisions.c.status == "pending", decisions.c.deadline_at > now)
        changed = connection.execute(update(decisions).where(open_).values(values)).rowcount
        if changed:
            add_events(connection, [_event_row(decision.id, now, verdict, decider, channel, reason)])
            if verdict == "rejected":
                add_feedback(connection, decision, "overridden", now, decider, reason or "rejected")
    again = find_decision(ledger, decision.id)
    if changed or (not nonce and _is_repetition(again, action, edited, decider)):
        return again, bool(changed)
    raise closed_error(again)


def _is_repetition(decision: Decision, action: str, edited: Any, decider: str) -> bool:
    return decision.verdict == VERDICTS[action] and decision.by == decider and decision.edited == edited


def closed_error(decision: Decision) -> DecisionClosed:
    """Return the error for a closed decision."""
    if decision.status == "pending":
        return DecisionClosed(
            f"the deadline of {decision.title} passed at {decision.deadline_at:%Y-%m-%d %H:%M}Z", where=decision.id
        )
    who = f" by {decision.by}" if decision.by else ""
    when = f" at {decision.decided_at:%Y-%m-%d %H:%M}Z" if decision.decided_at else ""
    return DecisionClosed(f"already decided: {decision.verdict}{who}{when}", where=decision.id)


def _use_link(connection: Connection, decision: Decision, action: str, decider: str, nonce: str, now: datetime) -> None:
    """Mark a link as used, in the same transaction as its decision."""
    row = {"nonce": nonce, "decision_id": decision.id, "action": action, "by": decider, "used_at": now}
    if not insert_new(connection, decision_links, [row]):
        raise LinkReplayed("this link was already used", where=decision.id)


def _checked_edit(ledger: Ledger, policy: Policy, decision: Decision, value: Any) -> Any:
    if value is None:
        raise DataRefused(f"{decision.field} is required", where=decision.id)
    return check_value(policy.check(contract_of(ledger, decision.model, decision.version)), value)


def _check_limits(ledger: Ledger, policy: Policy, decision: Decision, edited: Any) -> None:
    base, words = prediction_of(ledger, decision), Wording.of(contract_of(ledger, decision.model, decision.version))
    against = policy.violation(base["inputs"], base["outputs"], edited, words)
    if against:
        value = display_value(decision.proposed if edited is None else edited, words.field(decision.field, "outputs"))
        what = f"{words.label(decision.field, 'outputs')} {value} violates the policy: {against}"
        raise DataRefused(what, where=f"{policy.where} allow")


def apply_deadlines(ledger: Ledger, policy: Policy, now: datetime) -> dict[str, int]:
    """Apply the policy to decisions whose deadline has passed; return how many expired, were approved or were rejected."""
    word = {"expire": "expired", "apply": "approved", "reject": "rejected"}[policy.options.at_deadline]
    reason = f"no decision within {policy.options.deadline}"
    late = and_(decisions.c.model == policy.model, decisions.c.status == "pending", decisions.c.deadline_at <= now)
    count = 0
    with ledger.write() as connection:
        lock_name(connection, f"decisions {policy.model}")
        rows = [Decision(**row._mapping) for row in connection.execute(select(decisions).where(late))]
        for decision in rows:
            values = {"status": word, "verdict": word, "by": "deadline", "decided_at": now, "reason": reason}
            mine = and_(decisions.c.id == decision.id, decisions.c.status == "pending")
            if connection.execute(update(decisions).where(mine).values(values)).rowcount:
                count += 1
                add_events(connection, [_event_row(decision.id, now, word, "deadline", "deadline", reason)])
                if word != "approved":
                    add_feedback(connection, decision, "ignored", now, "deadline", reason)
    return {word: count}
