"""Keep the author's comments with their statements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from d2c_mlops.convert.source.sections import sectioned, title_of
from d2c_mlops.convert.source.statements import Statement

_OF_IMPORTS = re.compile(
    r"(?i)^(import|load|necessary|required|needed|basic|all)\w*\b.*\b(librar|package|module|dependenc|import)|^imports?\W*$"
)


def commented(kept: Sequence[Statement], every: Sequence[Statement]) -> list[Statement]:
    """Give the author's words above an import that goes to the top to the statement below it."""
    stays = {statement.place for statement in kept}
    words: dict[tuple[int, int], list[str]] = {}
    waiting: list[str] = []
    for last, each in zip([None, *every], every, strict=False):
        if last is None or last.cell != each.cell:
            waiting = []
        if each.place in stays:
            words[each.place], waiting = waiting, []
        elif each.comment and not _OF_IMPORTS.match(title_of(f"# {each.comment}") or each.comment):
            waiting.append(each.comment)
    made = []
    for each in kept:
        above = words[each.place]
        if above:
            text = "\n".join([*(f"# {one}" for one in above), each.source.lstrip("\n")])
            first = each.first + (len(each.source) - len(each.source.lstrip("\n"))) - len(above)
            each = replace(each, source=text, first=first, comment=" ".join([*above, each.comment]).strip())
        made.append(each)
    return made


def untitled(statement: Statement) -> Statement:
    """Leave the titles of sections out of a statement's source and comment: they become headings."""
    source = sectioned(statement.source)[1]
    above = source.split("\n")[: _code_line(source)]
    comment = " ".join(line.strip().lstrip("# ").strip() for line in above if line.strip())
    return replace(statement, source=source, comment=comment)


def _code_line(source: str) -> int:
    lines = source.split("\n")
    return next((n for n, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), len(lines))
