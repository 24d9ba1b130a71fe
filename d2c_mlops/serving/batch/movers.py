"""Which answers changed most since the version before, and why, as a file for a person."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from d2c_mlops.data.store import write_atomic
from d2c_mlops.errors import UsageError
from d2c_mlops.formulas import csv_text, escape_formulas
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.registry.versions import Version, all_versions, load_version
from d2c_mlops.settings import Settings


def movers_since(version: Version, settings: Settings) -> tuple[Version, pd.DataFrame]:
    """Return the version before `version` and what changed most since then. Raises UsageError where there is nothing to compare."""
    earlier = [v for v in all_versions(Ledger.of(settings), version.model) if v.version < version.version]
    if not earlier:
        raise UsageError(
            f"{version.model} has no version before {version.version} to compare with",
            where="--movers",
            next=f"leave --movers out, or run `d2c run train -p model={version.model}` once more",
        )
    former = earlier[0]
    moved = load_version(version, settings).movers(load_version(former, settings))
    if moved is None:
        raise UsageError(
            f"versions {former.version} and {version.version} of {version.model} cannot be compared",
            where="--movers",
            next="leave --movers out: they do not forecast the same kind of series",
        )
    return former, moved


def write_movers(version: Version, settings: Settings, path: Path) -> tuple[Version, pd.DataFrame]:
    """Write what `movers_since` returns into a CSV file, as a whole or not at all, and return it."""
    if path.suffix != ".csv":
        raise UsageError("top movers are written into a .csv file", where=str(path), next="name it movers.csv")
    former, moved = movers_since(version, settings)
    write_atomic(path, csv_text(escape_formulas(moved)).encode("utf-8-sig"))  # Excel reads UTF-8 by its mark
    return former, moved
