"""Register a fitted Model as a Version; find, verify and load versions."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, get_type_hints
from weakref import finalize

import pandas as pd
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import insert, select

from d2c_mlops import __version__
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import D2CError, DataRefused, Failure, UsageError
from d2c_mlops.ledger.schema import versions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.charter import Charter, amend
from d2c_mlops.models.core.contract import PERIODS, Contract, contract_from_dict, contract_to_dict, to_records
from d2c_mlops.models.core.model import (
    EXAMPLE_FILE,
    MODEL_FILE,
    Evaluation,
    Model,
    build_model,
    class_path,
    discover_models,
    load,
    model_class_at,
)
from d2c_mlops.monitoring.reference import write_reference
from d2c_mlops.registry import artifacts
from d2c_mlops.settings import Settings

SKETCHED = 20_000  # records that are asked for the reference of a version


@dataclass(frozen=True)
class Version:
    """A fitted Model in the registry."""

    model: str
    version: int
    created_at: datetime
    run_id: str | None
    model_class: str
    params: dict[str, Any]
    contract: dict[str, Any]
    charter: dict[str, Any]
    evaluation: dict[str, Any]
    inputs: list[dict[str, str]]
    as_of: str
    package_version: str
    artifact_uri: str
    sha256: str

    @cached_property
    def schema(self) -> Contract:
        """The contract as an object; frequency and horizon come from the parameters if the registered contract has none."""
        contract = contract_from_dict(self.contract)
        freq, horizon = self.params.get("freq"), self.params.get("horizon")
        if contract.frequency or freq not in PERIODS or "date" not in (f.kind for f in contract.input_fields):
            return contract
        return replace(contract, frequency=str(freq), horizon=horizon if isinstance(horizon, int) else 0)

    @property
    def case(self) -> Charter:
        """The charter, as an object."""
        return amend(Charter(), {k: v for k, v in self.charter.items() if v is not None})

    @property
    def score(self) -> Evaluation:
        """The evaluation, as an object."""
        return Evaluation(**self.evaluation)

    def to_dict(self) -> dict[str, Any]:
        """Return the version as JSON values."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"created_at": self.created_at.isoformat()}


def model_class(name: str, settings: Settings) -> type[Model]:
    """Return the class of a model: by its section in settings.ini, else by the contract's name."""
    root = str(settings.root)
    if settings.packages and root not in sys.path:
        sys.path.insert(0, root)
        importlib.invalidate_caches()
    models = discover_models(("d2c_mlops.models", *settings.packages))
    contract_name = settings.model(name).contract
    if contract_name not in models:
        raise UsageError(
            f"no model has a contract named {contract_name!r}",
            next=f"use one of: {', '.join(sorted(models))}, or name it in a [model:{name}] section",
        )
    return models[contract_name]


def code_contract(name: str, settings: Settings) -> Contract:
    """Return the contract of the current code: the class's contract with the parameters in settings.ini."""
    cls = model_class(name, settings)
    try:
        return new_model(name, settings, {}).contract
    except TypeError:  # a parameter without a default
        return cls.contract


def new_model(name: str, settings: Settings, params: Mapping[str, Any], tables: Tables | None = None) -> Model:
    """Return an unfitted model with the parameters and the charter of this name; tables may set default parameters."""
    cls = model_class(name, settings)
    own_params = _own_params(cls, settings.model(name).params, f"[model:{name}]")
    model = build_model(cls, {**({} if tables is None else cls.suited(tables)), **own_params, **params})
    answers = settings.model(name).charter
    if answers:
        model.charter = amend(cls.charter, answers)  # type: ignore[misc]
    return model


def _own_params(cls: type[Model], texts: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return the parameters of a section of settings.ini, converted to the types of the class."""
    kinds, params, failures = get_type_hints(cls.__init__), {}, []
    for name, text in texts.items():
        try:
            kind = TypeAdapter(kinds.get(name, str))
            params[name] = kind.validate_json(text) if text[:1] in ("{", "[") else kind.validate_python(text)
        except ValidationError as err:
            failures.append(Failure(f"{text!r}: {err.errors()[0]['msg']}", f"{where} params.{name}"))
    if failures:
        raise UsageError("the parameters of the model cannot be read", failures=failures, next="correct settings.ini")
    return params


def register(
    name: str,
    model: Model,
    evaluation: Evaluation,
    *,
    settings: Settings,
    as_of: date,
    inputs: Sequence[Mapping[str, str]] = (),  # the datasets of the training: name and digest
    run_id: str | None = None,
    example: pd.DataFrame | None = None,  # records that the fitted model predicts; the first is stored with it
    questions: pd.DataFrame
    | None = None,  # all records that one would ask it now; sketches of them and of the answers are stored
) -> Version:
    """Save, log and record a fitted model. Raises DataRefused if the saved model cannot be loaded again."""
    ledger = Ledger.of(settings)
    with TemporaryDirectory() as draft:
        folder = Path(draft, "model")
        model.save(folder)
        if example is not None:
            _write_example(model, example, folder)
        if questions is not None and len(questions):
            _write_sketches(model, questions, folder)
        try:
            load(folder, (*settings.packages, type(model).__module__))
        except Exception as err:
            raise DataRefused(
                f"the saved model cannot be loaded again ({type(err).__name__}: {err})",
                where=class_path(type(model)),
                next="define the class in a module, not in a notebook cell, and run check_model on it",
            ) from err
        if links := sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink()):
            raise DataRefused(
                f"the saved model contains links: {', '.join(links[:5])}",
                where=class_path(type(model)),
                next="let `save` write files: what a link points to is not part of the version",
            )
        digest = folder_digest(folder)
        contract, charter = contract_to_dict(model.contract), model.charter.to_dict()
        documents = {"contract.json": contract, "charter.json": charter, "evaluation.json": evaluation.to_dict()}
        metrics = {evaluation.metric: evaluation.value}
        metrics |= {f"baseline_{key}": value for key, value in evaluation.baselines.items()}
        tags = {"as_of": as_of.isoformat(), "d2c.sha256": digest, "d2c.run_id": run_id or ""}
        number, uri = artifacts.log_model_files(
            settings, name, folder, params=model.params(), metrics=metrics, documents=documents, tags=tags
        )
    row = {
        "model": name,
        "version": number,
        "created_at": datetime.now(UTC),
        "run_id": run_id,
        "model_class": class_path(type(model)),
        "params": model.params(),
        "contract": contract,
        "charter": charter,
        "evaluation": evaluation.to_dict(),
        "inputs": [dict(dataset) for dataset in inputs],
        "as_of": as_of.isoformat(),
        "package_version": __version__,
        "artifact_uri": uri,
        "sha256": digest,
    }
    with ledger.write() as connection:
        connection.execute(insert(versions).values(row))
    return find_version(ledger, name, number)


def _write_example(model: Model, example: pd.DataFrame, folder: Path) -> None:
    """Store the first record with the model after the model has predicted it according to the contract."""
    contract = model.contract
    first = contract.check_inputs(example.head(1))
    contract.check_outputs(model.predict(first.copy()))
    (record,) = to_records(contract.input_fields, first)
    (folder / EXAMPLE_FILE).write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")


def _write_sketches(model: Model, records: pd.DataFrame, folder: Path) -> None:
    """Store the sketches of at most 20,000 records, evenly spaced, and of the model's answers to them."""
    contract = model.contract
    sampled = contract.check_inputs(records.iloc[:: max(1, len(records) // SKETCHED)].reset_index(drop=True))
    answers, reasons = model.predict_with_reasons(sampled.copy())
    write_reference(contract, sampled, contract.check_outputs(answers), reasons, folder)


def find_version(ledger: Ledger, name: str, number: int | None = None) -> Version:
    """Return a version; the newest if no number is given. Raises UsageError if there is none."""
    query = select(versions).where(versions.c.model == name).order_by(versions.c.version.desc()).limit(1)
    if number is not None:
        query = query.where(versions.c.version == number)
    with ledger.read() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        which = f"version {number}" if number is not None else "version"
        raise UsageError(
            f"{name} has no {which}", next=f"`d2c run train -p model={name}` makes one; `d2c models` lists"
        )
    return Version(**row._mapping)


def all_versions(ledger: Ledger, name: str | None = None) -> list[Version]:
    """Return all versions by model, newest first."""
    query = select(versions).order_by(versions.c.model, versions.c.version.desc())
    if name:
        query = query.where(versions.c.model == name)
    with ledger.read() as connection:
        return [Version(**row._mapping) for row in connection.execute(query)]


def version_files(version: Version, settings: Settings) -> Path:
    """Return a local folder with a version's files. Raises DataRefused if they differ from the registered files."""
    folder = _folder_of(version, settings)
    if folder_digest(folder) != version.sha256:
        raise _files_changed(version, folder)
    return folder


def _folder_of(version: Version, settings: Settings) -> Path:
    folder = artifacts.local_folder(settings, version.artifact_uri)
    if not folder.is_dir():
        raise UsageError(
            f"the files of {version.model} version {version.version} are missing",
            where=version.artifact_uri,
            next=f"train again: `d2c run train -p model={version.model}`",
        )
    return folder


def _files_changed(version: Version, folder: Path) -> DataRefused:
    return DataRefused(
        f"the files of {version.model} version {version.version} were changed after they were registered",
        where=str(folder),
        next="do not use them; `d2c rollback` to another version or train again",
    )


def copy_verified_files(version: Version, settings: Settings, folder: Path) -> Path:
    """Copy a version's files into a new folder and return it; the digest is checked on the copy that is used.

    Raises DataRefused if the files differ from the registered ones; then the folder is removed.
    """
    source = _folder_of(version, settings)
    if copy_files(source, folder) != version.sha256:
        shutil.rmtree(folder)
        raise _files_changed(version, source)
    return folder


def copy_files(source: Path, target: Path) -> str:
    """Copy all files below a folder into a new one, each read once; return their digest as `folder_digest` has it.

    Links to files outside of the folder are not copied, so that the digest differs.
    """
    digest = sha256()
    target.mkdir(parents=True)
    root = source.resolve()
    for file in sorted(p for p in source.rglob("*") if p.is_file() and p.resolve().is_relative_to(root)):
        name, data = file.relative_to(source).as_posix(), file.read_bytes()
        digest.update(f"{name}\0{sha256(data).hexdigest()}\n".encode())
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    return digest.hexdigest()


def load_version(version: Version, settings: Settings) -> Model:
    """Load a version's model. Its files are read and its class is imported only after the digest is checked against the ledger.

    The class must be in this package or in [d2c] packages. Raises DataRefused, UsageError.
    """
    home = Path(mkdtemp(prefix="d2c-model-"))
    try:
        folder = copy_verified_files(version, settings, home / "model")
        model_class(version.model, settings)
        model = load(folder, settings.packages)
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    finalize(model, shutil.rmtree, home, ignore_errors=True)  # a model may read its files later
    return model


def version_params(version: Version, settings: Settings) -> dict[str, Any]:
    """Return the parameters of a version; missing ones get the defaults of its class."""
    try:
        model_class(version.model, settings)
        return build_model(model_class_at(version.model_class, settings.packages), version.params).params()
    except (D2CError, TypeError):
        return version.params


def code_digest_of_version(version: Version, settings: Settings) -> str:
    """Return the digest of the code with which a version was saved; empty if it was not recorded."""
    described = json.loads((version_files(version, settings) / MODEL_FILE).read_text(encoding="utf-8"))
    return str(described.get("code", ""))


def zone_of_days(version: Version, settings: Settings) -> str:
    """Return the time zone whose days a version answers for; UTC for one registered without."""
    described = json.loads((version_files(version, settings) / MODEL_FILE).read_text(encoding="utf-8"))
    return str(described.get("zone", "UTC"))


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 of all files below a folder: names and contents."""
    digest = sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = file.relative_to(folder).as_posix()
        digest.update(f"{name}\0{sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
