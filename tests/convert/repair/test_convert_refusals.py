"""The advice of a refusal leads on."""

from __future__ import annotations

import pytest

from d2c_mlops.convert.repair.fix_registry import CellFailure
from d2c_mlops.convert.repair.refusal_messages import failed


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
    assert advice in failed(failure, 1, ()).next
