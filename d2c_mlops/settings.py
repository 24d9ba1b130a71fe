"""One typed, frozen view of settings.ini: command line > environment D2C_… > file > default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from configparser import ConfigParser, Error
from dataclasses import dataclass, field, fields, replace
from datetime import date
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, get_args, get_type_hints

from .errors import Failure, SettingsError

FILE = "settings.ini"
TEXTS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


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
class JobSettings:
    """A [schedule:NAME] section: what runs when."""

    name: str
    run: str = option("", "runbook, or path of a notebook")
    at: str = option("", "a cron expression or a plain cadence such as `weekly on Monday 06:00`")
    zone: str = option("UTC", "time zone whose clock counts")
    params: Mapping[str, str] = option(
        _nothing, "params.NAME: parameters; {slot:%Y-%m-%d} and {previous_success} are filled in"
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
    workers: int = option(1, "processes that answer")
    max_body: int = option(32 * 2**20, "largest body in bytes, unpacked")
    max_records: int = option(10_000, "most records in one JSON request; a stream of NDJSON has no such limit")
    max_seconds: float = option(30.0, "seconds after which a caller is told that it takes too long")
    read_seconds: float = option(10.0, "seconds in which a body, or the next part of a stream, must arrive")
    max_concurrency: int = option(256, "requests that a worker has going; further ones are told to come back")
    drain_seconds: float = option(0.0, "seconds that a service told to stop keeps answering while /readyz says 503")
    log: bool = option(True, "whether predictions are logged")
    log_sample: float = option(1.0, "share of the requests whose predictions are logged, 0..1")
    log_secret: str = option("", "secret under which personal fields are hashed; without one they are dropped")
    access_log: str = option("failed", "requests that are written to the log: all, failed or none")
    traces: str = option("", "OTLP/HTTP address that OpenTelemetry traces are sent to; none when empty")

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> ServiceSettings:
        """Return the settings that the environment gives. Raises SettingsError with everything that is wrong."""
        failures: list[Failure] = []
        made = cls(**_service({}, environ, failures))
        if failures:
            raise SettingsError("the settings of the service cannot be read", failures=failures)
        return made

    def environment(self) -> dict[str, str]:
        """Return the D2C_SERVICE_… variables that make these settings hold in a service."""
        return {f"{SERVICE}{name.upper()}": str(getattr(self, name)) for name in SERVICE_OPTIONS}


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

    def guards(self, name: str) -> RolloutSettings:
        """Return the limits of a model's rollouts."""
        return replace(self.rollout, **_guards(self.model(name).rollout, f"[model:{name}] rollout.", []))


PARTS = ("root", "models", "jobs", "service", "rollout", "policies", "decisions")
OPTIONS = {f.name: f for f in fields(Settings) if f.name not in PARTS}
GROUPS = ("params", "charter", "rollout", "notify", "sunset")  # NAME.KEY = VALUE
MODEL_OPTIONS = {f.name: f for f in fields(ModelSettings) if f.name not in ("name", *GROUPS)}
ROLLOUT_OPTIONS = {f.name: f for f in fields(RolloutSettings)}
SERVICE_OPTIONS = {f.name: f for f in fields(ServiceSettings)}
SERVICE = "D2C_SERVICE_"  # prefix of its variables
POLICY_OPTIONS = {f.name: f for f in fields(PolicySettings) if f.name not in ("name", "notify")}
DECISIONS_OPTIONS = {f.name: f for f in fields(DecisionsSettings)}
JOB_OPTIONS = {f.name: f for f in fields(JobSettings) if f.name not in ("name", "params")}
# [package] belongs to setup.py; nothing of it is read at run time.
SECTIONS = {
    "package": "package",
    "d2c": "d2c",
    "service": "service",
    "rollout": "rollout",
    "decisions": "decisions",
    "model": "model:NAME",
    "schedule": "schedule:NAME",
    "decisions:": "decisions:NAME",
}
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}  # seconds


def load(
    start: Path | None = None,  # folder to look from, upwards; D2C_ROOT, else the current one, when None
    overrides: Mapping[str, Any] = MappingProxyType({}),  # from the command line, the strongest
    environ: Mapping[str, str] | None = None,  # os.environ when None
) -> Settings:
    """Return the settings that hold in a folder. Raises SettingsError with everything that cannot be read."""
    environ = os.environ if environ is None else environ
    file = find(start or Path(environ.get("D2C_ROOT") or Path.cwd()))
    root = file.parent if file else (start or Path(environ.get("D2C_ROOT") or Path.cwd())).resolve()
    failures: list[Failure] = []
    sections = _sections(file, failures) if file else {}
    given = dict(sections.get("d2c", {}))
    given |= _environment(environ, failures)
    given |= {name: value for name, value in overrides.items() if value is not None}
    values = _typed(Settings, OPTIONS, given, "[d2c]", failures)
    if values.get("run_memory") and not _is_size(values["run_memory"]):
        failures.append(Failure(f"{values['run_memory']!r} is no size such as 512MB or 2GB", "[d2c] run_memory"))
    service = ServiceSettings(**_service(sections.get("service", {}), environ, failures))
    rollout = RolloutSettings(**_guards(sections.get("rollout", {}), "[rollout]", failures))
    where = "[decisions]"
    decisions = DecisionsSettings(
        **_typed(DecisionsSettings, DECISIONS_OPTIONS, sections.get("decisions", {}), where, failures)
    )
    failures += [
        Failure("name a secret, secret:NAME: what is written here is no secret", "[decisions] links")
        for link in decisions.links
        if not link.startswith("secret:")
    ]
    models, jobs, policies = {}, {}, {}
    for section, keys in sections.items():
        if section.startswith("model:"):
            name = section.removeprefix("model:")
            models[name] = ModelSettings(name=name, **_grouped(ModelSettings, MODEL_OPTIONS, section, keys, failures))
            _guards(models[name].rollout, f"[{section}] rollout.", failures)
            failures += _sunset_failures(models[name].sunset, section)
        elif section.startswith("schedule:"):
            name = section.removeprefix("schedule:")
            jobs[name] = JobSettings(name=name, **_grouped(JobSettings, JOB_OPTIONS, section, keys, failures))
            failures += _job_failures(jobs[name], section)
        elif section.startswith("decisions:"):
            name = section.removeprefix("decisions:")
            chosen = _grouped(PolicySettings, POLICY_OPTIONS, section, keys, failures)
            policies[name] = PolicySettings(name=name, **chosen)
            failures += _policy_failures(policies[name], section)
    if failures:
        raise SettingsError(
            "the settings cannot be read",
            where=str(file or "environment"),
            failures=failures,
            next="correct the lines named; `d2c settings` prints what holds",
        )
    store = Path(values.pop("store", "d2c_store")).expanduser()
    return Settings(
        root=root,
        store=(root / store).resolve(),
        models=MappingProxyType(models),
        jobs=MappingProxyType(jobs),
        service=service,
        rollout=rollout,
        policies=MappingProxyType(policies),
        decisions=decisions,
        **values,
    )


def find(start: Path) -> Path | None:
    """Return the nearest settings.ini with a [d2c] section, from `start` upwards."""
    for folder in (start.resolve(), *start.resolve().parents):
        file = folder / FILE
        if file.is_file() and re.search(r"^\[d2c\]", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE):
            return file
    return None


def _sections(file: Path, failures: list[Failure]) -> dict[str, dict[str, str]]:
    ini = ConfigParser(interpolation=None, comment_prefixes=(";", "#"), default_section="")
    try:
        ini.read_string(file.read_text(encoding="utf-8"), source=str(file))
    except (Error, UnicodeDecodeError) as err:
        raise SettingsError(f"this is not an INI file: {err}", where=str(file)) from None
    for section in ini.sections():
        if section not in ("package", "d2c", "service", "rollout", "decisions") and not re.fullmatch(
            r"(model|schedule|decisions):[a-z][a-z0-9_]*", section
        ):
            near = get_close_matches(section.partition(":")[0], SECTIONS, n=1)
            hint = f"; did you mean {SECTIONS[near[0]]!r}?" if near else f"; known: {', '.join(SECTIONS.values())}"
            failures.append(Failure(f"unknown section{hint}", f"[{section}]"))
    return {section: dict(ini[section]) for section in ini.sections()}


def _environment(environ: Mapping[str, str], failures: list[Failure]) -> dict[str, str]:
    """Return the options given as D2C_NAME; other names with this prefix belong to running notebooks and services."""
    return _given("D2C_", OPTIONS, environ, failures)


def _given(prefix: str, names: Iterable[str], environ: Mapping[str, str], failures: list[Failure]) -> dict[str, str]:
    """Return the options that variables give, or files that variables named …_FILE name: how containers get secrets."""
    values = {}
    for name in names:
        variable = f"{prefix}{name.upper()}"
        if variable in environ:
            values[name] = environ[variable]
        elif file := environ.get(f"{variable}_FILE"):
            try:
                values[name] = Path(file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as err:
                failures.append(Failure(f"{file} cannot be read: {getattr(err, 'strerror', err)}", f"{variable}_FILE"))
    return values


def _service(section: Mapping[str, str], environ: Mapping[str, str], failures: list[Failure]) -> dict[str, Any]:
    """Return the typed options of [service]; the environment is stronger than the file."""
    given = {**section, **_given(SERVICE, SERVICE_OPTIONS, environ, failures)}
    values = _typed(ServiceSettings, SERVICE_OPTIONS, given, "[service]", failures)
    if values.get("keep_majors", 0) < 0:
        failures.append(Failure(f"{values['keep_majors']} is less than 0", "[service] keep_majors"))
    if values.get("workers", 1) < 1:
        failures.append(Failure(f"{values['workers']} is less than 1", "[service] workers"))
    for key, allowed in (("mode", ("development", "production")), ("access_log", ("all", "failed", "none"))):
        if values.get(key, allowed[0]) not in allowed:
            failures.append(Failure(f"{values[key]!r} is none of {', '.join(allowed)}", f"[service] {key}"))
    return values


def _guards(given: Mapping[str, str], where: str, failures: list[Failure]) -> dict[str, Any]:
    """Return the typed limits of a rollout."""
    found: list[Failure] = []
    values = _typed(RolloutSettings, ROLLOUT_OPTIONS, given, where, found)
    found += [
        Failure(f"{value!r} is less than nothing", f"{where} {key}") for key, value in values.items() if value < 0
    ]
    failures += [replace(each, where=each.where.replace(". ", ".")) for each in found]
    return values


def _grouped(
    cls: type, options: Mapping[str, Any], section: str, keys: Mapping[str, str], failures: list[Failure]
) -> dict[str, Any]:
    """Return the typed options of a section; keys such as params.NAME are gathered under their prefix."""
    prefixes = [name for name in GROUPS if _hints(cls).get(name) == Mapping[str, str]]
    plain: dict[str, Any] = {}
    grouped: dict[str, dict[str, str]] = {prefix: {} for prefix in prefixes}
    for key, value in keys.items():
        prefix, dot, rest = key.partition(".")
        if dot and prefix in grouped:
            grouped[prefix][rest] = value
        else:
            plain[key] = value
    known = {**options, **{f"{prefix}.NAME": None for prefix in prefixes}}
    values = _typed(cls, known, plain, f"[{section}]", failures)
    return values | {prefix: MappingProxyType(texts) for prefix, texts in grouped.items()}


def _sunset_failures(given: Mapping[str, str], section: str) -> list[Failure]:
    found = []
    for major, day in given.items():
        try:
            date.fromisoformat(day)
            int(major)
        except ValueError:
            found.append(
                Failure(
                    "write the major version and its last day: sunset.1 = 2027-03-31", f"[{section}] sunset.{major}"
                )
            )
    return found


def _job_failures(job: JobSettings, section: str) -> list[Failure]:
    found = [Failure("is needed", f"[{section}] run")] if not job.run else []
    if not job.at and not job.on:
        found.append(Failure("is needed", f"[{section}] at"))
    if job.memory and not _is_size(job.memory):
        found.append(Failure(f"{job.memory!r} is no size such as 512MB or 2GB", f"[{section}] memory"))
    for event in job.notify_on:
        if event not in ("failed", "succeeded", "retry", "skipped"):
            found.append(Failure(f"{event!r} is none of failed, succeeded, retry, skipped", f"[{section}] notify_on"))
    if job.missed not in ("skip", "once", "all"):
        found.append(Failure(f"{job.missed!r} is none of skip, once, all", f"[{section}] missed"))
    return found


def _policy_failures(policy: PolicySettings, section: str) -> list[Failure]:
    found = [Failure("is needed", f"[{section}] field")] if not policy.field else []
    for name in ("deadline", "max_age"):
        try:
            age(getattr(policy, name))
        except ValueError as err:
            found.append(Failure(str(err), f"[{section}] {name}"))
    if policy.at_deadline not in ("expire", "apply", "reject"):
        found.append(Failure(f"{policy.at_deadline!r} is none of expire, apply, reject", f"[{section}] at_deadline"))
    if policy.sign and not policy.sign.startswith("secret:"):
        found.append(Failure("name a secret, secret:NAME: what is written here is no secret", f"[{section}] sign"))
    for name in policy.notify:
        if policy.deciders and name not in policy.deciders:
            found.append(Failure(f"{name} is not among the deciders", f"[{section}] notify.{name}"))
    for name in ("max_auto", "tries"):
        if getattr(policy, name) < (name == "tries"):
            found.append(Failure(f"{getattr(policy, name)} is too few", f"[{section}] {name}"))
    return found


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _typed(
    cls: type, known: Mapping[str, Any], given: Mapping[str, Any], where: str, failures: list[Failure]
) -> dict[str, Any]:
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known or key not in hints:
            failures.append(Failure(f"unknown key{_nearest(key, known)}", f"{where} {key}"))
            continue
        try:
            values[key] = _read(hints[key], value)
        except ValueError:
            failures.append(Failure(f"{value!r} is not of type {_name(hints[key])}", f"{where} {key}"))
    return values


def _read(kind: Any, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if kind is bool:
        if value.strip().lower() not in TEXTS:
            raise ValueError(value)
        return TEXTS[value.strip().lower()]
    if kind in (int, float):
        return kind(value)
    if isinstance(kind, UnionType):
        return _read(get_args(kind)[0], value) if value.strip() else None
    if kind is Path or kind is str:
        return value
    return tuple(part for part in re.split(r"[\s,]+", value.strip()) if part)


def _is_size(text: str) -> bool:
    try:
        return size(text) > 0
    except ValueError:
        return False


def size(text: str) -> int:
    """Return a size such as 512MB, 2GB or 1.5GiB in bytes. Raises ValueError."""
    found = re.fullmatch(r"([\d.]+)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if not found:
        raise ValueError(text)
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit or " "))


def age(text: str) -> float:
    """Return an age such as 90d, 12h, 30m or 45s in seconds. Raises ValueError."""
    number, unit = text.strip()[:-1], text.strip()[-1:]
    if unit not in UNITS or not number.isdigit():
        raise ValueError(f"{text!r} is not an age: write 90d, 12h, 30m or 45s")
    return float(int(number) * UNITS[unit])


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
