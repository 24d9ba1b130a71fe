"""Remove a person from datasets: every stored version is rewritten and can still be opened by its former digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from d2c_mlops.data.days import local_days
from d2c_mlops.data.manifest import Manifest, TablePart, TableParts
from d2c_mlops.data.schemas import DAYS, KEYS
from d2c_mlops.data.store import content_digest, dataset_digest, remove_unreferenced, translate_full_disk, write_atomic
from d2c_mlops.file_lock import lock
from d2c_mlops.forgetting.person import Person
from d2c_mlops.suppression import KEYED, ORDER, add_orders, cell_object, json_leaves, scrub_table

SEARCHED_COLUMNS = {
    "customers": ["customer_id"],
    "orders": ["customer_id", "order_id"],
    "leads": ["lead_id", "fields"],
    **{table: ["keys"] for table in KEYED},
}


@dataclass
class DatasetHits:
    """Occurrences of a person in a dataset, and further identifiers of the person."""

    rows: Counter[str] = field(default_factory=Counter)  # by table, of the current version
    former: Counter[str] = field(default_factory=Counter)  # by table, of parts that only former versions contain
    digests: set[str] = field(default_factory=set)  # of versions that contain the person
    names: set[str] = field(
        default_factory=set
    )  # identifiers as written in the data, and lead_id of the person's leads
    orders: set[str] = field(default_factory=set)  # order_id of the person's orders
    sources: set[str] = field(default_factory=set)  # sources of the rows

    def __bool__(self) -> bool:
        return bool(self.rows or self.former)


def dataset_names(store: Path) -> list[str]:
    """Return the names of the datasets in the store, including those without a current manifest."""
    return sorted(p.name for p in (store / "data").glob("*/") if (p / "manifests").is_dir())


def manifest_files(folder: Path) -> list[Path]:
    """Return the manifests of all versions, then the current one."""
    return [*sorted((folder / "manifests").glob("[!.]*.json")), *[f for f in [folder / "manifest.json"] if f.exists()]]


def read_manifest_file(path: Path) -> Manifest:
    """Return the manifest in a file."""
    return Manifest.from_json(path.read_text(encoding="utf-8"))


def find_in_dataset(store: Path, name: str, person: Person) -> DatasetHits:
    """Return the occurrences of the person in all versions of a dataset."""
    folder, hits = store / "data" / name, DatasetHits()
    current = {p.path for t in read_manifest_file(folder / "manifest.json").tables.values() for p in t.parts} \
        if (folder / "manifest.json").exists() else set()  # fmt: skip
    holding: set[str] = set()
    for table in ORDER:
        for file in sorted((folder / "parts" / table).rglob("[!.]*.parquet")):
            path = file.relative_to(folder).as_posix()
            count = _count_hits(file, table, person, hits.orders, hits.names)
            if count:
                (hits.rows if path in current else hits.former)[table] += count
                holding.add(path)
    for file in manifest_files(folder):
        manifest = read_manifest_file(file)
        if holding & {part.path for table in manifest.tables.values() for part in table.parts}:
            hits.digests |= {manifest.digest, *([] if file.parent == folder else [file.stem])}
            hits.sources.add(manifest.source)
    return hits


def _count_hits(file: Path, table: str, person: Person, orders: set[str], names: set[str]) -> int:
    """Return the number of rows about the person in a part; add the person's order ids to `orders` and identifiers to `names`."""
    if table == "order_lines":
        if not orders or not person.erased:
            return 0
        column = pq.read_table(file, columns=["order_id"], partitioning=None).column(0)
        return int(pc.sum(pc.is_in(column, pa.array(sorted(orders), pa.string()))).as_py() or 0)
    read = pq.read_table(file, columns=SEARCHED_COLUMNS[table], partitioning=None)
    if table in ("leads", *KEYED):
        count = 0
        for row in read.to_pylist():
            values = cell_object(row.get("fields") or row.get("keys"))
            if person.is_value(row.get("lead_id"), "lead_id") or any(
                person.is_value(v, n) for n, v in json_leaves(values)
            ):
                count += 1
                names |= {row["lead_id"]} if table == "leads" else set()
        return count
    values = read.column("customer_id").to_pylist()
    rows = [i for i, value in enumerate(values) if person.is_value(value, "customer_id")]
    if table == "orders":
        ids = read.column("order_id").to_pylist()
        orders |= {ids[i] for i in rows}
    names |= {values[i] for i in rows}
    return len(rows)


def rewrite_dataset(store: Path, name: str, person: Person, timeout: float) -> dict[str, str]:
    """Rewrite all versions of a dataset without the person; return the new digests by the former ones.

    New parts and manifests are written first, then each manifest is replaced, and unreferenced files are removed last:
    after a kill in between, all versions are complete, and the same call continues. Former digests open the rewritten version.
    """
    folder = store / "data" / name
    changed: dict[str, str] = {}
    if person.erased and (orders := find_in_dataset(store, name, person).orders):
        add_orders(store, person.key, name, orders)
    with translate_full_disk(folder), lock(folder, "this dataset", timeout):
        for file in manifest_files(folder):
            manifest = read_manifest_file(file)
            new = _manifest_without(folder, manifest, person)
            if new == manifest:
                continue
            content = new.to_json().encode()
            write_atomic(folder / "manifests" / f"{new.digest}.json", content, private=True)
            write_atomic(file, content, private=True)
            changed |= {manifest.digest: new.digest} if new.digest != manifest.digest else {}
        remove_unreferenced(folder)
    return changed


def _manifest_without(folder: Path, manifest: Manifest, person: Person) -> Manifest:
    gone: set[str] = set()
    tables = dict(manifest.tables)
    for table in ORDER:
        if table in tables:
            tables[table] = _table_without(folder, manifest, table, person, gone)
    notes = tuple(person.redact_text(note) for note in manifest.notes)
    if tables == manifest.tables and notes == manifest.notes:
        return manifest
    word = "erased" if person.erased else "pseudonymised"
    note = f"a customer was {word} in this version; its digest was {manifest.digest[:12]} before"
    return replace(
        manifest,
        tables=tables,
        digest=dataset_digest(tables, manifest.zone),
        notes=(*notes, note),
        source=person.redact_text(manifest.source),
    )


def _table_without(folder: Path, manifest: Manifest, table: str, person: Person, erased_orders: set[str]) -> TableParts:
    about = manifest.tables[table]
    parts = [part for old in about.parts for part in _part_without(folder, old, table, person, erased_orders)]
    if tuple(parts) == about.parts:
        return about
    first, last = _first_and_last_day(folder, manifest, table, parts)
    return TableParts(sum(p.rows for p in parts), first, last, about.columns, tuple(parts))


def _part_without(
    folder: Path, part: TablePart, table: str, person: Person, erased_orders: set[str]
) -> Iterator[TablePart]:
    """Yield the part without the person: the same part if it does not contain the person, nothing if no row remains."""
    file = folder / part.path
    if table == "orders":  # order lines are found by the order ids
        order_ids: set[str] = set()
        _count_hits(file, table, person, order_ids, set())
        erased_orders |= order_ids if person.erased else set()
    if not _count_hits(file, table, person, erased_orders if table == "order_lines" else set(), set()):
        yield part
        return
    content = pq.read_table(file, partitioning=None).replace_schema_metadata(None)
    frame, _ = scrub_table(table, content.to_pandas(), person.suppression, erased_orders)
    if not len(frame):
        return
    content_without = pa.Table.from_pandas(frame, schema=content.schema, preserve_index=False).replace_schema_metadata(
        None
    )
    content_without = content_without.sort_by([(key, "ascending") for key in KEYS[table]]).combine_chunks()
    digest = content_digest(content_without)
    path = f"{part.path.rpartition('/')[0]}/{digest[:12]}.parquet"
    if not (folder / path).exists():
        sink = pa.BufferOutputStream()
        pq.write_table(content_without, sink, compression="lz4", row_group_size=65_536)
        write_atomic(folder / path, memoryview(sink.getvalue()), private=True)
    yield TablePart(path, len(frame), digest)


def _first_and_last_day(
    folder: Path, manifest: Manifest, table: str, parts: list[TablePart]
) -> tuple[date | None, date | None]:
    """Return the first and the last day of the rows in the dataset's time zone, as in the manifest."""
    ends = []
    for part in parts:
        for column in DAYS[table]:
            least = pc.min_max(pq.read_table(folder / part.path, columns=[column], partitioning=None).column(0)).as_py()
            ends += [value for value in least.values() if value is not None]
    if not ends:
        return None, None
    times = pd.Series([min(ends), max(ends)]).astype(pd.DatetimeTZDtype("us", "UTC"))
    first, last = local_days(times, manifest.zone).tolist()
    return first, last
