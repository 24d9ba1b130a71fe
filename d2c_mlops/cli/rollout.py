"""Commands for rollouts: rollout, served."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, json_option, main, section, settings, show, table
from d2c_mlops.errors import UsageError

if TYPE_CHECKING:
    from d2c_mlops.serving.rollout.rollout_status import RolloutStatus


@example(
    "d2c rollout demand --shadow",
    "d2c rollout demand --percent 10 --reason 'a tenth of the stores'",
    "d2c rollout demand",
    "d2c rollout demand --promote",
    "d2c rollout demand --shadow --begin",
    "d2c rollout demand --percent 10 --to kubernetes | kubectl apply -f -",
)
@section("Live")
@main.command()
@click.argument("model")
@click.option("--percent", type=float, metavar="SHARE", help="Serve this percentage of the keys with the challenger.")
@click.option(
    "--shadow", is_flag=True, help="Run the challenger in shadow mode: its predictions are logged, never returned."
)
@click.option("--promote", is_flag=True, help="Make the challenger the champion, if the gate accepts it.")
@click.option("--abort", is_flag=True, help="End the rollout: serve all keys with the champion.")
@click.option("--version", "number", type=int, help="The challenger; default: the newest version.")
@click.option(
    "--begin",
    is_flag=True,
    help="Only start a rollout: do not reduce the share of a running one, nor retry a version whose rollout ended; without a new version, change nothing.",
)
@click.option("--override", is_flag=True, help="Promote although the gate refuses; requires --by and --reason.")
@click.option("--by", metavar="NAME", help="Who decides; default: the current user.")
@click.option("--reason", default="", metavar="TEXT", help="Why.")
@click.option(
    "--to",
    "target",
    type=click.Choice(["kubernetes"]),
    help="Print the manifest for this platform on standard output; other output goes to standard error.",
)
@json_option
def rollout(
    model: str,
    percent: float | None,
    shadow: bool,
    promote: bool,
    abort: bool,
    number: int | None,
    begin: bool,
    override: bool,
    by: str | None,
    reason: str,
    target: str | None,
    as_json: bool,
) -> None:
    """Start, change, promote or abort a rollout of MODEL. Without options, show its status.

    Running services apply a change within seconds, without a restart. They need both versions loaded; `d2c serve` and
    `d2c package` load both during a rollout. A key served by the challenger stays with it when the share grows. If the challenger
    fails, is slow or is overridden too often ([rollout] limits in settings.ini), the service ends the rollout itself.
    A version whose rollout was ended, by the service, --abort or `d2c rollback`, is only tried again if --version names it.

    Services on this machine read the state from a file in the store. Services in Kubernetes read it from a ConfigMap, which --to
    kubernetes prints for `kubectl apply -f -`. With compose, run: docker compose exec scheduler d2c rollout MODEL …
    """
    from d2c_mlops.serving.rollout import rollout_commands as rollouts
    from d2c_mlops.serving.rollout.rollout_status import rollout_status

    if sum((percent is not None, shadow, promote, abort)) > 1:
        raise UsageError("use only one of --percent, --shadow, --promote and --abort", where="d2c rollout")
    if begin and not (shadow or percent is not None):
        raise UsageError("--begin requires --percent or --shadow", where="d2c rollout")
    config = settings()
    if promote:
        status = rollouts.promote_challenger(model, config, by=by, reason=reason, override=override)
    elif abort:
        status = rollouts.abort_rollout(model, config, by=by, reason=reason)
    elif shadow or percent is not None:
        share = None if percent is None else percent / 100
        status = rollouts.start_rollout(
            model, config, share=share, shadow=shadow, number=number, by=by, reason=reason, begin=begin
        )
    else:
        status = rollout_status(model, config)
    manifest = _rollout_manifest(status, target) if target else ""
    if as_json:
        return show({**status.to_dict(), **({"manifest": manifest} if manifest else {})})
    with redirect_stdout(sys.stderr) if manifest else nullcontext():
        _show_status(status, target)
    if manifest:
        click.echo(manifest, nl=False)
    return None


def _rollout_manifest(status: RolloutStatus, target: str) -> str:
    """Return the manifest that tells services of a platform the state of a rollout."""
    from d2c_mlops.serving.deploy import targets
    from d2c_mlops.serving.rollout.state_file import Rollout

    now = status.rollout
    if now is None and status.champion is None:
        raise UsageError(f"{status.model} has no champion", next=f"`d2c promote {status.model}`")
    write = targets()[target].rollout
    assert write is not None
    return write(now or Rollout(status.model, status.champion or 0))


def _show_status(status: RolloutStatus, target: str | None = None) -> None:
    for clause in status.gate:
        click.secho(f"  {clause}", fg=None if clause.holds else "yellow")
    click.echo(f"{status.model}: {_status_sentence(status)}")
    if status.figures:
        rows = []
        for side, version in (("champion", status.rollout.champion), ("challenger", status.rollout.challenger)):  # type: ignore[union-attr]
            figures = status.figures[side]
            followed = f"{figures['followed']:.0%} of {figures['feedback']}" if figures["feedback"] else ""
            rows.append((side, version, figures["answers"], figures["errors"], figures["p95_ms"], followed))
        click.echo()
        table(("", "version", "predictions", "errors", "p95 ms", "followed"), rows)
    if status.events:
        click.echo()
        happened = [
            (f"{e.at:%Y-%m-%d %H:%M:%S}Z", e.action, e.challenger, e.champion, f"{e.share:.4g}" if e.share else "",
             e.by, e.reason)
            for e in status.events
        ]  # fmt: skip
        table(("at", "action", "version", "beside", "share", "by", "reason"), happened)
    for line in [*([] if target else _effect_lines(status)), *status.notes]:
        click.echo(line)


def _status_sentence(status: RolloutStatus) -> str:
    now = status.rollout
    if now is None:
        return f"version {status.champion} serves all keys; there was no rollout yet"
    since = f"since {now.at[:19].replace('T', ' ')}Z, by {now.by}: {now.reason}"
    if not now.in_progress:
        return f"version {status.champion} serves all keys ({since})"
    if now.mode == "shadow":
        return f"version {now.champion} serves all keys, version {now.challenger} runs in shadow mode ({since})"
    return f"version {now.challenger} serves {now.share * 100:g} % of the keys, version {now.champion} the others ({since})"


def _effect_lines(status: RolloutStatus) -> list[str]:
    """Return lines about the effect on the services on this machine."""
    if not status.workers:
        local_hint = f"no service of {status.model} is running on this machine; `d2c serve {status.model}` starts one"
        cluster_hint = (
            f"for services in Kubernetes, run `d2c rollout {status.model} --to kubernetes | kubectl apply -f -`"
        )
        return [local_hint, cluster_hint] if status.in_progress else []
    lines = []
    version = status.rollout.challenger if status.rollout and status.rollout.in_progress else status.champion
    unable = [worker for worker in status.workers_behind if version not in worker["versions"]]
    after = f" after {status.seconds} s" if status.seconds is not None else ""
    if in_effect := len(status.workers) - len(status.workers_behind):
        lines.append(f"in effect in {in_effect} worker{'s' * (in_effect > 1)}{after}")
    if unable:
        lines.append(
            f"{len(unable)} worker{'s' * (len(unable) > 1)} did not load version {version}: "
            f"restart the service, `d2c serve {status.model}`"
        )
    elif status.workers_behind:
        lines.append(
            f"{len(status.workers_behind)} worker{'s' * (len(status.workers_behind) > 1)} did not apply the change yet"
        )
    return lines


@example("d2c served lead_scoring L-1042", "d2c served lead_scoring L-1042 --at 2026-11-01")
@section("Live")
@main.command()
@click.argument("model")
@click.argument("key")
@click.option(
    "--at",
    metavar="DATE",
    help="A day (UTC); with a time, only the part of the day before it; default: today until now.",
)
@json_option
def served(model: str, key: str, at: str | None, as_json: bool) -> None:
    """Show which version of MODEL served KEY on a day.

    The answer comes from logged and collected predictions. If there is none, it is computed from the history of champions
    and rollouts. Each line says which of the two applies.
    """
    from datetime import UTC, datetime

    from d2c_mlops.serving.rollout.version_lookup import time_range
    from d2c_mlops.serving.rollout.version_lookup import versions_of_key as look

    served_versions = look(model, key, settings(), *time_range(at, datetime.now(UTC)))
    if as_json:
        return show([prediction.to_dict() for prediction in served_versions])
    rows = [
        (
            f"{prediction.at:%Y-%m-%d %H:%M:%S}Z",
            prediction.version,
            prediction.variant,
            prediction.how,
            prediction.prediction_id or "",
        )
        for prediction in served_versions
    ]
    table(("at" if served_versions[0].how == "logged" else "from", "version", "variant", "how", "prediction"), rows)
    if served_versions[0].how == "computed":
        click.echo("no logged prediction for this key at that time (or not yet collected: run `d2c collect`)")
    return None
