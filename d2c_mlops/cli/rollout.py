"""Commands about rollouts: rollout, served."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, json_option, main, settings, show, table
from d2c_mlops.errors import UsageError

if TYPE_CHECKING:
    from d2c_mlops.serving.rollout.status import Standing


@example(
    "d2c rollout demand --shadow",
    "d2c rollout demand --percent 10 --reason 'a tenth of the stores'",
    "d2c rollout demand",
    "d2c rollout demand --promote",
    "d2c rollout demand --shadow --begin",
    "d2c rollout demand --percent 10 --to kubernetes | kubectl apply -f -",
)
@main.command()
@click.argument("model")
@click.option("--percent", type=float, metavar="SHARE", help="Let the challenger answer this share of the keys.")
@click.option("--shadow", is_flag=True, help="Let it answer all, unheard: it is logged and never returned.")
@click.option("--promote", is_flag=True, help="Make it champion, when the gate agrees.")
@click.option("--abort", is_flag=True, help="Send all keys to the champion.")
@click.option("--version", "number", type=int, help="The challenger; the newest version when not given.")
@click.option(
    "--begin",
    is_flag=True,
    help="Only begin: never narrow a rollout, nor take up a version that was taken out; where none is new, change nothing.",
)
@click.option("--override", is_flag=True, help="Promote although a clause is broken; needs --by and --reason.")
@click.option("--by", metavar="NAME", help="Who decides; the user of this machine when not given.")
@click.option("--reason", default="", metavar="TEXT", help="Why.")
@click.option(
    "--to",
    "target",
    type=click.Choice(["kubernetes"]),
    help="Print what tells services there; all else goes to the standard error.",
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
    """Let MODEL's challenger meet a share of the keys, widen it, promote it or end it; without an option, how it stands.

    Running services follow within seconds, without a restart; they need both versions loaded, which `d2c serve` and
    `d2c package` do while a rollout is going. A key that the challenger answers stays with it when the share grows. A challenger
    that fails, is slow or is not followed, by the limits of [rollout] in settings.ini, is taken out by the service itself.
    A version that was taken out, by it or by --abort or `d2c rollback`, is only tried again when --version names it.

    Services on this machine follow a file in the store. Those in Kubernetes follow a ConfigMap, which --to kubernetes prints for
    `kubectl apply -f -`, with or without a decision. Under compose: docker compose exec scheduler d2c rollout MODEL …
    """
    from d2c_mlops.serving.rollout import commands as rollouts
    from d2c_mlops.serving.rollout.status import standing

    if sum((percent is not None, shadow, promote, abort)) > 1:
        raise UsageError("one thing at a time: --percent, --shadow, --promote or --abort", where="d2c rollout")
    if begin and not (shadow or percent is not None):
        raise UsageError("--begin goes with --percent or --shadow", where="d2c rollout")
    held = settings()
    if promote:
        told = rollouts.finish(model, held, by=by, reason=reason, override=override)
    elif abort:
        told = rollouts.abort(model, held, by=by, reason=reason)
    elif shadow or percent is not None:
        share = None if percent is None else percent / 100
        told = rollouts.rollout(
            model, held, share=share, shadow=shadow, number=number, by=by, reason=reason, begin=begin
        )
    else:
        told = standing(model, held)
    manifest = _manifest(told, target) if target else ""
    if as_json:
        return show({**told.to_dict(), **({"manifest": manifest} if manifest else {})})
    with redirect_stdout(sys.stderr) if manifest else nullcontext():
        _tell(told, target)
    if manifest:
        click.echo(manifest, nl=False)
    return None


def _manifest(told: Standing, target: str) -> str:
    """Return what tells services of a platform how a rollout stands."""
    from d2c_mlops.serving.deploy import targets
    from d2c_mlops.serving.rollout.state_file import Rollout

    now = told.rollout
    if now is None and told.champion is None:
        raise UsageError(f"{told.model} has no champion: nothing is served", next=f"`d2c promote {told.model}`")
    write = targets()[target].rollout
    assert write is not None
    return write(now or Rollout(told.model, told.champion or 0))


def _tell(told: Standing, target: str | None = None) -> None:
    for clause in told.gate:
        click.secho(f"  {clause}", fg=None if clause.holds else "yellow")
    click.echo(f"{told.model}: {_said(told)}")
    if told.figures:
        rows = []
        for side, version in (("champion", told.rollout.champion), ("challenger", told.rollout.challenger)):  # type: ignore[union-attr]
            one = told.figures[side]
            followed = f"{one['followed']:.0%} of {one['feedback']}" if one["feedback"] else ""
            rows.append((side, version, one["answers"], one["errors"], one["p95_ms"], followed))
        click.echo()
        table(("", "version", "answers", "errors", "p95 ms", "followed"), rows)
    if told.events:
        click.echo()
        happened = [
            (f"{e.at:%Y-%m-%d %H:%M:%S}Z", e.action, e.challenger, e.champion, f"{e.share:.4g}" if e.share else "",
             e.by, e.reason)
            for e in told.events
        ]  # fmt: skip
        table(("at", "action", "version", "beside", "share", "by", "reason"), happened)
    for line in [*([] if target else _effect(told)), *told.notes]:
        click.echo(line)


def _said(told: Standing) -> str:
    now = told.rollout
    if now is None:
        return f"version {told.champion} answers all keys; there was no rollout yet"
    since = f"since {now.at[:19].replace('T', ' ')}Z, by {now.by}: {now.reason}"
    if not now.going:
        return f"version {told.champion} answers all keys ({since})"
    if now.mode == "shadow":
        return f"version {now.champion} answers all keys, version {now.challenger} too, unheard ({since})"
    return f"version {now.challenger} answers {now.share * 100:g} % of the keys, version {now.champion} the others ({since})"


def _effect(told: Standing) -> list[str]:
    """Return what is to be said of the services on this machine."""
    if not told.workers:
        here = f"no service of {told.model} runs on this machine; `d2c serve {told.model}` starts one"
        there = f"those in Kubernetes follow what `d2c rollout {told.model} --to kubernetes | kubectl apply -f -` tells them"
        return [here, there] if told.going else []
    lines = []
    wanted = told.rollout.challenger if told.rollout and told.rollout.going else told.champion
    unable = [each for each in told.behind if wanted not in each["versions"]]
    after = f" after {told.seconds} s" if told.seconds is not None else ""
    if done := len(told.workers) - len(told.behind):
        lines.append(f"in effect in {done} worker{'s' * (done > 1)}{after}")
    if unable:
        lines.append(
            f"{len(unable)} worker{'s' * (len(unable) > 1)} did not load version {wanted}: "
            f"start it again, `d2c serve {told.model}`"
        )
    elif told.behind:
        lines.append(f"{len(told.behind)} worker{'s' * (len(told.behind) > 1)} did not follow yet")
    return lines


@example("d2c served lead_scoring L-1042", "d2c served lead_scoring L-1042 --at 2026-11-01")
@main.command()
@click.argument("model")
@click.argument("key")
@click.option("--at", metavar="DATE", help="The day (UTC), or a day until a moment; today when not given.")
@json_option
def served(model: str, key: str, at: str | None, as_json: bool) -> None:
    """Tell which version of MODEL answered KEY on a day.

    From the predictions that were logged and collected; where there is none, from the history of champions and rollouts: who
    would have answered. Each line says which of the two it is.
    """
    from datetime import UTC, datetime

    from d2c_mlops.serving.rollout.lookup import moments
    from d2c_mlops.serving.rollout.lookup import served as look

    found = look(model, key, settings(), *moments(at, datetime.now(UTC)))
    if as_json:
        return show([each.to_dict() for each in found])
    rows = [
        (f"{each.at:%Y-%m-%d %H:%M:%S}Z", each.version, each.variant, each.how, each.prediction_id or "")
        for each in found
    ]
    table(("at" if found[0].how == "logged" else "from", "version", "variant", "how", "prediction"), rows)
    if found[0].how == "computed":
        click.echo("no prediction was logged for this key then (or none is collected yet: `d2c collect`)")
    return None
