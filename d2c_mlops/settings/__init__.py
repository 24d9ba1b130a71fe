"""Typed settings from settings.ini and the environment; all errors are reported at once."""

from typing import Any

from d2c_mlops import former_names
from d2c_mlops.settings.loading import (
    FILE,
    Settings,
    find_settings_file,
    has_own_section,
    load_settings,
    service_settings,
)
from d2c_mlops.settings.schema import (
    ALERT_OPTIONS,
    MODEL_OPTIONS,
    OPTIONS,
    ROLLOUT_OPTIONS,
    SERVICE_OPTIONS,
    AlertSettings,
    JobSettings,
    PolicySettings,
    RolloutSettings,
    ServiceSettings,
)

__all__ = [
    "ALERT_OPTIONS",
    "FILE",
    "MODEL_OPTIONS",
    "OPTIONS",
    "ROLLOUT_OPTIONS",
    "SERVICE_OPTIONS",
    "AlertSettings",
    "JobSettings",
    "PolicySettings",
    "RolloutSettings",
    "ServiceSettings",
    "Settings",
    "find_settings_file",
    "has_own_section",
    "load_settings",
    "service_settings",
]


def __getattr__(name: str) -> Any:
    """Return what this package exported under a former name."""
    return former_names.attribute(__name__, name)
