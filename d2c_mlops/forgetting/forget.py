"""Forget a customer: find, list, change everything that can be changed here, and leave a record."""

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
from d2c_mlops.forgetting import databases, datasets, ledger_rows, places, records
from d2c_mlops.forgetting.person import MARKER, Person
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.registry.promotion_history import champion
from d2c_mlops.registry.versions import Version, all_versions
from d2c_mlops.runs.execution.records import latest
from d2c_mlops.runs.recording import run_id
from d2c_mlops.serving.paths import log_secret
from d2c_mlops.settings import Settings
from d2c_mlops.suppression import ERASE, FOLDER, PREFIX, PSEUDONYMISE, canonical, keyed_hash


@dataclass
class Forgetting:
    """What was found of a customer, and what was done."""

    mode: str  # pseudonymise or erase
    changed: bool = False  # False for a dry run, and where there was nothing to do
    found: dict[str, int] = field(default_factory=dict)  # rows, records or places of a text, by place
    datasets: dict[str, dict[str, str]] = field(default_factory=dict)  # by name: new digest by the former one
    models: list[dict[str, Any]] = field(default_factory=list)  # versions trained on data that held the customer
    not_reached: list[str] = field(default_factory=list)
    done_before: str = ""  # when the same customer was forgotten before
    request: str = ""  # of the record

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return dict(vars(self))


@dataclass
class _Plan:
    person: Person
    data: dict[str, datasets.DatasetHits]
    rows: Counter[str]
    files: places.FileHits
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
    dataset: Sequence[str] = (),  # where the identifiers hold; all datasets when empty
    erase: bool = False,  # remove rows, instead of replacing identifiers by pseudonyms
    yes: bool = False,  # do it; without, nothing is changed
    by: str | None = None,  # the user of this machine when None
    patience: float = places.PATIENCE,  # seconds to wait for logs that services write
) -> Forgetting:
    """Find a customer in the store and, with `yes`, erase or pseudonymise the customer everywhere.

    Raises UsageError for no identifier or an unknown dataset, Temporary while runs are going or others use what is to be
    changed; the same call goes on then, and after a kill.
    """
    names = _names(customer, also, dataset, settings)
    key = records.key_of(settings.store, create=yes)
    with _ledger(settings, yes) as ledger:
        plan = _look(names, key, erase, dataset, ledger, settings)
        before = records.rows_of(ledger, key, names) if ledger else []
        pending = [row for row in before if row["status"] == records.BEGUN]
        pending = [
            row
            for row in pending
            if row["request"] not in {r["request"] for r in before if r["status"] == records.DONE}
        ]
        told = Forgetting((plan.person.erased and ERASE) or PSEUDONYMISE, found=plan.found, models=plan.models)
        told.models += [m for row in pending for m in row["models"] if m not in told.models]
        told.done_before = next(
            (row["at"].isoformat() for row in reversed(before) if row["status"] == records.DONE), ""
        )
        told.not_reached = places.not_reached(settings, plan.person, _sources(plan), plan.files.fixed)
        listed = records.is_listed(settings.store, plan.person) if before else False
        if not yes or ledger is None or (not plan.found and listed and not pending):
            return told
        who = by or getpass.getuser()
        subject = keyed_hash(key, names[0])
        told.request = pending[-1]["request"] if pending else secrets.token_hex(8)
        with lock(settings.store / FOLDER / ".running", "the record of forgotten customers", settings.lock_wait):
            ledger_rows.no_run_is_going(ledger, run_id())
            about = {"request": told.request, "by": who, "subject": subject, "mode": told.mode, "models": told.models}
            records.suppress(settings.store, plan.person, datetime.now(UTC))
            if not pending:
                _note(ledger, about, records.BEGUN, told, plan.person)
            _change(plan, ledger, settings, told, patience)
            _note(ledger, about, records.DONE, told, plan.person)
        told.changed = True
    return told


def _names(customer: str, also: Sequence[str], dataset: Sequence[str], settings: Settings) -> list[str]:
    names = [name.strip() for name in (customer, *also)]
    if not all(names):
        raise UsageError("an identifier is empty", next="name the customer as in the column customer_id")
    if any(name.startswith(PREFIX) for name in names):
        raise UsageError("this is a pseudonym", next="name the customer's own identifier and --erase")
    known = datasets.dataset_names(settings.store)
    if absent := [name for name in dataset if name not in known]:
        raise UsageError(f"there is no dataset {absent[0]!r}", next=f"use one of: {', '.join(known) or 'none yet'}")
    return list(dict.fromkeys(names))


@contextmanager
def _ledger(settings: Settings, write: bool) -> Iterator[Ledger | None]:
    """Yield the ledger; a copy of it where nothing is to be changed, None where there is none yet."""
    file = places.ledger_file(settings)
    if write or file is None:
        ledger = Ledger.of(settings)
        yield ledger
        ledger.close()
    elif file.exists():
        with databases.copied(file) as copy:
            ledger = Ledger(f"sqlite:///{copy}", settings.lock_wait)
            yield ledger
            ledger.close()
    else:
        yield None


def _look(
    names: list[str], key: bytes, erase: bool, wanted: Sequence[str], ledger: Ledger | None, settings: Settings
) -> _Plan:
    """Return where the person is, also by identifiers that the data give: the ids of the person's leads."""
    person = Person.of([*names, *_hashed({*names, *map(canonical, names)}, settings)], key, erase, wanted)
    chosen = list(wanted) or datasets.dataset_names(settings.store)
    data = {name: datasets.find(settings.store, name, person) for name in chosen}
    if further := {name for hits in data.values() for name in hits.names} - person.spellings:
        person = person.also([*further, *_hashed(further, settings)])
        data = {name: datasets.find(settings.store, name, person) for name in chosen}
    versions = all_versions(ledger) if ledger else []
    models, runs = _scope(wanted, versions, ledger)
    rows = Counter[str]()
    if ledger:
        with ledger.read() as connection:
            rows = ledger_rows.counts(ledger_rows.find(connection, person, models))
    files = places.find(settings, person, runs, models)
    trained = [_trained(v, data, ledger) for v in versions if ledger and _held(v, data)]
    return _Plan(person, {n: h for n, h in data.items() if h}, rows, files, trained, (models, runs))


def _hashed(names: Sequence[str] | set[str], settings: Settings) -> list[str]:
    """Return identifiers as they stand in logs, where the contract has them hashed."""
    secret = log_secret(settings).encode()
    if not secret:
        return []
    return [hmac.new(secret, n.encode("utf-8", "surrogatepass"), sha256).hexdigest()[:32] for n in names]


def _scope(
    wanted: Sequence[str], versions: list[Version], ledger: Ledger | None
) -> tuple[set[str] | None, set[str] | None]:
    """Return the models and the runs that learned from datasets; None for all of them."""
    if not wanted or ledger is None:
        return None, None
    models = {v.model for v in versions if not v.inputs or any(each.get("name") in wanted for each in v.inputs)}
    runs = {
        r.id for r in latest(ledger, 1_000_000) if not r.inputs or any(each.get("name") in wanted for each in r.inputs)
    }
    return models, runs


def _held(version: Version, data: dict[str, datasets.DatasetHits]) -> list[str]:
    return [e["name"] for e in version.inputs if e.get("name") in data and e.get("digest") in data[e["name"]].digests]


def _trained(version: Version, data: dict[str, datasets.DatasetHits], ledger: Ledger | None) -> dict[str, Any]:
    live = champion(ledger, version.model) if ledger else None
    return {
        "model": version.model,
        "version": version.version,
        "created_at": version.created_at.isoformat(),
        "live": live is not None and live.version == version.version,
        "datasets": _held(version, data),
        "next": f"d2c run train -p model={version.model}",
    }


def _sources(plan: _Plan) -> set[str]:
    return {source for hits in plan.data.values() for source in hits.sources}


def _unnamed(text: str, person: Person) -> str:
    """Return a text of the record without identifiers, also within longer words such as names of files."""
    for name in sorted(person.names | person.spellings, key=len, reverse=True):
        text = text.replace(name, MARKER) if len(name) >= databases.LONG_NAME else text
    return person.text(text)


def _note(ledger: Ledger, about: dict[str, Any], status: str, told: Forgetting, person: Person) -> None:
    """Append to the record; names of files and folders may hold the identifier, and lose it."""
    counts = {
        "places": {_unnamed(place, person): count for place, count in told.found.items()},
        "datasets": told.datasets,
        "not_reached": [_unnamed(line, person) for line in told.not_reached],
    }
    records.note(ledger, {**about, **counts, "status": status, "at": datetime.now(UTC)})


def _change(plan: _Plan, ledger: Ledger, settings: Settings, told: Forgetting, patience: float) -> None:
    """Change all places, the datasets last: the other identifiers of the person are found by them."""
    models, runs = plan.scope
    places.seal_logs(settings, plan.person, models, patience)
    ledger_rows.scrub(ledger, plan.person, models)
    ledger_rows.clean(ledger)
    places.remove(settings, plan.person, runs, models)
    chosen = sorted(plan.person.datasets) or datasets.dataset_names(settings.store)
    for name in chosen:
        changed = datasets.rewrite(settings.store, name, plan.person, settings.lock_wait)
        if changed:
            told.datasets[name] = changed
        places.renew_sources(settings.store, name)
    left = _left(plan, ledger, settings)
    if left:
        raise Temporary(
            "the customer has come back meanwhile",
            where=", ".join(f"{place}: {count}" for place, count in left.items()),
            next="run the same command again",
        )


def _left(plan: _Plan, ledger: Ledger, settings: Settings) -> dict[str, int]:
    """Return where the person still is."""
    models, runs = plan.scope
    with ledger.read() as connection:
        rows = ledger_rows.counts(ledger_rows.find(connection, plan.person, models))
    chosen = sorted(plan.person.datasets) or datasets.dataset_names(settings.store)
    data = {name: hits for name in chosen if (hits := datasets.find(settings.store, name, plan.person))}
    return _Plan(plan.person, data, rows, places.find(settings, plan.person, runs, models), [], plan.scope).found
