"""Kill a service of two workers under load while its disk is nearly full: what was acknowledged is there: `make test-full-disk`."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import psutil
from abuse import Bench, asked, line, post
from aims import Aim, close
from sqlalchemy import select

from d2c_mlops.ledger.schema import feedback, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.serving.log.log_collection import collect_log_folder

SIZE = 160  # MB of the disk
FREE = (100.0, 0.0, 60.0, 100.0, 2.0)  # MB of it that a service starts with, in turn
CALLERS = 4
LOAD = 2.0  # seconds of load before a kill
NO_MOUNT = 77  # exit code where no small disk can be made here


@dataclass
class Acknowledged:
    """What callers were answered, and what they were refused."""

    logged: set[str] = field(default_factory=set)  # ids of predictions
    told: set[str] = field(default_factory=set)  # ids of feedback
    kept: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)  # request and answer by Idempotency-Key
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of SIZE MB while the block lasts."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}m,mode=700", "tmpfs", str(folder)],
                          capture_output=True, text=True)  # fmt: skip
    if made.returncode:
        print(f"no small disk can be mounted here: {made.stderr.strip()}", file=sys.stderr)
        sys.exit(NO_MOUNT)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def leave(folder: Path, free_mb: float) -> None:
    """Fill a file system until so much of it is free."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("ab") as file:
        found = os.statvfs(folder)
        more = found.f_bavail * found.f_frsize - int(free_mb * 2**20)
        if more < 0:
            file.truncate(max(0, file.tell() + more))
        else:
            os.posix_fallocate(file.fileno(), file.tell(), max(more, 1))


def caller(url: str, bench: Bench, seen: Acknowledged, end: threading.Event) -> None:
    """Ask again and again, with and without a key, and tell what became of it."""
    connection = line(url, 5)
    while not end.is_set():
        record, kind = random.choice(bench.records), random.choice(("plain", "many", "keyed", "feedback"))
        body = asked(record) if kind != "many" else orjson.dumps({"records": random.choices(bench.records, k=40)})
        key = uuid.uuid4().hex if kind == "keyed" else ""
        try:
            status, said, headers = post(connection, body, **({"idempotency_key": key} if key else {}))
            if status == 200:
                answered(seen, body, key, said, headers)
                if kind == "feedback":
                    status, said, headers = told(connection, seen, said)
            seen.counts[f"{kind} {status}"] += 1
            if status not in (200, 202) and not (
                status == 503 and "retry-after" in headers and kind in ("keyed", "feedback")
            ):
                seen.wrong.append(f"{kind}: {status} {said[:160]!r}")
        except (HTTPException, OSError):
            connection.close()
            connection = line(url, 5)
            seen.counts["broken off"] += 1
            time.sleep(0.05)


def answered(seen: Acknowledged, body: bytes, key: str, said: bytes, headers: dict[str, str]) -> None:
    if headers.get("x-prediction-logged") == "true":
        seen.logged |= {each["prediction_id"] for each in orjson.loads(said)["predictions"]}
    else:
        seen.counts["not logged, and told so"] += 1
    if key:
        seen.kept[key] = (body, said)


def told(connection: Any, seen: Acknowledged, said: bytes) -> tuple[int, bytes, dict[str, str]]:
    id = orjson.loads(said)["predictions"][0]["prediction_id"]
    made = post(connection, orjson.dumps({"action": "followed", "prediction_id": id}), "/feedback")
    if made[0] in (200, 202):
        seen.told.add(orjson.loads(made[1])["feedback_id"])
    return made


def repeat(url: str, seen: Acknowledged, keys: list[str]) -> None:
    """Send calls again that were answered before the kill."""
    for key in keys:
        body, before = seen.kept[key]
        status, said, headers = post(line(url), body, idempotency_key=key)
        if (status, said) != (200, before) or headers.get("idempotency-replayed") != "true":
            seen.wrong.append(f"repeated {key}: {status} {said[:160]!r}")
        seen.counts["repeated"] += 1


def kill(pid: int, seen: Acknowledged) -> None:
    """Kill -9 a worker, then the rest; or all at once."""
    top = psutil.Process(pid)
    below = top.children(recursive=True)
    workers = [each for each in below if not each.children()]
    with contextlib.suppress(psutil.Error):
        if random.random() < 0.5 and workers:
            random.choice(workers).kill()
            seen.killed["worker"] += 1
            time.sleep(random.uniform(0.0, 1.0))
        else:
            seen.killed["service"] += 1
    for each in [top, *top.children(recursive=True), *below]:
        with contextlib.suppress(psutil.Error):
            each.kill()


def tortured(bench: Bench, disk: Path, kills: int, seen: Acknowledged) -> None:
    """Start the service, load it, fill its disk, kill it, as often as wanted; then collect what it logged."""
    last: list[str] = []
    ledger = Ledger.of(bench.settings)
    log = disk / "log"
    for number in range(kills + 1):
        leave(disk, FREE[number % len(FREE)])
        with bench.serving() as server:
            repeat(server.url, seen, last)
            if number == kills:
                break
            known, end = set(seen.kept), threading.Event()
            callers = [threading.Thread(target=caller, args=(server.url, bench, seen, end)) for _ in range(CALLERS)]
            for each in callers:
                each.start()
            time.sleep(LOAD / 2)
            leave(disk, random.choice((0.0, 0.5, 2.0)))
            time.sleep(random.uniform(0.0, LOAD))
            kill(server.process.pid, seen)
            end.set()
            for each in callers:
                each.join()
            last = random.sample(sorted(set(seen.kept) - known), min(60, len(seen.kept) - len(known)))
        if number % 3 == 2:
            collect_log_folder(ledger, log)  # as a schedule does it, from the outside
        print(f"  kill {number + 1} of {kills}: {len(seen.logged):,} logged, {len(seen.kept):,} kept", file=sys.stderr, flush=True)  # fmt: skip
    collect_log_folder(ledger, log)


def judged(bench: Bench, seen: Acknowledged, kills: int) -> list[Aim]:
    """Compare what was acknowledged with what is on record."""
    with Ledger.of(bench.settings).read() as connection:
        made, fed = (set(connection.execute(select(each.c.id)).scalars()) for each in (predictions, feedback))
    lost, unheard = seen.logged - made, seen.told - fed
    refused = seen.counts["keyed 503"]
    print(dict(seen.counts), file=sys.stderr)
    for each in seen.wrong[:10]:
        print(each, file=sys.stderr)
    return [
        Aim(f"{kills} kills on a nearly full disk: every prediction that was acknowledged as logged is in the ledger",
            f"{len(seen.logged) - len(lost):,} of {len(seen.logged):,}, killed: {dict(seen.killed)}",
            not lost and len(seen.logged) > 0 and seen.killed.total() == kills),
        Aim("every feedback that was taken is in the ledger", f"{len(seen.told) - len(unheard):,} of {len(seen.told):,}",
            not unheard and len(seen.told) > 0),
        Aim("a call that is repeated after the kill gets the answer it had; others are answered, or told with 503 when to come back",
            f"{seen.counts['repeated']:,} repeated, {refused:,} refused, {len(seen.wrong)} wrong", not seen.wrong and seen.counts["repeated"] > 0),
        Aim("the disk was full: calls were refused or told that nothing was logged",
            f"{refused:,} and {seen.counts['not logged, and told so']:,}", refused + seen.counts["not logged, and told so"] > 0),
    ]  # fmt: skip


def main() -> int:
    """Kill, and print the aims."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    kills = parser.parse_args().kills
    if os.geteuid() != 0 and os.environ.get("D2C_OWN_MOUNTS") is None:  # in a user namespace everybody may mount
        os.environ["D2C_OWN_MOUNTS"] = "1"
        return subprocess.run(["unshare", "--user", "--map-root-user", "--mount", sys.executable, *sys.argv]).returncode
    seen = Acknowledged()
    with TemporaryDirectory(ignore_cleanup_errors=True) as name, small_disk(Path(name, "disk")) as disk:
        os.chdir(name)
        bench = Bench.make(Path(name))
        service = replace(bench.settings.service, workers=2, state=str(disk))
        bench = replace(bench, settings=replace(bench.settings, service=service))
        tortured(bench, disk, kills, seen)
        aims = judged(bench, seen, kills)
        os.chdir("/")
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
