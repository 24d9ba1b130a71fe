"""Predictor: validate a request, predict or explain, and format answers and log lines, by the model's contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isfinite, isinf
from typing import Any, ClassVar

import orjson
import pandas as pd
from pydantic import ValidationError

from d2c_mlops.errors import D2CError
from d2c_mlops.models.core.contract import Contract, to_frame, to_records, values_of
from d2c_mlops.models.core.contract import Field as ContractField
from d2c_mlops.models.core.model import Model
from d2c_mlops.serving.http.latency import LatencyEstimate
from d2c_mlops.serving.http.messages import HttpRefused, problem_answer
from d2c_mlops.serving.predict import openapi
from d2c_mlops.serving.predict.decode import Reader
from d2c_mlops.serving.predict.prediction_ids import PredictionId, Signer
from d2c_mlops.serving.predict.privacy import keyed_pseudonym, mask_reason_texts
from d2c_mlops.serving.predict.validation import LISTED, Validation

MAX_RECORDS = 10_000
NAME, MESSAGE = 200, 500  # maximum length of a field's name and of a message in errors
LINE = 500  # records in a line of the prediction log
EXACT = ("string", "integer")  # kinds of keys that an answer repeats exactly
Mask = Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]]


class InvalidPredictions(D2CError):
    """Predictions of a model that do not match the records or the contract: an error of the model."""


@dataclass
class PredictionBatch:
    """Records with their predictions and reasons."""

    batch: str  # random digits with which the predictions' ids begin
    records: Sequence[dict[str, Any]]
    outputs: list[dict[str, Any]]
    reasons: list[list[str]] | None
    body: bytes = b""
    lines: list[bytes] = field(default_factory=list)  # for the prediction log
    challenged: list[bool] | None = (
        None  # of each record, whether the challenger answered it; None without a challenger
    )
    versions_asked: tuple[int, ...] | None = None  # versions that ran; None: only the served version
    sent: bytes | None = None  # the records as sent, if equivalent to the parsed records
    token: str = ""  # ids are TOKEN-PLACE if one token covers all predictions
    ids: list[str] | None = None  # the ids, if no single token covers all predictions


@dataclass(frozen=True)
class ServedModel:
    """A loaded model with its name, version and metadata."""

    shadow: ClassVar[Callable[..., None] | None] = None  # called after an answer is sent

    model: Model
    name: str
    version: int
    about: dict[str, Any]  # run id, as_of, package version, digest
    example: dict[str, Any]  # a record that the model can predict
    max_records: int = MAX_RECORDS
    secret: bytes = b""  # personal fields are hashed under it in the log; dropped when empty
    openapi_document: bytes = b""  # only for an older contract; default: created from the model
    other_fields: tuple[
        ContractField, ...
    ] = ()  # fields of the other version of a rollout; its personal fields are masked, too
    measured_latency: LatencyEstimate | None = None  # shared with another predictor of the version

    @cached_property
    def validation(self) -> Validation:
        """Validator for records that the reader does not accept."""
        contract = self.model.contract
        return Validation(contract.request_model, contract.input_fields, self.max_records)

    @cached_property
    def reader(self) -> Reader:
        """Fast reader of records that match the contract."""
        return Reader(self.model.contract.input_fields, self.max_records)

    @cached_property
    def latency(self) -> LatencyEstimate:
        """Measured latency of this version."""
        return LatencyEstimate(self.model.quick) if self.measured_latency is None else self.measured_latency

    @cached_property
    def estimates(self) -> tuple[LatencyEstimate, ...]:
        """Latency of each version that may run before the answer is sent."""
        return (self.latency,)

    def estimates_of(self, result: PredictionBatch) -> tuple[LatencyEstimate, ...]:
        """Latency of the versions that ran for an answer."""
        return self.estimates

    @cached_property
    def label(self) -> str:
        """The version, as a metric's label."""
        return str(self.version)

    @cached_property
    def explains(self) -> bool:
        """Whether the model gives reasons."""
        cls = type(self.model)
        return cls.explain is not Model.explain or cls.explain_records is not Model.explain_records

    @cached_property
    def openapi_json(self) -> bytes:
        """The OpenAPI document."""
        return self.openapi_document or orjson.dumps(openapi.openapi_document(self))

    @cached_property
    def key(self) -> str:
        """The name of the contract's key."""
        return self.model.contract.key

    @cached_property
    def mask(self) -> Mask | None:
        """Function that hashes or drops personal values of records; None when the contract has no personal field."""
        return mask_function(self._logged_fields, self.secret)

    @property
    def _logged_fields(self) -> tuple[ContractField, ...]:
        contract = self.model.contract
        return *contract.input_fields, *contract.output_fields, *self.other_fields

    def mask_reasons(
        self, inputs: Sequence[dict[str, Any]], outputs: list[dict[str, Any]], reasons: list[list[str]]
    ) -> list[list[str]]:
        """Return reasons without the personal values of their records."""
        personal = {field.name for field in self._logged_fields if field.personal}
        rows = zip(inputs, outputs, reasons, strict=True)
        return [
            mask_reason_texts(why, (inputs_of_row, outputs_of_row), personal)
            for inputs_of_row, outputs_of_row, why in rows
        ]

    def parse(self, body: bytes) -> tuple[Sequence[dict[str, Any]], bytes | None]:
        """Return the records of a request's body, and their text where it is equivalent. Raises ValidationError."""
        records = self.reader.records(body)
        if records is None:
            return self.validation.records(body), None
        return records, self.reader.sent(body)

    def parse_line(self, line: bytes) -> dict[str, Any]:
        """Return the record in a line of NDJSON. Raises ValidationError."""
        record = self.reader.record(line)
        return self.validation.record(line) if record is None else record

    def answer(self, records: Sequence[dict[str, Any]], reasons: bool) -> tuple[list[dict[str, Any]], Any]:
        """Return outputs, and reasons when wanted, for checked records. Raises DataRefused, and InvalidPredictions for invalid predictions."""
        model, contract = self.model, self.model.contract
        outputs: list[dict[str, Any]] | None
        row_reasons: list[list[str]] | None = None
        if reasons and (both := model.answer_records(records)) is not None:
            outputs, row_reasons = both
        elif reasons or (outputs := model.predict_records(records)) is None:
            frame = to_frame(contract.input_fields, records)
            predicted, row_reasons = model.predict_with_reasons(frame) if reasons else (model.predict(frame), None)
            outputs = to_records(contract.output_fields, predicted)
        if len(outputs) != len(records) or (reasons and (row_reasons is None or len(row_reasons) != len(records))):
            raise InvalidPredictions(
                f"{self.name} returned {len(outputs)} predictions for {len(records)} records, {len(row_reasons or ())} with reasons"
            )
        self._prediction_check(records, outputs)
        return outputs, row_reasons

    @cached_property
    def _prediction_check(self) -> Callable[[Sequence[dict[str, Any]], list[dict[str, Any]]], None]:
        """Function that raises InvalidPredictions for predictions in the wrong order or with missing values."""
        contract = self.model.contract
        nullable = {field.name: field.nullable for field in contract.output_fields}
        numbers = {field.name for field in contract.output_fields if field.kind == "number"}
        same = next((f.name for f in contract.output_fields if f.name == contract.key and f.kind in EXACT), None)

        def fits(records: Sequence[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
            for name, may_lack in nullable.items():
                values: list[Any] = [row.get(name) for row in outputs]
                if name == same and values != list(values_of(records, name)):
                    raise InvalidPredictions(f"{self.name} returned another {name} for a record")
                if None in values:
                    if not may_lack:
                        raise InvalidPredictions(f"{self.name} returned a prediction without {name}")
                    values = [value for value in values if value is not None]
                if name in numbers and not all(map(isfinite, values)) and (not may_lack or any(map(isinf, values))):
                    raise InvalidPredictions(f"{self.name} returned a prediction whose {name} is not a number")

        return fits

    def predict(
        self, body: bytes, batch: str, reasons: bool = False, log_metadata: dict[str, Any] | None = None
    ) -> PredictionBatch:
        """Return the answer to a request's body, with log lines where `log_metadata` has metadata to log."""
        records, sent = self.parse(body)
        result = self.predict_batch(batch, records, reasons)
        result.body = orjson.dumps({**self.head, "predictions": self.predictions(result)})
        if log_metadata is not None:
            result.sent = sent
            result.lines = self.lines(result, log_metadata)
        return result

    def predict_batch(self, batch: str, records: Sequence[dict[str, Any]], reasons: bool) -> PredictionBatch:
        """Return validated records with their predictions. Raises DataRefused."""
        return PredictionBatch(batch, records, *self.answer(records, reasons))

    @cached_property
    def head(self) -> dict[str, Any]:
        """Metadata at the beginning of every answer: model, version, contract."""
        return {"model": self.name, "version": self.version, "contract": self.model.contract.version}

    @cached_property
    def signer(self) -> Signer:
        """Signer of prediction ids, which also verifies the ids in feedback."""
        return Signer(self.secret, self.name)

    def sign(self, result: PredictionBatch, places: Sequence[int]) -> None:
        """Sign the predictions' ids: one token for consecutive places, else a token for each."""
        if result.token or result.ids is not None:
            return
        first, end = places[0], places[-1] + 1
        if end - first == len(places):
            result.token = self.signer.token(result.batch, first, end)
        else:
            result.ids = [f"{self.signer.token(result.batch, i, i + 1)}-{i}" for i in places]

    def predictions(self, result: PredictionBatch, indexes: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the predictions for the caller; `indexes` are the records' places in their batch."""
        places = range(len(result.outputs)) if indexes is None else indexes
        self.sign(result, places)
        token, ids = result.token, result.ids
        if ids is not None:
            rows = [{"prediction_id": id, **row} for id, row in zip(ids, result.outputs, strict=True)]
        else:
            rows = [{"prediction_id": f"{token}-{i}", **row} for i, row in zip(places, result.outputs, strict=True)]
        if result.reasons is not None:
            for row, why in zip(rows, result.reasons, strict=True):
                row["reasons"] = why
        return rows

    def lines(
        self, result: PredictionBatch, log_metadata: dict[str, Any], indexes: Sequence[int] | None = None
    ) -> list[bytes]:
        """Return log lines of an answer, at most LINE records each, personal fields hashed or dropped."""
        log_lines, mask = [], self.mask
        places = range(len(result.records)) if indexes is None else indexes
        self.sign(result, places)
        sent_text = result.sent if mask is None and len(result.records) <= LINE else None
        for start in range(0, len(result.records), LINE):
            rows = slice(start, start + LINE)
            inputs, outputs, where = () if sent_text else result.records[rows], result.outputs[rows], places[rows]
            line = {
                "kind": "predictions",
                "id": result.token or result.batch,
                "first": where[0],
                **self.head,
                **log_metadata,
                "key": self.key,
                "inputs": orjson.Fragment(sent_text) if sent_text else mask(inputs) if mask else inputs,
                "outputs": mask(outputs) if mask else outputs,
            }
            if where[-1] - where[0] >= len(where):
                line["indexes"] = list(where)
            if result.ids is not None:
                line["ids"] = result.ids[rows]
            if result.reasons is not None:
                line["reasons"] = (
                    self.mask_reasons(inputs, outputs, result.reasons[rows]) if mask else result.reasons[rows]
                )
            log_lines.append(orjson.dumps(line))
        return log_lines

    def counts(self, result: PredictionBatch) -> Iterable[tuple[str, str, int]]:
        """Yield version, variant and number of answered records."""
        return ((self.label, "champion", len(result.records)),)

    @property
    def probe_predictor(self) -> ServedModel:
        """The predictor for probes, without counting."""
        return self

    def version_of_feedback(self, decoded_id: PredictionId | None, key: str | None) -> int:
        """Return the version that feedback refers to, by the prediction's id, else by the key."""
        return self.version

    def count_feedback(
        self, action: str, decoded_id: PredictionId | None, prediction_id: str | None, key: str | None
    ) -> None:
        """Count stored feedback while two versions are compared."""


def check_predictions(contract: Contract, inputs: pd.DataFrame, predicted: pd.DataFrame, name: str) -> None:
    """Raise InvalidPredictions where a table of predictions does not match its records; the same checks as in the service, by column."""
    if len(predicted) != len(inputs):
        raise InvalidPredictions(f"{name} returned {len(predicted)} predictions for {len(inputs)} records")
    key = contract.key
    kinds = {field.name: field.kind for field in contract.output_fields}
    if kinds[key] in EXACT and predicted[key].tolist() != inputs[key].tolist():
        raise InvalidPredictions(f"{name} returned another {key} for a record")
    for output in contract.output_fields:
        values = predicted[output.name]
        if not output.nullable and values.isna().any():
            raise InvalidPredictions(f"{name} returned a prediction without {output.name}")
        if output.kind == "number" and values.isin([inf, -inf]).any():
            raise InvalidPredictions(f"{name} returned a prediction whose {output.name} is not a number")


def mask_function(fields: Iterable[ContractField], secret: bytes) -> Mask | None:
    """Return a function that hashes or drops personal fields; None when no field is personal."""
    personal = {field.name: field for field in fields if field.personal}
    if not personal:
        return None
    dropped = {name for name, field in personal.items() if field.personal == "drop" or not secret}

    def mask(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                name: value if name not in personal else keyed_pseudonym(value, secret)
                for name, value in record.items()
                if name not in dropped
            }
            for record in records
        ]

    return mask


def validation_problem(err: ValidationError, served_model: ServedModel) -> HttpRefused:
    """Return the refusal with every error, its record index and field; sent values may be personal and are not repeated."""
    faults, status = [], 400
    for error in err.errors(include_url=False, include_input=False, include_context=False)[: LISTED + 1]:
        where = error["loc"]
        index = where[1] if len(where) > 1 and where[0] == "records" else None
        name = ".".join(str(part) for part in (where[2:] if index is not None else where)) or "body"
        faults.append({"index": index, "field": name[:NAME], "message": error["msg"][:MESSAGE]})
        if error["type"] == "too_long" and where == ("records",):
            status = 413
    title = "Request does not match the contract" if status == 400 else "Too many records in a request"
    see = f"errors are listed; GET /contract describes the inputs of {served_model.name}"
    return HttpRefused(problem_answer(status, title, see, errors=faults))
