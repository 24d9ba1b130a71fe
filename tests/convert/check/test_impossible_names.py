"""Names that no file can have: every rule is applied to notebooks that use them, and says what it says of absent files."""

import json
from pathlib import Path

import pytest

from d2c_mlops.convert.check.check import rules
from d2c_mlops.convert.check.rule import read_subject
from d2c_mlops.convert.run.local_packages import find_local
from d2c_mlops.convert.source.environment import _submodule_file
from d2c_mlops.convert.source.path_exists import is_file, is_folder, path_exists_and_readable

LONG = "n" * 300
CELLS = [
    f"import {LONG}",
    f"import {'ä' * 200}.{LONG}",
    f"from {LONG} import *",
    f"import sys\nsys.path.append('{LONG}')\nimport toys_of_nobody",
    f"import sys\nsys.path.insert(0, '../{LONG}')\nfrom toys_of_nobody import *",
    "import sys\nsys.path.append('a\\0b')\nimport toys_of_nobody",
    f"import os\nos.chdir('{LONG}')\nimport toys_of_nobody",
    "import os\nos.chdir('a\\0b')\nimport toys_of_nobody",
    f"%cd {LONG}\nimport toys_of_nobody",
    f"import pandas as pd\npd.read_csv('{LONG}.csv')",
    f"import pandas as pd\npd.read_csv('{LONG}/a.csv')",
    "import pandas as pd\npd.read_csv('a\\0b.csv')",
    f"import pandas as pd\npd.read_excel('{'../' * 3_000}x.xlsx')",
]


@pytest.mark.parametrize("source", CELLS, ids=range(len(CELLS)))
def test_rules_take_names_that_no_file_can_have_for_absent_files(source: str, tmp_path: Path) -> None:
    cell = {"cell_type": "code", "metadata": {}, "source": source, "id": "a", "outputs": [], "execution_count": None}
    book = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()
    subject = read_subject(book, tmp_path / "a.ipynb", tmp_path)
    hits = {rule.id: list(rule.check(subject)) for rule in rules()}
    assert (
        hits["D2C401"]
        if "import toys" in source or source.startswith(("import n", "import ä", "from n"))
        else any(hits.values())
    )


def test_a_path_that_the_system_refuses_to_look_at_is_absent(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("")
    assert is_file(tmp_path / "shop.py") and path_exists_and_readable(tmp_path / "shop.py") and is_folder(tmp_path)
    for name in (LONG, "a\0b", "ä" * 200, "\ud800"):
        assert not (is_file(tmp_path / name) or is_folder(tmp_path / name) or path_exists_and_readable(tmp_path / name))
        assert find_local(name, [tmp_path]) is None and _submodule_file(tmp_path, name) is None
