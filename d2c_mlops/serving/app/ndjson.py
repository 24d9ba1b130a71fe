"""NDJSON streams: one record per line in, one prediction per line out, in order; a last line confirms that all were answered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from d2c_mlops.serving.http.messages import NDJSON, HttpRefused, Request, new_id, problem_answer, too_large_answer
from d2c_mlops.serving.predict.predictor import LINE, PredictionBatch, ServedModel, validation_problem

if TYPE_CHECKING:
    from d2c_mlops.serving.app.app import App

LONGEST = 2**20  # bytes of one line


class NdjsonAnswer:
    """A request with an NDJSON body. Memory does not grow with its length; an invalid line gets an error, other lines are answered."""

    def __init__(self, app: App, request: Request, served_model: ServedModel, reasons: bool) -> None:
        self.app, self.request, self.served, self.reasons = app, request, served_model, reasons
        self.batch = new_id()
        self.about = app.log_metadata(request)
        self.index = self.predict_batch = 0
        self.logged = self.about is not None
        self.later: list[Callable[[], None]] = []  # once a part is sent

    async def run(self) -> None:
        """Answer all lines of the body."""
        request, settings = self.request, self.app.settings
        if request.header(b"idempotency-key") is not None:
            why = "send the records as one JSON body, or without the Idempotency-Key"
            raise HttpRefused(problem_answer(400, "Streams do not support Idempotency-Key", why))
        unfinished, waiting, error = b"", [], None
        parts = request.stream(settings.max_body, settings.read_seconds)
        try:
            async for part in parts:
                *lines, unfinished = (unfinished + part).split(b"\n")
                if len(unfinished) > LONGEST:
                    raise HttpRefused(too_large_answer(LONGEST))
                waiting += lines
                while len(waiting) >= LINE:
                    await self._send_answers(waiting[:LINE])
                    del waiting[:LINE]
                await self._send_answers(waiting)
                waiting.clear()
            await self._send_answers([unfinished])
        except HttpRefused as err:
            if not request.sent:
                raise
            error = orjson.loads(err.answer.body)  # the status was sent already; the last line reports the error
        if not request.sent:
            await request.begin(NDJSON)
        log_status = "true" if self.logged else "false" if self.about is not None else "sampled-out"
        last = {"complete": error is None, "records": self.index, "answered": self.predict_batch, "logged": log_status}
        text = orjson.dumps({**last, "error": error} if error else last) + b"\n"
        await request.part(text, settings.read_seconds, last=True)

    async def _send_answers(self, lines: list[bytes]) -> None:
        """Answer some lines; empty lines are ignored."""
        lines = [line for line in lines if line.strip()]
        if not lines:
            return
        if self.request.older is None:
            self.served = self.app.served()  # a rollout may have begun or ended since the last part
            if self.request.probe:
                self.served = self.served.probe_predictor
        size = (self.reasons, sum(map(len, lines)))
        answers: list[bytes] = await self.app.run_model(
            partial(self._answer_lines, lines), self.served, size, may_run_on_loop=False
        )
        if not self.request.sent:
            await self.request.begin(NDJSON)
        await self.request.part(b"".join(answers), self.app.settings.read_seconds)
        while self.later:
            self.later.pop(0)()

    def _answer_lines(self, lines: list[bytes]) -> list[bytes]:
        records, faults = {}, {}
        for index, line in enumerate(lines, self.index):
            try:
                records[index] = self.served.parse_line(line)
            except ValidationError as err:
                faults[index] = orjson.loads(validation_problem(err, self.served).answer.body)
        answers = {
            **self._predict_records(records, faults),
            **{i: {"index": i, "error": fault} for i, fault in faults.items()},
        }
        self.index += len(lines)
        return [orjson.dumps(answers[index]) + b"\n" for index in sorted(answers)]

    def _predict_records(self, records: dict[int, dict[str, Any]], faults: dict[int, Any]) -> dict[int, dict[str, Any]]:
        """Return the predictions by index. When the model refuses the records, each is predicted separately."""
        if not records:
            return {}
        inputs = list(records.values())
        try:
            result = self.served.predict_batch(self.batch, inputs, self.reasons)
        except Exception as err:
            if not hasattr(err, "failures"):
                raise
            if len(records) > 1:
                return {
                    i: a
                    for index, record in records.items()
                    for i, a in self._predict_records({index: record}, faults).items()
                }
            (index,) = records
            faults[index] = orjson.loads(problem_answer(422, "Model cannot predict these records", str(err)).body)
            return {}
        self.predict_batch += len(inputs)
        indexes = list(records)
        self._record_predictions(result, indexes)
        version = {"version": self.served.version}
        rows = zip(indexes, self.served.predictions(result, indexes), strict=True)
        return {index: {"index": index, **version, **row} for index, row in rows}

    def _record_predictions(self, result: PredictionBatch, indexes: list[int]) -> None:
        """Count and log the predictions, and queue the records for the shadow."""
        served = self.served
        self.app.count_records(served, result, self.request.probe)
        if served.shadow is not None:
            self.later.append(partial(served.shadow, result, self.about, self.reasons, indexes))
        if self.about is not None:
            lines = served.lines(result, self.about, indexes)
            self.logged = self.app.write(lines, served) == "true" and self.logged
