"""Classes of failures of runs, and whether a retry may help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d2c_mlops import errors
from d2c_mlops.errors import D2CError, DataRefused, GateRefused, NotebookFailed, Temporary, UsageError

NOTEBOOK, TIMEOUT, MEMORY, KILLED = "notebook_error", "timeout", "out_of_memory", "killed"
OURS = {
    name: cls.exit_code for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, D2CError)
}
CLASSES = {1: NOTEBOOK, 2: "usage", 3: "data_refused", 4: "gate_refused", 5: NOTEBOOK, 75: "temporary"}
# Exceptions, by the name that the kernel tells, after which the same code may work: networks, servers, locks.
PASSING = frozenset(
    [
        "Temporary",
        "ConnectionError",
        "ConnectionResetError",
        "ConnectionRefusedError",
        "ConnectionAbortedError",
        "BrokenPipeError",
        "TimeoutError",
        "ConnectTimeout",
        "ReadTimeout",
        "ConnectError",
        "ReadError",
        "WriteError",
        "PoolTimeout",
        "RemoteDisconnected",
        "IncompleteRead",
        "ProtocolError",
        "gaierror",
        "herror",
        "SSLError",
        "EndpointConnectionError",
        "ServerTimeoutError",
    ]
)
PASSING_WORDS = (
    ("OperationalError", ("locked", "could not connect", "connection refused", "server closed", "timeout", "too many")),
    ("OSError", ("[errno 11]", "[errno 28]", "[errno 122]", "no space left")),
    ("BlockingIOError", ("",)),
    ("HTTPError", (" 429", " 500", " 502", " 503", " 504", "error 429", "error 503")),
    ("HTTPStatusError", ("429", "502", "503", "504")),
    ("URLError", ("timed out", "refused", "temporary failure", "unreachable", "reset")),
)
KINDS = {
    "Timeout": (TIMEOUT, 5),
    "OutOfMemory": (MEMORY, 5),
    "MemoryError": (MEMORY, 5),
    "_ArrayMemoryError": (MEMORY, 5),
    "SchemaError": ("data_refused", 3),
    "SchemaErrors": ("data_refused", 3),
    "TooExpensive": ("too_expensive", 5),
    "Killed": (KILLED, 75),
    "Stopped": ("stopped", 75),
    "Lost": ("lost", 75),
    "DeadKernelError": ("kernel_died", 5),
    "WorkerDied": ("kernel_died", 5),
    "KeyboardInterrupt": ("cancelled", 130),
    "SystemExit": ("cancelled", 130),
}


def classify_failure(error: Mapping[str, Any] | None) -> tuple[str | None, int]:
    """Return the class of a failure and its exit code; None and 0 if there is no error."""
    if error is None:
        return None, 0
    if error.get("cell") is not None and error.get("kind") in ("SystemExit", "KeyboardInterrupt"):
        return NOTEBOOK, NotebookFailed.exit_code  # raised by the notebook itself, not by who stopped the run
    kind, message = str(error.get("kind")), str(error.get("message")).lower()
    if kind in KINDS:
        return KINDS[kind]
    if kind in OURS:
        return CLASSES[OURS[kind]], OURS[kind]
    words = next((words for name, words in PASSING_WORDS if name == kind), ())
    if kind in PASSING or any(word in message for word in words):
        return "temporary", Temporary.exit_code
    return NOTEBOOK, NotebookFailed.exit_code


def error_of_exit_code(code: int) -> type[D2CError]:
    """Return the error class of an exit code."""
    kinds = {cls.exit_code: cls for cls in (UsageError, DataRefused, GateRefused, Temporary)}
    return kinds.get(code, NotebookFailed)
