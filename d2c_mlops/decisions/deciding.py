"""Create decisions from predictions, and decide them exactly once: by people, by the policy or at the deadline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, func, or_, select, update

from d2c_mlops.decisions.callers import Callers
from d2c_mlops.decisions.policy import Judged, Policy, checked
from d2c_mlops.decisions.records import Decision, alone, basis, contract_of, find, heard, id_of, note, subject_of
from d2c_mlops.decisions.words import Words, shown
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.ledger.schema import by_callers, decision_links, decisions, predictions
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.serving.batch.score import identity_of

CHUNK = 2000  # predictions that are looked at in one transaction
VERDICTS = {"approve": "approved", "reject": "rejected", "edit": "edited"}


class Closed(UsageError):
    """The decision is closed: already decided, or its deadline has passed."""


class NotAllowed(UsageError):
    """The person is not a decider of this model."""


class Replayed(UsageError):
    """A link is used a second time."""


@dataclass
class Proposed:
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


def propose(ledger: Ledger, policy: Policy, now: datetime, *, write: bool = True) -> Proposed:
    """Create a decision for every prediction that has none; safe when several processes run it at once.

    Of several predictions with the same subject the newest counts. Predictions of shadows and probes are ignored;
    those of callers that cause no decision are counted only. With `write` false nothing is stored.
    """
    told, after = Proposed(), ("", "")
    policy.check(contract_of(ledger, policy.model))
    callers = policy.callers(now)
    _count_others(ledger, policy, callers, told, now)
    while True:
        with ledger.write() as connection:
            alone(connection, f"decisions {policy.model}")
            rows = connection.execute(_undecided(policy, callers, now, after)).mappings().all()
            made = _made(ledger, connection, policy, rows, now)
            _keep(connection, made, told, now, write)
        if len(rows) < CHUNK or (write and not made):
            return told
        after = (rows[-1]["at"], rows[-1]["id"]) if not write else ("", "")


def _open(policy: Policy, now: datetime) -> Any:
    """Return the condition that a prediction is recent, was given to a caller and has no decision."""
    return and_(
        predictions.c.model == policy.model,
        predictions.c.variant != "shadow",
        by_callers(predictions),
        predictions.c.at > now - policy.max_age,
        decisions.c.id.is_(None),
    )


_WITH_DECISION = predictions.outerjoin(decisions, decisions.c.prediction_id == predictions.c.id)


def _count_others(ledger: Ledger, policy: Policy, callers: Callers, told: Proposed, now: datetime) -> None:
    """Count the predictions of callers that cause no decision."""
    caller = predictions.c.caller
    other = or_(caller.is_(None), caller.not_in(callers.permitted))
    query = select(caller, func.count()).select_from(_WITH_DECISION).where(_open(policy, now), other).group_by(caller)
    with ledger.read() as connection:
        counts = {id: count for id, count in connection.execute(query)}
    told.without_scope = sum(count for id, count in counts.items() if id in callers.names)
    told.without_key = sum(counts.values()) - told.without_scope
    told.keys, told.unknown = callers.shown([id for id in counts if id in callers.names]), callers.unknown


def _undecided(policy: Policy, callers: Callers, now: datetime, after: tuple[Any, str]) -> Any:
    mine = and_(_open(policy, now), predictions.c.caller.in_(callers.permitted))
    query = select(predictions).select_from(_WITH_DECISION).where(mine).order_by(predictions.c.at, predictions.c.id)
    if after[1]:
        at, id = predictions.c.at, predictions.c.id
        query = query.where((at > after[0]) | ((at == after[0]) & (id > after[1])))
    return query.limit(CHUNK)


def _made(
    ledger: Ledger, connection: Connection, policy: Policy, rows: Iterable[RowMapping], now: datetime
) -> list[dict[str, Any]]:
    """Return a decision for each prediction, and close the decisions that these supersede."""
    made: list[dict[str, Any]] = []
    contracts: dict[int, tuple[Contract, str]] = {}
    words: dict[int, Words] = {}
    for row in rows:
        if row["version"] not in contracts:
            contracts[row["version"]] = _fitting(policy, contract_of(ledger, policy.model, row["version"]))
            words[row["version"]] = Words.of(contracts[row["version"]][0])
        made.append(_one(policy, *contracts[row["version"]], words[row["version"]], row, now))
    last = {each["subject"]: each["id"] for each in made}
    newest = _newest(connection, policy.model, list(last))
    left = _allowance(connection, policy, now)
    for each in made:
        if (
            last[each["subject"]] != each["id"]
            or newest.get(each["subject"], each["predicted_at"]) > each["predicted_at"]
        ):
            each |= {"status": "expired", "verdict": "superseded", "reason": "superseded by a newer prediction"}
        elif each["status"] == "auto":
            if left == 0:
                each |= {
                    "status": "pending",
                    "reason": f"max_auto: at most {policy.said.max_auto} a day are applied automatically",
                }
            left -= left > 0
        decided = each["status"] != "pending"
        by = "policy" if decided else None
        each |= {"verdict": each["verdict"] or (each["status"] if decided else None), "by": by}
        each |= {"decided_at": now if decided else None}
    _supersede(connection, policy.model, [s for s, id in last.items() if _stands(made, id)], now)
    return made


def _stands(made: list[dict[str, Any]], id: str) -> bool:
    return any(each["id"] == id and each["verdict"] != "superseded" for each in made)


def _fitting(policy: Policy, contract: Contract) -> tuple[Contract, str]:
    """Return the contract of a version, and why the policy does not fit it (such as a former major version)."""
    try:
        policy.check(contract)
    except UsageError as err:
        return contract, f"contract {contract.version}: {err.what}"
    return contract, ""


def _one(
    policy: Policy, contract: Contract, unfit: str, words: Words, row: RowMapping, now: datetime
) -> dict[str, Any]:
    inputs, outputs = row["inputs"], row["outputs"]
    value = outputs.get(policy.said.field)
    unfit = unfit or (f"the prediction has no {policy.said.field}" if value is None else "")
    judged = Judged("rejected", unfit) if unfit else policy.judge(inputs, outputs, words)
    return {
        "id": id_of(row["id"]), "prediction_id": row["id"], "model": policy.model, "version": row["version"],
        "key": row["key"], "subject": subject_of(identity_of(contract), inputs, outputs), "field": policy.said.field,
        "proposed": value, "status": judged.status, "verdict": None, "reason": judged.reason, "by": None,
        "predicted_at": row["at"], "proposed_at": now, "deadline_at": now + policy.deadline, "decided_at": None,
        "dry_run": policy.said.dry_run, "policy": policy.snapshot(), "attempts": 0,
    }  # fmt: skip


def _newest(connection: Connection, model: str, subjects: list[str]) -> dict[str, datetime]:
    query = (
        select(decisions.c.subject, func.max(decisions.c.predicted_at, type_=decisions.c.predicted_at.type))
        .where(decisions.c.model == model, decisions.c.subject.in_(subjects))
        .group_by(decisions.c.subject)
    )
    return {subject: at for subject, at in connection.execute(query)}


def _allowance(connection: Connection, policy: Policy, now: datetime) -> int:
    """Return how many decisions may still be applied automatically today; -1 for no limit."""
    if not policy.said.max_auto:
        return -1
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    mine = and_(decisions.c.model == policy.model, decisions.c.verdict == "auto", decisions.c.decided_at >= day)
    made = connection.execute(select(func.count()).select_from(decisions).where(mine)).scalar() or 0
    return max(0, policy.said.max_auto - int(made))


def _supersede(connection: Connection, model: str, subjects: list[str], now: datetime) -> None:
    """Close pending decisions that a newer prediction replaces."""
    mine = and_(decisions.c.model == model, decisions.c.status == "pending", decisions.c.subject.in_(subjects))
    reason = "superseded by a newer prediction"
    values = {"status": "expired", "verdict": "superseded", "by": "policy", "decided_at": now, "reason": reason}
    closed = connection.execute(update(decisions).where(mine).values(values).returning(decisions.c.id)).scalars()
    note(connection, [_event(id, now, "expired", "policy", "policy", reason) for id in closed])


def _keep(connection: Connection, made: list[dict[str, Any]], told: Proposed, now: datetime, write: bool) -> None:
    added = {key[0] for key in insert_new(connection, decisions, made)} if made else set()
    new = [each for each in made if each["id"] in added]
    note(connection, [_event(e["id"], now, e["status"], e["by"], "policy", e["reason"]) for e in new])
    for each in new:
        told.predictions += 1
        name = "superseded" if each["verdict"] == "superseded" else each["status"]
        setattr(told, name, getattr(told, name) + 1)
    if not write:
        connection.rollback()


def _event(id: str, at: datetime, status: str, by: str | None, how: str, reason: str) -> dict[str, Any]:
    return {"decision_id": id, "at": at, "status": status, "by": by, "how": how, "reason": reason}


def decide(
    ledger: Ledger,
    policy: Policy,
    id: str,
    action: str,  # approve, reject or edit
    *,
    by: str,
    now: datetime,
    value: Any = None,  # what is applied instead, for edit
    reason: str = "",
    how: str = "cli",
    nonce: str = "",  # of a link, which is used up by this
) -> tuple[Decision, bool]:
    """Approve, reject or edit a decision; return it and whether it changed (a repetition by the same person changes nothing).

    Raises NotAllowed, Closed, Replayed, or DataRefused where a value breaks the contract or the policy's limits.
    """
    if action not in VERDICTS:
        raise UsageError(f"{action!r} is not one of {', '.join(VERDICTS)}")
    found = find(ledger, id)
    if not policy.may_decide(by):
        may = ", ".join(policy.said.deciders)
        raise NotAllowed(f"{by} is not a decider for {policy.model}", where=f"{policy.where} deciders", next=may)
    edited = _edited(ledger, policy, found, value) if action == "edit" else None
    if action == "edit" and not reason:
        raise DataRefused("an edited value needs a reason", next="give a reason: the model's owner reads it")
    if action != "reject" and nonce == "" and _same(found, action, edited, by):
        return found, False
    if action != "reject":
        _permit(ledger, policy, found, edited)
    with ledger.write() as connection:
        alone(connection, f"decision {found.id}")
        if nonce:
            _use(connection, found, action, by, nonce, now)
        verdict = VERDICTS[action]
        values = {
            "status": verdict,
            "verdict": verdict,
            "by": by,
            "decided_at": now,
            "reason": reason,
            "edited": edited,
        }
        open_ = and_(decisions.c.id == found.id, decisions.c.status == "pending", decisions.c.deadline_at > now)
        changed = connection.execute(update(decisions).where(open_).values(values)).rowcount
        if changed:
            note(connection, [_event(found.id, now, verdict, by, how, reason)])
            if verdict == "rejected":
                heard(connection, found, "overridden", now, by, reason or "rejected")
    again = find(ledger, found.id)
    if changed or (not nonce and _same(again, action, edited, by)):
        return again, bool(changed)
    raise closed(again)


def _same(found: Decision, action: str, edited: Any, by: str) -> bool:
    return found.verdict == VERDICTS[action] and found.by == by and found.edited == edited


def closed(found: Decision) -> Closed:
    """Return the error for a closed decision."""
    if found.status == "pending":
        return Closed(f"the deadline of {found.title} passed at {found.deadline_at:%Y-%m-%d %H:%M}Z", where=found.id)
    who = f" by {found.by}" if found.by else ""
    when = f" at {found.decided_at:%Y-%m-%d %H:%M}Z" if found.decided_at else ""
    return Closed(f"already decided: {found.verdict}{who}{when}", where=found.id)


def _use(connection: Connection, found: Decision, action: str, by: str, nonce: str, now: datetime) -> None:
    """Mark a link as used, in the same transaction as its decision."""
    row = {"nonce": nonce, "decision_id": found.id, "action": action, "by": by, "used_at": now}
    if not insert_new(connection, decision_links, [row]):
        raise Replayed("this link was already used", where=found.id)


def _edited(ledger: Ledger, policy: Policy, found: Decision, value: Any) -> Any:
    if value is None:
        raise DataRefused(f"{found.field} is required", where=found.id)
    return checked(policy.check(contract_of(ledger, found.model, found.version)), value)


def _permit(ledger: Ledger, policy: Policy, found: Decision, edited: Any) -> None:
    base, words = basis(ledger, found), Words.of(contract_of(ledger, found.model, found.version))
    against = policy.against(base["inputs"], base["outputs"], edited, words)
    if against:
        value = shown(found.proposed if edited is None else edited, words.field(found.field, "outputs"))
        what = f"{words.label(found.field, 'outputs')} {value} violates the policy: {against}"
        raise DataRefused(what, where=f"{policy.where} allow")


def settle(ledger: Ledger, policy: Policy, now: datetime) -> dict[str, int]:
    """Apply the policy to decisions whose deadline has passed; return how many expired, were approved or were rejected."""
    word = {"expire": "expired", "apply": "approved", "reject": "rejected"}[policy.said.at_deadline]
    reason = f"no decision within {policy.said.deadline}"
    late = and_(decisions.c.model == policy.model, decisions.c.status == "pending", decisions.c.deadline_at <= now)
    count = 0
    with ledger.write() as connection:
        alone(connection, f"decisions {policy.model}")
        rows = [Decision(**row._mapping) for row in connection.execute(select(decisions).where(late))]
        for each in rows:
            values = {"status": word, "verdict": word, "by": "deadline", "decided_at": now, "reason": reason}
            mine = and_(decisions.c.id == each.id, decisions.c.status == "pending")
            if connection.execute(update(decisions).where(mine).values(values)).rowcount:
                count += 1
                note(connection, [_event(each.id, now, word, "deadline", "deadline", reason)])
                if word != "approved":
                    heard(connection, each, "ignored", now, "deadline", reason)
    return {word: count}
