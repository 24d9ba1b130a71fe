"""Executes the cells of a notebook in a kernel and reports where it stopped and why."""

from __future__ import annotations

import inspect
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import zmq
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.exceptions import strip_color

from d2c_mlops.parent_death import die_with_parent
from d2c_mlops.runs.execution import kernel_setup
from d2c_mlops.runs.execution.cell_output import CellOutput
from d2c_mlops.runs.execution.kernels import PROJECT
from d2c_mlops.runs.secrets.redaction import Redaction

ALLOW_SHELL = "allow-shell-errors"  # tag of a cell whose shell commands may fail
ALLOW_ERROR = "raises-exception"  # Jupyter's tag of a cell that is expected to raise
OUTPUT_PATIENCE = 1800  # seconds for what a cell has printed to arrive after the cell has ended
SUCCESS = ("", "0", "None", "False")  # texts of SystemExit that mean success
MACHINERY = re.compile(
    r"File .*?(/(IPython|ipykernel|papermill|nbclient)/|d2c_mlops/runs/execution/(kernel_setup|worker|client)\.py)"
)
COMMAND = re.compile(r"Command 'b(['\"])(.*)\1' (returned non-zero exit status|died with)", re.DOTALL)


class KernelManager(AsyncKernelManager):
    """Start kernels that end with this process; Jupyter starts each in a separate session, so the process group does not include it."""

    process: ClassVar[Any] = None  # of the kernel started last; the client forgets it when it dies

    @property
    def kernel_spec(self) -> KernelSpec | None:
        """The kernel's specification; the project's kernel uses the current Python."""
        if self.kernel_name != PROJECT:
            return super().kernel_spec
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")

    def client(self, **kw: Any) -> Any:
        """Return a client with unlimited receive queues: otherwise ZeroMQ drops messages that are read too slowly."""
        client_kernel = super().client(**kw)
        client_kernel.context.setsockopt(zmq.RCVHWM, 0)
        return client_kernel

    async def start_kernel(self, **kw: Any) -> None:  # type: ignore[override]
        """Start a kernel that ends with this process."""
        try:
            await super().start_kernel(**{**kw, "preexec_fn": partial(die_with_parent, os.getpid())})
        finally:
            KernelManager.process = getattr(self.provisioner, "process", None)


class NotebookClient(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client, which stops if the notebook calls exit(), and limits the size of printed output."""

    redaction: Redaction
    language: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, iopub_timeout=OUTPUT_PATIENCE, **kwargs)
        self.printed = CellOutput(self.redaction)
        self.index: int | None = None  # of the cell that runs or ran last
        self.error: dict[str, Any] | None = None
        self.exited = False  # the cell `index` ended the notebook with success
        self.notes: list[str] = []

    def papermill_execute_cells(self) -> None:
        """Execute the cells until one fails or ends the notebook."""
        self._set_up()
        code = [cell for cell in self.nb.cells if cell.cell_type == "code"]
        following = {id(cell): after.source for cell, after in pairwise(code)}
        for index, cell in enumerate(self.nb.cells):
            self.index = index
            try:
                self.nb_man.cell_start(cell, index)
                with_status = cell.source + following.get(id(cell), "")
                self._allow_shell_errors(ALLOW_SHELL in _cell_tags(cell) or "_exit_code" in with_status)
                self.error = self._cell_failure(cell, index)
            finally:
                self.printed.finish(cell)
                if self.error:
                    self.nb_man.cell_exception(cell, cell_index=index)
                self.nb_man.cell_complete(cell, cell_index=index)
            if self.error or self.exited:
                return

    def _cell_failure(self, cell: Any, index: int) -> dict[str, Any] | None:
        """Execute a cell and return its error; None if it succeeded or ended the notebook successfully."""
        try:
            self.execute_cell(cell, index)
            content = next((o for o in cell.get("outputs", ()) if o.output_type == "error"), None)
            allowed = content is not None and ALLOW_ERROR in _cell_tags(cell) and content.ename != "SystemExit"
            if content is None or allowed:  # else an error that `%run` or a library has shown
                return None
            kind, message, traceback = content.ename, content.evalue, content.traceback
        except CellExecutionError as err:
            shown = [o.traceback for o in cell.outputs if o.output_type == "error"]
            kind, message, traceback = err.ename, err.evalue, shown[-1] if shown else []
            if kind == "UsageError" and not shown:  # IPython's, of a magic; ours has a traceback
                kind = "MagicError"
        if kind == "SystemExit" and message in SUCCESS:
            self.exited = True
            return None
        message = self.redaction.remove_secrets(error_message(strip_color(message)))
        return {"kind": kind, "message": message, "traceback": [strip_color(line) for line in traceback]}

    def _set_up(self) -> None:
        self._shell_errors_allowed = self.language != "python"
        if self.language == "python":
            reply = self._execute_silently(
                f"{inspect.getsource(kernel_setup.setup_kernel)}\nsetup_kernel(get_ipython())\ndel setup_kernel"
            )
            if reply["status"] == "error":
                self._shell_errors_allowed = True
                self.notes.append(f"failing shell commands are not detected: {reply['evalue']}")

    def _allow_shell_errors(self, allowed: bool) -> None:
        if self.language == "python" and allowed != self._shell_errors_allowed:
            self._execute_silently(f"get_ipython().system_raise_on_error = {not allowed}")
            self._shell_errors_allowed = allowed

    def _execute_silently(self, source: str) -> dict[str, Any]:
        """Execute Python code that is not a cell; return the reply."""
        reply = self.wait_for_reply(self.kc.execute(source, silent=True, store_history=False))
        content: dict[str, Any] = reply["content"]
        return content

    def process_message(self, msg: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        content = {**msg["content"], **self.printed.content(msg["content"])}
        if msg["msg_type"] == "error":
            content["traceback"] = list(user_frames(content["traceback"]))
            content["evalue"] = error_message(content["evalue"])
        return super().process_message({**msg, "content": content}, *args, **kwargs)

    def output(self, outs: list[Any], *args: Any, **kwargs: Any) -> Any:
        return self.printed.merged(outs, super().output(outs, *args, **kwargs))


class DeadKernel(Exception):
    """The kernel ended before its cell did."""

    def __init__(self, process: Any) -> None:
        self.status: int | None = process.poll() if process is not None else None
        super().__init__(f"the kernel ended with status {self.status}")

    def to_dict(self) -> dict[str, Any]:
        """Return the error for the supervisor: a kill by a signal is temporary, a crash is not."""
        if self.status is not None and -self.status in (signal.SIGKILL, signal.SIGTERM):
            name = signal.Signals(-self.status).name
            return {"kind": "Killed", "message": f"the kernel was killed by a signal ({name})"}
        if self.status is not None and self.status < 0:
            return {
                "kind": "DeadKernelError",
                "message": f"{self}: a library crashed ({signal.strsignal(-self.status)})",
            }
        what = "the notebook ended its process (os._exit); use exit() or sys.exit() instead"
        return {"kind": "DeadKernelError", "message": f"{self}: {what}"}


def user_frames(traceback: list[str]) -> Iterator[str]:
    """Yield the frames of a traceback without those of IPython, papermill and this package."""
    for frame in traceback:
        if not MACHINERY.match(strip_color(frame).lstrip()):
            yield frame


def error_message(message: str) -> str:
    """Return the message of an error; bytes from `%%bash` are decoded to the script's text."""
    match = COMMAND.match(message)
    if not match:
        return message
    script = match[2].encode("latin-1", "replace").decode("unicode_escape").strip()
    with suppress(UnicodeError):
        script = script.encode("latin-1").decode()
    return f"Command '{script}' {match[3]}{message[match.end() :]}"


def _cell_tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", []))


__all__ = ["NotebookClient", "DeadKernel", "DeadKernelError", "KernelManager"]
