"""Names of products as evidence of an old catalogue."""

from __future__ import annotations

from datetime import date

import pandas as pd

from d2c_mlops.data.quality.inputs import Inputs
from d2c_mlops.data.quality.staleness import old_catalogue

KINDS = ["shoes", "shirts", "lamps", "cups", "soaps", "towels"]


def catalogue(moved: dict[str, str]) -> pd.DataFrame:
    """Return 20 products of each kind in a category of its own; six of each moved kind stand in another category."""
    rows = [
        (f"{kind}-{n}", f"{kind} no {n}", moved.get(kind, kind) if n < 6 else kind) for kind in KINDS for n in range(20)
    ]
    return pd.DataFrame(rows, columns=["product_id", "product_name", "category"])


def findings_of(moved: dict[str, str]) -> list[str]:
    return [finding.severity for finding in old_catalogue(Inputs.of({"products": catalogue(moved)}, date(2026, 1, 1)))]


def test_a_group_of_products_in_another_category_is_found() -> None:
    assert findings_of({"shoes": "shirts"}) == ["severe"]


def test_a_catalogue_whose_names_overlap_everywhere_is_one_remark() -> None:
    assert findings_of(dict(zip(KINDS, KINDS[1:] + KINDS[:1], strict=True))) == ["info"]
