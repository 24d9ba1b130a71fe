"""Load prediction logs into the ledger exactly once, and join predictions with their feedback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, and_, select
from sqlalchemy.exc import StatementError

from d2c_mlops.errors import UsageError
from d2c_mlops.file_lock import lock
from d2c_mlops.ledger.schema import BATCH, by_callers, feedback, predictions, rollouts
from d2c_mlops.ledger.store import CHUNK, Ledger, insert_new
from d2c_mlops.serving.http.api_keys import PROBE
from d2c_mlops.serving.log.aborted import abort_markers, abort_row
from d2c_mlops.serving.log.log_segments import intact_lines, seal_abandoned_segments
from d2c_mlops.serving.predict.prediction_ids import UNSIGNED
from d2c_mlops.settings import Settings

Rows = list[dict[str, Any]]
TABLES = {"predictions": predictions, "feedback": feedback, "rollout": rollouts}
UNREADABLE = (KeyError, TypeError, ValueError, OverflowError)
REFUSED = (StatementError, ValueError, OverflowError)


@dataclass
class CollectCounts:
    """Counts of a collection: rows in the logs and new rows."""

    files: int = 0
    predictions: int = 0
    feedback: int = 0
    new_predictions: int = 0
    new_feedback: int = 0
    new_aborts: int = 0  # rollouts that services aborted automatically
    probes: int = 0  # new predictions of probes: stored, but they cause no decision
    repeated: int = 0  # feedback that contradicts earlier feedback on the same prediction; the first one counts
    faulty: int = 0  # lines that cannot be parsed; they are stored in a separate file

    def to_dict(self) -> dict[str, int]:
        """Return the counts as JSON values."""
        return asdict(self)


def log_folders(settings: Settings, folder: Path | None = None) -> list[Path]:
    """Return the log folders: the given one, else those of all services of the store."""
    if folder is not None:
        if not folder.is_dir():
            raise UsageError("the folder does not exist", where=str(folder), next="name the `log` folder of a service")
        return [folder]
    state = settings.service.state
    return (
        [p for p in [settings.root / state / "log"] if p.is_dir()]
        if state
        else sorted(settings.store.glob("serving/*/log"))
    )


def collect_log_folder(ledger: Ledger, folder: Path) -> CollectCounts:
    """Load a log folder. Existing rows are not changed, so that a repetition has no effect.

    A sealed file is removed after its rows are committed; an open file of a running service is read and kept.
    """
    counts = CollectCounts()
    with lock(folder, "this log", 60.0):
        seal_abandoned_segments(folder)
        for file in sorted([*folder.glob("*.jsonl"), *folder.glob("*.open")]):
            with suppress(FileNotFoundError):  # sealed in the meantime: the next collection reads it under its new name
                _load_segment(ledger, file, counts)
                if file.suffix == ".jsonl":
                    file.unlink()
        _load_marks(ledger, folder.parent / "rollout", counts)
    return counts


def _load_marks(ledger: Ledger, folder: Path, counts: CollectCounts) -> None:
    """Load the marker files of aborted rollouts, which are written even when the log is full."""
    rows = []
    for marker in (marker_ for inner in folder.glob("*/") for marker_ in abort_markers(inner)):
        with suppress(*UNREADABLE):
            rows.append(abort_row(marker))
    if rows:
        with ledger.write() as connection:
            counts.new_aborts += len(insert_new(connection, rollouts, rows))


def _load_segment(ledger: Ledger, file: Path, counts: CollectCounts) -> None:
    read: dict[bytes, tuple[str, Rows]] = {}
    faulty = []
    counts.files += 1
    for line in intact_lines(file.read_bytes()):
        try:
            values = orjson.loads(line)
            read[line] = values["kind"], list(READERS[values["kind"]](values))
        except UNREADABLE:
            faulty.append(line)
    try:
        _insert_rows(ledger, read.values(), counts)
    except REFUSED:  # the database refused a line: the other lines are still loaded
        for line, rows in read.items():
            try:
                _insert_rows(ledger, [rows], counts)
            except REFUSED:
                faulty.append(line)
    counts.faulty += len(faulty)
    if faulty and file.suffix == ".jsonl":
        file.with_suffix(".faulty").write_bytes(b"\n".join(faulty) + b"\n")


def _insert_rows(ledger: Ledger, read: Iterable[tuple[str, Rows]], counts: CollectCounts) -> None:
    rows: dict[str, Rows] = {"predictions": [], "feedback": [], "rollout": []}
    for kind, some in read:
        rows[kind] += some
    with ledger.write() as connection:
        rows["feedback"], again = _without_contradictions(connection, rows["feedback"])
        added = {kind: insert_new(connection, table, rows[kind]) for kind, table in TABLES.items()}
    new = [len(keys) for keys in added.values()]
    probes = {row["id"] for row in rows["predictions"] if row["origin"] == PROBE}
    counts.probes += sum(key[0] in probes for key in added["predictions"]) if probes else 0
    counts.new_predictions += new[0]
    counts.new_feedback += new[1]
    counts.repeated += again
    counts.new_aborts += new[2]
    counts.predictions += len(rows["predictions"])
    counts.feedback += len(rows["feedback"]) + again


def _without_contradictions(connection: Connection, rows: Rows) -> tuple[Rows, int]:
    """Return the feedback that is new or known, and how many items contradict the first one of their kind.

    Feedback ids derive from prediction and kind, so that the primary key prevents that feedback sent to two replicas is added
    twice; older services used random ids, so existing rows are looked up.
    """
    about = sorted({row["prediction_id"] for row in rows if row["prediction_id"] is not None})
    first_values: dict[tuple[str, str], tuple[Any, ...]] = {}
    f = feedback.c
    for start in range(0, len(about), CHUNK):
        query = select(f.prediction_id, f.action, f.id, f.value, f.reason).where(
            f.prediction_id.in_(about[start : start + CHUNK])
        )
        first_values |= {(row.prediction_id, row.action): tuple(row[2:]) for row in connection.execute(query)}
    accepted, again = [], 0
    for row in rows:
        values = (row["id"], row["value"], row["reason"])
        first = (
            first_values.setdefault((row["prediction_id"], row["action"]), values) if row["prediction_id"] else values
        )
        if values == first:
            accepted.append(row)
        else:
            again += values[1:] != first[1:]
    return accepted, again


def _prediction_rows(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    at, reasons = datetime.fromisoformat(line["at"]), line.get("reasons")
    places, ids = line.get("indexes"), line.get("ids")
    for i, (inputs, outputs) in enumerate(zip(line["inputs"], line["outputs"], strict=True)):
        key = outputs.get(line["key"])
        yield {
            "id": ids[i] if ids else f"{line['id']}-{places[i] if places else line['first'] + i}",
            **{name: line[name] for name in ("model", "version", "contract", "variant", "request_id")},
            "caller": line["caller"] if line["caller"] != BATCH else None,  # no service answers a batch
            "key": _without_nul(key),
            "at": at,
            "inputs": inputs,
            "outputs": outputs,
            "reasons": reasons[i] if reasons is not None else None,
            "origin": line.get("origin"),
        }


def _feedback_rows(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    fields = {name: line[name] for name in ("id", "model", "action", "value", "caller")}
    texts = {name: _without_nul(line[name]) for name in ("prediction_id", "key", "reason")}
    yield {**fields, **texts, "at": datetime.fromisoformat(line["at"]), "origin": line.get("origin")}


def _without_nul(value: Any) -> str | None:
    """Return a text that every database accepts: PostgreSQL refuses NUL."""
    return str(value).replace("\0", "\ufffd") if value is not None else None


READERS: dict[str, Callable[[dict[str, Any]], Iterable[dict[str, Any]]]] = {
    "predictions": _prediction_rows,
    "feedback": _feedback_rows,
    "rollout": lambda line: [abort_row(line)],
}


def feedback_with_predictions(ledger: Ledger, model: str) -> list[dict[str, Any]]:
    """Return the feedback on a model joined with its prediction: by id, else the last earlier prediction of the key.

    Excluded are feedback sent by probes, feedback on predictions of probes, and feedback on an id
    without a signature and without a prediction in the ledger, because anybody can invent one.
    """
    joined = []
    with ledger.read() as connection:
        feedback_query = select(feedback).where(feedback.c.model == model, by_callers(feedback)).order_by(feedback.c.at)
        for item in connection.execute(feedback_query):
            by_key = and_(predictions.c.key == item.key, predictions.c.at <= item.at, by_callers(predictions))
            which = predictions.c.id == item.prediction_id if item.prediction_id else by_key
            query = select(predictions).where(predictions.c.model == model, which).order_by(predictions.c.at.desc())
            about = connection.execute(query.limit(1)).one_or_none()
            if about is not None and about.origin == PROBE:
                continue
            if about is None and item.prediction_id and UNSIGNED.fullmatch(item.prediction_id):
                continue
            joined.append({**item._mapping, "prediction": dict(about._mapping) if about is not None else None})
    return joined
