"""Sunsets: older major versions of a contract that are still supported, and until when."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import zip_longest

from d2c_mlops.ledger.store import Ledger
from d2c_mlops.registry.promotion_history import promotions_until
from d2c_mlops.registry.versions import Version, find_version
from d2c_mlops.serving.predict.older_contracts import OlderContract
from d2c_mlops.settings import Settings


def supported_older_contracts(
    ledger: Ledger, version: Version, settings: Settings
) -> list[tuple[OlderContract, Version]]:
    """Return the older major versions beside `version`, oldest first, each with its last champion.

    A version is supported until the date in `sunset.MAJOR` of the model's section, else for [service] keep_majors days from the
    promotion that replaced it. Ended versions are listed too, because their callers get 410.
    """
    newest = version.schema.major
    records = promotions_until(ledger, version.model)
    spoken = {number: find_version(ledger, version.model, number) for number in {record.version for record in records}}
    last: dict[int, tuple[Version, datetime | None]] = {}
    for record, after in zip_longest(records, records[1:]):
        version_ = spoken[record.version]
        last[version_.schema.major] = (version_, after.at if after is not None else None)
    promises = []
    for major, (version_, since) in sorted(last.items()):
        if major < newest:
            end = sunset_time(version.model, major, since, settings)
            promises.append(
                (OlderContract(major, version_.version, version_.schema.version, newest, since, end), version_)
            )
    return promises


def sunset_time(model: str, major: int, since: datetime | None, settings: Settings) -> datetime | None:
    """Return the time until which a major version is supported; None while it is not replaced and no date is set."""
    configured = settings.model(model).sunset.get(str(major))
    if configured is None and since is None:
        return None
    day = date.fromisoformat(configured) if configured else since.date() + timedelta(days=settings.service.keep_majors)  # type: ignore[union-attr]
    return datetime.combine(day, time(23, 59, 59), UTC)


def sunset_texts(ledger: Ledger, version: Version, settings: Settings, now: datetime | None = None) -> list[str]:
    """Return a sentence about each older major version, shown after the promotion of `version`."""
    lines = []
    for old, _ in supported_older_contracts(ledger, version, settings):
        how = f"`sunset.{old.major} = DAY` in [model:{version.model}] sets another day"
        if old.sunset is not None and old.sunset < (now or datetime.now(UTC)):
            lines.append(f"contract {old.contract} ended on {old.sunset:%Y-%m-%d}: /v{old.major} answers 410")
        elif old.sunset is not None:
            lines.append(
                f"contract {old.contract} is served by version {old.version} at /v{old.major} until {old.sunset:%Y-%m-%d}; {how}"
            )
    return lines
