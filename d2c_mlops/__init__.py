"""Take a retail notebook to production and keep it earning money.

Models are written in notebooks, trained on record, and promoted by a gate only if they beat what the business does today. The live model is
one HTTP service. What it predicts becomes decisions, which people or rules approve.

Each command of `d2c` is a call with the same name and the same errors:

    import d2c_mlops as d2c

    d2c.check("old.ipynb")                        what in a notebook would break production
    d2c.ingest("orders.csv", "shop")              read a source into a dataset
    d2c.run("train", model="demand", data="shop") run a notebook on record; this one trains a version
    d2c.promote("demand")                         make it the champion, if the gate agrees
    d2c.rollback("demand")                        return to the previous champion
    d2c.package("demand")                         build the champion's Bento
    d2c.containerize("demand")                    build its image
    d2c.serve("demand")                           serve it over HTTP, within a `with` block
    d2c.loadtest("demand")                        measure its service
    d2c.score("demand", "in.csv", "out.parquet")  predict a whole table
    d2c.rollout("demand", percent=10)             serve a share of the keys with the next version
    d2c.served("demand", "CHEESE")                which version served a key
    d2c.run_decisions("price")                    turn predictions into decisions and apply them
    d2c.list_decisions("price")                   which decisions wait for approval
    d2c.decide("id", "approve")                   approve, reject or edit a decision
    d2c.decision_stats("price")                   time from prediction to action
    d2c.monitor("demand")                         look at a live model: seven metrics, two drifts
    d2c.retrain("demand")                         train it again where its policy has a reason
    d2c.replay("demand")                          what retraining policies would have cost
    d2c.list_alerts("demand")                     which alerts are open
    d2c.ack_alert("id")                           take an alert on
    d2c.snooze_alert("id", until)                 send no messages about an alert until a time
    d2c.close_alert("id", "reason")               close an alert
    d2c.deliver_alerts()                          send the messages about alerts that are due
    d2c.watch()                                   check that scheduler, monitors and data keep arriving
    d2c.forget("C-1001")                          erase or pseudonymise a customer

Their arguments are listed below. `d2c --help` lists all commands.

Modules:

- `d2c_mlops.decisions.rules`: Rules over a prediction's inputs and outputs: comparisons, arithmetic, and, or, not; nothing that could run code.
- `d2c_mlops.models.converted.recorded_steps`: Replay on new records what a notebook's preparation learned from the training data.
- `d2c_mlops.models.core.contract_changes`: Compare two contracts: which differences break callers, and which version number the new contract needs.
- `d2c_mlops.models.lead_scoring.learning`: Learn a lead score from a leads table: leakage guard, contract, score sheet, fallback with few won leads, and its JSON form.
- `d2c_mlops.models.lead_scoring.outputs`: Lead scores as a frame for a batch and as records for a service, equal to the last digit.
- `d2c_mlops.serving.log.log_segments`: Files of the prediction log: memory-mapped segments that survive a crash, rotated in the background."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from d2c_mlops import former_names

try:
    __version__ = version("d2c_mlops")
except PackageNotFoundError:  # a source tree that is on the path without being installed (a Bento)
    __version__ = "0+source"

# nbdev-export lists the modules whose docstrings are long; who asks for help wants the text before that list.
__doc__ = (__doc__ or "").partition("\n\nModules:")[0]

former_names.install()

VERBS = (
    "ack_alert",
    "check",
    "close_alert",
    "containerize",
    "decide",
    "decision_stats",
    "deliver_alerts",
    "forget",
    "ingest",
    "list_alerts",
    "list_decisions",
    "loadtest",
    "monitor",
    "package",
    "promote",
    "replay",
    "retrain",
    "rollback",
    "rollout",
    "run",
    "run_decisions",
    "score",
    "serve",
    "served",
    "snooze_alert",
    "watch",
)

__all__ = ["__version__", *VERBS]


def __getattr__(name: str) -> Any:
    """Import a verb when it is asked for: the package itself stays quick to import."""
    if name in VERBS:
        return getattr(import_module("d2c_mlops.verbs"), name)
    raise AttributeError(f"module 'd2c_mlops' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *VERBS]
