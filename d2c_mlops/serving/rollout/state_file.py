"""State of a rollout: the share of keys that the challenger answers, and the file that services follow."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, date, datetime
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from d2c_mlops.errors import UsageError
from d2c_mlops.private_files import private_folder
from d2c_mlops.settings import RolloutSettings

FILE = "rollout.json"
MODES = ("share", "shadow", "off")


@dataclass(frozen=True)
class Rollout:
    """Rollout state of a model: champion, challenger, mode, share and guardrails."""

    model: str
    champion: int
    challenger: int | None = None
    mode: str = (
        "off"  # share: the challenger answers a share of the keys; shadow: it predicts without answering callers; off
    )
    share: float = 0.0  # of the keys, 0..1
    salt: str = ""  # the same for all stages of a rollout, so that keys stay with the challenger when the share grows
    stage: str = ""  # id of this stage of the rollout
    at: str = ""
    by: str = ""
    reason: str = ""
    guards: RolloutSettings = field(default_factory=RolloutSettings)

    @property
    def in_progress(self) -> bool:
        """Whether a rollout is in progress."""
        return self.challenger is not None and self.mode != "off"

    @cached_property
    def chooses(self) -> Callable[[Any], bool]:
        """Function that returns whether the challenger answers a key."""
        if self.challenger is None or self.mode != "share" or self.share <= 0:
            return lambda value: False
        start, limit = _hash_start(self.model, self.salt), int(self.share * 2**64)

        def chooses(value: Any) -> bool:
            text = key_text(value)
            if text is None:
                return False
            hashed = start.copy()
            hashed.update(text.encode("utf-8", "surrogatepass"))
            return int.from_bytes(hashed.digest()) < limit

        return chooses

    def to_dict(self) -> dict[str, Any]:
        """Return the rollout as JSON values."""
        return asdict(self)


def _hash_start(model: str, salt: str) -> Any:
    return blake2b(f"{model}\0{salt}\0".encode(), digest_size=8)


def key_position(model: str, salt: str, key: Any) -> float | None:
    """Return the position of a key in [0, 1): the challenger answers positions below the share. None for a missing key."""
    text = key_text(key)
    if text is None:
        return None
    hashed = _hash_start(model, salt)
    hashed.update(text.encode("utf-8", "surrogatepass"))
    return (int.from_bytes(hashed.digest()) >> 11) / 2**53


def key_text(value: Any) -> str | None:
    """Return a key as the text that is hashed: the same for a request, a table and a command line. None when missing."""
    if value is None or value == "" or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def read_state(file: Path) -> Rollout:
    """Return the state in a file. Raises UsageError when it is not a rollout file, FileNotFoundError when there is none."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        names = {field.name for field in fields(Rollout)}
        limits = {k: v for k, v in values.get("guards", {}).items() if k in {f.name for f in fields(RolloutSettings)}}
        known_values = {k: v for k, v in values.items() if k in names}
        rollout = Rollout(**{**known_values, "guards": RolloutSettings(**limits)})
        sound = rollout.mode in MODES and 0.0 <= rollout.share <= 1.0 and type(rollout.champion) is int
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as err:
        raise UsageError(f"this is not a rollout file ({err})", where=str(file)) from None
    if not sound:
        raise UsageError(
            "this is not a rollout file (mode, share or champion is not valid)",
            where=str(file),
            next="`d2c rollout MODEL`",
        )
    return rollout


def write_state(file: Path, rollout: Rollout) -> None:
    """Replace the file atomically, so that services read the old or the new state."""
    write_atomically(file, json.dumps(rollout.to_dict(), indent=1).encode())


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file atomically."""
    private_folder(file.parent)
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def host_id() -> str:
    """Return an id of this machine or container, within which process ids are valid."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()


def marker_file(folder: Path, stage: str) -> Path:
    """Return the marker file of an aborted stage."""
    return folder / f"aborted-{stage}.json"


def write_marker(folder: Path, stage: str, event: dict[str, Any]) -> bool:
    """Write the marker of an aborted stage with its reason; False when another worker has written it."""
    file = marker_file(folder, stage)
    draft = folder / f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    private_folder(folder)
    try:
        draft.write_text(json.dumps(event), encoding="utf-8")
        os.link(draft, file)  # only one can
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def ended_rollout(rollout: Rollout) -> Rollout:
    """Return the state with the rollout ended."""
    return replace(rollout, mode="off", share=0.0)


BEAT = 5.0  # seconds between two heartbeats, for processes that share the folder but not the machine


def state_paths(rollout: str, state: str, model: str) -> tuple[Path | None, Path | None]:
    """Return the state file of a model's service and the folder shared by its workers, by the service's settings."""
    folder = Path(state) / "rollout" / model if state else None
    return (Path(rollout.replace("{model}", model)) if rollout else folder / FILE if folder else None), folder
