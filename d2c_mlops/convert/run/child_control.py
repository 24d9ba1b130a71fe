"""The control thread of the child process: it signs its responses, and no cell runs on its stack."""

# The child executes this source, like that of `memory_reads`, in a namespace of its own before the first cell. See there for the rules.

from __future__ import annotations

import gc
import sys
from _thread import start_new_thread
from collections.abc import Callable
from hashlib import blake2b
from os import _exit as exit_now
from os import read, write
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _thread import LockType
    from types import FrameType
    from typing import TypedDict

    from d2c_mlops.convert.run.session import ArrayLine, Form
    from d2c_mlops.convert.run.tampering import Parts, Watched

    class Tools(TypedDict):
        """What is used of the namespace of `result_capture` and `tampering`."""

        capture_values: Callable[[dict[str, object]], tuple[dict[str, Form], list[ArrayLine], list[bytes]]]
        plain_json: Callable[[dict[str, object]], str]
        protected_objects: Callable[[], list[Watched]]
        replaced_object_labels: Callable[[list[Watched]], list[str]]
        watched_shell: Callable[[object], tuple[list[Watched], Parts]]
        replaced_of_shell: Callable[[object, Parts], list[str]]

    Start = Callable[[int, int, list[bytes], LockType, LockType, dict[str, object], object, Tools | None], None]

KEY_SIZE = 32
MAC_SIZE = 32
# With these a notebook could reach the objects that prove its results. The process ends with FIRST_CODE + the place here.
FORBIDDEN = (
    "gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._current_frames", "sys._current_exceptions", "sys.settrace",
    "sys.setprofile", "sys.monitoring.register_callback", "/proc/*/mem", "ctypes.cdata", "ctypes.string_at",
    "ctypes.wstring_at", "ctypes.memoryview_at", "ctypes.PyObj_FromPtr", "its answer",
)  # fmt: skip
FIRST_CODE = 97
OF_CELLS = ("ctypes.cdata", "ctypes.string_at", "ctypes.wstring_at", "ctypes.memoryview_at", "ctypes.PyObj_FromPtr")


def start_request_thread(
    source: int,  # descriptor from which requests are read
    sink: int,  # descriptor to which answers are written
    mailbox: list[bytes],  # holds a request or an answer of the main thread
    request_lock: LockType,  # lock that is released when a request lies in the mailbox
    answered: LockType,  # lock that is released when an answer does
    names: dict[str, object],  # the notebook's names
    shell: object,  # IPython's shell, which runs the cells
    tools: Tools | None,  # the namespace of `result_capture` and `tampering`; None where nothing is to be proved
) -> None:
    """Read the key, record the objects that must not be replaced, and serve in a separate thread."""
    unread = b""

    def read_request_line() -> bytes:
        nonlocal unread
        while b"\n" not in unread:
            part = read(source, 1 << 16)
            if not part:
                exit_now(0)
            unread += part
        first, _, unread = unread.partition(b"\n")
        return first

    key = bytes.fromhex(read_request_line().decode("ascii"))
    count = 0
    put_mail, take_out, ask_main, wait_for_main = mailbox.append, mailbox.pop, request_lock.release, answered.acquire
    stop_collecting, collect_again, collecting = gc.disable, gc.enable, gc.isenabled

    def send_signed(payload: bytes) -> None:
        nonlocal count
        count += 1
        data = (
            len(payload).to_bytes(8, "big") + blake2b(count.to_bytes(8, "big") + payload, key=key).digest()[:MAC_SIZE]
        )
        for part in (data, payload):
            view = memoryview(part)
            while view:
                view = view[write(sink, view) :]

    if tools is not None:
        snapshot, encode, replaced, rows = (
            tools["capture_values"],
            tools["plain_json"],
            tools["replaced_object_labels"],
            tools["protected_objects"](),
        )
        replaced_of_shell, (shell_rows, shell_parts) = tools["replaced_of_shell"], tools["watched_shell"](shell)
        sys.addaudithook(forbidding_audit_hook())

    def capture_values(wanted_names: list[str]) -> bytes:
        """Return a line of JSON and the bytes of all arrays."""
        was = collecting()
        stop_collecting()  # collecting runs callbacks and destructors of the notebook, in any thread
        try:
            values = {name: value for name, value in dict.items(names) if type(name) is str and name in wanted_names}
            forms, lines, parts = snapshot(values)
            changed = [*replaced(rows), *replaced(shell_rows), *replaced_of_shell(shell, shell_parts)]
            head = encode({"forms": forms, "arrays": lines, "replaced": changed})
            return b"".join([head.encode("ascii"), b"\n", *parts])
        finally:
            if was:
                collect_again()

    def serve() -> None:
        while True:
            request = read_request_line()
            if request.startswith(b"snapshot ") and tools is not None:
                send_signed(capture_values(request[9:].decode("utf-8").split(",")))
                continue
            put_mail(request)
            ask_main()
            wait_for_main()
            answer = take_out()
            if type(answer) is not bytes:
                exit_now(FIRST_CODE + FORBIDDEN.index("its answer"))
            send_signed(answer)

    start_new_thread(serve, ())


def forbidding_audit_hook() -> Callable[[str, tuple[object, ...]], None]:
    """Return an audit hook, which Python code cannot remove: it ends the process at a FORBIDDEN event."""
    always = frozenset(FORBIDDEN[:8])
    of_cells = frozenset(OF_CELLS)
    codes = {name: FIRST_CODE + place for place, name in enumerate(FORBIDDEN)}
    frame_of, ends_with, contains = sys._getframe, str.endswith, str.__contains__

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in always:
            exit_now(codes[event])
        if event == "open" and arguments and type(arguments[0]) is str:
            path = arguments[0]
            if ends_with(path, "/mem") and contains(path, "proc"):
                exit_now(codes["/proc/*/mem"])
        if event in of_cells:
            frame: FrameType | None = frame_of(1)
            while frame is not None and contains(frame.f_code.co_filename, "/ctypes/"):
                frame = frame.f_back
            if frame is not None and frame.f_code.co_filename.startswith("cell-"):
                exit_now(codes[event])

    return hook
