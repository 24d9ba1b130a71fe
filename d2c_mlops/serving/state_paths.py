"""Paths of services on this machine: state folder, API key file and log secret."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from d2c_mlops.file_lock import lock
from d2c_mlops.private_files import private_folder
from d2c_mlops.settings import Settings


def service_environment(model: str, settings: Settings) -> dict[str, str]:
    """Return the environment of a service on this machine: paths of its state, keys and log secret in the store."""
    home = settings.store / "serving"
    service_settings = settings.service
    local_settings = replace(
        service_settings,
        state=str(state_folder(model, settings)),
        keys=str(keys_file(settings)),
        rollout=str(settings.root / service_settings.rollout) if service_settings.rollout else "",
        log_secret=service_settings.log_secret or _read_or_create_secret(home / "log.secret"),
    )
    return local_settings.environment()


def state_folder(model: str, settings: Settings) -> Path:
    """Return the folder of a service on this machine for its prediction log and rollout state."""
    state = settings.service.state
    return settings.root / state if state else settings.store / "serving" / model


def keys_file(settings: Settings) -> Path:
    """Return the path of the file with the hashes of API keys."""
    keys = settings.service.keys
    return settings.root / keys if keys else settings.store / "serving" / "keys.json"


def log_secret(settings: Settings) -> str:
    """Return the secret with which services on this machine hash personal fields; empty when there is none yet."""
    file = settings.store / "serving" / "log.secret"
    return settings.service.log_secret or (file.read_text(encoding="utf-8") if file.exists() else "")


def _read_or_create_secret(file: Path) -> str:
    """Return the store's own secret, created on first use."""
    private_folder(file.parent)
    with lock(file.parent, "the log's secret", 10.0):
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(32), encoding="utf-8")
        return file.read_text(encoding="utf-8")
