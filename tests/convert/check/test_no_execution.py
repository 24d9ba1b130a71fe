"""`d2c check` and `d2c convert --no-run` read foreign code and execute none of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Installed before anything of ours is imported: notes what is executed, imported or started.
HOOK = """
import json, os, sys
folder, log = os.path.realpath(sys.argv.pop(1)), sys.argv.pop(1)
out = open(log, "a", buffering=1)
def hook(event, arguments):
    name = getattr(arguments[0], "co_filename", "") if event == "exec" else ""
    if name and os.path.exists(name) and os.path.realpath(name).startswith(folder):
        out.write(json.dumps(["exec", arguments[0].co_filename]) + "\\n")
    elif event == "import" and str(arguments[1] or "").startswith(folder):
        out.write(json.dumps(["import", arguments[0]]) + "\\n")
    elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
        command = arguments[1] if len(arguments) > 1 else arguments[0]
        command = [str(part) for part in command] if isinstance(command, (list, tuple)) else str(command)
        out.write(json.dumps([event, command]) + "\\n")
sys.addaudithook(hook)
from d2c_mlops.cli import main
main()
"""
CANARY = "open({!r}, 'a').write(__name__)\n"
CELLS = (
    "from helpers import *",
    "import helpers, shop.config, json as j",
    "from shop.config import *",
    "from . import sibling",
    "import sys; sys.path.append('.'); sys.path.insert(0, 'lib')",
    "from lib_module import *",
    "%run other.py",
    "%load_ext hostile_magic",
    "!touch {canary}",
    "%%bash\ntouch {canary}",
    "import pandas as pd\nopen({canary!r}, 'a').write('cell')",
    "import random as rnd\nfrom random import *\nx = eval(\"open({canary!r}, 'a')\")",
    "exec(open('helpers.py').read())",
    "%%time\nopen({canary!r}, 'w').close()",
    "class Meta(type):\n    def __new__(m, *a): open({canary!r}, 'a'); return super().__new__(m, *a)\nclass A(metaclass=Meta): pass",
    "y = {{(lambda: open({canary!r}, 'a'))(): 1}}\nprint(y)",
    "from sklearn.linear_model import LinearRegression\nmodel = LinearRegression().fit([[1], [2]], [1, 2])",
)  # fmt: skip


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "hostile"
    (folder / "shop").mkdir(parents=True)
    (folder / "lib").mkdir()
    canary = str(tmp_path / "canary")
    for name in ("helpers.py", "shop/__init__.py", "shop/config.py", "sibling.py", "other.py", "hostile_magic.py", "conftest.py",
                 "sitecustomize.py", "usercustomize.py", "json.py", "random.py", "pandas.py", "numpy.py", "typing_extensions.py",
                 "lib/lib_module.py", "setup.py", "ruff.py", "nbdev.py", "d2c_mlops.py"):  # fmt: skip
        (folder / name).write_text(CANARY.format(canary) + "value = 1\n__all__ = ['value']\n")
    for name in ("hostile.pth", "lib/hostile.pth"):
        (folder / name).write_text(f"import os; open({canary!r}, 'a')\n")
    (folder / "ruff.toml").write_text("[lint]\nselect = ['ALL']\n")
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": cell.format(canary=canary), "outputs": [], "execution_count": i}
        for i, cell in enumerate(CELLS)
    ]  # fmt: skip
    meta = {
        "kernelspec": {"name": "python3", "display_name": "x", "language": "python"},
        "language_info": {"name": "python"},
    }
    (folder / "old.ipynb").write_text(
        json.dumps({"cells": cells, "metadata": meta, "nbformat": 4, "nbformat_minor": 5})
    )
    (folder / "settings.ini").write_text("[d2c]\n")
    return folder


def events(folder: Path, *command: str) -> list[list[str]]:
    """Run a command of ours under the audit hook in the hostile folder; return what the hook saw."""
    log = folder.parent / "events.jsonl"
    log.unlink(missing_ok=True)
    line = [sys.executable, "-P", "-c", HOOK, str(folder), str(log), *command]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=240)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    return [json.loads(row) for row in log.read_text().splitlines()]


def started(seen: list[list[str]]) -> list[str]:
    """Return what programs were started, without the ones that read text: ruff, and nbdev's export in a process of its own."""
    lines = [
        " ".join(what) if isinstance(what, list) else what for kind, what in seen if kind not in ("exec", "import")
    ]
    return [line for line in lines if "ruff" not in line and "nb_export" not in line]


@pytest.mark.parametrize(
    "command",
    [
        ("check", "old.ipynb", "--fail-on", "never"),
        ("check", ".", "--fail-on", "never", "--json"),
        ("check", "old.ipynb", "--fix", "--fail-on", "never"),
        ("convert", "old.ipynb", "--no-run"),
        ("convert", "old.ipynb", "--no-run", "--until", "write", "--json"),
    ],
    ids=" ".join,
)
def test_nothing_of_a_foreign_folder_is_executed(hostile: Path, command: tuple[str, ...]) -> None:
    seen = events(hostile, *command)
    assert not [each for each in seen if each[0] in ("exec", "import")]
    assert not started(seen)
    assert not (hostile.parent / "canary").exists()


def test_the_hook_sees_what_is_executed(hostile: Path) -> None:
    """The test above can fail: a notebook that is run is seen."""
    code = HOOK.replace(
        "from d2c_mlops.cli import main\nmain()", "sys.path.insert(0, folder); import helpers; os.system('true')"
    )
    log = hostile.parent / "events.jsonl"
    subprocess.run([sys.executable, "-P", "-c", code, str(hostile), str(log)], cwd=hostile, check=True)
    kinds = {json.loads(row)[0] for row in log.read_text().splitlines()}
    assert {"exec", "os.system"} <= kinds and (hostile.parent / "canary").exists()
