"""What builds and runs images on a machine without a Docker daemon and without a registry: a base image, podman."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITES = {"3.11": "bookworm", "3.13": "trixie"}  # Debian's own Python
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BASE = f"localhost/d2c-debian:{PYTHON}"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
RUNTIMES = ("crun", "runc")
# A machine that is a container itself has few limits to hand on.
LIMITS = ("--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=10000:10000")
CERTIFICATES = Path("usr/local/share/ca-certificates")


def run(*command: object, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it said; end the test when it fails and must not."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env={**os.environ, **more})
    if check and done.returncode:
        raise SystemExit(
            f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
        )
    return done


def base_image() -> str:
    """Return an image with this Python, made by debootstrap when it is not here yet."""
    if run("podman", "image", "exists", BASE, check=False).returncode == 0:
        return BASE
    if PYTHON not in SUITES:
        raise SystemExit(f"Debian has no Python {PYTHON}: make test-container wants one of {', '.join(SUITES)}")
    print(f"making {BASE} by debootstrap of {SUITES[PYTHON]} from {MIRROR}", flush=True)
    root = Path(".bench/base").resolve()
    shutil.rmtree(root, ignore_errors=True)
    packages = "python3,python3-pip,ca-certificates,libgomp1"
    run("debootstrap", "--variant=minbase", f"--include={packages}", SUITES[PYTHON], root, MIRROR)
    for file in Path("/", CERTIFICATES).glob("*.crt"):  # the host's own authorities
        shutil.copy(file, root / CERTIFICATES)
    run("chroot", root, "update-ca-certificates")
    for file in (root / "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
        file.unlink()
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    packed = root.with_suffix(".tar")
    run("tar", "-C", root, "-cf", packed, ".")
    run("podman", "import", packed, BASE)
    shutil.rmtree(root)
    packed.unlink()
    return BASE


def runtime() -> str:
    """Return the runtime that starts containers here."""
    said = ""
    for name in RUNTIMES:
        if shutil.which(name):
            done = run("podman", "--runtime", name, "run", "--rm", *LIMITS, BASE, "true", check=False)
            if done.returncode == 0:
                return name
            said = done.stderr.strip()
    raise SystemExit(f"podman starts no container here: {said}")


class Podman:
    """podman with the runtime that works here."""

    def __init__(self) -> None:
        self.command = ("podman", "--runtime", runtime())

    def __call__(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(*self.command, *arguments, check=check)

    @contextmanager
    def running(self, name: str, image: str, options: Sequence[object], *command: str) -> Iterator[str]:
        """Run an image while the block lasts, then remove it with what it wrote."""
        self("rm", "--force", "--volumes", name, check=False)
        self("run", "--detach", "--name", name, *LIMITS, *options, image, *command)
        try:
            yield name
        finally:
            self("rm", "--force", "--volumes", name, check=False)

    def inside(self, name: str, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a command in a container that runs."""
        return self("exec", name, *command, check=False)

    def log(self, name: str) -> str:
        """Return what a container said."""
        done = self("logs", name, check=False)
        return done.stdout + done.stderr


def get(url: str, key: str = "", body: object = None) -> tuple[int, bytes]:
    """Ask a URL; status 0 when nobody answers."""
    head = {"Authorization": f"Bearer {key}"} if key else {}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, head), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as err:
        return err.code, err.read()
    except OSError as err:
        return 0, str(err).encode()


def wait(url: str, patience: float) -> float:
    """Return the seconds until a URL answers 200; infinity when it does not."""
    start = time.monotonic()
    while time.monotonic() - start < patience:
        with suppress(OSError):
            if get(url)[0] == 200:
                return time.monotonic() - start
        time.sleep(0.2)
    return float("inf")
