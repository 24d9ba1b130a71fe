"""What may be set, with its default and one line about it; frozen once it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from d2c_mlops.settings.parsing import typed


def option(default: Any, doc: str) -> Any:
    """Declare a setting with its default (or what makes it) and one line about it."""
    if callable(default):
        return field(default_factory=default, metadata={"doc": doc})
    return field(default=default, metadata={"doc": doc})


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class ModelSettings:
    """A [model:NAME] section: what is in production under this name."""

    name: str
    model: str = option("", "name of the contract of the model's class; the section's name when empty")
    data: str = option("", "dataset that the model learns from, as given to `d2c ingest … --as`")
    service_port: int = option(3000, "port that `d2c serve` listens on")
    params: Mapping[str, str] = option(_nothing, "params.NAME: keyword arguments of the model's class")
    charter: Mapping[str, str] = option(_nothing, "charter.NAME: answers to the charter's questions")
    rollout: Mapping[str, str] = option(_nothing, "rollout.NAME: limits of its rollouts, stronger than [rollout]")
    sunset: Mapping[str, str] = option(
        _nothing, "sunset.MAJOR: last day (UTC) of a major version of the contract, stronger than [service] keep_majors"
    )

    @property
    def contract(self) -> str:
        """The name of the contract that the model's class carries."""
        return self.model or self.name


@dataclass(frozen=True)
class DataSettings:
    """A [data:NAME] section: what a person knows of a dataset."""

    name: str
    zone: str = option("", "time zone in which its days are counted; [d2c] zone when empty")


@dataclass(frozen=True)
class JobSettings:
    """A [schedule:NAME] section: what runs when."""

    name: str
    run: str = option("", "runbook, or path of a notebook")
    at: str = option(
        "",
        "a cron expression or a plain cadence such as `weekly on Monday 06:00`; a month without the date has no slot",
    )
    zone: str = option("UTC", "time zone whose clock counts")
    params: Mapping[str, str] = option(
        _nothing,
        "params.NAME: parameters; {slot:%Y-%m-%d}, {as_of}, {previous_success}, {slot_key} and {job} are filled in",
    )
    as_of_offset: int = option(
        0, "days added to as_of, the last day that is over before a slot: -1 where data come a day late"
    )
    timeout: float = option(3600.0, "seconds after which a run is stopped")
    retries: int = option(2, "further attempts after a temporary failure")
    backoff: float = option(60.0, "seconds before the second attempt, doubled for each further one")
    missed: str = option("once", "slots missed while nothing ran: skip, once (the latest) or all")
    on: tuple[str, ...] = option((), "jobs whose new data start this one, with or without a cadence of its own")
    after: tuple[str, ...] = option((), "jobs that must have succeeded for their latest slot first")
    priority: int = option(0, "of jobs that are due together, the higher one starts first")
    concurrency: int = option(1, "slots of this job that may run at a time")
    memory: str = option("", "resident memory at which a run is stopped, such as 2GB; [d2c] run_memory when empty")
    cpus: int = option(0, "processors that a run may use; [d2c] run_cpus when 0")
    notify: tuple[str, ...] = option((), "apprise URLs that are told, such as mailto://… or secret:NAME")
    notify_on: tuple[str, ...] = option(("failed",), "what they are told: failed, succeeded, retry, skipped")
    max_cost: float = option(0.0, "cost at which a run is stopped, by [d2c] cpu_hour_price; none when 0")


@dataclass(frozen=True)
class PolicySettings:
    """A [decisions:NAME] section: what becomes of the predictions of a model."""

    name: str
    field: str = option("", "output field that is the value of the decision, such as price")
    auto: str = option("", "rule over inputs and outputs under which nobody is asked; always asked when empty")
    allow: str = option("", "rule that must hold for whatever is applied, whoever decides; none when empty")
    deadline: str = option("24h", "how long a decision waits for a person, such as 24h, 30m or 7d")
    at_deadline: str = option("expire", "what happens then: expire, apply or reject")
    max_age: str = option("7d", "age from which a prediction, or a decision not yet applied, is not acted on any more")
    max_auto: int = option(0, "decisions a day (UTC) that are applied without asking; no limit when 0")
    keys: tuple[str, ...] = option(
        (),
        "API keys, by name or id, whose predictions become decisions beside those of batches and of keys with scope decide",
    )
    allow_new: bool = option(
        False, "whether a row is added without asking where the target table has none for what is decided about"
    )
    deciders: tuple[str, ...] = option((), "who may decide: names of API keys and of people; everybody when empty")
    notify: Mapping[str, str] = option(
        _nothing, "notify.NAME: apprise URL of who decides, told with links of their own"
    )
    apply: str = option(
        "", "where decisions go: a web hook, URL::TABLE, or secret:NAME that holds one; nowhere when empty"
    )
    sign: str = option("", "secret:NAME under which calls of the web hook are signed; not signed when empty")
    tries: int = option(10, "attempts to apply while the other side is away, before it is a dead letter")
    dry_run: bool = option(False, "whether decisions are made and recorded, and none is applied")


@dataclass(frozen=True)
class DecisionsSettings:
    """The [decisions] section: where people decide."""

    url: str = option("", "address at which people reach `d2c decisions serve`, for links in messages")
    links: tuple[str, ...] = option((), "secret:NAME that signs links; further ones are former secrets, still accepted")
    port: int = option(3100, "port that `d2c decisions serve` listens on")
    every: float = option(30.0, "seconds between two looks at logs and deadlines while it serves")


@dataclass(frozen=True)
class RolloutSettings:
    """The [rollout] section: when a challenger is taken out of service by itself."""

    min_answers: int = option(200, "answers of the challenger on which errors and latency are judged, at the least")
    max_errors: float = option(0.01, "share of the challenger's answers that may fail, 0..1")
    max_slowdown: float = option(2.0, "how many times as long as the champion the challenger may take, at p95")
    slow_ms: float = option(10.0, "milliseconds up to which nothing counts as slow")
    min_feedback: int = option(50, "feedback on either version on which adoption is judged, at the least")
    max_followed_drop: float = option(0.1, "how far the share of followed answers may lie below the champion's, 0..1")
    min_followed: float = option(0.0, "share of the challenger's answers that must be followed, 0..1; none when 0")


@dataclass(frozen=True)
class ServiceSettings:
    """The [service] section, D2C_SERVICE_… in a container: how services answer, whom, and what they keep."""

    mode: str = option("development", "development, or production: no start without API keys")
    state: str = option("", "folder for the prediction log and kept answers; `serving/MODEL` in the store when empty")
    keys: str = option("", "file with the hashes of API keys; `serving/keys.json` in the store when empty")
    rollout: str = option(
        "", "file that says what the challenger answers, {model} filled in; in the state folder when empty"
    )
    keep_majors: int = option(
        90, "days that a major version of a contract is served beside the one that replaced it as champion"
    )
    hosts: tuple[str, ...] = option(
        (),
        "names under which a service in development mode is asked, beside localhost, addresses and the machine's own",
    )
    kept_bytes: int = option(2**30, "largest size in bytes of all answers kept under their Idempotency-Key")
    kept_key_bytes: int = option(2**28, "largest size in bytes of those of one API key")
    workers: int = option(1, "processes that answer")
    max_body: int = option(32 * 2**20, "largest body in bytes, unpacked")
    max_records: int = option(10_000, "most records in one JSON request; a stream of NDJSON has no such limit")
    max_seconds: float = option(30.0, "seconds after which a caller is told that it takes too long")
    read_seconds: float = option(10.0, "seconds in which a body, or a stream's next bytes, must arrive or be taken")
    max_concurrency: int = option(256, "concurrent requests of a worker; further ones get 503 with Retry-After")
    drain_seconds: float = option(0.0, "seconds that a service told to stop keeps answering while /readyz says 503")
    log: bool = option(True, "whether predictions are logged")
    log_sample: float = option(1.0, "share of the requests whose predictions are logged, 0..1")
    log_secret: str = option("", "secret under which personal fields are hashed; without one they are dropped")
    access_log: str = option("failed", "requests that are written to the log: all, failed or none")
    traces: str = option("", "OTLP/HTTP address that OpenTelemetry traces are sent to; none when empty")

    def environment(self) -> dict[str, str]:
        """Return the D2C_SERVICE_… variables that make these settings hold in a service."""
        values = {name: getattr(self, name) for name in SERVICE_OPTIONS}
        return {
            f"{SERVICE}{name.upper()}": " ".join(value) if isinstance(value, tuple) else str(value)
            for name, value in values.items()
        }


@dataclass(frozen=True)
class Settings:
    """Everything that settings.ini, the environment and the command line say about stores and models."""

    root: Path = option(Path, "folder of settings.ini; relative paths are seen from here")
    store: Path = option(lambda: Path("d2c_store"), "folder for tables, runs, models, Bentos and reports")
    ledger_url: str = option("", "SQLAlchemy URL of the ledger; SQLite in the store when empty")
    tracking_uri: str = option("", "MLflow tracking server or database; SQLite in the store when empty")
    packages: tuple[str, ...] = option((), "packages, beside d2c_mlops.models, in which models are looked for")
    run_timeout: float = option(3600.0, "seconds after which a run is stopped")
    lock_wait: float = option(10.0, "seconds to wait for a locked database or dataset before giving up")
    run_slots: int = option(2, "runs that one scheduler has going at a time")
    run_memory: str = option("", "resident memory at which a run is stopped, such as 2GB; none when empty")
    run_cpus: int = option(0, "processors that a run may use; all when 0")
    cpu_hour_price: float = option(0.0, "price of an hour of one processor, for what runs cost")
    outputs: str = option("", "fsspec URL that outputs of runs go to, such as s3://bucket/runs; the store when empty")
    base_image: str = option("", "image that `d2c package --containerize` starts from; Python's slim one when empty")
    secrets: str = option("", "folder with a file per secret, for parameters written secret:NAME")
    zone: str = option(
        "", "time zone in which days of datasets are counted, such as Europe/Berlin; found in their times when empty"
    )
    datasets: Mapping[str, DataSettings] = option(_nothing, "the [data:NAME] sections")
    models: Mapping[str, ModelSettings] = option(_nothing, "the [model:NAME] sections")
    jobs: Mapping[str, JobSettings] = option(_nothing, "the [schedule:NAME] sections")
    service: ServiceSettings = option(ServiceSettings, "the [service] section")
    rollout: RolloutSettings = option(RolloutSettings, "the [rollout] section")
    policies: Mapping[str, PolicySettings] = option(_nothing, "the [decisions:NAME] sections")
    decisions: DecisionsSettings = option(DecisionsSettings, "the [decisions] section")

    @property
    def ledger(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return self.ledger_url or f"sqlite:///{self.store / 'ledger.db'}"

    @property
    def tracking(self) -> str:
        """MLflow's tracking URI."""
        return self.tracking_uri or f"sqlite:///{self.store / 'mlflow.db'}"

    def environment(self) -> dict[str, str]:
        """Return the D2C_… variables that make these settings hold in a child process, wherever it runs."""
        values = {name: getattr(self, name) for name in OPTIONS}
        texts = {k: " ".join(v) if isinstance(v, tuple) else str(v) for k, v in values.items()}
        return {f"D2C_{name.upper()}": text for name, text in texts.items()} | {"D2C_ROOT": str(self.root)}

    def model(self, name: str) -> ModelSettings:
        """Return the settings of a model; the defaults where it has no section."""
        return self.models.get(name) or ModelSettings(name=name)

    def dataset_zone(self, name: str) -> str | None:
        """Return the time zone that is set for a dataset; None where it is to be found in its times."""
        own = self.datasets.get(name)
        return (own.zone if own else "") or self.zone or None

    def guards(self, name: str) -> RolloutSettings:
        """Return the limits of a model's rollouts."""
        return replace(self.rollout, **typed(RolloutSettings, ROLLOUT_OPTIONS, self.model(name).rollout, name, []))


PARTS = ("root", "datasets", "models", "jobs", "service", "rollout", "policies", "decisions")
OPTIONS = {f.name: f for f in fields(Settings) if f.name not in PARTS}
GROUPS = ("params", "charter", "rollout", "notify", "sunset")  # NAME.KEY = VALUE
MODEL_OPTIONS = {f.name: f for f in fields(ModelSettings) if f.name not in ("name", *GROUPS)}
ROLLOUT_OPTIONS = {f.name: f for f in fields(RolloutSettings)}
SERVICE_OPTIONS = {f.name: f for f in fields(ServiceSettings)}
SERVICE = "D2C_SERVICE_"  # prefix of its variables
POLICY_OPTIONS = {f.name: f for f in fields(PolicySettings) if f.name not in ("name", "notify")}
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
    "model": "model:NAME",
    "data": "data:NAME",
    "schedule": "schedule:NAME",
    "decisions:": "decisions:NAME",
}
