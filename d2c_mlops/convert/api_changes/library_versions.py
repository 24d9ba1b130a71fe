"""The library versions that an author can have used, inferred from the notebook's Python version."""

from __future__ import annotations

import re
from collections.abc import Mapping

from d2c_mlops.convert.api_changes.change import is_version_at_least

NEWEST: Mapping[tuple[int, int], Mapping[str, str]] = {  # the last releases that still ran on a Python
    (2, 7): {"pandas": "0.24", "scikit-learn": "0.20", "numpy": "1.16", "statsmodels": "0.10"},
    (3, 5): {"pandas": "0.25", "scikit-learn": "0.22", "numpy": "1.18", "statsmodels": "0.12"},
    (3, 6): {"pandas": "1.1", "scikit-learn": "0.24", "numpy": "1.19", "statsmodels": "0.12"},
    (3, 7): {"pandas": "1.3", "scikit-learn": "1.0", "numpy": "1.21", "statsmodels": "0.13"},
    (3, 8): {"pandas": "2.0", "scikit-learn": "1.3", "numpy": "1.24", "statsmodels": "0.14"},
    (3, 9): {"pandas": "2.3", "scikit-learn": "1.6", "numpy": "2.0", "statsmodels": "0.14"},
}


def notebook_python_version(metadata: Mapping[str, object]) -> tuple[int, int] | None:
    """Return the Python version that a notebook was saved with; None if the notebook does not contain it."""
    info = metadata.get("language_info")
    version = info.get("version") if isinstance(info, Mapping) else None
    match = re.match(r"(\d+)\.(\d+)", version) if isinstance(version, str) else None
    return (int(match[1]), int(match[2])) if match else None


def before_version(metadata: Mapping[str, object], library: str, version: str) -> bool:
    """Whether the author certainly had a release of a library older than `version`."""
    python = notebook_python_version(metadata)
    if python is None:
        return False
    known_limits = [limits for limit, limits in NEWEST.items() if python <= limit and library in limits]
    return bool(known_limits) and not is_version_at_least(known_limits[0][library], version)
