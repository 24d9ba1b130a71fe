"""One typed, frozen view of settings.ini: command line > environment D2C_… > file > default."""

from __future__ import annotations

import os
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Mapping
from configparser import ConfigParser, Error
from dataclasses import replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from d2c_mlops.errors import Failure, SettingsError
from d2c_mlops.settings.cycles import cycle_sections
from d2c_mlops.settings.parsing import (
    convert_options,
    field_types,
    home_path,
    is_size,
    parse_age,
    parse_backend,
    parse_release,
    parse_retrain,
    time_zone,
)
from d2c_mlops.settings.schema import (
    ALERT_OPTIONS,
    DATA_OPTIONS,
    DECISIONS_OPTIONS,
    GROUPS,
    JOB_OPTIONS,
    MODEL_OPTIONS,
    MONITOR_OPTIONS,
    OPTIONS,
    POLICY_OPTIONS,
    ROLLOUT_OPTIONS,
    SECTIONS,
    SERVICE,
    SERVICE_OPTIONS,
    AlertSettings,
    DataSettings,
    DecisionsSettings,
    JobSettings,
    ModelSettings,
    MonitorSettings,
    PolicySettings,
    RolloutSettings,
    ServiceSettings,
    Settings,
)

__all__ = [
    "FILE",
    "MODEL_OPTIONS",
    "OPTIONS",
    "ROLLOUT_OPTIONS",
    "SERVICE_OPTIONS",
    "AlertSettings",
    "JobSettings",
    "ModelSettings",
    "PolicySettings",
    "RolloutSettings",
    "ServiceSettings",
    "Settings",
    "find_settings_file",
    "load_settings",
    "service_settings",
]
FILE = "settings.ini"
OURS = re.compile(
    r"^\[((d2c|alerts|monitor)\]|(schedule|model|data|decisions):)", re.MULTILINE | re.IGNORECASE
)  # nbdev has a file of this name too


def load_settings(
    start: Path | None = None,  # folder to look from, upwards; D2C_ROOT, else the current one, when None
    overrides: Mapping[str, Any] = MappingProxyType({}),  # from the command line, the strongest
    environ: Mapping[str, str] | None = None,  # os.environ when None
) -> Settings:
    """Return the effective settings of a folder. Raises SettingsError with all errors."""
    environ = os.environ if environ is None else environ
    file = find_settings_file(start or Path(environ.get("D2C_ROOT") or Path.cwd()))
    root = file.parent if file else (start or Path(environ.get("D2C_ROOT") or Path.cwd())).resolve()
    failures: list[Failure] = []
    sections = cycle_sections(_parse_sections(file, failures), failures) if file else {}
    raw = dict(sections.get("d2c", {}))
    raw |= _environment_options(environ, failures)
    raw |= {name: value for name, value in overrides.items() if value is not None}
    values = convert_options(Settings, OPTIONS, raw, "[d2c]", failures)
    if values.get("run_memory") and not is_size(values["run_memory"]):
        failures.append(Failure(f"{values['run_memory']!r} is not a size such as 512MB or 2GB", "[d2c] run_memory"))
    failures += _zone_failures(values.get("zone", ""), "[d2c] zone")
    try:
        parse_backend(values.get("backend", "sequential"))
    except ValueError as error:
        failures.append(Failure(str(error), "[d2c] backend"))
    service = ServiceSettings(**_service_options(sections.get("service", {}), environ, failures))
    rollout = RolloutSettings(**_rollout_limits(sections.get("rollout", {}), "[rollout]", failures))
    where = "[decisions]"
    decisions = DecisionsSettings(
        **convert_options(DecisionsSettings, DECISIONS_OPTIONS, sections.get("decisions", {}), where, failures)
    )
    failures += [
        Failure("name a secret, secret:NAME: what is written here is no secret", "[decisions] links")
        for link in decisions.links
        if not link.startswith("secret:")
    ]
    alerts = AlertSettings(
        **_grouped_options(AlertSettings, ALERT_OPTIONS, "alerts", sections.get("alerts", {}), failures)
    )
    failures += _alert_failures(alerts)
    monitor = MonitorSettings(**_monitor_limits(sections.get("monitor", {}), "[monitor] ", failures))
    models, jobs, policies, datasets = {}, {}, {}, {}
    for section, keys in sections.items():
        if section.startswith("model:"):
            name = section.removeprefix("model:")
            models[name] = ModelSettings(
                name=name, **_grouped_options(ModelSettings, MODEL_OPTIONS, section, keys, failures)
            )
            _rollout_limits(models[name].rollout, f"[{section}] rollout.", failures)
            _monitor_limits(models[name].monitor, f"[{section}] monitor.", failures)
            failures += _sunset_failures(models[name].sunset, section)
            failures += _release_failures(models[name], section)
        elif section.startswith("data:"):
            name = section.removeprefix("data:")
            datasets[name] = DataSettings(
                name=name, **convert_options(DataSettings, DATA_OPTIONS, keys, f"[{section}]", failures)
            )
            failures += _zone_failures(datasets[name].zone, f"[{section}] zone")
        elif section.startswith("schedule:"):
            name = section.removeprefix("schedule:")
            jobs[name] = JobSettings(name=name, **_grouped_options(JobSettings, JOB_OPTIONS, section, keys, failures))
            failures += _job_failures(jobs[name], section)
        elif section.startswith("decisions:"):
            name = section.removeprefix("decisions:")
            chosen = _grouped_options(PolicySettings, POLICY_OPTIONS, section, keys, failures)
            policies[name] = PolicySettings(name=name, **chosen)
            failures += _policy_failures(policies[name], section)
    store = home_path(values.pop("store", "d2c_store"))
    if str(store).startswith("~"):
        failures.append(Failure(f"there is no home folder for {store.parts[0]}", "[d2c] store"))
    if failures:
        raise SettingsError(
            "the settings cannot be read",
            where=str(file or "environment"),
            failures=failures,
            next="correct these lines; `d2c settings` prints the effective settings",
        )
    return Settings(
        root=root,
        store=(root / store).resolve(),
        datasets=MappingProxyType(datasets),
        models=MappingProxyType(models),
        jobs=MappingProxyType(jobs),
        service=service,
        rollout=rollout,
        policies=MappingProxyType(policies),
        decisions=decisions,
        alerts=alerts,
        monitor=monitor,
        **values,
    )


def service_settings(environ: Mapping[str, str]) -> ServiceSettings:
    """Return the settings of a service from the environment. Raises SettingsError with all errors."""
    failures: list[Failure] = []
    values = _service_options({}, environ, failures)
    if failures:
        raise SettingsError("the settings of the service cannot be read", failures=failures)
    return ServiceSettings(**values)


def find_settings_file(start: Path) -> Path | None:
    """Return the nearest settings.ini with a section of this package, from `start` upwards.

    Raises SettingsError if a file cannot be read.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        file = folder / FILE
        if file.is_file() and OURS.search(_settings_text(file, "replace")):
            return file
    return None


def has_own_section(file: Path) -> bool:
    """Return whether a settings.ini has a section [d2c]."""
    return re.search(r"^\[d2c\]", _settings_text(file, "replace"), re.MULTILINE) is not None


def _settings_text(file: Path, errors: str) -> str:
    """Return the text of a settings.ini: UTF-8, with or without a byte order mark."""
    try:
        data = file.read_bytes()
    except OSError as err:
        raise SettingsError(f"the file cannot be read: {err.strerror}", where=str(file)) from None
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise SettingsError("the file is UTF-16", where=str(file), next="save it as UTF-8")
    return data.decode("utf-8-sig", errors)


def _parse_sections(file: Path, failures: list[Failure]) -> dict[str, dict[str, str]]:
    ini = ConfigParser(interpolation=None, comment_prefixes=(";", "#"), default_section="")
    try:
        text = _settings_text(file, "strict")
        before, null, _ = text.partition("\0")
        if null:
            line = before.count("\n") + 1
            raise SettingsError("the file contains a null character", where=f"{file}, line {line}", next="remove it")
        ini.read_string(text, source=str(file))
    except UnicodeDecodeError as err:
        line = err.object[: err.start].count(b"\n") + 1
        raise SettingsError("the file is not UTF-8", where=f"{file}, line {line}", next="save it as UTF-8") from None
    except Error as err:
        raise SettingsError(f"this is not an INI file: {err}", where=str(file)) from None
    for section in ini.sections():
        general = ("package", "d2c", "service", "rollout", "decisions", "alerts", "monitor")
        if section not in general and not re.fullmatch(
            r"(model|schedule|decisions):[a-z][a-z0-9_]*|schedule:[a-z][a-z0-9_]*\.[a-z]+|data:[a-z0-9][a-z0-9_-]*",
            section,
        ):
            near = get_close_matches(section.partition(":")[0], SECTIONS, n=1)
            hint = f"; did you mean {SECTIONS[near[0]]!r}?" if near else f"; known: {', '.join(SECTIONS.values())}"
            failures.append(Failure(f"unknown section{hint}", f"[{section}]"))
    return {section: dict(ini[section]) for section in ini.sections()}


def _environment_options(environ: Mapping[str, str], failures: list[Failure]) -> dict[str, str]:
    """Return the options of D2C_NAME variables; other variables with this prefix belong to running notebooks and services."""
    return _given_options("D2C_", OPTIONS, environ, failures)


def _given_options(
    prefix: str, names: Iterable[str], environ: Mapping[str, str], failures: list[Failure]
) -> dict[str, str]:
    """Return the options from variables, or from files named by …_FILE variables (for secrets in containers)."""
    values = {}
    for name in names:
        variable = f"{prefix}{name.upper()}"
        if variable in environ:
            values[name] = environ[variable]
        elif file := environ.get(f"{variable}_FILE"):
            try:
                values[name] = Path(file).read_text(encoding="utf-8").strip()
                if "\0" in values[name]:
                    raise ValueError("it contains a null character")
            except (OSError, ValueError) as err:
                failures.append(Failure(f"{file} cannot be read: {getattr(err, 'strerror', err)}", f"{variable}_FILE"))
    return values


def _service_options(section: Mapping[str, str], environ: Mapping[str, str], failures: list[Failure]) -> dict[str, Any]:
    """Return the typed options of [service]; the environment overrides the file."""
    options = {**section, **_given_options(SERVICE, SERVICE_OPTIONS, environ, failures)}
    values = convert_options(ServiceSettings, SERVICE_OPTIONS, options, "[service]", failures)
    if values.get("keep_majors", 0) < 0:
        failures.append(Failure(f"{values['keep_majors']} is less than 0", "[service] keep_majors"))
    for name in ("kept_bytes", "kept_key_bytes"):
        if values.get(name, 1) < 1:
            failures.append(Failure(f"{values[name]} is less than 1", f"[service] {name}"))
    if values.get("workers", 1) < 1:
        failures.append(Failure(f"{values['workers']} is less than 1", "[service] workers"))
    for key, allowed in (("mode", ("development", "production")), ("access_log", ("all", "failed", "none"))):
        if values.get(key, allowed[0]) not in allowed:
            failures.append(Failure(f"{values[key]!r} is none of {', '.join(allowed)}", f"[service] {key}"))
    return values


SHARES = ("false_alarms", "throughput_drop", "confidence")  # between 0 and 1


def _monitor_limits(options: Mapping[str, str], where: str, failures: list[Failure]) -> dict[str, Any]:
    """Return the typed thresholds of monitoring; those that nothing can reach, or everything, are failures."""
    option_failures: list[Failure] = []
    values = convert_options(MonitorSettings, MONITOR_OPTIONS, options, where.rstrip(), option_failures)
    for key, value in values.items():
        if key in SHARES and not 0 < value < 1:
            option_failures.append(Failure(f"{value!r} is not a share between 0 and 1", f"{where.rstrip()} {key}"))
        elif key == "cost_over" and value < 0:
            option_failures.append(Failure(f"{value!r} is less than 0", f"{where.rstrip()} {key}"))
        elif isinstance(value, int | float) and key != "cost_over" and value <= 0:
            option_failures.append(Failure(f"{value!r} is not above 0", f"{where.rstrip()} {key}"))
    failures += [replace(failure, where=failure.where.replace(". ", ".")) for failure in option_failures]
    return values


def _rollout_limits(options: Mapping[str, str], where: str, failures: list[Failure]) -> dict[str, Any]:
    """Return the typed limits of a rollout."""
    option_failures: list[Failure] = []
    values = convert_options(RolloutSettings, ROLLOUT_OPTIONS, options, where, option_failures)
    option_failures += [
        Failure(f"{value!r} is less than 0", f"{where} {key}") for key, value in values.items() if value < 0
    ]
    failures += [replace(failure, where=failure.where.replace(". ", ".")) for failure in option_failures]
    return values


def _grouped_options(
    cls: type, options: Mapping[str, Any], section: str, keys: Mapping[str, str], failures: list[Failure]
) -> dict[str, Any]:
    """Return the typed options of a section; keys such as params.NAME are gathered under their prefix."""
    prefixes = [name for name in GROUPS if field_types(cls).get(name) == Mapping[str, str]]
    plain: dict[str, Any] = {}
    grouped: dict[str, dict[str, str]] = {prefix: {} for prefix in prefixes}
    for key, value in keys.items():
        prefix, dot, name = key.partition(".")
        if dot and prefix in grouped:
            grouped[prefix][name] = value
        else:
            plain[key] = value
    known_options = {**options, **{f"{prefix}.NAME": None for prefix in prefixes}}
    values = convert_options(cls, known_options, plain, f"[{section}]", failures)
    return values | {prefix: MappingProxyType(texts) for prefix, texts in grouped.items()}


def _sunset_failures(sunsets: Mapping[str, str], section: str) -> list[Failure]:
    failures = []
    for major, day in sunsets.items():
        try:
            date.fromisoformat(day)
            int(major)
        except ValueError:
            failures.append(
                Failure(
                    "write the major version and its last day: sunset.1 = 2027-03-31", f"[{section}] sunset.{major}"
                )
            )
    return failures


def _release_failures(model: ModelSettings, section: str) -> list[Failure]:
    failures = []
    try:
        parse_release(model.release)
    except ValueError as err:
        failures.append(Failure(str(err), f"[{section}] release"))
    for name in ("release_after", "retrain_after"):
        try:
            parse_age(getattr(model, name))
        except ValueError as err:
            failures.append(Failure(str(err), f"[{section}] {name}"))
    try:
        parse_retrain(model.retrain or "never")
    except ValueError as err:
        if model.retrain.strip().lower() != "default":
            failures.append(Failure(str(err), f"[{section}] retrain"))
    return failures


def _zone_failures(zone: str, where: str) -> list[Failure]:
    try:
        time_zone(zone or "UTC")
    except ValueError as err:
        return [Failure(str(err), where)]
    return []


def _alert_failures(alerts: AlertSettings) -> list[Failure]:
    """Return what is wrong with the section [alerts]; it is checked here, before an alert has to be sent."""
    where = "[alerts]"
    failures = _zone_failures(alerts.zone, f"{where} zone")
    for name in ("healthy_for", "reopen_within", "escalate_after", "give_up"):
        try:
            parse_age(getattr(alerts, name))
        except ValueError as err:
            failures.append(Failure(str(err), f"{where} {name}"))
    times = {"digest": alerts.digest} | ({"quiet": alerts.quiet} if alerts.quiet.strip() else {})
    for name, text in times.items():
        hour = r"\s*([01]?\d|2[0-3]):[0-5]\d\s*"
        if not re.fullmatch(f"{hour}-{hour}" if name == "quiet" else hour, text):
            wanted_form = "hours such as 22:00-07:00" if name == "quiet" else "a time of day such as 08:00"
            failures.append(Failure(f"{text!r} is not {wanted_form}", f"{where} {name}"))
    if alerts.healthy_looks < 1:
        failures.append(Failure(f"{alerts.healthy_looks} is less than 1", f"{where} healthy_looks"))
    failures += [
        Failure(f"{part!r} has no heartbeat; use scheduler or monitor", f"{where} heartbeat.{part}")
        for part in alerts.heartbeat
        if part not in ("scheduler", "monitor")
    ]
    return failures


def _job_failures(job: JobSettings, section: str) -> list[Failure]:
    failures = [Failure("is needed", f"[{section}] run")] if not job.run else []
    if not job.at and not job.on:
        what = "is needed: when the job is due, such as 'daily at 06:00'; or `on`, the job whose new data start it"
        failures.append(Failure(what, f"[{section}] at"))
    if job.memory and not is_size(job.memory):
        failures.append(Failure(f"{job.memory!r} is no size such as 512MB or 2GB", f"[{section}] memory"))
    for event in job.notify_on:
        if event not in ("failed", "succeeded", "retry", "skipped"):
            failures.append(
                Failure(f"{event!r} is none of failed, succeeded, retry, skipped", f"[{section}] notify_on")
            )
    if job.as_of_offset > 0:
        failures.append(
            Failure(f"{job.as_of_offset} is later than the last day that is over", f"[{section}] as_of_offset")
        )
    if job.missed not in ("skip", "once", "all"):
        failures.append(Failure(f"{job.missed!r} is none of skip, once, all", f"[{section}] missed"))
    return failures


def _policy_failures(policy: PolicySettings, section: str) -> list[Failure]:
    failures = [Failure("is needed", f"[{section}] field")] if not policy.field else []
    for name in ("deadline", "max_age"):
        try:
            parse_age(getattr(policy, name))
        except ValueError as err:
            failures.append(Failure(str(err), f"[{section}] {name}"))
    if policy.at_deadline not in ("expire", "apply", "reject"):
        failures.append(Failure(f"{policy.at_deadline!r} is none of expire, apply, reject", f"[{section}] at_deadline"))
    if policy.sign and not policy.sign.startswith("secret:"):
        failures.append(Failure("name a secret, secret:NAME: what is written here is no secret", f"[{section}] sign"))
    for name in policy.notify:
        if policy.deciders and name not in policy.deciders:
            failures.append(Failure(f"{name} is not among the deciders", f"[{section}] notify.{name}"))
    for name in ("max_auto", "tries"):
        if getattr(policy, name) < (name == "tries"):
            failures.append(Failure(f"{getattr(policy, name)} is too few", f"[{section}] {name}"))
    return failures
