"""Former names of classes, functions and constants by their module below d2c_mlops: former name, present one.

What moved is written with its present module, as in `models.core.charter:Charter`.
"""

OBJECTS: dict[str, dict[str, str]] = {
    "cli.runs": {
        "chosen": "filter_of",
        "filters": "add_filter_options",
        "moment": "parse_time",
    },
    "cli.schedules.schedule": {
        "day_of": "job_day_start",
        "job_here": "configured_job",
        "ledger_here": "configured_ledger",
        "next_day": "next_day_start",
    },
    "convert.api_changes.change": {
        "installed": "installed_version",
        "live_changes": "applicable_changes",
    },
    "convert.api_changes.library_versions": {
        "python_of": "notebook_python_version",
    },
    "convert.check.check": {
        "examine": "apply_all_rules",
    },
    "convert.check.linter": {
        "findings": "read_ruff_findings",
        "ruff": "find_ruff",
    },
    "convert.check.magic_commands": {
        "notebook_in_hand": "current_notebook",
    },
    "convert.check.notebook_urls": {
        "shown": "without_secrets",
        "sources": "find_url_sources",
        "text_of": "constant_text",
    },
    "convert.check.rule": {
        "subject_of": "read_subject",
    },
    "convert.check.rules.hidden_state": {
        "is_silent": "is_prompt_name",
    },
    "convert.check.rules.secrets": {
        "texts_of": "output_texts",
    },
    "convert.check.secret_scan": {
        "luhn": "has_valid_luhn_digit",
        "personal_in": "find_personal_data",
        "secrets_in": "find_secrets",
    },
    "convert.conversion_report": {
        "served_text": "feature_agreement_text",
    },
    "convert.meaning.api_signatures": {
        "returned": "returned_class",
    },
    "convert.meaning.column_selection": {
        "dropped": "dropped_columns",
        "selection": "column_selection",
        "texts": "string_list",
    },
    "convert.meaning.inference": {
        "Thing": "InferredObject",
    },
    "convert.meaning.roles": {
        "construction": "constructor_call",
    },
    "convert.plan.author_functions": {
        "Authored": "AuthorFunction",
        "authored": "author_functions_in",
    },
    "convert.plan.block": {
        "in_order": "in_binding_order",
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
        "trained_on": "training_arguments",
    },
    "convert.plan.model_plan": {
        "Chosen": "ModelChoice",
        "Way": "RecordEntry",
        "choose": "model_choices",
        "find_ways": "find_record_entries",
        "kept_as": "saved_form",
        "saved_form": "serialization_format",
        "settle": "limit_outputs",
        "skipped": "learned_before_entry",
    },
    "convert.plan.naming": {
        "apart": "distinguishing_words",
        "command": "name_from_command",
        "snake": "snake_case",
        "topic": "first_descriptive_name",
    },
    "convert.plan.plan": {
        "read": "plan_notebook",
        "visible": "exported_names",
    },
    "convert.plan.record_entry": {
        "learned_column": "row_dependent_column",
    },
    "convert.plan.recorded_functions": {
        "functions_of": "replayed_functions",
        "served_sources": "replay_function_sources",
    },
    "convert.plan.recorded_transforms": {
        "Functions": "AuthorFunctions",
        "Turned": "RecordedTransforms",
        "call_of": "learned_call",
    },
    "convert.plan.row_dependence": {
        "Site": "LearningSite",
        "advice": "row_dependence_advice",
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
        "rows_in_place": "inplace_filtered_table",
        "stored_in": "column_assignment",
        "table_of_rows": "table_of_row_selection",
        "takes": "take_if_needed",
    },
    "convert.plan.training_replay": {
        "Manner": "ReplayOptions",
        "replayed": "plan_replay",
    },
    "convert.repair.added_imports": {
        "imported": "resolve_added_imports",
    },
    "convert.repair.data_files": {
        "base_of": "file_base_name",
        "encoding_of": "detect_encoding",
        "separator_of": "detect_separator",
    },
    "convert.repair.downloads": {
        "advice": "download_advice",
        "fetch": "download_urls",
        "offers": "download_fixes",
    },
    "convert.repair.fix_registry": {
        "apply": "apply_notebook_edits",
        "line_before": "insert_line_edit",
        "parent_of": "parent_node",
        "replaced": "replace_node_edit",
        "spelled": "source_text",
        "statement_of": "enclosing_statement",
        "without_statement": "comment_out_edit",
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
        "use_file": "replace_file_reference",
        "wants_network": "needs_network",
    },
    "convert.repair.fixes.python2": {
        "modern": "python_3_line",
    },
    "convert.repair.fixes.removed_api": {
        "alias_of": "module_alias",
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
    "convert.repair.package_installation": {
        "Installed": "InstallResult",
    },
    "convert.repair.refusal_messages": {
        "absent": "missing_module_refusal",
        "failed": "failed_cell_refusal",
    },
    "convert.repair.repairing": {
        "copy_folder_of": "copy_notebook_folder",
    },
    "convert.repair.replacement_registry": {
        "call_of": "attribute_call",
        "inner": "argument_texts",
        "recalled": "replace_call",
        "word_of": "keyword_with_name",
    },
    "convert.repair.run_and_fix": {
        "leave_out": "leave_out_failing_code",
        "refuse": "refuse_at_failed_cell",
    },
    "convert.repair.save_repaired": {
        "keep_reference": "save_original_outputs",
    },
    "convert.run.child_control": {
        "forbid": "forbidding_audit_hook",
    },
    "convert.run.child_process": {
        "cell_of": "cell_index_of_file",
        "private": "load_private_modules",
    },
    "convert.run.container_init": {
        "executed": "run_to_end",
    },
    "convert.run.container_pool": {
        "borrow": "borrow_container",
    },
    "convert.run.containers": {
        "prepared_image": "isolating_image",
    },
    "convert.run.feature_agreement": {
        "dense": "as_dense_array",
        "rare_first": "rare_rows_first",
    },
    "convert.run.folder_copies": {
        "lies_below": "is_visible_below",
    },
    "convert.run.inferred_contract": {
        "field_of": "contract_field",
        "output_of": "output_fields",
    },
    "convert.run.isolated_run": {
        "marked": "processes_with_mark",
    },
    "convert.run.local_packages": {
        "imported": "imported_modules",
        "locals_of": "local_modules",
        "on_index": "distribution_on_index",
    },
    "convert.run.memory_reads": {
        "field": "read_c_attribute",
        "has": "class_defines",
        "other": "uncompared_form",
        "real": "number_as_plain",
        "refuse": "refuse_encoding",
        "state": "instance_dictionary",
    },
    "convert.run.tampering": {
        "elements_of": "list_elements",
        "is_of_cell": "is_defined_in_cell",
    },
    "convert.source.comments": {
        "commented": "move_import_comments",
        "untitled": "remove_section_titles",
    },
    "convert.source.dataflow": {
        "is_given": "is_kernel_name",
        "trace": "trace_names",
    },
    "convert.source.download": {
        "checked": "parse_address",
    },
    "convert.source.environment": {
        "member_gone": "missing_member",
    },
    "convert.source.finding": {
        "rekeying": "keyword_name_replacement",
        "renaming": "last_name_replacement",
    },
    "convert.source.scopes": {
        "dotted": "dotted_name",
    },
    "convert.source.sections": {
        "sectioned": "split_section_titles",
        "title_of": "section_title",
    },
    "convert.source.source_edits": {
        "calling": "add_keyword_arguments",
        "changed": "apply_changes",
        "returning": "with_return",
        "with_extras": "with_keyword_parameters",
    },
    "convert.source.star_imports": {
        "source_of": "module_source_file",
    },
    "convert.verify.verify": {
        "Item": "ComparedName",
        "data_elsewhere": "uncopied_data_folder",
    },
    "convert.write.model_source": {
        "candidates": "model_sources",
    },
    "convert.write.model_text": {
        "judged_by": "metric_and_baseline",
        "prose": "model_texts",
    },
    "convert.write.notebook_document": {
        "joined": "join_short_cells",
        "lay_out": "notebook_cells",
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
    "convert.write.step_functions": {
        "adapted": "author_call_changes",
    },
    "convert.write.write_conversion": {
        "probe": "run_model_probe",
    },
    "data.days": {
        "is_constant": "has_fixed_offset",
    },
    "data.ingestion.cells": {
        "Shown": "FormatEvidence",
        "decided": "decided_format",
        "identifiers_of": "refuse_damaged_identifiers",
        "unreadable": "refuse_unreadable",
    },
    "data.ingestion.increment": {
        "Memory": "SourceState",
        "same_source": "must_read_all",
    },
    "data.ingestion.ingest": {
        "may_stay": "may_keep_rows",
        "news_of": "dataset_changes",
    },
    "data.ingestion.joining": {
        "aligned": "concatenated",
        "labelled": "with_unique_labels",
        "once": "without_repeats",
        "period_of": "file_period",
        "same_columns": "column_differences",
        "split_keys": "keys_cut_between_parts",
        "table_of": "matching_table",
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
    "data.layouts.bank_marketing": {
        "times": "reconstruct_times",
    },
    "data.layouts.discovery": {
        "likely": "has_most_columns",
        "require": "require_columns",
        "required": "required_columns",
    },
    "data.layouts.leads": {
        "pack": "pack_lead_fields",
        "plain": "json_values",
        "typed": "as_numbers",
        "unpack": "unpack_lead_fields",
    },
    "data.layouts.money": {
        "major": "to_major_units",
        "minor": "to_minor_units",
        "places_of": "currency_decimals",
        "spread": "allocate_by_weight",
    },
    "data.layouts.online_retail": {
        "notes_of": "cleaning_notes",
        "sort_out": "classify_lines",
    },
    "data.layouts.planned_columns": {
        "intervals": "constant_value_intervals",
        "meanings": "column_meanings",
    },
    "data.layouts.shopify_money": {
        "net_of": "net_line_values",
        "tips_of": "is_tip",
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
        "blocks_of": "rows_with_all_columns",
        "explained": "matches_subtotal",
        "kinds_of": "order_kinds",
        "newest": "newest_version",
        "one_order": "repeated_order_lines",
        "status_of": "financial_status",
        "tip_like": "looks_like_tip",
    },
    "data.schemas": {
        "amount": "amount_column",
        "flag": "flag_column",
        "moment": "time_column",
        "text": "text_column",
    },
    "data.simulate.buying": {
        "first_summer": "first_summer_loss",
        "segment_of": "is_in_segment",
    },
    "data.simulate.faults": {
        "days_apart": "date_shifts",
        "exported": "apply_faults",
        "some_orders": "select_orders",
    },
    "data.simulate.labels": {
        "coded": "dictionary_array",
        "labelled": "add_label_codes",
        "moments": "timestamp_array",
        "money": "money_array",
        "padded": "padded_identifiers",
    },
    "data.simulate.planning": {
        "overridden": "is_overridden",
    },
    "data.simulate.stock": {
        "replenished": "opening_stock",
    },
    "data.simulate.writing": {
        "plain": "decode_dictionary",
    },
    "data.sources.calendar_dates": {
        "is_open": "is_ambiguous",
    },
    "data.sources.csv_files": {
        "preamble": "rows_above_header",
    },
    "data.sources.csv_quotes": {
        "records_of": "row_starts",
        "swallowed": "holds_following_rows",
    },
    "data.sources.fetch": {
        "extensions": "load_entry_points",
        "shown": "without_password",
        "sql_trouble": "translate_sql_errors",
    },
    "data.sources.files": {
        "existing": "existing_path",
        "hidden": "is_system_file",
    },
    "data.sources.frames": {
        "column_of": "database_column",
        "needs_care": "may_lose_values",
        "rows_frame": "frame_of_rows",
    },
    "data.sources.numerals": {
        "Plain": "PlainNumbers",
        "evidence": "decimal_mark_evidence",
        "texts_of": "distinct_texts",
    },
    "data.sources.text_encoding": {
        "place_of": "line_and_column",
    },
    "data.store": {
        "disk_trouble": "translate_full_disk",
        "months_of": "month_numbers",
        "sweep": "remove_unreferenced",
    },
    "data.tables": {
        "footer_of": "part_footer",
        "is_as_it_was": "is_unchanged_since",
        "rewind": "as_known_before",
        "rewind_sql": "as_known_before_sql",
    },
    "data.validation": {
        "coerce": "coerce_table",
        "outside_years": "is_implausible_year",
        "told": "failure_with_rows",
    },
    "data.zones": {
        "places": "zones_of_places",
        "same_days": "move_days_to_zone",
        "same_days_ahead": "zones_with_same_days",
        "zones_with": "zones_with_offsets",
    },
    "decisions.app": {
        "Desk": "Dependencies",
        "Visit": "DecisionRequest",
    },
    "decisions.apply": {
        "Applied": "ApplyCounts",
    },
    "decisions.apply_targets": {
        "Hook": "WebHookTarget",
        "Outcome": "ApplyOutcome",
        "SqlTable": "SqlTableTarget",
        "Target": "DecisionTarget",
        "message": "webhook_message",
        "signature": "webhook_signature",
    },
    "decisions.cycle": {
        "Turn": "CycleReport",
        "collected": "collect_and_propose",
        "quiet": "ignore_message",
        "turn": "run_cycle",
    },
    "decisions.decision_rows": {
        "alone": "lock_name",
        "bases": "predictions_of",
        "basis": "prediction_of",
        "find": "find_decision",
        "heard": "add_feedback",
        "listed": "list_decisions",
        "note": "add_events",
    },
    "decisions.decision_statistics": {
        "Stats": "DecisionStats",
        "exposition": "metrics_text",
        "stats": "decision_stats",
    },
    "decisions.html_pages": {
        "FORMER": "FORMER_REASONS",
        "confirm": "confirmation_page",
        "done": "result_page",
        "facts": "decision_texts",
        "inbox": "inbox_page",
        "reason_of": "reason_text",
        "shell": "html_page",
        "trouble": "error_page",
    },
    "decisions.notifications": {
        "Say": "LogMessage",
        "message": "notification",
        "tell": "notify_deciders",
    },
    "decisions.openapi": {
        "MEANT": "DESCRIPTIONS",
    },
    "decisions.policy": {
        "Judged": "PolicyVerdict",
        "checked": "check_value",
        "read_value": "parse_value",
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
        "dependencies_of": "application_dependencies",
        "deployed": "deployment",
        "desk": "application_dependencies",
    },
    "decisions.signed_links": {
        "BadLink": "LinkRefused",
        "keys": "link_secrets",
        "links_of": "action_links",
        "verified": "verify_link",
    },
    "decisions.verdicts": {
        "Closed": "DecisionClosed",
        "Proposed": "ProposalCounts",
        "Replayed": "LinkReplayed",
        "closed": "closed_error",
        "propose": "create_decisions",
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
    "forgetting.file_scrubbing": {
        "GROWING": "APPENDED",
        "LINES": "LINE_FORMATS",
        "replace": "replace_file",
        "scrub": "scrub_content",
    },
    "forgetting.forget": {
        "Forgetting": "ForgetReport",
    },
    "forgetting.forgetting_rows": {
        "is_listed": "is_suppressed",
        "key_of": "hash_key",
        "note": "add_record",
        "rows_of": "records_of",
        "suppress": "add_to_suppression_list",
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
    "forgetting.personal_data_places": {
        "LATER": "SQLITE_SIDE_FILES",
        "SKIPPED": "SKIPPED_ENDINGS",
        "find": "find_in_files",
        "looked_into": "searched_files",
        "not_reached": "unreachable_places",
        "remove": "remove_from_files",
        "renew_sources": "update_source_digest",
        "roots": "searched_roots",
    },
    "formulas": {
        "no_formula": "escape_formula",
        "no_formulas": "escape_formulas",
        "with_formula": "unescape_formula",
        "with_formulas": "unescape_formulas",
    },
    "ledger.store": {
        "temporary": "error_of_os_error",
    },
    "library_versions": {
        "release": "leading_numbers",
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
    "models.core.contract": {
        "annotated": "pydantic_type",
        "in_calendar": "clamp_to_calendar",
    },
    "models.core.model": {
        "build": "build_model",
        "confine": "refuse_foreign_class",
        "resolve": "model_class_at",
        "same_zone": "require_same_zone",
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
    "models.forecasting.panel": {
        "alive": "is_selling",
        "on_sale": "with_zero_sales",
    },
    "models.forecasting.plans.leaking_flags": {
        "lying_flags": "leaking_flags",
    },
    "models.lead_scoring.additive": {
        "ages": "age_weights",
        "average": "mean_model",
        "levels": "base_rates",
        "recalibrated": "recalibrate",
        "share": "probability",
        "terms_of": "additive_terms",
    },
    "models.lead_scoring.answers": {
        "difference": "needed_change_text",
        "insert": "insert_largest",
        "marked": "tag_with_term",
        "term_in": "tagged_term",
        "too_little": "too_few_fields_text",
    },
    "models.lead_scoring.baselines": {
        "ratios_of": "odds_ratio_table",
    },
    "models.lead_scoring.evaluation": {
        "called": "leads_to_call",
        "judge": "score_metrics",
    },
    "models.lead_scoring.lead_scoring": {
        "fitted": "require_fitted",
        "in_range": "check_minimums",
        "judged": "evaluate_profit",
        "named": "comma_separated",
        "paired": "field_pairs",
        "recipe_of": "score_parameters",
    },
    "models.lead_scoring.leakage_guard": {
        "Beat": "TimeAssociation",
        "beat": "time_association",
        "clocks": "time_fields",
        "late_times": "fields_with_late_times",
    },
    "models.lead_scoring.learning": {
        "asked_for": "leads_with_contract_fields",
    },
    "models.lead_scoring.replay": {
        "beside": "baseline_scores",
        "unrestricted": "unrestricted_scores",
    },
    "models.lead_scoring.training": {
        "correction": "calibration_correction",
        "sample_of": "learning_sample",
        "slope_of": "calibration_slope",
        "trial": "run_trial",
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
        "numbers": "feature_numbers",
        "table": "candidate_table",
    },
    "models.segmentation.customer_features": {
        "counted_where": "counted_lines_sql",
        "spend_of": "spend_in_window",
    },
    "models.segmentation.lifetime_value": {
        "alive": "probability_alive",
        "history": "purchase_history",
    },
    "models.segmentation.segmentation": {
        "check": "check_parameters",
        "judge": "evaluate_segmentation",
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
        "gain_of": "planned_gain_total",
    },
    "private_files": {
        "tighten": "make_private",
    },
    "registry.artifacts": {
        "aliased": "version_of_alias",
        "keep": "store_document",
        "local": "local_folder",
        "store": "log_model_files",
    },
    "registry.charters": {
        "example_of": "example_answers",
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
    "registry.compared_metrics": {
        "Measured": "MeasuredModel",
        "pairs_of": "reported_pairs",
        "reported": "reported_metric",
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
    "registry.evaluators.forecast_series": {
        "Column": "SeriesColumn",
        "Whole": "FullSeries",
        "by_series": "naive_forecasts_by_series",
        "naive": "naive_forecasts",
        "series_of": "training_series",
        "whole_of": "full_series_of",
    },
    "registry.evaluators.outcome_column": {
        "in_form": "transformed",
        "outcome_of": "target_column",
    },
    "registry.evaluators.step_recording": {
        "Seen": "RecordedTraining",
        "dates_of": "row_dates",
        "rows_of": "number_of_rows",
        "taken": "rows_at",
        "unchanged": "keep_step_value",
    },
    "registry.evaluators.training_rows": {
        "prepared_rows_of": "prepared_training_rows",
        "rows_in": "prepared_training_rows",
    },
    "registry.evidence": {
        "Checked": "CheckReport",
    },
    "registry.gate": {
        "ALIKE": "REPORT_TOLERANCE",
        "FLATTERED": "MOST_OPTIMISM",
        "KNOWING": "LEAKAGE_LIMIT",
        "it_pays": "break_even_is_reached",
        "model_keeps_its_promises": "model_rules_hold",
    },
    "registry.gate_candidate": {
        "Question": "PromotionCandidate",
        "other_units": "unit_difference",
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
        "files_of": "version_files",
        "params_of": "version_params",
    },
    "runs.execution.cell_output": {
        "Printed": "CellOutput",
        "encodable": "utf8_safe",
    },
    "runs.execution.execute": {
        "checked": "check_parameters",
        "failure": "run_failure",
        "failure_of": "run_failure",
        "limits_of": "run_limits",
        "prepare": "prepare_job",
        "user": "current_user",
    },
    "runs.execution.failures": {
        "of_code": "error_of_exit_code",
    },
    "runs.execution.kernel_client": {
        "Client": "NotebookClient",
        "readable": "error_message",
        "without_machinery": "user_frames",
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
    "runs.execution.output_storage": {
        "exists": "output_exists",
        "place": "file_system_of",
        "publish": "publish_outputs",
        "publish_left": "publish_remaining",
        "read": "read_output",
        "remove": "remove_outputs",
    },
    "runs.execution.package_environments": {
        "installed": "installed_packages",
        "keep": "store_environment",
        "packages": "environment_packages",
    },
    "runs.execution.page_body": {
        "by_library": "group_frames",
        "render": "write_page",
        "without_loads": "without_external_resources",
    },
    "runs.execution.page_header": {
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
    "runs.execution.run_rows": {
        "close_lost": "close_lost_runs",
        "find": "find_run",
        "latest": "latest_runs",
        "lose": "mark_lost",
    },
    "runs.execution.slot_rows": {
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
    "runs.exports.export_parts": {
        "Place": "ExportContext",
        "about": "job_description",
        "due": "due_command",
        "header": "head_comment",
        "longest": "longest_seconds",
        "together": "dependent_groups",
    },
    "runs.exports.start_times": {
        "expression": "cron_expression",
        "fields": "cron_fields",
        "text": "fields_text",
        "union": "merge_lines",
        "wakes": "start_times",
    },
    "runs.lab.job_manager": {
        "without_blanks": "drop_blank_fields",
    },
    "runs.parameters.parameters": {
        "check": "check_values",
        "parameters_of": "declared_parameters",
        "untyped": "untyped_notes",
    },
    "runs.recording": {
        "tell": "append_event",
    },
    "runs.run_events": {
        "events": "run_events",
        "notes_of": "run_notes",
        "tell": "append_event",
        "tell_in": "append_event_to",
    },
    "runs.run_history": {
        "Filter": "RunFilter",
        "compare": "compare_runs",
        "export": "export_runs",
        "found": "find_runs",
        "prunable": "prunable_runs",
        "prune": "prune_runs",
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
        "job_of": "scheduled_job",
        "jobs_of": "scheduled_jobs",
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
        "slot_of": "due_slot",
    },
    "runs.secrets.redaction": {
        "clean": "replace_texts",
        "forms": "encoded_forms",
    },
    "runs.secrets.secrets": {
        "resolved": "looked_up_secrets",
        "source": "resolving_source",
        "values": "values_to_redact",
    },
    "serving.app.app": {
        "Keeping": "ServiceContext",
    },
    "serving.app.auth": {
        "admit": "require_valid_key",
        "from_here": "is_local",
        "once": "answer_once",
        "token_of": "request_api_key",
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
        "checked_files": "verify_files",
        "give_back": "trim_memory",
        "loading": "load_served_model",
        "quiet_collector": "freeze_garbage_collector",
        "watching": "start_watcher",
    },
    "serving.batch.contract_coercion": {
        "checked": "coerce_inputs",
    },
    "serving.batch.record_source": {
        "cells_of": "cell_formats",
        "rows_of": "row_numbers",
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
        "digest": "file_list_digest",
        "listing": "file_digests",
        "packed": "packed_digests",
    },
    "serving.deploy.compose": {
        "called": "image_name",
        "published": "published_port",
        "said": "head_comment",
    },
    "serving.deploy.github": {
        "image": "image_build_job",
        "reach": "rollout_start_commands",
    },
    "serving.deploy.kubernetes": {
        "disruption": "disruption_budget",
        "followed": "rollout_volume",
        "meta": "object_metadata",
        "rollout": "rollout_config_map",
        "stateful": "stateful_set",
        "traces": "trace_egress_rules",
    },
    "serving.deploy.project": {
        "given": "service_variables",
        "params": "parameter_values",
        "parts": "project_parts",
        "recipe": "project_containerfile",
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
    "serving.log.log_collection": {
        "Collected": "CollectCounts",
        "folders": "log_folders",
        "followed_up": "feedback_with_predictions",
    },
    "serving.log.log_segments": {
        "intact": "intact_lines",
        "private": "open_private",
        "recover": "seal_abandoned_segments",
    },
    "serving.package.container.builders": {
        "bytes_of": "parse_bytes",
        "failure": "build_failure",
        "size": "parse_bytes",
    },
    "serving.package.container.image_preparation": {
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
    "serving.package.container.wheels": {
        "fetch": "install_wheels",
        "installer": "install_command",
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
        "packages_beside": "bento_packages",
        "packages_of": "bento_packages",
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
    "serving.rollout.rollout_commands": {
        "NothingNew": "NoNewVersion",
        "challenger": "challenger_to_package",
        "check": "check_compatible",
        "finish": "promote_challenger",
        "left": "why_ended",
    },
    "serving.rollout.rollout_history": {
        "Event": "RolloutEvent",
        "beside": "share_rollout",
        "carry": "record_aborts",
        "current": "current_rollout",
        "place_of": "state_file_of",
        "settle": "record_all_aborts",
        "state": "current_event",
    },
    "serving.rollout.rollout_status": {
        "Standing": "RolloutStatus",
        "standing": "rollout_status",
    },
    "serving.rollout.rollout_watcher": {
        "Watcher": "RolloutWatcher",
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
    "serving.rollout.variant_counters": {
        "HEARD": "FEEDBACK_ACTIONS",
        "Tally": "RolloutCounters",
        "summary": "rollout_statistics",
        "total": "sum_counts",
        "verdict": "violated_guard",
    },
    "serving.rollout.variants": {
        "Shadowed": "ShadowRollout",
        "Shadows": "ShadowQueue",
        "Split": "ShareRollout",
        "challengers": "challenger_batch_id",
        "version_in": "challenger_version_in",
    },
    "serving.rollout.version_lookup": {
        "computed": "computed_answerers",
        "logged": "logged_answerers",
        "moments": "time_range",
        "who": "version_and_variant",
    },
    "settings.parsing": {
        "backend_of": "parse_backend",
        "hints": "field_types",
        "typed": "convert_options",
    },
    "suppression": {
        "canonical": "canonical_identifier",
        "fields_of": "cell_object",
        "members": "json_leaves",
    },
}
