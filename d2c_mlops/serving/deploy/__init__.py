"""Deployment files for platforms. Each module here with a TARGET is a target and is discovered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import iter_modules

from d2c_mlops.data.store import write_atomic
from d2c_mlops.errors import UsageError
from d2c_mlops.serving.bento_files import VARIABLE
from d2c_mlops.serving.local.loadtest import LoadResult
from d2c_mlops.serving.rollout.state_file import Rollout
from d2c_mlops.settings.schema import SERVICE

LEAST_CPU = 0.5  # processors; with less, a service starts too slowly
DRAIN = 10.0  # default of drain_seconds: time for load balancers to notice that /readyz fails
BUSY = 0.7  # share of its processors at which the autoscaler adds a replica
REQUIREMENTS = "requirements.txt"
MARK = "Written by `d2c deploy`"


@dataclass(frozen=True)
class ReplicaSize:
    """Limits of one replica and number of replicas, from a load test or from options."""

    cpu: float = 1.0  # processors of a replica
    memory_mb: int = 512  # resident memory of a replica
    least: int = 2  # replicas
    most: int = 6
    request_ms: float = 500.0  # latency in ms of the 99th percentile that raises an alert


@dataclass(frozen=True)
class DecisionServicePlan:
    """The decision service of a project with a policy."""

    port: int
    links: tuple[str, ...] = ()  # names of the secrets that sign links: any random text
    secrets: tuple[str, ...] = ()  # names of the secrets of policies and their channels


@dataclass(frozen=True)
class DeployPlan:
    """Everything that deployment files are generated from."""

    model: str
    version: int
    image: str
    size: ReplicaSize
    port: int = 3000
    sized: str = "Limits are not measured: `d2c loadtest` measures them."  # sentence on the source of the size
    project: tuple[str, ...] = ("settings.ini",)  # contents of the project's image, relative to the project's folder
    context: str = "../../.."  # the project's folder, relative to the folder of the files
    place: str = ""  # path from the project to the files
    keys: str = "d2c_store/serving/keys.json"  # the file of API keys, seen from the project's folder
    deciding: DecisionServicePlan | None = None
    environment: tuple[tuple[str, str], ...] = ()  # D2C_SERVICE_… variables that differ from the defaults
    secrets: tuple[str, ...] = ()  # names of the secrets that the schedule refers to
    heartbeats: tuple[str, ...] = ()  # parts of the project that write heartbeats: scheduler, monitor
    files: str = ""  # digest of the files of the image; without it files are not verified

    @property
    def slug(self) -> str:
        """The model's name as a DNS label."""
        return slug(self.model)

    @property
    def drain(self) -> float:
        """Seconds in which load balancers notice that /readyz answers 503."""
        return float(dict(self.environment).get(f"{SERVICE}DRAIN_SECONDS", DRAIN))

    @property
    def service(self) -> dict[str, str]:
        """Environment variables of a replica on every platform."""
        fixed = {f"{SERVICE}MODE": "production", f"{SERVICE}STATE": "/state"}
        files = {VARIABLE: self.files} if self.files else {}
        return fixed | {f"{SERVICE}DRAIN_SECONDS": f"{DRAIN:g}"} | dict(self.environment) | files


@dataclass(frozen=True)
class DeployTarget:
    """A platform with a generator of deployment files."""

    name: str
    about: str
    files: Callable[[DeployPlan], dict[str, str]]
    next: str  # the command that applies the files; {folder} is their folder
    rollout: Callable[[Rollout], str] | None = None  # writes the rollout state for services of the platform


def slug(model: str) -> str:
    """Return a model's name as a DNS label."""
    return model.replace("_", "-")


def targets() -> dict[str, DeployTarget]:
    """Return the targets by name."""
    modules = [import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__)]
    listed = [module.TARGET for module in modules if hasattr(module, "TARGET")]
    return {target.name: target for target in sorted(listed, key=lambda target: target.name)}


def deploy(plan: DeployPlan, target: str, folder: Path) -> list[Path]:
    """Write the files of a target and return their paths; only files of an earlier call are replaced."""
    known_targets = targets()
    if target not in known_targets:
        raise UsageError(f"unknown target {target!r}", next=f"use one of: {', '.join(known_targets)}")
    texts = {folder / name: text for name, text in known_targets[target].files(plan).items()}
    foreign = [path for path in texts if path.exists() and MARK not in path.read_text(encoding="utf-8")[:2000]]
    if foreign:
        raise UsageError("d2c did not write this file", where=str(foreign[0]), next="move it, or give another --out")
    for path, text in texts.items():
        write_atomic(path, text.encode())
    return list(texts)


def size_of(
    load: LoadResult | None,  # result of the load test, if there was one
    *,
    cpu: float | None = None,  # options override measured values
    memory_mb: int | None = None,
    replicas: tuple[int, int] | None = None,
    rate: float | None = None,  # requests/s expected at the busiest time
    request_ms: float = 500.0,
    alone: bool = False,  # whether the platform supports one replica only
) -> tuple[ReplicaSize, str]:
    """Return the size of a replica, how many there are, and a sentence on the source of these numbers."""
    for option, value in (("--cpu", cpu), ("--memory", memory_mb), ("--rate", rate), ("--latency", request_ms)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{value:g} must be above 0", where=option)
    if replicas is not None and not 1 <= replicas[0] <= replicas[1]:
        raise UsageError("give the minimum (1 or more), then the maximum", where="--replicas", next="--replicas 2 6")
    if replicas is not None and alone:
        raise UsageError(
            "this platform starts one replica only", where="--replicas", next="--to kubernetes starts more"
        )
    usual = ReplicaSize(least=1, most=1) if alone else ReplicaSize()
    cpus = cpu if cpu is not None else usual.cpu
    memory = memory_mb if memory_mb is not None else math.ceil(load.service_mb) if load else usual.memory_mb
    least, most = replicas or (usual.least, usual.most)
    if rate is not None:
        if load is None:
            raise UsageError("--rate needs a load test", next="d2c loadtest MODEL")
        busy = rate * load.cpu_ms / 1e3 / BUSY  # processors for the whole rate
        if alone and busy > cpus:
            raise UsageError(
                f"this platform starts one replica with {cpus:g} processors; {rate:g} requests/s need {busy:.1f}",
                where="--rate",
                next=f"--to kubernetes starts more; on a large machine, --cpu {math.ceil(busy)} and `workers = {math.ceil(busy)}` in [service]",
            )
        if replicas is None and not alone:
            least = max(usual.least, math.ceil(busy / cpus))
            most = max(usual.most, 3 * least)
        if cpu is None:
            cpus = min(usual.cpu, max(LEAST_CPU, math.ceil(20 * busy / least) / 20))
    options = [
        name for name, value in (("--cpu", cpu), ("--memory", memory_mb), ("--replicas", replicas)) if value is not None
    ]
    options_text = f" Set by options: {', '.join(options)}." if options else ""
    if load is None:
        return ReplicaSize(
            cpus, memory, least, most, request_ms
        ), f"Limits are not measured: `d2c loadtest` measures them.{options_text}"
    figures = (f"Limits are from a load test of {load.measured_at[:10]}: {load.cpu_ms:g} ms of CPU time per request to {load.path}, "
               f"so a replica with {cpus:g} processors handles {1e3 * BUSY * cpus / load.cpu_ms:,.0f} requests/s; peak memory "
               f"{load.service_mb:,.0f} MB, with {load.records:,} records in one request.{options_text}")  # fmt: skip
    return ReplicaSize(cpus, memory, least, most, request_ms), figures


def pip_arguments(plan: DeployPlan, wheels: str = "wheels") -> str:
    """Return pip's arguments that install the project's requirements; wheels of the project's folder come first."""
    find_links = f"--find-links {wheels} " if "wheels" in plan.project else ""
    requirements = (
        "-r requirements.txt" if REQUIREMENTS in plan.project else f'"d2c_mlops[notify]=={version("d2c_mlops")}"'
    )
    return f'{find_links}{requirements} "psycopg[binary]>=3.2,<4"'


def unpinned(plan: DeployPlan) -> list[str]:
    """Return instructions where the project has no requirements.txt."""
    if REQUIREMENTS in plan.project:
        return []
    return [
        f"The project has no {REQUIREMENTS}: d2c_mlops {version('d2c_mlops')} is installed with the dependencies that pip resolves. List in",
        "it what your models import, pinned exactly; put wheels that no index has into wheels/ beside settings.ini. Then run `d2c deploy` again.",
    ]


def header(lines: Iterable[str] = ()) -> str:
    """Return the head comment of a file: its generator and manual steps."""
    always = f"{MARK}: do not edit this file; change the options or settings and run the command again."
    return "".join(f"# {line}".rstrip() + "\n" for line in (always, *lines)) + "\n"
