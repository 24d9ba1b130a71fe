"""A small simulated shop, and the digest of all that happens in it."""

import hashlib
from typing import Any

import numpy as np

from d2c_mlops.data.simulate import Shop

SMALL: dict[str, Any] = {"regime": "fashion", "seed": 3, "days": 60, "orders": 25.0, "products": 40}


def digest_of(shop: Shop) -> str:
    """Return the digest of all integers of a shop's days: numbers, times, codes, money in minor units."""
    digest = hashlib.sha256()
    for number in range(shop.world.days):
        day = shop.history.full_day(number)
        for columns in (day.shown.orders, day.shown.lines, day.others.orders, day.sold.lost):
            for name in sorted(columns):
                digest.update(np.ascontiguousarray(columns[name].astype("<i8")).tobytes())
    for name in ("number", "employees", "outcome", "won"):
        digest.update(np.ascontiguousarray(shop.history.leads()[name].astype("<i8")).tobytes())
    return digest.hexdigest()
