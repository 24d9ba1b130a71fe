"""Sections that comments mark inside a cell: `# --- 2. Features ---`, `##### Model #####`, `# Step 3: Fit`."""

from __future__ import annotations

import re

_RULE = re.compile(r"^#[\s#=*~_+-]{3,}$")
_FRAMED = re.compile(r"^#+\s*[-=*~_+#]{2,}\s*(?P<title>[^\W_][^#]*?)\s*[-=*~_+#]{2,}$")
_LED = re.compile(r"^#+\s*[-=*~_+]{3,}\s*(?P<title>[^\W_].*)$")
_NUMBERED = re.compile(
    r"^#+\s*(?:(?:step|part|section)\s+\d+\s*[.):–-]|\d+(?:\.\d+)*[.):])\s+(?P<title>[^\W\d_].*)$", re.IGNORECASE
)
_NUMBER = re.compile(r"^(?:(?:step|part|section)\s+)?\(?\d+(?:\.\d+)*\s*[.):–-]*\s+(?=[^\W\d_])", re.IGNORECASE)
_LONGEST = 80  # letters of a title; longer ones are sentences


def section_title(comment: str) -> str:
    """Return the title in a line of comment that marks a section; an empty text for any other."""
    line = comment.strip()
    if len(line) > 3 * _LONGEST:
        return ""
    match = _FRAMED.match(line) or _LED.match(line) or _NUMBERED.match(line)
    title = _NUMBER.sub("", match["title"]).strip(" -=*~_:#") if match else ""
    return title if 0 < len(title) <= _LONGEST else ""


def split_section_titles(source: str) -> tuple[tuple[str, ...], str]:
    """Return the titles above a statement, and its source without them; every other line keeps its place."""
    lines = source.split("\n")
    above = next((n for n, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), len(lines))
    titles: list[str] = []
    for number in range(above):
        title = section_title(lines[number]) or _boxed_title(lines[:above], number)
        if title:
            titles.append(title)
            lines[number] = ""
    if titles:
        lines[:above] = ["" if _RULE.match(line.strip()) else line for line in lines[:above]]
    return tuple(titles), "\n".join(lines)


def _boxed_title(lines: list[str], number: int) -> str:
    """A plain comment between two rules: `#####`, `# Title`, `#####`."""
    if not 0 < number < len(lines) - 1 or not (
        _RULE.match(lines[number - 1].strip()) and _RULE.match(lines[number + 1].strip())
    ):
        return ""
    line = lines[number].strip()
    title = _NUMBER.sub("", line.strip("# ")).strip(" -=*~_:#") if len(line) <= 3 * _LONGEST else ""
    return title if 0 < len(title) <= _LONGEST and title[0].isalnum() else ""
