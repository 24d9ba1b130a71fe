"""A notebook cannot make `verify` call different results equivalent by patching Python from within."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from d2c_mlops.convert.repair.repair_result import RepairResult
from d2c_mlops.convert.run.isolated_run import ChildLimits, Stopped
from d2c_mlops.convert.run.session import Session
from d2c_mlops.convert.verify.verify import Snapshot, verify
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
# Each is appended to a cell that computes other values than the original, and makes them look the same.
FORGERIES = {
    "the function that takes the snapshot": """
import d2c_mlops.convert.run.capture as capture
real = capture.save_snapshot
capture.save_snapshot = lambda values, path: real(
    {'total': 3, 'table': pd.DataFrame({'a': [1.0, 2.0]}), 'array': np.array([1.0, 2.0])}, path)""",
    "a method of the class that turns values into forms": """
import sys
import d2c_mlops.convert.run.capture
Writer = sys.modules['d2c_mlops.convert.run.capture'].Writer
old = Writer._form
Writer._form = lambda self, value, depth: old(self, 3 if value is total else value if type(value) is str
    else np.array([1.0, 2.0]) if value is array else pd.DataFrame({'a': [1.0, 2.0]}) if value is table else value, depth)""",
    "the code object of a function": """
import d2c_mlops.convert.run.capture as capture
def forged(self, value, depth):
    import numpy as np
    true = {'int': 3, 'ndarray': np.array([1.0, 2.0])}.get(type(value).__name__, value)
    if type(value).__name__ == 'DataFrame':
        true = value - 6
    return self._form(true, depth)
capture.Writer.form.__code__ = forged.__code__""",
    "json.dumps and numpy.savez": """
import json
dumps, savez = json.dumps, np.savez
json.dumps = lambda value, **more: dumps(value, **more).replace('"v": 4', '"v": 3')
np.savez = lambda path, **arrays: savez(path, **{k: v - 6 for k, v in arrays.items()})""",
    "how pandas gives its values": """
total = 3
array = np.array([1.0, 2.0])
pd.Series.to_numpy = lambda self, *a, **k: np.array([1.0, 2.0])""",
    "how a table gives its columns": """
total, array = 3, np.array([1.0, 2.0])
real = pd.DataFrame.iloc
pd.DataFrame.iloc = property(lambda self: real.fget(pd.DataFrame({'a': [1.0, 2.0]})))""",
    "the class that a value says it has, and __array__": """
total, table = 3, pd.DataFrame({'a': [1.0, 2.0]})
class Array:
    __class__ = np.ndarray
    dtype, size, shape = np.dtype(float), 2, (2,)
    def __array__(self, *a, **k): return np.array([1.0, 2.0])
array = Array()""",
    "a subclass of ndarray that writes other bytes": """
total, table = 3, pd.DataFrame({'a': [1.0, 2.0]})
class Array(np.ndarray):
    def tobytes(self, *a, **k): return np.array([1.0, 2.0]).tobytes()
    def tofile(self, file, *a, **k): file.write(np.array([1.0, 2.0]).tobytes())
    def astype(self, *a, **k): return np.array([1.0, 2.0])
    def tolist(self): return [1.0, 2.0]
array = array.view(Array)""",
    "a frame above it": """
import sys
def true(ask):
    from d2c_mlops.convert.run.capture import save_snapshot
    return save_snapshot({'total': 3, 'table': pd.DataFrame({'a': [1.0, 2.0]}), 'array': np.array([1.0, 2.0])}, ask['path'])
frame = sys._getframe()
while frame is not None:
    for value in list(frame.f_locals.values()):
        if type(value) is dict and 'snapshot' in value:
            value['snapshot'] = true
    frame = frame.f_back""",
    "the objects that the collector knows": """
import gc, types
import d2c_mlops.convert.run.capture
for each in gc.get_objects():
    if type(each) is types.FunctionType and each.__name__ in ('save_snapshot', 'snapshot') and 'capture' in each.__module__:
        space = each.__globals__
        real = space['Writer']._form
        space['Writer']._form = lambda self, value, depth: real(self, 3 if value is total else np.array([1.0, 2.0])
            if value is array else pd.DataFrame({'a': [1.0, 2.0]}) if value is table else value, depth)""",
    "the pipe and the files of the answer": PIPE + """
forms = {'total': {'t': 'number', 'v': 3}, 'table': {'t': 'frame', 'names': ['a', 'index'], 'rows': 2, 'parts': [
    {'t': 'array', 'key': 'a0'}, {'t': 'text', 'v': 'RangeIndex(start=0, stop=2, step=1)'}]}, 'array': {'t': 'array', 'key': 'a1'}}
path = os.path.join(os.environ['HOME'], 'snapshot-1')
open(path + '.json', 'w').write(json.dumps(forms))
np.savez(path + '.npz', a0=np.array([1.0, 2.0]), a1=np.array([1.0, 2.0]))
done = {'seconds': 0, 'outputs': [], 'error': None, 'chained': [], 'count': 1}
for number in answers:
    os.write(number, (json.dumps(done) + '\\n' + json.dumps({'names': []}) + '\\n').encode())
time.sleep(20)""",
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


@pytest.mark.slow
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_result_is_not_equivalent(forgery: str, tmp_path: Path) -> None:
    names = [["total", "table", "array"]]
    found = compared(tmp_path, [TRUE], [FALSE + FORGERIES[forgery]], names)
    assert found.status != "equivalent", found.reason


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
    cells = [code for name, code in FORGERIES.items() if name in (
        "how a table gives its columns", "the class that a value says it has, and __array__",
        "a subclass of ndarray that writes other bytes", "json.dumps and numpy.savez")]  # fmt: skip
    assert len(cells) == 4
    proving.run(1, FALSE)
    for cell in cells:
        proving.run(2, "\n".join(line for line in cell.split("\n") if not line.startswith("total")))
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
