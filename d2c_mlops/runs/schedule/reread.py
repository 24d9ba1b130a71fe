"""settings.ini read again while a scheduler runs by it."""

from __future__ import annotations

from collections.abc import Callable

from d2c_mlops.errors import SettingsError
from d2c_mlops.settings import FILE, Settings, find, has_own_section


def reread(reload: Callable[[], Settings], before: Settings, had_jobs: bool, had_section: bool = True) -> Settings:
    """Return the settings as they are now.

    Raises SettingsError for a file that was emptied, that is gone, or that has lost the sections which make it one: an
    editor or a deployment may have been interrupted, and a scheduler without jobs would say nothing more.
    """
    file = before.root.resolve() / FILE
    settings = reload() if find(before.root) == file else None
    if settings is None or settings.root.resolve() != before.root.resolve():
        lost = "is gone, or has lost its section [d2c]"
    elif had_section and not has_own_section(file):
        lost = "has lost its section [d2c]"
    elif had_jobs and not settings.jobs:
        lost = "has lost all its sections [schedule:NAME]"
    else:
        return settings
    raise SettingsError(f"the file {lost}", where=str(file), next="write it again; to run nothing, stop the scheduler")
