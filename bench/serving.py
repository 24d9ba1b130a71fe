"""Our service beside bare FastAPI, plain BentoML and `mlflow models serve`: the same LightGBM, the same machine, one run.

Its trees have one feature each, so that a look-up explains a score exactly. Who asks LightGBM itself for reasons does without that
restriction, so BentoML is asked for those of as many ordinary trees as well. mlflow checks what it is sent where the model was saved
with a signature, as its documentation asks; it is asked with and without one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import lightgbm
import numpy as np
import psutil
from additive import boost
from aims import Aim, close, table

from d2c_mlops.data.tables import Tables
from d2c_mlops.models.core.model import Evaluation
from d2c_mlops.registry.versions import Version, new_model, register, version_files
from d2c_mlops.serving.local.server import free_port, serve_bento
from d2c_mlops.serving.package.bento import package_model_version
from d2c_mlops.settings import Settings, load_settings

HERE = Path(__file__).parent
PEERS = HERE.parent / ".bench" / "serving" / "bin"
SECONDS, WARM = float(os.environ.get("SECONDS", "0.8")), 0.3  # of a measurement, and of the warm-up before it
ROUNDS = 9  # the servers are asked in turn; medians count, of shares those of each round: a machine's speed changes
CONNECTIONS = (1, 8, 32)
FEATURES = [f"feature_{i:02d}" for i in range(30)]
ORDINARY = "bentoml, ordinary trees"
UNCHECKED = "mlflow-unsigned"
PATHS = ("/invocations", "/invocations", "dataframe_records")  # of mlflow, with the member that holds the records
SERVERS = ("d2c_mlops", "fastapi", "bentoml", "mlflow", UNCHECKED, ORDINARY)
SAVE = """
import sys, lightgbm, mlflow, pandas
file, plain, signed, *names = sys.argv[1:]
booster = lightgbm.Booster(model_file=file)
mlflow.lightgbm.save_model(booster, plain)
mlflow.lightgbm.save_model(booster, signed, input_example=pandas.DataFrame([[0.5] * len(names)], columns=names))
"""  # run by the peers' own Python
QUIET = {"OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass
class Peer:
    """A running server and how it is asked."""

    name: str
    port: int
    process: psutil.Process
    ready: float  # seconds from start to the first answer
    single: str  # path that predicts
    bulk: str  # path for 100 records
    shape: str = "records"  # the member of the body that holds the records


def cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and all its children."""
    spent = 0.0
    for each in [process, *process.children(recursive=True)]:
        times = each.cpu_times()
        spent += times.user + times.system
    return spent


def memory(process: psutil.Process) -> float:
    """Return the resident megabytes of the largest process of a server: its worker."""
    return max(each.memory_info().rss for each in [process, *process.children(recursive=True)]) / 1e6


def bodies(folder: Path) -> dict[tuple[str, int], Path]:
    """Write what is sent, by shape and number of records."""
    values = np.random.default_rng(2).normal(size=(10_000, len(FEATURES))).round(6).tolist()
    plain = [dict(zip(FEATURES, row, strict=True)) for row in values]
    found = {}
    for shape in ("ours", "records", "dataframe_records"):
        records = [{"lead_id": f"L-{i}", **r} for i, r in enumerate(plain)] if shape == "ours" else plain
        for count in (1, 100, 10_000):
            file = folder / f"{shape}-{count}.json"
            member = "records" if shape == "ours" else shape
            file.write_text(json.dumps({member: records[:count]}))
            found[shape, count] = file
    return found


def measured(
    peer: Peer, path: str, body: Path, connections: int, seconds: float = SECONDS, warm_up: float = WARM
) -> dict[str, float]:
    """Return rate, latencies and CPU ms a request, after a warm-up of some seconds (none: 0)."""
    for warm, spell in ((True, warm_up), (False, seconds)):
        if not spell:
            continue
        before = cpu(peer.process)
        command = [
            sys.executable,
            "-m",
            "d2c_mlops.serving.local.load_generator",
            str(peer.port),
            path,
            body,
            str(connections),
            str(spell),
        ]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{peer.name} {path}: {done.stderr.strip()}")
        spent = cpu(peer.process) - before
        if not warm:
            told: dict[str, float] = json.loads(done.stdout)
    return {**told, "cpu": spent / told["requests"] * 1e3}


@contextmanager
def ours(settings: Settings, version: Version) -> Iterator[Peer]:
    """Our service as `d2c serve` starts it."""
    bento = package_model_version(version, settings)
    os.environ |= QUIET
    port, start = free_port(), time.perf_counter()
    with serve_bento(bento, settings, port=port) as server:
        took = time.perf_counter() - start
        yield Peer("d2c_mlops", port, psutil.Process(server.process.pid), took, "/explain", "/explain", "ours")


@contextmanager
def peer(name: str, command: list[str], folder: Path, path: str, bulk: str, shape: str, model: Path) -> Iterator[Peer]:
    """Another server, in an environment of its own."""
    port, start = free_port(), time.perf_counter()
    env = {**os.environ, **QUIET, "MODEL_FILE": str(model), "PATH": f"{PEERS}:{os.environ['PATH']}",
           "BENTOML_HOME": str(folder / "bentoml"), "PYTHONPATH": str(HERE / "serving_peers")}  # fmt: skip
    with (folder / f"{name}.log").open("wb") as log:
        filled = [part.replace("PORT", str(port)) for part in command]
        process = subprocess.Popen(filled, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    held = psutil.Process(process.pid)
    try:
        while not _answers(port):
            if process.poll() is not None or time.perf_counter() - start > 120:
                raise SystemExit(f"{name} does not start:\n{(folder / f'{name}.log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield Peer(name, port, held, time.perf_counter() - start, path, bulk, shape)
    finally:
        for each in [*held.children(recursive=True), held]:
            each.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def trained(folder: Path) -> tuple[Settings, Version]:
    """Train, register and return the version that is served."""
    shutil.copy(HERE / "additive.py", folder)
    (folder / "settings.ini").write_text("[d2c]\npackages = additive\n")
    os.environ["PYTHONPATH"] = str(folder)
    os.chdir(folder)
    settings = load_settings(folder)
    model = new_model("additive", settings, {}).fit(Tables({}), date(2026, 1, 1))
    example, score = model.records(Tables({}), date(2026, 1, 1)), Evaluation("auc", 0.5, {}, False)
    version = register("additive", model, score, settings=settings, as_of=date(2026, 1, 1), example=example)
    return settings, version


def bare(model: Path) -> float:
    """Return the CPU ms that LightGBM itself takes for 10,000 records."""
    booster, x = lightgbm.Booster(model_file=str(model)), np.random.default_rng(2).normal(size=(10_000, len(FEATURES)))
    spent = []
    for _ in range(5):
        start = time.process_time()
        booster.predict(x, num_threads=1)
        spent.append((time.process_time() - start) * 1e3)
    return sorted(spent)[2]


def main() -> int:
    """Start the servers, ask them in turn, print the table and the aims."""
    with TemporaryDirectory(prefix="d2c-bench-") as name:
        folder = Path(name)
        settings, version = trained(folder)
        model, ordinary = version_files(version, settings) / "model.txt", folder / "ordinary.txt"
        boost().save_model(ordinary)
        bento = [str(PEERS / "bentoml"), "serve", "bento_service:Plain", "--port", "PORT"]
        bento += ["--working-dir", str(HERE / "serving_peers")]
        saved = {name: str(folder / name) for name in (UNCHECKED, "mlflow")}
        subprocess.run(
            [PEERS / "python", "-c", SAVE, model, *saved.values(), *FEATURES], check=True, capture_output=True
        )
        fast = [str(PEERS / "uvicorn"), "fastapi_app:app", "--port", "PORT", "--no-access-log"]
        flow = [str(PEERS / "mlflow"), "models", "serve", "-p", "PORT", "--env-manager", "local", "-m"]
        servers = [
            lambda: ours(settings, version),
            lambda: peer("fastapi", fast, folder, "/predict", "/predict", "records", model),
            lambda: peer("bentoml", bento, folder, "/predict", "/explain", "records", model),
            *(partial(peer, name, [*flow, saved[name]], folder, *PATHS, model) for name in ("mlflow", UNCHECKED)),
            lambda: peer(ORDINARY, bento, folder, "/predict", "/explain", "records", ordinary),
        ]
        with ExitStack() as stack:
            peers = [stack.enter_context(start()) for start in servers]
            got = asked(peers, bodies(folder))
            held = {each.name: (each.ready, memory(each.process)) for each in peers}
        print(table([_row(*key, middle(told)) for key, told in got.items()]))
        print()
        facts = [{"server": n, "ready s": f"{s:.1f}", "MB a worker": f"{mb:.0f}"} for n, (s, mb) in held.items()]
        print(table(facts))
        alone = bare(model)
        print(f"\nLightGBM's own predict of 10,000 records: {alone:.0f} ms CPU")
        return close(aims(got, held["d2c_mlops"], alone))


Key = tuple[str, str, int, int]  # server, path, records, connections
Rounds = dict[Key, list[dict[str, float]]]


def asked(peers: list[Peer], sent: dict[tuple[str, int], Path]) -> Rounds:
    """Ask the servers in turn, ROUNDS times."""
    got: Rounds = {}
    for _ in range(ROUNDS):
        for count, connections in product((1, 100), CONNECTIONS):
            for each in peers:
                path = each.single if count == 1 else each.bulk
                told = measured(each, path, sent[each.shape, count], connections)
                got.setdefault((each.name, path, count, connections), []).append(told)
        for path in ("/predict", "/explain"):
            told = measured(peers[0], path, sent["ours", 10_000], 1)
            got.setdefault(("d2c_mlops", path, 10_000, 1), []).append(told)
    return dict(sorted(got.items(), key=lambda item: (SERVERS.index(item[0][0]), item[0][2], item[0][1], item[0][3])))


def middle(told: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure over the rounds."""
    return {name: median(one[name] for one in told) for name in told[0]}


def _row(name: str, path: str, count: int, connections: int, got: dict[str, float]) -> dict[str, str]:
    return {"server": name, "path": path, "records": str(count), "connections": str(connections),
            "CPU ms": f"{got['cpu']:.3f}", "p50 ms": f"{got['p50']:.2f}", "p99 ms": f"{got['p99']:.2f}",
            "requests/s": f"{got['rate']:.0f}"}  # fmt: skip


def aims(got: Rounds, held: tuple[float, float], alone: float) -> Iterator[Aim]:
    """Compare; ours has validation, log and reasons on throughout."""

    def beside(name: str, path: str, count: int) -> tuple[str, float]:
        """Return what a server takes beside ours in CPU, in words and as a median of the rounds' ratios."""
        mine, theirs = got["d2c_mlops", "/explain", count, 1], got[name, path, count, 1]
        times = median(they["cpu"] / we["cpu"] for we, they in zip(mine, theirs, strict=True))
        return f"{middle(mine)['cpu']:.2f} / {middle(theirs)['cpu']:.2f} ms", times

    said, times = beside("bentoml", "/predict", 1)
    yield Aim("a record: CPU <= 0.7 of plain BentoML", f"{said}, {1 / times:.2f}", 1 / times <= 0.7)
    for name, what in (("mlflow", "mlflow"), (UNCHECKED, "mlflow that checks nothing")):
        said, times = beside(name, "/invocations", 1)
        yield Aim(f"a record: CPU <= 1/12 of {what}", f"{said}, 1/{times:.1f}", times >= 12)
    mine = middle(got["d2c_mlops", "/explain", 1, 1])
    said = f"{mine['p99']:.2f} / {mine['p50']:.2f} ms = {mine['p99'] / mine['p50']:.1f}"
    yield Aim("a record, one connection: p99 <= 10 p50", said, mine["p99"] <= 10 * mine["p50"])
    for name, trees in ((ORDINARY, "of ordinary trees"), ("bentoml", "of the same one-feature trees")):
        said, times = beside(name, "/explain", 100)
        what = f"100 records with reasons: CPU <= 1/30 of BentoML with pred_contrib {trees}"
        yield Aim(what, f"{said}, 1/{times:.1f}", times >= 30)
    share, plain = (middle(got["d2c_mlops", path, 10_000, 1])["cpu"] / alone for path in ("/explain", "/predict"))
    what = "10,000 records: CPU <= 3 times bare predict"
    yield Aim(what, f"{share:.1f} with reasons, {plain:.1f} without", share <= 3)
    yield Aim("ready in < 6 s", f"{held[0]:.1f} s", held[0] < 6)
    yield Aim("< 350 MB a worker", f"{held[1]:.0f} MB", held[1] < 350)


if __name__ == "__main__":
    sys.exit(main())
