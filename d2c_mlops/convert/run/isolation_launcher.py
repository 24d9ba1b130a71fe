"""Start a command in Linux namespaces or under Landlock with seccomp; a script with the standard library only."""

# The one argument is a JSON object: `mode` (namespaces or landlock), `command`, `folder` (working directory), `writable` and
# `readable` (lists of paths), `scratch` (bytes of memory that /tmp and /dev/shm may take). The exit code is the command's, or
# 128 + signal. Sources: user_namespaces(7), pid_namespaces(7), pivot_root(2), landlock(7), seccomp(2), capabilities(7).

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import re
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import TypedDict

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NAMESPACES = (
    0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
)  # mnt cgroup uts ipc pid net
NEW_USER = 0x10000000
BIND, RECURSIVE, PRIVATE, READ_ONLY, REMOUNT = 0x1000, 0x4000, 0x40000, 0x1, 0x20
NO_SUID, NO_DEV, NO_EXEC, DETACH = 0x2, 0x4, 0x8, 0x2
SET_DEATH_SIGNAL, SET_SECCOMP, DROP_BOUND, SET_NO_NEW_PRIVILEGES, SET_SUBREAPER, AMBIENT = 1, 22, 24, 38, 36, 47
DEVICES = ("null", "zero", "full", "random", "urandom")
PROC_FILES = (
    "cpuinfo",
    "meminfo",
    "stat",
    "version",
    "filesystems",
    "loadavg",
    "uptime",
    "sys/kernel",
    "sys/vm",
    "sys/fs",
)

# Landlock's access rights: of files, of directories, and those that later versions of its interface added.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIRECTORY = 0x1, 0x2, 0x4, 0x8
FIRST_RIGHTS = 0x1FFF
ADDED_RIGHTS = {2: 0x2000, 3: 0x4000, 5: 0x8000}  # refer, truncate, ioctl of devices
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | 0x4000 | 0x8000

# System calls that Landlock does not see, by machine: refused, or answered with success and no effect.
REFUSED_CALLS = {
    "x86_64": (
        41,
        101,
        304,
        310,
        311,
        312,
        425,
        438,
        165,
        166,
        272,
        308,
        248,
        249,
        250,
        298,
        321,
        323,
        428,
        429,
        430,
        442,
        29,
        64,
        68,
    ),
    "aarch64": (
        198,
        117,
        265,
        270,
        271,
        272,
        425,
        438,
        40,
        39,
        97,
        268,
        217,
        218,
        219,
        241,
        280,
        282,
        428,
        429,
        430,
        442,
        194,
        190,
        186,
    ),
}  # socket ptrace open_by_handle_at process_vm_* kcmp io_uring pidfd_getfd mount umount unshare setns keys perf bpf userfaultfd, shmget semget msgget, whose objects outlive processes
IGNORED_CALLS = {
    "x86_64": (90, 91, 92, 93, 94, 132, 188, 189, 190, 197, 198, 199, 235, 260, 261, 268, 280, 452, 463, 466),
    "aarch64": (5, 6, 7, 14, 15, 16, 52, 53, 54, 55, 88, 452, 463, 466),
}  # chmod chown utime setxattr removexattr: of files outside they would succeed, and copying files calls them
CLONE = {"x86_64": 56, "aarch64": 220}
TRUNCATE = {"x86_64": 76, "aarch64": 45}
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
CLONE3 = 435
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


class LaunchSpec(TypedDict):
    """What is run, and what it may reach; see the top of this file."""

    mode: str
    command: list[str]
    folder: str
    readable: list[str]
    writable: list[str]
    scratch: int


def call_libc(name: str, *arguments: object) -> int:
    """Call a function of the C library; raises OSError if it fails."""
    result: int = getattr(LIBC, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def mount_file_system(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount; texts are encoded here."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    call_libc("mount", *texts, ctypes.c_ulong(flags), None if data is None else data.encode())


def drop_privileges() -> None:
    """Give up every capability for good, so that no mount, signal or device that they allow can be used."""
    for capability in range(64):
        LIBC.prctl(DROP_BOUND, capability, 0, 0, 0)  # fails beyond the last one that the kernel knows
    LIBC.prctl(AMBIENT, 4, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call_libc("capset", header, (ctypes.c_uint32 * 6)())
    call_libc("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


# --- namespaces ------------------------------------------------------------------------------------------------------


def enter_namespaces(spec: LaunchSpec) -> int:
    """Run the command as a child of an init process of its own; return its exit code."""
    user, group = os.getuid(), os.getgid()
    call_libc("unshare", NEW_USER | NEW_NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    init = os.fork()
    if init:
        return wait_for(init)
    call_libc("prctl", SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    build_root(spec)
    raise_loopback()
    with contextlib.suppress(OSError), open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    read_only("/proc/sys")
    drop_privileges()
    os.chdir(spec["folder"])
    command = os.fork()
    if command == 0:
        os.execvp(spec["command"][0], spec["command"])  # noqa: S606 - the command to isolate
    os._exit(reap_until_command_ends(command))


def build_root(spec: LaunchSpec) -> None:
    """Mount a new root that contains only the paths that the command may access."""
    sources = {path: os.path.realpath(path) for path in (*spec["readable"], *spec["writable"])}
    links = {path: os.readlink(path) for path in sources if os.path.islink(path)}  # their targets are among the paths
    mount_file_system(None, "/", None, RECURSIVE | PRIVATE)
    mount_file_system("tmpfs", "/tmp", "tmpfs", NO_SUID | NO_DEV, "mode=755,size=16m")  # noqa: S108 - a mount point that is always there
    os.chdir("/tmp")  # noqa: S108
    os.mkdir("old")
    os.mkdir("new")
    mount_file_system("tmpfs", "new", "tmpfs", NO_SUID | NO_DEV, "mode=755,size=16m")
    call_libc("syscall", ctypes.c_long(PIVOT_ROOT[platform.machine()]), b"/tmp", b"/tmp/old")
    os.chdir("/")
    for name in ("proc", "dev", "tmp", "dev/shm"):
        os.makedirs(f"/new/{name}", exist_ok=True)
    mount_file_system("proc", "/new/proc", "proc", NO_SUID | NO_DEV | NO_EXEC)
    for name in ("tmp", "dev/shm"):
        mount_file_system("tmpfs", f"/new/{name}", "tmpfs", NO_SUID | NO_DEV, f"mode=1777,size={spec['scratch']}")
    for name in DEVICES:
        bind_mount(f"/dev/{name}", f"/dev/{name}", writable=True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"/new/dev/{name}")
    os.symlink("/proc/self/fd", "/new/dev/fd")
    for path, source in sources.items():
        if path in links:
            os.makedirs(os.path.dirname(f"/new{path}"), exist_ok=True)
            os.symlink(links[path], f"/new{path}")
        else:
            bind_mount(source, path, writable=path in spec["writable"])
    read_only("/new")
    call_libc("umount2", b"/old", DETACH)
    os.chdir("/new")
    call_libc("syscall", ctypes.c_long(PIVOT_ROOT[platform.machine()]), b".", b".")
    call_libc("umount2", b".", DETACH)
    os.chdir("/")


def bind_mount(path: str, place: str, *, writable: bool) -> None:
    """Show a path of the old root at a place in the new one."""
    source, target = f"/old{path}", f"/new{place}"
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    mount_file_system(source, target, None, BIND | RECURSIVE)
    for below in () if writable else mounts_at(target):  # a flag changes one mount, not those below it
        read_only(below)


def mounts_at(path: str) -> list[str]:
    """Return the mount point and those below it."""
    with open("/new/proc/self/mountinfo", "rb") as file:
        fields = [os.fsdecode(re.sub(rb"\\([0-7]{3})", unescape_octal_byte, line.split()[4])) for line in file]
    return [place for place in fields if place == path or place.startswith(f"{path}/")]


def unescape_octal_byte(escape: re.Match[bytes]) -> bytes:
    """Return the byte that the kernel wrote as a backslash and three digits."""
    return bytes([int(escape[1], 8)])


def read_only(path: str) -> None:
    """Make a mount read-only; a folder becomes a mount first."""
    if not os.path.ismount(path):
        mount_file_system(path, path, None, BIND | RECURSIVE)
    flags = os.statvfs(path).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_RELATIME)
    mount_file_system(None, path, None, REMOUNT | BIND | READ_ONLY | flags)


def raise_loopback() -> None:
    """Bring up the loopback device of the new network, which has no other device."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running


def wait_for(child: int) -> int:
    """Return a child's exit code as shells write it."""
    return code_of(os.waitpid(child, 0)[1])


def code_of(status: int) -> int:
    """Return an exit code, or 128 + signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def reap_until_command_ends(command: int) -> int:
    """Be the init process: collect orphans until the command ends."""
    while True:
        process, status = os.wait()
        if process == command:
            return code_of(status)


# --- Landlock and seccomp --------------------------------------------------------------------------------------------


def enter_landlock(spec: LaunchSpec) -> int:
    """Run the command as a restricted child; end all that it started when it ends or when we are asked to stop."""
    call_libc("prctl", SET_SUBREAPER, 1, 0, 0, 0)
    command = os.fork()
    if command == 0:
        call_libc("prctl", SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        os.chdir(spec["folder"])
        drop_privileges()
        abi = restrict_files(spec)
        restrict_calls(abi)
        os.execvp(spec["command"][0], spec["command"])  # noqa: S606 - the command to isolate

    def stop(number: int, frame: object) -> None:
        end_descendants()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    code = reap_until_command_ends(command)
    end_descendants()
    return code


def end_descendants() -> None:
    """Kill every child until none is left: orphans become children of a subreaper, also those in another session."""
    while True:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            children = [int(word) for word in file.read().split()]
        if not children:
            return
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)


def landlock_abi() -> int:
    """Return the version of Landlock's interface, 0 without it."""
    return max(0, int(LIBC.syscall(444, None, 0, 1)))


def restrict_files(spec: LaunchSpec) -> int:
    """Allow the named paths alone; return the version of the interface."""
    abi = landlock_abi()
    rights = FIRST_RIGHTS
    for version, added in ADDED_RIGHTS.items():
        rights |= added if abi >= version else 0
    network, scopes = (3 if abi >= 4 else 0), (3 if abi >= 6 else 0)
    attributes = struct.pack("=QQQ", rights, network, scopes)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = call_libc("syscall", ctypes.c_long(444), attributes, ctypes.c_size_t(len(attributes)), 0)
    read = EXECUTE | READ_FILE | READ_DIRECTORY
    own_files = [f"/proc/{os.getpid()}", *(f"/proc/{name}" for name in PROC_FILES)]
    for path in (*spec["readable"], *own_files):
        add_path_rule(ruleset, path, read & rights)
    for path in spec["writable"]:
        add_path_rule(ruleset, path, rights)
    for name in DEVICES:
        add_path_rule(ruleset, f"/dev/{name}", (READ_FILE | WRITE_FILE) & rights)
    call_libc("syscall", ctypes.c_long(446), ruleset, 0)
    os.close(ruleset)
    return abi


def add_path_rule(ruleset: int, path: str, rights: int) -> None:
    """Add a rule for a path and everything below it; a missing path needs none."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = rights if os.path.isdir(path) else rights & FILE_RIGHTS
        rule = struct.pack("=Qi", allowed, descriptor)
        call_libc("syscall", ctypes.c_long(445), ruleset, 1, rule, 0)
    finally:
        os.close(descriptor)


def restrict_calls(abi: int) -> None:
    """Install a seccomp filter for what Landlock does not cover: sockets, tracing, metadata of files, new namespaces."""
    machine = platform.machine()
    refused = [*REFUSED_CALLS[machine], *([TRUNCATE[machine]] if abi < 3 else [])]
    program = seccomp_program(ARCHITECTURE[machine], refused, IGNORED_CALLS[machine], CLONE[machine])
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code)
    prog = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    call_libc("prctl", SET_SECCOMP, 2, prog, 0, 0)


def seccomp_program(
    architecture: int, refused: Sequence[int], ignored: Sequence[int], clone: int
) -> list[tuple[int, int, int, int]]:
    """Return the filter as classic BPF instructions (code, jump if true, jump if false, constant)."""
    load, equal, at_least, has_bits, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow_call, kill = 0x7FFF0000, 0x80000000
    error = 0x00050000  # plus the errno; 0 answers success without doing anything
    lines = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    lines += [(at_least, 0, 1, 0x40000000), (give, 0, 0, kill)]  # the x32 interface numbers calls otherwise
    for number in refused:
        lines += [(equal, 0, 1, number), (give, 0, 0, error | 1)]  # EPERM
    for number in ignored:
        lines += [(equal, 0, 1, number), (give, 0, 0, error)]
    lines += [(equal, 0, 1, CLONE3), (give, 0, 0, error | 38)]  # ENOSYS: the C library then calls clone
    lines += [
        (equal, 0, 3, clone),
        (load, 0, 0, 16),
        (has_bits, 0, 1, NEW_USER | NEW_NAMESPACES),
        (give, 0, 0, error | 1),
    ]
    return [*lines, (give, 0, 0, allow_call)]


MODES: dict[str, Callable[[LaunchSpec], int]] = {"namespaces": enter_namespaces, "landlock": enter_landlock}


def main() -> None:
    """Apply the mode of the specification and run its command."""
    parent = os.getppid()
    spec: LaunchSpec = json.loads(sys.argv[1])
    # Under Landlock we have descendants to end first; a namespace ends with its init process.
    call_libc("prctl", SET_DEATH_SIGNAL, signal.SIGTERM if spec["mode"] == "landlock" else signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    os._exit(MODES[spec["mode"]](spec))


if __name__ == "__main__":
    main()
