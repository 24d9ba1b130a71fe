"""The cells of an executed notebook as a page without external resources."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter
from papermill.exceptions import strip_color
from pygments.formatters import HtmlFormatter

from d2c_mlops.runs.execution.kernel_client import SUCCESS
from d2c_mlops.runs.execution.page_header import html_document

VIEW, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
SHOWABLE = ("image/png", "image/jpeg", "image/svg+xml")
LIBRARY = re.compile(r"File .*?(/site-packages/|/dist-packages/|/lib/python3[.\d]*/)")
TAG = re.compile(r"<(?!a[\s>]|/)([a-zA-Z][\w-]*)\b")  # its beginning
DELIMITER = re.compile(r"[\"'>]")
LOADS = re.compile(
    r"""\b(src|href|xlink:href|data|poster|srcset|background|action)\s*=\s*("[^"]*"|'[^']*'|[^\s>]+)""", re.I
)
REMOTE = re.compile(r"""^["']?\s*(?:https?:|ftp:)?//""", re.I)
WRITTEN = re.compile(
    r"""(\bsrc\s*=\s*)(["'])(?=(?:https?:)?//)""", re.I
)  # in code that is shown, after all tags are clean
STYLED = re.compile(r"""@import\s+[^;]*;?|url\(\s*(?:["']\s*)?(?:https?:)?//[^)<]*\)?""", re.I)
RULED = re.compile(r"-{9,}|\w+\s+Traceback \(most recent call last\)")
COUNTED = re.compile(r"Cell(?:\x1b\[[\d;]*m|\s)+In\[(\d+)\]")  # IPython's themes colour each word
TEMPLATE = """
{%- extends 'basic/index.html.j2' -%}
{% block in_prompt %}<div class="prompt">{{ 'Parameters' if cell.id == 'parameters' else 'Cell ' ~ cell.id }}</div>{% endblock %}
{% block empty_in_prompt %}{% endblock %}
{% block footer %}{% endblock %}
{% block data_javascript %}{% endblock %}
{% block data_widget_view %}<pre>{{ output.data['text/plain'] | ansi2html }}</pre>{% endblock %}
{% block error %}<div class="output_subarea output_error">
{%- for library, lines in output.traceback | by_library %}
{%- if library %}<details><summary>{{ lines | length }} call(s) inside libraries</summary>{% endif %}
<pre>{{ lines | join('\n') | ansi2html }}</pre>
{%- if library %}</details>{% endif %}
{%- endfor %}</div>{% endblock %}
"""


def write_page(notebook: Path, page: Path) -> None:
    """Write the page of an executed notebook atomically."""
    content = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    _number_cells(content)
    widgets = content.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    numbers = {cell.get("execution_count"): cell.id for cell in content.cells}
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs = [_page_output(output, widgets, numbers) for output in cell.outputs]
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"d2c.html.j2": TEMPLATE})], template_file="d2c.html.j2", embed_images=True
    )
    exporter.register_filter("by_library", group_frames)
    exporter.exclude_anchor_links = True
    body, _ = exporter.from_notebook_node(content, {"metadata": {"path": str(notebook.parent)}})
    source = content.metadata.get("papermill", {}).get("input_path") or notebook.name
    style = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    draft = page.with_suffix(".html.tmp")
    draft.write_text(
        html_document(Path(source).stem, f"<main>\n{without_external_resources(body)}\n</main>", style),
        encoding="utf-8",
    )
    draft.replace(page)


def without_external_resources(html: str) -> str:
    """Return HTML without external resources; each is replaced by its address. Links are kept."""
    return WRITTEN.sub(lambda match: f"{match[1]}{escape(match[2])}", _with_harmless_tags(STYLED.sub("none", html)))


def group_frames(traceback: list[str]) -> list[tuple[bool, list[str]]]:
    """Group the frames of a traceback by whether they are inside installed libraries; return the groups with their lines."""
    groups: list[tuple[bool, list[str]]] = []
    for frame in traceback:
        library = bool(LIBRARY.match(strip_color(frame).lstrip()))
        if not groups or groups[-1][0] != library:
            groups.append((library, []))
        groups[-1][1].append(frame)
    return groups


def _number_cells(content: Any) -> None:
    """Set each cell's id to its number in the original notebook, for links."""
    number = 0
    for cell in content.cells:
        injected = "injected-parameters" in cell.metadata.get("tags", [])
        number += not injected
        cell["id"] = "parameters" if injected else str(number)


def _page_output(output: Any, widgets: Mapping[str, Any], numbers: Mapping[int, str]) -> Any:
    """Return an output for the page: outputs that need external scripts become text."""
    if output.output_type == "error" and output.ename == "SystemExit" and output.evalue in SUCCESS:
        return nbformat.v4.new_output("stream", name="stdout", text="The notebook ended here.\n")  # type: ignore[no-untyped-call]
    if output.output_type == "error":
        frames = (frame for frame in output.traceback if not RULED.fullmatch(strip_color(frame).strip()))
        output.traceback = [
            COUNTED.sub(lambda match: f"Cell {numbers.get(int(match[1]), match[0])}", frame) for frame in frames
        ]
        return output
    data = output.get("data", {})
    if VIEW in data:
        text = _widget_text(widgets, data[VIEW].get("model_id", "")) or data.get("text/plain", "")
        return _output_text(text)
    charts = [kind for kind in data if kind.startswith("application/vnd.") and "json" in kind]
    if charts and not any(kind in data for kind in SHOWABLE) and not _self_contained(data.get("text/html", "")):
        kind = charts[0].removeprefix("application/vnd.").partition(".")[0]
        return _output_text(f"[an interactive {kind} chart: open output.ipynb in JupyterLab to see it]")
    return output


def _output_text(text: str) -> Any:
    return nbformat.v4.new_output("display_data", data={"text/plain": text})  # type: ignore[no-untyped-call]


def _self_contained(html: str) -> bool:
    return bool(html) and len(html) > 100_000  # the library lies in it


def _widget_text(widgets: Mapping[str, Any], model: str) -> str:
    """Return the last state of a widget as text: `Reading: 100% 3/3` for a progress bar."""
    state = widgets.get(model, {}).get("state", {})
    if children := state.get("children"):
        parts = (_widget_text(widgets, child.removeprefix("IPY_MODEL_")) for child in children)
        return " ".join(part for part in parts if part)
    if "Progress" in str(state.get("_model_name")):
        return f"[{state.get('value', 0):g} of {state.get('max', 0):g}]"
    text = _Text()
    text.feed(str(state.get("value", state.get("description", ""))))
    return "".join(text.parts).replace("\u2007", " ").strip()


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def _with_harmless_tags(html: str) -> str:
    """Replace the tags that load resources, in linear time."""
    places, ends = _tag_ends(html)
    parts: list[str] = []
    position = 0
    for match in TAG.finditer(html):
        place = bisect_left(places, match.end())
        if match.start() >= position and place < len(places) and (end := ends[place]) is not None:
            parts += (html[position : match.start()], _harmless_attributes(match[1], html[match.end() : end]))
            position = end + 1
    return "".join(parts) + html[position:]


def _tag_ends(html: str) -> tuple[list[int], list[int | None]]:
    """Return the positions of quotes and `>`, and for each position the `>` that ends a tag whose attributes start there.

    A `>` between two quotes does not end a tag; after an unpaired quote, the next `>` does.
    """
    delimiters = [(match.start(), match[0]) for match in DELIMITER.finditer(html)]
    ends: list[int | None] = [None] * (len(delimiters) + 1)
    following: dict[str, int] = {}  # the next place of each delimiter
    for place in range(len(delimiters) - 1, -1, -1):
        at, sign = delimiters[place]
        quoted = ends[following[sign] + 1] if sign != ">" and sign in following else None
        plain = delimiters[following[">"]][0] if ">" in following else None
        ends[place] = at if sign == ">" else plain if quoted is None else quoted
        following[sign] = place
    return [at for at, _ in delimiters], ends


def _harmless_attributes(tag: str, attributes: str) -> str:
    name = tag.lower()
    if name in ("meta", "base", "link"):  # an output's own would lead the whole page elsewhere, or open connections
        return ""
    remote = [part for part in LOADS.finditer(attributes) if REMOTE.match(part[2])]
    if not remote:
        return f"<{tag}{attributes}>"
    url = remote[0][2].strip("\"' ")
    harmless = LOADS.sub(lambda part: "" if REMOTE.match(part[2]) else part[0], attributes)
    place = escape(urlsplit(url if "//" in url[:8] else f"//{url}").netloc or url)
    link = f'<a href="{escape(url)}">{place}</a>'
    if name == "img":
        return f'<span class="external">[picture at {link}, not loaded]</span>'
    if name in ("script", "iframe", "embed", "object", "video", "audio"):
        return f'<span class="external">[{name} from {link}, not loaded]</span><{tag}{harmless}>'
    return f"<{tag}{harmless}>"
