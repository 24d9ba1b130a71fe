"""Statistics of decisions: time from prediction to action, share applied automatically, share overridden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from sqlalchemy import and_, func, select

from ..ledger.schema import decisions
from ..ledger.store import Ledger
from .records import STATUSES

PEOPLE = ("approved", "edited", "rejected")


@dataclass(frozen=True)
class Stats:
    """Statistics of a model's decisions since a moment. Times in seconds; shares are 0..1; None where there is no data."""

    model: str
    since: datetime
    decisions: int  # superseded ones are not counted
    superseded: int
    statuses: dict[str, int] = field(default_factory=dict)
    median_seconds: float | None = None  # from prediction to applied
    p90_seconds: float | None = None
    median_decision_seconds: float | None = None  # from asking a person to the answer
    share_auto: float | None = None  # of all that were decided
    share_overridden: float | None = None  # edited or rejected, of what people decided
    oldest_pending_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self) | {"since": self.since.isoformat()}


def stats(ledger: Ledger, model: str, now: datetime, span: timedelta) -> Stats:
    """Return the figures of the decisions that were proposed within a span until now."""
    since = now - span
    mine = and_(decisions.c.model == model, decisions.c.proposed_at >= since)
    d = decisions.c
    with ledger.read() as connection:
        grouped = connection.execute(
            select(d.status, d.verdict, d.by, func.count()).where(mine).group_by(d.status, d.verdict, d.by)
        ).all()
        moments = connection.execute(
            select(d.predicted_at, d.proposed_at, d.decided_at, d.applied_at, d.verdict, d.by).where(
                mine, d.dry_run.is_(False), d.decided_at.is_not(None), d.verdict != "superseded"
            )
        ).all()
        oldest = connection.execute(
            select(func.min(d.proposed_at, type_=d.proposed_at.type)).where(d.model == model, d.status == "pending")
        ).scalar()
    counts, verdicts, people = Counter[str](), Counter[str](), Counter[str]()
    for status, verdict, by, count in grouped:
        if verdict == "superseded":
            verdicts["superseded"] += count
            continue
        counts[status] += count
        verdicts[verdict or "pending"] += count
        if verdict in PEOPLE and by not in ("policy", "deadline"):
            people[verdict] += count
    acted = [(m.applied_at - m.predicted_at).total_seconds() for m in moments if m.applied_at]
    asked = [
        (m.decided_at - m.proposed_at).total_seconds()
        for m in moments
        if m.verdict in PEOPLE and m.by not in ("policy", "deadline")
    ]
    total = counts.total()
    return Stats(
        model, since, total, verdicts["superseded"], {each: counts[each] for each in STATUSES},
        quantile(acted, 0.5), quantile(acted, 0.9), quantile(asked, 0.5),
        _share(verdicts["auto"], total - counts["pending"]),
        _share(people["edited"] + people["rejected"], people.total()),
        (now - oldest).total_seconds() if oldest is not None else None,
    )  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least this share of them does not exceed (Hyndman and Fan 1996, type 1)."""
    ordered = sorted(values)
    return ordered[ceil(share * len(ordered)) - 1] if ordered else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def exposition(found: Sequence[Stats]) -> bytes:
    """Return the figures in Prometheus's text format."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    named: dict[str, tuple[str, list[str]]] = {
        "d2c_decisions": ("Decisions proposed in the last 30 days", ["model", "status"]),
        "d2c_decision_seconds": ("Seconds from prediction to action", ["model", "quantile"]),
        "d2c_decision_answer_seconds": ("Median seconds from notification to decision", ["model"]),
        "d2c_decision_auto_share": ("Share of decisions applied automatically", ["model"]),
        "d2c_decision_overridden_share": ("Share of manual decisions that were edits or rejections", ["model"]),
        "d2c_decision_oldest_pending_seconds": ("Age in seconds of the oldest pending decision", ["model"]),
    }
    gauges = {name: Gauge(name, doc, labels, registry=registry) for name, (doc, labels) in named.items()}
    for each in found:
        for status, count in each.statuses.items():
            gauges["d2c_decisions"].labels(each.model, status).set(count)
        values = [
            ("d2c_decision_seconds", ("0.5",), each.median_seconds),
            ("d2c_decision_seconds", ("0.9",), each.p90_seconds),
            ("d2c_decision_answer_seconds", (), each.median_decision_seconds),
            ("d2c_decision_auto_share", (), each.share_auto),
            ("d2c_decision_overridden_share", (), each.share_overridden),
            ("d2c_decision_oldest_pending_seconds", (), each.oldest_pending_seconds or 0.0),
        ]
        for name, labels, value in values:
            if value is not None:
                gauges[name].labels(each.model, *labels).set(value)
    return generate_latest(registry)
