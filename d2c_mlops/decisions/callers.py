"""Callers whose predictions become decisions: batches, and API keys that have the scope decide or that the policy lists."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from d2c_mlops.ledger.schema import BATCH
from d2c_mlops.serving.http.api_keys import DECIDE, Key, read_keys

SHOWN = 5  # names that a message repeats


@dataclass(frozen=True)
class Callers:
    """The API keys of a model, and those of them whose predictions become decisions."""

    permitted: frozenset[str]  # ids as the ledger has them, BATCH among them
    names: Mapping[str, str] = field(default_factory=dict)  # of all keys, by id
    unknown: tuple[str, ...] = ()  # entries of `keys` in the policy that are no key of the model

    @classmethod
    def of(cls, model: str, policy_keys: Collection[str], file: Path, now: datetime) -> Callers:
        """Return the callers of a model at a moment; `named` are ids or names of keys that the policy lists.

        A revoked key causes no decision, also on what it asked before; an expired one does, as its successor has another id.
        Raises UsageError where the file of keys cannot be read.
        """
        keys = [key for key in read_keys(file).values() if key.permits(model)]
        able = frozenset(key.id for key in keys if _may_cause_decisions(key, policy_keys, now))
        key_names = {name for key in keys if not key.probes for name in (key.id, key.name)}
        unknown = tuple(name for name in policy_keys if name not in key_names)
        return cls(able | {BATCH}, {key.id: key.name for key in keys}, unknown)

    def names_text(self, ids: Collection[str]) -> str:
        """Return the names of some keys for a message."""
        names = sorted({self.names.get(id, id) for id in ids})
        return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _may_cause_decisions(key: Key, policy_keys: Collection[str], now: datetime) -> bool:
    if key.probes or key.state(now) == "revoked":
        return False
    return DECIDE in key.scopes or key.id in policy_keys or key.name in policy_keys
