"""Generate docs/rules.md from the rules."""

from __future__ import annotations

from collections.abc import Iterator

from d2c_mlops.convert.api_changes.change import ApiChange, discover_api_changes
from d2c_mlops.convert.check.linter import CODES
from d2c_mlops.convert.check.rule import Rule, RuleExample, rules

_GROUPS = {
    "D2C0": "Reading",
    "D2C1": "State and order",
    "D2C2": "Files and URLs",
    "D2C3": "Secrets and personal data",
    "D2C4": "Modules",
    "D2C5": "Libraries that changed",
    "D2C6": "Randomness and clock",
    "D2C7": "Leakage",
    "D2C8": "Shape",
    "D2C9": "The check itself",
}
_HEAD = """# Rules

The rules of `d2c check`. Each rule states why the finding is a problem in production and how to fix it. `--select` and
`--ignore` accept an id, the start of an id (`D2C5`), or a name. An *error* stops a run or makes its result wrong. A
*warning* makes the notebook unsafe to run. An *info* makes it harder to maintain.

This page is generated from the rules: `python -m d2c_mlops.convert.check.rulebook > docs/rules.md`.
"""


def rules_markdown() -> str:
    """Return the rule reference as Markdown: every rule with both examples, ruff's codes, and the table of changes."""
    return "\n".join([_HEAD, *_rulebook_sections(), *_ruff_lines(), *_api_change_lines()]).rstrip() + "\n"


def _rulebook_sections() -> Iterator[str]:
    for start, title in _GROUPS.items():
        members = [rule for rule in rules() if rule.id.startswith(start)]
        if members:
            yield f"## {title}\n"
            for rule in members:
                yield from _rule_lines(rule)


def _rule_lines(rule: Rule) -> Iterator[str]:
    yield f"### {rule.id} {rule.name}\n"
    yield f"*{rule.severity}* · {_first_sentence(rule.why)}\n"
    yield f"**Fix:** {_first_sentence(rule.fix)}\n"
    yield f"Found:\n\n{_example_text(rule.bad)}\n"
    yield f"Fine:\n\n{_example_text(rule.good)}\n"


def _first_sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _example_text(example: RuleExample) -> str:
    if example.raw:
        return f"```text\n{example.raw}\n```"
    shown = [_escaped_cell(example, index) for index in range(min(3, len(example.cells)))]
    if len(example.cells) > 3:
        shown.append(f"# ... {len(example.cells) - 3} more cells")
    language = example.language if example.language != "python" else "python"
    return f"```{language}\n" + "\n# next cell\n".join(shown) + "\n```"


def _escaped_cell(example: RuleExample, index: int) -> str:
    text = example.cells[index]
    lines = ["# " + line for line in text[3:].split("\n")] if text.startswith("md:") else text.split("\n")
    if len(lines) > 12:
        lines = [*lines[:3], f"# ... {len(lines) - 3} more lines"]
    if example.counts:
        lines.insert(0, f"# In [{example.counts[index]}]")
    if index in example.outputs:
        lines += [f"# prints: {line}" for line in example.outputs[index].split("\n")]
    return "\n".join(lines)


def _ruff_lines() -> Iterator[str]:
    yield "## From ruff\n"
    yield "The ruff codes that `d2c check` selects, under ruff's own ids.\n"
    yield "| code | severity | why |\n| --- | --- | --- |"
    for code, (severity, why) in CODES.items():
        yield f"| [{code}](https://docs.astral.sh/ruff/rules/#{code}) | {severity} | {why} |"
    yield ""


def _api_change_lines() -> Iterator[str]:
    yield "## Changes of libraries\n"
    yield "D2C501 and D2C502 check these changes. A change applies when the installed version includes it.\n"
    yield "| library | since | what | instead | autofix |\n| --- | --- | --- | --- | --- |"
    for change in sorted(discover_api_changes(), key=lambda change: (change.library, change.path, change.title)):
        cells = (
            change.library,
            change.since,
            f"`{_shortened_text(change)}`",
            change.instead,
            "yes" if _is_fixed_automatically(change) else "",
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _shortened_text(change: ApiChange) -> str:
    title = change.title
    return title if len(title) < 110 else f"{change.path}({change.argument or change.position}=...)"


def _is_fixed_automatically(change: ApiChange) -> bool:
    return bool(change.to or change.text or change.droppable or change.names or any(change.values.values()))


if __name__ == "__main__":
    print(rules_markdown(), end="")
