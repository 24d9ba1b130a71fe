"""Notify deciders of pending decisions: one message per person, with personal links."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import and_, select, update

from d2c_mlops.decisions.decision_rows import Decision, contract_of
from d2c_mlops.decisions.html_pages import reason_text
from d2c_mlops.decisions.policy import Policy
from d2c_mlops.decisions.signed_links import action_links, link_secrets
from d2c_mlops.decisions.wording import FIELD_NAMES, Wording, display_value
from d2c_mlops.errors import D2CError
from d2c_mlops.ledger.schema import decisions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.schedule.notify import send_notification
from d2c_mlops.settings import Settings

MOST = 20  # decisions in one message
LogMessage = Callable[[str], None]


def notify_deciders(ledger: Ledger, policy: Policy, settings: Settings, now: datetime, print_line: LogMessage) -> int:
    """Notify deciders of new pending decisions; return their number. A failed notification is logged and retried next time."""
    if not policy.options.notify:
        return 0
    mine = and_(decisions.c.model == policy.model, decisions.c.status == "pending", decisions.c.notified_at.is_(None))
    query = (
        select(decisions).where(mine, decisions.c.deadline_at > now).order_by(decisions.c.proposed_at, decisions.c.id)
    )
    with ledger.read() as connection:
        waiting = [Decision(**row._mapping) for row in connection.execute(query.limit(MOST + 1))]
    if not waiting:
        return 0
    notified = waiting[:MOST]
    words = Wording.of(contract_of(ledger, policy.model))
    try:
        sent = [
            send_notification(
                channel,
                *notification_text(policy, settings, notified, by, len(waiting) > MOST, words),
                print_line,
                f"decisions about {policy.model}",
            )
            for by, channel in policy.options.notify.items()
        ]
    except D2CError as err:
        print_line(f"notification about {policy.model} failed: {err}")
        return 0
    if not any(sent):
        return 0
    with ledger.write() as connection:
        ids = decisions.c.id.in_([decision.id for decision in notified])
        connection.execute(update(decisions).where(ids).values(notified_at=now))
    return len(notified)


def notification_text(
    policy: Policy,
    settings: Settings,
    pending_decisions: Sequence[Decision],
    decider: str,
    has_more: bool,
    wording: Wording = FIELD_NAMES,
) -> tuple[str, str]:
    """Return the title and the text of the notification for a decider."""
    count = (
        f"{len(pending_decisions)} or more decisions"
        if has_more
        else f"{len(pending_decisions)} decision{'s' * (len(pending_decisions) != 1)}"
    )
    base, secrets = settings.decisions.url, link_secrets(settings)
    lines = []
    for decision in pending_decisions:
        value = display_value(decision.proposed, wording.field(decision.field, "outputs"))
        label = wording.label(decision.field, "outputs")
        lines.append(f"{decision.title}: {label} {value}, until {decision.deadline_at:%Y-%m-%d %H:%M}Z")
        lines.append(f"  {reason_text(decision, wording)}")
        if base and secrets:
            lines += [f"  {action}: {url}" for action, url in action_links(decision, decider, base, secrets[0]).items()]
        lines.append("")
    lines.append(
        f"All pending decisions: {base}" if base else f"All pending decisions: d2c decisions list {policy.model}"
    )
    return f"{count} about {policy.model}", "\n".join(lines)
