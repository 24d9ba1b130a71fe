"""Every notebook of a folder on the path to production: how far does each one come, and where does it stop.

    python bench/convert.py FOLDER [--out FOLDER] [--data FOLDER] [--install] [--fresh] [--only TEXT] [--json]

Each notebook is converted in a process and a project of its own, two at a time. What was measured is kept in
OUT/results and what was printed in OUT/logs, so that an interrupted run goes on where it stopped; --fresh forgets it.
Beside it, where they are installed in .bench/peers: nbconvert (is the script accepted by Python and does it import in an
empty folder) and soorgeon (does refactor accept the notebook). STRICT=1 makes a missed aim an exit code of 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aims import Aim, close, table

HERE = Path(__file__).parent
PEERS = HERE.parent / ".bench" / "peers" / "bin"
EXECUTIONS = 10  # of a notebook until its answers are compared: to mend, write, verify, run on record, train
SLACK = 1800.0  # seconds beyond these executions after which a notebook is given up
COLUMNS = {
    "as_is": "runs as is",
    "revived": "revived",
    "converted": "converted",
    "imports": "module imports clean",
    "equivalent": "verified equivalent",
    "changed": "runs with a changed parameter",
    "served": "served answer equal",
    "nbconvert": "nbconvert imports",
    "soorgeon": "soorgeon accepts",
}
Result = dict[str, Any]


def main() -> int:
    """Measure what is not measured yet and print the tables."""
    given = arguments()
    folder: Path = given.folder.resolve()
    if not folder.is_dir():
        print(f"there is no folder {folder}", file=sys.stderr)
        return 2
    notebooks = [
        each
        for each in sorted(folder.rglob("*.ipynb"))
        if ".ipynb_checkpoints" not in each.parts and given.only.lower() in str(each.relative_to(folder)).lower()
    ]
    if not notebooks:
        print(f"there is no notebook in {folder}", file=sys.stderr)
        return 2
    out: Path = given.out.resolve()
    with ThreadPoolExecutor(given.jobs) as pool:
        results = list(pool.map(lambda each: one(each, folder, out, given), notebooks))
    if given.json:
        print(json.dumps(results, indent=1))
        return 0
    print(table([row(each) for each in results], markdown=given.markdown))
    print()
    print(table(totals(results), markdown=given.markdown))
    for each in results:
        if why := each.get("why"):
            print(f"\n{each['notebook']}: {why}")
    return close(aims(results))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="searched for notebooks, folders in it too")
    parser.add_argument("--out", type=Path, default=Path(".bench/convert"), help="results, logs and projects")
    parser.add_argument("--data", type=Path, help="where their files are; the notebook's own folder when not given")
    parser.add_argument("--install", action="store_true", help="let each run install what its notebook misses")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one execution of a notebook")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time")
    parser.add_argument("--only", default="", help="only paths that contain this text")
    parser.add_argument("--fresh", action="store_true", help="measure again what is measured")
    parser.add_argument("--json", action="store_true", help="print the measurements for machines")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    return parser.parse_args()


def one(notebook: Path, folder: Path, out: Path, given: argparse.Namespace) -> Result:
    """Return what was measured of a notebook, measuring it where that is not on record."""
    short = str(notebook.relative_to(folder))
    slug = re.sub(r"\W+", "_", short.removesuffix(".ipynb")).strip("_").lower()
    digest = hashlib.sha256(notebook.read_bytes()).hexdigest()[:16]
    record = out / "results" / f"{slug}.json"
    if record.exists() and not given.fresh:
        known: Result = json.loads(record.read_text(encoding="utf-8"))
        if known.get("sha256") == digest:
            return known
    for part in ("results", "logs"):
        (out / part).mkdir(parents=True, exist_ok=True)
    print(f"{short} …", file=sys.stderr, flush=True)
    data = given.data or notebook.parent
    command = [sys.executable, str(HERE / "convert_one.py"), str(notebook), str(data), str(out / "work" / slug)]
    command += [str(given.timeout), *(["--install"] if given.install else [])]
    result: Result = {"notebook": short, "sha256": digest}
    with (out / "logs" / f"{slug}.log").open("w", encoding="utf-8") as log:
        try:
            subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, timeout=EXECUTIONS * given.timeout + SLACK, check=False
            )
        except subprocess.TimeoutExpired:
            log.write("given up\n")
    measured = out / "work" / slug / "measured.json"
    if measured.exists():
        result |= json.loads(measured.read_text(encoding="utf-8"))
    else:
        result |= {"status": "crashed", "why": f"no answer, see {out / 'logs' / f'{slug}.log'}"}
    result |= peers(notebook, out / "work" / slug / "peers")
    draft = record.with_suffix(".draft")
    draft.write_text(json.dumps(result, indent=1), encoding="utf-8")
    draft.replace(record)
    return result


def peers(notebook: Path, place: Path) -> Result:
    """Ask the neighbours where they are installed."""
    found: Result = {}
    place.mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, "MPLBACKEND": "Agg"}
    limits: dict[str, Any] = {
        "capture_output": True,
        "stdin": subprocess.DEVNULL,
        "timeout": 120,
        "cwd": place,
        "env": environ,
        "check": False,
    }
    nbconvert = PEERS / "jupyter-nbconvert"
    try:
        if nbconvert.exists():
            made = subprocess.run(
                [nbconvert, "--to", "python", "--output-dir", place, "--output", "script", notebook], **limits
            )
            script = place / "script.py"
            empty = place / "empty"
            empty.mkdir(exist_ok=True)
            done = made.returncode or subprocess.run([sys.executable, script], **{**limits, "cwd": empty}).returncode
            found["nbconvert"] = script.exists() and done == 0
    except subprocess.TimeoutExpired:
        found["nbconvert"] = False
    soorgeon = PEERS / "soorgeon"
    if soorgeon.exists():
        copy = place / "soorgeon.ipynb"
        copy.write_bytes(notebook.read_bytes())
        try:
            found["soorgeon"] = subprocess.run([soorgeon, "refactor", copy.name], **limits).returncode == 0
        except subprocess.TimeoutExpired:
            found["soorgeon"] = False
    return found


def row(result: Result) -> dict[str, str]:
    """Return a line of the table."""
    marks = {True: "yes", False: "-", None: ""}
    line = {"notebook": result["notebook"]}
    line |= {title: marks[result.get(key)] for key, title in COLUMNS.items()}
    return line | {"outcome": str(result.get("status", "")), "s": f"{result.get('seconds', 0):.0f}"}


def totals(results: list[Result]) -> list[dict[str, str]]:
    """Return how many reached each stage, of all and of those whose data is there."""
    present = [each for each in results if has_data(each)]
    lines = []
    for key, title in COLUMNS.items():
        asked = [each for each in results if key in each]
        lines.append({
            "stage": title,
            "of all": f"{sum(bool(each.get(key)) for each in asked)} of {len(results)}" if asked else "not installed",
            "of those whose data is there": f"{sum(bool(each.get(key)) for each in present)} of {len(present)}" if asked else "",
        })  # fmt: skip
    return lines


def has_data(result: Result) -> bool:
    """Whether the notebook is in Python and its data was there."""
    return bool(result.get("python", True)) and not result.get("data_missing", False)


def aims(results: list[Result]) -> list[Aim]:
    """Return what is aimed at."""
    present = [each for each in results if has_data(each)]
    revived = [each for each in present if each.get("revived")]
    equal = [each for each in revived if each.get("equivalent")]
    served = [each for each in revived if each.get("served")]
    ended = [each for each in results if each.get("status") in ("converted", "refused")]
    return [
        _share("revived, of those whose data is there", len([e for e in present if e.get("revived")]), len(present), 0.8),
        _share("converted and verified equivalent, of the revived", len(equal), len(revived), 0.9),
        _share("served with an equal answer, of the revived", len(served), len(revived), 0.6),
        _share("converted, or refused with a reason", len(ended), len(results), 1.0),
    ]  # fmt: skip


def _share(what: str, count: int, total: int, least: float) -> Aim:
    share = count / total if total else 0.0
    return Aim(f"{what}: at least {least:.0%}", f"{count} of {total}, {share:.0%}", bool(total) and share >= least)


if __name__ == "__main__":
    sys.exit(main())
