"""Where services on this machine have their state, API keys and the secret of their log."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from d2c_mlops.file_lock import lock
from d2c_mlops.private_files import private_folder
from d2c_mlops.settings import Settings


def service_environment(model: str, settings: Settings) -> dict[str, str]:
    """Return what makes a service on this machine find its state, its keys and the secret of its log in the store."""
    home = settings.store / "serving"
    own = settings.service
    held = replace(
        own,
        state=str(state_folder(model, settings)),
        keys=str(keys_file(settings)),
        rollout=str(settings.root / own.rollout) if own.rollout else "",
        log_secret=own.log_secret or _secret(home / "log.secret"),
    )
    return held.environment()


def state_folder(model: str, settings: Settings) -> Path:
    """Return where a service on this machine keeps its log and what it knows of a rollout."""
    own = settings.service.state
    return settings.root / own if own else settings.store / "serving" / model


def keys_file(settings: Settings) -> Path:
    """Return where the hashes of the API keys are."""
    own = settings.service.keys
    return settings.root / own if own else settings.store / "serving" / "keys.json"


def log_secret(settings: Settings) -> str:
    """Return the secret under which services on this machine hash personal fields; empty when none was made yet."""
    file = settings.store / "serving" / "log.secret"
    return settings.service.log_secret or (file.read_text(encoding="utf-8") if file.exists() else "")


def _secret(file: Path) -> str:
    """Return the store's own secret, made on first use."""
    private_folder(file.parent)
    with lock(file.parent, "the log's secret", 10.0):
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(32), encoding="utf-8")
        return file.read_text(encoding="utf-8")
