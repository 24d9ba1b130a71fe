"""Former names of modules: projects, notebooks and versions written before a module moved keep working."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

# Former name: present one, both below d2c_mlops.
MODULES: dict[str, str] = {
    "convert.magic": "convert.check.magic",
    "data.archives": "data.sources.archives",
    "data.bank_marketing": "data.layouts.bank_marketing",
    "data.calendar_dates": "data.sources.calendar_dates",
    "data.cells": "data.ingestion.cells",
    "data.complete_journey": "data.layouts.complete_journey",
    "data.csv_files": "data.sources.csv_files",
    "data.csv_quotes": "data.sources.csv_quotes",
    "data.files": "data.sources.files",
    "data.frames": "data.sources.frames",
    "data.identifiers": "data.sources.identifiers",
    "data.increment": "data.ingestion.increment",
    "data.ingest": "data.ingestion.ingest",
    "data.joining": "data.ingestion.joining",
    "data.leads": "data.layouts.leads",
    "data.money": "data.layouts.money",
    "data.numerals": "data.sources.numerals",
    "data.online_retail": "data.layouts.online_retail",
    "data.overlap": "data.ingestion.overlap",
    "data.reading": "data.ingestion.reading",
    "data.sales_totals": "data.layouts.sales_totals",
    "data.shopify": "data.layouts.shopify",
    "data.shopify_money": "data.layouts.shopify_money",
    "data.shopify_notes": "data.layouts.shopify_notes",
    "data.shopify_refunds": "data.layouts.shopify_refunds",
    "data.shopify_rows": "data.layouts.shopify_rows",
    "data.text_encoding": "data.sources.text_encoding",
    "lifetimes": "parent_death",
    "locks": "file_lock",
    "models.additive": "models.lead_scoring.additive",
    "models.backtest": "models.forecasting.backtest",
    "models.baselines": "models.forecasting.baselines",
    "models.charter": "models.core.charter",
    "models.combined": "models.forecasting.combined",
    "models.conformance": "models.core.conformance",
    "models.contract": "models.core.contract",
    "models.contract_changes": "models.core.contract_changes",
    "models.customer_features": "models.segmentation.customer_features",
    "models.forecasts": "models.forecasting.forecasts",
    "models.intervals": "models.forecasting.intervals",
    "models.lead_answers": "models.lead_scoring.answers",
    "models.lead_baselines": "models.lead_scoring.baselines",
    "models.lead_evaluation": "models.lead_scoring.evaluation",
    "models.lead_fields": "models.lead_scoring.fields",
    "models.lead_guard": "models.lead_scoring.leakage_guard",
    "models.lead_learning": "models.lead_scoring.learning",
    "models.lead_outputs": "models.lead_scoring.outputs",
    "models.lead_replay": "models.lead_scoring.replay",
    "models.lead_training": "models.lead_scoring.training",
    "models.lead_words": "models.lead_scoring.wording",
    "models.learned_columns": "models.converted.learned_columns",
    "models.lifetime_value": "models.segmentation.lifetime_value",
    "models.model": "models.core.model",
    "models.panel": "models.forecasting.panel",
    "models.periods": "models.forecasting.periods",
    "models.replay": "models.converted.recorded_steps",
    "models.rfm": "models.segmentation.rfm",
    "models.segment_answers": "models.segmentation.answers",
    "models.segment_choice": "models.segmentation.choice",
    "models.segment_plots": "models.segmentation.plots",
    "models.segments": "models.segmentation.segments",
    "models.smoothing": "models.forecasting.smoothing",
    "models.statistical": "models.converted.statistical",
    "models.treatments": "models.segmentation.treatments",
    "options": "settings.schema",
    "runs.values": "runs.recording",
    "serving.service": "serving.app.service",
    "serving.sinks": "serving.batch.sinks",
    "values": "settings.parsing",
}
# Modules whose names are packages now: what is asked of the package is looked for here.
PACKAGES: dict[str, str] = {
    "data.layouts": "data.layouts.discovery",
    "data.sources": "data.sources.fetch",
    "models.forecasting": "models.forecasting.forecasting",
    "models.lead_scoring": "models.lead_scoring.lead_scoring",
    "models.segmentation": "models.segmentation.segmentation",
    "serving.batch": "serving.batch.score",
}
# Classes that a project's own evaluators and targets are written with, by module: former name: present one.
CLASSES: dict[str, dict[str, str]] = {
    "decisions.targets": {"Outcome": "ApplyOutcome", "Target": "DecisionTarget"},
    "registry.evaluators": {"Trial": "EvaluationTrial"},
}
ROOT = __package__ or "d2c_mlops"


class FormerNames(MetaPathFinder, Loader):
    """Find modules by their former names; it is asked last, so nothing that exists is replaced."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of a former name is found, None for other names."""
        former = fullname.removeprefix(f"{ROOT}.")
        return spec_from_loader(fullname, self) if former in MODULES and former != fullname else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module that has the present name."""
        present = f"{ROOT}.{MODULES[spec.name.removeprefix(f'{ROOT}.')]}"
        warnings.warn(f"{spec.name} is now {present}", DeprecationWarning, stacklevel=2)
        module = import_module(present)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own specification back, which the import has replaced."""
        if module.__spec__ is not None and module.__spec__.loader is self:
            module.__spec__ = module.__spec__.loader_state


def attribute(package: str, name: str) -> Any:
    """Return what a package's former module has under a name. Raises AttributeError."""
    present = PACKAGES[package.removeprefix(f"{ROOT}.")]
    if not name.startswith("__"):
        try:
            return getattr(import_module(f"{ROOT}.{present}"), name)
        except AttributeError:
            pass
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


def renamed_class(module: str, name: str) -> Any:
    """Return the class of a module that had another name before. Raises AttributeError."""
    present = CLASSES[module.removeprefix(f"{ROOT}.")].get(name)
    if present is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is now {present}", DeprecationWarning, stacklevel=3)
    return getattr(import_module(module), present)


def install() -> None:
    """Find former names in this process from now on."""
    if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(FormerNames())
