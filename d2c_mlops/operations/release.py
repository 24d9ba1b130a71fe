"""Release the newest version without a person: gate first, then champion, shadow mode or a share of the keys, by the model's settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from d2c_mlops.errors import GateRefused
from d2c_mlops.ledger.schema import by_callers, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.registry.gate import judge_clauses
from d2c_mlops.registry.promotion_history import champion_at_time
from d2c_mlops.registry.promotions import is_same_version, store_clauses
from d2c_mlops.registry.versions import Version, find_version
from d2c_mlops.serving.rollout.promotion import complete_promotion, promote
from d2c_mlops.serving.rollout.rollout_commands import (
    abort_or_rollback_reason,
    abort_rollout,
    check_compatible,
    promote_challenger,
    start_rollout,
)
from d2c_mlops.serving.rollout.rollout_history import current_rollout, record_aborts
from d2c_mlops.serving.rollout.state_file import Rollout
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import parse_age, parse_release
from d2c_mlops.wording import number_of


@dataclass(frozen=True)
class Release:
    """What became of the newest version, or of the challenger of a rollout."""

    action: str  # promoted, started (a rollout), waiting, refused, aborted or unchanged
    version: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the release as JSON values."""
        return asdict(self)


def release_newest(
    model: str,
    settings: Settings,
    *,
    by: str | None = None,
    now: datetime | None = None,
    number: int | None = None,  # a version instead of the newest
) -> Release:
    """Release the newest version of a model, or continue the rollout in progress, by [model:NAME] release and release_after.

    A version that fails the gate changes nothing: the champion stays. A rollout in progress ends before a newer version
    starts: its challenger becomes champion after `release_after`, with at least [rollout] min_answers predictions, if no
    guard ended it and the gate still accepts it. A version that a person rolled back or a guard ended is not released again.
    """
    at, ledger = now or datetime.now(UTC), Ledger.of(settings)
    newest, champion = find_version(ledger, model, number), champion_at_time(ledger, model)
    record_aborts(ledger, model, settings)
    rollout = current_rollout(ledger, model, settings)
    if champion is not None and rollout is not None and rollout.in_progress:
        return _continue_rollout(ledger, model, rollout, settings, by, at)
    if champion is not None and champion.version == newest.version:
        complete_promotion(model, settings)  # its process may have been killed within the promotion
        return Release("unchanged", newest.version, "the newest version is the champion")
    if why := abort_or_rollback_reason(ledger, newest):
        return Release("unchanged", newest.version, f"it is not released again without a person: {why}")
    mode, share = parse_release(settings.model(model).release)
    if champion is None or mode == "champion":
        return _promote(model, newest, settings, by)
    return _start(ledger, model, newest, champion, mode, share, settings, by)


def _promote(model: str, version: Version, settings: Settings, by: str | None) -> Release:
    try:
        promotion, clauses = promote(model, settings, number=version.version, by=by, reason="released by schedule")
    except GateRefused as err:
        return Release("refused", version.version, _refusal(err))
    if promotion is None:
        return Release("unchanged", version.version, clauses[0].finding if clauses else "it is the champion")
    return Release("promoted", version.version, "it passed the gate")


def _start(
    ledger: Ledger,
    model: str,
    version: Version,
    champion: Version,
    mode: str,
    share: float,
    settings: Settings,
    by: str | None,
) -> Release:
    """Start a rollout of a version that passes the gate."""
    if is_same_version(version, champion, settings):
        return Release("unchanged", version.version, f"it equals version {champion.version}, the champion")
    clauses = judge_clauses(version, champion, settings)
    store_clauses(version, clauses, settings)
    if broken := [clause for clause in clauses if not clause.holds]:
        return Release("refused", version.version, "; ".join(f"{clause.name}: {clause.finding}" for clause in broken))
    try:
        check_compatible(champion, version)
    except GateRefused as err:
        return Release("refused", version.version, _refusal(err))
    start_rollout(
        model,
        settings,
        share=share if mode == "share" else None,
        shadow=mode == "shadow",
        number=version.version,
        by=by,
        reason="released by schedule",
        begin=True,
    )
    rollout = current_rollout(ledger, model, settings)
    if rollout is None or not rollout.in_progress or rollout.challenger != version.version:
        return Release("unchanged", version.version, "another rollout began meanwhile")
    return Release("started", version.version, "in shadow mode" if mode == "shadow" else f"for {share:.3g} of the keys")


def _continue_rollout(
    ledger: Ledger, model: str, rollout: Rollout, settings: Settings, by: str | None, at: datetime
) -> Release:
    """Promote the challenger of a rollout that has proved itself, end the rollout if the gate refuses it, else wait."""
    challenger = int(rollout.challenger or 0)
    began = datetime.fromisoformat(rollout.at)
    period = timedelta(seconds=parse_age(settings.model(model).release_after))
    if at - began < period:
        return Release(
            "waiting", challenger, f"its rollout began on {began:%Y-%m-%d} and lasts until {began + period:%Y-%m-%d}"
        )
    count = _predictions_of(ledger, model, challenger, began)
    if count < (least := settings.guards(model).min_answers):
        return Release(
            "waiting",
            challenger,
            f"it has {number_of(count, 'prediction')} on record since {began:%Y-%m-%d}, {least} are needed",
        )
    try:
        promote_challenger(model, settings, by=by, reason=f"proved in a rollout since {began:%Y-%m-%d}")
    except GateRefused as err:
        abort_rollout(model, settings, by=by, reason="the gate refused it")
        return Release("aborted", challenger, _refusal(err))
    champion = champion_at_time(ledger, model)
    if champion is None or champion.version != challenger:
        return Release("aborted", challenger, "it equals the champion")
    return Release("promoted", challenger, f"it has {number_of(count, 'prediction')} on record since {began:%Y-%m-%d}")


def _predictions_of(ledger: Ledger, model: str, version: int, since: datetime) -> int:
    condition = (predictions.c.model == model, predictions.c.version == version, predictions.c.at >= since)
    with ledger.read() as connection:
        query = select(func.count()).select_from(predictions).where(*condition, by_callers(predictions))
        return int(connection.execute(query).scalar_one())


def _refusal(err: GateRefused) -> str:
    return "; ".join([err.what, *map(str, err.failures)])
