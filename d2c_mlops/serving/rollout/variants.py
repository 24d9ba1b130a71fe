"""Champion and challenger in one service: the challenger answers a share of the keys, or runs in shadow mode."""

from __future__ import annotations

import asyncio
import copy
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from time import perf_counter
from typing import Any

import orjson

from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.contract import values_of
from d2c_mlops.serving.http.latency import LatencyEstimate
from d2c_mlops.serving.http.metrics import Metrics
from d2c_mlops.serving.predict.prediction_ids import Given
from d2c_mlops.serving.predict.predictor import Answered, Served, masking
from d2c_mlops.serving.rollout.counters import Tally
from d2c_mlops.serving.rollout.state_file import Rollout

TRIES = 32  # calls to find the records on which a challenger fails
WAITING = 20_000  # records in the shadow's queue; further ones are dropped and counted
PATIENCE = 15.0  # maximum seconds for a challenger, for any number of records
AT_LEAST, A_RECORD = 1.0, 0.01  # seconds that a challenger may take for an answer, and more for each record of it
CHALLENGERS = ThreadPoolExecutor(16, "challenger")
LOG = logging.getLogger("d2c.service")


@dataclass(frozen=True, kw_only=True)
class VariantPair(Served):
    """A champion with a challenger; base of the modes share and shadow."""

    challenger: Served
    rollout: Rollout
    tally: Tally
    metrics: Metrics
    patience: float = PATIENCE
    counted: bool = True  # False for probes: synthetic keys are not counted

    @classmethod
    def of(
        cls,
        champion: Served,
        challenger: Served,
        rollout: Rollout,
        tally: Tally,
        metrics: Metrics,
        patience: float = PATIENCE,
        **options: Any,
    ) -> VariantPair:
        """Pair a champion with a challenger; computed parts of the champion (request model, OpenAPI document) are reused.

        `options` are further fields of the class.
        """
        given = {each.name: getattr(champion, each.name) for each in fields(Served)}
        beside = replace(challenger)
        sides: dict[str, Any] = {"challenger": beside, "rollout": rollout, "tally": tally, "metrics": metrics}
        made = cls(**given, **sides, **options, patience=patience)
        vars(made).update({name: value for name, value in vars(champion).items() if name not in given})
        named = [
            (*one.model.contract.input_fields, *one.model.contract.output_fields) for one in (challenger, champion)
        ]
        personal = {each.name: each for each in (*named[0], *named[1]) if each.personal}
        vars(beside)["mask"] = masking(personal.values(), champion.secret)
        vars(beside)["latency"], vars(made)["latency"] = challenger.latency, champion.latency
        vars(made).pop("estimates", None)  # only in the champion
        return made

    @cached_property
    def for_probes(self) -> VariantPair:
        """The pair for probes: the same versions without counting and without shadow."""
        made = copy.copy(self)
        vars(made).update(counted=False, shadow=None)
        return made

    @cached_property
    def labels(self) -> tuple[str, str]:
        """The versions, as metrics' labels."""
        return self.label, self.challenger.label

    @cached_property
    def _fitted(self) -> tuple[str, ...] | None:
        """The challenger's own fields, where they are not the champion's."""
        ours, theirs = (tuple(f.name for f in one.model.contract.input_fields) for one in (self, self.challenger))
        return None if ours == theirs else theirs

    def ask_champion(self, records: Sequence[dict[str, Any]], reasons: bool) -> tuple[list[dict[str, Any]], Any]:
        """Return the champion's predictions, timed."""
        start = perf_counter()
        said = self.answer(records, reasons)
        self._took("champion", len(records), perf_counter() - start)
        return said

    def ask_challenger(self, records: Sequence[dict[str, Any]], reasons: bool) -> tuple[list[dict[str, Any]], Any]:
        """Return the challenger's predictions, timed; raises its exceptions, and TimeoutError after the time limit.

        A challenger on the event loop was measured or declared quick; elsewhere it runs in a separate thread.
        """
        if self._fitted is not None:
            records = [{name: record.get(name) for name in self._fitted} for record in records]
        start = perf_counter()
        if _on_event_loop():
            outputs, why = self.challenger.answer(records, reasons)
        else:
            limit = min(self.patience, AT_LEAST + A_RECORD * len(records))
            outputs, why = CHALLENGERS.submit(self.challenger.answer, records, reasons).result(limit)
        seconds = perf_counter() - start
        orjson.dumps([outputs, why])
        self._took("challenger", len(records), seconds)
        return outputs, why

    def _took(self, variant: str, records: int, seconds: float) -> None:
        if not self.counted:
            return
        self.tally.answered(variant, records, seconds)
        label = self.labels[variant == "challenger"]
        self.metrics.answers.labels(self.name, label, variant).observe(seconds)

    def failed(self, records: int, err: Exception | None) -> None:
        """Count and log records that the challenger failed on."""
        if self.counted:
            self.tally.failed(records)
            self.metrics.failed.labels(self.name, self.challenger.label).inc(records)
        facts = {"model": self.name, "version": self.challenger.version, "records": records}
        LOG.error("challenger failed", exc_info=err, extra={"facts": facts})


@dataclass(frozen=True, kw_only=True)
class Split(VariantPair):
    """Mode share: the challenger answers a share of the keys; where it fails, the champion answers."""

    @cached_property
    def estimates(self) -> tuple[LatencyEstimate, ...]:
        return self.latency, self.challenger.latency

    def estimates_of(self, made: Answered) -> tuple[LatencyEstimate, ...]:
        asked = made.versions_asked or ()
        sides = (self, self.challenger)
        return tuple(side.latency for side in sides if side.version in asked)

    def answered(self, batch: str, records: Sequence[dict[str, Any]], reasons: bool) -> Answered:
        chooses, keys = self.rollout.chooses, values_of(records, self.key)
        theirs = [i for i, value in enumerate(keys) if chooses(value)]
        if self.counted:
            self.tally.asked(keys)
        if not theirs:
            outputs, why = self.ask_champion(records, reasons)
            made = Answered(batch, records, outputs, why, challenged=[False] * len(records))
            made.versions_asked = (self.version,)
            return made
        said, failed, err = self._challenge(theirs, records, reasons)
        ours = [i for i in range(len(records)) if i not in said]
        if ours:
            try:
                outputs, why = self.ask_champion([records[i] for i in ours], reasons)
            except DataRefused:  # reported with the caller's places
                outputs, why = self.answer(records, reasons)
                made = Answered(batch, records, outputs, why, challenged=[False] * len(records))
                made.versions_asked = (self.version, self.challenger.version)
                return made
            said_too = zip(ours, outputs, why or [None] * len(ours), strict=True)
            said_by_us = {i: (row, because) for i, row, because in said_too}
        else:
            said_by_us = {}
        if failed:
            self.failed(failed, err)
        whole = [said.get(i) or said_by_us[i] for i in range(len(records))]
        because = [why for _, why in whole] if reasons else None
        challenged = [i in said for i in range(len(records))]
        made = Answered(batch, records, [row for row, _ in whole], because, challenged=challenged)
        made.versions_asked = (self.challenger.version, *([self.version] if ours else []))
        return made

    def _challenge(
        self, indexes: list[int], records: Sequence[dict[str, Any]], reasons: bool
    ) -> tuple[dict[int, tuple[dict[str, Any], Any]], int, Exception | None]:
        """Return the challenger's predictions by index, and the number of failed records; a failing call is halved and retried."""
        said: dict[int, tuple[dict[str, Any], Any]] = {}
        failed, tries, first = 0, 0, None
        todo = [indexes]
        while todo:
            part = todo.pop()
            tries += 1
            try:
                outputs, why = self.ask_challenger([records[i] for i in part], reasons)
            except Exception as err:
                first = first or err
                if isinstance(err, TimeoutError):
                    failed += sum(map(len, (part, *todo)))
                    break
                if len(part) == 1 or tries >= TRIES:
                    failed += len(part)
                else:
                    todo += [part[: len(part) // 2], part[len(part) // 2 :]]
                continue
            said.update(zip(part, zip(outputs, why or [None] * len(part), strict=True), strict=True))
        return said, failed, first

    @cached_property
    def _marks(self) -> tuple[dict[str, Any], dict[str, Any]]:
        versions = ((self.version, "champion"), (self.challenger.version, "challenger"))
        made = [{"version": version, "variant": variant} for version, variant in versions]
        return made[0], made[1]

    def sign(self, made: Answered, places: Sequence[int]) -> None:
        """Sign an id for each prediction, which contains the version that answered."""
        if made.ids is None:
            token, versions = self.signer.token, (None, self.challenger.version)
            chosen = made.challenged or [False] * len(made.records)
            rows = zip(places, chosen, strict=True)
            made.ids = [f"{token(made.batch, i, i + 1, versions[theirs])}-{i}" for i, theirs in rows]

    def predictions(self, made: Answered, indexes: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the predictions; each names its version and variant."""
        chosen, marks = made.challenged or [False] * len(made.records), self._marks
        self.sign(made, range(len(made.outputs)) if indexes is None else indexes)
        assert made.ids is not None
        rows = [
            {"prediction_id": id, **marks[theirs], **row}
            for id, theirs, row in zip(made.ids, chosen, made.outputs, strict=True)
        ]
        if made.reasons is not None:
            for row, why in zip(rows, made.reasons, strict=True):
                row["reasons"] = why
        return rows

    def lines(self, made: Answered, about: dict[str, Any], indexes: Sequence[int] | None = None) -> list[bytes]:
        """Return log lines: of the champion's predictions, then of the challenger's."""
        chosen = made.challenged or [False] * len(made.records)
        places = range(len(made.records)) if indexes is None else indexes
        self.sign(made, places)
        assert made.ids is not None
        found = []
        for theirs in (False, True):
            rows = [i for i, one in enumerate(chosen) if one is theirs]
            if not rows:
                continue
            why = [made.reasons[i] for i in rows] if made.reasons is not None else None
            batch = challengers(made.batch, self.challenger.version) if theirs else made.batch
            part = Answered(batch, [made.records[i] for i in rows], [made.outputs[i] for i in rows], why)
            part.ids = [made.ids[i] for i in rows]
            told, where = {**about, "variant": self._marks[theirs]["variant"]}, [places[i] for i in rows]
            found += self.challenger.lines(part, told, where) if theirs else super().lines(part, told, where)
        return found

    def counts(self, made: Answered) -> Iterable[tuple[str, str, int]]:
        theirs = sum(made.challenged or ())
        both = ((self.label, "champion", len(made.records) - theirs), (self.challenger.label, "challenger", theirs))
        return [each for each in both if each[2]]

    def version_about(self, given: Given | None, key: str | None) -> int:
        """Return the version that feedback refers to, by the prediction's id, else by the key."""
        if given is not None:
            return given.challenger or self.version
        return self.challenger.version if self.rollout.chooses(key) else self.version

    def heard(self, action: str, given: Given | None, prediction_id: str | None, key: str | None) -> None:
        """Count feedback once for a signed prediction id, or for a key that was requested in this stage."""
        if given is None:
            about, theirs = f"key {key}", self.rollout.chooses(key)
            known = self.tally.was_asked(key)
        else:
            about, theirs = f"id {prediction_id}", given.challenger == self.challenger.version
            known = given.verified and (theirs or given.challenger is None)
        if known and self.counted:
            self.tally.heard("challenger" if theirs else "champion", action, about)


class Shadows:
    """Queue of records for the challenger in shadow mode, processed in a thread."""

    def __init__(self, waiting: int = WAITING) -> None:
        self.waiting, self.left = waiting, 0
        self.lock = threading.Lock()
        self.queue: queue.SimpleQueue[tuple[int, Callable[[], None]] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self.thread.start()

    def put(self, records: int, work: Callable[[], None]) -> bool:
        """Queue work; False when the queue is full."""
        with self.lock:
            if self.left + records > self.waiting:
                return False
            self.left += records
        self.queue.put((records, work))
        return True

    def _work(self) -> None:
        while (item := self.queue.get()) is not None:
            try:
                item[1]()
            except Exception as err:
                LOG.error("shadow failed", exc_info=err)
            finally:
                with self.lock:
                    self.left -= item[0]

    def close(self) -> None:
        """Process the queue for a short time, then stop."""
        self.queue.put(None)
        self.thread.join(5.0)


@dataclass(frozen=True, kw_only=True)
class Shadowed(VariantPair):
    """Mode shadow: the champion answers all requests; the challenger predicts later and is only logged."""

    shadows: Shadows | None = None
    write: Callable[[list[bytes]], None] | None = None

    def answered(self, batch: str, records: Sequence[dict[str, Any]], reasons: bool) -> Answered:
        return Answered(batch, records, *self.ask_champion(records, reasons))

    def shadow(
        self, made: Answered, about: dict[str, Any] | None, reasons: bool, indexes: Sequence[int] | None = None
    ) -> None:
        """Queue records for the challenger after the champion's answer is sent."""
        assert self.shadows is not None
        if not self.shadows.put(len(made.records), partial(self._answer, made, about, reasons, indexes)):
            self.metrics.dropped.labels(self.name, self.challenger.label).inc(len(made.records))

    def _answer(
        self, made: Answered, about: dict[str, Any] | None, reasons: bool, indexes: Sequence[int] | None
    ) -> None:
        try:
            outputs, why = self.ask_challenger(made.records, reasons)
        except Exception as err:
            self.failed(len(made.records), err)
            return
        self.metrics.records.labels(self.name, self.challenger.label, "shadow").inc(len(made.records))
        if about is not None and self.write is not None:
            batch = f"{made.token or made.batch}.{self.challenger.version}s"
            part = Answered(
                batch, made.records, outputs, why, token=batch
            )  # never sent to a caller, so no feedback is accepted
            told = {**about, "at": datetime.now(UTC), "variant": "shadow"}
            self.write(self.challenger.lines(part, told, indexes))


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def challengers(batch: str, version: int) -> str:
    """Return the batch id of a challenger's predictions, which contains its version."""
    return f"{batch}.{version}"


def version_in(prediction_id: str | None) -> int | None:
    """Return the challenger's version in a prediction id; None for a champion's id and for an invalid id."""
    _, dot, rest = (prediction_id or "").partition(".")
    told = rest.partition("-")[0]
    return int(told) if dot and told.isascii() and told.isdigit() and len(told) < 10 else None
