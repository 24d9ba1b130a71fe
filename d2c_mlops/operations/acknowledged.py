"""Changes of columns that a person knows of: on record, so that the monitor starts these columns anew."""

from __future__ import annotations

from datetime import UTC, date, datetime

from sqlalchemy import insert, select

from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.schema import acknowledged_changes
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.monitoring.drift import Acknowledged


def acknowledge_change(ledger: Ledger, model: str, column: str, day: date, by: str, note: str = "") -> Acknowledged:
    """Record that the change of a column until the end of a day is known. Raises UsageError for an empty column."""
    if not column.strip():
        raise UsageError(
            "name the column", where="--acknowledge", next=f"`d2c monitor {model}` names the columns that moved"
        )
    row = {"model": model, "column": column, "day": day.isoformat(), "at": datetime.now(UTC), "by": by, "note": note}
    with ledger.write() as connection:
        connection.execute(insert(acknowledged_changes).values(row))
    return Acknowledged(column, day)


def acknowledged_columns(ledger: Ledger, model: str) -> list[Acknowledged]:
    """Return the changes of a model's columns that are known, oldest first."""
    query = (
        select(acknowledged_changes).where(acknowledged_changes.c.model == model).order_by(acknowledged_changes.c.id)
    )
    with ledger.read() as connection:
        rows = connection.execute(query).all()
    return [Acknowledged(row.column, date.fromisoformat(row.day)) for row in rows]
