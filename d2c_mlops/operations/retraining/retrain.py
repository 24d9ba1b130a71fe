"""Retrain a live model: reason, training run, gate, release; each step is on record and resumed after a crash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from d2c_mlops.errors import D2CError, NotebookFailed, Temporary
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.monitoring.retraining import (
    RetrainingCheck,
    RetrainingReason,
    in_cool_down,
    reason_to_retrain,
    retraining_checks,
)
from d2c_mlops.operations.release import Release, release_newest
from d2c_mlops.operations.retraining.known_state import RUNBOOK, configured_policy, known_state
from d2c_mlops.operations.retraining.retraining_rows import (
    FINISHED,
    RELEASING,
    TRAINING,
    Retraining,
    find_open_retraining,
    keep_retraining,
    open_retraining,
    runs_of_retraining,
    take_retraining,
    version_of_retraining,
    write_step,
)
from d2c_mlops.registry.promotion_history import champion_at_time
from d2c_mlops.registry.versions import find_version, model_class
from d2c_mlops.runs.execution.execute import current_user, run
from d2c_mlops.runs.execution.leases import Stop
from d2c_mlops.runs.execution.run_rows import close_lost_runs
from d2c_mlops.serving.rollout.rollout_commands import abort_or_rollback_reason, abort_rollout
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import parse_age
from d2c_mlops.wording import number_of

MOST_RUNS = 6  # of a retraining, whose processes were all killed
LONGEST_RELEASE = timedelta(days=28)
TRAINING_SECONDS = 14_400.0  # as the step train of a cycle


@dataclass(frozen=True)
class RetrainingLook:
    """What one look at the retraining of a model found and did."""

    model: str
    policy: str
    action: str  # none, due (a dry run), busy, waiting or finished
    text: str
    checks: tuple[RetrainingCheck, ...]
    reason: RetrainingReason | None = None
    retraining: Retraining | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the look as JSON values."""
        return {
            "model": self.model,
            "policy": self.policy,
            "action": self.action,
            "text": self.text,
            "checks": [check.to_dict() for check in self.checks],
            "reason": self.reason.to_dict() if self.reason else None,
            "retraining": self.retraining.to_dict() if self.retraining else None,
        }


def retrain(
    model: str,
    settings: Settings,
    *,
    by: str | None = None,
    now: datetime | None = None,
    dry_run: bool = False,
    progress: Callable[[dict[str, Any]], None] = lambda event: (
        None
    ),  # of the training run, see runs.execution.execute.run
) -> RetrainingLook:
    """Look whether a model is to be retrained by its policy, and do what is next; a retraining that is open goes on first.

    Raises UsageError for a name that no model has, and the error of a training run that failed, after it is on record: the next attempt
    waits for the cool-down. Raises Temporary where the same call may succeed later; then the retraining stays open.
    """
    model_class(model, settings)  # a name that no model has is refused
    at, ledger = now or datetime.now(UTC), Ledger.of(settings)
    policy, state = configured_policy(model, settings), known_state(model, settings, at)
    checks, reason = tuple(retraining_checks(policy, state, at)), reason_to_retrain(policy, state, at)

    def look(action: str, text: str, retraining: Retraining | None = None) -> RetrainingLook:
        return RetrainingLook(model, policy.text, action, text, checks, reason, retraining)

    current = find_open_retraining(ledger, model)
    if current is None:
        if reason is None:
            due = any(check.is_due for check in checks)
            wait = (
                f"a training started less than {number_of(policy.cool_down_days, 'day')} ago"
                if due
                else "no reason is due"
            )
            never = not checks and not in_cool_down(policy, state, at)
            return look("none", "its policy is never" if never or policy.text == "never" else wait)
        if dry_run:
            return look("due", reason.text)
        current = open_retraining(ledger, model, reason, by or current_user(), at)
        if current is None:
            return look("none", "its cause was answered before, or another process has opened a retraining")
    if dry_run:
        return look("waiting", f"retraining {current.id} is open: {current.detail or current.reason}", current)
    mine = take_retraining(ledger, current)
    if mine is None:
        return look("busy", f"another process works on retraining {current.id}", current)
    with keep_retraining(ledger, mine) as should_stop:
        if mine.state == TRAINING:
            mine = _train(ledger, mine, settings, should_stop, progress)
        if mine.state == RELEASING:
            mine = _release(ledger, mine, settings, at)
    return look(
        "finished" if mine.state == FINISHED else "waiting", f"{mine.result or mine.state}: {mine.detail}", mine
    )


def _train(
    ledger: Ledger,
    retraining: Retraining,
    settings: Settings,
    should_stop: Stop,
    progress: Callable[[dict[str, Any]], None],
) -> Retraining:
    """Return the retraining with the version that one of its runs registered; a run starts only where none has."""
    close_lost_runs(
        ledger, datetime.now(UTC)
    )  # ends what a killed process left running, before a version is looked for
    registered = version_of_retraining(ledger, retraining)
    if registered is None:
        lost = len(runs_of_retraining(ledger, retraining))
        if lost >= MOST_RUNS:
            text = f"its {lost} training runs were all lost or failed temporarily"
            write_step(ledger, retraining, FINISHED, text, datetime.now(UTC), result="failed")
            raise NotebookFailed(text, where=retraining.mark, next=f"`d2c runs --model {retraining.model}`")
        try:
            run(
                RUNBOOK,
                {"model": retraining.model},
                settings,
                ledger=ledger,
                timeout=max(settings.run_timeout, TRAINING_SECONDS),
                progress=progress,
                should_stop=should_stop,
                by=retraining.mark,
            )
        except Temporary:
            raise
        except D2CError as err:
            run_id = next(reversed(runs_of_retraining(ledger, retraining)), None)
            write_step(ledger, retraining, FINISHED, err.what, datetime.now(UTC), result="failed", run_id=run_id)
            raise
        registered = version_of_retraining(ledger, retraining)
    if registered is None:
        text = f"the runbook {RUNBOOK} registered no version"
        write_step(ledger, retraining, FINISHED, text, datetime.now(UTC), result="failed")
        raise NotebookFailed(text, where=retraining.mark, next=f"call `register` in the runbook {RUNBOOK}")
    version, run_id = registered
    text = f"version {version} was trained"
    return write_step(ledger, retraining, RELEASING, text, datetime.now(UTC), version=version, run_id=run_id)


def _release(ledger: Ledger, retraining: Retraining, settings: Settings, at: datetime) -> Retraining:
    """Release the version, or continue its rollout; return the retraining, finished where the result is known."""
    model, version = retraining.model, int(retraining.version or 0)
    champion = champion_at_time(ledger, model)
    if champion is not None and champion.version > version:
        text = f"version {champion.version}, which is newer than version {version}, is the champion"
        return write_step(ledger, retraining, FINISHED, text, at, result="superseded")
    release = release_newest(model, settings, by=retraining.mark, now=at, number=version)
    champion = champion_at_time(ledger, model)
    result = _result_of(release, version, champion.version if champion else None)
    if result == "unchanged" and abort_or_rollback_reason(ledger, find_version(ledger, model, version)):
        result = "aborted"
    if result is None:
        first = "a rollout in progress comes first: " if release.version != version else ""
        text = f"{first}version {release.version} {release.action}: {release.reason}"
        if at - retraining.opened_at <= _longest_release(model, settings):
            return write_step(ledger, retraining, RELEASING, text, at)
        text = f"not released in {number_of((at - retraining.opened_at).days, 'day')}: {text}"
        if release.version == version:
            abort_rollout(model, settings, by=retraining.mark, reason=text)
        return write_step(ledger, retraining, FINISHED, text, at, result="aborted")
    stays = f"; version {champion.version} stays champion" if champion and champion.version != version else ""
    text = f"version {version}: {release.reason}{stays}"
    return write_step(ledger, retraining, FINISHED, text, at, result=result)


def _longest_release(model: str, settings: Settings) -> timedelta:
    """Return the time after which a version that still waits is given up, so that newer data can be learned from."""
    return max(LONGEST_RELEASE, 4 * timedelta(seconds=parse_age(settings.model(model).release_after)))


def _result_of(release: Release, version: int, champion: int | None) -> str | None:
    """Return what became of a version; None while its release is in progress or another one comes first."""
    if champion == version:
        return "promoted"
    if release.version != version or release.action in ("started", "waiting"):
        return None
    return release.action
