"""Keep the author's comments with their statements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from d2c_mlops.convert.source.sections import section_title, split_section_titles
from d2c_mlops.convert.source.statements import Statement

_OF_IMPORTS = re.compile(
    r"(?i)^(import|load|necessary|required|needed|basic|all)\w*\b.*\b(librar|package|module|dependenc|import)|^imports?\W*$"
)


def move_import_comments(statements: Sequence[Statement], every: Sequence[Statement]) -> list[Statement]:
    """Move comments above an import that moves to the top to the statement below it."""
    stays = {statement.place for statement in statements}
    words: dict[tuple[int, int], list[str]] = {}
    waiting: list[str] = []
    for last, following in zip([None, *every], every, strict=False):
        if last is None or last.cell != following.cell:
            waiting = []
        if following.place in stays:
            words[following.place], waiting = waiting, []
        elif following.comment and not _OF_IMPORTS.match(section_title(f"# {following.comment}") or following.comment):
            waiting.append(following.comment)
    with_comments = []
    for following in statements:
        above = words[following.place]
        if above:
            text = "\n".join([*(f"# {comment_line}" for comment_line in above), following.source.lstrip("\n")])
            first = following.first + (len(following.source) - len(following.source.lstrip("\n"))) - len(above)
            following = replace(
                following, source=text, first=first, comment=" ".join([*above, following.comment]).strip()
            )
        with_comments.append(following)
    return with_comments


def remove_section_titles(statement: Statement) -> Statement:
    """Leave the titles of sections out of a statement's source and comment: they become headings."""
    source = split_section_titles(statement.source)[1]
    above = source.split("\n")[: _code_line(source)]
    comment = " ".join(line.strip().lstrip("# ").strip() for line in above if line.strip())
    return replace(statement, source=source, comment=comment)


def _code_line(source: str) -> int:
    lines = source.split("\n")
    return next((n for n, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), len(lines))
