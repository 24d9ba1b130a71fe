"""Commands for decisions about predictions: decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from d2c_mlops.cli import example, json_option, main, section, settings, show, table
from d2c_mlops.errors import DataRefused, UsageError

if TYPE_CHECKING:
    from d2c_mlops.decisions.cycle import CycleReport
    from d2c_mlops.decisions.decision_rows import Decision
    from d2c_mlops.decisions.wording import Wording
    from d2c_mlops.ledger.store import Ledger

by_option = click.option("--by", metavar="NAME", help="Who decides; default: the current user.")
model_argument = click.argument("model", required=False)


@example("d2c decisions run price", "d2c decisions", "d2c decisions approve 1f2e3d", "d2c decisions stats price --json")
@section("Decide")
@main.group(invoke_without_command=True)
@json_option
@click.pass_context
def decisions(context: click.Context, as_json: bool) -> None:
    """Turn predictions into decisions.

    Decisions within guardrails are applied automatically, others need approval. A section [decisions:MODEL] of settings.ini is the policy. `field` is the output to decide about. `auto` is the rule for automatic
    approval, such as abs(price - current_price) / current_price <= 0.05. `allow` must hold for every decision that is
    applied. `deadline` and `at_deadline` limit the waiting time, `max_auto` limits automatic approvals per day, `deciders` lists the
    approvers. `apply` is the target: a web hook or URL::TABLE. Predictions become decisions if they come from batches
    (`d2c score … ledger:`) or from API keys with the scope `decide` or listed under `keys`; others are only counted. A row that is missing in
    the table is added if a person approved it, or with `allow_new = true`. Without a command, list the decisions that need approval.
    """
    if context.invoked_subcommand is None:
        _show_decisions(None, ("pending",), as_json)


@example("d2c decisions list price", "d2c decisions list --status failed --status applied", "d2c decisions list --all")
@decisions.command("list")
@model_argument
@click.option(
    "--status", "statuses", multiple=True, help="Only decisions with this status; repeatable; default: pending."
)
@click.option("--all", "every", is_flag=True, help="Decisions of every status.")
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1), help="Maximum number of decisions, newest first."
)
@json_option
def list_decisions(model: str | None, statuses: tuple[str, ...], every: bool, limit: int, as_json: bool) -> None:
    """List decisions of MODEL, or of all models."""
    from d2c_mlops.decisions.decision_rows import STATUSES

    if unknown := set(statuses) - set(STATUSES):
        raise UsageError(f"there is no status {', '.join(sorted(unknown))}", next=f"known: {', '.join(STATUSES)}")
    _show_decisions(model, None if every else statuses or ("pending",), as_json, limit)


@example("d2c decisions show 1f2e3d")
@decisions.command("show")
@click.argument("id")
@json_option
def show_decision(id: str, as_json: bool) -> None:
    """Show a decision: its prediction, its policy and its history. ID may be the start of the id."""
    from d2c_mlops.decisions.decision_rows import events_of_decision, find_decision, prediction_of
    from d2c_mlops.decisions.html_pages import reason_text
    from d2c_mlops.decisions.wording import display_value

    ledger = _open_ledger()
    decision = find_decision(ledger, id)
    base, happened = prediction_of(ledger, decision), events_of_decision(ledger, decision)
    if as_json:
        return show(decision.to_dict() | base | {"events": happened})
    words = _wordings_by_model(ledger, [decision])[decision.model, decision.version]
    click.secho(
        f"{decision.model} version {decision.version}, {decision.title}: {_value_text(decision, words)}", bold=True
    )
    proposed = display_value(decision.proposed, words.field(decision.field, "outputs"))
    edited = f", {proposed} was proposed" if decision.edited is not None else ""
    click.echo(
        f"{decision.status}{edited}; {reason_text(decision, words)}" + (f"; {decision.error}" if decision.error else "")
    )
    for side in ("inputs", "outputs"):
        values = (
            f"{words.label(name, side)} {display_value(value, words.field(name, side))}"
            for name, value in base[side].items()
        )
        click.echo(f"{side}: " + ", ".join(values))
    click.echo()
    rows = [(f"{decision.predicted_at:%Y-%m-%d %H:%M:%S}Z", "predicted", "", decision.prediction_id)]
    rows += [(f"{e['at'][:19].replace('T', ' ')}Z", e["status"], e["by"] or e["how"], e["reason"]) for e in happened]
    table(("at", "what", "by", "why"), rows)
    return None


@example("d2c decisions approve 1f2e3d", "d2c decisions approve 1f2e3d --by jo --reason 'as agreed with purchasing'")
@decisions.command()
@click.argument("id")
@click.option("--reason", default="", metavar="TEXT", help="Why.")
@by_option
@json_option
def approve(id: str, reason: str, by: str | None, as_json: bool) -> None:
    """Approve a decision as proposed. The next `d2c decisions run` applies it."""
    _decide_and_print(id, "approve", by, reason, None, as_json)


@example("d2c decisions reject 1f2e3d --reason 'a competitor is out of stock'")
@decisions.command()
@click.argument("id")
@click.option("--reason", default="", metavar="TEXT", help="Why; shown to the model's owner.")
@by_option
@json_option
def reject(id: str, reason: str, by: str | None, as_json: bool) -> None:
    """Reject a decision. Nothing is applied."""
    _decide_and_print(id, "reject", by, reason, None, as_json)


@example("d2c decisions edit 1f2e3d 12.90 --reason 'a round price'")
@decisions.command()
@click.argument("id")
@click.argument("value")
@click.option("--reason", required=True, metavar="TEXT", help="Why; shown to the model's owner.")
@by_option
@json_option
def edit(id: str, value: str, reason: str, by: str | None, as_json: bool) -> None:
    """Approve a decision with VALUE instead of the proposed value. VALUE must fit the contract and the policy."""
    _decide_and_print(id, "edit", by, reason, value, as_json)


@example("d2c decisions apply 1f2e3d", "d2c decisions apply")
@decisions.command()
@click.argument("id", required=False)
@json_option
def apply(id: str | None, as_json: bool) -> None:
    """Apply decision ID now, even if it failed before. Without ID, apply all decisions that are due."""
    from d2c_mlops.decisions.apply import apply_again, apply_due
    from d2c_mlops.decisions.cycle import CycleReport, configured_policies
    from d2c_mlops.decisions.decision_rows import find_decision
    from d2c_mlops.decisions.policy import Policy

    config, ledger = settings(), _open_ledger()
    if id is None:
        return _show_reports(
            [CycleReport(policy.model, applied=apply_due(ledger, policy)) for policy in configured_policies(config)],
            as_json,
        )
    decision = apply_again(ledger, Policy.of(find_decision(ledger, id).model, config), id)
    if as_json:
        show(decision.to_dict())
    else:
        click.echo(
            f"{decision.model} {decision.title}: {decision.status}" + (f", {decision.error}" if decision.error else "")
        )
    if decision.status == "failed":
        raise DataRefused(
            f"the target refused the decision: {decision.error}",
            where=decision.id,
            next=f"d2c decisions show {decision.id}",
        )
    return None


@example("d2c decisions collect", "d2c decisions collect price --dry-run")
@decisions.command()
@model_argument
@click.option("--dry-run", is_flag=True, help="Show what the policy would do; store nothing.")
@json_option
def collect(model: str | None, dry_run: bool, as_json: bool) -> None:
    """Create decisions from predictions, without applying them.

    Predictions are those of service logs and of batches (`d2c score … ledger:`).

    Each prediction becomes one decision, even if the command runs several times. If a key has several predictions, the newest counts.
    """
    from d2c_mlops.decisions.apply import now_utc
    from d2c_mlops.decisions.cycle import collect_and_propose

    _show_reports(collect_and_propose(_open_ledger(), settings(), model, now_utc(), write=not dry_run), as_json)


@example("d2c decisions run", "d2c decisions run price", "d2c run decisions -p model=price")
@decisions.command()
@model_argument
@json_option
def run(model: str | None, as_json: bool) -> None:
    """Create, propose and apply decisions, for MODEL or all models.

    Collects predictions, proposes decisions, applies deadlines, notifies approvers and applies due decisions.

    Run it on a schedule (`run = decisions` in a [schedule:NAME] section), or use `d2c decisions serve`, which does this every few
    seconds. Decisions are applied exactly once, even after a crash: a web hook is called with the decision's id as
    Idempotency-Key, and a table records each decision in the transaction that changes it.
    """
    from d2c_mlops.decisions.cycle import run_cycle

    _show_reports(run_cycle(_open_ledger(), settings(), model, log=lambda text: click.echo(text, err=True)), as_json)


@example("d2c decisions stats", "d2c decisions stats price --since 7d --json")
@decisions.command()
@model_argument
@click.option(
    "--since", default="30d", show_default=True, metavar="AGE", help="Only decisions proposed within this time."
)
@json_option
def stats(model: str | None, since: str, as_json: bool) -> None:
    """Show the time from prediction to action, and who decided.

    Shares of automatic and overridden decisions are beside it.
    """
    from datetime import timedelta

    from d2c_mlops.decisions.apply import now_utc
    from d2c_mlops.decisions.cycle import configured_policies
    from d2c_mlops.decisions.decision_statistics import decision_stats as figures
    from d2c_mlops.settings.parsing import parse_age

    try:
        span = timedelta(seconds=parse_age(since))
    except ValueError as err:
        raise UsageError(str(err), where="--since") from None
    figures_by_model = [
        figures(_open_ledger(), policy.model, now_utc(), span) for policy in configured_policies(settings(), model)
    ]
    if as_json:
        return show([stats_row.to_dict() for stats_row in figures_by_model])
    rows = [
        (stats_row.model, stats_row.decisions, stats_row.statuses["pending"], stats_row.statuses["applied"], stats_row.statuses["failed"],
         _duration_text(stats_row.median_seconds), _duration_text(stats_row.p90_seconds), _percent_text(stats_row.share_auto), _percent_text(stats_row.share_overridden))
        for stats_row in figures_by_model
    ]  # fmt: skip
    head = ("model", "decisions", "pending", "applied", "failed", "median to action", "p90", "automatic", "overridden")
    table(head, rows)
    return None


@example("d2c decisions link 1f2e3d --to jo")
@decisions.command()
@click.argument("id")
@click.option("--to", "by", required=True, metavar="NAME", help="The approver who uses the links.")
@json_option
def link(id: str, by: str, as_json: bool) -> None:
    """Print signed links that approve, reject and edit decision ID.

    They are for your own notification channels. Each link works once, until the decision's deadline.
    """
    from d2c_mlops.decisions.decision_rows import find_decision
    from d2c_mlops.decisions.policy import Policy
    from d2c_mlops.decisions.signed_links import action_links, link_secrets

    config = settings()
    decision = find_decision(_open_ledger(), id)
    if not Policy.of(decision.model, config).may_decide(by):
        raise UsageError(
            f"{by} is not an approver for {decision.model}", where=f"[decisions:{decision.model}] deciders"
        )
    secrets = link_secrets(config)
    if not secrets:
        raise UsageError(
            "no secret for signed links is configured", where="[decisions] links", next="add links = secret:NAME"
        )
    links = action_links(decision, by, config.decisions.url or f"http://127.0.0.1:{config.decisions.port}", secrets[0])
    if as_json:
        return show(links)
    for action, url in links.items():
        click.echo(f"{action}: {url}")
    return None


@example("d2c decisions serve", "d2c decisions serve --host 0.0.0.0 --port 8080 --every 10")
@decisions.command()
@click.option("--port", type=int, help="Port to listen on; default: [decisions] port.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; use TLS for a public address."
)
@click.option(
    "--every", type=click.FloatRange(0), help="Seconds between two runs; 0: never, `d2c decisions run` runs elsewhere."
)
@json_option
def serve(port: int | None, host: str, every: float | None, as_json: bool) -> None:
    """Serve the web page and the API for decisions until Ctrl-C.

    Does the work of `d2c decisions run` every few seconds.

    People with an API key open /. Programs call /decisions and POST /decisions/ID/approve, /reject or /edit; they need a key with the
    scope `decide` for the decision's model. /openapi.json describes the API. Signed links open a page with a button; only the
    button decides, and only once.
    """
    from d2c_mlops.decisions.server import serve_decisions as run_server

    config = settings()
    chosen = port if port is not None else config.decisions.port
    turns = config.decisions.every if every is None else every

    def ready() -> None:
        if as_json:
            return show({"url": f"http://{host}:{chosen}", "every": turns})
        click.echo(f"decisions page at http://{host}:{chosen}")
        click.echo("Ctrl-C stops it")
        return None

    run_server(config, ready, host=host, port=chosen, every=turns)


def _open_ledger() -> Any:
    from d2c_mlops.ledger.store import Ledger

    return Ledger.of(settings())


def _show_decisions(model: str | None, statuses: tuple[str, ...] | None, as_json: bool, limit: int = 100) -> None:
    from d2c_mlops.decisions.decision_rows import list_decisions
    from d2c_mlops.decisions.html_pages import reason_text

    ledger = _open_ledger()
    listing = list_decisions(ledger, [model] if model else None, statuses, limit)
    if as_json:
        return show([decision.to_dict() for decision in listing])
    if not listing:
        click.echo("no decision needs approval" if statuses == ("pending",) else "no decisions found")
        return None
    words = _wordings_by_model(ledger, listing)
    rows = [(d.id[:8], d.model, d.title, _value_text(d, words[d.model, d.version]), d.status, f"{d.predicted_at:%Y-%m-%d %H:%M}Z",
             f"{d.deadline_at:%Y-%m-%d %H:%M}Z" if d.status == "pending" else d.by or "",
             d.error or reason_text(d, words[d.model, d.version])) for d in listing]  # fmt: skip
    table(("id", "model", "about", "value", "status", "predicted", "until / by", "why"), rows)
    if statuses == ("pending",):
        click.echo("next: d2c decisions approve ID, reject ID or edit ID VALUE")
    return None


def _wordings_by_model(ledger: Ledger, listed: Sequence[Decision]) -> dict[tuple[str, int], Wording]:
    """Return the labels and units of decisions, by model and version; for a removed version only names."""
    from d2c_mlops.decisions.decision_rows import contract_of
    from d2c_mlops.decisions.wording import Wording

    words = {}
    for model, version in {(decision.model, decision.version) for decision in listed}:
        try:
            words[model, version] = Wording.of(contract_of(ledger, model, version))
        except UsageError:
            words[model, version] = Wording.of(None)
    return words


def _value_text(decision: Decision, wording: Wording) -> str:
    from d2c_mlops.decisions.wording import display_value

    value = display_value(decision.value, wording.field(decision.field, "outputs"))
    return f"{wording.label(decision.field, 'outputs')} {value}"


def _decide_and_print(id: str, action: str, by: str | None, reason: str, text: str | None, as_json: bool) -> None:
    import getpass

    from d2c_mlops.decisions.apply import now_utc
    from d2c_mlops.decisions.decision_rows import contract_of, find_decision
    from d2c_mlops.decisions.policy import Policy, parse_value
    from d2c_mlops.decisions.verdicts import decide

    ledger = _open_ledger()
    decision = find_decision(ledger, id)
    policy = Policy.of(decision.model, settings())
    value = None
    if text is not None:
        value = parse_value(policy.check(contract_of(ledger, decision.model, decision.version)), text)
    who = by or getpass.getuser()
    verdict, new = decide(
        ledger, policy, decision.id, action, decider=who, now=now_utc(), value=value, reason=reason
    )  # fmt: skip
    if as_json:
        return show(verdict.to_dict())
    click.echo(_verdict_text(verdict, new, _wordings_by_model(ledger, [verdict])[verdict.model, verdict.version]))
    return None


def _verdict_text(decision: Decision, new: bool, wording: Wording) -> str:
    was = "" if new else "no change: "
    then = "" if decision.verdict == "rejected" else "; `d2c decisions run` applies it"
    return f"{was}{decision.model} {decision.title}: {_value_text(decision, wording)} {decision.verdict} by {decision.by}{then if new else ''}"


def _show_reports(turns: list[CycleReport], as_json: bool) -> None:
    if as_json:
        show([turn.to_dict() for turn in turns])
    for turn in turns if not as_json else ():
        for line in _report_lines(turn):
            click.echo(line)
    if failed := sum(turn.applied.failed for turn in turns):
        raise DataRefused(
            f"{failed} decisions could not be applied", next="`d2c decisions list --status failed` shows why; "
            "`d2c decisions apply ID` retries one",
        )  # fmt: skip


def _report_lines(turn: CycleReport) -> list[str]:
    proposed = turn.proposed
    new = f"{proposed.predictions} new: {proposed.auto} applied automatically, {proposed.pending} need approval"
    counts = [
        (proposed.rejected, "outside the limits"),
        (proposed.superseded, "superseded"),
        (turn.notified, "notified"),
    ]
    counts += [(count, f"{word} at the deadline") for word, count in turn.deadlines.items()]
    applied = turn.applied
    counts += [(applied.applied, "applied"), (applied.waiting, "waiting for the target system"), (applied.failed, "refused"),
             (applied.asked, "need approval, because the table has no row for them"),
             (applied.expired, "outdated"), (applied.dry_run, "decided in dry-run mode, not applied")]  # fmt: skip
    lines = [f"{turn.model}: {new}" + "".join(f", {count} {word}" for count, word in counts if count)]
    if applied.nowhere:
        lines.append(f"{applied.nowhere} are decided but not applied: [decisions:{turn.model}] apply is not set")
    section = f"[decisions:{turn.model}]"
    if proposed.without_scope:
        lines.append(
            f"{proposed.without_scope} predictions from API keys without the scope `decide` were ignored ({proposed.keys}): "
            f"create a key with that scope (`d2c keys create NAME --model {turn.model} --scope ask --scope decide`), or list the key "
            f"under {section} keys ="
        )
    if proposed.without_key:
        lines.append(
            f"{proposed.without_key} predictions without a known API key were ignored: only batches (`d2c score`) "
            "and API keys create decisions"
        )
    if proposed.unknown:
        lines.append(f"{section} keys: {turn.model} has no API key named {', '.join(proposed.unknown)}")
    return lines


def _duration_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _percent_text(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
