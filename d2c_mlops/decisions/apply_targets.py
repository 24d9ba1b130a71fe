"""Targets of decisions: a web hook whose calls are signed, or a table of which each decision changes one row, once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Protocol

import sqlalchemy as sa

from d2c_mlops import former_names
from d2c_mlops.data.sources.fetch import split_location, translate_sql_errors, without_password
from d2c_mlops.decisions.decision_rows import Decision
from d2c_mlops.decisions.policy import Policy
from d2c_mlops.errors import UsageError
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.runs.secrets.secrets import resolve_reference, secret
from d2c_mlops.serving.batch.sql_sink import KEY_LENGTH, TYPES
from d2c_mlops.serving.batch.webhook_sink import TOKEN, check_encrypted, post_once

WHOLE = re.compile(r"0|-?[1-9][0-9]{0,1999}")  # an integer whose text is its only spelling: not 007, -0 or +7
FRACTION = re.compile(r"-?(?:0|[1-9][0-9]{0,1999})\.[0-9]{0,1999}[1-9]")  # likewise: not 7.0, 7e0 or .5
LARGEST = 2**63  # integers of a database are smaller
SHOWN = 60  # characters of a key that an error repeats
NOTES = "d2c_decisions"  # which decisions a database has taken
OURS: dict[str, Any] = {"decision_id": sa.String(32), "decided_by": sa.String(255), "applied_at": sa.DateTime()}


@dataclass(frozen=True)
class ApplyOutcome:
    """Result of an attempt to apply a decision; an empty `what` means success."""

    what: str = ""
    away: bool = False
    retry_after: float = 0.0
    absent: bool = False  # the target has no row for the subject, and adding one needs approval


class DecisionTarget(Protocol):
    """Interface of a target that decisions are applied to."""

    @property
    def display_location(self) -> str:
        """Location of the target, without secrets."""

    def apply(self, decision: Decision, contract: Contract, now: datetime) -> ApplyOutcome:
        """Apply a decision; the same decision again changes nothing. Raises Temporary, UsageError."""

    def close(self) -> None:
        """Close connections."""


def open_target(policy: Policy) -> DecisionTarget:
    """Return the target of a policy. Raises UsageError where `apply` is not a supported location."""
    written = policy.options.apply
    location = resolve_reference(written)
    if location.lower().startswith(("http://", "https://")):
        check_encrypted(location, f"{policy.where} apply")
        name = policy.options.sign.removeprefix("secret:")
        shown_url = location.split("?")[0] if location == written else written
        return WebHookTarget(location, shown_url, secret(name) if name else "", policy.options.allow_new)
    url, table = split_location(location)
    if not table or "://" not in url:
        raise UsageError("`apply` must be https://… or URL::TABLE", where=f"{policy.where} apply")
    return SqlTableTarget(
        location, without_password(location) if location == written else written, policy.options.allow_new
    )


def webhook_message(decision: Decision) -> dict[str, Any]:
    """Return the JSON message for a web hook."""
    names = ("prediction_id", "model", "version", "field", "value", "proposed", "verdict", "by", "reason")
    moments = ("predicted_at", "decided_at")
    fields = {"decision_id": decision.id, "about": decision.about} | {name: getattr(decision, name) for name in names}
    return fields | {name: at.isoformat() if (at := getattr(decision, name)) else None for name in moments}


def webhook_signature(key: str, id: str, moment: int, body: bytes) -> str:
    """Return a call's signature as Standard Webhooks 1.0 has it: v1 and HMAC-SHA256 of `id.moment.body` in base64."""
    raw = base64.b64decode(key.removeprefix("whsec_")) if key.startswith("whsec_") else key.encode()
    digest = hmac.new(raw, f"{id}.{moment}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


@dataclass(frozen=True)
class WebHookTarget:
    """A URL that takes a POST of JSON per decision."""

    url: str
    display_location: str
    key: str
    allow_new: bool = False

    def apply(self, decision: Decision, contract: Contract, now: datetime) -> ApplyOutcome:
        flags = {"automatic": decision.automatic, "allow_new": self.allow_new or not decision.automatic}
        body = json.dumps(webhook_message(decision) | flags, ensure_ascii=False).encode()
        headers = {"content-type": "application/json", "idempotency-key": decision.id, "webhook-id": decision.id}
        if token := os.environ.get(TOKEN):
            headers["authorization"] = f"Bearer {token}"
        if self.key:
            moment = int(now.timestamp())
            headers |= {"webhook-timestamp": str(moment)}
            headers |= {"webhook-signature": webhook_signature(self.key, decision.id, moment, body)}
        response = post_once(self.url, body, headers)
        return ApplyOutcome(response.what, response.away, response.retry_after)

    def close(self) -> None:
        """Do nothing: no connection stays open between calls."""


@dataclass
class SqlTableTarget:
    """A table with the key's columns and the decided column; a row is updated, or inserted if there is none and a person
    approved it or the policy says `allow_new`.

    That and the note of the decision are one transaction, so that a decision changes the table once however often it is sent.
    """

    location: str
    display_location: str
    allow_new: bool = False
    opened: tuple[sa.Engine, sa.Table, sa.Table] | None = None

    def apply(self, decision: Decision, contract: Contract, now: datetime) -> ApplyOutcome:
        with translate_sql_errors(self.location):
            engine, notes, target = self._open_tables(decision, contract)
            try:
                with engine.begin() as connection:
                    naive = now.astimezone(UTC).replace(tzinfo=None)
                    if self._record_applied(connection, notes, decision.id, naive):
                        return ApplyOutcome()
                    if not self._update_or_insert(connection, target, decision, contract, naive):
                        connection.rollback()
                        return ApplyOutcome(f"{self.display_location} has no row for {decision.title}", absent=True)
            except sa.exc.IntegrityError as err:
                with engine.connect() as connection:  # another process may have taken over the claim
                    query = sa.select(notes.c.decision_id).where(notes.c.decision_id == decision.id)
                    if connection.execute(query).first():
                        return ApplyOutcome()
                return ApplyOutcome(f"the table refused the row: {str(err.orig).strip().splitlines()[0]}")
        return ApplyOutcome()

    def close(self) -> None:
        if self.opened is not None:
            self.opened[0].dispose()
            self.opened = None

    def _open_tables(self, decision: Decision, contract: Contract) -> tuple[sa.Engine, sa.Table, sa.Table]:
        """Return the database and both tables; they are opened once."""
        if self.opened is None:
            url, name = split_location(self.location)
            schema, _, bare = (name or "").rpartition(".")
            engine = sa.create_engine(url, pool_pre_ping=True, pool_size=1)
            notes = sa.Table(
                NOTES, sa.MetaData(), sa.Column("decision_id", sa.String(32), primary_key=True),
                sa.Column("applied_at", sa.DateTime, nullable=False), schema=schema or None,
            )  # fmt: skip
            try:
                with engine.begin() as connection:
                    notes.create(connection, checkfirst=True)
                    target = self._target_table(connection, bare, schema or None, decision, contract)
            except Exception:
                engine.dispose()
                raise
            self.opened = (engine, notes, target)
        return self.opened

    def _target_table(
        self, connection: sa.Connection, name: str, schema: str | None, decision: Decision, contract: Contract
    ) -> sa.Table:
        """Return the target table; create it if it is missing."""
        names = [*decision.about, decision.field]
        kinds = {field.name: TYPES[field.kind] for field in (*contract.input_fields, *contract.output_fields)}
        if not sa.inspect(connection).has_table(name, schema=schema):
            columns = [_new_column(column, kinds[column], column in decision.about) for column in names]
            columns += [sa.Column(column, kind) for column, kind in OURS.items() if column not in names]
            table = sa.Table(name, sa.MetaData(), *columns, schema=schema)
            table.create(connection)
            return table
        table_ = sa.Table(name, sa.MetaData(), schema=schema, autoload_with=connection)
        missing = [column for column in names if column not in table_.columns]
        if missing:
            raise UsageError(f"the table has no column {', '.join(missing)}", where=self.display_location)
        return table_

    def _record_applied(self, connection: sa.Connection, notes: sa.Table, id: str, now: datetime) -> bool:
        """Record that the decision was applied; return whether it was recorded before."""
        if connection.execute(sa.select(notes.c.decision_id).where(notes.c.decision_id == id)).first():
            return True
        connection.execute(notes.insert(), {"decision_id": id, "applied_at": now})
        return False

    def _update_or_insert(
        self, connection: sa.Connection, target: sa.Table, decision: Decision, contract: Contract, now: datetime
    ) -> bool:
        """Update or insert the row; return False, without a change, if it is missing and must not be inserted."""
        kinds = {field.name: field.kind for field in (*contract.input_fields, *contract.output_fields)}
        key = {
            name: _exact_key(target.c[name], _column_value(kinds[name], value), self.display_location)
            for name, value in decision.about.items()
        }
        values = {decision.field: _column_value(kinds[decision.field], decision.value)}
        ours = {"decision_id": decision.id, "decided_by": decision.by, "applied_at": now}
        values |= {
            name: value for name, value in ours.items() if name in target.columns and name not in (*key, *values)
        }
        mine = sa.and_(*(target.c[name] == value for name, value in key.items()))
        if decision.automatic and not self.allow_new:
            if connection.execute(sa.select(sa.literal(1)).select_from(target).where(mine).limit(1)).first() is None:
                return False
            connection.execute(target.update().where(mine).values(values))
        elif connection.execute(target.update().where(mine).values(values)).rowcount == 0:
            connection.execute(target.insert().values({**key, **values}))
        return True


def _new_column(name: str, kind: Any, key: bool) -> sa.Column[Any]:
    sized: Any = sa.String(KEY_LENGTH) if kind is sa.String and key else sa.Text if kind is sa.String else kind
    return sa.Column(name, sized, primary_key=key, autoincrement=False)


def _exact_key(column: sa.Column[Any], value: Any, where: str) -> Any:
    """Return a key in the type of its column, so that it is compared exactly: a database may compare text and numbers as floats.

    Raises UsageError for a text that a column of numbers takes for another key (007 for 7), and for a column of floats,
    which cannot distinguish keys beyond 2^53.
    """
    if isinstance(value, bool) or not isinstance(column.type, sa.Numeric | sa.Integer | sa.Float):
        return value
    whole = value if isinstance(value, int) else int(value) if WHOLE.fullmatch(str(value)) else None
    is_whole = isinstance(column.type, sa.Integer)
    if isinstance(value, str) and whole is None and (is_whole or not FRACTION.fullmatch(value)):
        raise UsageError(
            f"column {column.name} holds numbers, and the key {value[:SHOWN]!r} is not written as one", where=where,
            next="change its type to text",
        )  # fmt: skip
    if whole is None:
        return value
    if is_whole and not -LARGEST <= whole < LARGEST:
        raise UsageError(f"column {column.name} cannot store the key {str(value)[:SHOWN]}", where=where)
    if isinstance(column.type, sa.Float) and abs(whole) >= 2**53:
        raise UsageError(
            f"column {column.name} holds floats, which cannot store the key {str(value)[:SHOWN]} exactly", where=where,
            next="change its type to BIGINT or text",
        )  # fmt: skip
    return whole


def _column_value(kind: str, value: Any) -> Any:
    if value is None or kind not in ("date", "date-time"):
        return value
    moment = datetime.fromisoformat(value)
    if kind == "date":
        return date.fromisoformat(value[:10])
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def __getattr__(name: str) -> Any:
    """Return a class of this module by its former name."""
    return former_names.renamed_class(__name__, name)
