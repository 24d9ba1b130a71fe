"""The header of a run's page: status, next step, user, time, duration and cost."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from d2c_mlops.runs.execution.run_rows import Run

FACTS = "<!-- facts -->"  # the place in a page where they are put
STATUS = {"succeeded": "Succeeded", "failed": "Failed", "timeout": "Stopped: time limit exceeded", "cancelled": "Cancelled",
          "lost": "Lost", "running": "Running"}  # fmt: skip
FAILURES = {
    "data_refused": "Failed: the data was refused",
    "gate_refused": "Not promoted: the gate refused",
    "out_of_memory": "Failed: out of memory",
    "too_expensive": "Stopped: cost limit exceeded",
    "kernel_died": "Failed: the kernel died",
    "killed": "Stopped from outside",
    "stopped": "Stopped from outside",
    "temporary": "Failed temporarily: a retry may succeed",
}
POLICY = (
    "default-src 'none'; img-src data:; media-src data:; font-src data:; frame-src data:; style-src 'unsafe-inline'; "
)
POLICY += "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
body { font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1c2430; margin: 0; background: #f4f5f7; }
header, main { max-width: 1060px; margin: 0 auto; padding: 28px 36px; background: #fff; box-sizing: border-box; }
header { border-top: 8px solid #2e7d4f; margin-top: 24px; border-bottom: 1px solid #dfe3e8; }
header.failed { border-top-color: #b3261e; } header.waiting { border-top-color: #b26a00; }
header h1 { margin: 0 0 4px; font-size: 27px; } header h2 { font-size: 17px; margin: 26px 0 6px; }
.status { display: inline-block; padding: 2px 12px; border-radius: 14px; font-weight: 600; color: #fff; background: #2e7d4f; }
.failed .status { background: #b3261e; } .waiting .status { background: #b26a00; }
.summary { margin: 8px 0 0; color: #46505e; }
.error { background: #fdecea; border-left: 5px solid #b3261e; padding: 10px 16px; margin: 18px 0 0; }
.error pre { white-space: pre-wrap; margin: 0; font-weight: 600; } .error p { margin: 8px 0 0; }
.note { background: #fff6e0; border-left: 5px solid #e0a100; padding: 8px 16px; margin: 12px 0 0; }
dl { display: grid; grid-template-columns: 150px 1fr 150px 1fr; gap: 6px 18px; margin: 20px 0 0; }
dt { color: #667080; } dd { margin: 0; overflow-wrap: anywhere; }
header table { border-collapse: collapse; } header td { border-top: 1px solid #e4e7eb; padding: 4px 24px 4px 0; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13.5px; }
main { margin-bottom: 40px; padding-top: 12px; } main pre { margin: 0; overflow-x: auto; white-space: pre; line-height: 1.4; }
.cell { margin: 14px 0; } .code_cell .input { display: flex; background: #f6f8fa; border: 1px solid #e4e7eb; }
.input .prompt { width: 74px; flex: none; padding: 8px; color: #8a94a3; font-size: 12px; } .inner_cell { flex: 1; min-width: 0; }
.input_area { padding: 8px; } .output_wrapper { padding: 8px 8px 0 82px; } .output .prompt { display: none; }
.text_cell .prompt { display: none; } .output_stderr { color: #667080; } .output img { max-width: 100%; }
.output_error { background: #fdecea; border-left: 5px solid #b3261e; padding: 10px 14px; } .output_error details { margin: 2px 0; }
.output_html table { border-collapse: collapse; font-size: 14px; } .output_html td, .output_html th { padding: 3px 10px; text-align: right; }
.output_html tbody tr:nth-child(odd) { background: #f6f8fa; } .external { color: #667080; font-size: 14px; }
.cell:target .input { outline: 3px solid #b3261e; } .anchor-link { display: none; }
.ansi-red-fg, .ansi-red-intense-fg { color: #b3261e; } .ansi-green-fg, .ansi-green-intense-fg { color: #2e7d4f; } .ansi-bold { font-weight: 700; }
.ansi-yellow-fg, .ansi-yellow-intense-fg { color: #8a6100; } .ansi-blue-fg, .ansi-blue-intense-fg { color: #1f5fbf; }
.ansi-cyan-fg, .ansi-cyan-intense-fg { color: #0e7490; } .ansi-magenta-fg, .ansi-magenta-intense-fg { color: #8b3fb0; }
@media (max-width: 760px) { dl { grid-template-columns: 130px 1fr; } header, main { padding: 20px; } .output_wrapper { padding-left: 8px; } }
@media print { body { background: #fff; } header { margin-top: 0; } }
"""


def html_document(title: str, body: str, style: str = "") -> str:
    """Return a complete page without external resources, with a placeholder for the run's details."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n{FACTS}\n{body}\n</body>\n</html>\n"
    )


def finish_page(run: Run, page: Path, zone: str | None, hour_price: float) -> None:
    """Add the details of an ended run to the top of its page; if there is no page, write one with only the details.

    `zone` is the time zone for times, the machine's zone if None.
    """
    name = Path(run.notebook).stem
    empty = html_document(name, "<main><p>No cell has run.</p></main>")
    text = page.read_text(encoding="utf-8") if page.exists() else empty
    top, placeholder, bottom = text.partition(FACTS)
    if not placeholder:
        return
    status = STATUS.get(run.status, run.status)
    top = top.replace(f"<title>{escape(name)}</title>", f"<title>{escape(status)}: {escape(run_title(run))}</title>")
    draft = page.with_suffix(".html.tmp")
    draft.write_text(f"{top}{run_details(run, zone, hour_price)}{bottom}", encoding="utf-8")
    draft.replace(page)


def run_details(run: Run, zone: str | None, hour_price: float) -> str:
    """Return the details of a run as HTML."""
    kind = {"succeeded": "", "running": "waiting"}.get(run.status, "failed")
    parts = [
        f'<header class="{"waiting" if run.failure in ("temporary", "stopped", "killed") else kind}">',
        f"<h1>{escape(run_title(run))}</h1>",
        f'<span class="status">{escape(status_words(run))}</span>',
        f'<p class="summary">{escape(end_summary(run, zone))}</p>',
        *_error_lines(run),
        *(f'<div class="note">{escape(note)}</div>' for note in run.notes or ()),
        "<dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in detail_rows(run, zone, hour_price)),
        "</dl>",
        *_html_table("Results", run.recorded),
        *_html_table("Parameters", run.parameters),
        *_html_table("Data", {dataset["name"]: f"content {dataset['digest'][:12]}" for dataset in run.inputs}),
        "</header>",
    ]
    return "\n".join(parts)


def run_title(run: Run) -> str:
    """Return the title of a run: the job or the notebook, and the model."""
    name = (run.job or Path(run.notebook).stem).replace("_", " ")
    return f"{name}: {run.model}" if run.model and run.model not in name else name


def status_words(run: Run) -> str:
    """Return the status of a run as text."""
    return FAILURES.get(run.failure or "", STATUS.get(run.status, run.status))


def end_summary(run: Run, zone: str | None) -> str:
    """Return one sentence about the time and the end of a run."""
    if run.ended_at is None:
        return f"Running since {time_text(run.started_at, zone)}."
    ended = f"Ended {time_text(run.ended_at, zone)} after {duration_text(run.seconds or 0.0)}"
    cell = (run.error or {}).get("cell")
    return f"{ended}, in cell {cell} of the notebook." if cell is not None else f"{ended}."


def detail_rows(run: Run, zone: str | None, hour_price: float) -> list[tuple[str, str]]:
    """Return the details of a run by name, without empty ones."""
    memory = f", {run.peak_memory_bytes / 2**20:,.0f} MiB of memory" if run.peak_memory_bytes else ""
    priced = f"{price_text(run.cost)} (at {hour_price:g} per CPU hour)" if run.cost is not None else ""
    listed = [
        ("Model", run.model),
        ("Job", run.job),
        ("Slot", time_text(run.slot, zone) if run.slot else None),
        ("Attempt", str(run.attempt) if run.attempt else None),
        ("Started by", run.started_by),
        ("Started", time_text(run.started_at, zone)),
        ("Ended", time_text(run.ended_at, zone) if run.ended_at else None),
        ("Took", duration_text(run.seconds) if run.seconds is not None else None),
        ("Cost", priced or "unknown: [d2c] cpu_hour_price is not set"),
        ("Used", f"{duration_text(run.cpu_seconds)} of a processor{memory}" if run.cpu_seconds is not None else None),
        ("Notebook", run.notebook),
        ("Run", run.id),
        ("Machine", run.host.partition("#")[0]),
        ("Version of d2c_mlops", run.package_version),
        ("Git commit", run.git_commit[:12] + ("+changes" if "+" in run.git_commit else "") if run.git_commit else None),
    ]
    return [(name, value) for name, value in listed if value]


def next_step(run: Run) -> str:
    """Return the next step after a failed run; empty for other runs."""
    error, again = run.error or {}, repeat_command(run)
    cell = f"cell {error['cell']} of {Path(run.notebook).name}" if error.get("cell") is not None else run.notebook
    limits = f"[schedule:{run.job}]" if run.job else ""
    if run.status in ("succeeded", "running"):
        return ""
    if error.get("kind") == "CalledProcessError":
        return (f"fix the command in {cell}; if it may fail, write `COMMAND || true` or give the cell the tag "
                f"allow-shell-errors; then {again}")  # fmt: skip
    if error.get("kind") == "StdinNotImplementedError":
        return f"input() does not work in a run: use a parameter instead in {cell}, then {again}"
    steps = {
        "timeout": f"raise `timeout` in {limits}, then {again}" if limits else f"{again} --timeout SECONDS",
        "out_of_memory": f"raise `memory` in {limits or '[d2c] run_memory'} or read less data, then {again}",
        "too_expensive": f"raise `max_cost` in {limits}, then {again}",
        "data_refused": f"fix the data that {cell} names, then {again}",
        "gate_refused": f"read the clauses that are named in {cell}",
        "notebook_error": f"fix {cell}, then {again}",
        "kernel_died": f"fix {cell}, then {again}",
    }
    return steps.get(run.failure or "", again)


def repeat_command(run: Run) -> str:
    """Return the command that repeats a run."""
    if run.job and run.slot:
        return f"d2c schedule trigger {shlex.quote(run.job)}"
    options = [f"-p {shlex.quote(f'{name}={_escaped_text(value)}')}" for name, value in run.parameters.items()]
    return " ".join(["d2c run", shlex.quote(run.runbook), *options])


def time_text(time: datetime, zone: str | None) -> str:
    """Return a time in a time zone (the machine's if None), with the zone's name."""
    local = time.astimezone(ZoneInfo(zone)) if zone else time.astimezone()
    return f"{local:%a %d %b %Y %H:%M} {zone or local.tzname()}"


def duration_text(seconds: float) -> str:
    """Return seconds as text: 0.4 s, 12 s, 3 min 12 s, 1 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes} min {remainder:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def price_text(cost: float) -> str:
    """Return a cost with two decimals."""
    return f"{cost:,.2f}" if cost >= 0.01 or cost == 0 else "less than 0.01"


def value_text(value: Any) -> str:
    """Return a recorded value for people: numbers with four digits."""
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    if isinstance(value, bool) or value is None:
        return str(value)
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else _escaped_text(value)


def _escaped_text(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _error_lines(run: Run) -> Iterable[str]:
    error = run.error or {}
    if not error:
        return
    message = str(error.get("message") or "")
    kind = f"{error.get('kind')}: " if run.status == "failed" and error.get("cell") is not None else ""
    yield f'<div class="error"><pre>{escape(kind + message)}</pre>'
    if error.get("cell") is not None:
        yield f'<p><a href="#cell-id={error["cell"]}">Show cell {error["cell"]}, where it happened</a></p>'
    if hint := next_step(run):
        yield f"<p><b>Next:</b> <code>{escape(hint)}</code></p>"
    yield "</div>"


def _html_table(name: str, values: Mapping[str, Any]) -> list[str]:
    lines = [
        f"<tr><td>{escape(str(key))}</td><td>{escape(value_text(value))}</td></tr>" for key, value in values.items()
    ]
    return [f"<h2>{name}</h2>", "<table>", *lines, "</table>"] if lines else []
