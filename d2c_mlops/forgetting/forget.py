"""Forget a customer: find the data, list it, erase or pseudonymise it, and record the operation."""

from __future__ import annotations

import getpass
import hmac
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from d2c_mlops.errors import Temporary, UsageError
from d2c_mlops.file_lock import lock
from d2c_mlops.forgetting import databases, datasets, forgetting_rows, ledger_rows, personal_data_places
from d2c_mlops.forgetting.person import MARKER, Person
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.registry.promotion_history import champion_at_time
from d2c_mlops.registry.versions import Version, all_versions
from d2c_mlops.runs.execution.run_rows import latest_runs
from d2c_mlops.runs.recording import run_id
from d2c_mlops.serving.state_paths import log_secret
from d2c_mlops.settings import Settings
from d2c_mlops.suppression import ERASE, FOLDER, PREFIX, PSEUDONYMISE, canonical_identifier, keyed_hash


@dataclass
class ForgetReport:
    """Result of forgetting a customer: found data, changes, affected model versions."""

    mode: str  # pseudonymise or erase
    changed: bool = False  # False for a dry run, and if there was nothing to do
    found: dict[str, int] = field(default_factory=dict)  # number of rows, records or text occurrences, by place
    datasets: dict[str, dict[str, str]] = field(default_factory=dict)  # by name: new digest by the former one
    models: list[dict[str, Any]] = field(default_factory=list)  # versions trained on data of the customer
    not_reached: list[str] = field(default_factory=list)
    done_before: str = ""  # time at which the same customer was forgotten before
    request: str = ""  # of the record

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return dict(vars(self))


@dataclass
class _ForgetPlan:
    person: Person
    data: dict[str, datasets.DatasetHits]
    rows: Counter[str]
    files: personal_data_places.FileHits
    models: list[dict[str, Any]]
    scope: tuple[set[str] | None, set[str] | None]  # models and runs; None: all

    @property
    def found(self) -> dict[str, int]:
        counts = Counter[str]()
        for name, hits in self.data.items():
            counts.update({f"data/{name} {table}": n for table, n in hits.rows.items()})
            counts.update({f"data/{name} {table}, former versions": n for table, n in hits.former.items()})
        counts.update({f"ledger {table}": n for table, n in self.rows.items()})
        counts.update(self.files.rows)
        return {place: n for place, n in sorted(counts.items()) if n}


def forget(
    customer: str,
    settings: Settings,
    *,
    also: Sequence[str] = (),  # further identifiers, such as e-mail addresses
    dataset: Sequence[str] = (),  # datasets in which the identifiers are valid; default: all
    erase: bool = False,  # remove rows instead of replacing identifiers by pseudonyms
    yes: bool = False,  # apply the changes; otherwise nothing is changed
    by: str | None = None,  # default: the current user
    timeout: float = personal_data_places.PATIENCE,  # seconds to wait for logs that services write
) -> ForgetReport:
    """Find the data of a customer in the store and, with `yes`, erase or pseudonymise it.

    Raises UsageError for an empty identifier or an unknown dataset, Temporary while runs are in progress or other processes use
    the data; call it again then, or after a kill: it continues.
    """
    names = _checked_names(customer, also, dataset, settings)
    key = forgetting_rows.hash_key(settings.store, create=yes)
    with _open_ledger(settings, yes) as ledger:
        plan = _find_customer(names, key, erase, dataset, ledger, settings)
        before = forgetting_rows.records_of(ledger, key, names) if ledger else []
        pending = [row for row in before if row["status"] == forgetting_rows.BEGUN]
        pending = [
            row
            for row in pending
            if row["request"] not in {r["request"] for r in before if r["status"] == forgetting_rows.DONE}
        ]
        report = ForgetReport((plan.person.erased and ERASE) or PSEUDONYMISE, found=plan.found, models=plan.models)
        report.models += [m for row in pending for m in row["models"] if m not in report.models]
        report.done_before = next(
            (row["at"].isoformat() for row in reversed(before) if row["status"] == forgetting_rows.DONE), ""
        )
        report.not_reached = personal_data_places.unreachable_places(
            settings, plan.person, _plan_sources(plan), plan.files.fixed
        )
        listed = forgetting_rows.is_suppressed(settings.store, plan.person) if before else False
        if not yes or ledger is None or (not plan.found and listed and not pending):
            return report
        who = by or getpass.getuser()
        subject = keyed_hash(key, names[0])
        report.request = pending[-1]["request"] if pending else secrets.token_hex(8)
        with lock(settings.store / FOLDER / ".running", "the record of forgotten customers", settings.lock_wait):
            ledger_rows.check_no_run_in_progress(ledger, run_id())
            about = {
                "request": report.request,
                "by": who,
                "subject": subject,
                "mode": report.mode,
                "models": report.models,
            }
            forgetting_rows.add_to_suppression_list(settings.store, plan.person, datetime.now(UTC))
            if not pending:
                _add_record(ledger, about, forgetting_rows.BEGUN, report, plan.person)
            _apply_plan(plan, ledger, settings, report, timeout)
            _add_record(ledger, about, forgetting_rows.DONE, report, plan.person)
        report.changed = True
    return report


def _checked_names(customer: str, also: Sequence[str], dataset: Sequence[str], settings: Settings) -> list[str]:
    names = [name.strip() for name in (customer, *also)]
    if not all(names):
        raise UsageError("an identifier is empty", next="pass the customer's customer_id")
    if any(name.startswith(PREFIX) for name in names):
        raise UsageError("this is a pseudonym", next="pass the customer's original identifier and --erase")
    known_datasets = datasets.dataset_names(settings.store)
    if absent := [name for name in dataset if name not in known_datasets]:
        raise UsageError(
            f"there is no dataset {absent[0]!r}", next=f"use one of: {', '.join(known_datasets) or 'none yet'}"
        )
    return list(dict.fromkeys(names))


@contextmanager
def _open_ledger(settings: Settings, write: bool) -> Iterator[Ledger | None]:
    """Yield the ledger; a copy of it for a dry run, None if there is no ledger yet."""
    file = personal_data_places.ledger_file(settings)
    if write or file is None:
        ledger = Ledger.of(settings)
        yield ledger
        ledger.close()
    elif file.exists():
        with databases.temporary_copy(file) as copy:
            ledger = Ledger(f"sqlite:///{copy}", settings.lock_wait)
            yield ledger
            ledger.close()
    else:
        yield None


def _find_customer(
    names: list[str], key: bytes, erase: bool, only_datasets: Sequence[str], ledger: Ledger | None, settings: Settings
) -> _ForgetPlan:
    """Return the occurrences of the person, also by identifiers found in the data, such as ids of the person's leads."""
    person = Person.of(
        [*names, *_log_hashes({*names, *map(canonical_identifier, names)}, settings)], key, erase, only_datasets
    )
    chosen = list(only_datasets) or datasets.dataset_names(settings.store)
    data = {name: datasets.find_in_dataset(settings.store, name, person) for name in chosen}
    if further := {name for hits in data.values() for name in hits.names} - person.spellings:
        person = person.with_names([*further, *_log_hashes(further, settings)])
        data = {name: datasets.find_in_dataset(settings.store, name, person) for name in chosen}
    versions = all_versions(ledger) if ledger else []
    models, runs = _models_and_runs(only_datasets, versions, ledger)
    rows = Counter[str]()
    if ledger:
        with ledger.read() as connection:
            rows = ledger_rows.count_rows(ledger_rows.find_rows(connection, person, models))
    files = personal_data_places.find_in_files(settings, person, runs, models)
    trained = [_affected_version(v, data, ledger) for v in versions if ledger and _datasets_with_person(v, data)]
    return _ForgetPlan(person, {n: h for n, h in data.items() if h}, rows, files, trained, (models, runs))


def _log_hashes(names: Sequence[str] | set[str], settings: Settings) -> list[str]:
    """Return the hashes of identifiers that logs contain if the contract requires hashing."""
    secret = log_secret(settings).encode()
    if not secret:
        return []
    return [hmac.new(secret, n.encode("utf-8", "surrogatepass"), sha256).hexdigest()[:32] for n in names]


def _models_and_runs(
    only_datasets: Sequence[str], versions: list[Version], ledger: Ledger | None
) -> tuple[set[str] | None, set[str] | None]:
    """Return the models and the runs that used the datasets; None for all of them."""
    if not only_datasets or ledger is None:
        return None, None
    models = {
        v.model for v in versions if not v.inputs or any(dataset.get("name") in only_datasets for dataset in v.inputs)
    }
    runs = {
        r.id
        for r in latest_runs(ledger, 1_000_000)
        if not r.inputs or any(dataset.get("name") in only_datasets for dataset in r.inputs)
    }
    return models, runs


def _datasets_with_person(version: Version, data: dict[str, datasets.DatasetHits]) -> list[str]:
    return [e["name"] for e in version.inputs if e.get("name") in data and e.get("digest") in data[e["name"]].digests]


def _affected_version(version: Version, data: dict[str, datasets.DatasetHits], ledger: Ledger | None) -> dict[str, Any]:
    live = champion_at_time(ledger, version.model) if ledger else None
    return {
        "model": version.model,
        "version": version.version,
        "created_at": version.created_at.isoformat(),
        "live": live is not None and live.version == version.version,
        "datasets": _datasets_with_person(version, data),
        "next": f"d2c run train -p model={version.model}",
    }


def _plan_sources(plan: _ForgetPlan) -> set[str]:
    return {source for hits in plan.data.values() for source in hits.sources}


def _without_identifiers(text: str, person: Person) -> str:
    """Return a text for the record without identifiers, also inside longer words such as file names."""
    for name in sorted(person.names | person.spellings, key=len, reverse=True):
        text = text.replace(name, MARKER) if len(name) >= databases.LONG_NAME else text
    return person.redact_text(text)


def _add_record(ledger: Ledger, about: dict[str, Any], status: str, report: ForgetReport, person: Person) -> None:
    """Append to the record; identifiers in names of files and folders are removed."""
    counts = {
        "places": {_without_identifiers(place, person): count for place, count in report.found.items()},
        "datasets": report.datasets,
        "not_reached": [_without_identifiers(line, person) for line in report.not_reached],
    }
    forgetting_rows.add_record(ledger, {**about, **counts, "status": status, "at": datetime.now(UTC)})


def _apply_plan(plan: _ForgetPlan, ledger: Ledger, settings: Settings, report: ForgetReport, timeout: float) -> None:
    """Change all places, the datasets last, because further identifiers of the person are found in them."""
    models, runs = plan.scope
    personal_data_places.seal_logs(settings, plan.person, models, timeout)
    ledger_rows.scrub_ledger(ledger, plan.person, models)
    ledger_rows.vacuum(ledger)
    personal_data_places.remove_from_files(settings, plan.person, runs, models)
    chosen = sorted(plan.person.datasets) or datasets.dataset_names(settings.store)
    for name in chosen:
        changed = datasets.rewrite_dataset(settings.store, name, plan.person, settings.lock_wait)
        if changed:
            report.datasets[name] = changed
        personal_data_places.update_source_digest(settings.store, name)
    remaining = _remaining_hits(plan, ledger, settings)
    if remaining:
        raise Temporary(
            "new data of the customer were written in the meantime",
            where=", ".join(f"{place}: {count}" for place, count in remaining.items()),
            next="run the same command again",
        )


def _remaining_hits(plan: _ForgetPlan, ledger: Ledger, settings: Settings) -> dict[str, int]:
    """Return the remaining occurrences of the person."""
    models, runs = plan.scope
    with ledger.read() as connection:
        rows = ledger_rows.count_rows(ledger_rows.find_rows(connection, plan.person, models))
    chosen = sorted(plan.person.datasets) or datasets.dataset_names(settings.store)
    data = {name: hits for name in chosen if (hits := datasets.find_in_dataset(settings.store, name, plan.person))}
    return _ForgetPlan(
        plan.person, data, rows, personal_data_places.find_in_files(settings, plan.person, runs, models), [], plan.scope
    ).found
