"""Files that bring a packaged model to a platform. A module with TARGET here is a target: no list to edit."""

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
from d2c_mlops.serving.local.loadtest import Load
from d2c_mlops.serving.rollout.state_file import Rollout
from d2c_mlops.settings.schema import SERVICE

LEAST_CPU = 0.5  # processors; with less, a service starts too slowly
DRAIN = 10.0  # seconds in which load balancers notice that /readyz says no, where [service] says nothing
BUSY = 0.7  # share of its processors at which the autoscaler adds a replica
REQUIREMENTS = "requirements.txt"
MARK = "Written by `d2c deploy`"


@dataclass(frozen=True)
class Size:
    """What one replica may use and how many there are; the figures of a load test, or of a person."""

    cpu: float = 1.0  # processors of a replica
    memory_mb: int = 512  # resident memory of a replica
    least: int = 2  # replicas
    most: int = 6
    request_ms: float = 500.0  # latency of the 99th percentile above which people are told


@dataclass(frozen=True)
class Deciding:
    """Where people decide, in a project that has a policy."""

    port: int
    links: tuple[str, ...] = ()  # names of the secrets that sign links: any random text
    secrets: tuple[str, ...] = ()  # of those that policies and their channels refer to


@dataclass(frozen=True)
class DeployPlan:
    """What is deployed."""

    model: str
    version: int
    image: str
    size: Size
    port: int = 3000
    sized: str = "Limits are not measured: `d2c loadtest` measures them."  # where the size is from
    project: tuple[str, ...] = ("settings.ini",)  # what the image of the project holds, seen from its folder
    context: str = "../../.."  # the project's folder, seen from where the files are written
    place: str = ""  # the other way round
    keys: str = "d2c_store/serving/keys.json"  # the file of API keys, seen from the project's folder
    deciding: Deciding | None = None
    environment: tuple[tuple[str, str], ...] = ()  # D2C_SERVICE_… that the project sets otherwise than the defaults
    secrets: tuple[str, ...] = ()  # names of those that the schedule refers to
    files: str = ""  # digest of the files of the image; nothing is compared without it

    @property
    def slug(self) -> str:
        """The model's name as DNS allows it."""
        return slug(self.model)

    @property
    def drain(self) -> float:
        """Seconds in which load balancers notice that /readyz says no."""
        return float(dict(self.environment).get(f"{SERVICE}DRAIN_SECONDS", DRAIN))

    @property
    def service(self) -> dict[str, str]:
        """The variables of a replica, wherever it runs."""
        fixed = {f"{SERVICE}MODE": "production", f"{SERVICE}STATE": "/state"}
        files = {VARIABLE: self.files} if self.files else {}
        return fixed | {f"{SERVICE}DRAIN_SECONDS": f"{DRAIN:g}"} | dict(self.environment) | files


@dataclass(frozen=True)
class DeployTarget:
    """A platform that files can be written for."""

    name: str
    about: str
    files: Callable[[DeployPlan], dict[str, str]]
    next: str  # the command that brings them there; {folder} is where they are
    rollout: Callable[[Rollout], str] | None = None  # what tells services there how a rollout stands


def slug(model: str) -> str:
    """Return a model's name as DNS allows it."""
    return model.replace("_", "-")


def targets() -> dict[str, DeployTarget]:
    """Return the targets by name."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    listed = [module.TARGET for module in modules if hasattr(module, "TARGET")]
    return {target.name: target for target in sorted(listed, key=lambda target: target.name)}


def deploy(plan: DeployPlan, target: str, folder: Path) -> list[Path]:
    """Write the files of a target and return their paths; what an earlier call wrote is replaced, nothing else."""
    known = targets()
    if target not in known:
        raise UsageError(f"unknown target {target!r}", next=f"use one of: {', '.join(known)}")
    made = {folder / name: text for name, text in known[target].files(plan).items()}
    foreign = [path for path in made if path.exists() and MARK not in path.read_text(encoding="utf-8")[:2000]]
    if foreign:
        raise UsageError("d2c did not write this file", where=str(foreign[0]), next="move it, or give another --out")
    for path, text in made.items():
        write_atomic(path, text.encode())
    return list(made)


def size_of(
    load: Load | None,  # a load test, where there was one
    *,
    cpu: float | None = None,  # what a person says is stronger
    memory_mb: int | None = None,
    replicas: tuple[int, int] | None = None,
    rate: float | None = None,  # requests/s expected at the busiest time
    request_ms: float = 500.0,
    alone: bool = False,  # whether the platform starts one replica and no more
) -> tuple[Size, str]:
    """Return the size of a replica, how many there are, and a sentence about where the figures are from."""
    for option, value in (("--cpu", cpu), ("--memory", memory_mb), ("--rate", rate), ("--latency", request_ms)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{value:g} must be above 0", where=option)
    if replicas is not None and not 1 <= replicas[0] <= replicas[1]:
        raise UsageError("give the minimum (1 or more), then the maximum", where="--replicas", next="--replicas 2 6")
    if replicas is not None and alone:
        raise UsageError(
            "this platform starts one replica only", where="--replicas", next="--to kubernetes starts more"
        )
    usual = Size(least=1, most=1) if alone else Size()
    held = cpu if cpu is not None else usual.cpu
    memory = memory_mb if memory_mb is not None else math.ceil(load.service_mb) if load else usual.memory_mb
    least, most = replicas or (usual.least, usual.most)
    if rate is not None:
        if load is None:
            raise UsageError("--rate needs a load test", next="d2c loadtest MODEL")
        busy = rate * load.cpu_ms / 1e3 / BUSY  # processors for the whole of it
        if alone and busy > held:
            raise UsageError(
                f"this platform starts one replica with {held:g} processors; {rate:g} requests/s need {busy:.1f}",
                where="--rate",
                next=f"--to kubernetes starts more; on a large machine, --cpu {math.ceil(busy)} and `workers = {math.ceil(busy)}` in [service]",
            )
        if replicas is None and not alone:
            least = max(usual.least, math.ceil(busy / held))
            most = max(usual.most, 3 * least)
        if cpu is None:
            held = min(usual.cpu, max(LEAST_CPU, math.ceil(20 * busy / least) / 20))
    given = [
        name for name, value in (("--cpu", cpu), ("--memory", memory_mb), ("--replicas", replicas)) if value is not None
    ]
    said = f" Set by options: {', '.join(given)}." if given else ""
    if load is None:
        return Size(
            held, memory, least, most, request_ms
        ), f"Limits are not measured: `d2c loadtest` measures them.{said}"
    figures = (f"Limits are from a load test of {load.measured_at[:10]}: {load.cpu_ms:g} ms of CPU time per request to {load.path}, "
               f"so a replica with {held:g} processors handles {1e3 * BUSY * held / load.cpu_ms:,.0f} requests/s; peak memory "
               f"{load.service_mb:,.0f} MB, with {load.records:,} records in one request.{said}")  # fmt: skip
    return Size(held, memory, least, most, request_ms), figures


def needs(plan: DeployPlan, wheels: str = "wheels") -> str:
    """Return what pip is asked for so that the project's commands run; wheels of the project's folder come first."""
    found = f"--find-links {wheels} " if "wheels" in plan.project else ""
    own = "-r requirements.txt" if REQUIREMENTS in plan.project else f'"d2c_mlops[notify]=={version("d2c_mlops")}"'
    return f'{found}{own} "psycopg[binary]>=3.2,<4"'


def unpinned(plan: DeployPlan) -> list[str]:
    """Return what a person has to know where the project has no requirements.txt."""
    if REQUIREMENTS in plan.project:
        return []
    return [
        f"The project has no {REQUIREMENTS}: d2c_mlops {version('d2c_mlops')} is installed with the dependencies that pip resolves. List in",
        "it what your models import, pinned exactly; put wheels that no index has into wheels/ beside settings.ini. Then run `d2c deploy` again.",
    ]


def header(lines: Iterable[str] = ()) -> str:
    """Return the head of a file: where it is from, and what is left to a person."""
    always = f"{MARK}: do not edit this file; change the options or settings and run the command again."
    return "".join(f"# {line}".rstrip() + "\n" for line in (always, *lines)) + "\n"
