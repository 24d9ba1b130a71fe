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

from d2c_mlops.convert.run.containers import PREFIX, isolating_image
from d2c_mlops.convert.run.first_process.limits import refuse_key_calls
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
    """An isolation mode, and the names of PROPERTIES that it has."""

    name: str
    protects: frozenset[str]
    needs: str  # what a system must have
    own_processes: bool = True  # whether process ids inside are numbered anew

    @property
    def label(self) -> str:
        """Return the mode as a person reads it: of a container the engine and the image."""
        if not self.name.startswith(PREFIX):
            return "none (--trust)" if self.name == TRUSTED else self.name
        container = isolating_image(self.name.removeprefix(PREFIX))
        return f"container of {container.image} ({container.engine})"

    @property
    def summary(self) -> str:
        """Return the mode and its missing protections in one line."""
        missing = [PROPERTIES[name] for name in PROPERTIES if name not in self.protects]
        text = self.label if not missing else f"{self.label}; not protected: {'; '.join(missing)}"
        if self.name.startswith(PREFIX) and (
            differences := isolating_image(self.name.removeprefix(PREFIX)).differences
        ):
            text += f"; verified with the library versions of the image: {', '.join(differences)}"
        return text


TRUSTED = "none"
NONE = Mode(TRUSTED, frozenset({"limits"}), "nothing", own_processes=False)
CONTAINER = Mode("container (--container IMAGE)", ALL, "docker or podman, and an image with the libraries")


def system_modes() -> tuple[Mode, ...]:
    """Return the modes that need nothing but this system, best first, whether they work here or not."""
    scoped = landlock_abi() >= SIGNAL_SCOPE if sys.platform == "linux" else True
    landlock = ALL if scoped else ALL - {"processes", "ending"}
    return (
        Mode("bubblewrap", ALL, "Linux with bubblewrap (apt-get install bubblewrap)"),
        Mode("namespaces", ALL, "Linux that allows user namespaces"),
        Mode("landlock", landlock, "Linux 5.13 or later with Landlock", own_processes=False),
    )


def find_mode(name: str) -> Mode:
    """Return the mode of that name; raises UsageError for an unknown one and for one that does not work here."""
    if name.startswith(PREFIX):
        isolating_image(name.removeprefix(PREFIX))  # raises where no engine or the image cannot isolate
        return Mode(name, ALL, CONTAINER.needs)
    modes_by_name = {mode.name: mode for mode in (*system_modes(), NONE)}
    if name not in modes_by_name:
        raise UsageError(f"unknown isolation mode {name!r}", next=f"use one of: {', '.join(modes_by_name)}")
    if name != TRUSTED and not mode_works(name):
        raise UsageError(
            f"the isolation mode {name} does not work on this machine",
            where="isolation",
            next=modes_by_name[name].needs,
        )
    return modes_by_name[name]


def best_mode() -> Mode:
    """Return the best mode that works on this machine; raises UsageError if none works."""
    for mode in system_modes():
        if mode_works(mode.name):
            return mode
    raise UsageError(
        "this system cannot isolate untrusted code: a notebook could read, change and send everything that you can access",
        where="isolation",
        next="pass --container IMAGE (docker or podman), install bubblewrap (Linux), or pass --trust if you trust its author",
    )


@cache
def mode_works(name: str) -> bool:
    """Return whether a command can be started in a mode here: one is, once in each process."""
    if sys.platform != "linux" or (name == "bubblewrap" and shutil.which("bwrap") is None):
        return False
    if name == "landlock" and (landlock_abi() < 1 or platform.machine() not in ("x86_64", "aarch64")):
        return False
    with TemporaryDirectory(prefix="d2c-isolation-") as folder:
        # The file must be readable and the parent's environment must not: a mode that only pretends is none.
        code = f"import os, sys; open('ok', 'w').close(); sys.exit(os.path.exists('/proc/{os.getpid()}/environ') and 3)"
        view = IsolatedView(Path(folder))
        try:
            command = view.command(
                name, [sys.executable, "-I", "-S", "-c", code if name != "landlock" else "open('ok', 'w')"]
            )
            process = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=30,
                env={"PATH": os.defpath},
                preexec_fn=refuse_key_calls,  # as for a run: programs that change the user on their start do not work with it
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return process.returncode == 0 and Path(folder, "ok").exists()


@dataclass(frozen=True)
class IsolatedView:
    """The file access of an isolated command: its working directory, other writable folders, and readable paths."""

    folder: Path
    writable: Sequence[Path] = ()
    readable: Sequence[Path] = ()

    @property
    def to_write(self) -> list[str]:
        """Folders that can be written, absolute."""
        return list(existing_paths((self.folder, *self.writable)))

    @property
    def to_read(self) -> list[str]:
        """Folders that can be read besides the interpreter's libraries, absolute."""
        return list(existing_paths(self.readable))

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        """Return the command line that runs `command` in the mode of that name; not for container modes."""
        if name == TRUSTED:
            return list(command)
        readable = list(existing_paths((*SYSTEM, *library_folders(), *self.readable)))
        writable = self.to_write
        folder = str(self.folder.resolve())
        if name == "bubblewrap":
            return _bubblewrap_command(folder, readable, writable, command)
        spec = {"mode": name, "command": list(command), "folder": folder, "readable": readable, "writable": writable}
        return [sys.executable, "-I", "-S", str(LAUNCHER), json.dumps({**spec, "scratch": SCRATCH})]


def _bubblewrap_command(
    folder: str, readable: Sequence[str], writable: Sequence[str], command: Sequence[str]
) -> list[str]:
    line = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--cap-drop", "ALL"]
    line += ["--proc", "/proc", "--dev", "/dev", "--size", str(SCRATCH), "--tmpfs", "/dev/shm"]  # noqa: S108
    line += ["--size", str(SCRATCH), "--tmpfs", "/tmp"]  # noqa: S108
    for path in readable:
        line += ["--ro-bind", path, path]
    for path in writable:
        line += ["--bind", path, path]
    return [*line, "--remount-ro", "/", "--chdir", folder, "--", *command]


def existing_paths(paths: Sequence[Path | str]) -> Iterator[str]:
    """Yield the existing paths, absolute, each once and without paths below other ones; parents first.

    A link comes with its target, which must be visible under its own name as well.
    """
    present = {os.path.abspath(path) for path in paths if os.path.exists(path)}
    present |= {os.path.realpath(path) for path in present}
    covered: list[str] = []
    for path in sorted(present, key=lambda path: (path.count("/"), path)):
        if not any(path.startswith(f"{above}/") for above in covered):
            yield path
            if not os.path.islink(path):
                covered.append(path)


@cache
def library_folders() -> tuple[Path, ...]:
    """Return the folders of the interpreter, of this package, and of packages that are installed in editable form."""
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent, PACKAGE]
    for distribution in metadata.distributions():
        origin = distribution.read_text("direct_url.json")
        if origin is None or not json.loads(origin).get("dir_info", {}).get("editable"):
            continue
        root = Path(json.loads(origin)["url"].removeprefix("file://"))
        for name in (distribution.read_text("top_level.txt") or "").split():
            folders += [place for place in (root / name, root / "src" / name, root / f"{name}.py") if place.exists()]
    return tuple(folders)


def protection_table() -> list[tuple[str, dict[str, str]]]:
    """Return a row for each mode, best first: its name, and for each property 'yes' or 'no'."""
    listed = (*system_modes(), CONTAINER, NONE)
    return [
        (
            "none (--trust)" if listed_mode is NONE else listed_mode.name,
            {name: "yes" if name in listed_mode.protects else "no" for name in PROPERTIES},
        )
        for listed_mode in listed
    ]
