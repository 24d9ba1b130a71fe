"""The state of a container before its first run, and the way back to it; standard library only."""

# `container_init` runs with the image's own Python and imports this module: standard library only.
# Sources: proc(5), sysvipc(7), mq_overview(7).

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import stat

LIBC = ctypes.CDLL(None, use_errno=True)


def writable_mount_points() -> list[str]:
    """Return the mount points in memory that can be written: /tmp, /dev, /dev/shm, message queues and the like."""
    points = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields, _, kind = line.partition(" - ")
            point, options = fields.split()[4:6]
            if (
                options.split(",")[0] == "rw"
                and kind.split()[0] in ("tmpfs", "ramfs", "mqueue", "hugetlbfs")
                and os.path.isdir(point)
            ):
                points.append(point)
    return points


def mount_point_entries(point: str) -> dict[str, tuple[object, ...]]:
    """Return the entries of a mount point, itself too, not of mounts below, with what a command could change of them."""
    entries: dict[str, tuple[object, ...]] = {}
    device = os.lstat(point).st_dev
    todo = [point]
    while todo:
        path = todo.pop()
        facts = os.lstat(path)
        if facts.st_dev != device:
            continue  # what the caller mounted
        size = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        marks: list[str] = []
        with contextlib.suppress(OSError):
            marks = os.listxattr(path, follow_symlinks=False)
        target = os.readlink(path) if stat.S_ISLNK(facts.st_mode) else ""
        entries[path] = (facts.st_mode, facts.st_uid, facts.st_gid, size, *marks, target)
        if stat.S_ISDIR(facts.st_mode):
            todo += [f"{path.rstrip('/')}/{name}" for name in os.listdir(path)]
    return entries


def remove_path(path: str) -> None:
    """Remove a file or a folder with all that is in it, whatever its mode; links are not followed."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    os.chmod(path, 0o700)
    for name in os.listdir(path):
        remove_path(f"{path}/{name}")
    os.rmdir(path)


def system_v_ids() -> dict[str, list[str]]:
    """Return the ids of System V shared memory, semaphores and message queues."""
    ids = {}
    for kind, at in (("shm", 1), ("sem", 1), ("msg", 1)):
        with contextlib.suppress(OSError), open(f"/proc/sysvipc/{kind}") as file:
            ids[kind] = [line.split()[at] for line in file.read().splitlines()[1:]]
    return ids


def kernel_connections() -> list[str]:
    """Return connections that the kernel still holds, those that wait after their end among them: their ports are taken."""
    lines = []
    for kind in ("tcp", "tcp6", "udp", "udp6", "unix"):
        with contextlib.suppress(OSError), open(f"/proc/net/{kind}") as file:
            lines += file.read().splitlines()[1:]
    return lines


def inherited_process_state() -> dict[str, object]:
    """Return what a command could change of this process, from which the next command would inherit it."""
    properties: dict[str, object] = {f"limit {what}": resource.prlimit(0, what) for what in range(16)}
    properties |= {
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": os.sched_getaffinity(0),
        "scheduler": os.sched_getscheduler(0),
    }
    for name in ("oom_score_adj", "coredump_filter", "timerslack_ns"):
        with contextlib.suppress(OSError), open(f"/proc/self/{name}") as file:
            properties[name] = file.read()
    return properties


class ContainerState:
    """The state of the container before the first run, and the way back to it."""

    def __init__(self) -> None:
        self.mounts = writable_mount_points()
        self.entries = {point: mount_point_entries(point) for point in self.mounts}
        self.facts, self.queues, self.sockets = inherited_process_state(), system_v_ids(), kernel_connections()
        # Of the machine's own namespaces nothing may be cleared.
        self.own = os.getpid() == 1 and not any(self.queues.values()) and not self.sockets

    def restore(self) -> str:
        """Remove what a run differs; return what differs still, empty where nothing does."""
        if not self.own:
            return "the container has no namespaces of its own"
        for point in self.mounts:
            entries = self.entries[point]
            for folder in [path for path, (mode, *_) in entries.items() if stat.S_ISDIR(int(str(mode)))]:
                for path in [f"{folder.rstrip('/')}/{name}" for name in os.listdir(folder)]:
                    if path not in entries and os.lstat(path).st_dev == os.lstat(point).st_dev:
                        remove_path(path)
            if mount_point_entries(point) != entries:
                return f"{point} was not restored"
        for kind, calls in (("shm", (LIBC.shmctl, 0)), ("msg", (LIBC.msgctl, 0))):
            for number in system_v_ids().get(kind, []):
                calls[0](int(number), calls[1], None)
        for number in system_v_ids().get("sem", []):
            LIBC.semctl(int(number), 0, 0)
        for what, differs in (("objects of System V", system_v_ids() != self.queues), ("sockets", kernel_connections() != self.sockets),
                           ("mounts", writable_mount_points() != self.mounts), ("properties of its first process", inherited_process_state() != self.facts)):  # fmt: skip
            if differs:
                return f"{what} were not restored"
        return ""
