"""Download pinned wheels for an image, with uv where it is installed, else with pip."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from d2c_mlops.errors import D2CError, Temporary, UsageError
from d2c_mlops.programs import find_program

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = range(5, 35)  # manylinux_2_5 to 2_34: Debian 12 has 2.36
AWAY = ("timed out", "Temporary failure", "error sending request", "Connection", "dns error", "Network is unreachable")


def install_wheels(pins: Path, site: Path, python: str) -> None:
    """Install the wheels of `pins` into `site`, for Linux and Python `3.x`, on any machine.

    Raises UsageError where a package has no wheel or no installer is installed, Temporary where the index is unavailable.
    """
    machine = MACHINES.get(platform.machine().lower(), platform.machine().lower())
    command = install_command(machine, python, site)
    process = subprocess.run([*command, "-r", str(pins)], capture_output=True, text=True, umask=0o022, timeout=1800)
    if process.returncode == 0:
        return
    lines = [line.strip() for line in process.stderr.strip().splitlines() if line.strip()]
    reason = " ".join(lines[-4:]) if lines else "no reason given"
    if any(sign in process.stderr for sign in AWAY):
        raise Temporary(
            f"the packages cannot be downloaded: {reason}",
            next="check the connection to the package index, then try again",
        )
    if "wheel" in process.stderr or "No matching distribution" in process.stderr or "No solution" in process.stderr:
        raise UsageError(
            f"a pinned package has no wheel for Linux on {machine} and Python {python}: {reason}",
            next="pin a version that has one, or upload a wheel to your index",
        )
    raise D2CError(f"the packages cannot be downloaded: {reason}")


def install_command(machine: str, python: str, site: Path) -> list[str]:
    """Return the command that installs wheels for Linux into a folder. Raises UsageError without uv and pip."""
    shared = ["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(site)]
    if uv := find_program("uv"):
        platforms = ["--python-version", python, "--python-platform", f"{machine}-manylinux_2_34"]
        return [uv, "pip", *shared, "--python", sys.executable, "--link-mode", "copy", *platforms]
    if find_spec("pip") is None:
        raise UsageError("neither uv nor pip is installed", next="pip install uv")
    tags = [f"manylinux_2_{minor}_{machine}" for minor in reversed(GLIBC)] + [f"manylinux2014_{machine}"]
    platforms = [part for tag in tags for part in ("--platform", tag)]
    return [sys.executable, "-m", "pip", *shared, "--no-compile", "--python-version", python, *platforms]
