"""Rollout commands: begin, widen, promote and abort; recorded in the ledger and in the state file that services follow."""

from __future__ import annotations

from contextlib import suppress

from d2c_mlops.errors import Failure, GateRefused, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract_changes import broken_clauses
from d2c_mlops.registry import artifacts, promotion_history
from d2c_mlops.registry.promotion_history import live_version
from d2c_mlops.registry.versions import Version, find_version
from d2c_mlops.serving.rollout.promotion import alias_notes, append_event, promote
from d2c_mlops.serving.rollout.rollout_history import current_rollout, record_aborts, rollout_events, state_file_of
from d2c_mlops.serving.rollout.rollout_status import RolloutStatus, rollout_status
from d2c_mlops.serving.rollout.state_file import Rollout, read_state
from d2c_mlops.settings import Settings


class NoNewVersion(UsageError):
    """No new version is available for an automatic rollout."""


def challenger_to_package(
    ledger: Ledger, model: str, settings: Settings, version_or_alias: str | int | None = None
) -> Version | None:
    """Return the challenger to package with the champion: the named version, the registry's alias, or the rollout's.

    While no rollout is in progress it is the version that the next rollout would use.
    """
    if version_or_alias == "alias":
        number = artifacts.version_of_alias(settings, model, "challenger")
        if number is None:
            raise UsageError(
                f"{model} has no version with the alias `challenger`", next="name one: --with-challenger 2"
            )
        return find_version(ledger, model, number)
    if version_or_alias is not None:
        if not str(version_or_alias).isdigit():
            raise UsageError(
                f"{version_or_alias!r} is not a version number", where="--with-challenger", next="give a number"
            )
        return find_version(ledger, model, int(version_or_alias))
    now = current_rollout(ledger, model, settings)
    if now is not None and now.in_progress:
        return find_version(ledger, model, now.challenger)
    with suppress(UsageError, GateRefused):
        champion = live_version(ledger, model)
        version_ = _chosen_challenger(ledger, champion, None, None)
        check_compatible(champion, version_)
        return version_
    return None


def start_rollout(
    model: str,
    settings: Settings,
    *,
    share: float | None = None,  # of the keys, 0..1
    shadow: bool = False,
    number: int | None = None,  # the challenger; when None the one in progress, else the newest version
    by: str | None = None,
    reason: str = "",
    begin: bool = False,  # for pipelines: never narrow a rollout in progress; no change without a new version
) -> RolloutStatus:
    """Route a share of the keys to a challenger, or run it in shadow mode. Raises GateRefused, UsageError."""
    ledger = Ledger.of(settings)
    record_aborts(ledger, model, settings)
    champion, now = live_version(ledger, model), current_rollout(ledger, model, settings)
    if not shadow and not (share is not None and 0.0 < share <= 1.0):
        raise UsageError(
            "the share must be above 0 and at most 100 percent", where="--percent", next="--abort ends a rollout"
        )
    if begin and now is not None and now.in_progress and (shadow or now.mode == "share"):
        return rollout_status(model, settings, notes=["no change: a rollout is already in progress"])
    try:
        version = _chosen_challenger(ledger, champion, now, number)
        check_compatible(champion, version)
    except (NoNewVersion, GateRefused) as err:
        if not begin:
            raise
        return rollout_status(model, settings, notes=[f"no change: {err.what}"])
    mode, part = ("shadow", 0.0) if shadow else ("share", float(share or 0.0))
    same = now is not None and now.in_progress and now.challenger == version.version
    if now and same and (now.mode, now.share) == (mode, part) and _guards_hold(model, now, settings):
        return rollout_status(model, settings, notes=["no change: the rollout is already in this state"])
    action = "shadow" if shadow else "start"
    if same and now and now.mode == "share" and not shadow:
        action = "widen" if part >= now.share else "narrow"
    append_event(
        ledger, settings, model, action, reason or "by hand", by,
        champion=champion.version, challenger=version.version, mode=mode, share=part,
    )  # fmt: skip
    status = rollout_status(model, settings, wait=True)
    if not same:
        status.notes += alias_notes(lambda: artifacts.set_alias(settings, model, "challenger", version.version))
    return status


def abort_rollout(model: str, settings: Settings, *, by: str | None = None, reason: str = "") -> RolloutStatus:
    """Abort the rollout: route all keys to the champion now."""
    ledger = Ledger.of(settings)
    record_aborts(ledger, model, settings)
    champion, now = live_version(ledger, model), current_rollout(ledger, model, settings)
    if now is None or not now.in_progress:
        return rollout_status(model, settings, notes=["no change: no rollout is in progress"], wait=True)
    append_event(
        ledger, settings, model, "abort", reason or "by hand", by, champion=champion.version, challenger=now.challenger
    )
    status = rollout_status(model, settings, wait=True)
    status.notes += alias_notes(lambda: artifacts.drop_alias(settings, model, "challenger"))
    return status


def promote_challenger(
    model: str, settings: Settings, *, by: str | None = None, reason: str = "", override: bool = False
) -> RolloutStatus:
    """Promote the challenger when it passes the gate; running services switch at once. Raises GateRefused."""
    ledger = Ledger.of(settings)
    record_aborts(ledger, model, settings)
    now = current_rollout(ledger, model, settings)
    if now is None or not now.in_progress:
        raise UsageError(
            f"no rollout of {model} is in progress", next=f"`d2c promote {model}` makes a version champion"
        )
    promotion, clauses = promote(model, settings, number=now.challenger, by=by, reason=reason, override=override)
    if promotion is None:  # the challenger is already the champion
        status = abort_rollout(
            model, settings, by=by, reason=clauses[0].finding if clauses else "it is already the champion"
        )
        status.gate = clauses
        return status
    status = rollout_status(model, settings, wait=True)
    status.gate = clauses
    status.notes += alias_notes(lambda: artifacts.drop_alias(settings, model, "challenger"))
    return status


def check_compatible(champion: Version, version: Version) -> None:
    """Raise GateRefused when the contract of a version is not compatible with the champion's callers."""
    old, new = champion.schema, version.schema
    if version.version == champion.version:
        raise UsageError(
            f"version {version.version} of {version.model} is already the champion", next="name another: --version"
        )
    if new.major != old.major:
        raise GateRefused(
            f"version {version.version} of {version.model} has contract {new.version}, its champion {old.version}: "
            "callers of one major version cannot get predictions of another",
            next=f"`d2c promote {version.model} --version {version.version}`: contract {old.major} stays available at /v{old.major} "
            "until its sunset, so that callers can migrate",
        )
    broken = broken_clauses(old, new)
    if old.key != new.key:
        broken.append(Failure(f"was {old.key} and is {new.key}", "key"))
    if broken:
        raise GateRefused(
            f"the contract of version {version.version} of {version.model} is not compatible with callers of the champion",
            failures=broken,
            next=f"`d2c contract diff {version.model} --version {version.version}`",
        )


def abort_or_rollback_reason(ledger: Ledger, version: Version) -> str:
    """Return why a version was aborted or rolled back; empty where it was not."""
    met = [event for event in rollout_events(ledger, version.model) if event.challenger == version.version]
    if met and met[-1].action == "abort":
        return f"its rollout was aborted on {met[-1].at:%Y-%m-%d}, by {met[-1].by}: {met[-1].reason}"
    over = [
        promotion
        for promotion in promotion_history.promotions_until(ledger, version.model)
        if promotion.previous == version.version
    ]
    if over:
        return f"version {over[-1].version} replaced it as champion on {over[-1].at:%Y-%m-%d}, by {over[-1].by}: {over[-1].reason}"
    return ""


def _chosen_challenger(ledger: Ledger, champion: Version, now: Rollout | None, number: int | None) -> Version:
    if number is not None:
        return find_version(ledger, champion.model, number)
    if now is not None and now.in_progress:
        return find_version(ledger, champion.model, now.challenger)
    newest = find_version(ledger, champion.model)
    if newest.version == champion.version:
        raise NoNewVersion(
            f"{champion.model} has no other version than its champion, version {champion.version}",
            next=f"`d2c run train -p model={champion.model}` trains one; --version selects an older one",
        )
    if why := abort_or_rollback_reason(ledger, newest):
        raise NoNewVersion(
            f"version {newest.version} of {champion.model}, the newest, is not rolled out again automatically: {why}",
            next=f"--version {newest.version} rolls it out anyway; `d2c run train -p model={champion.model}` trains a new one",
        )
    return newest


def _guards_hold(model: str, now: Rollout, settings: Settings) -> bool:
    file, _ = state_file_of(model, settings)
    try:
        return read_state(file).guards == now.guards
    except (FileNotFoundError, UsageError):
        return False
