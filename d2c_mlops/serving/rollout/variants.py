"""Champion and challenger in one service: the challenger answers a share of the keys, or runs in shadow mode."""

from __future__ import annotations

import asyncio
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
from d2c_mlops.serving.predict.decode import Reader
from d2c_mlops.serving.predict.prediction_ids import PredictionId
from d2c_mlops.serving.predict.predictor import PredictionBatch, ServedModel
from d2c_mlops.serving.predict.validation import Validation
from d2c_mlops.serving.rollout.state_file import Rollout
from d2c_mlops.serving.rollout.variant_counters import RolloutCounters

TRIES = 32  # calls to find the records on which a challenger fails
WAITING = 20_000  # records in the shadow's queue; further ones are dropped and counted
PATIENCE = 15.0  # maximum seconds for a challenger, for any number of records
AT_LEAST, A_RECORD = 1.0, 0.01  # time limit of a challenger in seconds: for an answer, and in addition for each record
CHALLENGERS = ThreadPoolExecutor(16, "challenger")
LOG = logging.getLogger("d2c.service")


@dataclass(frozen=True, kw_only=True)
class VariantPair(ServedModel):
    """A champion with a challenger; base of the modes share and shadow."""

    champion: ServedModel  # what it has computed (request model, OpenAPI document, latency) is used by the pair, too
    challenger: ServedModel
    rollout: Rollout
    tally: RolloutCounters
    metrics: Metrics
    patience: float = PATIENCE
    counted: bool = True  # False for probes: synthetic keys are not counted

    @classmethod
    def of(
        cls,
        champion: ServedModel,
        challenger: ServedModel,
        rollout: Rollout,
        tally: RolloutCounters,
        metrics: Metrics,
        patience: float = PATIENCE,
        **options: Any,
    ) -> VariantPair:
        """Pair a champion with a challenger, which masks the champion's personal fields in the log, too.

        `options` are further fields of the class.
        """
        shared = {field.name: getattr(champion, field.name) for field in fields(ServedModel)}
        contract = champion.model.contract
        challenger = replace(
            challenger,
            secret=champion.secret,
            other_fields=(*contract.input_fields, *contract.output_fields),
            measured_latency=challenger.latency,
        )
        return cls(
            **shared,
            champion=champion,
            challenger=challenger,
            rollout=rollout,
            tally=tally,
            metrics=metrics,
            patience=patience,
            **options,
        )

    @cached_property
    def validation(self) -> Validation:
        return self.champion.validation

    @cached_property
    def reader(self) -> Reader:
        return self.champion.reader

    @cached_property
    def latency(self) -> LatencyEstimate:
        return self.champion.latency

    @cached_property
    def openapi_json(self) -> bytes:
        return self.champion.openapi_json

    @cached_property
    def probe_predictor(self) -> ServedModel:
        """The predictor for probes: the same versions without counting."""
        return replace(self, counted=False)

    @cached_property
    def labels(self) -> tuple[str, str]:
        """The versions, as metrics' labels."""
        return self.label, self.challenger.label

    @cached_property
    def _challenger_fields(self) -> tuple[str, ...] | None:
        """The challenger's own fields, where they are not the champion's."""
        ours, theirs = (tuple(f.name for f in side.model.contract.input_fields) for side in (self, self.challenger))
        return None if ours == theirs else theirs

    def ask_champion(self, records: Sequence[dict[str, Any]], reasons: bool) -> tuple[list[dict[str, Any]], Any]:
        """Return the champion's predictions, timed."""
        start = perf_counter()
        answer = self.answer(records, reasons)
        self._record_latency("champion", len(records), perf_counter() - start)
        return answer

    def ask_challenger(self, records: Sequence[dict[str, Any]], reasons: bool) -> tuple[list[dict[str, Any]], Any]:
        """Return the challenger's predictions, timed; raises its exceptions, and TimeoutError after the time limit.

        A challenger on the event loop was measured or declared quick; elsewhere it runs in a separate thread.
        """
        if self._challenger_fields is not None:
            records = [{name: record.get(name) for name in self._challenger_fields} for record in records]
        start = perf_counter()
        if _on_event_loop():
            outputs, why = self.challenger.answer(records, reasons)
        else:
            limit = min(self.patience, AT_LEAST + A_RECORD * len(records))
            outputs, why = CHALLENGERS.submit(self.challenger.answer, records, reasons).result(limit)
        seconds = perf_counter() - start
        orjson.dumps([outputs, why])
        self._record_latency("challenger", len(records), seconds)
        return outputs, why

    def _record_latency(self, variant: str, records: int, seconds: float) -> None:
        if not self.counted:
            return
        self.tally.count_answers(variant, records, seconds)
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
class ShareRollout(VariantPair):
    """Mode share: the challenger answers a share of the keys; where it fails, the champion answers."""

    @cached_property
    def estimates(self) -> tuple[LatencyEstimate, ...]:
        return self.latency, self.challenger.latency

    def estimates_of(self, result: PredictionBatch) -> tuple[LatencyEstimate, ...]:
        versions = result.versions_asked or ()
        sides = (self, self.challenger)
        return tuple(side.latency for side in sides if side.version in versions)

    def predict_batch(self, batch: str, records: Sequence[dict[str, Any]], reasons: bool) -> PredictionBatch:
        chooses, keys = self.rollout.chooses, values_of(records, self.key)
        theirs = [i for i, value in enumerate(keys) if chooses(value)]
        if self.counted:
            self.tally.count_requests(keys)
        if not theirs:
            outputs, why = self.ask_champion(records, reasons)
            result = PredictionBatch(batch, records, outputs, why, challenged=[False] * len(records))
            result.versions_asked = (self.version,)
            return result
        by_challenger, failed, err = self._ask_challenger_in_parts(theirs, records, reasons)
        ours = [i for i in range(len(records)) if i not in by_challenger]
        if ours:
            try:
                outputs, why = self.ask_champion([records[i] for i in ours], reasons)
            except DataRefused:  # reported with the caller's places
                outputs, why = self.answer(records, reasons)
                result = PredictionBatch(batch, records, outputs, why, challenged=[False] * len(records))
                result.versions_asked = (self.version, self.challenger.version)
                return result
            said_too = zip(ours, outputs, why or [None] * len(ours), strict=True)
            said_by_us = {i: (row, because) for i, row, because in said_too}
        else:
            said_by_us = {}
        if failed:
            self.failed(failed, err)
        whole = [by_challenger.get(i) or said_by_us[i] for i in range(len(records))]
        because = [why for _, why in whole] if reasons else None
        challenged = [i in by_challenger for i in range(len(records))]
        result = PredictionBatch(batch, records, [row for row, _ in whole], because, challenged=challenged)
        result.versions_asked = (self.challenger.version, *([self.version] if ours else []))
        return result

    def _ask_challenger_in_parts(
        self, indexes: list[int], records: Sequence[dict[str, Any]], reasons: bool
    ) -> tuple[dict[int, tuple[dict[str, Any], Any]], int, Exception | None]:
        """Return the challenger's predictions by index, and the number of failed records; a failing call is halved and retried."""
        by_index: dict[int, tuple[dict[str, Any], Any]] = {}
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
            by_index.update(zip(part, zip(outputs, why or [None] * len(part), strict=True), strict=True))
        return by_index, failed, first

    @cached_property
    def _version_marks(self) -> tuple[dict[str, Any], dict[str, Any]]:
        versions = ((self.version, "champion"), (self.challenger.version, "challenger"))
        mark_dicts = [{"version": version, "variant": variant} for version, variant in versions]
        return mark_dicts[0], mark_dicts[1]

    def sign(self, result: PredictionBatch, places: Sequence[int]) -> None:
        """Sign an id for each prediction, which contains the version that answered."""
        if result.ids is None:
            token, versions = self.signer.token, (None, self.challenger.version)
            chosen = result.challenged or [False] * len(result.records)
            rows = zip(places, chosen, strict=True)
            result.ids = [f"{token(result.batch, i, i + 1, versions[theirs])}-{i}" for i, theirs in rows]

    def predictions(self, result: PredictionBatch, indexes: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the predictions; each names its version and variant."""
        chosen, marks = result.challenged or [False] * len(result.records), self._version_marks
        self.sign(result, range(len(result.outputs)) if indexes is None else indexes)
        assert result.ids is not None
        rows = [
            {"prediction_id": id, **marks[theirs], **row}
            for id, theirs, row in zip(result.ids, chosen, result.outputs, strict=True)
        ]
        if result.reasons is not None:
            for row, why in zip(rows, result.reasons, strict=True):
                row["reasons"] = why
        return rows

    def lines(
        self, result: PredictionBatch, log_metadata: dict[str, Any], indexes: Sequence[int] | None = None
    ) -> list[bytes]:
        """Return log lines: of the champion's predictions, then of the challenger's."""
        chosen = result.challenged or [False] * len(result.records)
        places = range(len(result.records)) if indexes is None else indexes
        self.sign(result, places)
        assert result.ids is not None
        log_lines = []
        for theirs in (False, True):
            rows = [i for i, is_challenger in enumerate(chosen) if is_challenger is theirs]
            if not rows:
                continue
            why = [result.reasons[i] for i in rows] if result.reasons is not None else None
            batch = challenger_batch_id(result.batch, self.challenger.version) if theirs else result.batch
            part = PredictionBatch(batch, [result.records[i] for i in rows], [result.outputs[i] for i in rows], why)
            part.ids = [result.ids[i] for i in rows]
            metadata, where = (
                {**log_metadata, "variant": self._version_marks[theirs]["variant"]},
                [places[i] for i in rows],
            )
            log_lines += (
                self.challenger.lines(part, metadata, where) if theirs else super().lines(part, metadata, where)
            )
        return log_lines

    def counts(self, result: PredictionBatch) -> Iterable[tuple[str, str, int]]:
        theirs = sum(result.challenged or ())
        both = ((self.label, "champion", len(result.records) - theirs), (self.challenger.label, "challenger", theirs))
        return [count for count in both if count[2]]

    def version_of_feedback(self, decoded_id: PredictionId | None, key: str | None) -> int:
        """Return the version that feedback refers to, by the prediction's id, else by the key."""
        if decoded_id is not None:
            return decoded_id.challenger or self.version
        return self.challenger.version if self.rollout.chooses(key) else self.version

    def count_feedback(
        self, action: str, decoded_id: PredictionId | None, prediction_id: str | None, key: str | None
    ) -> None:
        """Count feedback once for a signed prediction id, or for a key that was requested in this stage."""
        if decoded_id is None:
            about, theirs = f"key {key}", self.rollout.chooses(key)
            is_counted = self.tally.was_asked(key)
        else:
            about, theirs = f"id {prediction_id}", decoded_id.challenger == self.challenger.version
            is_counted = decoded_id.verified and (theirs or decoded_id.challenger is None)
        if is_counted and self.counted:
            self.tally.count_feedback("challenger" if theirs else "champion", action, about)


class ShadowQueue:
    """Queue of records for the challenger in shadow mode, processed in a thread."""

    def __init__(self, waiting: int = WAITING) -> None:
        self.waiting, self.left = waiting, 0
        self.lock = threading.Lock()
        self.queue: queue.SimpleQueue[tuple[int, Callable[[], None]] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._process_queue, name="shadow", daemon=True)
        self.thread.start()

    def put(self, records: int, work: Callable[[], None]) -> bool:
        """Queue work; False when the queue is full."""
        with self.lock:
            if self.left + records > self.waiting:
                return False
            self.left += records
        self.queue.put((records, work))
        return True

    def _process_queue(self) -> None:
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
class ShadowRollout(VariantPair):
    """Mode shadow: the champion answers all requests; the challenger predicts later and is only logged."""

    shadows: ShadowQueue | None = None
    write: Callable[[list[bytes]], None] | None = None

    @cached_property
    def probe_predictor(self) -> ServedModel:
        """The predictor for probes: the champion, without counting and without shadow."""
        return self.champion.probe_predictor

    def predict_batch(self, batch: str, records: Sequence[dict[str, Any]], reasons: bool) -> PredictionBatch:
        return PredictionBatch(batch, records, *self.ask_champion(records, reasons))

    def shadow(
        self,
        result: PredictionBatch,
        log_metadata: dict[str, Any] | None,
        reasons: bool,
        indexes: Sequence[int] | None = None,
    ) -> None:
        """Queue records for the challenger after the champion's answer is sent."""
        assert self.shadows is not None
        if not self.shadows.put(
            len(result.records), partial(self._shadow_answer, result, log_metadata, reasons, indexes)
        ):
            self.metrics.dropped.labels(self.name, self.challenger.label).inc(len(result.records))

    def _shadow_answer(
        self, result: PredictionBatch, log_metadata: dict[str, Any] | None, reasons: bool, indexes: Sequence[int] | None
    ) -> None:
        try:
            outputs, why = self.ask_challenger(result.records, reasons)
        except Exception as err:
            self.failed(len(result.records), err)
            return
        self.metrics.records.labels(self.name, self.challenger.label, "shadow").inc(len(result.records))
        if log_metadata is not None and self.write is not None:
            batch = f"{result.token or result.batch}.{self.challenger.version}s"
            part = PredictionBatch(
                batch, result.records, outputs, why, token=batch
            )  # never sent to a caller, so no feedback is accepted
            metadata = {**log_metadata, "at": datetime.now(UTC), "variant": "shadow"}
            self.write(self.challenger.lines(part, metadata, indexes))


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def challenger_batch_id(batch: str, version: int) -> str:
    """Return the batch id of a challenger's predictions, which contains its version."""
    return f"{batch}.{version}"


def challenger_version_in(prediction_id: str | None) -> int | None:
    """Return the challenger's version in a prediction id; None for a champion's id and for an invalid id."""
    _, dot, suffix = (prediction_id or "").partition(".")
    version = suffix.partition("-")[0]
    return int(version) if dot and version.isascii() and version.isdigit() and len(version) < 10 else None
