"""A model that is retrained by its policy: its project, trainings without a kernel, and processes that are killed."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import func, select

from d2c_mlops.data.simulate import shop
from d2c_mlops.data.store import write_dataset
from d2c_mlops.errors import D2CError
from d2c_mlops.ledger.schema import promotions, retrainings, runs, versions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.operations.retraining.retrain import RetrainingLook, retrain
from d2c_mlops.operations.retraining.retraining_rows import Retraining, retraining_history
from d2c_mlops.registry.artifacts import version_of_alias
from d2c_mlops.registry.promotion_history import champion_at_time
from d2c_mlops.registry.versions import new_model, register
from d2c_mlops.runs.execution.execute import prepare_job
from d2c_mlops.runs.execution.run_rows import Run, close_row, find_run, open_row
from d2c_mlops.serving.rollout.rollout_history import current_rollout, state_file_of
from d2c_mlops.serving.rollout.state_file import read_state
from d2c_mlops.settings import ModelSettings, RolloutSettings, Settings

MODEL, AS_OF = "mean_units", date(2023, 12, 31)
TABLES = shop(seed=1)
DAY = timedelta(days=1)


def retrained(settings: Settings, retrain: str = "weekly", release: str = "champion", **options: Any) -> Settings:
    """Return the settings of a model that is retrained, with its dataset in the store."""
    params = {name: str(value) for name, value in options.pop("params", {}).items()}
    section = ModelSettings(
        MODEL, data="shop", retrain=retrain, release=release, release_after="0d", params=params, **options
    )
    if not (settings.store / "data" / "shop").exists():
        write_dataset(
            settings.store, "shop", dict(TABLES), source="simulated", layout="canonical", created_at=datetime.now(UTC)
        )
    return replace(settings, models={MODEL: section}, rollout=RolloutSettings(min_answers=0))


def trained_here(errors: list[D2CError]) -> Callable[..., Run]:
    """Return a `run` that trains in this process, without a kernel; the errors in the list are raised first, one a run."""

    def run(name: str, parameters: dict, settings: Settings, *, ledger: Ledger, by: str, **_: object) -> Run:
        job = prepare_job(name, parameters, settings)
        open_row(ledger, {**job.row, "started_by": by, "started_at": datetime.now(UTC)})
        if errors:
            error = errors.pop(0)
            close_row(ledger, job.id, {"status": "failed", "ended_at": datetime.now(UTC), "exit_code": error.exit_code})
            raise error
        train(settings, job.id)
        close_row(ledger, job.id, {"status": "succeeded", "ended_at": datetime.now(UTC), "exit_code": 0})
        return find_run(ledger, job.id)

    return run


def train(settings: Settings, run_id: str) -> None:
    """Register a version of the model, of a run."""
    from d2c_mlops.data.manifest import read_manifest

    model = new_model(MODEL, settings, {})
    evaluation = model.evaluate(TABLES, AS_OF)
    inputs = [{"name": "shop", "digest": read_manifest(settings.store, "shop").digest}]
    fitted = model.fit(TABLES, AS_OF)
    register(MODEL, fitted, evaluation, settings=settings, as_of=AS_OF, inputs=inputs, run_id=run_id)


def in_process(work: Callable[[], object]) -> int:
    """Fork a process that does some work; return its id. It ends with exit code 0, or 9 after an error."""
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            work()
            code = 0
        except D2CError as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        finally:
            os._exit(code)
    return pid


def was_killed(pid: int) -> bool:
    """Wait for a process; return whether a signal ended it."""
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it failed"
    return os.WIFSIGNALED(status)


def kill_here(*_: object, **__: object) -> None:
    """End this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def to_the_end(settings: Settings) -> RetrainingLook:
    """Look until the retraining is finished, or nothing is to be done."""
    look = retrain(MODEL, settings)
    while look.action == "waiting":
        look = retrain(MODEL, settings)
    return look


def check_record(settings: Settings, result: str) -> Retraining:
    """Check that causes have one challenger each, and that champion, services, rollout and alias agree; return the last retraining."""
    ledger = Ledger.of(settings)
    history = retraining_history(ledger, MODEL, limit=1000)
    last = history[0]
    assert (last.state, last.result) == ("finished", result), last
    with ledger.read() as connection:
        assert connection.execute(select(func.count()).where(retrainings.c.open_key.is_not(None))).scalar() == 0
        query = select(runs.c.started_by, func.count()).join(versions, versions.c.run_id == runs.c.id)
        challengers = dict(connection.execute(query.group_by(runs.c.started_by)).all())
        of_causes = [(row.cause, challengers.get(row.mark, 0)) for row in history if row.version]
        assert all(count == 1 for _, count in of_causes), "a cause has one challenger"
        assert len({cause for cause, _ in of_causes}) == len(of_causes)
        promoted = select(func.count()).where(promotions.c.model == MODEL, promotions.c.version == last.version)
        assert connection.execute(promoted).scalar() == (result == "promoted")
        trainings = select(runs.c.started_at, runs.c.ended_at).where(runs.c.runbook == "train")
        times = connection.execute(trainings.order_by(runs.c.started_at)).all()
    assert all(end and end <= begin for (_, end), (begin, _) in pairwise(times)), "runs overlap"
    champion, rollout = champion_at_time(ledger, MODEL), current_rollout(ledger, MODEL, settings)
    assert champion is not None and (champion.version == last.version) == (result == "promoted")
    assert rollout is None or (not rollout.in_progress and rollout.champion == champion.version)
    assert version_of_alias(settings, MODEL, "champion") == champion.version
    file, _ = state_file_of(MODEL, settings)
    if file.exists():
        state = read_state(file)
        assert (state.champion, state.mode) == (champion.version, "off")
    return last
