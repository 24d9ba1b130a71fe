"""All settings, with a default and a one-line description; frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from d2c_mlops.settings.parsing import convert_options


def option(default: Any, doc: str) -> Any:
    """Declare a setting with its default (or default factory) and a one-line description."""
    if callable(default):
        return field(default_factory=default, metadata={"doc": doc})
    return field(default=default, metadata={"doc": doc})


def _empty_mapping() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class ModelSettings:
    """A [model:NAME] section: the settings of a model."""

    name: str
    model: str = option("", "name of the contract of the model's class; default: the section's name")
    data: str = option("", "training dataset, as named in `d2c ingest … --as`")
    service_port: int = option(3000, "port that `d2c serve` listens on")
    params: Mapping[str, str] = option(_empty_mapping, "params.NAME: keyword arguments of the model's class")
    charter: Mapping[str, str] = option(_empty_mapping, "charter.NAME: answers to the charter's questions")
    rollout: Mapping[str, str] = option(_empty_mapping, "rollout.NAME: limits of its rollouts; override [rollout]")
    notify: tuple[str, ...] = option((), "apprise URLs for its alerts, or secret:NAME; default: [alerts] notify")
    cycle: str = option(
        "",
        "cadence of the whole cycle of the model, such as weekly on Monday 05:00; it stands for the jobs NAME.source, NAME.train, NAME.promote, NAME.score, NAME.collect and NAME.monitor",
    )
    cycle_steps: tuple[str, ...] = option((), "steps of the cycle; default: all that apply but package")
    sink: str = option("", "sink of the step score, such as forecasts/{as_of}.parquet; default: ledger:")
    release: str = option(
        "champion",
        "what a version that passes the gate becomes: champion, shadow, or challenger of a share such as 10%",
    )
    release_after: str = option(
        "7d", "time in shadow mode or at its share, such as 7d, after which a challenger becomes champion"
    )
    retrain: str = option(
        "",
        "when it is retrained: never, weekly, monthly, every 28 days, on drift, on new data 20%, on expected loss, several joined by or, or default: as usual for its kind; empty: never by itself, except by the step train of a cycle",
    )
    retrain_after: str = option(
        "2d", "least time between the starts of two trainings by `retrain`, such as 2d or 2 days"
    )
    monitor: Mapping[str, str] = option(_empty_mapping, "monitor.NAME: thresholds of its metrics; override [monitor]")
    sunset: Mapping[str, str] = option(
        _empty_mapping,
        "sunset.MAJOR: last day (UTC) of a major version of the contract; overrides [service] keep_majors",
    )

    @property
    def contract(self) -> str:
        """The name of the contract of the model's class."""
        return self.model or self.name


@dataclass(frozen=True)
class DataSettings:
    """A [data:NAME] section: the settings of a dataset."""

    name: str
    zone: str = option("", "time zone in which its days are counted; default: [d2c] zone")
    source: str = option("", "what the step source of a cycle ingests: a folder, a file, a database URL or secret:NAME")
    layout: str = option("", "layout of that source; default: detected from its columns")
    column: str = option(
        "", "column of a database's tables with the creation time of a row; default: all rows are read"
    )
    planned: str = option("", "columns of a file of sales that are known ahead, separated by commas, as in promo,open")
    quality_warn: str = option(
        "",
        "score (0..1) from which a finding of data quality warns, for single tables too, as in 0.2, customers 0.4; default: [d2c] quality_warn",
    )
    quality_refuse: str = option(
        "", "score from which a finding refuses the data, for single tables too, as in 0.8, order_lines 0.9; or never"
    )
    quality_ignore: str = option("", "checks, faults or TABLE.CHECK that are accepted, separated by commas")
    quarantine: str = option("", "TABLE.CHECK whose rows are moved into quarantine at each ingest, separated by commas")


@dataclass(frozen=True)
class JobSettings:
    """A [schedule:NAME] section: a scheduled job."""

    name: str
    run: str = option("", "runbook, or path of a notebook")
    at: str = option(
        "",
        "a cron expression or a plain cadence such as `weekly on Monday 06:00`; a month without the date has no slot",
    )
    zone: str = option("UTC", "time zone of the schedule")
    params: Mapping[str, str] = option(
        _empty_mapping,
        "params.NAME: parameters; {slot:%Y-%m-%d}, {as_of}, {previous_success}, {slot_key} and {job} are replaced",
    )
    as_of_offset: int = option(
        0, "days added to as_of, the last complete day before a slot: -1 if data arrive a day late"
    )
    timeout: float = option(3600.0, "seconds after which a run is stopped")
    retries: int = option(2, "number of retries after a temporary failure")
    backoff: float = option(60.0, "seconds before the first retry, doubled for each further retry")
    missed: str = option(
        "once", "policy for slots missed while no scheduler was running: skip, once (run the latest) or all"
    )
    on: tuple[str, ...] = option((), "jobs whose new data start this job, with or without a cadence")
    after: tuple[str, ...] = option((), "jobs whose latest slot must have succeeded first")
    after_end: tuple[str, ...] = option(
        (), "jobs whose latest slot must have ended first, whether it succeeded or failed"
    )
    priority: int = option(0, "of jobs that are due at the same time, the higher priority starts first")
    concurrency: int = option(1, "maximum number of slots of this job that run in parallel")
    memory: str = option("", "resident memory at which a run is stopped, such as 2GB; default: [d2c] run_memory")
    cpus: int = option(0, "CPUs that a run may use; 0: [d2c] run_cpus")
    notify: tuple[str, ...] = option((), "apprise URLs to notify, such as mailto://… or secret:NAME")
    notify_on: tuple[str, ...] = option(("failed",), "events to notify about: failed, succeeded, retry, skipped")
    max_cost: float = option(0.0, "cost at which a run is stopped, by [d2c] cpu_hour_price; 0: no limit")

    @property
    def preceding(self) -> tuple[str, ...]:
        """The jobs that it waits for in a slot."""
        return tuple(dict.fromkeys((*self.after, *self.after_end)))


@dataclass(frozen=True)
class PolicySettings:
    """A [decisions:NAME] section: the policy for decisions about a model's predictions."""

    name: str
    field: str = option("", "output field that is the value of the decision, such as price")
    auto: str = option("", "rule over inputs and outputs for automatic approval; empty: always ask")
    allow: str = option("", "rule that must hold for every applied decision; empty: no rule")
    deadline: str = option("24h", "how long a decision waits for approval, such as 24h, 30m or 7d")
    at_deadline: str = option("expire", "action at the deadline: expire, apply or reject")
    max_age: str = option("7d", "maximum age of a prediction, or of a decision that is not yet applied")
    max_auto: int = option(0, "maximum number of automatic decisions per day (UTC); 0: no limit")
    keys: tuple[str, ...] = option(
        (),
        "API keys, by name or id, whose predictions become decisions, in addition to batches and keys with the scope decide",
    )
    allow_new: bool = option(False, "whether a missing row is added to the target table without approval")
    deciders: tuple[str, ...] = option((), "approvers: names of API keys and of people; empty: everybody")
    notify: Mapping[str, str] = option(
        _empty_mapping, "notify.NAME: apprise URL of an approver, who gets personal links"
    )
    apply: str = option("", "target of decisions: a web hook, URL::TABLE, or secret:NAME with one of them; empty: none")
    sign: str = option("", "secret:NAME that signs calls of the web hook; empty: not signed")
    tries: int = option(10, "attempts to apply while the target system is unavailable, before it is a dead letter")
    dry_run: bool = option(False, "dry run: decisions are recorded but not applied")


@dataclass(frozen=True)
class DecisionsSettings:
    """The [decisions] section: the page and links for approvals."""

    url: str = option("", "public address of `d2c decisions serve`, for links in messages")
    links: tuple[str, ...] = option(
        (), "secret:NAME that signs links; additional ones are former secrets, still accepted"
    )
    port: int = option(3100, "port that `d2c decisions serve` listens on")
    every: float = option(30.0, "seconds between two checks of logs and deadlines while it serves")


@dataclass(frozen=True)
class RolloutSettings:
    """The [rollout] section: limits at which a rollout ends automatically."""

    min_answers: int = option(200, "minimum number of the challenger's predictions for judging errors and latency")
    max_errors: float = option(0.01, "maximum share of the challenger's predictions that fail, 0..1")
    max_slowdown: float = option(2.0, "maximum p95 latency of the challenger, as a multiple of the champion's")
    slow_ms: float = option(10.0, "latency in milliseconds up to which a prediction never counts as slow")
    min_feedback: int = option(50, "minimum number of feedback records per version for judging adoption")
    max_followed_drop: float = option(
        0.1, "maximum difference by which the share of followed predictions may be below the champion's, 0..1"
    )
    min_followed: float = option(
        0.0, "minimum share of the challenger's predictions that are followed, 0..1; 0: no limit"
    )


@dataclass(frozen=True)
class AlertSettings:
    """The [alerts] section: who is told about alerts, when, and the heartbeats that outside monitors watch."""

    notify: tuple[str, ...] = option((), "apprise URLs for alerts, such as mailto://… or secret:NAME")
    notify_critical: tuple[str, ...] = option((), "further apprise URLs for critical and for escalated alerts")
    zone: str = option("", "time zone of quiet hours and digest; default: [d2c] zone, else UTC")
    quiet: str = option("", "hours in which only critical messages are sent, such as 22:00-07:00; empty: none")
    digest: str = option("08:00", "time of day for the digest of alerts of severity info")
    healthy_looks: int = option(2, "healthy looks in succession until an alert closes; doubled for each reopening")
    healthy_for: str = option("1h", "minimum time without a breach until an alert closes, such as 30m, 1h or 2d")
    reopen_within: str = option("24h", "a breach this soon after an alert closed reopens it instead of opening another")
    escalate_after: str = option(
        "4h", "time without an acknowledgement after which an alert is escalated to notify_critical; 0h: never"
    )
    give_up: str = option("7d", "time after which a message that no channel accepts is given up")
    textfiles: str = option(
        "", "folder for heartbeats as Prometheus text files, read by node_exporter; default: `metrics` in the store"
    )
    heartbeat: Mapping[str, str] = option(
        _empty_mapping,
        "heartbeat.NAME: URL, or secret:NAME, that is called at each heartbeat of the part scheduler or monitor, and URL/fail after a failure",
    )


@dataclass(frozen=True)
class MonitorSettings:
    """The [monitor] section: thresholds of the metrics of live models; [model:NAME] monitor.NAME overrides one."""

    error: float = option(1.25, "maximum error on live answers, as a multiple of that at promotion")
    score: float = option(0.8, "minimum score on live answers, as a multiple of that at promotion; an accuracy itself")
    false_alarms: float = option(0.05, "share of healthy shops that may get a drift alarm in a year, 0..1")
    latency_ms: float = option(500.0, "maximum p95 latency of requests in milliseconds")
    throughput_drop: float = option(0.2, "maximum drop of predictions below the same hours of earlier weeks, 0..1")
    cost_over: float = option(0.15, "share by which a month may cost more than the charter's budget")
    importance: float = option(0.25, "maximum population stability index of the first reasons of answers")
    confidence: float = option(0.7, "minimum share of outcomes inside the 80 % interval, 0..1")
    days: int = option(28, "days of answers that are judged")
    prometheus: str = option("", "address of the Prometheus server with the services' metrics, for latency")


@dataclass(frozen=True)
class ServiceSettings:
    """The [service] section, D2C_SERVICE_… in a container: access, limits and logs of services."""

    mode: str = option("development", "development or production; production does not start without API keys")
    state: str = option("", "folder for the prediction log and saved responses; default: `serving/MODEL` in the store")
    keys: str = option("", "file with the hashes of API keys; default: `serving/keys.json` in the store")
    rollout: str = option("", "file with the state of the rollout, {model} is replaced; default: in the state folder")
    keep_majors: int = option(
        90, "days that a major version of a contract stays available after a new major version became champion"
    )
    hosts: tuple[str, ...] = option(
        (),
        "host names accepted in development mode, in addition to localhost, IP addresses and the machine's name",
    )
    kept_bytes: int = option(2**30, "maximum bytes of all responses saved under their Idempotency-Key")
    kept_key_bytes: int = option(2**28, "maximum bytes of the saved responses of one API key")
    workers: int = option(1, "worker processes")
    max_body: int = option(32 * 2**20, "maximum request body in bytes, decompressed")
    max_records: int = option(10_000, "maximum number of records in one JSON request; NDJSON streams have no limit")
    max_seconds: float = option(30.0, "timeout of a request in seconds")
    read_seconds: float = option(
        10.0, "timeout in seconds for receiving a body, or for the next bytes of a stream in either direction"
    )
    max_concurrency: int = option(256, "maximum concurrent requests per worker; others get 503 with Retry-After")
    drain_seconds: float = option(0.0, "seconds that a stopping service keeps serving while /readyz returns 503")
    log: bool = option(True, "whether predictions are logged")
    log_sample: float = option(1.0, "share of the requests whose predictions are logged, 0..1")
    log_secret: str = option("", "secret for hashing personal fields; without it they are removed")
    access_log: str = option("failed", "requests to log: all, failed or none")
    traces: str = option("", "OTLP/HTTP address for OpenTelemetry traces; empty: none")

    def environment(self) -> dict[str, str]:
        """Return the D2C_SERVICE_… variables that pass these settings to a service."""
        values = {name: getattr(self, name) for name in SERVICE_OPTIONS}
        return {
            f"{SERVICE}{name.upper()}": " ".join(value) if isinstance(value, tuple) else str(value)
            for name, value in values.items()
        }


@dataclass(frozen=True)
class Settings:
    """All settings of stores and models, from settings.ini, the environment and the command line."""

    root: Path = option(Path, "folder of settings.ini; base of relative paths")
    store: Path = option(lambda: Path("d2c_store"), "folder for tables, runs, models, Bentos and reports")
    ledger_url: str = option("", "SQLAlchemy URL of the ledger; default: SQLite in the store")
    tracking_uri: str = option("", "MLflow tracking server or database; default: SQLite in the store")
    packages: tuple[str, ...] = option((), "packages in which models are discovered, in addition to d2c_mlops.models")
    run_timeout: float = option(3600.0, "seconds after which a run is stopped")
    lock_wait: float = option(10.0, "seconds to wait for a locked database or dataset before giving up")
    run_slots: int = option(2, "maximum number of parallel runs of one scheduler")
    run_memory: str = option("", "resident memory at which a run is stopped, such as 2GB; empty: no limit")
    run_cpus: int = option(0, "CPUs that a run may use; 0: all")
    backend: str = option(
        "sequential",
        "where independent parts of a forecast or a batch run: sequential, threading, loky, dask, ray or spark; with workers or an address, such as loky:4 or dask:tcp://host:8786",
    )
    cpu_hour_price: float = option(0.0, "price of one CPU hour, for the cost of runs")
    outputs: str = option("", "fsspec URL for outputs of runs, such as s3://bucket/runs; default: the store")
    base_image: str = option("", "base image of `d2c package --containerize`; default: Python's slim image")
    secrets: str = option("", "folder with one file per secret, for parameters of the form secret:NAME")
    zone: str = option(
        "",
        "time zone in which days of datasets are counted, such as Europe/Berlin; default: derived from their timestamps",
    )
    quality_warn: str = option(
        "0.2",
        "score (0 clean, 1 the worst) from which a finding of data quality warns, for single tables too, as in 0.2, customers 0.4",
    )
    quality_refuse: str = option(
        "0.9",
        "score from which a finding of data quality refuses ingested data and training, for single tables too, as in 0.8, order_lines 0.9; or never",
    )
    quality_ignore: str = option(
        "", "checks, faults or TABLE.CHECK of data quality that are accepted, separated by commas"
    )
    datasets: Mapping[str, DataSettings] = option(_empty_mapping, "the [data:NAME] sections")
    models: Mapping[str, ModelSettings] = option(_empty_mapping, "the [model:NAME] sections")
    jobs: Mapping[str, JobSettings] = option(_empty_mapping, "the [schedule:NAME] sections")
    service: ServiceSettings = option(ServiceSettings, "the [service] section")
    rollout: RolloutSettings = option(RolloutSettings, "the [rollout] section")
    policies: Mapping[str, PolicySettings] = option(_empty_mapping, "the [decisions:NAME] sections")
    decisions: DecisionsSettings = option(DecisionsSettings, "the [decisions] section")
    alerts: AlertSettings = option(AlertSettings, "the [alerts] section")
    monitor: MonitorSettings = option(MonitorSettings, "the [monitor] section")

    @property
    def ledger(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return self.ledger_url or f"sqlite:///{self.store / 'ledger.db'}"

    @property
    def tracking(self) -> str:
        """MLflow's tracking URI."""
        return self.tracking_uri or f"sqlite:///{self.store / 'mlflow.db'}"

    def environment(self) -> dict[str, str]:
        """Return the D2C_… variables that pass these settings to a child process."""
        values = {name: getattr(self, name) for name in OPTIONS}
        texts = {k: " ".join(v) if isinstance(v, tuple) else str(v) for k, v in values.items()}
        return {f"D2C_{name.upper()}": text for name, text in texts.items()} | {"D2C_ROOT": str(self.root)}

    def model(self, name: str) -> ModelSettings:
        """Return the settings of a model; the defaults if it has no section."""
        return self.models.get(name) or ModelSettings(name=name)

    def dataset_zone(self, name: str) -> str | None:
        """Return the configured time zone of a dataset; None if it is derived from its timestamps."""
        dataset = self.datasets.get(name)
        return (dataset.zone if dataset else "") or self.zone or None

    def planned_columns(self, name: str) -> tuple[str, ...]:
        """Return the columns of a dataset's sales file that are known ahead."""
        dataset = self.datasets.get(name)
        return tuple(part.strip() for part in (dataset.planned if dataset else "").split(",") if part.strip())

    def guards(self, name: str) -> RolloutSettings:
        """Return the limits of a model's rollouts."""
        return replace(
            self.rollout, **convert_options(RolloutSettings, ROLLOUT_OPTIONS, self.model(name).rollout, name, [])
        )

    def monitor_limits(self, name: str) -> MonitorSettings:
        """Return the thresholds of a model's metrics."""
        return replace(
            self.monitor, **convert_options(MonitorSettings, MONITOR_OPTIONS, self.model(name).monitor, name, [])
        )


PARTS = ("root", "datasets", "models", "jobs", "service", "rollout", "policies", "decisions", "alerts", "monitor")
OPTIONS = {f.name: f for f in fields(Settings) if f.name not in PARTS}
GROUPS = ("params", "charter", "rollout", "monitor", "notify", "sunset", "heartbeat")  # NAME.KEY = VALUE
MODEL_OPTIONS = {f.name: f for f in fields(ModelSettings) if f.name not in ("name", *GROUPS) or f.name == "notify"}
ROLLOUT_OPTIONS = {f.name: f for f in fields(RolloutSettings)}
MONITOR_OPTIONS = {f.name: f for f in fields(MonitorSettings)}
SERVICE_OPTIONS = {f.name: f for f in fields(ServiceSettings)}
SERVICE = "D2C_SERVICE_"  # prefix of its variables
POLICY_OPTIONS = {f.name: f for f in fields(PolicySettings) if f.name not in ("name", "notify")}
ALERT_OPTIONS = {f.name: f for f in fields(AlertSettings) if f.name not in GROUPS or f.name == "notify"}
DECISIONS_OPTIONS = {f.name: f for f in fields(DecisionsSettings)}
DATA_OPTIONS = {f.name: f for f in fields(DataSettings) if f.name != "name"}
JOB_OPTIONS = {f.name: f for f in fields(JobSettings) if f.name not in ("name", "params")}
# [package] belongs to setup.py; nothing of it is read at run time.
SECTIONS = {
    "package": "package",
    "d2c": "d2c",
    "service": "service",
    "rollout": "rollout",
    "decisions": "decisions",
    "alerts": "alerts",
    "monitor": "monitor",
    "model": "model:NAME",
    "data": "data:NAME",
    "schedule": "schedule:NAME",
    "decisions:": "decisions:NAME",
}
