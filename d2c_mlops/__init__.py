"""Modules:

- `d2c_mlops.decisions.rules`: Rules over a prediction's inputs and outputs: comparisons, arithmetic, and, or, not; nothing that could run code.
- `d2c_mlops.models.converted.recorded_steps`: Replay on new records what a notebook's preparation learned from the training data.
- `d2c_mlops.models.core.contract_changes`: Compare two contracts: which differences break callers, and which version number the new contract needs.
- `d2c_mlops.models.lead_scoring.learning`: Learn a lead score from a leads table: leakage guard, contract, score sheet, fallback with few won leads, and its JSON form.
- `d2c_mlops.models.lead_scoring.outputs`: Lead scores as a frame for a batch and as records for a service, equal to the last digit.
- `d2c_mlops.serving.log.files`: Files of the prediction log: memory-mapped segments that survive a crash, rotated in the background."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from d2c_mlops import former_names

try:
    __version__ = version("d2c_mlops")
except PackageNotFoundError:  # a source tree that is on the path without being installed (a Bento)
    __version__ = "0+source"

former_names.install()

VERBS = (
    "check",
    "containerize",
    "decide",
    "decision_stats",
    "ingest",
    "list_decisions",
    "loadtest",
    "package",
    "promote",
    "rollback",
    "rollout",
    "run",
    "run_decisions",
    "score",
    "serve",
    "served",
)


def __getattr__(name: str) -> Any:
    """Import a verb when it is asked for: the package itself stays quick to import."""
    if name in VERBS:
        return getattr(import_module("d2c_mlops.verbs"), name)
    raise AttributeError(f"module 'd2c_mlops' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *VERBS]
