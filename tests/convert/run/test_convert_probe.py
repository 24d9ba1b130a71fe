"""What a probe has seen is kept when its time runs out while it tries a model."""

import json
import subprocess
import sys
import time


def test_types_are_told_before_a_model_is_tried(tmp_path):
    cells = [
        {
            "source": "def double(x):\n    return 2 * x",
            "step": "double",
            "exported": True,
            "returns": ["y"],
            "tags": [],
        },
        {"source": "y = double(3)", "step": "double", "exported": False, "returns": [], "tags": []},
    ]
    endless = {"index": 0, "seen": "", "start": "y", "sources": ["import time\ntime.sleep(600)"], "parameters": []}
    spec, answer = tmp_path / "spec.json", tmp_path / "answer.json"
    spec.write_text(json.dumps({"cells": cells, "candidates": [endless], "overrides": {}}))
    with subprocess.Popen([sys.executable, "-m", "d2c_mlops.convert.run.model_probe", spec, answer]) as child:
        until = time.monotonic() + 120
        while not answer.exists() and time.monotonic() < until and child.poll() is None:
            time.sleep(0.1)
        running = child.poll() is None
        child.kill()
    assert running
    told = json.loads(answer.read_text())
    assert told["types"] == {"double x": "int", "double -> y": "int"}
    assert told["error"] is None
    assert told["model"] is None
