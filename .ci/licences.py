"""The licences of what requirements.lock installs: a page for people, and a refusal of those that bind the users of this package."""

from __future__ import annotations

import re
from configparser import ConfigParser
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from boolean import ParseError
from license_expression import ExpressionError, LicenseSymbol, LicenseWithExceptionSymbol, get_spdx_licensing
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
# Copyleft that reaches whoever links with it, or offers a service of it.
REFUSED = re.compile(
    r"(?<![a-z])(AGPL|GPL|SSPL|BUSL)|affero|(?<!lesser )(?<!library )general public|server side public|business source",
    re.I,
)
# Copyleft of the library's or the file's own changes alone: allowed, and listed.
LISTED = re.compile(r"LGPL|lesser general public|library general public|MPL|mozilla public|EPL|eclipse public", re.I)
# Distributions whose metadata name no licence, or name it by a file: what the file says.
READ = {"huey": "MIT"}
SPDX = get_spdx_licensing()  # reads its list of licences anew at each call
ORDER = ("allowed", "listed", "refused")


def locked(text: str) -> list[str]:
    """Return the distribution names of a lock, in its order."""
    lines = (line.split("#")[0].strip(" \\") for line in text.splitlines())
    return [Requirement(line).name for line in lines if re.match(r"[A-Za-z0-9]", line)]


def licence(installed: Distribution) -> str:
    """Return a distribution's licence in its own words: an SPDX expression, a name, or classifiers; empty when it names none."""
    about = installed.metadata
    expressions = [line.strip() for line in about.get_all("License-Expression") or () if line.strip()]
    names = [line.strip().splitlines()[0] for line in about.get_all("License") or () if line.strip()]
    classifiers = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or () if c.startswith("License ::")]
    texts = expressions or [name for name in names if len(name) <= 80] or classifiers
    return "; ".join(texts) or READ.get(installed.name.lower(), "")


@cache
def verdict(text: str) -> str:
    """Return `refused`, `listed` or `allowed`: of an SPDX expression OR takes the mildest part and AND the strictest."""
    if not text:
        return "refused"
    try:
        return _judge(SPDX.parse(text, simple=True))
    except (ExpressionError, ParseError, AttributeError):
        return max(map(_of, text.split("; ")), key=ORDER.index)  # names and classifiers, which say no more than this


def _judge(part: Any) -> str:
    if isinstance(part, LicenseSymbol | LicenseWithExceptionSymbol):
        return _of(str(part))
    pick = min if isinstance(part, SPDX.OR) else max
    return pick((_judge(each) for each in part.args), key=ORDER.index)


def _of(text: str) -> str:
    if REFUSED.search(LISTED.sub("", text)):
        return "refused"
    return "listed" if LISTED.search(text) else "allowed"


def found() -> tuple[dict[str, str], list[str]]:
    """Return the licence of each locked distribution that is installed here, and the names of those that are not."""
    here: dict[str, str] = {}
    absent = []
    for name in locked((ROOT / "requirements.lock").read_text(encoding="utf-8")):
        try:
            here[name] = licence(distribution(name))
        except PackageNotFoundError:
            absent.append(name)
    return here, absent


def runtime() -> set[str]:
    """Return the distributions that `pip install d2c_mlops` brings, without extras."""
    names: set[str] = set()
    settings = ConfigParser(interpolation=None)
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    todo = [Requirement(line).name for line in settings["package"]["requirements"].splitlines() if line.strip()]
    while todo:
        name = _key(todo.pop())
        if name in names:
            continue
        try:
            requirements = map(Requirement, distribution(name).requires or ())
        except PackageNotFoundError:
            continue  # wanted on another platform only
        names.add(name)
        todo += [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    return names


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def page() -> str:
    """Return docs/licences.md."""
    here, absent = found()
    shipped = runtime()
    weak = {name: text for name, text in here.items() if verdict(text) == "listed"}
    lines = [
        "# Licences of the dependencies",
        "",
        "Made from the metadata of the packages in requirements.lock by `make docs`. `make check` refuses GPL, AGPL, SSPL and BUSL, and a",
        "package that names no licence. MPL and LGPL bind changes of the library itself; they are allowed and listed first.",
        "",
        "| MPL or LGPL | licence | installed by |",
        "| --- | --- | --- |",
        *(f"| {name} | {text} | {_extra(name, shipped)} |" for name, text in sorted(weak.items())),
        "",
        "| package | licence | installed by |",
        "| --- | --- | --- |",
        *(f"| {n} | {t.replace('|', '/')} | {_extra(n, shipped)} |" for n, t in sorted(here.items()) if n not in weak),
        "",
        f"For other platforms, not read here: {', '.join(sorted(absent))}.",
    ]
    return "\n".join(lines) + "\n"


def _extra(name: str, shipped: set[str]) -> str:
    return "the package" if _key(name) in shipped else "an extra"
