"""Commands about what is done upon predictions: decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from d2c_mlops.cli import example, json_option, main, settings, show, table
from d2c_mlops.errors import DataRefused, UsageError

if TYPE_CHECKING:
    from d2c_mlops.decisions.records import Decision
    from d2c_mlops.decisions.turn import Turn
    from d2c_mlops.decisions.words import Words
    from d2c_mlops.ledger.store import Ledger

by_option = click.option("--by", metavar="NAME", help="Who decides; the user of this machine when not given.")
model_argument = click.argument("model", required=False)


@example("d2c decisions run price", "d2c decisions", "d2c decisions approve 1f2e3d", "d2c decisions stats price --json")
@main.group(invoke_without_command=True)
@json_option
@click.pass_context
def decisions(context: click.Context, as_json: bool) -> None:
    """Make decisions of predictions: apply them inside guardrails, ask a person about the others, and time it all.

    A section [decisions:MODEL] of settings.ini is the policy: `field` is the output that is decided upon, `auto` a rule under which
    nobody is asked, such as abs(price - current_price) / current_price <= 0.05, `allow` one that must hold for whatever is
    applied; `deadline` and `at_deadline`, `max_auto` a day, `deciders`, and where decisions go: `apply` names a web hook or
    URL::TABLE. Predictions of batches (`d2c score … ledger:`) and of API keys with the scope decide, or listed under `keys`, become
    decisions; those of other callers are counted and left alone. A row that the table lacks is added when a person approved it, or
    `allow_new = true`. Without a command, what waits for a person.
    """
    if context.invoked_subcommand is None:
        _list(None, ("pending",), as_json)


@example("d2c decisions list price", "d2c decisions list --status failed --status applied", "d2c decisions list --all")
@decisions.command("list")
@model_argument
@click.option("--status", "statuses", multiple=True, help="Only such; what waits for a person when not given.")
@click.option("--all", "every", is_flag=True, help="Whatever their status.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="How many, the newest first.")
@json_option
def list_decisions(model: str | None, statuses: tuple[str, ...], every: bool, limit: int, as_json: bool) -> None:
    """List decisions, of one MODEL or of all."""
    from d2c_mlops.decisions.records import STATUSES

    if unknown := set(statuses) - set(STATUSES):
        raise UsageError(f"there is no status {', '.join(sorted(unknown))}", next=f"known: {', '.join(STATUSES)}")
    _list(model, None if every else statuses or ("pending",), as_json, limit)


@example("d2c decisions show 1f2e3d")
@decisions.command("show")
@click.argument("id")
@json_option
def show_decision(id: str, as_json: bool) -> None:
    """Show all that is known of a decision: the prediction, the policy, and what happened when. ID may be its beginning."""
    from d2c_mlops.decisions.pages import reason_of
    from d2c_mlops.decisions.records import basis, events, find
    from d2c_mlops.decisions.words import shown

    ledger = _ledger()
    found = find(ledger, id)
    base, happened = basis(ledger, found), events(ledger, found)
    if as_json:
        return show(found.to_dict() | base | {"events": happened})
    words = _words(ledger, [found])[found.model, found.version]
    click.secho(f"{found.model} version {found.version}, {found.title}: {_value(found, words)}", bold=True)
    proposed = shown(found.proposed, words.field(found.field, "outputs"))
    edited = f", {proposed} was proposed" if found.edited is not None else ""
    click.echo(f"{found.status}{edited}; {reason_of(found, words)}" + (f"; {found.error}" if found.error else ""))
    for side in ("inputs", "outputs"):
        values = (
            f"{words.label(name, side)} {shown(each, words.field(name, side))}" for name, each in base[side].items()
        )
        click.echo(f"{side}: " + ", ".join(values))
    click.echo()
    rows = [(f"{found.predicted_at:%Y-%m-%d %H:%M:%S}Z", "predicted", "", found.prediction_id)]
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
    """Approve a decision as proposed; the next `d2c decisions run` applies it."""
    _decide(id, "approve", by, reason, None, as_json)


@example("d2c decisions reject 1f2e3d --reason 'a competitor is out of stock'")
@decisions.command()
@click.argument("id")
@click.option("--reason", default="", metavar="TEXT", help="Why; the model's owner learns from it.")
@by_option
@json_option
def reject(id: str, reason: str, by: str | None, as_json: bool) -> None:
    """Reject a decision: nothing is applied."""
    _decide(id, "reject", by, reason, None, as_json)


@example("d2c decisions edit 1f2e3d 12.90 --reason 'a round price'")
@decisions.command()
@click.argument("id")
@click.argument("value")
@click.option("--reason", required=True, metavar="TEXT", help="Why; the model's owner learns from it.")
@by_option
@json_option
def edit(id: str, value: str, reason: str, by: str | None, as_json: bool) -> None:
    """Approve a decision with VALUE instead of the proposed one, within the contract and the policy's limits."""
    _decide(id, "edit", by, reason, value, as_json)


@example("d2c decisions apply 1f2e3d", "d2c decisions apply")
@decisions.command()
@click.argument("id", required=False)
@json_option
def apply(id: str | None, as_json: bool) -> None:
    """Apply decision ID now, a dead letter too; without ID, all that are due."""
    from d2c_mlops.decisions.applying import apply_due, retry
    from d2c_mlops.decisions.policy import Policy
    from d2c_mlops.decisions.records import find
    from d2c_mlops.decisions.turn import Turn, policies

    held, ledger = settings(), _ledger()
    if id is None:
        return _told([Turn(each.model, applied=apply_due(ledger, each)) for each in policies(held)], as_json)
    found = retry(ledger, Policy.of(find(ledger, id).model, held), id)
    if as_json:
        show(found.to_dict())
    else:
        click.echo(f"{found.model} {found.title}: {found.status}" + (f", {found.error}" if found.error else ""))
    if found.status == "failed":
        raise DataRefused(f"it was refused: {found.error}", where=found.id, next=f"d2c decisions show {found.id}")
    return None


@example("d2c decisions collect", "d2c decisions collect price --dry-run")
@decisions.command()
@model_argument
@click.option("--dry-run", is_flag=True, help="Tell what the policy would do; keep nothing of it.")
@json_option
def collect(model: str | None, dry_run: bool, as_json: bool) -> None:
    """Make decisions of what services logged and batches answered (`d2c score … ledger:`), and apply nothing.

    A prediction becomes one decision, however often this runs and wherever. Of several about the same key the newest counts.
    """
    from d2c_mlops.decisions.applying import now_utc
    from d2c_mlops.decisions.turn import collected

    _told(collected(_ledger(), settings(), model, now_utc(), write=not dry_run), as_json)


@example("d2c decisions run", "d2c decisions run price", "d2c run decisions -p model=price")
@decisions.command()
@model_argument
@json_option
def run(model: str | None, as_json: bool) -> None:
    """Collect, propose, heed deadlines, tell who decides, and apply what is due, for MODEL or for all with a policy.

    Meant for a schedule: `run = decisions` in a [schedule:NAME] section, or `d2c decisions serve`, which does it every few
    seconds. Killed at any moment and started again it applies nothing twice: a web hook is called with the decision's id as
    Idempotency-Key, a table notes each decision in the transaction that changes it.
    """
    from d2c_mlops.decisions.turn import turn

    _told(turn(_ledger(), settings(), model, say=lambda text: click.echo(text, err=True)), as_json)


@example("d2c decisions stats", "d2c decisions stats price --since 7d --json")
@decisions.command()
@model_argument
@click.option("--since", default="30d", show_default=True, metavar="AGE", help="Of decisions proposed since then.")
@json_option
def stats(model: str | None, since: str, as_json: bool) -> None:
    """Tell how long it takes from prediction to action, and what share is applied unasked or overridden."""
    from datetime import timedelta

    from d2c_mlops.decisions.applying import now_utc
    from d2c_mlops.decisions.stats import stats as figures
    from d2c_mlops.decisions.turn import policies
    from d2c_mlops.settings.parsing import age

    try:
        span = timedelta(seconds=age(since))
    except ValueError as err:
        raise UsageError(str(err), where="--since") from None
    found = [figures(_ledger(), each.model, now_utc(), span) for each in policies(settings(), model)]
    if as_json:
        return show([each.to_dict() for each in found])
    rows = [
        (each.model, each.decisions, each.statuses["pending"], each.statuses["applied"], each.statuses["failed"],
         _long(each.median_seconds), _long(each.p90_seconds), _share(each.share_auto), _share(each.share_overridden))
        for each in found
    ]  # fmt: skip
    head = ("model", "decisions", "pending", "applied", "failed", "median to action", "p90", "unasked", "overridden")
    table(head, rows)
    return None


@example("d2c decisions link 1f2e3d --to jo")
@decisions.command()
@click.argument("id")
@click.option("--to", "by", required=True, metavar="NAME", help="Who decides by it.")
@json_option
def link(id: str, by: str, as_json: bool) -> None:
    """Print links that approve, reject and edit decision ID, each once, until its deadline; for channels of your own."""
    from d2c_mlops.decisions.links import keys, links_of
    from d2c_mlops.decisions.policy import Policy
    from d2c_mlops.decisions.records import find

    held = settings()
    found = find(_ledger(), id)
    if not Policy.of(found.model, held).may_decide(by):
        raise UsageError(f"{by} does not decide about {found.model}", where=f"[decisions:{found.model}] deciders")
    known = keys(held)
    if not known:
        raise UsageError("there is no secret for links", where="[decisions] links", next="write links = secret:NAME")
    made = links_of(found, by, held.decisions.url or f"http://127.0.0.1:{held.decisions.port}", known[0])
    if as_json:
        return show(made)
    for action, url in made.items():
        click.echo(f"{action}: {url}")
    return None


@example("d2c decisions serve", "d2c decisions serve --host 0.0.0.0 --port 8080 --every 10")
@decisions.command()
@click.option("--port", type=int, help="Port to listen on; [decisions] port when not given.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; behind TLS where it is public."
)
@click.option(
    "--every", type=click.FloatRange(0), help="Seconds between two turns; 0: `d2c decisions run` does it elsewhere."
)
@json_option
def serve(port: int | None, host: str, every: float | None, as_json: bool) -> None:
    """Serve the page and the API on which decisions are made, and take turns meanwhile, until Ctrl-C.

    People with an API key open /, programs call /decisions and POST /decisions/ID/approve, reject or edit (a key of the scope decide,
    for the decision's model); /openapi.json describes it. Signed links open a page with a button: looking at it decides nothing, the
    button does, once.
    """
    from d2c_mlops.decisions.server import serve as run_server

    held = settings()
    chosen = port if port is not None else held.decisions.port
    turns = held.decisions.every if every is None else every

    def ready() -> None:
        if as_json:
            return show({"url": f"http://{host}:{chosen}", "every": turns})
        click.echo(f"decisions are made at http://{host}:{chosen}")
        click.echo("Ctrl-C stops it")
        return None

    run_server(held, ready, host=host, port=chosen, every=turns)


def _ledger() -> Any:
    from d2c_mlops.ledger.store import Ledger

    return Ledger.of(settings())


def _list(model: str | None, statuses: tuple[str, ...] | None, as_json: bool, limit: int = 100) -> None:
    from d2c_mlops.decisions.pages import reason_of
    from d2c_mlops.decisions.records import listed

    ledger = _ledger()
    found = listed(ledger, [model] if model else None, statuses, limit)
    if as_json:
        return show([each.to_dict() for each in found])
    if not found:
        click.echo("nothing waits for a decision" if statuses == ("pending",) else "there are no such decisions")
        return None
    words = _words(ledger, found)
    rows = [(d.id[:8], d.model, d.title, _value(d, words[d.model, d.version]), d.status, f"{d.predicted_at:%Y-%m-%d %H:%M}Z",
             f"{d.deadline_at:%Y-%m-%d %H:%M}Z" if d.status == "pending" else d.by or "",
             d.error or reason_of(d, words[d.model, d.version])) for d in found]  # fmt: skip
    table(("id", "model", "about", "value", "status", "predicted", "until / by", "why"), rows)
    if statuses == ("pending",):
        click.echo("next: d2c decisions approve ID, reject ID or edit ID VALUE")
    return None


def _words(ledger: Ledger, found: Sequence[Decision]) -> dict[tuple[str, int], Words]:
    """Return the labels and units of decisions, by model and version; of a version that is gone, names are all there is."""
    from d2c_mlops.decisions.records import contract_of
    from d2c_mlops.decisions.words import Words

    words = {}
    for model, version in {(each.model, each.version) for each in found}:
        try:
            words[model, version] = Words.of(contract_of(ledger, model, version))
        except UsageError:
            words[model, version] = Words.of(None)
    return words


def _value(decision: Decision, words: Words) -> str:
    from d2c_mlops.decisions.words import shown

    value = shown(decision.value, words.field(decision.field, "outputs"))
    return f"{words.label(decision.field, 'outputs')} {value}"


def _decide(id: str, action: str, by: str | None, reason: str, text: str | None, as_json: bool) -> None:
    import getpass

    from d2c_mlops.decisions.applying import now_utc
    from d2c_mlops.decisions.deciding import decide
    from d2c_mlops.decisions.policy import Policy, read_value
    from d2c_mlops.decisions.records import contract_of, find

    ledger = _ledger()
    found = find(ledger, id)
    policy = Policy.of(found.model, settings())
    value = None
    if text is not None:
        value = read_value(policy.check(contract_of(ledger, found.model, found.version)), text)
    who = by or getpass.getuser()
    made, new = decide(
        ledger, policy, found.id, action, by=who, now=now_utc(), value=value, reason=reason
    )  # fmt: skip
    if as_json:
        return show(made.to_dict())
    click.echo(_said(made, new, _words(ledger, [made])[made.model, made.version]))
    return None


def _said(made: Decision, new: bool, words: Words) -> str:
    was = "" if new else "was so already: "
    then = "" if made.verdict == "rejected" else "; `d2c decisions run` applies it"
    return f"{was}{made.model} {made.title}: {_value(made, words)} {made.verdict} by {made.by}{then if new else ''}"


def _told(turns: list[Turn], as_json: bool) -> None:
    if as_json:
        show([each.to_dict() for each in turns])
    for each in turns if not as_json else ():
        for line in _lines(each):
            click.echo(line)
    if failed := sum(each.applied.failed for each in turns):
        raise DataRefused(
            f"{failed} decisions could not be applied", next="`d2c decisions list --status failed` says why; "
            "`d2c decisions apply ID` tries one again",
        )  # fmt: skip


def _lines(turn: Turn) -> list[str]:
    proposed = turn.proposed
    new = f"{proposed.predictions} new: {proposed.auto} unasked, {proposed.pending} to be asked about"
    more = [(proposed.rejected, "against the limits"), (proposed.superseded, "superseded"), (turn.told, "told of")]
    more += [(count, f"{word} at the deadline") for word, count in turn.late.items()]
    applied = turn.applied
    more += [(applied.applied, "applied"), (applied.waiting, "waiting for the other side"), (applied.failed, "refused"),
             (applied.asked, "to be asked about, because the table has no row for them"),
             (applied.expired, "outdated"), (applied.dry_run, "decided on trial, not applied")]  # fmt: skip
    lines = [f"{turn.model}: {new}" + "".join(f", {count} {word}" for count, word in more if count)]
    if applied.nowhere:
        lines.append(f"{applied.nowhere} are decided and go nowhere: [decisions:{turn.model}] apply is not set")
    section = f"[decisions:{turn.model}]"
    if proposed.without_scope:
        lines.append(
            f"{proposed.without_scope} predictions by keys without scope decide were not considered ({proposed.keys}): "
            f"give the key that scope (`d2c keys create NAME --model {turn.model} --scope ask --scope decide`), or list it "
            f"under {section} keys ="
        )
    if proposed.without_key:
        lines.append(
            f"{proposed.without_key} predictions asked without a known API key were not considered: batches (`d2c score`) "
            "and API keys cause decisions"
        )
    if proposed.unknown:
        lines.append(f"{section} keys: no API key of {turn.model} is called {', '.join(proposed.unknown)}")
    return lines


def _long(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
