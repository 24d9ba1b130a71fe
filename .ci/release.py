"""Check that a tag is the version to release, and print that version's changes: `python .ci/release.py v0.2.0`.

Needs nothing but Python: the workflow that releases calls it before anything is installed.
"""

from __future__ import annotations

import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def version(root: Path = ROOT) -> str:
    """Return the version of settings.ini."""
    ini = ConfigParser(interpolation=None)
    ini.read(root / "settings.ini", encoding="utf-8")
    return ini["package"]["version"]


def sections(root: Path = ROOT) -> dict[str, tuple[str, str]]:
    """Return the sections of CHANGELOG.md by version, the newest first: date, or `unreleased`, and text."""
    parts = re.split(r"^## (.+)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M)
    found = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        name, _, date = title.strip().partition(", ")
        found[name] = (date, text.strip())
    return found


def faults(root: Path = ROOT) -> list[str]:
    """Return where settings.ini and CHANGELOG.md differ in the version."""
    wrong = []
    names = [name for name in sections(root) if name != "Unreleased"]
    if not names or names[0] != version(root):
        wrong.append(
            f"settings.ini has version {version(root)}, the newest of CHANGELOG.md is {names[0] if names else 'none'}"
        )
    for name, (date, text) in sections(root).items():
        kinds = re.findall(r"^### (.+)$", text, flags=re.M)
        if unknown := [kind for kind in kinds if kind not in ("Added", "Changed", "Fixed", "Removed", "Security")]:
            wrong.append(
                f"CHANGELOG.md: {name} has the heading {unknown[0]}: use Added, Changed, Fixed, Removed, Security"
            )
        if name != "Unreleased" and not re.fullmatch(r"\d{4}-\d\d-\d\d|unreleased", date):
            wrong.append(f"CHANGELOG.md: {name} has no date: write `## {name}, 2027-01-31`")
    return wrong


def main() -> int:
    """Print the changes of the version, or what is wrong."""
    tag = sys.argv[1]
    wrong = faults()
    if tag != f"v{version()}":
        wrong.append(f"the tag is {tag}, settings.ini has version {version()}: tag v{version()}")
    date, text = sections().get(version(), ("", ""))
    if date == "unreleased":
        wrong.append(f"CHANGELOG.md says that {version()} is unreleased: write its date")
    if not text:
        wrong.append(f"CHANGELOG.md has nothing about {version()}")
    print("\n".join(wrong) if wrong else text, file=sys.stderr if wrong else sys.stdout)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
