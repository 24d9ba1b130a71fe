"""Write the report of a conversion as HTML in one file and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from d2c_mlops.convert.check.notebook_urls import without_secrets
from d2c_mlops.convert.run.isolation import PROPERTIES, TRUSTED, protection_table

if TYPE_CHECKING:
    from d2c_mlops.convert.conversion_record import ConversionRecord
    from d2c_mlops.convert.plan.data_flow import DataFlowReport
    from d2c_mlops.convert.repair.repair_result import RepairFacts
    from d2c_mlops.convert.run.feature_agreement import AgreementFigures
    from d2c_mlops.convert.source.finding import FindingFacts
    from d2c_mlops.convert.verify.verify import SavedFigures, VerdictFacts
    from d2c_mlops.convert.write.write_conversion import WrittenFacts

STYLE = """
:root { color-scheme: light dark; --line: #d9d9d4; --soft: #6b6b66; --good: #1d7a46; --bad: #b3261e; --note: #8a6100; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); } code, pre { font: .88em ui-monospace, monospace; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 600; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n { font-variant-numeric: tabular-nums; } .good { color: var(--good); } .bad { color: var(--bad); }
.note { color: var(--note); } .verdict { font-size: 1.15rem; margin: 1rem 0; }
.next { border: 1px solid var(--line); border-radius: .4rem; padding: .8rem 1rem; margin-top: 2rem; }
@media (prefers-color-scheme: dark) { :root { --line: #3a3a38; --soft: #a3a39d; --good: #6cc993; --bad: #f2867e; --note: #e0b252; } }
"""
WORDS = {"equivalent": "good", "differs": "bad", "not comparable": "note", "refused": "bad"}


def write_report(record: ConversionRecord, work: Path) -> Path:
    """Write report.html and report.json into the work folder; return the page."""
    work.mkdir(parents=True, exist_ok=True)
    for file, text in (
        ("report.json", json.dumps(record, indent=1, ensure_ascii=False)),
        ("report.html", report_html(record)),
    ):
        draft = work / f".{file}.tmp"
        draft.write_text(text, encoding="utf-8")
        draft.replace(work / file)
    return work / "report.html"


def report_html(record: ConversionRecord) -> str:
    """Return the page."""
    name = escape(Path(record["notebook"]).name)
    parts = [
        f"<h1>{name}</h1><p class=soft>converted as <code>{escape(record['name'])}</code></p>",
        _verdict_section(record),
        _next_command_section(record),
        _structure_section(record.get("written")),
        _model_section(record.get("written")),
        _data_flow_section(record.get("read")),
        _fetched_section(record.get("revived")),
        _fixes_section(record.get("revived")),
        _compared_values_section(record.get("verdict")),
        _unconverted_cells_section(record.get("written")),
        _findings_section(record["findings"]),
        _isolation_section(record),
        _stages_section(record["seconds"]),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}: conversion</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _verdict_section(record: ConversionRecord) -> str:
    refusal, verdict = record.get("refusal"), record.get("verdict")
    if refusal:
        place = f"cell {refusal['cell']}: " if refusal["cell"] else ""
        text = f"<b class=bad>Refused</b> at the stage: {_DOING[refusal['stage']]}. {escape(place + refusal['why'])}"
        return f"<p class=verdict>{text}</p>"
    if verdict:
        status, reason = verdict["status"], escape(verdict["reason"])
        return f"<p class=verdict><b class={WORDS.get(status, 'note')}>{escape(status.capitalize())}</b> {reason}</p>"
    return "<p class=verdict><b class=note>Not verified</b>: the original and the converted notebook were not both run.</p>"


_DOING = {"revive": "repair and run", "read": "read", "write": "write", "verify": "verify"}


def _next_command_section(record: ConversionRecord) -> str:
    return f"<div class=next>Next: <pre>{escape(record['next'])}</pre></div>"


def _structure_section(written: WrittenFacts | None) -> str:
    if not written:
        return ""
    before, after = written["structure"]["before"], written["structure"]["after"]
    rows = [(what, before[what], after[what]) for what in after]
    lists = "".join(
        f"<p><b>{title}</b> {', '.join(f'<code>{escape(name)}</code>' for name in names) or 'none'}</p>"
        for title, names in (("Functions", written["functions"]), ("Parameters", written["parameters"]))
    )
    files = f"<p class=soft>{escape(written['notebook'])}<br>{escape(written['module_file'])}</p>"
    return f"<h2>Structure</h2>{_table_section(('', 'before', 'after'), rows)}{lists}{files}"


def _data_flow_section(read: DataFlowReport | None) -> str:
    """Show the data flow: the names that each cell reads and defines."""
    if not read or not read["cells"]:
        return ""
    rows = [
        (
            cell["cell"],
            cell["role"],
            ", ".join(cell["reads"]),
            ", ".join([*(f"{name} (changed)" for name in cell["changes"]), *cell["defines"]]),
        )
        for cell in read["cells"]
    ]
    fits = [(fit["cell"], fit["estimator"], fit["features"], fit["target"]) for fit in read["fits"]]
    fits_table = _table_section(("cell", "estimator", "features", "target"), fits) if fits else ""
    flow = _table_section(("cell", "role", "reads", "defines"), rows)
    return f"<h2>Data flow</h2>{fits_table}<details><summary class=soft>Cell by cell</summary>{flow}</details>"


def _model_section(written: WrittenFacts | None) -> str:
    if not written:
        return ""
    if written["model"]:
        agreement = written.get("agreement")
        served = (
            f"<h2>Served and training features compared</h2><p>{escape(feature_agreement_text(agreement))}.</p>"
            if agreement
            else ""
        )
        return f"<h2>Model</h2><p><code>{escape(written['model'])}</code></p>{served}"
    tried = [(candidate,) for candidate in written.get("tried", ())]
    candidates = f"<p class=soft>Candidates tested:</p>{_table_section(('',), tried)}" if tried else ""
    return f"<h2>Model</h2><p>None: {escape(written['no_model'])}.</p>{candidates}"


def feature_agreement_text(agreement: AgreementFigures) -> str:
    """Return how many records got the same features alone and in pairs as in the whole table."""
    from d2c_mlops.convert.run.feature_agreement import PAIRS, SINGLES

    expected_singles = min(agreement["rows"], SINGLES)
    missing = agreement["singles"] < expected_singles or agreement["pairs"] < (PAIRS if agreement["rows"] > 1 else 0)
    early = (
        f"; the check reached its time limit before {expected_singles:,} records and {PAIRS} pairs" if missing else ""
    )
    return (
        f"{agreement['singles']:,} of {agreement['rows']:,} single-record requests ({agreement['rare']:,} with a missing or rare "
        f"value first) and {agreement['pairs']:,} requests of two records get the same features as in the whole table{early}"
    )


def _fixes_section(repair: RepairFacts | None) -> str:
    if not repair:
        return ""
    fixes, missing = repair["mends"], repair["missing"]
    lost = f"<p class=bad>Not installed: {escape(', '.join(map(str, missing)))}</p>" if missing else ""
    if not fixes:
        return (
            f"<h2>Fixes</h2>{lost}<p>None needed: the notebook runs unchanged.</p>"
            if repair["status"] == "as is"
            else lost
        )
    rows = [(fix["cell"], _Code(fix["before"]), _Code(fix["after"]), fix["reason"]) for fix in fixes]
    return f"<h2>Fixes</h2>{lost}{_table_section(('cell', 'before', 'after', 'why'), rows)}"


def _fetched_section(repair: RepairFacts | None) -> str:
    """List the files that were downloaded before the runs; the runs and the conversion read these files."""
    if repair is None or not repair["fetched"]:
        return ""
    rows = [
        (
            source["cell"],
            without_secrets(source["url"]),
            source["file"] or f"not downloaded: {source['reason']}",
            f"{source['size']:,}",
            source["sha256"][:16],
        )
        for source in repair["fetched"]
    ]
    summary = (
        "Downloaded once before the run, which has no network access. The notebook and its conversion read these files."
    )
    return f"<h2>Downloaded data</h2><p>{summary}</p>{_table_section(('cell', 'address', 'file', 'bytes', 'SHA-256'), rows)}"


def _compared_values_section(verdict: VerdictFacts | None) -> str:
    if verdict is None:
        return ""
    items, saved = verdict["items"], _saved_figures(verdict["saved"])
    if not items:
        return f"<h2>Compared results</h2>{saved}" if saved else ""
    return f"<h2>Compared results</h2>{saved}{_table_section(items[0], (tuple(item.values()) for item in items))}"


def _saved_figures(saved: SavedFigures) -> str:
    """Compare the numbers of the saved outputs with those of the new run."""
    if not saved.get("cells"):
        return ""
    cells = ", ".join(map(str, saved["other"]))
    differences = f" The numbers of these cells differ (library versions or randomness): {cells}." if cells else ""
    return (
        f"<p>Of {saved['cells']} cells with numbers in their saved outputs, {saved['same']} reproduce them."
        f"{differences}</p>"
    )


def _unconverted_cells_section(written: WrittenFacts | None) -> str:
    if not written:
        return ""
    rows = [(entry["where"], entry["what"]) for entry in written["plain"]]
    plain = f"<h2>Cells not converted to functions</h2>{_table_section(('cell', 'why'), rows)}" if rows else ""
    dropped = written["dropped"]
    gone = f"<h2>Omitted</h2>{_table_section(('',), [(omitted,) for omitted in dropped])}" if dropped else ""
    return plain + gone


def _findings_section(findings: Sequence[FindingFacts]) -> str:
    rows = [
        (finding["rule"], finding["severity"], f"{finding['cell'] or ''}", finding["message"], finding["fix"])
        for finding in sorted(findings, key=lambda entry: ("error", "warning", "info").index(entry["severity"]))
    ]
    if not rows:
        return ""
    return f"<h2>Manual review</h2><p class=soft>Findings of <code>d2c check</code> in the original notebook.</p>{_table_section(('rule', '', 'cell', 'finding', 'fix'), rows)}"


def _isolation_section(record: ConversionRecord) -> str:
    """Return the isolation mode, the number of runs, and what each mode protects."""
    runs = record["runs"]
    if not runs:
        return "<h2>Isolation</h2><p>Nothing was run.</p>"
    rows = [(name, *(value[key] for key in PROPERTIES)) for name, value in protection_table()]
    stages = ", ".join(f"{count} {escape(stage)}" for stage, count in runs.items())
    used = "none (--trust)" if record["isolation"] == TRUSTED else record.get("isolated_by") or record["isolation"]
    meaning = [(key, text) for key, text in PROPERTIES.items()]
    return (
        f"<h2>Isolation</h2><p>The notebook was run {sum(runs.values())} times ({stages}), each time in a copy of its folder, with the isolation mode "
        f"<b>{escape(used)}</b>.</p><details><summary class=soft>Protection by mode</summary>"
        f"{_table_section(('mode', *PROPERTIES), rows)}{_table_section(('', 'means'), meaning)}</details>"
    )


def _stages_section(seconds: Mapping[str, float]) -> str:
    durations = " · ".join(f"{escape(stage)} {took:.1f} s" for stage, took in seconds.items())
    return f"<p class=soft>{durations}</p>"


class _Code(str):
    """A cell of a table that holds code."""

    def __new__(cls, text: object) -> _Code:
        return super().__new__(cls, text or "")


def _table_section(head: Iterable[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join("<tr>" + "".join(_cell_section(value) for value in row) + "</tr>" for row in rows)
    top = "".join(f"<th>{escape(str(column))}</th>" for column in head)
    return f"<table><tr>{top}</tr>{body}</table>"


def _cell_section(value: object) -> str:
    if isinstance(value, _Code):
        return f"<td><pre>{escape(value)}</pre></td>"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{escape('' if value is None else str(value))}</td>"
    return f"<td class=n>{value:g}</td>"
