"""Run independent jobs by the backend of joblib that the setting `backend` names: in this process, on its cores, or on a cluster."""

from __future__ import annotations

import atexit
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from d2c_mlops.errors import Temporary, UsageError
from d2c_mlops.settings.parsing import Backend, parse_backend

ATTEMPTS = 4  # at a job, when its worker is killed
PACKAGES = {"dask": "distributed", "ray": "ray", "spark": "joblibspark"}
ORDERED = ("ray", "spark")  # backends that return all results at once
_LOCAL = threading.local()


class JobOutcome(NamedTuple):
    """What became of a job: its result, or the error that it raised."""

    number: int
    result: Any
    error: Exception | None


@contextmanager
def use_backend(text: str) -> Iterator[Backend]:
    """Run the jobs of this block, in this thread, by a backend such as `loky:4` or `dask:tcp://host:8786`.

    Raises UsageError for a text that names none, and where its package is not installed.
    """
    try:
        backend = parse_backend(text)
    except ValueError as error:
        raise UsageError(str(error), where="backend", next="correct [d2c] backend in settings.ini") from error
    package = PACKAGES.get(backend.name)
    if package and find_spec(package) is None:
        raise UsageError(
            f"the backend {backend.name} needs the package {package}",
            where="backend",
            next=f"pip install 'd2c_mlops[{backend.name}]'",
        )
    before = current_backend()
    _LOCAL.backend = backend
    try:
        yield backend
    finally:
        _LOCAL.backend = before


def current_backend() -> Backend:
    """Return the backend of this thread; in a worker, and outside of `use_backend`, jobs run one after the other."""
    backend: Backend = getattr(_LOCAL, "backend", Backend())
    return backend


def run_jobs(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return `function(*job)` of each job, in order; the backend changes where they run and nothing else.

    A job must not depend on another one, nor on what is not among its arguments: it is repeated when its worker is killed. The error of the first job that raises one is
    raised when all are finished. Raises Temporary where workers are lost again and again.
    """
    backend = current_backend()
    if backend.name == "sequential" or len(jobs) < 2:
        return [function(*job) for job in jobs]
    _start_backend(backend)
    outcomes: dict[int, JobOutcome] = {}
    for attempt in range(ATTEMPTS):
        remaining = [number for number in range(len(jobs)) if number not in outcomes]
        try:
            for outcome in _finished_outcomes(backend, function, [(number, jobs[number]) for number in remaining]):
                outcomes[outcome.number] = outcome
            break
        except Exception as error:  # a worker's: what a job raises is in its outcome
            if attempt == ATTEMPTS - 1:
                lost = f"workers of the backend {backend.name} were lost in {ATTEMPTS} attempts ({type(error).__name__}: {_first_line(error)})"
                raise Temporary(
                    lost, next="check the memory of the workers, then run the same command again"
                ) from error
    for _, outcome in sorted(outcomes.items()):
        if outcome.error is not None:
            raise outcome.error
    return [outcomes[number].result for number in range(len(jobs))]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _finished_outcomes(
    backend: Backend, function: Callable[..., Any], numbered: Sequence[tuple[int, tuple[Any, ...]]]
) -> Iterator[JobOutcome]:
    """Yield the outcomes of jobs as they are finished, where the backend can do so."""
    import joblib

    form = "list" if backend.name in ORDERED else "generator_unordered"
    calls = [joblib.delayed(run_job)(number, function, job) for number, job in numbered]
    with joblib.parallel_config(backend=backend.name, n_jobs=backend.workers or -1):
        yield from joblib.Parallel(return_as=form, batch_size=1, pre_dispatch="all")(calls)


def run_job(number: int, function: Callable[..., Any], job: tuple[Any, ...]) -> JobOutcome:
    """Return the outcome of a job; jobs that it has itself run one after the other."""
    before = current_backend()
    _LOCAL.backend = Backend()
    try:
        return JobOutcome(number, function(*job), None)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - what was just written
        except Exception:
            return JobOutcome(number, None, RuntimeError(f"{type(error).__name__}: {error}"))
        return JobOutcome(number, None, error)
    finally:
        _LOCAL.backend = before


def usable_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_backend(backend: Backend) -> None:
    """Connect to the cluster of a backend, or start one on this machine. Raises Temporary where neither is possible."""
    connect = {"dask": _start_dask, "ray": _start_ray, "spark": _start_spark}.get(backend.name)
    try:
        if connect is not None:
            connect(backend.workers or usable_cores(), backend.address)
    except Exception as error:
        raise Temporary(
            f"no cluster of the backend {backend.name} can be reached or started ({_first_line(error)})",
            where=backend.address,
            next="check the address in [d2c] backend, or use loky",
        ) from error


@cache
def _start_dask(workers: int, address: str) -> Any:
    distributed = import_module("distributed")
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None, "silence_logs": 50}
    client = distributed.Client(address or distributed.LocalCluster(n_workers=workers, **options))
    atexit.register(client.close)
    return client


@cache
def _start_ray(workers: int, address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = import_module("ray")
    if not ray.is_initialized():
        there = {"address": address} if address else {"num_cpus": workers, "_node_ip_address": "127.0.0.1"}
        ray.init(include_dashboard=None if address else False, log_to_driver=False, logging_level="error", **there)
    import_module("ray.util.joblib").register_ray()


@cache
def _start_spark(workers: int, address: str) -> Any:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = (
        import_module("pyspark.sql")
        .SparkSession.builder.appName("d2c")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
    )
    if not address:
        builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    session = builder.master(address or f"local[{workers},{ATTEMPTS}]").getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    import_module("joblibspark").register_spark()
    return session
