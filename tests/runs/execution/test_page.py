"""The page of a run: its facts first, nothing loaded from elsewhere, tracebacks that end at the user's cell."""

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import NotebookFailed
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.runs.execution.page_body import without_external_resources, write_page
from d2c_mlops.runs.execution.page_header import (
    FACTS,
    duration_text,
    finish_page,
    html_document,
    next_step,
    price_text,
    value_text,
)
from d2c_mlops.runs.execution.run_rows import Run, latest_runs
from d2c_mlops.settings import load_settings
from support.tagged_notebooks import ran, write

AT = datetime(2026, 11, 29, 5, 0, tzinfo=UTC)
ERROR = {"kind": "KeyError", "message": "'skuu' <b>", "cell": 4, "traceback": []}


def past(**values: Any) -> Run:
    """A run of a job that is not in any ledger."""
    known: dict[str, Any] = {
        "id": "20261129T050000-plan-abc", "runbook": "/shop/plan.ipynb", "model": "demand", "notebook": "/shop/plan.ipynb",
        "notebook_sha256": "0", "parameters": {"day": "2026-11-28", "note": "a b"}, "package_version": "1", "git_commit": None,
        "inputs": [{"name": "shop", "digest": "f" * 64}], "seed": None, "status": "succeeded", "started_at": AT,
        "ended_at": AT + timedelta(minutes=3, seconds=12), "cpu_seconds": 100.0, "peak_memory_bytes": 2**28, "outputs": {},
        "recorded": {"wape": 0.31712, "products": 12345}, "error": None, "exit_code": 0, "host": "box#1", "pid": 1,
        "pid_started": 1.0, "job": "weekly_plan", "slot": AT, "attempt": 2, "cost": 0.0031, "started_by": "schedule",
        "notes": ["ran on another kernel"],
    }  # fmt: skip
    return Run(**{**known, **values})


class Loads(HTMLParser):
    """Collects what a browser would load from elsewhere."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            loads = name in ("src", "srcset", "poster", "data", "xlink:href", "background")
            if (loads or (name == "href" and tag != "a")) and re.match(r"\s*(https?:|ftp:)?//", value or ""):
                self.found.append(f"{tag} {name}={value}")
            if name == "style" and re.search(r"url\(\s*['\"]?(https?:)?//", value or ""):
                self.found.append(f"{tag} {value}")


def test_a_page_begins_with_the_facts(tmp_path: Path) -> None:
    page = tmp_path / "output.html"
    page.write_text(html_document("plan", "<main>cells</main>"))
    finish_page(past(), page, "Europe/Berlin", 0.1)
    text = page.read_text()
    assert FACTS not in text and text.index("</header>") < text.index("<main>cells")
    for fact in ("Succeeded", "weekly plan: demand", "3 min 12 s", "Sun 29 Nov 2026 06:00 Europe/Berlin", "schedule",
                 "less than 0.01 (at 0.1 per CPU hour)", "0.3171", "12,345", "ran on another kernel",
                 "content ffffffffffff"):  # fmt: skip
        assert fact in text, fact
    assert re.search(r"Attempt</dt>\s*<dd>2", text) and "<title>Succeeded: weekly plan: demand</title>" in text


def test_a_failed_page_says_what_to_do_and_links_to_the_cell(tmp_path: Path) -> None:
    page = tmp_path / "output.html"
    finish_page(past(status="failed", failure="notebook_error", error=ERROR, job=None, slot=None), page, None, 0)
    text = page.read_text()
    assert "KeyError: &#x27;skuu&#x27; &lt;b&gt;" in text and 'href="#cell-id=4"' in text and "No cell has run." in text
    assert "fix cell 4 of plan.ipynb, then d2c run /shop/plan.ipynb -p day=2026-11-28 -p &#x27;note=a b&#x27;" in text
    assert "cpu_hour_price is not set" not in text  # this one has a cost


@pytest.mark.parametrize(
    ("failure", "error", "words"),
    [("timeout", {"kind": "Timeout"}, "`timeout` in [schedule:weekly_plan]"), ("killed", {"kind": "Killed"}, "trigger"),
     ("out_of_memory", {"kind": "OutOfMemory"}, "`memory` in [schedule:weekly_plan]"),
     ("notebook_error", {"kind": "CalledProcessError", "cell": 2}, "COMMAND || true"),
     ("notebook_error", {"kind": "StdinNotImplementedError", "cell": 2}, "use a parameter instead"),
     ("data_refused", {"kind": "DataRefused", "cell": 2}, "fix the data"), ("lost", {"kind": "Lost"}, "weekly_plan")],
)  # fmt: skip
def test_every_failure_has_a_next_step(failure: str, error: dict[str, Any], words: str) -> None:
    assert words in next_step(past(status="failed", failure=failure, error=error))
    assert next_step(past()) == ""


def test_figures_are_rounded_for_people() -> None:
    assert [duration_text(s) for s in (0.42, 12.3, 59.96, 192, 3_900)] == [
        "0.4 s",
        "12 s",
        "60 s",
        "3 min 12 s",
        "1 h 05 min",
    ]
    assert [price_text(c) for c in (0.0, 0.001, 1234.5)] == ["0.00", "less than 0.01", "1,234.50"]
    assert [value_text(v) for v in (0.317123, 1_234_567.8, 2026, True, None, [1])] == [
        "0.3171", "1,234,568", "2026", "True", "None", "[1]"]  # fmt: skip


@pytest.mark.parametrize(
    ("html", "left"),
    [('<img src="https://x.org/a.png" alt="b">', "x.org"), ("<img src=//x.org/a.png>", "x.org"),
     ('<script src="https://cdn.plot.ly/plotly.js"></script>', "cdn.plot.ly"), ('<link rel=stylesheet href="http://x.org/a.css">', ""),
     ('<p style="background: url(https://x.org/a.png)">t</p>', "t"), ("<style>@import url('https://x.org/a.css'); p {}</style>", "p {}"),
     ("<iframe src='https://x.org'></iframe>", "x.org"), ('<IMG SRCSET="https://x.org/a.png 2x">', "x.org"),
     ('<svg><image xlink:href="https://x.org/a.png"/></svg>', "svg"), ('<a href="https://x.org">here</a>', '<a href="https://x.org">here'),
     ('<img src="data:image/png;base64,AA==">', "data:image/png"), ('<pre>&lt;img src="https://x.org/a"&gt;</pre>', "src=&quot;https://x.org/a"), ("a < b and c > d", "a < b and c > d")],
)  # fmt: skip
def test_nothing_is_loaded_from_elsewhere_and_links_stay(html: str, left: str) -> None:
    clean = without_external_resources(html)
    assert Loads(clean).found == [] and "@import" not in clean and left in clean


@pytest.mark.parametrize(
    "html",
    ["<img alt=it's src=https://x.org/a.png>", '<img a"b src=//x.org/a>', "<script x' src=https://x.org/a.js></script>",
     """<img alt="x" b'c src=http://x.org>""", '<img alt="a>b" src=https://x.org/a>'],
)  # fmt: skip
def test_a_quote_without_a_second_hides_nothing_that_is_loaded(html: str) -> None:
    clean = without_external_resources(f"<p>before {html} after</p>")
    assert Loads(clean).found == [] and "before" in clean and clean.endswith(" after</p>")


@pytest.mark.parametrize(
    "html",
    ["<td title='a>b' class=\"c\">1</td>", "if (a<b && c>d) x = '<i>'", "<b", "<b '", "<svg><path d='M0 0'/></svg>", "<b a='\">'>\"</b>",
     "it's 3 < 4 <em>and</em> don't"],
)  # fmt: skip
def test_what_loads_nothing_stays_as_it_is(html: str) -> None:
    assert without_external_resources(html) == html


@pytest.mark.parametrize(
    "html",
    ['<meta http-equiv="refresh" content="0;url=https://x.org">', "<META HTTP-EQUIV=refresh CONTENT='0; URL=//x.org/'>",
     '<link rel="preconnect" href="https:\\\\x.org">', "<link rel=dns-prefetch href=x.org>", "<base href=https://x.org target=_blank>",
     '<base href="https:/x.org">'],
)  # fmt: skip
def test_no_output_leads_the_page_elsewhere(html: str) -> None:
    assert without_external_resources(f"<p>before{html}after</p>") == "<p>beforeafter</p>"
    assert "base-uri 'none'" in html_document("a", "b") and "form-action 'none'" in html_document("a", "b")


@pytest.mark.parametrize(
    "frame", ["Cell In[7], line 3", "Cell \x1b[32mIn[7]\x1b[39m, line 3", "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[7]\x1b[39m, line 3"]
)  # fmt: skip
def test_a_traceback_names_cells_by_their_number_in_any_theme(frame: str, tmp_path: Path) -> None:
    new = nbformat.v4
    failed = new.new_output("error", ename="KeyError", evalue="'a'", traceback=[frame, "KeyError: 'a'"])
    cells = [new.new_code_cell("1"), new.new_code_cell("x", outputs=[failed], execution_count=7)]
    nbformat.write(new.new_notebook(cells=cells), tmp_path / "a.ipynb")
    write_page(tmp_path / "a.ipynb", tmp_path / "a.html")
    text = re.sub(r"<[^>]+>", "", (tmp_path / "a.html").read_text())
    assert "Cell 2, line 3" in text and "In[7]" not in text


def test_a_notebook_that_shows_charts_and_widgets_becomes_a_page_that_loads_nothing(tmp_path: Path) -> None:
    new = nbformat.v4
    state = {"b": {"model_name": "HBoxModel", "state": {"_model_name": "HBoxModel", "children": ["IPY_MODEL_t", "IPY_MODEL_p"]}},
             "t": {"state": {"_model_name": "HTMLModel", "value": "<b>fit:</b> 100%"}},
             "p": {"state": {"_model_name": "FloatProgressModel", "value": 3.0, "max": 3.0}}}  # fmt: skip
    outputs = [
        new.new_output("display_data", data={"application/vnd.plotly.v1+json": {}, "text/html": "<script src='https://cdn.plot.ly/x.js'></script>"}),
        new.new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "b"}, "text/plain": "  0%|   | 0/3"}),
        new.new_output("display_data", data={"application/javascript": "$.getScript('https://x.org/a.js')"}),
    ]  # fmt: skip
    content = new.new_notebook(
        cells=[new.new_markdown_cell("![logo](https://x.org/a.png) $x^2$"), new.new_code_cell("1", outputs=outputs)]
    )
    content.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": state}}
    nbformat.write(content, tmp_path / "a.ipynb")
    write_page(tmp_path / "a.ipynb", tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert (
        Loads(text).found == [] and "default-src 'none'" in text and "MathJax" not in text and "getScript" not in text
    )
    assert "fit: 100% [3 of 3]" in text and "0/3" not in text and "interactive plotly chart" in text
    assert not list(tmp_path.glob("*.tmp"))


def test_the_page_of_a_failed_run_ends_its_traceback_at_the_users_cell(project: Path) -> None:
    row = ran(project, "#tags:parameters\nmodel: str = 'demand'", "from tqdm import tqdm\nfor i in tqdm(range(200)): pass",
              "import pandas as pd\ndef plan(f):\n    return f.set_index('skuu')\nplan(pd.DataFrame({'a': [1]}))",
              given={"model": "demand"})  # fmt: skip
    text = Path(row.outputs["html"]).read_text()
    assert Loads(text).found == [] and text.index("KeyError") < text.index('id="cell-id=3"')
    for machinery in ("papermill", "nbclient", "IPython", "ipykernel", "runs/worker"):
        assert machinery not in text, machinery
    assert text.count("200/200") == 1 and "0/200" not in text.replace("200/200", "")
    assert re.search(r"Cell (?:<[^>]+>|\s)*3", text) and "inside libraries" in text and row.model == "demand"
    shown = CliRunner().invoke(main, ["runs", "show", row.id]).output
    for words in ("Failed", "KeyError", "next: fix cell 3 of nb.ipynb", "Started by", "Page"):
        assert words in shown, words
    listed = CliRunner().invoke(main, ["runs"]).output
    assert "model" in listed and "demand" in listed and "cell 3: KeyError" in listed
    assert json.loads(CliRunner().invoke(main, ["runs", "show", row.id, "--json"]).output)["error"]["cell"] == 3


@pytest.mark.slow
def test_a_run_out_of_time_has_its_facts_too(project: Path) -> None:
    write(project / "nb.ipynb", "print('begun')", "import time\ntime.sleep(99)")
    held = load_settings(project, environ={})
    with pytest.raises(NotebookFailed):
        run("nb.ipynb", {}, held, timeout=15)
    text = Path(latest_runs(Ledger.of(held))[0].outputs["html"]).read_text()
    assert "Stopped: time limit exceeded" in text and "--timeout SECONDS" in text and "begun" in text
