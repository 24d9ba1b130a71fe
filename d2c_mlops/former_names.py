"""Former names of modules: projects, notebooks and versions written before a module moved keep working."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

# Former name: present one, both below d2c_mlops.
MODULES: dict[str, str] = {
    "convert.agreement": "convert.run.feature_agreement",
    "convert.authored": "convert.plan.author_functions",
    "convert.capture": "convert.run.capture",
    "convert.change": "convert.api_changes.change",
    "convert.changes": "convert.api_changes.libraries",
    "convert.changes.deep": "convert.api_changes.libraries.deep",
    "convert.changes.numpy": "convert.api_changes.libraries.numpy",
    "convert.changes.pandas": "convert.api_changes.libraries.pandas",
    "convert.changes.pandas_dates": "convert.api_changes.libraries.pandas_dates",
    "convert.changes.plotting": "convert.api_changes.libraries.plotting",
    "convert.changes.scientific": "convert.api_changes.libraries.scientific",
    "convert.changes.sklearn": "convert.api_changes.libraries.sklearn",
    "convert.child": "convert.run.child",
    "convert.child_control": "convert.run.child_control",
    "convert.columns": "convert.meaning.columns",
    "convert.commenting": "convert.source.comments",
    "convert.container_init": "convert.run.container_init",
    "convert.containers": "convert.run.containers",
    "convert.cutting": "convert.plan.block_splitting",
    "convert.dataflow": "convert.source.dataflow",
    "convert.downloading": "convert.source.download",
    "convert.entry": "convert.plan.record_entry",
    "convert.environment": "convert.source.environment",
    "convert.era": "convert.api_changes.library_versions",
    "convert.evaluation_plan": "convert.plan.evaluation_plan",
    "convert.existence": "convert.source.path_exists",
    "convert.fetching": "convert.repair.downloads",
    "convert.files": "convert.repair.data_files",
    "convert.finding": "convert.source.finding",
    "convert.fix": "convert.check.apply_fixes",
    "convert.held_out": "convert.run.held_out",
    "convert.importing": "convert.repair.added_imports",
    "convert.imports": "convert.source.imports",
    "convert.inference": "convert.meaning.inference",
    "convert.inside": "convert.plan.recorded_functions",
    "convert.isolation": "convert.run.isolation",
    "convert.isolation_launcher": "convert.run.isolation_launcher",
    "convert.known": "convert.meaning.api_signatures",
    "convert.learning": "convert.plan.row_dependence",
    "convert.linter": "convert.check.linter",
    "convert.local_packages": "convert.run.local_packages",
    "convert.magic": "convert.check.magic",
    "convert.magics": "convert.source.magics",
    "convert.mending": "convert.repair.fix_registry",
    "convert.mends": "convert.repair.fixes",
    "convert.mends.api": "convert.repair.fixes.removed_api",
    "convert.mends.arguments": "convert.repair.fixes.arguments",
    "convert.mends.calls": "convert.repair.fixes.changed_calls",
    "convert.mends.counts": "convert.repair.fixes.value_counts",
    "convert.mends.dates": "convert.repair.fixes.dates",
    "convert.mends.estimators": "convert.repair.fixes.estimators",
    "convert.mends.formats": "convert.repair.fixes.file_formats",
    "convert.mends.frames": "convert.repair.fixes.frames",
    "convert.mends.grouping": "convert.repair.fixes.grouping",
    "convert.mends.lost": "convert.repair.fixes.session_state",
    "convert.mends.modules": "convert.repair.fixes.modules",
    "convert.mends.networks": "convert.repair.fixes.neural_networks",
    "convert.mends.paths": "convert.repair.fixes.paths",
    "convert.mends.plots": "convert.repair.fixes.plots",
    "convert.mends.python2": "convert.repair.fixes.python2",
    "convert.mends.series": "convert.repair.fixes.time_series",
    "convert.mends.texts": "convert.repair.fixes.text_columns",
    "convert.model_plan": "convert.plan.model_plan",
    "convert.naming": "convert.plan.naming",
    "convert.notebook": "convert.source.notebook",
    "convert.observed": "convert.run.inferred_contract",
    "convert.packages": "convert.repair.packages",
    "convert.path_values": "convert.meaning.path_values",
    "convert.piece": "convert.plan.block",
    "convert.probe": "convert.run.probe",
    "convert.reading": "convert.plan.data_flow",
    "convert.refusals": "convert.repair.refusal_messages",
    "convert.replay": "convert.plan.replay",
    "convert.report": "convert.check.report",
    "convert.resorts": "convert.repair.last_resorts",
    "convert.revive": "convert.repair.repairing",
    "convert.revived": "convert.repair.repair_result",
    "convert.rewrite": "convert.source.source_edits",
    "convert.rewrites": "convert.repair.replacement_registry",
    "convert.rewritings": "convert.repair.replacements",
    "convert.rewritings.others": "convert.repair.replacements.other_libraries",
    "convert.rewritings.pandas": "convert.repair.replacements.pandas",
    "convert.rewritings.pandas_dates": "convert.repair.replacements.pandas_dates",
    "convert.rewritings.plotting": "convert.repair.replacements.plotting",
    "convert.rewritings.sklearn": "convert.repair.replacements.sklearn",
    "convert.roles": "convert.meaning.roles",
    "convert.rule": "convert.check.rule",
    "convert.rulebook": "convert.check.rulebook",
    "convert.rules": "convert.check.rules",
    "convert.rules.chance": "convert.check.rules.randomness",
    "convert.rules.drift": "convert.check.rules.library_changes",
    "convert.rules.ending": "convert.check.rules.exit_status",
    "convert.rules.leakage": "convert.check.rules.leakage",
    "convert.rules.modules": "convert.check.rules.modules",
    "convert.rules.pandas3": "convert.check.rules.pandas3",
    "convert.rules.places": "convert.check.rules.data_paths",
    "convert.rules.reading": "convert.check.rules.syntax",
    "convert.rules.secrets": "convert.check.rules.secrets",
    "convert.rules.shape": "convert.check.rules.production_readiness",
    "convert.rules.state": "convert.check.rules.hidden_state",
    "convert.sandbox": "convert.run.isolated_run",
    "convert.saving": "convert.repair.saving",
    "convert.scopes": "convert.source.scopes",
    "convert.secrets": "convert.check.secret_scan",
    "convert.sections": "convert.source.sections",
    "convert.slicing": "convert.plan.slicing",
    "convert.star_imports": "convert.source.star_imports",
    "convert.statements": "convert.source.statements",
    "convert.steps": "convert.plan.steps",
    "convert.turned": "convert.plan.recorded_transforms",
    "convert.write.case": "convert.write.charter",
    "convert.write.sharing": "convert.write.shared_steps",
    "convert.writing": "convert.write.writing",
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
    "decisions.applying": "decisions.apply",
    "decisions.counts": "decisions.request_metrics",
    "decisions.deciding": "decisions.verdicts",
    "decisions.telling": "decisions.notifications",
    "decisions.turn": "decisions.cycle",
    "decisions.words": "decisions.wording",
    "demo.asking": "demo.http_check",
    "demo.revival": "demo.old_notebook",
    "demo.walk": "demo.demo",
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
    "registry.gate_question": "registry.candidate",
    "runs.ahead": "runs.schedule.clock_changes",
    "runs.cadence": "runs.schedule.cadence",
    "runs.client": "runs.execution.client",
    "runs.environments": "runs.execution.environments",
    "runs.execute": "runs.execution.execute",
    "runs.execution.printed": "runs.execution.cell_output",
    "runs.failures": "runs.execution.failures",
    "runs.jobs": "runs.schedule.jobs",
    "runs.kernel_setup": "runs.execution.kernel_setup",
    "runs.kernels": "runs.execution.kernels",
    "runs.lab_server": "runs.lab.server_extension",
    "runs.notify": "runs.schedule.notify",
    "runs.outputs": "runs.execution.outputs",
    "runs.page": "runs.execution.page",
    "runs.page_body": "runs.execution.page_body",
    "runs.parameter_types": "runs.parameters.types",
    "runs.printed": "runs.execution.cell_output",
    "runs.processes": "runs.execution.processes",
    "runs.pulse": "runs.execution.leases",
    "runs.records": "runs.execution.records",
    "runs.redaction": "runs.secrets.redaction",
    "runs.reread": "runs.schedule.reload_settings",
    "runs.schedule.ahead": "runs.schedule.clock_changes",
    "runs.schedule.reread": "runs.schedule.reload_settings",
    "runs.schedule.waits": "runs.schedule.dependencies",
    "runs.scratch": "runs.execution.scratch",
    "runs.slot_parameters": "runs.schedule.slot_parameters",
    "runs.slot_run": "runs.schedule.slot_run",
    "runs.slots": "runs.execution.slots",
    "runs.stages": "runs.execution.stages",
    "runs.supervise": "runs.execution.supervise",
    "runs.values": "runs.recording",
    "runs.waits": "runs.schedule.dependencies",
    "runs.worker": "runs.execution.worker",
    "serving.answering": "serving.predict.predictor",
    "serving.bento": "serving.package.bento",
    "serving.callers": "serving.app.auth",
    "serving.child": "serving.local.child",
    "serving.collect": "serving.log.collect",
    "serving.container": "serving.package.container",
    "serving.container.builders": "serving.package.container.builders",
    "serving.container.packages": "serving.package.container.packages",
    "serving.container.prepare": "serving.package.container.prepare",
    "serving.container.sbom": "serving.package.container.sbom",
    "serving.feedback": "serving.predict.feedback",
    "serving.history": "serving.rollout.history",
    "serving.ids": "serving.predict.prediction_ids",
    "serving.journal": "serving.http.json_logging",
    "serving.kept": "serving.http.idempotency",
    "serving.keys": "serving.http.api_keys",
    "serving.ledger_sink": "serving.batch.ledger_sink",
    "serving.load": "serving.local.load_generator",
    "serving.loadtest": "serving.local.loadtest",
    "serving.logbook": "serving.log.files",
    "serving.majors": "serving.predict.older_contracts",
    "serving.metrics": "serving.http.metrics",
    "serving.openapi": "serving.predict.openapi",
    "serving.origins": "serving.http.origins",
    "serving.pace": "serving.http.latency",
    "serving.pins": "serving.package.requirements",
    "serving.privacy": "serving.predict.privacy",
    "serving.promised": "serving.predict.sunsets",
    "serving.raw": "serving.batch.coerce",
    "serving.reading": "serving.predict.decode",
    "serving.rollouts": "serving.rollout.commands",
    "serving.served": "serving.rollout.lookup",
    "serving.server": "serving.local.server",
    "serving.service": "serving.app.service",
    "serving.sinks": "serving.batch.sinks",
    "serving.smoke": "serving.local.contract_check",
    "serving.source": "serving.batch.source",
    "serving.sql_sink": "serving.batch.sql_sink",
    "serving.standing": "serving.rollout.status",
    "serving.stream": "serving.app.ndjson",
    "serving.synthetic": "serving.predict.synthetic",
    "serving.tally": "serving.rollout.counters",
    "serving.threads": "serving.http.thread_pool",
    "serving.tracing": "serving.http.tracing",
    "serving.validation": "serving.predict.validation",
    "serving.variants": "serving.rollout.variants",
    "serving.watch": "serving.rollout.watcher",
    "serving.webhook_sink": "serving.batch.webhook_sink",
    "serving.wire": "serving.http.uvicorn_protocol",
    "values": "settings.parsing",
}
# Modules whose names are packages now: what is asked of the package is looked for here.
PACKAGES: dict[str, str] = {
    "convert.check": "convert.check.check",
    "convert.plan": "convert.plan.plan",
    "convert.verify": "convert.verify.verify",
    "data.layouts": "data.layouts.discovery",
    "data.simulate": "data.simulate.small",
    "data.sources": "data.sources.fetch",
    "models.forecasting": "models.forecasting.forecasting",
    "models.lead_scoring": "models.lead_scoring.lead_scoring",
    "models.segmentation": "models.segmentation.segmentation",
    "runs.lab": "runs.lab.job_manager",
    "runs.parameters": "runs.parameters.parameters",
    "runs.schedule": "runs.schedule.schedule",
    "runs.secrets": "runs.secrets.secrets",
    "serving.app": "serving.app.app",
    "serving.batch": "serving.batch.score",
    "serving.http": "serving.http.messages",
    "serving.rollout": "serving.rollout.state_file",
}
# Classes, functions and constants that a project's own evaluators, targets, sinks and runbooks use, by module: former name: present one.
CLASSES: dict[str, dict[str, str]] = {
    "decisions.cycle": {"Turn": "CycleReport", "turn": "run_cycle"},
    "decisions.stats": {"Stats": "DecisionStats", "stats": "decision_stats"},
    "runs.recording": {"tell": "append_event"},
    "serving.batch.sinks": {"Out": "BatchWriter", "Written": "WriteCounts"},
    "decisions.targets": {
        "Hook": "WebHookTarget",
        "Outcome": "ApplyOutcome",
        "SqlTable": "SqlTableTarget",
        "Target": "DecisionTarget",
    },
    "registry.evaluators": {
        "CAME": "ACTUAL",
        "Trial": "EvaluationTrial",
        "answers_of": "predict_shuffled",
        "apart": "in_own_process",
        "multiplied": "multiply_numbers",
    },
    "data.days": {
        "is_constant": "has_fixed_offset",
    },
    "data.ingestion.cells": {
        "Shown": "FormatEvidence",
        "decided": "decided_format",
        "unreadable": "refuse_unreadable",
    },
    "data.ingestion.increment": {
        "Memory": "SourceState",
    },
    "data.ingestion.ingest": {
        "may_stay": "may_keep_rows",
    },
    "data.ingestion.joining": {
        "aligned": "concatenated",
        "labelled": "with_unique_labels",
        "once": "without_repeats",
        "same_columns": "column_differences",
    },
    "data.ingestion.overlap": {
        "News": "RowChanges",
        "period": "covered_period",
        "put_in": "replace_period",
        "staying": "rows_to_keep",
    },
    "data.ingestion.reading": {
        "home_of": "location_name",
    },
    "data.layouts.discovery": {
        "likely": "has_most_columns",
        "required": "required_columns",
    },
    "data.layouts.leads": {
        "plain": "json_values",
        "typed": "as_numbers",
    },
    "data.layouts.online_retail": {
        "notes_of": "cleaning_notes",
        "sort_out": "classify_lines",
    },
    "data.layouts.shopify_notes": {
        "examples": "example_orders",
        "notes_of": "export_notes",
        "sums": "sums_by_currency",
    },
    "data.layouts.shopify_refunds": {
        "merged": "merged_lines",
        "pieces": "split_returned",
        "reachable": "returnable_amounts",
    },
    "data.layouts.shopify_rows": {
        "explained": "matches_subtotal",
        "newest": "newest_version",
        "one_order": "repeated_order_lines",
        "tip_like": "looks_like_tip",
    },
    "data.schemas": {
        "amount": "amount_column",
        "flag": "flag_column",
        "moment": "time_column",
        "text": "text_column",
    },
    "data.sources.calendar_dates": {
        "is_open": "is_ambiguous",
    },
    "data.sources.csv_files": {
        "preamble": "rows_above_header",
    },
    "data.sources.csv_quotes": {
        "swallowed": "holds_following_rows",
    },
    "data.sources.fetch": {
        "shown": "without_password",
    },
    "data.sources.files": {
        "existing": "existing_path",
        "hidden": "is_system_file",
    },
    "data.sources.frames": {
        "needs_care": "may_lose_values",
        "rows_frame": "frame_of_rows",
    },
    "data.sources.numerals": {
        "Plain": "PlainNumbers",
        "evidence": "decimal_mark_evidence",
        "texts_of": "distinct_texts",
    },
    "data.store": {
        "sweep": "remove_unreferenced",
    },
    "data.tables": {
        "is_as_it_was": "is_unchanged_since",
        "rewind": "as_known_before",
        "rewind_sql": "as_known_before_sql",
    },
    "data.validation": {
        "told": "failure_with_rows",
    },
    "data.zones": {
        "places": "zones_of_places",
        "same_days_ahead": "zones_with_same_days",
    },
    "models.core.conformance": {
        "Case": "ConformanceCase",
        "case": "build_case",
        "differences": "frame_differences",
        "elsewhere": "predict_in_clean_process",
        "examined": "run_rules",
        "in_notebook": "is_defined_in_notebook",
        "other_past": "with_changed_past",
        "rule": "conformance_check",
        "the_short_way_gives_the_same": "record_methods_equal_the_batch",
    },
    "models.core.model": {
        "confine": "refuse_foreign_class",
        "resolve": "model_class_at",
    },
    "models.forecasting.combined": {
        "spikes": "spike_factor",
        "trim": "trim_spikes",
    },
    "models.forecasting.forecasting": {
        "check": "check_parameters",
        "promised": "contract_with_parameters",
    },
    "models.forecasting.forecasts": {
        "reasons": "forecast_reasons",
    },
    "models.forecasting.intervals": {
        "groups": "error_groups",
        "shape_of": "error_quantiles",
    },
    "models.forecasting.panel": {
        "alive": "is_selling",
        "on_sale": "with_zero_sales",
    },
    "models.lead_scoring.additive": {
        "average": "mean_model",
        "levels": "base_rates",
        "share": "probability",
    },
    "models.lead_scoring.answers": {
        "insert": "insert_largest",
        "marked": "tag_with_term",
        "term_in": "tagged_term",
    },
    "models.lead_scoring.evaluation": {
        "called": "leads_to_call",
    },
    "models.lead_scoring.lead_scoring": {
        "in_range": "check_minimums",
        "judged": "evaluate_profit",
        "named": "comma_separated",
        "paired": "field_pairs",
    },
    "models.lead_scoring.leakage_guard": {
        "Beat": "TimeAssociation",
        "beat": "time_association",
        "clocks": "time_fields",
    },
    "models.lead_scoring.replay": {
        "beside": "baseline_scores",
        "unrestricted": "unrestricted_scores",
    },
    "models.lead_scoring.wording": {
        "spoken": "range_text",
        "stretch": "value_range",
    },
    "models.segmentation.answers": {
        "movers": "moves_to_other_segments",
    },
    "models.segmentation.choice": {
        "match": "match_centroids",
        "table": "candidate_table",
    },
    "models.segmentation.lifetime_value": {
        "alive": "probability_alive",
        "history": "purchase_history",
    },
    "models.segmentation.segmentation": {
        "check": "check_parameters",
    },
    "models.segmentation.segments": {
        "divide": "choose_segments",
        "labelled": "segment_labels",
        "names": "segment_names",
        "renewed": "reuse_centroids",
        "standing": "describe_medians",
    },
    "models.segmentation.treatments": {
        "best": "best_treatment",
    },
}
ROOT = __package__ or "d2c_mlops"
FOLDER = Path(__file__).parent


class FormerNames(MetaPathFinder, Loader):
    """Find modules by their former names, which no module has any more.

    It is asked first: a package that is found by its former name would else give its modules a second time.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of a former name is found, None for other names and for another copy of the package.

        A Bento brings the package that it was made with; a process may import that one after this one.
        """
        name = fullname.removeprefix(f"{ROOT}.")
        if name == fullname or (name not in MODULES and name not in CLASSES):
            return None
        if not any(Path(folder).is_relative_to(FOLDER) for folder in path or ()):
            return None
        if name in MODULES:
            return spec_from_loader(fullname, self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None and not spec.submodule_search_locations:
            spec.loader = LoaderOfRenamed(fullname, spec.origin)
        return spec

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


class LoaderOfRenamed(SourceFileLoader):
    """Load a module whose classes or functions had other names: former ones are found, with a warning."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module; a `__getattr__` of its own stays."""
        super().exec_module(module)
        if "__getattr__" not in vars(module):
            module.__getattr__ = partial(renamed_class, module.__name__)  # type: ignore[method-assign]


def attribute(package: str, name: str) -> Any:
    """Return what a package's former module has under a name. Raises AttributeError."""
    present = PACKAGES[package.removeprefix(f"{ROOT}.")]
    if (
        not name.startswith("__") and find_spec(f"{package}.{name}") is None
    ):  # a module of the package is imported, not looked up
        try:
            return getattr(import_module(f"{ROOT}.{present}"), name)
        except AttributeError:
            pass
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


def renamed_class(module: str, name: str) -> Any:
    """Return the class, function or constant of a module that had another name before. Raises AttributeError."""
    present = CLASSES[module.removeprefix(f"{ROOT}.")].get(name)
    if present is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is now {present}", DeprecationWarning, stacklevel=3)
    return getattr(import_module(module), present)


def install() -> None:
    """Find former names in this process from now on."""
    if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, FormerNames())
