"""Suppression list: keyed hashes of forgotten people, and how ingest treats their rows."""

from __future__ import annotations

import hmac
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import UsageError
from .private_files import private_file

FOLDER, KEY_FILE, LIST_FILE, ORDERS_FILE = "forgotten", "key", "list.json", "orders"  # below the store
ERASE, PSEUDONYMISE = "erase", "pseudonymise"
INFINITE = float("inf")
PREFIX = "forgotten-"  # of every pseudonym
PERSON = re.compile(
    r"customer|client|buyer|household|user|person|contact|lead|member|subscriber|patient|guest|e.?mail|phone|^key$|^subject$",
    re.IGNORECASE,
)
PERSONAL = re.compile(  # names of fields whose texts are personal
    r"^(?:(?:full|first|last|given|family|middle|contact|customer|person|lead|billing|shipping|display)[_ ]?)?name$"
    r"|surname|e.?mail|phone|mobile|address|street|zip|postal|postcode|birth|contact|iban",
    re.IGNORECASE,
)
ID_COLUMNS = {"customers": "customer_id", "orders": "customer_id", "leads": "lead_id"}


def canonical_identifier(value: str) -> str:
    """Return an identifier in its canonical form: without surrounding blanks, composed (NFC), e-mail addresses in lower case."""
    text = unicodedata.normalize("NFC", value).strip()
    return text.casefold() if "@" in text else text


def canonical_id(value: Any, name: str = "") -> str | None:
    """Return a JSON value as a canonical identifier; None if it cannot be the identifier of a person.

    A number, also one written as text, is one only under a name such as customer_id, key or subject: a count or another
    thing's number may be equal to it.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        return None
    if isinstance(value, (float, Decimal)):
        if value != value or value in (INFINITE, -INFINITE) or value != int(value):
            return None
        value = int(value)
    text = canonical_identifier(str(value))
    return None if not text or (text.isdigit() and not PERSON.search(name)) else text


def keyed_hash(key: bytes, text: str) -> str:
    """Return the HMAC-SHA-256 of an identifier, in hexadecimal digits."""
    return hmac.new(key, canonical_identifier(text).encode("utf-8", "surrogatepass"), sha256).hexdigest()


def identifier_pseudonym(key: bytes, text: str) -> str:
    """Return the pseudonym of an identifier: always the same, and not computable without the key."""
    return PREFIX + keyed_hash(key, f"pseudonym {canonical_identifier(text)}")[:20]


@dataclass(frozen=True)
class Forgotten:
    """Forgotten people: keyed hashes of identifiers, each with its mode, or identifiers themselves."""

    key: bytes
    modes: Mapping[str, str]  # of keyed hashes: erase or pseudonymise
    dataset: str = ""
    orders: frozenset[str] = frozenset()  # keyed hashes of orders that were erased: their lines may come later, alone
    forgotten_modes: dict[str, str | None] = field(default_factory=dict, compare=False)

    def mode(self, value: Any, name: str = "customer_id") -> str | None:
        """Return the mode for a value; None if it does not identify a forgotten person."""
        text = canonical_id(value, name)
        if text is None:
            return None
        if text not in self.forgotten_modes:
            self.forgotten_modes[text] = self.modes.get(keyed_hash(self.key, text))
        return self.forgotten_modes[text]

    def pseudonym(self, value: str) -> str:
        """Return the replacement of an identifier."""
        return identifier_pseudonym(self.key, value)

    def is_gone(self, order: str) -> bool:
        """Return whether an order was erased before."""
        return order_hash(self.key, self.dataset, order) in self.orders


def order_hash(key: bytes, dataset: str, order: str) -> str:
    """Return the keyed hash of an order of a dataset."""
    return keyed_hash(key, f"order {dataset} {order}")[:32]


def add_orders(store: Path, key: bytes, dataset: str, orders: Iterable[str]) -> None:
    """Record erased orders, so that later order lines without their order are skipped, too."""
    file = store / FOLDER / ORDERS_FILE
    there = set(file.read_text(encoding="ascii").split()) if file.exists() else set()
    new = sorted({order_hash(key, dataset, order) for order in orders} - there)
    if new:
        private_file(file)
        with file.open("a", encoding="ascii") as out:
            out.write("".join(f"{digest}\n" for digest in new))


def read_entries(store: Path) -> list[dict[str, Any]]:
    """Return the entries of the list; empty if nobody was forgotten."""
    file = store / FOLDER / LIST_FILE
    if not file.exists():
        return []
    entries: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["entries"]
    return entries


def read_key(store: Path) -> bytes:
    """Return the key of the hashes. Raises UsageError if there is a list without a key."""
    file = store / FOLDER / KEY_FILE
    try:
        return bytes.fromhex(file.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        raise UsageError(
            "the key of the list of forgotten customers cannot be read, so their rows cannot be skipped",
            where=str(file),
            next="copy it from a backup of the store",
        ) from None


def load_forgotten(store: Path, dataset: str) -> Forgotten | None:
    """Return the forgotten people of a dataset; None if there are none. Raises UsageError without the list's key."""
    entries = [e for e in read_entries(store) if not e.get("datasets") or dataset in e["datasets"]]
    if not entries:
        return None
    file = store / FOLDER / ORDERS_FILE
    orders = frozenset(file.read_text(encoding="ascii").split()) if file.exists() else frozenset[str]()
    return Forgotten(read_key(store), {e["hash"]: e["mode"] for e in entries}, dataset, orders)


Scrubbed = tuple[pd.DataFrame, Counter[str]]  # rows that were left out or pseudonymised, by mode


def _mode_by_value(column: pd.Series[Any], mode_of_value: Callable[[Any], str | None]) -> pd.Series[Any]:
    codes, unique = pd.factorize(column)
    modes = [mode_of_value(value) for value in unique]
    return pd.Series([modes[code] if code >= 0 else None for code in codes], index=column.index, dtype=object)


def scrub_table(table: str, frame: pd.DataFrame, forgotten_people: Forgotten, erased_order_ids: set[str]) -> Scrubbed:
    """Return a canonical table without forgotten people; ids of orders that are erased are added to `erased_order_ids`.

    `order_lines` lose the lines of those orders. Totals stay; a key of theirs that names a person becomes a pseudonym.
    """
    if table == "order_lines":
        out = frame["order_id"].isin(erased_order_ids)
        if forgotten_people.orders:
            out |= _mode_by_value(
                frame["order_id"], lambda order: ERASE if forgotten_people.is_gone(order) else None
            ).notna()
        return (frame[~out] if out.any() else frame), Counter({ERASE: int(out.sum())} if out.any() else {})
    if table in KEYED:
        return _scrub_objects(frame, "keys", forgotten_people)
    if table not in ID_COLUMNS or not len(frame):
        return frame, Counter()
    column = ID_COLUMNS[table]
    modes = _mode_by_value(frame[column], forgotten_people.mode)
    if table == "leads":
        modes = modes.where(
            modes.notna(), _mode_by_value(frame["fields"], lambda text: _mode_of_fields(text, forgotten_people))
        )
    if not modes.notna().any():
        return frame, Counter()
    if table == "orders":
        erased_order_ids |= set(frame.loc[modes == ERASE, "order_id"])
    masked = modes == PSEUDONYMISE
    if masked.any():
        values = {
            column: frame[column].mask(
                masked, frame.loc[masked, column].map(lambda v: _stand_in(v, forgotten_people, table))
            )
        }
        if table == "leads":
            values["fields"] = frame["fields"].mask(
                masked, frame.loc[masked, "fields"].map(lambda t: _plain_fields(t, forgotten_people))
            )
        frame = frame.assign(**{name: value.astype(frame[name].dtype) for name, value in values.items()})
    remaining = frame[modes != ERASE]
    if table != "orders":
        remaining = remaining.drop_duplicates(column)
    counts = Counter({mode: int((modes == mode).sum()) for mode in (ERASE, PSEUDONYMISE) if (modes == mode).any()})
    return remaining, counts


def _stand_in(value: str, forgotten_people: Forgotten, table: str) -> str:
    return forgotten_people.pseudonym(value) if table != "leads" or forgotten_people.mode(value, "lead_id") else value


def json_leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the plain values in a JSON value, at any depth, with the names of their members."""
    if isinstance(value, dict):
        for member, inner in value.items():
            yield from json_leaves(inner, member)
    elif isinstance(value, list):
        for inner in value:
            yield from json_leaves(inner, name)
    else:
        yield name, value


def cell_object(text: Any) -> Any:
    """Return the JSON object in a cell; empty if there is none."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return {}


def _mode_of_fields(text: str, forgotten_people: Forgotten) -> str | None:
    field_modes = {forgotten_people.mode(value, name) for name, value in json_leaves(cell_object(text))} - {None}
    return ERASE if ERASE in field_modes else PSEUDONYMISE if field_modes else None


def _plain_fields(text: str, forgotten_people: Forgotten) -> str:
    """Return the fields of a person's lead without identifiers and without texts that are personal by their names."""
    plain = {
        name: value
        for name, value in cell_object(text).items()
        if forgotten_people.mode(value, name) or not (isinstance(value, str) and PERSONAL.search(name))
    }
    return json.dumps(_with_pseudonyms(plain, forgotten_people), ensure_ascii=False, separators=(",", ":"))


def _with_pseudonyms(value: Any, forgotten_people: Forgotten, name: str = "") -> Any:
    if isinstance(value, dict):
        return {member: _with_pseudonyms(inner, forgotten_people, member) for member, inner in value.items()}
    if isinstance(value, list):
        return [_with_pseudonyms(inner, forgotten_people, name) for inner in value]
    return forgotten_people.pseudonym(str(value)) if forgotten_people.mode(value, name) else value


def _scrub_objects(frame: pd.DataFrame, column: str, forgotten_people: Forgotten) -> Scrubbed:
    """Return a frame in which identifiers of forgotten people in JSON objects are pseudonyms."""
    hits = _mode_by_value(frame[column], lambda text: _mode_of_fields(text, forgotten_people)).notna()
    if not hits.any():
        return frame, Counter()
    pseudonymised = frame.loc[hits, column].map(lambda text: _plain_keys(text, forgotten_people))
    return frame.assign(**{column: frame[column].mask(hits, pseudonymised).astype(frame[column].dtype)}), Counter(
        {PSEUDONYMISE: int(hits.sum())}
    )


def _plain_keys(text: str, forgotten_people: Forgotten) -> str:
    return json.dumps(_with_pseudonyms(cell_object(text), forgotten_people), ensure_ascii=False, separators=(",", ":"))


# Tables whose keys may name a person, such as a buying company.
KEYED = ("sales_totals", "calendar", "promotions", "prices", "stock")
ORDER = ("customers", "orders", "order_lines", "leads", *KEYED)  # orders before their lines


def remove_forgotten_rows(
    frames: Mapping[str, pd.DataFrame], store: Path, dataset: str
) -> tuple[dict[str, pd.DataFrame], Sequence[str]]:
    """Return validated tables without the forgotten people of a dataset, and notes with the numbers of rows.

    Raises UsageError without the key of the list.
    """
    who = load_forgotten(store, dataset)
    if who is None:
        return dict(frames), ()
    gone: set[str] = set()
    tables, counts = dict(frames), Counter[str]()
    for table in ORDER:
        if table in tables:
            tables[table], some = scrub_table(table, tables[table], who, gone)
            if some:
                tables[table] = tables[table].reset_index(drop=True)
            counts += some
    if gone:
        add_orders(store, who.key, dataset, gone)
    words = {ERASE: "left out", PSEUDONYMISE: "pseudonymised"}
    return tables, tuple(
        f"{_row_count_text(n)} of a forgotten customer {words[mode]}" for mode, n in sorted(counts.items())
    )


def _row_count_text(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"
