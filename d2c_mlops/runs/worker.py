"""The process that a run lives in: papermill, one kernel, events for the supervisor on standard output."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ..lifetimes import die_with_parent

if __name__ == "__main__":  # before the imports, which take a second
    die_with_parent(int(sys.argv[1]))

# Optional imports of jsonschema and papermill for what is not used here: formats of texts, Hadoop. They cost 2 s.
for _name in ("rfc3987_syntax", "isoduration", "pyarrow"):
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]

import papermill
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.execute import ERROR_MARKER_TAG
from papermill.iorw import LocalHandler, papermill_io
from papermill.log import logger
from papermill.translators import PythonTranslator, papermill_translators

from .parameters import check, load_notebook, parameters_of, to_json, to_source
from .printed import Printed
from .redaction import Redaction

EVENTS = 1
SLACK = 2**30  # bytes that a process may map beyond twice its limit before it is refused more; it need not use them


class KernelManager(AsyncKernelManager):
    """Start kernels that end with this process; Jupyter puts each in a session of its own, beyond the group's reach."""

    process: ClassVar[Any] = None  # of the kernel started last; the client forgets it when it dies

    async def _async_pre_start_kernel(self, **kw: Any) -> Any:
        command, kw = await super()._async_pre_start_kernel(**kw)
        return command, {**kw, "preexec_fn": partial(die_with_parent, os.getpid())}

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        await super()._async_launch_kernel(kernel_cmd, **kw)
        KernelManager.process = getattr(self.provisioner, "process", None)


class Written(str):
    """A parameter that JSON cannot hold: as text for the notebook's metadata, with the source that makes it again."""

    source: str


class Translator(PythonTranslator):  # type: ignore[misc]
    """Write parameters as Python source; papermill's own turns dates and paths into text."""

    @classmethod
    def translate(cls, val: Any) -> str:
        return val.source if isinstance(val, Written) else to_source(val)


def written(value: Any) -> Any:
    """Return a parameter as papermill can keep it."""
    plain = to_json(value)
    if plain == value and type(plain) is type(value):
        return value
    text = Written(plain if isinstance(plain, str) else json.dumps(plain))
    text.source = to_source(value)
    return text


class AtomicHandler(LocalHandler):  # type: ignore[misc]
    """Replace the output notebook as a whole."""

    def write(self, buf: str, path: str) -> None:
        draft = f"{path}.tmp"
        super().write(buf, draft)
        Path(draft).replace(path)


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client, which takes secrets out of every message and keeps what is printed within bounds."""

    redaction: Redaction

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.printed = Printed(self.redaction)

    def process_message(self, msg: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        msg = {**msg, "content": {**msg["content"], **self.printed.content(msg["content"])}}
        return super().process_message(msg, *args, **kwargs)

    def output(self, outs: list[Any], *args: Any, **kwargs: Any) -> Any:
        return self.printed.merged(outs, super().output(outs, *args, **kwargs))


class Engine(NBClientEngine):  # type: ignore[misc]
    """papermill's engine, which also says which cell it is at."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, kernel_manager_class: Any = KernelManager, **_: Any
    ) -> Any:
        start, total = nb_man.cell_start, len(nb_man.nb.cells)

        def cell_start(cell: Any, cell_index: int | None = None, **kw: Any) -> Any:
            lines = [line.strip() for line in cell.source.splitlines()]
            first = next((line for line in lines if line and not line.startswith(("#", "%"))), "")
            if cell.cell_type == "code":
                say("cell", index=cell_index, total=total, source=first[:80])
            return start(cell, cell_index, **kw)

        nb_man.cell_start = cell_start
        client = Client(
            nb_man, kernel_name=kernel_name, kernel_manager_class=kernel_manager_class, startup_timeout=60, log=logger
        )
        try:
            return client.execute()
        except DeadKernelError as err:
            raise DeadKernel(KernelManager.process) from err


class DeadKernel(Exception):
    """The kernel ended before its cell did."""

    def __init__(self, process: Any) -> None:
        self.status: int | None = process.poll() if process is not None else None
        super().__init__(f"the kernel ended with status {self.status}")

    def to_dict(self) -> dict[str, Any]:
        """Return the error for the supervisor: a kill from outside may pass, a crash will not."""
        if self.status is not None and -self.status in (signal.SIGKILL, signal.SIGTERM):
            name = signal.Signals(-self.status).name
            return {"kind": "Killed", "message": f"the kernel was killed from outside ({name})"}
        return {"kind": "DeadKernelError", "message": f"{self}: a library crashed or the notebook ended its process"}


def say(event: str, **values: Any) -> None:
    """Write one event for the supervisor, as a line of JSON."""
    os.write(EVENTS, (json.dumps({"event": event, **values}) + "\n").encode())


def execute(spec: dict[str, Any]) -> dict[str, Any] | None:
    """Execute the notebook of `spec`; return the error of the cell that failed, None when all cells ran."""
    papermill_translators.register("python", Translator)
    papermill_engines.register("d2c", Engine)
    papermill_io.register(spec["folder"], AtomicHandler())
    Client.redaction = Redaction.of(Path(spec["folder"]))
    declared = parameters_of(load_notebook(Path(spec["notebook"])))
    try:
        papermill.execute_notebook(
            spec["notebook"],
            spec["output"],
            parameters={k: written(v) for k, v in check(declared, spec["parameters"]).items()},
            engine_name="d2c",
            kernel_name=spec["kernel"],
            language=spec["language"],
            cwd=spec["cwd"],
            progress_bar=False,
            autosave_cell_every=0,
        )
    except PapermillExecutionError as err:
        return {
            "cell": _in_the_source(spec, err.cell_index),
            "kind": err.ename,
            "message": err.evalue,
            "traceback": err.traceback[-8:],
        }
    except DeadKernel as err:
        return {"cell": None, "traceback": [], **err.to_dict()}
    except NoSuchKernel as err:
        return {
            "cell": None,
            "kind": "NoSuchKernel",
            "message": f"no kernel {err.name!r} is installed",
            "traceback": [],
        }
    return None


def _in_the_source(spec: dict[str, Any], index: int) -> int:
    """Return the number of a cell in the notebook that was run, from 1; papermill counts the cell it injected."""
    cells = json.loads(Path(spec["output"]).read_text(encoding="utf-8"))["cells"]
    tags = [set(cell["metadata"].get("tags", [])) for cell in cells]
    executed = [tag for tag in tags if ERROR_MARKER_TAG not in tag]
    return index + 1 - sum("injected-parameters" in tag for tag in executed[:index])


def render(notebook: Path, html: Path) -> None:
    """Write an HTML rendering of a notebook; the file appears whole or not at all."""
    body, _ = HTMLExporter(embed_images=True).from_filename(str(notebook))
    draft = html.with_suffix(".html.tmp")
    draft.write_text(body, encoding="utf-8")
    draft.replace(html)


def restrict(cpus: int | None, memory_bytes: float | None) -> None:
    """Keep this process and all that it starts to some processors, and from jumping far beyond their memory at once."""
    if cpus and hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        first = os.getpid() % len(usable)
        os.sched_setaffinity(0, (usable * 2)[first : first + min(cpus, len(usable))])
    if memory_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (int(2 * memory_bytes + SLACK), hard))


def main(folder: Path) -> None:
    """Execute what `spec.json` in the run's folder says, then render the output."""
    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    restrict(spec["cpus"], spec["memory_bytes"])
    try:
        if not spec["render_only"]:
            say("done", error=execute(spec))
        render(Path(spec["output"]), Path(spec["html"]))
    except OSError as err:  # the log lies on the same disk, so the supervisor is told
        say("done", error={"kind": "Temporary", "message": f"the outputs cannot be written: {err.strerror}"})


if __name__ == "__main__":
    EVENTS = os.dup(1)  # what notebooks or libraries print goes to the log, events to the supervisor
    os.dup2(2, 1)
    if told := sys.stdin.readline():  # nothing: nobody needs this worker
        todo = json.loads(told)
        os.environ |= todo["environment"]
        main(Path(todo["folder"]))
