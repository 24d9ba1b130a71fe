"""What a scheduler does beside its runs, each minute: its heartbeat, alerts about failed jobs, escalations, and messages that are due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from d2c_mlops.errors import D2CError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.operations.alerts import advance_alerts
from d2c_mlops.operations.delivery import deliver
from d2c_mlops.operations.heartbeat import SCHEDULER, heartbeat
from d2c_mlops.operations.job_failures import observe_jobs
from d2c_mlops.settings import Settings


@dataclass
class Upkeep:
    """The work of a minute; the same failure is logged once until it changes."""

    log: Callable[[str], None] = print
    _logged: tuple[str, ...] = ()

    def __call__(self, ledger: Ledger, settings: Settings, now: datetime) -> None:
        """Do the work of a minute. Raises nothing: failures are logged."""
        lines: list[str] = []
        heartbeat(ledger, settings, SCHEDULER, now=now, log=lines.append)
        try:
            observe_jobs(ledger, settings, now)
            advance_alerts(ledger, settings, now)
            deliver(ledger, settings, clock=lambda: now, log=lines.append)
        except D2CError as err:
            lines.append(f"alerts: {err.what}")
        for line in lines:
            if line not in self._logged:
                self.log(line)
        self._logged = tuple(lines)
