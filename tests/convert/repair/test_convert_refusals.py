"""The advice of a refusal leads on."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from d2c_mlops.convert.repair.fix_registry import CellFailure
from d2c_mlops.convert.repair.refusal_messages import failed_cell_refusal
from d2c_mlops.convert.repair.repair_state import RepairState
from d2c_mlops.convert.repair.repairing import copy_notebook_folder
from d2c_mlops.convert.run.isolated_run import ChildLimits
from d2c_mlops.convert.source.notebook import read_notebook


@pytest.mark.parametrize(("path", "advice"), [
    ("/shop/d2c_store/convert/a/local/conf.yaml", "a local module reads conf.yaml beside its own file"),
    ("/shop/d2c_store/convert/a/local/src/data/leads.csv", "a local module reads src/data/leads.csv beside"),
    ("data/leads.csv", "--data FOLDER"),
    ("/usr/local/leads.csv", "--data FOLDER"),
    ("/home/ann/leads.csv", "--data FOLDER"),
])  # fmt: skip
def test_a_missing_file_leads_to_the_folder_or_to_the_module_that_looks_for_it(path: str, advice: str) -> None:
    failure = CellFailure(
        1, "FileNotFoundError", f"[Errno 2] No such file or directory: '{path}'", bases=("OSError", "FileNotFoundError")
    )
    assert advice in failed_cell_refusal(failure, 1, "").next


def test_a_missing_file_leads_to_the_files_that_were_not_copied() -> None:
    failure = CellFailure(
        1, "FileNotFoundError", "[Errno 2] No such file or directory: 'a.csv'", bases=("OSError", "FileNotFoundError")
    )
    advice = failed_cell_refusal(failure, 1, "a/b/c/d/e/f: deeper than 6 folders").next
    assert advice.startswith("these files were not copied: a/b/c/d/e/f: deeper than 6 folders. If ")
    assert advice.endswith("--data FOLDER")


def test_files_that_are_not_copied_are_reported_and_stay_in_the_result(tmp_path: Path) -> None:
    shop, texts = tmp_path / "shop", list[str]()
    (shop / "a/b/c/d/e/f").mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), shop / "demand.ipynb")
    state = RepairState(
        read_notebook(shop / "demand.ipynb"), tmp_path / "work", None, False, ChildLimits(1.0), texts.append
    )
    copy_notebook_folder(state)
    assert texts == [f"not copied from {shop}: a/b/c/d/e/f: deeper than 6 folders"]
    assert state.result("refused", None).to_dict()["left_out"] == [
        {"path": str(shop / "a/b/c/d/e/f"), "why": "deeper than 6 folders"}
    ]
