"""Reload settings.ini while a scheduler is running."""

from __future__ import annotations

from collections.abc import Callable

from d2c_mlops.errors import SettingsError
from d2c_mlops.settings import FILE, Settings, find_settings_file, has_own_section


def reload_jobs(
    reload: Callable[[], Settings], current_settings: Settings, had_jobs: bool, had_section: bool = True
) -> Settings:
    """Return the current settings.

    Raises SettingsError if the file is empty, missing or without its required sections: an
    editor or a deployment may have been interrupted, and a scheduler without jobs would stay silent.
    """
    file = current_settings.root.resolve() / FILE
    settings = reload() if find_settings_file(current_settings.root) == file else None
    if settings is None or settings.root.resolve() != current_settings.root.resolve():
        lost = "is missing, or has no section [d2c]"
    elif had_section and not has_own_section(file):
        lost = "has no section [d2c]"
    elif had_jobs and not settings.jobs:
        lost = "has no more sections [schedule:NAME]"
    else:
        return settings
    raise SettingsError(
        f"the file {lost}", where=str(file), next="restore the file; to run no jobs, stop the scheduler"
    )
