"""What tests of runs and schedules share."""

from pathlib import Path

import pytest

from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.execute import prepare_job
from d2c_mlops.runs.execution.run_rows import Run, close_row, find_run, open_row
from d2c_mlops.settings import Settings, load_settings
from support.notebooks import PARAMETERS, RECORD, write
from support.scheduling import JOB, NOW


@pytest.fixture
def scheduled(project: Path) -> Settings:
    write(project / "nb.ipynb", PARAMETERS, RECORD)
    with (project / "settings.ini").open("a") as file:
        file.write(JOB)
    return load_settings(project, environ={})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Put runs on record without a kernel; the errors in the list are raised first, one a run."""
    errors: list[Exception] = []

    def fake(name: str, given: dict, settings: Settings, *, ledger: Ledger, slot_fields: dict, **_: object) -> Run:
        job = prepare_job(name, given, settings)
        open_row(ledger, {**job.row, **slot_fields, "started_at": NOW})
        error = errors.pop(0) if errors else None
        ended = {"status": "failed", "exit_code": error.exit_code} if error else {"status": "succeeded", "exit_code": 0}
        close_row(ledger, job.id, {**ended, "ended_at": NOW, "recorded": dict(job.parameters)})
        if error:
            raise error
        return find_run(ledger, job.id)

    monkeypatch.setattr("d2c_mlops.runs.schedule.schedule.run", fake)
    return errors
