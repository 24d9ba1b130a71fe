"""Notify deciders of pending decisions: one message per person, with personal links."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import and_, select, update

from d2c_mlops.decisions.links import keys, links_of
from d2c_mlops.decisions.pages import reason_of
from d2c_mlops.decisions.policy import Policy
from d2c_mlops.decisions.records import Decision, contract_of
from d2c_mlops.decisions.words import NAMES, Words, shown
from d2c_mlops.errors import D2CError
from d2c_mlops.ledger.schema import decisions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.schedule.notify import send
from d2c_mlops.settings import Settings

MOST = 20  # decisions in one message
Say = Callable[[str], None]


def tell(ledger: Ledger, policy: Policy, settings: Settings, now: datetime, say: Say) -> int:
    """Notify deciders of new pending decisions; return their number. A failed notification is logged and retried next time."""
    if not policy.said.notify:
        return 0
    mine = and_(decisions.c.model == policy.model, decisions.c.status == "pending", decisions.c.notified_at.is_(None))
    query = (
        select(decisions).where(mine, decisions.c.deadline_at > now).order_by(decisions.c.proposed_at, decisions.c.id)
    )
    with ledger.read() as connection:
        waiting = [Decision(**row._mapping) for row in connection.execute(query.limit(MOST + 1))]
    if not waiting:
        return 0
    told = waiting[:MOST]
    words = Words.of(contract_of(ledger, policy.model))
    try:
        sent = [
            send(
                channel,
                *message(policy, settings, told, by, len(waiting) > MOST, words),
                say,
                f"decisions about {policy.model}",
            )
            for by, channel in policy.said.notify.items()
        ]
    except D2CError as err:
        say(f"notification about {policy.model} failed: {err}")
        return 0
    if not any(sent):
        return 0
    with ledger.write() as connection:
        ids = decisions.c.id.in_([each.id for each in told])
        connection.execute(update(decisions).where(ids).values(notified_at=now))
    return len(told)


def message(
    policy: Policy, settings: Settings, waiting: Sequence[Decision], by: str, more: bool, words: Words = NAMES
) -> tuple[str, str]:
    """Return the title and the text of the notification for a decider."""
    count = f"{len(waiting)} or more decisions" if more else f"{len(waiting)} decision{'s' * (len(waiting) != 1)}"
    base, known = settings.decisions.url, keys(settings)
    lines = []
    for each in waiting:
        value = shown(each.proposed, words.field(each.field, "outputs"))
        label = words.label(each.field, "outputs")
        lines.append(f"{each.title}: {label} {value}, until {each.deadline_at:%Y-%m-%d %H:%M}Z")
        lines.append(f"  {reason_of(each, words)}")
        if base and known:
            lines += [f"  {action}: {url}" for action, url in links_of(each, by, base, known[0]).items()]
        lines.append("")
    lines.append(
        f"All pending decisions: {base}" if base else f"All pending decisions: d2c decisions list {policy.model}"
    )
    return f"{count} about {policy.model}", "\n".join(lines)
