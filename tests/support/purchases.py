"""Tables of a few orders."""

from typing import Any

import pandas as pd

from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate


def bought(rows: list[dict[str, Any]], products: pd.DataFrame | None = None, valid: bool = True) -> Tables:
    """Return tables with one order of one line per row, filled up with what does not matter."""
    usual: dict[str, Any] = {"customer_id": "c", "channel": "web", "quantity": 1, "returned_quantity": 0}
    usual |= {"cancelled": False, "unit_price": 10, "discount": 0, "currency": "EUR", "product_id": "mug"}
    full = [{"order_id": str(i), "line_no": 1, "source": "test", **usual, **row} for i, row in enumerate(rows)]
    frame = pd.DataFrame(full)
    heads = frame.drop_duplicates("order_id")[
        ["order_id", "customer_id", "channel", "currency", "ordered_at", "source"]
    ]
    lines = frame.drop(columns=["customer_id", "source"])
    if not valid:
        prices = frame["unit_price"].to_numpy(dtype=float)
        lines = validate("order_lines", lines.assign(unit_price=1.0)).assign(unit_price=prices)
    tables = {"orders": validate("orders", heads), "order_lines": validate("order_lines", lines) if valid else lines}
    return Tables(tables if products is None else {**tables, "products": validate("products", products)})


def on(day: str, **more: Any) -> dict[str, Any]:
    return {"ordered_at": f"2024-{day}T12:00", **more}
