"""Former names of classes, functions and constants by their module below d2c_mlops: former name, present one.

What moved is written with its present module, as in `models.core.charter:Charter`.
"""

OBJECTS: dict[str, dict[str, str]] = {
    "cli.runs": {
        "chosen": "filter_of",
        "moment": "parse_time",
    },
    "convert.api_changes.change": {
        "installed": "installed_version",
        "live_changes": "applicable_changes",
    },
    "convert.check.addresses": {
        "shown": "without_secrets",
    },
    "convert.check.magic_commands": {
        "notebook_in_hand": "current_notebook",
    },
    "convert.check.rules.hidden_state": {
        "is_silent": "is_prompt_name",
    },
    "convert.meaning.columns": {
        "dropped": "dropped_columns",
        "selection": "column_selection",
        "texts": "string_list",
    },
    "convert.meaning.inference": {
        "Thing": "InferredObject",
    },
    "convert.plan.author_functions": {
        "Authored": "AuthorFunction",
        "authored": "author_functions_in",
    },
    "convert.plan.block_splitting": {
        "merged": "join_blocks",
    },
    "convert.plan.data_flow": {
        "reading": "data_flow_report",
    },
    "convert.plan.evaluation_plan": {
        "Evaluated": "AuthorEvaluation",
        "asked_for": "predicted_rows",
        "evaluated": "author_evaluation",
    },
    "convert.plan.model_plan": {
        "Chosen": "ModelChoice",
        "Way": "RecordEntry",
        "choose": "model_choices",
        "find_ways": "find_record_entries",
        "kept_as": "saved_form",
        "settle": "limit_outputs",
        "skipped": "learned_before_entry",
    },
    "convert.plan.naming": {
        "apart": "distinguishing_words",
        "command": "name_from_command",
        "snake": "snake_case",
    },
    "convert.plan.plan": {
        "visible": "exported_names",
    },
    "convert.plan.recorded_transforms": {
        "Functions": "AuthorFunctions",
        "Turned": "RecordedTransforms",
    },
    "convert.plan.replay": {
        "Manner": "ReplayOptions",
        "replayed": "plan_replay",
    },
    "convert.plan.row_dependence": {
        "Site": "LearningSite",
        "learning": "parts_that_learn",
        "of_rows": "is_along_rows",
        "sites": "learning_sites",
    },
    "convert.plan.slicing": {
        "Columns": "ColumnSet",
        "Stored": "ColumnAssignment",
        "Wanted": "NeededColumns",
        "across": "is_over_columns",
        "row_choice": "table_of_rows",
        "stored_in": "column_assignment",
        "takes": "take_if_needed",
    },
    "convert.repair.downloads": {
        "advice": "download_advice",
        "offers": "download_fixes",
    },
    "convert.repair.fix_registry": {
        "spelled": "source_text",
    },
    "convert.repair.fixes.arguments": {
        "old_value": "renamed_value",
        "positional": "positional_arguments",
        "signature": "parameter_names",
    },
    "convert.repair.fixes.changed_calls": {
        "labels_not_there": "missing_labels",
        "most_frequent": "mode_results",
        "not_in_place": "inplace_removed",
        "ragged": "ragged_arrays",
        "several_classes": "one_vs_rest",
        "ten_starts": "n_init_default",
    },
    "convert.repair.fixes.dates": {
        "nanoseconds": "nanosecond_integers",
    },
    "convert.repair.fixes.estimators": {
        "idle_seed": "seed_without_shuffle",
        "solver": "liblinear_solver",
    },
    "convert.repair.fixes.file_formats": {
        "encoding": "file_encoding",
        "engine": "excel_engine",
        "nothing_fits": "column_name_spelling",
        "separator": "column_separator",
    },
    "convert.repair.fixes.frames": {
        "chained": "chained_assignment",
        "dummies": "integer_dummies",
        "no_limit": "column_width_limit",
        "one_step": "assign_in_one_step",
    },
    "convert.repair.fixes.modules": {
        "extensions": "notebook_extensions",
        "hosted": "hosted_service",
        "installs": "package_installs",
        "missing": "install_missing_module",
        "needed": "distributions_needed",
        "unused": "unused_import",
    },
    "convert.repair.fixes.paths": {
        "address": "unreachable_address",
        "laid": "use_file",
        "path": "missing_file",
        "uploaded": "uploaded_file",
        "wants_network": "needs_network",
    },
    "convert.repair.fixes.python2": {
        "modern": "python_3_line",
    },
    "convert.repair.fixes.removed_api": {
        "aliased": "with_pandas_alias",
        "api_before": "removed_names",
        "plainly": "with_imported_names",
        "says": "change_reason",
    },
    "convert.repair.fixes.time_series": {
        "three_answers": "forecast_unpacked",
    },
    "convert.repair.last_resorts": {
        "failed_before": "leave_out_failed_before",
        "undrawn": "leave_out_plot",
    },
    "convert.repair.packages": {
        "Installed": "InstallResult",
    },
    "convert.repair.refusal_messages": {
        "absent": "missing_module_refusal",
        "failed": "failed_cell_refusal",
    },
    "convert.repair.replacement_registry": {
        "inner": "argument_texts",
        "recalled": "replace_call",
        "word_of": "keyword_with_name",
    },
    "convert.source.dataflow": {
        "is_given": "is_kernel_name",
    },
    "convert.source.download": {
        "checked": "parse_address",
    },
    "convert.source.environment": {
        "member_gone": "missing_member",
    },
    "convert.source.source_edits": {
        "calling": "add_keyword_arguments",
        "changed": "apply_changes",
        "returning": "with_return",
        "with_extras": "with_keyword_parameters",
    },
    "convert.verify.verify": {
        "Item": "ComparedName",
        "data_elsewhere": "uncopied_data_folder",
    },
    "convert.write.document": {
        "joined": "join_short_cells",
        "lay_out": "notebook_cells",
    },
    "convert.write.functions": {
        "adapted": "author_call_changes",
    },
    "convert.write.model": {
        "candidates": "model_sources",
    },
    "convert.write.model_text": {
        "judged_by": "metric_and_baseline",
        "prose": "model_texts",
    },
    "convert.write.parameters": {
        "extract": "extract_parameters",
    },
    "convert.write.project": {
        "take_local": "copy_local_modules",
    },
    "convert.write.shared_steps": {
        "share": "share_equal_steps",
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
    "decisions.app": {
        "Desk": "Dependencies",
        "Visit": "DecisionRequest",
    },
    "decisions.apply": {
        "Applied": "ApplyCounts",
    },
    "decisions.cycle": {
        "Turn": "CycleReport",
        "collected": "collect_and_propose",
        "quiet": "ignore_message",
        "turn": "run_cycle",
    },
    "decisions.links": {
        "BadLink": "LinkRefused",
        "keys": "link_secrets",
        "verified": "verify_link",
    },
    "decisions.notifications": {
        "Say": "LogMessage",
        "message": "notification",
        "tell": "notify_deciders",
    },
    "decisions.openapi": {
        "MEANT": "DESCRIPTIONS",
    },
    "decisions.pages": {
        "FORMER": "FORMER_REASONS",
        "confirm": "confirmation_page",
        "done": "result_page",
        "facts": "decision_texts",
        "inbox": "inbox_page",
        "shell": "html_page",
        "trouble": "error_page",
    },
    "decisions.policy": {
        "Judged": "PolicyVerdict",
        "checked": "check_value",
        "read_value": "parse_value",
    },
    "decisions.records": {
        "alone": "lock_name",
        "bases": "predictions_of",
        "basis": "prediction_of",
        "find": "find_decision",
        "heard": "add_feedback",
        "listed": "list_decisions",
        "note": "add_events",
    },
    "decisions.request_metrics": {
        "Counts": "RequestMetrics",
        "exposition": "metrics_text",
    },
    "decisions.rules": {
        "Unknown": "NotEvaluable",
    },
    "decisions.server": {
        "Turns": "CycleThread",
        "deployed": "deployment",
        "desk": "dependencies_of",
    },
    "decisions.stats": {
        "Stats": "DecisionStats",
        "exposition": "metrics_text",
        "stats": "decision_stats",
    },
    "decisions.apply_targets": {
        "Hook": "WebHookTarget",
        "Outcome": "ApplyOutcome",
        "SqlTable": "SqlTableTarget",
        "Target": "DecisionTarget",
        "message": "webhook_message",
        "signature": "webhook_signature",
    },
    "decisions.verdicts": {
        "Closed": "DecisionClosed",
        "Proposed": "ProposalCounts",
        "Replayed": "LinkReplayed",
        "closed": "closed_error",
        "settle": "apply_deadlines",
    },
    "decisions.wording": {
        "NAMES": "FIELD_NAMES",
        "Words": "Wording",
        "shown": "display_value",
        "typed": "input_text",
        "unit_of": "unit_suffix",
    },
    "demo.demo": {
        "Say": "StepDone",
        "Story": "DemoResult",
        "compared": "score_text",
        "questions": "sample_records",
    },
    "demo.http_check": {
        "ask": "request_predictions",
        "same": "compare_predictions",
    },
    "demo.old_notebook": {
        "available": "missing_requirement",
        "revival": "convert_old_notebook",
    },
    "demo.report": {
        "largest": "largest_series",
        "write": "write_report",
    },
    "forgetting.databases": {
        "copied": "temporary_copy",
        "count": "count_rows",
        "scrub": "scrub_database",
        "sent_names": "sent_digests",
    },
    "forgetting.datasets": {
        "SEARCHED": "SEARCHED_COLUMNS",
        "find": "find_person",
        "read": "read_manifest_file",
        "rewrite": "rewrite_dataset",
    },
    "forgetting.files": {
        "GROWING": "APPENDED",
        "LINES": "LINE_FORMATS",
        "replace": "replace_file",
        "scrub": "scrub_content",
    },
    "forgetting.forget": {
        "Forgetting": "ForgetReport",
    },
    "forgetting.ledger_rows": {
        "Found": "RowChanges",
        "clean": "vacuum",
        "counts": "count_rows",
        "find": "find_rows",
        "no_run_is_going": "check_no_run_in_progress",
        "scrub": "scrub_ledger",
    },
    "forgetting.person": {
        "GONE": "REMOVED",
    },
    "forgetting.places": {
        "LATER": "SQLITE_SIDE_FILES",
        "SKIPPED": "SKIPPED_ENDINGS",
        "find": "find_in_files",
        "looked_into": "searched_files",
        "not_reached": "unreachable_places",
        "remove": "remove_from_files",
        "renew_sources": "update_source_digest",
        "roots": "searched_roots",
    },
    "forgetting.records": {
        "is_listed": "is_suppressed",
        "key_of": "hash_key",
        "note": "add_record",
        "rows_of": "records_of",
        "suppress": "add_to_suppression_list",
    },
    "ledger.store": {
        "temporary": "error_of_os_error",
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
        "forecast_reasons": "models.forecasting.reasons:forecast_reasons",
        "reasons": "models.forecasting.reasons:forecast_reasons",
    },
    "models.forecasting.intervals": {
        "groups": "error_groups",
        "shape_of": "error_quantiles",
    },
    "models.forecasting.ladder": {
        "Climb": "LadderForecast",
        "climb": "ladder_forecast",
    },
    "models.forecasting.plans.leaking_flags": {
        "lying_flags": "leaking_flags",
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
    "registry.artifacts": {
        "aliased": "version_of_alias",
        "keep": "store_document",
        "local": "local_folder",
    },
    "registry.candidate": {
        "Question": "PromotionCandidate",
        "other_units": "unit_difference",
    },
    "registry.clean_process": {
        "ASKED": "MOST_RECORDS",
        "answers": "check_predictions",
        "disguise": "measure_disguised",
        "observe": "measure",
        "outside_its_interval": "invalid_intervals",
        "perform": "run_task",
        "perform_apart": "run_task_in_fork",
        "rules": "check_class",
    },
    "registry.evaluators": {
        "CAME": "ACTUAL",
        "Trial": "EvaluationTrial",
        "answers_of": "predict_shuffled",
        "apart": "in_own_process",
        "multiplied": "multiply_numbers",
    },
    "registry.evaluators.converted": {
        "Learning": "TrainingInputs",
    },
    "registry.evaluators.outcomes": {
        "in_form": "transformed",
    },
    "registry.evaluators.rows": {
        "rows_in": "prepared_rows_of",
    },
    "registry.evaluators.series": {
        "Column": "SeriesColumn",
        "Whole": "FullSeries",
        "by_series": "naive_forecasts_by_series",
        "naive": "naive_forecasts",
        "whole_of": "full_series_of",
    },
    "registry.evaluators.steps": {
        "Seen": "RecordedTraining",
        "taken": "rows_at",
    },
    "registry.evidence": {
        "Checked": "CheckReport",
    },
    "registry.figures": {
        "Measured": "MeasuredModel",
        "pairs_of": "reported_pairs",
        "reported": "reported_metric",
    },
    "registry.gate": {
        "ALIKE": "REPORT_TOLERANCE",
        "FLATTERED": "MOST_OPTIMISM",
        "KNOWING": "LEAKAGE_LIMIT",
        "it_pays": "break_even_is_reached",
        "model_keeps_its_promises": "model_rules_hold",
    },
    "registry.promotion_history": {
        "live": "live_version",
    },
    "registry.promotions": {
        "Moved": "OnPromotion",
        "ignore": "no_action",
        "keep_evidence": "store_clauses",
        "same": "is_same_version",
    },
    "registry.versions": {
        "copied": "copy_verified_files",
    },
    "runs.execution.cell_output": {
        "Printed": "CellOutput",
        "encodable": "utf8_safe",
    },
    "runs.execution.client": {
        "Client": "NotebookClient",
        "readable": "error_message",
        "without_machinery": "user_frames",
    },
    "runs.execution.environments": {
        "installed": "installed_packages",
        "keep": "store_environment",
        "packages": "environment_packages",
    },
    "runs.execution.execute": {
        "checked": "check_parameters",
        "failure": "failure_of",
        "prepare": "prepare_job",
        "user": "current_user",
    },
    "runs.execution.failures": {
        "of_code": "error_of_exit_code",
    },
    "runs.execution.kernels": {
        "choose": "choose_kernel",
        "installed": "installed_kernels",
    },
    "runs.execution.leases": {
        "Pulse": "LeaseKeeper",
        "Say": "LogMessage",
        "Ticks": "MonotonicClock",
        "ticks": "monotonic_seconds",
    },
    "runs.execution.outputs": {
        "exists": "output_exists",
        "place": "file_system_of",
        "publish": "publish_outputs",
        "publish_left": "publish_remaining",
        "read": "read_output",
        "remove": "remove_outputs",
    },
    "runs.execution.page": {
        "advice": "next_step",
        "command": "repeat_command",
        "document": "html_document",
        "duration": "duration_text",
        "facts": "run_details",
        "moment": "time_text",
        "price": "price_text",
        "readable": "value_text",
        "rows": "detail_rows",
        "summary": "end_summary",
        "title": "run_title",
    },
    "runs.execution.page_body": {
        "by_library": "group_frames",
        "render": "write_page",
        "without_loads": "without_external_resources",
    },
    "runs.execution.processes": {
        "Usage": "ResourceUsage",
        "alive": "is_alive",
        "end": "end_processes",
        "end_marked": "kill_marked_processes",
        "place": "host_identity",
        "rebooted": "is_before_reboot",
        "started": "process_start",
        "tree": "process_tree",
    },
    "runs.execution.records": {
        "close_lost": "close_lost_runs",
        "find": "find_run",
        "latest": "latest_runs",
        "lose": "mark_lost",
    },
    "runs.execution.slots": {
        "add": "add_slots",
        "add_in": "add_slots_in",
        "beat": "send_heartbeats",
        "between": "slots_between",
        "claim": "claim_slot",
        "close": "close_slot",
        "close_in": "close_slot_in",
        "find": "find_slot",
        "history": "slot_history",
        "latest": "latest_slot",
        "listed": "list_slots",
        "listed_all": "list_all_slots",
        "open_of": "open_slots",
        "pause": "pause_job",
        "running": "running_slots",
        "runs_of": "runs_of_slot",
        "waiting": "waiting_slots",
    },
    "runs.execution.supervise": {
        "Log": "WorkerLog",
        "follow": "supervise_worker",
        "spare": "spare_worker",
        "start": "start_worker",
    },
    "runs.execution.worker": {
        "execute": "execute_notebook",
        "restrict": "set_resource_limits",
        "say": "send_event",
        "written": "written_output",
    },
    "runs.exports.airflow": {
        "understood": "is_supported",
    },
    "runs.exports.clock": {
        "expression": "cron_expression",
        "fields": "cron_fields",
        "text": "fields_text",
        "union": "merge_lines",
        "wakes": "start_times",
    },
    "runs.exports.common": {
        "Place": "ExportContext",
        "about": "job_description",
        "due": "due_command",
        "header": "head_comment",
        "longest": "longest_seconds",
        "together": "dependent_groups",
    },
    "runs.history": {
        "Filter": "RunFilter",
        "compare": "compare_runs",
        "export": "export_runs",
        "found": "find_runs",
        "prunable": "prunable_runs",
        "prune": "prune_runs",
    },
    "runs.lab.job_manager": {
        "without_blanks": "drop_blank_fields",
    },
    "runs.parameters.parameters": {
        "check": "check_values",
        "untyped": "untyped_notes",
    },
    "runs.recording": {
        "tell": "append_event",
    },
    "runs.run_events": {
        "events": "run_events",
        "tell": "append_event",
        "tell_in": "append_event_to",
    },
    "runs.schedule.cadence": {
        "cadence": "parse_cadence",
        "never": "never_due",
    },
    "runs.schedule.clock_changes": {
        "ignore_ahead": "undo_future_decisions",
        "since_now": "decided_until",
    },
    "runs.schedule.dependencies": {
        "waiting_for_news": "jobs_on_new_data",
        "waits_for": "unmet_dependency",
    },
    "runs.schedule.jobs": {
        "due": "due_slots",
        "fill": "fill_placeholders",
        "in_a_line": "one_line",
        "readable": "readable_jobs",
        "refusal": "refusal_error",
    },
    "runs.schedule.notify": {
        "send": "send_notification",
    },
    "runs.schedule.reload_settings": {
        "reread": "reload_jobs",
    },
    "runs.schedule.slot_parameters": {
        "troubles": "notebook_failures",
    },
    "runs.schedule.slot_run": {
        "put_due": "add_due_slots",
    },
    "runs.secrets.redaction": {
        "clean": "replace_texts",
        "forms": "encoded_forms",
    },
    "serving.app.app": {
        "Keeping": "ServiceContext",
    },
    "serving.app.auth": {
        "from_here": "is_local",
        "once": "answer_once",
        "unwelcome": "unauthorized",
    },
    "serving.app.bentoml_internals": {
        "Deferred": "DeferredApp",
        "direct": "mount_application",
    },
    "serving.app.ndjson": {
        "Streamed": "NdjsonAnswer",
    },
    "serving.app.service": {
        "Inner": "ModelService",
        "give_back": "trim_memory",
        "loading": "load_served_model",
        "quiet_collector": "freeze_garbage_collector",
        "watching": "start_watcher",
    },
    "serving.batch.coerce": {
        "checked": "coerce_inputs",
    },
    "serving.batch.score": {
        "Both": "SplitScorer",
        "answers": "predict_chunk",
        "identity_of": "identity_columns",
        "repeated": "repeated_keys",
    },
    "serving.batch.sinks": {
        "Out": "BatchWriter",
        "Written": "WriteCounts",
    },
    "serving.batch.source": {
        "cells_of": "cell_formats",
        "rows_of": "row_numbers",
    },
    "serving.batch.webhook_sink": {
        "Last": "LastDelivery",
        "Letter": "HookMessage",
        "Said": "HookResponse",
        "Sent": "DeliveryLog",
        "check_line": "check_encrypted",
        "with_password": "split_credentials",
    },
    "serving.bento_files": {
        "check": "check_bento_files",
        "listing": "file_digests",
        "packed": "packed_digests",
    },
    "serving.deploy.compose": {
        "called": "image_name",
        "published": "published_port",
        "said": "head_comment",
    },
    "serving.deploy.kubernetes": {
        "followed": "rollout_volume",
    },
    "serving.deploy.project": {
        "given": "service_variables",
        "params": "parameter_values",
        "parts": "project_parts",
    },
    "serving.http.api_keys": {
        "read": "read_keys",
        "refused": "refusal_reason",
    },
    "serving.http.idempotency": {
        "Kept": "IdempotencyStore",
    },
    "serving.http.latency": {
        "Timed": "TimedCall",
    },
    "serving.http.messages": {
        "Answer": "HttpAnswer",
        "Gone": "ClientDisconnected",
        "in_a_task": "is_in_task",
        "resumed": "resume_coroutine",
    },
    "serving.http.metrics": {
        "exposition": "metrics_text",
    },
    "serving.http.origins": {
        "own_names": "local_host_names",
    },
    "serving.http.thread_pool": {
        "Threads": "ThreadPool",
    },
    "serving.http.uvicorn_protocol": {
        "Wire": "FastHttpProtocol",
        "missing": "missing_uvicorn_name",
    },
    "serving.local.contract_check": {
        "Check": "ContractCheck",
        "smoke": "check_service",
    },
    "serving.local.load_generator": {
        "load": "generate_load",
    },
    "serving.local.loadtest": {
        "Load": "LoadResult",
        "measured": "measured_load",
        "peak": "peak_memory",
    },
    "serving.log.aborted": {
        "marks": "abort_markers",
    },
    "serving.log.collect": {
        "Collected": "CollectCounts",
        "folders": "log_folders",
        "followed_up": "feedback_with_predictions",
    },
    "serving.log.files": {
        "intact": "intact_lines",
        "private": "open_private",
        "recover": "seal_abandoned_segments",
    },
    "serving.package.container.builders": {
        "failure": "build_failure",
        "size": "bytes_of",
    },
    "serving.package.container.packages": {
        "fetch": "install_wheels",
        "installer": "install_command",
    },
    "serving.package.container.prepare": {
        "base": "check_base",
        "check": "check_image",
        "compiled": "compile_folder",
        "forbidden": "forbidden_modules",
        "install": "prepare_image",
        "reason": "error_line",
        "refuse": "exit_with_errors",
        "system": "system_packages",
        "unpinned": "unpinned_versions",
    },
    "serving.package.container.sbom": {
        "add": "add_distributions",
        "bill": "bill_of_materials",
        "key": "normalised_name",
        "needs": "requirements_of",
    },
    "serving.package.requirements": {
        "closure": "transitive_versions",
        "pins": "pinned_requirements",
    },
    "serving.predict.feedback": {
        "read": "parse_feedback",
    },
    "serving.predict.older_contracts": {
        "Older": "OlderContract",
        "breach": "contract_breach",
        "loaded": "load_model",
        "of_major": "path_without_major",
        "older": "older_contracts",
        "packages_beside": "packages_of",
    },
    "serving.predict.openapi": {
        "closed": "closed_object",
        "page": "contract_page",
        "problem": "problem_schema",
        "property_of": "field_schema",
        "record": "record_schema",
    },
    "serving.predict.prediction_ids": {
        "Given": "PredictionId",
    },
    "serving.predict.predictor": {
        "Answered": "PredictionBatch",
        "Served": "ServedModel",
        "Unfit": "InvalidPredictions",
        "fitting": "check_predictions",
        "masking": "mask_function",
        "refused": "validation_problem",
    },
    "serving.predict.privacy": {
        "sealed": "encrypted",
        "unsealed": "decrypted",
        "veiled": "masked_reasons",
    },
    "serving.predict.sunsets": {
        "promised": "supported_older_contracts",
        "said": "sunset_texts",
    },
    "serving.predict.synthetic": {
        "key_of": "synthetic_key",
        "matching": "text_matching",
        "record": "synthetic_record",
        "value_of": "synthetic_value",
    },
    "serving.rollout.commands": {
        "NothingNew": "NoNewVersion",
        "challenger": "challenger_to_package",
        "check": "check_compatible",
        "finish": "promote_challenger",
        "left": "why_ended",
    },
    "serving.rollout.counters": {
        "HEARD": "FEEDBACK_ACTIONS",
        "Tally": "RolloutCounters",
        "summary": "rollout_statistics",
        "total": "sum_counts",
        "verdict": "violated_guard",
    },
    "serving.rollout.history": {
        "Event": "RolloutEvent",
        "beside": "share_rollout",
        "carry": "record_aborts",
        "current": "current_rollout",
        "place_of": "state_file_of",
        "settle": "record_all_aborts",
        "state": "current_event",
    },
    "serving.rollout.lookup": {
        "computed": "computed_answerers",
        "logged": "logged_answerers",
        "moments": "time_range",
        "who": "version_and_variant",
    },
    "serving.rollout.state_file": {
        "ended": "ended_rollout",
        "here": "host_id",
        "mark": "write_marker",
        "marker": "marker_file",
        "place": "state_paths",
        "position": "key_position",
        "put": "write_atomically",
        "read": "read_state",
        "write": "write_state",
    },
    "serving.rollout.status": {
        "Standing": "RolloutStatus",
        "standing": "rollout_status",
    },
    "serving.rollout.variants": {
        "Shadowed": "ShadowRollout",
        "Shadows": "ShadowQueue",
        "Split": "ShareRollout",
        "challengers": "challenger_batch_id",
        "version_in": "challenger_version_in",
    },
    "serving.rollout.watcher": {
        "Watcher": "RolloutWatcher",
    },
}
