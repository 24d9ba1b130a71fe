"""Which rows of a table a check concerns: one flag per row and check, in the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from d2c_mlops.data.quality.evidence import in_list
from d2c_mlops.data.quality.inputs import Inputs, InputTable
from d2c_mlops.data.quality.not_sales import conditions_of, products_that_are_no_goods
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, UsageError

Flags = npt.NDArray[np.bool_]
DUPLICATE = "exact_duplicate"


def conditions_by_check(inputs: Inputs, table: InputTable) -> dict[str, str]:
    """Return the condition of SQL of each check that concerns single rows of a table of sales."""
    if not table.rows or not (table.sells or table.has("order_id", "at")):
        return {}
    codes = products_that_are_no_goods(inputs, table)
    return conditions_of(inputs, table) | {
        f"product_{kind}": f"product_id IN {in_list(listed)}" for kind, listed in codes.items()
    }


def possible_checks(tables: Tables, table: str) -> list[str]:
    """Return the checks by which rows of a table can be told."""
    inputs = Inputs.of(tables, _after(tables))
    described = inputs.named(table)
    return [*(conditions_by_check(inputs, described) if described is not None else {}), DUPLICATE]


def flagged_rows(tables: Tables, table: str, checks: Sequence[str]) -> dict[str, Flags]:
    """Return the rows [rows of the table] of each check, in the order in which the checks are named.

    Raises UsageError for a check that concerns no single rows of this table.
    """
    frame = tables[table]
    inputs = Inputs.of(tables, _after(tables))
    described = inputs.named(table)
    conditions = conditions_by_check(inputs, described) if described is not None else {}
    unknown = [check for check in checks if check not in conditions and check != DUPLICATE]
    if unknown:
        raise UsageError(
            f"no rows of {table!r} can be put into quarantine by {', '.join(unknown)}",
            next=f"use one of: {', '.join([*conditions, DUPLICATE]) or 'none for this table'}",
        )
    flags: dict[str, Flags] = {}
    for check in checks:
        if check == DUPLICATE:
            flags[check] = frame.duplicated().to_numpy(bool)
            continue
        assert described is not None
        key = next(role for role in ("order_id", "product_id") if role in described.roles)
        answer = inputs.query(
            f"SELECT coalesce({conditions[check]}, false) AS flag, {key} AS key FROM {described.lines}"
        )
        keys = frame[described.roles[key]].astype(str)
        if len(answer) != len(frame) or (answer["key"].astype(str).to_numpy() != keys.to_numpy()).any():
            raise DataRefused(
                f"the rows of {table!r} are not read in the order of their files", next="run the command again"
            )
        flags[check] = answer["flag"].to_numpy(bool)
    return flags


def _after(tables: Tables) -> date:
    manifest = tables.manifest
    day = manifest.last_day if manifest is not None else None
    return (day or date(2100, 1, 1)) + timedelta(days=3660)
