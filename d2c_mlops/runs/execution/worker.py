"""The worker process of a run: papermill, one kernel, events for the supervisor on standard output."""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any, ClassVar

from d2c_mlops.parent_death import die_with_parent

if __name__ == "__main__":  # before the imports, which take a second
    die_with_parent(int(sys.argv[1]))

# Optional imports of jsonschema and papermill for what is not used here: formats of texts, Hadoop. They cost 2 s.
for _name in ("rfc3987_syntax", "isoduration", "pyarrow"):
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from papermill.iorw import LocalHandler, papermill_io
from papermill.log import logger
from papermill.translators import PythonTranslator, papermill_translators

from d2c_mlops.runs.execution.kernel_client import DeadKernel, KernelManager, NotebookClient
from d2c_mlops.runs.run_events import append_event_to
from d2c_mlops.runs.secrets.redaction import Redaction

EVENTS = 1
SLACK = 2**30  # bytes that a process may map beyond twice its limit before it is refused more; it need not use them
PASSING = frozenset([errno.EAGAIN, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])


class WrittenOutput(str):
    """A parameter as text for the notebook's metadata, with the Python source of its value."""

    source: str


class Translator(PythonTranslator):  # type: ignore[misc]
    """Write parameters as Python source; papermill's own turns dates and paths into text."""

    @classmethod
    def translate(cls, val: Any) -> str:
        return val.source if isinstance(val, WrittenOutput) else super().translate(val)


def papermill_parameter(value: Any, source: str) -> Any:
    """Return a parameter in a form that papermill can store: as JSON if that equals its source."""
    if repr(value) == source:
        return value
    text = WrittenOutput(value if isinstance(value, str) else json.dumps(value))
    text.source = source
    return text


class AtomicHandler(LocalHandler):  # type: ignore[misc]
    """Write the output notebook atomically."""

    def write(self, buf: str, path: str) -> None:
        draft = f"{path}.tmp"
        super().write(buf, draft)
        Path(draft).replace(path)


class Engine(NBClientEngine):  # type: ignore[misc]
    """papermill's engine, which also reports the running cell and the notebook's result."""

    client: ClassVar[NotebookClient]

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, kernel_manager_class: Any = KernelManager, **_: Any
    ) -> Any:
        start, total = nb_man.cell_start, len(nb_man.nb.cells)

        def cell_start(cell: Any, cell_index: int | None = None, **kw: Any) -> Any:
            lines = [line.strip() for line in cell.source.splitlines()]
            first = next((line for line in lines if line and not line.startswith(("#", "%"))), "")
            if cell.cell_type == "code":
                send_event("cell", index=cell_index, total=total, source=first[:80])
            return start(cell, cell_index, **kw)

        nb_man.cell_start = cell_start
        Engine.client = NotebookClient(
            nb_man, kernel_name=kernel_name, kernel_manager_class=kernel_manager_class, startup_timeout=60, log=logger
        )
        try:
            return Engine.client.execute()
        except DeadKernelError as err:
            raise DeadKernel(KernelManager.process) from err


def send_event(event: str, **values: Any) -> None:
    """Write one event for the supervisor, as a line of JSON."""
    os.write(EVENTS, (json.dumps({"event": event, **values}) + "\n").encode())


def execute_notebook(spec: dict[str, Any]) -> dict[str, Any] | None:
    """Execute the notebook of `spec`; return the error of the failed cell, None on success."""
    papermill_translators.register("python", Translator)
    papermill_engines.register("d2c", Engine)
    papermill_io.register(spec["folder"], AtomicHandler())
    papermill.execute.raise_for_execution_errors = lambda nb, path: None  # the client knows, and the page shows it
    NotebookClient.redaction = Redaction.of(Path(spec["folder"]))
    NotebookClient.language = spec["language"]
    try:
        papermill.execute_notebook(
            spec["notebook"],
            spec["output"],
            parameters={
                name: papermill_parameter(value, spec["sources"][name]) for name, value in spec["parameters"].items()
            },
            engine_name="d2c",
            kernel_name=spec["kernel"],
            language=spec["language"],
            cwd=spec["cwd"],
            progress_bar=False,
            autosave_cell_every=0,
        )
    except DeadKernel as err:
        return _error_with_cell(spec, err.to_dict())
    except CellTimeoutError:  # an OSError, but none of the disk
        message = f"the cell's outputs did not arrive within {Engine.client.iopub_timeout} s after its end"
        return _error_with_cell(spec, {"kind": "OutputTimeout", "message": message})
    except OSError:
        raise
    except Exception as err:  # a kernel that does not start, a notebook that nbformat refuses
        message = f"the notebook could not be executed: {type(err).__name__}: {err}"
        return {"cell": None, "kind": "ExecutionError", "message": message, "traceback": []}
    client = Engine.client
    for note in client.notes:
        append_event_to(Path(spec["folder"]), "note", note)
    if client.exited:
        cell, _ = _cell_position(spec, client.index)
        append_event_to(
            Path(spec["folder"]), "note", f"cell {cell} ended the notebook early; the following cells did not run"
        )
    return _error_with_cell(spec, client.error) if client.error else None


def _error_with_cell(spec: dict[str, Any], error: dict[str, Any]) -> dict[str, Any]:
    """Return an error with the number of its cell in the notebook, from 1, and the cell's id in the output."""
    if (index := Engine.client.index) is None:
        return {"cell": None, "traceback": [], **error}
    cell, identity = _cell_position(spec, index)
    return {"cell": cell, "cell_id": identity, "traceback": [], **error}


def _cell_position(spec: dict[str, Any], index: int | None) -> tuple[int, str]:
    """Return the number of a cell in the original notebook, from 1, and its id; papermill injects one cell."""
    cells = Engine.client.nb.cells
    before = cells[: index or 0]
    injected = sum("injected-parameters" in cell["metadata"].get("tags", []) for cell in before)
    return (index or 0) + 1 - injected, str(cells[index or 0].get("id", ""))


def set_resource_limits(cpus: int | None, memory_bytes: float | None) -> None:
    """Restrict this process and its children to some CPUs, and limit their address space."""
    if cpus and hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        first = os.getpid() % len(usable)
        os.sched_setaffinity(0, (usable * 2)[first : first + min(cpus, len(usable))])
    if memory_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (int(2 * memory_bytes + SLACK), hard))


def main(folder: Path) -> None:
    """Execute the run of `spec.json` in the run's folder, then render the output."""
    from d2c_mlops.runs.execution.page_body import write_page

    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    set_resource_limits(spec["cpus"], spec["memory_bytes"])
    try:
        if not spec["render_only"]:
            send_event("done", error=execute_notebook(spec))
        write_page(Path(spec["output"]), Path(spec["html"]))
    except OSError as err:  # the log lies on the same disk, so the supervisor reports it
        kind = "Temporary" if err.errno in PASSING else type(err).__name__
        send_event("done", error={"kind": kind, "message": f"the outputs cannot be written: {err.strerror or err}"})


if __name__ == "__main__":
    EVENTS = os.dup(1)  # what notebooks or libraries print goes to the log, events to the supervisor
    os.dup2(2, 1)
    if failure := sys.stdin.readline():  # nothing: nobody needs this worker
        todo = json.loads(failure)
        os.environ |= todo["environment"]
        main(Path(todo["folder"]))
