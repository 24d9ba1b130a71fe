"""Isolation in a docker or podman container: engine, image, command line and a test of the isolation."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

from d2c_mlops.convert.run import container_pool
from d2c_mlops.convert.run.container_init import UNSEEN
from d2c_mlops.convert.run.folder_copies import read_result
from d2c_mlops.errors import Failure, UsageError

PREFIX = "container:"  # a mode's name is this and the image
ENGINES = ("docker", "podman")
PACKAGE = Path(__file__).parents[2]
CODE = "/opt/d2c-code"  # where our own package is seen inside
INIT = f"{CODE}/{PACKAGE.name}/convert/run/container_init.py"
SCRATCH = 1 << 30  # bytes of memory that /tmp and /dev/shm may take, each
ROOM = 64 << 20  # bytes beyond the limit of a run, for the first process of its container
MOST = 1 << 14  # open files, and processes of a user: no limit of ours, which is lower
MEMORY, FILE_SIZE, PROCESSES = (
    4 << 30,
    4 << 30,
    512,
)  # of a run where nothing else is wanted: bytes, bytes of a file, processes
PATIENCE = 60.0  # seconds for a question to an engine
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")  # docker hands on those of its settings
# Modules that our code in the container imports; versions of LIBRARIES decide what a conversion computes.
MODULES = (
    "IPython",
    "matplotlib_inline",
    "nbformat",
    "numpy",
    "pandas",
    "psutil",
    "sklearn",
    "skops",
    "statsmodels",
    "libcst",
)
LIBRARIES = ("numpy", "pandas", "scikit-learn", "scipy", "statsmodels", "lightgbm", "matplotlib")
BUILD = "docs/operations.md, 'An image for --container'"
# Asks inside: what is missing, which versions there are, and what should not be possible.
CHECK = """
import importlib.util, json, os, sys
from importlib import metadata
modules, libraries = json.loads(sys.argv[1])
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
found = {"python": "%d.%d" % sys.version_info[:2], "versions": {}, "open": []}
found["missing"] = [name for name in modules if importlib.util.find_spec(name) is None]
for name in libraries:
    try:
        found["versions"][name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
for place in ("/", "/etc", "/usr", "/var/tmp", sys.prefix, sys.argv[2]):
    try:
        with open(os.path.join(place, ".d2c-check"), "w"):
            found["open"].append("files of %s are writable" % place)
        os.unlink(os.path.join(place, ".d2c-check"))
    except OSError:
        pass
if [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line] not in ([], ["lo"]):
    found["open"].append("it has a network")
if int(status["CapEff"], 16) or status["NoNewPrivs"].strip() != "1":
    found["open"].append("it has privileges or may gain privileges")
if os.path.exists("/proc/%s/environ" % sys.argv[3]) and sys.argv[4] in open("/proc/%s/cmdline" % sys.argv[3]).read():
    found["open"].append("processes of this machine are visible")
with open("answer.json", "w") as file:
    json.dump(found, file)
"""


class ImageCheck(TypedDict):
    """What CHECK finds in an image."""

    python: str
    versions: dict[str, str]  # of the libraries
    missing: list[str]  # modules that a run needs
    open: list[str]  # what is not isolated


@dataclass(frozen=True)
class ContainerImage:
    """An image, and the engine that runs it."""

    engine: str
    image: str
    options: tuple[str, ...]  # those that this engine has, or that this machine supports
    versions: tuple[tuple[str, str], ...] = ()  # of LIBRARIES in the image
    python: str = ""

    @property
    def differences(self) -> list[str]:
        """Libraries with another version in the image than here: the conversion may have other results here."""
        local_versions = {name: _engine_version(name) for name in LIBRARIES}
        there = dict(self.versions)
        return [
            f"{name} {there.get(name) or 'missing'} in the image, {version} here"
            for name, version in local_versions.items()
            if version and there.get(name) != version
        ]

    def command(self, mounts: Sequence[tuple[str, str, bool]], *, name: str, memory: int, processes: int) -> list[str]:
        """Return the engine's command line for a container in which `container_init` waits for commands.

        `mounts` are paths here, paths inside, and whether they can be written. The container ends when its standard input does.
        """
        line = [self.engine, "run", "--rm", "--interactive", "--pull=never", f"--name={name}", "--hostname=notebook"]
        line += ["--network=none", "--ipc=private", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        line += [f"--shm-size={SCRATCH}", f"--tmpfs=/tmp:rw,nosuid,nodev,size={SCRATCH}", "--log-driver=none"]
        line += ["--workdir=/", "--entrypoint=python3"]
        line += [
            f"--ulimit={kind}={_highest_limit(what)}"
            for kind, what in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
        ]
        line += [f"--env={variable}=" for proxy in PROXIES for variable in (proxy, proxy.lower())]
        line += [option.format(memory=memory + ROOM, processes=processes + 16) for option in self.options]
        line += [_mount_option(str(PACKAGE), f"{CODE}/{PACKAGE.name}", writable=False)]
        line += [_mount_option(path, target, writable=writable) for path, target, writable in mounts]
        return [*line, self.image, "-I", "-S", INIT]

    def remove(self, name: str) -> None:
        """End a container by force; no error if it has already ended."""
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([self.engine, "rm", "--force", "--volumes", name], capture_output=True, timeout=PATIENCE)


def _highest_limit(resource_kind: int) -> str:
    """Return a limit that this machine can set: a machine that is itself a container may allow less than engines request."""
    hard = resource.getrlimit(resource_kind)[1]
    number = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    return f"{number}:{number}"


def _mount_option(source: str, target: str, *, writable: bool) -> str:
    """Return the option that shows a path inside; commas in it are quoted as CSV."""
    row = io.StringIO()
    parts = ["type=bind", f"source={os.path.realpath(source)}", f"target={target}"]
    csv.writer(row, lineterminator="").writerow([*parts, *(() if writable else ("readonly",))])
    return f"--mount={row.getvalue()}"


@cache
def isolating_image(image: str) -> ContainerImage:
    """Return the image after a test of its isolation; raises UsageError if no engine runs, or the image does not isolate."""
    running = [engine for engine in ENGINES if _engine_responds(engine)]
    if not running:
        failures = [Failure(f"{engine}: {_failure_line(engine)}") for engine in ENGINES]
        raise UsageError(
            "neither docker nor podman works on this machine, so no container can be started",
            where=f"--container {image}", failures=failures, next="start Docker, install podman, or pass --trust if you trust its author",
        )  # fmt: skip
    holding = [engine for engine in running if _run_engine(engine, "image", "inspect", image).returncode == 0]
    if not holding:
        raise UsageError(
            f"the image {image} is not available in {' and '.join(running)}",
            where=f"--container {image}", next=f"{running[0]} pull {image}, or build it: {BUILD}",
        )  # fmt: skip
    engine = holding[0]
    why = ""
    for options in _candidate_options(engine):
        trial = ContainerImage(engine, image, options)
        result, why = _check_image(trial)
        if result is None:
            continue
        if result["open"]:
            raise UsageError(f"{engine} does not isolate on this machine: {'; '.join(result['open'])}",
                             where=f"--container {image}", next="update the engine, or use another one")  # fmt: skip
        if result["missing"]:
            raise UsageError(f"the image lacks required packages: {', '.join(result['missing'])}",
                             where=f"--container {image}", next=f"build an image that contains them: {BUILD}")  # fmt: skip
        return ContainerImage(engine, image, options, tuple(sorted(result["versions"].items())), result["python"])
    raise UsageError(f"{engine} cannot run Python in the image {image}: {why}", where=f"--container {image}",
                     next=f"use an image with python3 and the libraries: {BUILD}")  # fmt: skip


def _candidate_options(engine: str) -> list[tuple[str, ...]]:
    """Return the options of an engine to try, best first: limits of the kernel's control groups are not everywhere to be had.

    Without them the first process in the container watches memory and processes alone.
    """
    # Labels of SELinux keep containers from folders that are mounted; relabelling would change files of yours.
    user_options: tuple[str, ...] = (f"--user={os.getuid()}:{os.getgid()}", "--security-opt=label=disable")
    if engine == "docker" and "rootless" in _run_engine(engine, "info", "--format", "{{.SecurityOptions}}").stdout:
        user_options = ("--user=0:0", *user_options[1:])  # the root of such a container is the user that started it
    if engine == "podman":
        user_options = (*user_options, "--read-only-tmpfs=false", "--http-proxy=false", "--image-volume=ignore")
        if os.getuid():  # as above; other mappings of ids would copy the image
            user_options = ("--user=0:0", *user_options[1:])
    return [(*user_options, "--memory={memory}", "--pids-limit={processes}"), user_options]


def _check_image(trial: ContainerImage) -> tuple[ImageCheck | None, str]:
    """Run CHECK in the image; return its result, or why it did not run. The container waits for the notebook's runs."""
    with TemporaryDirectory(prefix="d2c-isolation-") as name:
        folder, home = Path(name, "in"), Path(name, "home")
        folder.mkdir()
        home.mkdir()
        mark = sys.argv[0] or f"d2c-check-{os.getpid()}"
        question = json.dumps([MODULES, LIBRARIES])
        command = [sys.executable, "-P", "-c", CHECK, question, CODE, str(os.getpid()), mark]
        limits = container_pool.Limits(PATIENCE, MEMORY, FILE_SIZE, PROCESSES)
        variables = {"LANG": "C.UTF-8", "PYTHONPATH": CODE}
        try:
            lease = container_pool.start_command(trial, command, folder, home, [], variables, limits)
        except OSError as error:
            return None, str(error)
        run = lease.run
        assert run is not None
        try:
            code = run.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            lease.container.close(1.0)
            lease.give_back()
            return None, f"no answer within {PATIENCE:.0f} s"
        lease.give_back()
        output = run.output.decode("utf-8", "replace").strip()
        if code == UNSEEN:
            return (
                None,
                f"files that are written to {folder} are not visible inside: share the folder with the container engine",
            )
        if code:
            return None, output[-400:] or f"exit code {code}"
        answer = read_result(folder / "answer.json")
        if answer is None:
            return (
                None,
                f"files that it wrote to {folder} are not visible here: share the folder with the container engine",
            )
        result: ImageCheck = json.loads(answer)
        return result, ""


def _run_engine(engine: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([engine, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(engine, 127, "", str(error))


def _engine_responds(engine: str) -> bool:
    """Return whether an engine responds: docker's client alone cannot start containers."""
    return _run_engine(engine, "info").returncode == 0


def _failure_line(engine: str) -> str:
    """Return why an engine does not answer, in a line."""
    process = _run_engine(engine, "info")
    if process.returncode == 127:
        return "not installed"
    lines = [line for line in process.stderr.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit code {process.returncode}"


def _engine_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
