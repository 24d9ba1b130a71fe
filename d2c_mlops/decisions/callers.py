"""Callers whose predictions become decisions: batches, and API keys that have the scope decide or that the policy lists."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from d2c_mlops.ledger.schema import BATCH
from d2c_mlops.serving.http.api_keys import DECIDE, Key, read

SHOWN = 5  # names that a message repeats


@dataclass(frozen=True)
class Callers:
    """The API keys of a model, and those of them whose predictions become decisions."""

    permitted: frozenset[str]  # ids as the ledger has them, BATCH among them
    names: Mapping[str, str] = field(default_factory=dict)  # of all keys, by id
    unknown: tuple[str, ...] = ()  # entries of `keys` in the policy that are no key of the model

    @classmethod
    def of(cls, model: str, named: Collection[str], file: Path, now: datetime) -> Callers:
        """Return the callers of a model at a moment; `named` are ids or names of keys that the policy lists.

        A revoked key causes no decision, also on what it asked before; an expired one does, as its successor has another id.
        Raises UsageError where the file of keys cannot be read.
        """
        keys = [key for key in read(file).values() if key.opens(model)]
        able = frozenset(key.id for key in keys if _able(key, named, now))
        known = {name for key in keys if not key.probes for name in (key.id, key.name)}
        unknown = tuple(name for name in named if name not in known)
        return cls(able | {BATCH}, {key.id: key.name for key in keys}, unknown)

    def shown(self, ids: Collection[str]) -> str:
        """Return the names of some keys for a message."""
        names = sorted({self.names.get(id, id) for id in ids})
        return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _able(key: Key, named: Collection[str], now: datetime) -> bool:
    if key.probes or key.state(now) == "revoked":
        return False
    return DECIDE in key.scopes or key.id in named or key.name in named
