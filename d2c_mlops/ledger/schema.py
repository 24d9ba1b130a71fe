"""The ledger's tables, in SQLAlchemy Core."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = MetaData()


class Moment(TypeDecorator[datetime]):
    """A point in time: timezone-aware UTC in Python, for every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a time without a time zone: {value}")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return moment


class Scalar(TypeDecorator[Any]):
    """A JSON value as text, because SQLite would return 20.0 from a numeric column as 20."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return json.dumps(value, ensure_ascii=False) if value is not None else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return json.loads(value) if value is not None else None


runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("runbook", String(200), nullable=False),
    Column("model", String(64)),
    Column("notebook", Text, nullable=False),
    Column("notebook_sha256", String(64), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("package_version", String(64), nullable=False),
    Column("git_commit", String(64)),
    Column("inputs", JSON, nullable=False),
    Column("seed", Integer),
    Column("status", String(16), nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("cpu_seconds", Float),
    Column("peak_memory_bytes", Float),
    Column("outputs", JSON, nullable=False),
    Column("recorded", JSON, nullable=False),
    Column("error", JSON),
    Column("exit_code", Integer),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Float, nullable=False),
    Column("job", String(64)),
    Column("slot", Moment),
    Column("attempt", Integer),
    Column("cost", Float),
    Column("failure", String(24)),
    Column("environment", JSON),
    Column("started_by", String(255)),
    Column("notes", JSON),
    Index("runs_by_start", "started_at"),
    Index("runs_by_status", "status"),
    Index("runs_by_job", "job", "slot", "attempt", unique=True),
    Index("runs_by_model", "model", "started_at"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("since", Moment, nullable=False),
    Column("paused", Boolean, nullable=False),
)

slots = Table(
    "slots",
    metadata,
    Column("job", String(64), primary_key=True),
    Column("slot", Moment, primary_key=True),
    Column("status", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("run_id", String(64)),
    Column("host", String(255)),
    Column("pid", Integer),
    Column("pid_started", Float),
    Column("heartbeat_at", Moment),
    Column("changed_at", Moment, nullable=False),
    Column("parallel", Integer),
    Index("slots_by_status", "status", "not_before"),
)

slot_events = Table(
    "slot_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job", String(64), nullable=False),
    Column("slot", Moment, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("run_id", String(64)),
    Column("host", String(255)),
    Column("pid", Integer),
    Index("slot_events_by_slot", "job", "slot", "id"),
)

versions = Table(
    "versions",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("created_at", Moment, nullable=False),
    Column("run_id", String(64)),
    Column("model_class", Text, nullable=False),
    Column("params", JSON, nullable=False),
    Column("contract", JSON, nullable=False),
    Column("charter", JSON, nullable=False),
    Column("evaluation", JSON, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("as_of", String(10), nullable=False),
    Column("package_version", String(64), nullable=False),
    Column("artifact_uri", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("previous", Integer),
    Column("action", String(16), nullable=False),
    Column("at", Moment, nullable=False),
    Column("by", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("gate", JSON, nullable=False),
    Index("promotions_by_model", "model", "id"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("event", String(64), nullable=False, unique=True),
    Column("model", String(64), nullable=False),
    Column("at", Moment, nullable=False),
    Column("by", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("mode", String(16), nullable=False),
    Column("share", Float, nullable=False),
    Column("champion", Integer, nullable=False),
    Column("challenger", Integer),
    Column("salt", String(64), nullable=False),
    Column("stage", String(64), nullable=False),
    Column("evidence", JSON, nullable=False),
    Index("rollouts_by_model", "model", "id"),
    Index("rollouts_by_stage", "stage"),
)

predictions = Table(
    "predictions",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("contract", String(32), nullable=False),
    Column("variant", String(16), nullable=False),
    Column("key", String(200)),
    Column("at", Moment, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("outputs", JSON, nullable=False),
    Column("reasons", JSON),
    Column("caller", String(64)),
    Column("request_id", String(64)),
    Column("origin", String(16)),
    Index("predictions_by_key", "model", "key", "at"),
    Index("predictions_by_time", "model", "at"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("prediction_id", String(80)),
    Column("key", String(200)),
    Column("at", Moment, nullable=False),
    Column("action", String(16), nullable=False),
    Column("reason", Text),
    Column("value", JSON),
    Column("caller", String(64)),
    Column("origin", String(16)),
    Index("feedback_by_prediction", "prediction_id"),
    Index("feedback_by_key", "model", "key", "at"),
)

BATCH = "batch"  # caller of what `d2c score … ledger:` answered; ids of API keys are hexadecimal
PROBE = "probe"  # origin of what was asked with made-up keys: by checks, load tests and monitors


def by_callers(table: Table) -> ColumnElement[bool]:
    """Return the condition that rows of predictions or feedback are not from probes; older rows have no origin."""
    return table.c.origin.is_distinct_from(PROBE)


decisions = Table(
    "decisions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("prediction_id", String(80), nullable=False, unique=True),
    Column("model", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("key", String(200)),
    Column("subject", String(500), nullable=False),
    Column("field", String(64), nullable=False),
    Column("proposed", Scalar),
    Column("edited", Scalar),
    Column("status", String(16), nullable=False),
    Column("verdict", String(16)),
    Column("reason", Text, nullable=False),
    Column("by", String(255)),
    Column("predicted_at", Moment, nullable=False),
    Column("proposed_at", Moment, nullable=False),
    Column("deadline_at", Moment, nullable=False),
    Column("notified_at", Moment),
    Column("decided_at", Moment),
    Column("applied_at", Moment),
    Column("dry_run", Boolean, nullable=False),
    Column("policy", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Moment),
    Column("claimed_until", Moment),
    Column("error", Text),
    Index("decisions_by_status", "model", "status", "deadline_at"),
    Index("decisions_by_subject", "model", "subject", "predicted_at"),
    Index("decisions_by_verdict", "model", "verdict", "decided_at"),
)

decision_events = Table(
    "decision_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("decision_id", String(32), nullable=False),
    Column("at", Moment, nullable=False),
    Column("status", String(16), nullable=False),
    Column("by", String(255)),
    Column("how", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Index("decision_events_by_decision", "decision_id", "id"),
)

decision_links = Table(
    "decision_links",
    metadata,
    Column("nonce", String(64), primary_key=True),
    Column("decision_id", String(32), nullable=False),
    Column("action", String(16), nullable=False),
    Column("by", String(255), nullable=False),
    Column("used_at", Moment, nullable=False),
)

acknowledged_changes = Table(
    "acknowledged_changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("column", String(200), nullable=False),
    Column("day", String(10), nullable=False),
    Column("at", Moment, nullable=False),
    Column("by", String(255), nullable=False),
    Column("note", Text, nullable=False),
    Index("acknowledged_changes_by_model", "model", "id"),
)

daily_sketches = Table(
    "daily_sketches",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("zone", String(64), nullable=False),
    Column("summed", String(64), nullable=False),
    Column("sketches", JSON, nullable=False),
)

forgettings = Table(
    "forgettings",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("request", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("at", Moment, nullable=False),
    Column("by", String(255), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("mode", String(16), nullable=False),
    Column("places", JSON, nullable=False),
    Column("datasets", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("not_reached", JSON, nullable=False),
    Index("forgettings_by_subject", "subject", "id"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key", String(255), nullable=False),
    Column("open_key", String(255), unique=True),  # the key while it is open: an incident has one open alert
    Column("status", String(16), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("announced", String(16), nullable=False),
    Column("models", JSON, nullable=False),
    Column("signals", JSON, nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("closed_at", Moment),
    Column("acknowledged_at", Moment),
    Column("acknowledged_by", String(255), nullable=False),
    Column("snoozed_until", Moment),
    Column("escalated_at", Moment),
    Column("reopened_at", Moment),
    Column("reopenings", Integer, nullable=False),
    Index("alerts_by_status", "status", "closed_at"),
)

alert_events = Table(
    "alert_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("alert_id", String(32), nullable=False),
    Column("at", Moment, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("by", String(255), nullable=False),
    Column("note", Text, nullable=False),
    Index("alert_events_by_alert", "alert_id", "id"),
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("alerts", JSON, nullable=False),
    Column("place", String(100), nullable=False),  # of the channel in settings.ini; its URL may hold a password
    Column("channel", String(16), nullable=False),  # digest of the URL
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("status", String(16), nullable=False),  # pending, sent, combined or failed
    Column("created_at", Moment, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("digest", Boolean, nullable=False),  # it waits for the quiet hours or the digest, where others join it
    Column("digest_id", String(32)),  # the message that it was combined into
    Column("attempts", Integer, nullable=False),
    Column("sent_at", Moment),
    Column("error", Text),
    Index("alert_deliveries_by_status", "status", "not_before"),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("part", String(80), primary_key=True),  # scheduler, or monitor:MODEL
    Column("at", Moment, nullable=False),
    Column("ok", Boolean, nullable=False),
    Column("note", Text, nullable=False),
)

retrainings = Table(
    "retrainings",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("open_key", String(64), unique=True),  # the model while it is open: a model has one open retraining
    Column("kind", String(32), nullable=False),
    Column("cause", String(400), nullable=False),
    Column("reason", Text, nullable=False),
    Column("by", String(255), nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("state", String(16), nullable=False),  # training, releasing or finished
    Column("run_id", String(64)),
    Column("version", Integer),
    Column("result", String(16)),  # promoted, refused, aborted, unchanged, superseded or failed
    Column("detail", Text, nullable=False),
    Column("finished_at", Moment),
    Column("attempt", Integer, nullable=False),  # how often a process took it on; writes name it
    Column("host", String(255)),  # of the process that works on it
    Column("pid", Integer),
    Column("pid_started", Float),
    Column("lease_until", Moment),
    Index("retrainings_by_model", "model", "opened_at"),
)

retraining_events = Table(
    "retraining_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("retraining_id", String(32), nullable=False),
    Column("at", Moment, nullable=False),
    Column("state", String(16), nullable=False),
    Column("note", Text, nullable=False),
    Index("retraining_events_by_retraining", "retraining_id", "id"),
)
