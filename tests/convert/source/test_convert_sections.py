"""Titles that an author wrote as comments become headings, and cut a cell into its sections."""

import json

import nbformat.v4 as v4
import pytest

from d2c_mlops.convert.plan.plan import plan_notebook
from d2c_mlops.convert.plan.steps import plan_blocks
from d2c_mlops.convert.source.notebook import parse_notebook
from d2c_mlops.convert.source.sections import section_title, split_section_titles


@pytest.mark.parametrize(
    ("comment", "title"),
    [
        ("# --- 2. Feature Engineering ---", "Feature Engineering"),
        ("##### Model #####", "Model"),
        ("# ===== Load data =====", "Load data"),
        ("# 3. Fit the model", "Fit the model"),
        ("# Step 4: Evaluate", "Evaluate"),
        ("# ---- Clean up", "Clean up"),
        ("# the price of 3. quarter", ""),
        ("# drop what is missing", ""),
        ("# df = df.dropna()", ""),
        ("# -----------------", ""),
        ("#", ""),
    ],
)
def test_a_title_is_told_from_other_comments(comment, title):
    assert section_title(comment) == title


def test_a_box_is_a_title_and_every_line_keeps_its_place():
    source = "##########\n# Load data\n##########\n# of last year\ndf = 1"
    assert split_section_titles(source) == (("Load data",), "\n\n\n# of last year\ndf = 1")


def test_a_cell_is_cut_at_its_titles_and_nothing_is_lost():
    cell = "# --- 1. Prices ---\nprices = [3, 1, 2]\nprices.sort()\n\n# --- 2. Total ---\n# of all shops\ntotal = sum(prices)\nprint(total)"
    document = json.dumps(v4.new_notebook(cells=[v4.new_code_cell(text) for text in (cell, "print(prices, total)")]))
    found = plan_blocks(plan_notebook(parse_notebook(document)))
    assert [block.text for block in found if block.kind == "prose"] == ["## Prices", "## Total"]
    code = "\n".join(line.statement.source for block in found for line in block.lines)
    assert "# of all shops" in code
    assert "---" not in code
    for line in ("prices = [3, 1, 2]", "prices.sort()", "total = sum(prices)", "print(total)"):
        assert line in code
