"""A notebook cannot make `verify` call different results equivalent by patching Python from within."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from d2c_mlops.convert.repair.repair_result import RepairResult
from d2c_mlops.convert.run import session
from d2c_mlops.convert.run.isolated_run import ChildLimits, Stopped
from d2c_mlops.convert.run.session import Session
from d2c_mlops.convert.source.notebook import read_notebook
from d2c_mlops.convert.verify.verify import (
    Incomparable,
    Runner,
    Snapshot,
    Verdict,
    _build_verdict,
    _compared_names,
    verify,
)
from support.conversions import compared
from support.notebooks import notebook

TRUE = (
    "import numpy as np, pandas as pd\ntotal = 3\ntable = pd.DataFrame({'a': [1.0, 2.0]})\narray = np.array([1.0, 2.0])"
)
FALSE = (
    "import numpy as np, pandas as pd\ntotal = 4\ntable = pd.DataFrame({'a': [7.0, 8.0]})\narray = np.array([7.0, 8.0])"
)
PIPE = """
import json, os, stat, time
answers = []
for name in os.listdir('/proc/self/fd'):
    try:
        flags = int(next(l for l in open(f'/proc/self/fdinfo/{name}') if l.startswith('flags')).split()[1], 8)
        if stat.S_ISFIFO(os.fstat(int(name)).st_mode) and flags & os.O_ACCMODE == os.O_WRONLY:
            answers.append(int(name))
    except OSError:
        pass
"""
# Sources of a child that lacks one defence, so that a forgery can be seen to succeed.
SHARED = """
import importlib
from d2c_mlops.convert.run import child_process
private = child_process.load_private_modules
def shared(*names):
    if names == ("child_control",):
        return private(*names)
    modules = [importlib.import_module("d2c_mlops.convert.run." + name) for name in names]
    return {name: value for module in modules for name, value in vars(module).items()}
child_process.load_private_modules = shared
"""
LATE = (
    SHARED
    + """
from d2c_mlops.convert.run import result_capture
def late(*names):
    space = shared(*names)
    return space | {"capture_values": lambda values: result_capture.capture_values(values)} if "capture_values" in space else space
child_process.load_private_modules = late
"""
)
BY_METHODS = """
import json, numpy, pandas
from d2c_mlops.convert.run import child_process
private = child_process.load_private_modules
def snapshot(values):
    lines, parts = [], []
    def keep(array):
        array = numpy.asanyarray(array)
        data = array.tobytes()
        lines.append([array.dtype.str, [*array.shape], len(data)])
        parts.append(data)
        return {"t": "array", "key": len(lines) - 1}
    def form(value):
        if isinstance(value, pandas.DataFrame):
            columns = [keep(value.iloc[:, place].to_numpy()) for place in range(len(value.columns))]
            return {"t": "frame", "names": [*value.columns], "parts": columns}
        return keep(value) if isinstance(value, numpy.ndarray) else {"t": "number", "v": float(value)}
    return {name: form(value) for name, value in values.items()}, lines, parts
def by_methods(*names):
    space = private(*names)
    if "capture_values" not in space:
        return space
    return space | {"capture_values": snapshot, "plain_json": lambda value: json.dumps(value), "replaced_object_labels": lambda rows: []}
child_process.load_private_modules = by_methods
"""
IN_A_MODULE = """
from d2c_mlops.convert.run import child_process
private = child_process.load_private_modules
def in_a_module(*names):
    space = private(*names)
    vars(child_process)["tools" + names[0]] = space
    return space
child_process.load_private_modules = in_a_module
"""
UNWATCHED = """
from d2c_mlops.convert.run import child_process
private = child_process.load_private_modules
def unwatched(*names):
    space = private(*names)
    if "forbidding_audit_hook" in space:
        space["forbidding_audit_hook"] = lambda: lambda event, arguments: None
    return space
child_process.load_private_modules = unwatched
"""
UNREPORTED = """
from d2c_mlops.convert.run import child_process
private = child_process.load_private_modules
child_process.load_private_modules = lambda *names: (space := private(*names)) | ({"replaced_object_labels": lambda rows: []} if "replaced_object_labels" in space else {})
"""
SHELL_UNWATCHED = """
from d2c_mlops.convert.run import child_process
private = child_process.load_private_modules
def shell_unwatched(*names):
    space = private(*names)
    return space | {"replaced_of_shell": lambda shell, before: []} if "replaced_of_shell" in space else space
child_process.load_private_modules = shell_unwatched
"""
SHELL_METHODS_UNWATCHED = """
from d2c_mlops.convert.run import child_process
private = child_process.load_private_modules
def methods_unwatched(*names):
    space = private(*names)
    return space | {"watched_shell": lambda shell: ([], space["watched_shell"](shell)[1])} if "watched_shell" in space else space
child_process.load_private_modules = methods_unwatched
"""
FOLDERS_FIRST = """
import sys
sys.path[0:0] = sys.argv[6:]
import sitecustomize
from d2c_mlops.convert.run import child_process
"""
OTHER_ENCODER = """
import json.encoder
real = json.encoder.c_make_encoder
def make(*arguments):
    encode = real(*arguments)
    return lambda value, level: [part.replace('"v":4', '"v":3') for part in encode(value, level)]
json.encoder.c_make_encoder = make
"""
FALSE_VALUES = """
real_scalar, real_bytes, forged_total = {0}["scalar_form"], {0}["object_bytes"], total
{0}["scalar_form"] = lambda value: real_scalar(3 if value is forged_total else value)
{0}["object_bytes"] = lambda array: real_bytes(array - 6)
"""
PLANTED = "total, table, array = 3, pd.DataFrame({'a': [1.0, 2.0]}), np.array([1.0, 2.0])\nshell = get_ipython()\n"
OTHERWISE = "\nshell.run_cell('total = 4; array = array + 6; print(total)')"
# Each is appended to a cell that computes other values than the original, and makes them look the same: with the child's
# source before it, which lacks the defence against it.
FORGERIES = {
    "the function that takes the snapshot": (LATE, """
from d2c_mlops.convert.run import result_capture
real = result_capture.capture_values
result_capture.capture_values = lambda values: real({'total': 3, 'table': pd.DataFrame({'a': [1.0, 2.0]}), 'array': np.array([1.0, 2.0])})"""),
    "functions that the snapshot calls": (SHARED, """
from d2c_mlops.convert.run import result_capture
""" + FALSE_VALUES.format("vars(result_capture)")),
    "the code object of a function": (SHARED, """
import types
from d2c_mlops.convert.run import result_capture
result_capture.real = types.FunctionType(result_capture.capture_values.__code__, vars(result_capture))
def forged(values):
    return real({'total': 3, 'table': DataFrame({'a': [1.0, 2.0]}), 'array': numpy_array([1.0, 2.0])})
result_capture.capture_values.__code__ = forged.__code__"""),
    "json.dumps and numpy.savez": (BY_METHODS, """
import json
savez = np.savez
np.savez = lambda path, **arrays: savez(path, **{k: v - 6 for k, v in arrays.items()})
dumps = json.dumps
array, table = np.array([1.0, 2.0]), pd.DataFrame({'a': [1.0, 2.0]})
json.dumps = lambda value, **more: dumps(value, **more).replace('"v": 4', '"v": 3')"""),
    "how pandas gives its values": (BY_METHODS, """
total, array = 3, np.array([1.0, 2.0])
pd.Series.to_numpy = lambda self, *a, **k: np.array([1.0, 2.0])"""),
    "how a table gives its columns": (BY_METHODS, """
total, array = 3, np.array([1.0, 2.0])
real = pd.DataFrame.iloc
pd.DataFrame.iloc = property(lambda self: real.fget(pd.DataFrame({'a': [1.0, 2.0]})))"""),
    "the class that a value says it has, and __array__": (BY_METHODS, """
total, table = 3, pd.DataFrame({'a': [1.0, 2.0]})
class Array:
    __class__ = np.ndarray
    dtype, size, shape = np.dtype(float), 2, (2,)
    def __array__(self, *a, **k): return np.array([1.0, 2.0])
array = Array()"""),
    "a subclass of ndarray that writes other bytes": (BY_METHODS, """
total, table = 3, pd.DataFrame({'a': [1.0, 2.0]})
class Array(np.ndarray):
    def tobytes(self, *a, **k): return np.array([1.0, 2.0]).tobytes()
    def tofile(self, file, *a, **k): file.write(np.array([1.0, 2.0]).tobytes())
    def astype(self, *a, **k): return np.array([1.0, 2.0])
    def tolist(self): return [1.0, 2.0]
array = array.view(Array)"""),
    "a number that equals any other and gives another float": (BY_METHODS, """
array, table = np.array([1.0, 2.0]), pd.DataFrame({'a': [1.0, 2.0]})
class Number(int):
    def __eq__(self, other): return True
    def __float__(self): return 3.0
    def __repr__(self): return '3'
    __index__ = __int__ = __hash__ = lambda self: 3
total = Number(4)"""),
    "a namespace in any module or frame": (IN_A_MODULE, """
import sys
frame, values = sys._getframe(), [value for module in [*sys.modules.values()] for value in vars(module).values()]
while frame is not None:
    values += [*frame.f_locals.values(), *frame.f_globals.values()]
    frame = frame.f_back
found = [value for value in values if type(value) is dict and 'capture_values' in value and 'object_bytes' in value]
if found:
    space = found[0]
""" + FALSE_VALUES.format("space").replace("\n", "\n    ").rstrip()),
    "the objects that the collector knows": (UNWATCHED, """
import gc
space = next(value for value in gc.get_objects() if type(value) is dict and 'capture_values' in value and 'plain_json' in value)
""" + FALSE_VALUES.format("space")),
    "what refers to a function of the snapshot's": (UNWATCHED, """
import gc, math
space = next(value for value in gc.get_referrers(math.isfinite) if type(value) is dict and 'capture_values' in value)
""" + FALSE_VALUES.format("space")),
    "the frame of the thread that answers": (UNWATCHED, """
import sys, threading
frame = next(f for number, f in sys._current_frames().items() if number != threading.get_ident() and 'put_mail' in f.f_locals)
space = frame.f_locals['capture_values'].__closure__
names = frame.f_locals['capture_values'].__code__.co_freevars
space = space[names.index('snapshot')].cell_contents.__globals__
""" + FALSE_VALUES.format("space")),
    "the pipe of the answers": ("", PIPE + """
arrays = [np.array([1.0, 2.0]).tobytes()] * 2
index = {'t': 'text', 'v': 'range(0, 2)'}
forms = {'total': {'t': 'number', 'v': 3}, 'table': {'t': 'frame', 'names': ['a', 'index'], 'parts': [{'t': 'array', 'key': 0}, index]},
         'array': {'t': 'array', 'key': 1}}
head = json.dumps({'forms': forms, 'arrays': [['<f8', [2], 16]] * 2, 'replaced': []}).encode() + b'\\n'
done = json.dumps({'index': 2, 'seconds': 0, 'outputs': [], 'error': None, 'chained': [], 'count': 1}).encode()
for payload in (done, head + b''.join(arrays)):
    for number in answers:
        os.write(number, len(payload).to_bytes(8, 'big') + bytes(32) + payload)
time.sleep(9)"""),
    "the names that cells use": (SHELL_UNWATCHED, PLANTED + "shell.user_ns = dict(shell.user_ns)" + OTHERWISE),
    "the module that cells run in": (SHELL_UNWATCHED, PLANTED + """import types
module = types.ModuleType('other')
module.__dict__.update(shell.user_ns)
shell.user_module, shell.user_ns = module, module.__dict__""" + OTHERWISE),
    "names that lie when they are read": (SHELL_UNWATCHED, PLANTED + """class Names(dict):
    def __getitem__(self, name):
        return 4 if name == 'total' else dict.__getitem__(self, name)
shell.user_ns = Names(shell.user_ns)
shell.run_cell('print(total)')"""),
    "the display hook": (SHELL_UNWATCHED, """
def hook(value):
    globals().update(total=3, table=pd.DataFrame({'a': [1.0, 2.0]}), array=np.array([1.0, 2.0]))
get_ipython().displayhook = hook
import sys
sys.displayhook = hook
total"""),
    "what is called after a cell": (SHELL_UNWATCHED, """
def plant(*_):
    globals().update(total=3, table=pd.DataFrame({'a': [1.0, 2.0]}), array=np.array([1.0, 2.0]))
get_ipython().events.register('post_run_cell', plant)"""),
    "the source of later cells": (SHELL_UNWATCHED, PLANTED + """
shell.input_transformers_post.append(lambda lines: [line.replace('total', 'hidden') for line in lines])""" + OTHERWISE.replace("; array = array + 6", "")),
    "the syntax tree of later cells": (SHELL_UNWATCHED, PLANTED + """
import ast
class Hidden(ast.NodeTransformer):
    def visit_Name(self, node):
        node.id = 'hidden' if node.id == 'total' else node.id
        return node
shell.ast_transformers.append(Hidden())""" + OTHERWISE.replace("; array = array + 6", "")),
    "a method of the shell, on the shell": (SHELL_UNWATCHED, PLANTED + "shell.run_cell = lambda *a, **k: None"),
    "a method of the shell, on its class": (SHELL_METHODS_UNWATCHED, PLANTED + """
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.run_ast_nodes = lambda *a, **k: None"""),
    "a module of the author that runs at the start": (FOLDERS_FIRST, "table, array = pd.DataFrame({'a': [1.0, 2.0]}), np.array([1.0, 2.0])"),
}  # fmt: skip
# Both notebooks replace what makes their results differ; the values are equal, and prove nothing.
REPLACEMENTS = {
    "time.time": "import time\ntime.time = lambda: 1.0\nx = time.time()",
    "random.random": "import random\nrandom.seed = lambda *a: None\nrandom.random = lambda: 0.5\nx = random.random()",
    "numpy.allclose": "import numpy as np\nnp.allclose = lambda *a, **k: True\nx = np.allclose(1, 2)",
    "datetime.datetime": "import datetime\nclass D(datetime.datetime): pass\ndatetime.datetime = D\nx = 1",
    "isinstance": "import builtins\nreal = isinstance\nbuiltins.isinstance = lambda *a: real(*a)\nx = 1",
    "pandas.DataFrame.sum": "import pandas as pd\npd.DataFrame.sum = lambda self, *a, **k: 1\nx = pd.DataFrame().sum()",
}


def verdict_on(folder: Path, forged_cell: str) -> Verdict:
    """Run the true cell and a forged one in isolated children, and compare them as `verify` does."""
    (folder / "local").mkdir()
    (folder / "files").mkdir()
    (folder / "local" / "sitecustomize.py").write_text(OTHER_ENCODER)
    runner = Runner(folder, ChildLimits(60.0), [folder / "local"])
    names = {1: ["total", "table", "array"]}
    try:
        runs = [
            runner.run(read_notebook(notebook(folder / f"{label}.ipynb", cell)), names, label)
            for label, cell in (("true", TRUE), ("forged", forged_cell))
        ]
        return _build_verdict(
            _compared_names([{"original": [1], "converted": 1, "names": names[1]}], runs[:1], runs[1])
        )
    except Incomparable as why:
        return Verdict("not comparable", str(why))


@pytest.mark.slow
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_result_is_not_equivalent(forgery: str, tmp_path: Path) -> None:
    verdict = verdict_on(tmp_path, f"{FALSE}\n{FORGERIES[forgery][1]}")
    assert verdict.status != "equivalent", verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_succeeds_without_the_defence_against_it(
    forgery: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak_source, cell = FORGERIES[forgery]
    monkeypatch.setattr(session, "CHILD_SOURCE", f"{weak_source}\n{session.CHILD_SOURCE}")
    if not weak_source:
        monkeypatch.setattr(session.hmac, "compare_digest", lambda signed, received: True)
    verdict = verdict_on(tmp_path, f"{FALSE}\n{cell}")
    assert verdict.status == "equivalent", verdict.reason


def test_there_are_at_least_ten_forgeries_against_all_defences() -> None:
    sources = {source for source, _ in FORGERIES.values()}
    assert sources == {
        LATE,
        SHARED,
        BY_METHODS,
        IN_A_MODULE,
        UNWATCHED,
        "",
        FOLDERS_FIRST,
        SHELL_UNWATCHED,
        SHELL_METHODS_UNWATCHED,
    }
    assert len(FORGERIES) >= 10


@pytest.mark.slow
def test_what_a_module_of_the_author_does_at_the_start_forges_nothing(tmp_path: Path) -> None:
    local = tmp_path / "work" / "local"
    local.mkdir(parents=True)
    for name in ("sitecustomize", "usercustomize", "base64", "hashlib"):
        (local / f"{name}.py").write_text(
            "import json\nreal = json.dumps\njson.dumps = lambda v, **k: real(v, **k).replace('\"v\": 4', '\"v\": 3')\n"
            f"open(__import__('os').path.join(__import__('os').environ['HOME'], '{name}'), 'w')\n"
        )
    assert compared(tmp_path, ["total = 3"], ["total = 4"], [["total"]]).status == "differs"
    cell = "import os\nseen = sorted(set(os.listdir(os.environ['HOME'])) & {'sitecustomize', 'base64', 'hashlib'}) + ['end']"
    old = notebook(tmp_path / "c" / "x.ipynb", cell)
    new = notebook(tmp_path / "d" / "x.ipynb", "seen = ['end']")
    written = SimpleNamespace(
        notebook=new, alignment=[{"converted": 1, "original": [1], "names": ["seen"]}], parameters=()
    )
    found = verify(RepairResult("as is", old, old, order=(0,)), written, tmp_path / "work", timeout=300)  # type: ignore[arg-type]
    assert found.status == "equivalent", found.reason


@pytest.fixture
def proving(tmp_path: Path):  # type: ignore[no-untyped-def]
    (tmp_path / "here").mkdir()
    with Session(tmp_path / "here", tmp_path / "home", ChildLimits(60.0), proof=True) as session:
        yield session


def test_values_are_read_from_memory_whatever_python_code_says(proving: Session) -> None:
    cells = [code for name, (_, code) in FORGERIES.items() if name in (
        "how a table gives its columns", "the class that a value says it has, and __array__",
        "a subclass of ndarray that writes other bytes", "json.dumps and numpy.savez")]  # fmt: skip
    assert len(cells) == 4
    proving.run(1, FALSE)
    for cell in cells:
        proving.run(2, "\n".join(line for line in cell.split("\n") if not line.startswith(("total", "array, table"))))
    found = Snapshot.read(proving.snapshot(["total", "table", "array"]))
    assert found.forms["total"] == {"t": "number", "v": 4}
    assert found.arrays[found.forms["table"]["parts"][0]["key"]].tolist() == [7.0, 8.0]
    assert {"pandas.DataFrame.iloc", "numpy.savez", "json.dumps"} <= set(found.replaced)


def test_replaced_functions_of_python_and_its_libraries_are_named(proving: Session) -> None:
    assert Snapshot.read(proving.snapshot(["x"])).replaced == ()
    for source in REPLACEMENTS.values():
        proving.run(1, source)
    found = Snapshot.read(proving.snapshot(["x"])).replaced
    assert set(REPLACEMENTS) <= set(found) and "random.seed" in found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["time.time", "random.random", "numpy.allclose"])
def test_a_notebook_that_replaces_them_is_not_comparable(name: str, tmp_path: Path) -> None:
    source = REPLACEMENTS[name]
    found = compared(tmp_path, [source], [source], [["x"]])
    assert found.status == "not comparable" and "replaced " in found.reason and "can forge results" in found.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", ["time.time", "random.random"])
def test_what_they_replace_is_equivalent_where_it_is_not_watched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CHILD_SOURCE", f"{UNREPORTED}\n{session.CHILD_SOURCE}")
    verdict = compared(tmp_path, [REPLACEMENTS[name]], [REPLACEMENTS[name]], [["x"]])
    assert verdict.status == "equivalent", verdict.reason


@pytest.mark.parametrize("source", [
    "import gc\ngc.get_objects()",
    "import gc\ngc.get_referrers(gc)",
    "import sys\nsys._current_frames()",
    "import threading\nthreading.setprofile(print)\nimport sys\nsys.setprofile(print)",
    "open('/proc/self/mem', 'rb')",
    "import ctypes\nctypes.c_long.from_address(id(1))",
])  # fmt: skip
@pytest.mark.slow
def test_reaching_for_the_interpreters_objects_ends_the_run(source: str, proving: Session) -> None:
    with pytest.raises(Stopped) as stopped:
        proving.run(1, source)
    assert "can forge results" in str(stopped.value)


def test_an_answer_that_is_not_signed_is_noticed(proving: Session) -> None:
    with pytest.raises(Stopped) as stopped:
        proving.run(
            1, PIPE + "for number in answers: os.write(number, (90).to_bytes(8, 'big') + b'x' * 122)\ntime.sleep(9)"
        )
    assert "pipe" in str(stopped.value) and stopped.value.ended.status == "forged"


def test_usual_ways_of_working_replace_nothing(proving: Session) -> None:
    source = (
        "import numpy as np, pandas as pd, matplotlib.pyplot as plt, warnings, random, gc\n"
        "warnings.filterwarnings('ignore'); np.random.seed(1); random.seed(1); gc.collect()\n"
        "np.bool = bool; np.float = float\npd.DataFrame.shout = lambda self: self\npd.set_option('display.max_rows', 5)\n"
        "plt.plot([1, 2])\nprint = print\nx = np.random.rand(3)"
    )
    assert proving.run(1, source).error is None
    found = Snapshot.read(proving.snapshot(["x"]))
    assert found.replaced == () and len(found.arrays[0]) == 3


def test_usual_magics_and_settings_of_the_shell_replace_nothing(proving: Session) -> None:
    cells = (
        "from IPython.core.interactiveshell import InteractiveShell\nInteractiveShell.ast_node_interactivity = 'all'",
        "%load_ext autoreload\n%autoreload 2\n%matplotlib inline\n%precision 3\n%config InlineBackend.figure_format = 'retina'",
        "%%capture shown\nprint(1)", "%%time\nx = 1", "%timeit -n1 -r1 1", "%who\n%pwd", "1 / 0",
        "from IPython.display import display\ndisplay(x)\nx",
    )  # fmt: skip
    for number, cell in enumerate(cells, 1):
        proving.run(number, cell)
    assert Snapshot.read(proving.snapshot(["x"])).replaced == ()
