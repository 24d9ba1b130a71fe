"""API keys: scoped per model, with expiry; only hashes are stored, and changes apply without a restart."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from d2c_mlops.errors import UsageError
from d2c_mlops.file_lock import lock
from d2c_mlops.private_files import private_folder

PREFIX = "d2c"
EVERY = "*"
ASK, DECIDE, PROBE = SCOPES = (
    "ask",
    "decide",
    "probe",
)  # ask: predict; decide: cause and make decisions; probe: predict with synthetic records
HASH = re.compile(r"[0-9a-f]{64}")
LOOK = 1.0  # seconds between two checks of the file


@dataclass(frozen=True)
class Key:
    """Stored data of an API key. Its secret has 256 random bits, so a plain SHA-256 hash is safe."""

    id: str
    name: str  # name of the caller
    sha256: str
    models: tuple[str, ...]
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    scopes: tuple[str, ...] = (ASK,)

    def state(self, now: datetime) -> str:
        """Return active, expired or revoked."""
        if self.revoked_at is not None and datetime.fromisoformat(self.revoked_at) <= now:
            return "revoked"
        return "expired" if self.expires_at is not None and datetime.fromisoformat(self.expires_at) <= now else "active"

    @property
    def probes(self) -> bool:
        """Whether calls with the key are probes: they cause no decision and are excluded from statistics."""
        return PROBE in self.scopes

    def permits(self, model: str) -> bool:
        """Return whether the key is for a model."""
        return EVERY in self.models or model in self.models

    def to_dict(self) -> dict[str, Any]:
        """Return the public fields of the key."""
        values = asdict(self)
        del values["sha256"]
        values |= {"models": list(self.models), "scopes": list(self.scopes)}
        return values | {"state": self.state(datetime.now(UTC))}


def read_keys(file: Path) -> dict[str, Key]:
    """Return the keys of a file by id; none when there is no file. Raises UsageError when it is not an API key file."""
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))["keys"]
        return {entry["id"]: _checked_key(entry) for entry in listed}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise UsageError(f"this is not an API key file ({err})", where=str(file)) from None


def _checked_key(entry: dict[str, Any]) -> Key:
    """Return a key of the file; raises ValueError or TypeError for values that would fail, or permit more than they say, when it is used."""
    lists = {name: entry[name] for name in ("models", "scopes") if name in entry}
    for name, texts in lists.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"{name} of key {entry['id']} is not a list of texts")
    key = Key(**entry | {name: tuple(texts) for name, texts in lists.items()})
    if not HASH.fullmatch(key.sha256):
        raise ValueError(f"sha256 of key {key.id} is not a digest")
    key.state(datetime.now(UTC))
    return key


def create_key(
    file: Path,
    name: str,
    models: Sequence[str],
    *,
    now: datetime,
    lifetime: timedelta | None = None,
    scopes: Sequence[str] = (ASK,),
) -> tuple[Key, str]:
    """Add a key and return it with its token, which is shown once and never stored.

    Raises UsageError when the scope probe is combined with others: its calls would be ambiguous.
    """
    if PROBE in scopes and len(set(scopes)) > 1:
        others = ", ".join(scope for scope in scopes if scope != PROBE)
        raise UsageError(
            f"the scope {PROBE} cannot be combined with other scopes: {others}",
            where=f"--scope {PROBE}",
            next=f"create two keys: `d2c keys create {name} --scope {PROBE}` and one without it",
        )
    key, token = _new_key(name, models, now, lifetime, scopes)
    with _locked_keys(file) as keys:
        keys[key.id] = key
    return key, token


def revoke_key(file: Path, id: str, *, now: datetime) -> Key:
    """Revoke a key now; it stays listed. A key that was already revoked keeps its time."""
    with _locked_keys(file) as keys:
        key = _find_key(keys, id, file)
        if key.state(now) != "revoked":
            key = keys[id] = replace(key, revoked_at=now.isoformat())
    return key


def rotate_key(
    file: Path, id: str, *, now: datetime, grace: timedelta, lifetime: timedelta | None = None
) -> tuple[Key, str]:
    """Create a successor of a key; the old key stays valid until the grace period is over or it expires.

    Raises UsageError for an expired or revoked key.
    """
    with _locked_keys(file) as keys:
        old = _find_key(keys, id, file)
        if (state := old.state(now)) != "active":
            raise UsageError(
                f"key {id} of {old.name} is {state}", where=str(file), next=f"`d2c keys create {old.name}`"
            )
        end = now + grace
        if old.expires_at is not None:
            end = min(end, datetime.fromisoformat(old.expires_at))
        keys[id] = replace(old, expires_at=end.isoformat())
        key, token = _new_key(old.name, old.models, now, lifetime, old.scopes)
        keys[key.id] = key
    return key, token


class Keyring:
    """The API keys that a service accepts; the file is read again when it changes.

    Raises UsageError where the file cannot be read at the start: without keys every caller would be accepted.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.looked = 0.0
        self.stamp: tuple[int, ...] = ()  # of the file that was read
        self.keys: dict[str, Key] = {}
        self.damaged = False
        self.there = False  # whether a file existed: if it is empty now, every caller is refused
        self._read_keys()

    def requires_keys(self) -> bool:
        """Return whether callers need a key: an API key file exists or existed, even if it is empty now."""
        self._reload_after_interval()
        return self.there or self.damaged

    def reload_if_changed(self) -> None:
        """Read the file when it changed; a damaged or missing file leaves the keys unchanged."""
        try:
            self._read_keys()
        except (OSError, UsageError):
            self.damaged = True

    def _reload_after_interval(self) -> None:
        if time.monotonic() - self.looked > LOOK:
            self.reload_if_changed()

    def _read_keys(self) -> None:
        self.looked = time.monotonic()
        try:
            status = self.file.stat()
        except FileNotFoundError:
            self.stamp = ()
            self.there = self.there or self.file.is_symlink()  # a link to nothing: its file is not mounted yet
            return
        self.there = True
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)
        if stamp != self.stamp:
            self.keys, self.stamp = read_keys(self.file), stamp
        self.damaged = False

    def refusal(self, token: str | None, model: str, now: datetime, scope: str = ASK) -> tuple[str | None, str | None]:
        """Return the id of the key (None when unknown) and why it is refused (None when accepted)."""
        key, reason = self.key_of_token(token, now)
        if key is not None and reason is None:
            reason = refusal_reason(key, model, scope)
        return key.id if key else None, reason

    def key_of_token(self, token: str | None, now: datetime) -> tuple[Key | None, str | None]:
        """Return the key of a token (None when unknown) and why it is not valid (None when it is)."""
        self._reload_after_interval()
        if not token:
            return None, "no key"
        prefix, _, id_and_secret = token.partition("_")
        id, _, secret = id_and_secret.partition("_")
        key = self.keys.get(id)
        expected_hash = key.sha256 if key else _key_hash("")
        right = hmac.compare_digest(_key_hash(secret), expected_hash)
        if prefix != PREFIX or key is None or not right:
            return None, "wrong key"
        state = key.state(now)
        return key, f"{state} key" if state != "active" else None

    def has_valid_key(self, model: str, now: datetime) -> bool:
        """Return whether a valid key for a model exists."""
        return any(
            ASK in key.scopes and key.permits(model) and key.state(now) == "active" for key in self.keys.values()
        )


def refusal_reason(key: Key, model: str, scope: str) -> str | None:
    """Return why a valid key is refused for a model and a scope; None when it is accepted."""
    if not key.permits(model):
        return "key of another model"
    return None if scope in key.scopes or (scope == ASK and key.probes) else f"key without the scope {scope}"


def _key_hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _key_to_dict(key: Key) -> dict[str, Any]:
    """Return a key as JSON values; without scopes it stays readable for older services."""
    values = asdict(key)
    if key.scopes == (ASK,):
        del values["scopes"]
    return values


def _new_key(
    name: str, models: Sequence[str], now: datetime, lifetime: timedelta | None, scopes: Sequence[str]
) -> tuple[Key, str]:
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    until = (now + lifetime).isoformat() if lifetime is not None else None
    key = Key(id, name, _key_hash(secret), tuple(models), now.isoformat(), until, scopes=tuple(scopes))
    return key, f"{PREFIX}_{id}_{secret}"


def _find_key(keys: dict[str, Key], id: str, file: Path) -> Key:
    if id not in keys:
        raise UsageError(f"there is no key {id!r}", where=str(file), next="`d2c keys list`")
    return keys[id]


@contextmanager
def _locked_keys(file: Path) -> Iterator[dict[str, Key]]:
    """Yield the keys for a change under a lock, then replace the file as a whole, readable by its owner only."""
    private_folder(file.parent)
    with lock(file.parent, "keys", 10.0):
        keys = read_keys(file)
        yield keys
        draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        text = json.dumps({"keys": [_key_to_dict(key) for key in keys.values()]}, indent=1)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
            out.write(text)
        draft.replace(file)
