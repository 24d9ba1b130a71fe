"""Run cells one by one in the child process, in an IPython shell without a kernel, over two pipes."""

from __future__ import annotations

import _thread
import base64
import builtins
import ctypes
import json
import os
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Required, TextIO, TypedDict, cast

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from d2c_mlops.convert.run.child_control import Start, Tools
    from d2c_mlops.convert.run.session import CellAnswer, CellError, CodePlace

OUTPUT_LIMIT = 1_000_000
CELL_FILE = "cell-{}.py"
_LIBRARY_FRAMES = 8


class ChildRequest(TypedDict, total=False):
    """What the parent asks: to run a cell (`index`, `source`), or for the classes of the values of expressions (`names`)."""

    do: Required[Literal["cell", "kinds"]]
    index: int
    source: str
    names: list[str]


class Recorder:
    """Collect what a cell shows, in order, as nbformat 4 outputs."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, object]] = []

        self.size = 0

    def add(self, output: dict[str, object], size: int) -> None:
        """Keep an output unless the cell has shown too much already."""
        if self.size <= OUTPUT_LIMIT:
            self.outputs.append(output)
        self.size += size

    def write(self, name: str, text: str) -> None:
        """Add text to a stream, joined to what stands right before it."""
        room = OUTPUT_LIMIT - self.size
        last = self.outputs[-1] if self.outputs else {}
        self.size += len(text)
        if room <= 0:
            return
        if len(text) > room:
            text = text[:room] + "\n... (cut)\n"
        texts = last.get("text")
        if last.get("output_type") == "stream" and last["name"] == name and isinstance(texts, list):
            texts.append(text)
        else:
            self.outputs.append({"output_type": "stream", "name": name, "text": [text]})

    def joined_outputs(self) -> list[dict[str, object]]:
        """Return the outputs with the parts of their texts joined: joining them one by one takes the square of their number."""
        return [
            output | {"text": "".join(texts)} if isinstance(texts := output.get("text"), list) else output
            for output in self.outputs
        ]


class CapturedStream:
    """Replaces stdout or stderr while cells run."""

    encoding, errors, newlines, closed, mode = "utf-8", "strict", None, False, "w"

    def __init__(self, recorder: Recorder, name: str, real: TextIO) -> None:
        self.recorder, self.name, self.real = recorder, name, real

    def write(self, text: str) -> int:
        """Record a text."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.recorder.write(self.name, text)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Record several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: texts are recorded as they come."""

    def isatty(self) -> bool:
        """Return that no terminal is attached."""
        return False

    def fileno(self) -> int:
        """Return the descriptor of the real stream, for programs started by the cell."""
        return self.real.fileno()

    def readable(self) -> bool:
        """Return False: the stream cannot be read."""
        return False

    def writable(self) -> bool:
        """Return True: the stream can be written."""
        return True


def start_shell(recorder: Recorder, plots: bool) -> InteractiveShell:
    """Create the IPython shell of this process; `recorder` collects its displayed outputs."""
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Publisher(DisplayPublisher):
        def publish(self, data: Mapping[str, object], *args: object, **kwargs: object) -> None:
            shown, size = _mime_bundle(data)
            recorder.add({"output_type": "display_data", "data": shown, "metadata": {}}, size)

        def clear_output(self, wait: bool = False) -> None:
            recorder.outputs.clear()
            recorder.size = 0

    class Hook(DisplayHook):
        def write_output_prompt(self) -> None: ...

        def write_format_data(self, format_dict: Mapping[str, object], md_dict: object = None) -> None:
            shown, size = _mime_bundle(format_dict)
            count = self.prompt_count
            recorder.add(
                {"output_type": "execute_result", "data": shown, "metadata": {}, "execution_count": count}, size
            )

        def finish_displayhook(self) -> None: ...

    class Shell(InteractiveShell):
        kernel = None  # pandas shows its tables as in a notebook where the shell has one

        def _showtraceback(self, etype: type[BaseException], evalue: object, stb: list[str]) -> None:
            try:
                message = str(evalue)
            except Exception as error:
                message = f"<no message: {type(error).__name__}>"
            output = {"output_type": "error", "ename": etype.__name__, "evalue": message[:20_000]}
            recorder.add({**output, "traceback": [str(line)[:20_000] for line in stb]}, 0)

        def enable_gui(self, gui: object = None) -> None: ...

        def ask_exit(self) -> None:
            raise SystemExit

        def system(self, cmd: str) -> None:
            import subprocess

            process = subprocess.run(  # noqa: S602 - the notebook's own `!command`, inside the sandbox
                self.var_expand(cmd, depth=1),  # type: ignore[no-untyped-call]
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            self.user_ns["_exit_code"] = process.returncode
            recorder.write("stdout", process.stdout.decode("utf-8", "replace"))

    main = types.ModuleType("__main__", "Created by the notebook.")
    sys.modules["__main__"] = main
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.xmode = "Context"
    Shell.display_pub_class.default_value = Publisher
    Shell.displayhook_class.default_value = Hook
    shell = Shell.instance(config=config, user_module=main, user_ns=main.__dict__)
    shell.events.register("post_run_cell", lambda *_: _close_figures())
    if not plots:
        for name in ("matplotlib", "pylab"):
            shell.register_magic_function(lambda line: None, "line", name)  # type: ignore[arg-type]
    return shell


def _mime_bundle(data: Mapping[str, object]) -> tuple[dict[str, object], int]:
    """Return a MIME bundle as JSON has it, and its size."""
    shown: dict[str, object] = {}
    for mime, value in data.items():
        if isinstance(value, bytes):
            value = base64.b64encode(value).decode("ascii") + "\n"
        elif not isinstance(value, str):
            try:
                value = json.loads(json.dumps(value))
            except (TypeError, ValueError):
                value = repr(value)
        if not (isinstance(value, str) and len(value) > 5 * OUTPUT_LIMIT):
            shown[str(mime)] = value
    text = shown.get("text/plain")
    return shown, len(text) if isinstance(text, str) else 0


def _close_figures() -> None:
    plots = sys.modules.get("matplotlib.pyplot")
    if plots is not None:
        try:
            plots.close("all")
        except Exception as error:
            warnings.warn(f"figures could not be closed: {error}", stacklevel=1)


def refuse_questions() -> None:
    """Make `input()` and `getpass()` fail with a clear message, because nobody can answer."""
    import getpass

    def refused(prompt: object = "", *args: object, **kwargs: object) -> str:
        raise EOFError(f"the cell waits for input ({str(prompt)[:80]!r}), which is not available in an unattended run")

    builtins.input = refused
    getpass.getpass = refused


class AssignmentWatch:
    """Record every assignment to a copy that pandas warns about, even if warnings are silenced."""

    def __init__(self) -> None:
        self.places: list[CodePlace] = []
        plain: Callable[..., None] = warnings.warn

        def warn(
            message: object, category: object = None, stacklevel: int = 1, *args: object, **kwargs: object
        ) -> None:
            if getattr(category, "__name__", "") == "ChainedAssignmentError":
                frame = sys._getframe(1)
                while frame is not None and cell_index_of_file(frame.f_code.co_filename) is None:
                    frame = frame.f_back  # type: ignore[assignment]
                if frame is not None:
                    at = list(frame.f_code.co_positions())[frame.f_lasti // 2]
                    self.places.append(_code_place(frame.f_code, at))
            plain(message, category, stacklevel + 1, *args, **kwargs)

        warnings.warn = warn


_current = [-1, 0]


def cell_index_of_file(filename: str) -> int | None:
    """Return the cell that a code object's file name stands for."""
    if filename.startswith("cell-") and filename.endswith(".py"):
        return int(filename[5:-3])
    return _current[0] if filename in ("<timed exec>", "<timed eval>", "<magic-timeit>") else None


def _code_place(code: types.CodeType, source_range: tuple[int | None, ...]) -> CodePlace:
    shift = 0 if code.co_filename.startswith("cell-") else _current[1]
    line, end_line, column, end_column = source_range
    cell = cell_index_of_file(code.co_filename)
    assert cell is not None, code.co_filename
    return {
        "cell": cell,
        "line": (line or 1) + shift,
        "end_line": (end_line or line or 1) + shift,
        "column": column,
        "end_column": end_column,
        "function": code.co_name,
    }


def error_facts(error: BaseException) -> CellError:
    """Return the facts of an exception that fixes use: kind, message, places and nearby values."""
    frames: list[CodePlace] = []
    library: list[str] = []
    strings: dict[str, str] = {}
    kinds: dict[str, str] = {}
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if cell_index_of_file(code.co_filename) is not None:
            at = list(code.co_positions())[trace.tb_lasti // 2]
            frames.append(_code_place(code, at))
            library.clear()
            strings, kinds = _captured_values(trace.tb_frame)
        elif frames:
            library.append(f"{code.co_filename}:{code.co_name}")
        trace = trace.tb_next
    holder = getattr(error, "obj", None)
    try:
        message = str(error)
    except Exception:
        message = ""
    return {
        "kind": type(error).__name__,
        "bases": [base.__name__ for base in type(error).__mro__],
        "message": message[:20_000],
        "arguments": [
            argument if isinstance(argument, str | int) else repr(argument)[:500] for argument in error.args[:4]
        ],
        "name": str(getattr(error, "name", "") or ""),
        "holder": "" if holder is None else dotted_class_name(holder),
        "filename": str(getattr(error, "filename", "") or ""),
        "frames": frames,
        "library": library[-_LIBRARY_FRAMES:],
        "strings": strings,
        "kinds": kinds,
        "line": getattr(error, "lineno", None),
    }


def _captured_values(frame: types.FrameType) -> tuple[dict[str, str], dict[str, str]]:
    strings: dict[str, str] = {}
    kinds: dict[str, str] = {}
    names = [*frame.f_code.co_names, *frame.f_code.co_varnames, *frame.f_code.co_freevars]
    for name in names[:500]:
        value = frame.f_locals.get(name, frame.f_globals.get(name))
        if value is not None:
            kinds[name] = dotted_class_name(value)
        if type(value) is str and len(value) < 1000:
            strings[name] = value
    return strings, kinds


def dotted_class_name(value: object) -> str:
    """Return the dotted path of a value's class, in the words of its library."""
    if isinstance(value, types.ModuleType):
        return f"module:{value.__name__}"
    if isinstance(value, type):
        return f"class:{value.__module__}.{value.__qualname__}"
    short_names = {"pandas.core.frame.DataFrame": "pandas.DataFrame", "pandas.core.series.Series": "pandas.Series"}
    path = f"{type(value).__module__}.{type(value).__qualname__}"
    return short_names.get(path, path)


def run_cell(
    shell: InteractiveShell, recorder: Recorder, watch: AssignmentWatch, index: int, source: str
) -> CellAnswer:
    """Run one cell and return its outputs, its error if any, and the chained assignments seen."""
    recorder.outputs, recorder.size = [], 0
    watch.places.clear()
    lines = source.split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    _current[:] = [index, first + 1 if lines[first].lstrip().startswith("%%") else first]
    shell.compile.get_code_name = lambda *_: CELL_FILE.format(index)  # type: ignore[method-assign]
    began = time.perf_counter()
    real = sys.stdout, sys.stderr
    sys.stdout = CapturedStream(recorder, "stdout", real[0])
    sys.stderr = CapturedStream(recorder, "stderr", real[1])
    try:
        result = shell.run_cell(source, store_history=True)
        error = result.error_before_exec or result.error_in_exec
    except BaseException as caught:
        error = caught
    finally:
        sys.stdout, sys.stderr = real
    return {
        "count": shell.execution_count - 1,
        "seconds": time.perf_counter() - began,
        "outputs": recorder.joined_outputs(),
        "error": None if error is None else error_facts(error),
        "chained": list(watch.places),
    }


def load_private_modules(*names: str) -> dict[str, object]:
    """Execute modules of ours, in this order, in one namespace that nothing else refers to, with builtins of its own."""
    space: dict[str, object] = {"__name__": names[-1], "__builtins__": dict(vars(builtins))}
    for name in names:
        file = Path(__file__).with_name(f"{name}.py")
        exec(compile(file.read_bytes(), str(file), "exec"), space)  # noqa: S102 - our own source
    return space


def serve_parent(source: int, sink: int, plots: bool, import_folders: list[str], with_proof: bool) -> None:
    """Serve the parent's requests until it exits; a control thread communicates, this thread runs the cells.

    `import_folders` are folders to import from. With `with_proof`, results are read by code that was bound before the first cell.
    """
    os.set_inheritable(source, False)
    os.set_inheritable(sink, False)
    tools = cast("Tools", load_private_modules("memory_reads", "result_capture", "tampering")) if with_proof else None
    recorder, watch = Recorder(), AssignmentWatch()
    refuse_questions()
    shell = start_shell(recorder, plots)
    commands: dict[str, Callable[[ChildRequest], object]] = {
        "cell": lambda request: run_cell(shell, recorder, watch, request["index"], request["source"]),
        "kinds": lambda request: {name: _expression_class(shell, name) for name in request["names"]},
    }
    mailbox: list[bytes] = []
    request_lock, answered = _thread.allocate_lock(), _thread.allocate_lock()
    request_lock.acquire()
    answered.acquire()
    start = cast("Start", load_private_modules("child_control")["start_request_thread"])
    start(source, sink, mailbox, request_lock, answered, sys.modules["__main__"].__dict__, shell, tools)
    del tools
    sys.path[0:0] = ["", *import_folders]
    os.environ["PYTHONPATH"] = os.pathsep.join([*import_folders, os.environ["PYTHONPATH"]])
    while True:
        request_lock.acquire()
        request: ChildRequest = json.loads(mailbox.pop())
        answer = json.dumps(commands[request["do"]](request), default=repr)
        mailbox.append(answer.encode("utf-8", "replace"))
        answered.release()


def _expression_class(shell: InteractiveShell, expression: str) -> str:
    try:
        return dotted_class_name(eval(expression, shell.user_ns))  # noqa: S307 - the notebook's own names, inside the sandbox
    except Exception:
        return ""


def main() -> None:
    """Read descriptors, the parent's process id (0 where a launcher stands between) and folders from the command line, and serve."""
    source, sink, plots, parent, proof = (int(argument) for argument in sys.argv[1:6])
    if sys.platform == "linux" and parent:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    if source == 0:  # in a container the pipes are the standard streams: cells get none of them
        source, sink = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        os.close(nothing)
    extra, sys.argv = sys.argv[6:], ["notebook"]
    serve_parent(source, sink, bool(plots), extra, bool(proof))


if __name__ == "__main__":
    main()
