"""Isolation modes of this system: what each protects, and the command that applies it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from d2c_mlops.convert.run.containers import PREFIX, box
from d2c_mlops.convert.run.isolation_launcher import landlock_abi
from d2c_mlops.errors import UsageError

PACKAGE = Path(__file__).parents[2]
LAUNCHER = Path(__file__).with_name("isolation_launcher.py")
SCRATCH = 1 << 30  # bytes of memory that /tmp and /dev/shm may take, each
SIGNAL_SCOPE = 6  # version of Landlock's interface that keeps signals inside

PROPERTIES = {
    "writing": "files outside its copy cannot be changed or deleted",
    "reading": "files outside its copy and the installed libraries cannot be read",
    "network": "no connection can be opened, and no socket of this machine can be reached",
    "processes": "no other process can be read, traced or signalled",
    "environment": "your environment variables cannot be read",
    "ending": "all processes that it starts end with it",
    "limits": "time, memory, file size and number of processes are limited",
}
ALL = frozenset(PROPERTIES)
# Read by the C library, Python and the usual packages; no secret lies there.
SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/alternatives", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime", "/etc/timezone", "/etc/fonts",
    "/etc/mime.types", "/etc/protocols", "/etc/services", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/os-release",
    "/etc/debian_version", "/etc/hosts", "/etc/host.conf", "/etc/OpenCL", "/nix/store",
)  # fmt: skip


@dataclass(frozen=True)
class Mode:
    """One way to isolate, and the names of PROPERTIES that it gives."""

    name: str
    protects: frozenset[str]
    needs: str  # what a system must have
    own_processes: bool = True  # whether process ids inside are numbered anew

    @property
    def label(self) -> str:
        """Return the mode as a person reads it: of a container the engine and the image."""
        if not self.name.startswith(PREFIX):
            return "none (--trust)" if self.name == TRUSTED else self.name
        held = box(self.name.removeprefix(PREFIX))
        return f"container of {held.image} ({held.engine})"

    @property
    def summary(self) -> str:
        """Return the mode and what it leaves open, in a line."""
        missing = [PROPERTIES[name] for name in PROPERTIES if name not in self.protects]
        text = self.label if not missing else f"{self.label}; not protected: {'; '.join(missing)}"
        if self.name.startswith(PREFIX) and (other := box(self.name.removeprefix(PREFIX)).differences):
            text += f"; verified with the library versions of the image: {', '.join(other)}"
        return text


TRUSTED = "none"
NONE = Mode(TRUSTED, frozenset({"limits"}), "nothing", own_processes=False)
CONTAINER = Mode("container (--container IMAGE)", ALL, "docker or podman, and an image with the libraries")


def modes() -> tuple[Mode, ...]:
    """Return the modes that need nothing but this system, best first, whether they work here or not."""
    scoped = landlock_abi() >= SIGNAL_SCOPE if sys.platform == "linux" else True
    landlock = ALL if scoped else ALL - {"processes", "ending"}
    return (
        Mode("bubblewrap", ALL, "Linux with bubblewrap (apt-get install bubblewrap)"),
        Mode("namespaces", ALL, "Linux that allows user namespaces"),
        Mode("landlock", landlock, "Linux 5.13 or later with Landlock", own_processes=False),
    )


def mode(name: str) -> Mode:
    """Return the mode of that name; raises UsageError for an unknown one and for one that does not work here."""
    if name.startswith(PREFIX):
        box(name.removeprefix(PREFIX))  # raises where no engine or the image cannot isolate
        return Mode(name, ALL, CONTAINER.needs)
    known = {mode.name: mode for mode in (*modes(), NONE)}
    if name not in known:
        raise UsageError(f"unknown isolation mode {name!r}", next=f"use one of: {', '.join(known)}")
    if name != TRUSTED and not works(name):
        raise UsageError(
            f"the isolation mode {name} does not work on this machine", where="isolation", next=known[name].needs
        )
    return known[name]


def best() -> Mode:
    """Return the best mode that works here; raises UsageError where none does."""
    for mode in modes():
        if works(mode.name):
            return mode
    raise UsageError(
        "this system cannot isolate untrusted code: a notebook could read, change and send all that you can",
        where="isolation",
        next="pass --container IMAGE (docker or podman), install bubblewrap (Linux), or pass --trust if you trust its author",
    )


@cache
def works(name: str) -> bool:
    """Return whether a command can be started in a mode here: one is, once in each process."""
    if sys.platform != "linux" or (name == "bubblewrap" and shutil.which("bwrap") is None):
        return False
    if name == "landlock" and (landlock_abi() < 1 or platform.machine() not in ("x86_64", "aarch64")):
        return False
    with TemporaryDirectory(prefix="d2c-isolation-") as folder:
        # The file must be readable and the parent's environment must not: a mode that only pretends is none.
        code = f"import os, sys; open('ok', 'w').close(); sys.exit(os.path.exists('/proc/{os.getpid()}/environ') and 3)"
        view = View(Path(folder))
        try:
            command = view.command(
                name, [sys.executable, "-I", "-S", "-c", code if name != "landlock" else "open('ok', 'w')"]
            )
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, env={"PATH": os.defpath}
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0 and Path(folder, "ok").exists()


@dataclass(frozen=True)
class View:
    """What an isolated command sees: its working directory, other folders it may write to, and what it may only read."""

    folder: Path
    writable: Sequence[Path] = ()
    readable: Sequence[Path] = ()

    @property
    def to_write(self) -> list[str]:
        """Folders that can be written, absolute."""
        return list(existing((self.folder, *self.writable)))

    @property
    def to_read(self) -> list[str]:
        """Folders that can be read besides the interpreter's libraries, absolute."""
        return list(existing(self.readable))

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        """Return the command line that runs `command` in the mode of that name, which is none of a container."""
        if name == TRUSTED:
            return list(command)
        readable = list(existing((*SYSTEM, *libraries(), *self.readable)))
        writable = self.to_write
        folder = str(self.folder.resolve())
        if name == "bubblewrap":
            return _bubblewrap(folder, readable, writable, command)
        spec = {"mode": name, "command": list(command), "folder": folder, "readable": readable, "writable": writable}
        return [sys.executable, "-I", "-S", str(LAUNCHER), json.dumps({**spec, "scratch": SCRATCH})]


def _bubblewrap(folder: str, readable: Sequence[str], writable: Sequence[str], command: Sequence[str]) -> list[str]:
    line = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--cap-drop", "ALL"]
    line += ["--proc", "/proc", "--dev", "/dev", "--size", str(SCRATCH), "--tmpfs", "/dev/shm"]  # noqa: S108
    line += ["--size", str(SCRATCH), "--tmpfs", "/tmp"]  # noqa: S108
    for path in readable:
        line += ["--ro-bind", path, path]
    for path in writable:
        line += ["--bind", path, path]
    return [*line, "--remount-ro", "/", "--chdir", folder, "--", *command]


def existing(paths: Sequence[Path | str]) -> Iterator[str]:
    """Yield the paths that are there, absolute, each once and none that lies below another; parents of others first.

    A link comes with its target, which must be visible under its own name as well.
    """
    found = {os.path.abspath(path) for path in paths if os.path.exists(path)}
    found |= {os.path.realpath(path) for path in found}
    covered: list[str] = []
    for path in sorted(found, key=lambda path: (path.count("/"), path)):
        if not any(path.startswith(f"{above}/") for above in covered):
            yield path
            if not os.path.islink(path):
                covered.append(path)


@cache
def libraries() -> tuple[Path, ...]:
    """Return the folders of the interpreter, of this package, and of packages that are installed in editable form."""
    found = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent, PACKAGE]
    for distribution in metadata.distributions():
        told = distribution.read_text("direct_url.json")
        if told is None or not json.loads(told).get("dir_info", {}).get("editable"):
            continue
        root = Path(json.loads(told)["url"].removeprefix("file://"))
        for name in (distribution.read_text("top_level.txt") or "").split():
            found += [place for place in (root / name, root / "src" / name, root / f"{name}.py") if place.exists()]
    return tuple(found)


def protection_table() -> list[tuple[str, dict[str, str]]]:
    """Return a row for each mode, best first: its name, and for each property 'yes' or 'no'."""
    listed = (*modes(), CONTAINER, NONE)
    return [
        (
            "none (--trust)" if each is NONE else each.name,
            {name: "yes" if name in each.protects else "no" for name in PROPERTIES},
        )
        for each in listed
    ]
