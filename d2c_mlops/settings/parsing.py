"""Parse texts of a file, a variable or a command line as typed values; errors suggest the closest valid value."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, timedelta, timezone, tzinfo
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_type_hints
from zoneinfo import ZoneInfo, available_timezones

from d2c_mlops.errors import Failure, did_you_mean

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
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}  # seconds


def home_path(location: str | Path) -> Path:
    """Return a path with ~ or ~user as that user's home folder; as it is where there is no such user, or no home."""
    try:
        return Path(location).expanduser()
    except RuntimeError:
        return Path(location)


@cache
def field_types(cls: type) -> dict[str, Any]:
    """Return the types of a class's fields."""
    return get_type_hints(cls)


def convert_options(
    cls: type, known_options: Mapping[str, Any], options: Mapping[str, Any], where: str, failures: list[Failure]
) -> dict[str, Any]:
    """Return the values of a class's known options; unknown keys and wrong types are added to the failures."""
    kinds = field_types(cls)
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in known_options or key not in kinds:
            failures.append(Failure(f"unknown key{_nearest_name(key, known_options)}", f"{where} {key}"))
            continue
        try:
            values[key] = _read_value(kinds[key], value)
        except ValueError:
            failures.append(Failure(f"{value!r} is not of type {_type_name(kinds[key])}", f"{where} {key}"))
    return values


def _read_value(kind: Any, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if kind is bool:
        if value.strip().lower() not in TEXTS:
            raise ValueError(value)
        return TEXTS[value.strip().lower()]
    if kind in (int, float):
        number = kind(value)
        if not math.isfinite(number):
            raise ValueError(value)
        return number
    if isinstance(kind, UnionType):
        return _read_value(get_args(kind)[0], value) if value.strip() else None
    if kind is Path or kind is str:
        return value
    return tuple(part for part in re.split(r"[\s,]+", value.strip()) if part)


LARGEST = 1 << 60  # bytes: beyond it no number of a setting is meant
LONGEST = 36_525 * 86_400  # seconds: times that far away are no times of a calendar


def is_size(text: str) -> bool:
    """Return whether a text is a size above 0."""
    try:
        return parse_size(text) > 0
    except ValueError:
        return False


def parse_size(text: str) -> int:
    """Return a size such as 512MB, 2GB or 1.5GiB in bytes. Raises ValueError."""
    match = re.fullmatch(r"([\d.]+)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if not match:
        raise ValueError(text)
    number, unit, binary = match.groups()
    number_of_bytes = float(number) * (1024 if binary else 1000) ** " kmgt".index(unit or " ")
    if number_of_bytes > LARGEST:
        raise ValueError(f"{text!r} is more than an exbibyte")
    return int(number_of_bytes)


def parse_age(text: str) -> float:
    """Return an age such as 90d, 90 days, 12h, 30m or 45s in seconds. Raises ValueError."""
    if days := re.fullmatch(r"\s*(\d+) (?:day|days)\s*", text):
        text = f"{days[1]}d"
    number, unit = text.strip()[:-1], text.strip()[-1:]
    if unit not in UNITS or not number.isdigit():
        raise ValueError(f"{text!r} is not an age: write 90d, 12h, 30m or 45s")
    if len(number) > 10 or int(number) * UNITS[unit] > LONGEST:
        raise ValueError(f"{text!r} is longer than 100 years")
    return float(int(number) * UNITS[unit])


def parse_release(text: str) -> tuple[str, float]:
    """Return how a version is released, champion, shadow or share, and the share (0..1) of 10%. Raises ValueError."""
    word = text.strip().lower()
    if word in ("champion", "shadow"):
        return word, 0.0
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%", word)
    if match and 0 < float(match[1]) <= 100:
        return "share", float(match[1]) / 100
    raise ValueError(f"{text!r} is not a release: write champion, shadow, or a share of the keys such as 10%")


class RetrainRule(NamedTuple):
    """When a model is retrained, as a setting names it; without any reason: never."""

    cadence_days: float | None = None
    on_drift: bool = False
    on_new_data: float | None = None  # share of new rows, above 0
    on_expected_loss: bool = False


CADENCES = {"daily": 1.0, "weekly": 7.0, "monthly": 30.0}
RETRAIN_WORDS = ("never", *CADENCES, "every 28 days", "on drift", "on new data 20%", "on expected loss")
LONGEST_CADENCE = 3660.0  # days


def parse_retrain(text: str) -> RetrainRule:
    """Return when a model is retrained, from a text such as `every 28 days or on drift`. Raises ValueError."""
    parts = [part.strip() for part in re.split(r"\bor\b", " ".join(text.lower().split()))]
    if parts == ["never"]:
        return RetrainRule()
    rule = RetrainRule()
    for part in parts:
        if part == "never":
            raise ValueError(f"{text!r}: never is not combined with other reasons")
        chosen = _retrain_part(part)
        if twice := [name for name in chosen if getattr(rule, name)]:
            what = "two cadences" if twice == ["cadence_days"] else f"{part!r} twice"
            raise ValueError(f"{text!r} has {what}: write each reason once")
        rule = rule._replace(**chosen)
    return rule


def _retrain_part(part: str) -> dict[str, Any]:
    """Return the field of RetrainRule that one part of the text stands for, with its value."""
    if part in CADENCES:
        return {"cadence_days": CADENCES[part]}
    if part in ("on drift", "on expected loss"):
        return {part.replace(" ", "_"): True}
    if match := re.fullmatch(r"every (\d{1,4}(?:\.\d+)?) (day|week)s?", part):
        days = float(match[1]) * (7 if match[2] == "week" else 1)
        if not 1 <= days <= LONGEST_CADENCE:
            raise ValueError(f"{part!r}: a cadence has from 1 to {LONGEST_CADENCE:.0f} days")
        return {"cadence_days": days}
    if match := re.fullmatch(r"on new data (\d{1,4}(?:\.\d+)?) ?%", part):
        if not 0 < float(match[1]) <= 1000:
            raise ValueError(f"{part!r}: the share of new rows is above 0 % and at most 1000 %")
        return {"on_new_data": float(match[1]) / 100}
    hint = did_you_mean(part, RETRAIN_WORDS) or f"; write {', '.join(RETRAIN_WORDS)}, or several of them joined by or"
    raise ValueError(f"{part!r} is not a reason to retrain{hint}")


BACKENDS = ("sequential", "threading", "loky", "dask", "ray", "spark")
CLUSTERS = ("dask", "ray", "spark")  # that may be elsewhere


class Backend(NamedTuple):
    """Where independent jobs run."""

    name: str = "sequential"
    workers: int = 0  # 0 = one for each core, or all of a cluster
    address: str = ""  # of a cluster; empty: started on this machine


def parse_backend(text: str) -> Backend:
    """Return a backend such as loky, loky:4 or dask:tcp://host:8786. Raises ValueError."""
    name, _, place = text.strip().partition(":")
    if name not in BACKENDS:
        near = get_close_matches(name, BACKENDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(BACKENDS)}"
        raise ValueError(f"{text!r} is not a backend; {hint}")
    if not place and not text.strip().endswith(":"):
        return Backend(name)
    if place.isdecimal() and 0 < int(place) <= MOST_WORKERS and name != "sequential":
        return Backend(name, int(place))
    if name in CLUSTERS and place and not place.isdecimal():
        return Backend(name, 0, place)
    places = f"a number of workers up to {MOST_WORKERS:,}" + (
        " or the address of a cluster" if name in CLUSTERS else ""
    )
    allowed = "nothing" if name == "sequential" else places
    raise ValueError(f"{text!r}: after {name} follows {allowed}, as in loky:4 or dask:tcp://host:8786")


MOST_WORKERS = 10_000


OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2}):?(\d{2})?")


@cache
def time_zone(name: str) -> tzinfo:
    """Return the time zone of an IANA name such as Europe/Berlin or a fixed offset such as UTC-08:00. Raises ValueError."""
    if name in ("UTC", "Z"):
        return UTC
    if offset := OFFSET.fullmatch(name):
        sign, hours, minutes = offset.groups()
        ahead = timedelta(hours=int(hours), minutes=int(minutes or 0))
        if int(minutes or 0) < 60 and ahead <= timedelta(hours=14):
            return timezone(-ahead if sign == "-" else ahead) if ahead else UTC
    if name in available_timezones():
        return ZoneInfo(name)
    raise ValueError(f"{name!r} is not a time zone{did_you_mean(name, available_timezones())}")


def _type_name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def _nearest_name(name: str, known_names: Iterable[str]) -> str:
    return did_you_mean(name, known_names, cutoff=0.5) or f"; known: {', '.join(known_names)}"
