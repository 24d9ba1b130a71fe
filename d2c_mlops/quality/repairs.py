"""Repairs of a training run, asked for by name: a dataset of their own with what was repaired in its manifest; the original is left alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from d2c_mlops.data.ingestion.reading import read_location
from d2c_mlops.data.manifest import Manifest
from d2c_mlops.data.quality.representation import binned, effective_size, raking_weights
from d2c_mlops.data.schemas import KEYS, TIME_COLUMN
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables, day_end
from d2c_mlops.data.validation import REFERENCES
from d2c_mlops.errors import DataRefused, UsageError

Frames = dict[str, pd.DataFrame]
SUFFIX = "-repaired"


@dataclass(frozen=True)
class Repair:
    """A repair that was asked for, with its value where it takes one."""

    name: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.value}".strip()


def parse_repairs(text: str) -> list[Repair]:
    """Return the repairs of a text such as `net_returns, window 180`. Raises UsageError with what is wrong in it."""
    repairs = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        name, _, value = part.partition(" ")
        if name not in REPAIRS:
            near = get_close_matches(name, list(REPAIRS), n=1)
            raise UsageError(
                f"there is no repair {name!r}", where="repairs", next=f"use {near[0] if near else ', '.join(REPAIRS)}"
            )
        example = EXAMPLES.get(name, "")
        if bool(value.strip()) != bool(example):
            what = f"{name} takes a value" if example else f"{name} takes no value, got {value.strip()!r}"
            raise UsageError(what, where="repairs", next=f"write {f'{name} {example}'.strip()}")
        repairs.append(Repair(name, value.strip()))
    twice = [repair.name for number, repair in enumerate(repairs) if repair.name in [r.name for r in repairs[:number]]]
    if twice:
        raise UsageError(f"{twice[0]} is asked for twice", where="repairs", next="name each repair once")
    return sorted(repairs, key=lambda repair: list(REPAIRS).index(repair.name))


def repair_dataset(store: Path, tables: Tables, text: str, as_of: date, *, now: datetime) -> Manifest:
    """Write the dataset NAME-repaired: a stored one as known at the end of `as_of`, repaired; return its manifest.

    Repairs are done in the order of `REPAIRS`, whatever the order of the text. The manifest's source names the dataset and
    its digest, its notes each repair with the rows that it changed. Raises UsageError for an unknown repair, DataRefused
    where no rows would stay.
    """
    repairs = parse_repairs(text)
    origin = tables.manifest
    if origin is None or not repairs:
        what = "tables in memory cannot be repaired by name" if origin is None else "no repair is named"
        raise UsageError(what, where="repairs", next=f"use a dataset of the store, and one of: {', '.join(REPAIRS)}")
    past = tables.before(as_of)
    frames = {name: past[name] for name in past}
    notes = list(origin.notes)
    for repair in repairs:
        frames, note = REPAIRS[repair.name](frames, repair.value, as_of, tables.zone)
        notes.append(f"repair {repair}: {note}")
    frames = without_orphans(frames)
    if any(frames[name].empty and not past[name].empty for name in ("orders", "order_lines") if name in frames):
        raise DataRefused(f"no rows stay after {', '.join(map(str, repairs))}", where=origin.name, next="repair less")
    source = f"repair of {origin.name} {origin.digest}: {', '.join(map(str, repairs))}"
    frames = {name: frame.reset_index(drop=True) for name, frame in frames.items()}
    name = origin.name.removesuffix(SUFFIX) + SUFFIX
    manifest, _ = write_dataset(
        store, name, frames, source, layout=origin.layout, created_at=now, notes=notes, zone=origin.zone, zone_from=origin.zone_from
    )  # fmt: skip
    return manifest


def without_orphans(frames: Frames) -> Frames:
    """Return tables without rows that refer to rows that are gone, such as lines of an order."""
    result = dict(frames)
    for _ in REFERENCES:
        for reference in REFERENCES:
            if reference.table not in result or reference.column not in result.get(reference.target, pd.DataFrame()):
                continue
            column = result[reference.table][reference.column]
            stays = column.isna() | column.isin(result[reference.target][reference.column])
            if not stays.all():
                result[reference.table] = result[reference.table][stays]
    return result


def _lines(frames: Frames, repair: str) -> pd.DataFrame:
    if "order_lines" not in frames:
        raise UsageError(
            f"{repair} needs order lines", where="repairs", next=f"leave it out; tables: {', '.join(frames)}"
        )
    return frames["order_lines"]


def drop_duplicates(frames: Frames, value: str, as_of: date, zone: str) -> tuple[Frames, str]:
    """Leave out order lines that are equal to an earlier one in all but their number."""
    lines = _lines(frames, "drop_duplicates")
    again = lines.duplicated([name for name in lines.columns if name != "line_no"])
    return frames | {"order_lines": lines[~again]}, f"{int(again.sum()):,} order lines left out"


def one_date_basis(frames: Frames, value: str, as_of: date, zone: str) -> tuple[Frames, str]:
    """Date order lines by their order."""
    lines = _lines(frames, "one_date_basis")
    if "orders" not in frames:
        raise UsageError("one_date_basis needs orders", where="repairs", next="leave it out")
    time = lines["order_id"].map(frames["orders"].set_index("order_id")["ordered_at"])
    moved = time.notna() & (time != lines["ordered_at"])
    dated = lines.assign(ordered_at=time.where(moved, lines["ordered_at"]).astype(lines["ordered_at"].dtype))
    return frames | {"order_lines": dated}, f"{int(moved.sum()):,} order lines dated by their order"


def net_returns(frames: Frames, value: str, as_of: date, zone: str) -> tuple[Frames, str]:
    """Take returned units and cancelled lines off the units sold; what came back whole is left out."""
    lines = _lines(frames, "net_returns")
    net = (lines["quantity"] - lines["returned_quantity"]).mask(lines["cancelled"], 0.0)
    changed = net < lines["quantity"]
    share = net / lines["quantity"]
    repaired = lines.assign(
        quantity=net, discount=lines["discount"] * share, returned_quantity=0.0,
        returned_at=lines["returned_at"].mask(changed), cancelled=False, cancelled_at=lines["cancelled_at"].mask(changed),
    )  # fmt: skip
    units = float((lines["quantity"] - net).sum())
    return frames | {
        "order_lines": repaired[net > 0]
    }, f"{units:,.0f} units of {int(changed.sum()):,} order lines taken off"


def choose_window(frames: Frames, value: str, as_of: date, zone: str) -> tuple[Frames, str]:
    """Leave out orders and lines before the last days."""
    if not value.isdigit() or not int(value):
        raise UsageError(f"window {value!r} is no number of days", where="repairs", next="write window 180")
    start = day_end(as_of - timedelta(days=min(int(value), as_of.toordinal() - 2)), zone)
    result, rows = dict(frames), 0
    for name in ("orders", "order_lines"):
        if name in frames:
            late = frames[name][TIME_COLUMN[name]] >= start
            result[name], rows = frames[name][late], rows + int((~late).sum())
    return result, f"{rows:,} rows before the last {int(value):,} days left out"


def reweight(frames: Frames, value: str, as_of: date, zone: str) -> tuple[Frames, str]:
    """Leave out orders so that columns they share with a population (a file) have its distribution; rows are drawn by their key."""
    population = next(iter(read_location(value, None, None).frames.values()))
    name = "orders" if "orders" in frames else "leads"
    if name not in frames:
        raise UsageError("reweight needs orders or leads", where="repairs", next="leave it out")
    rows = frames[name]
    identifiers = {*KEYS[name], "customer_id", "order_id", "lead_id"}
    columns = {
        str(column): pair
        for column in rows.columns
        if column in population and column not in identifiers and (pair := binned(rows[column], population[column]))
    }
    if not columns or rows.empty:
        shared = ", ".join(str(c) for c in rows.columns if c in population) or "none"
        raise UsageError(
            f"no column of {name} can be compared with {value} (shared: {shared})",
            where="repairs",
            next="give the population columns such as country or channel, with at most 40 values",
        )
    weights = raking_weights({n: p[0] for n, p in columns.items()}, {n: p[1] for n, p in columns.items()})
    chance = weights / max(float(np.quantile(weights, 0.99)), 1e-12)
    draw = pd.util.hash_pandas_object(rows[KEYS[name]].astype("str").agg("|".join, axis=1), index=False).to_numpy()
    stays = draw / 2.0**64 < chance
    note = (
        f"{int((~stays).sum()):,} of {len(rows):,} rows of {name} left out so that {', '.join(columns)} are as in {Path(value).name}; "
        f"weights would have left {effective_size(weights) / len(weights):.0%} of the rows in effect"
    )
    return frames | {name: rows[stays]}, note


# In the order in which they are done: dates before the window, units before rows are drawn.
REPAIRS: dict[str, Callable[[Frames, str, date, str], tuple[Frames, str]]] = {
    "drop_duplicates": drop_duplicates,
    "one_date_basis": one_date_basis,
    "net_returns": net_returns,
    "window": choose_window,
    "reweight": reweight,
}
EXAMPLES = {"window": "180", "reweight": "population.csv"}


def repair_notes(manifest: Manifest) -> Sequence[str]:
    """Return what the notes of a manifest say of repairs."""
    return [note for note in manifest.notes if note.startswith("repair ")]
