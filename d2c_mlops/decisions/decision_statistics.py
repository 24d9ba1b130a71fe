"""Statistics of decisions: time from prediction to action, share applied automatically, share overridden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from sqlalchemy import and_, func, select

from d2c_mlops import former_names

from ..ledger.schema import decisions
from ..ledger.store import Ledger
from .decision_rows import STATUSES

PEOPLE = ("approved", "edited", "rejected")


@dataclass(frozen=True)
class DecisionStats:
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


def decision_stats(ledger: Ledger, model: str, now: datetime, period: timedelta) -> DecisionStats:
    """Return the figures of the decisions that were proposed within a span until now."""
    since = now - period
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
    answer_seconds = [
        (m.decided_at - m.proposed_at).total_seconds()
        for m in moments
        if m.verdict in PEOPLE and m.by not in ("policy", "deadline")
    ]
    total = counts.total()
    return DecisionStats(
        model, since, total, verdicts["superseded"], {status: counts[status] for status in STATUSES},
        quantile(acted, 0.5), quantile(acted, 0.9), quantile(answer_seconds, 0.5),
        _share_or_none(verdicts["auto"], total - counts["pending"]),
        _share_or_none(people["edited"] + people["rejected"], people.total()),
        (now - oldest).total_seconds() if oldest is not None else None,
    )  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least this share of them does not exceed (Hyndman and Fan 1996, type 1)."""
    ordered = sorted(values)
    return ordered[ceil(share * len(ordered)) - 1] if ordered else None


def _share_or_none(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def metrics_text(model_stats: Sequence[DecisionStats]) -> bytes:
    """Return the figures in Prometheus's text format."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    metrics: dict[str, tuple[str, list[str]]] = {
        "d2c_decisions": ("Decisions proposed in the last 30 days", ["model", "status"]),
        "d2c_decision_seconds": ("Seconds from prediction to action", ["model", "quantile"]),
        "d2c_decision_answer_seconds": ("Median seconds from notification to decision", ["model"]),
        "d2c_decision_auto_share": ("Share of decisions applied automatically", ["model"]),
        "d2c_decision_overridden_share": ("Share of manual decisions that were edits or rejections", ["model"]),
        "d2c_decision_oldest_pending_seconds": ("Age in seconds of the oldest pending decision", ["model"]),
    }
    gauges = {name: Gauge(name, doc, labels, registry=registry) for name, (doc, labels) in metrics.items()}
    for figures in model_stats:
        for status, count in figures.statuses.items():
            gauges["d2c_decisions"].labels(figures.model, status).set(count)
        values = [
            ("d2c_decision_seconds", ("0.5",), figures.median_seconds),
            ("d2c_decision_seconds", ("0.9",), figures.p90_seconds),
            ("d2c_decision_answer_seconds", (), figures.median_decision_seconds),
            ("d2c_decision_auto_share", (), figures.share_auto),
            ("d2c_decision_overridden_share", (), figures.share_overridden),
            ("d2c_decision_oldest_pending_seconds", (), figures.oldest_pending_seconds or 0.0),
        ]
        for name, labels, value in values:
            if value is not None:
                gauges[name].labels(figures.model, *labels).set(value)
    return generate_latest(registry)


def __getattr__(name: str) -> Any:
    """Return a class or function of this module by its former name."""
    return former_names.renamed_class(__name__, name)
