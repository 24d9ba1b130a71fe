"""Commands for alerts: alerts list, show, ack, snooze, close, deliver, watch."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, json_option, main, section, settings, show, table
from d2c_mlops.errors import UsageError

if TYPE_CHECKING:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.monitoring.alerts import Alert

by_option = click.option("--by", metavar="NAME", help="Who decides; default: the current user.")


class AlertCommands(click.Group):
    """A group whose first argument may be a model: `d2c alerts demand` is `d2c alerts list demand`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@example("d2c alerts", "d2c alerts demand --all", "d2c alerts ack 3f2a9c --note 'new price list'")
@section("Operate")
@main.group(cls=AlertCommands)
def alerts() -> None:
    """List alerts, acknowledge, snooze and close them.

    \b
    d2c alerts [MODEL] [--all]   the open alerts, or all
    d2c alerts COMMAND           one of the commands below

    An alert is one incident: what breached for one cause. It is opened, updated and closed by monitors and by `d2c alerts watch`.
    Messages go to the channels of [alerts] notify, for critical alerts also to notify_critical, or to those of [model:NAME]
    notify. They are sent by the scheduler each minute, by monitors, and by `d2c alerts deliver`.
    """


@example("d2c alerts list", "d2c alerts list demand --all --json")
@alerts.command("list")
@click.argument("model", required=False)
@click.option("--all", "every", is_flag=True, help="Closed alerts too.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="Maximum number, newest first.")
@json_option
def list_alerts(model: str | None, every: bool, limit: int, as_json: bool) -> None:
    """List the open alerts of MODEL, or of all models."""
    from d2c_mlops.monitoring.alert_messages import alert_title
    from d2c_mlops.operations.alert_rows import alert_dict, find_alerts, find_deliveries

    ledger = _open_ledger()
    listed = find_alerts(ledger, model, every, limit)
    if as_json:
        return show([alert_dict(alert) for alert in listed])
    if listed:
        rows = [(a.id, _state(a), a.severity, f"{a.since}", _changed(a), alert_title(a)) for a in listed]
        table(("id", "status", "severity", "since", "last change", "what is wrong"), rows)
        click.echo(f"\nnext: d2c alerts show {listed[0].id}")
    else:
        click.echo(f"no {'' if every else 'open '}alerts{f' of {model}' if model else ''}")
    for status, meaning in (("pending", "not accepted by their channel yet"), ("failed", "given up")):
        if stuck := [row for row in find_deliveries(ledger, status=status) if row.attempts]:
            click.echo(f"{len(stuck)} message(s) {meaning}: {stuck[-1].place}: {stuck[-1].error}")
    config = settings()
    if not config.alerts.notify and not any(section.notify for section in config.models.values()):
        click.echo("no channel is set, so nobody is told: add `notify` to [alerts] in settings.ini")
    return None


@example("d2c alerts show 3f2a9c")
@alerts.command("show")
@click.argument("id")
@json_option
def show_alert(id: str, as_json: bool) -> None:
    """Show an alert, its history and its messages. ID may be the start of the id."""
    from d2c_mlops.monitoring.alert_messages import alert_title
    from d2c_mlops.operations.alert_rows import alert_dict, events_of_alert, find_alert, find_deliveries

    ledger = _open_ledger()
    alert = find_alert(ledger, id)
    events, deliveries = events_of_alert(ledger, alert.id), find_deliveries(ledger, alert.id)
    if as_json:
        return show(alert_dict(alert) | {"events": events, "messages": [row.to_dict() for row in deliveries]})
    click.secho(f"{alert.severity}: {alert_title(alert)}", bold=True)
    click.echo(f"{_state(alert)}; cause: {alert.key}; since {alert.since}")
    for signal in alert.signals:
        healthy = f"healthy at {signal.healthy_looks} look(s)" if signal.healthy_looks else "breached"
        looks = f"{signal.breaches} breach(es), the latest {signal.breached_at:%Y-%m-%d %H:%M}Z"
        click.echo(f"  {f'{signal.model} {signal.metric}'.strip()}: {signal.message}; {looks}; {healthy}")
    for advice in dict.fromkeys(signal.advice for signal in alert.breached):
        click.echo(f"next: {advice}")
    click.echo()
    rows = [(f"{e['at'][:16].replace('T', ' ')}Z", e["kind"], e["by"], e["note"]) for e in events]
    rows += [
        (f"{row.sent_at or row.created_at:%Y-%m-%d %H:%M}Z", f"message {row.status}", row.place, row.error or row.id)
        for row in deliveries
    ]
    table(("at", "what", "by or to", "note"), sorted(rows, key=lambda row: row[0]))
    return None


@example("d2c alerts ack 3f2a9c", "d2c alerts ack 3f2a9c --note 'new price list, retraining tonight'")
@alerts.command()
@click.argument("id")
@click.option("--note", default="", metavar="TEXT", help="What is being done.")
@by_option
@json_option
def ack(id: str, note: str, by: str | None, as_json: bool) -> None:
    """Acknowledge an alert, so that it is not escalated."""
    from d2c_mlops.operations.alerts import acknowledge_alert

    alert = acknowledge_alert(_open_ledger(), settings(), id, by or getpass.getuser(), note)
    _show_decided(alert, as_json)


@example("d2c alerts snooze 3f2a9c --for 8h", "d2c alerts snooze 3f2a9c --until 2026-12-01T08:00")
@alerts.command()
@click.argument("id")
@click.option("--until", metavar="TIME", help="A day, or a time; without an offset in the zone of [alerts].")
@click.option("--for", "age", metavar="AGE", help="Such as 45m, 8h or 2d.")
@click.option("--note", default="", metavar="TEXT", help="Why.")
@by_option
@json_option
def snooze(id: str, until: str | None, age: str | None, note: str, by: str | None, as_json: bool) -> None:
    """Send no messages about an alert for a time, unless it gets worse."""
    from d2c_mlops.operations.alerts import snooze_alert

    end = _snooze_end(until, age)
    alert = snooze_alert(_open_ledger(), settings(), id, end, by or getpass.getuser(), note)
    _show_decided(alert, as_json)


@example("d2c alerts close 3f2a9c --reason 'the price list was changed on purpose'")
@alerts.command()
@click.argument("id")
@click.option("--reason", required=True, metavar="TEXT", help="Why it is over.")
@by_option
@json_option
def close(id: str, reason: str, by: str | None, as_json: bool) -> None:
    """Close an alert. A breach within [alerts] reopen_within reopens it."""
    from d2c_mlops.operations.alerts import close_alert
    from d2c_mlops.operations.delivery import try_to_deliver

    ledger, config = _open_ledger(), settings()
    alert = close_alert(ledger, config, id, by or getpass.getuser(), reason)
    try_to_deliver(ledger, config, lambda line: click.echo(line, err=True))
    _show_decided(alert, as_json)


@example("d2c alerts deliver")
@alerts.command("deliver")
@json_option
def deliver_messages(as_json: bool) -> None:
    """Send the messages that are due, also those that failed before.

    A message is sent until its channel accepts it, at longer and longer intervals up to half an hour, for [alerts] give_up. It may
    arrive twice after a crash, then with the same id: the header D2C-Delivery of web hooks and e-mails, and its last line.
    """
    from d2c_mlops.operations.alerts import advance_alerts
    from d2c_mlops.operations.delivery import deliver

    ledger, config = _open_ledger(), settings()
    advance_alerts(ledger, config)
    report = deliver(ledger, config, log=lambda line: click.echo(line, err=True))
    if as_json:
        return show(report.to_dict())
    click.echo(f"{report.sent} sent, {report.retried_later} to be retried, {report.given_up} given up")
    return None


@example("d2c alerts watch --max-age 26h", "d2c alerts watch --max-age 30m --part scheduler")
@alerts.command("watch")
@click.option("--max-age", default="26h", show_default=True, metavar="AGE", help="Such as 30m, 26h or 2d.")
@click.option("--part", "parts", multiple=True, help="scheduler, monitor, predictions or data; default: all.")
@json_option
def watch_arrivals(max_age: str, parts: tuple[str, ...], as_json: bool) -> None:
    """Check that scheduler, monitors and data keep arriving.

    For the cron of another machine, or one that does not depend on the scheduler. Ends with exit code 3 if something is older than
    the maximum age, and opens an alert; with 75 if the ledger cannot be reached, after the channels were told.
    """
    from d2c_mlops.operations.watch import watch

    listed = watch(settings(), _age("--max-age", max_age), parts, log=lambda line: click.echo(line, err=True))
    if as_json:
        return show([arrival.to_dict() for arrival in listed])
    for arrival in listed:
        click.echo(arrival.sentence(datetime.now(UTC)))
    return None


def _snooze_end(until: str | None, age: str | None) -> datetime:
    """Return the end of a snooze in UTC."""
    from d2c_mlops.operations.channels import alert_zone

    if (until is None) == (age is None):
        raise UsageError("give --until or --for", next="--for 8h")
    if age is not None:
        return datetime.now(UTC) + _age("--for", age)
    try:
        end = datetime.fromisoformat(until or "")
    except ValueError:
        raise UsageError(f"{until!r} is neither a day nor a time", next="write 2026-12-01T08:00") from None
    return (end if end.tzinfo else end.replace(tzinfo=alert_zone(settings()))).astimezone(UTC)


def _age(option: str, text: str) -> timedelta:
    from d2c_mlops.settings.parsing import parse_age

    try:
        return timedelta(seconds=parse_age(text))
    except ValueError as err:
        raise UsageError(str(err), where=option) from None


def _state(alert: Alert) -> str:
    if alert.status == "closed":
        return "closed"
    snoozed = f", snoozed until {alert.snoozed_until:%Y-%m-%d %H:%M}Z" if alert.is_snoozed(datetime.now(UTC)) else ""
    person = f" by {alert.acknowledged_by}" if alert.status == "acknowledged" else ""
    return f"{alert.status}{person}{snoozed}"


def _changed(alert: Alert) -> str:
    return f"{alert.closed_at or alert.updated_at:%Y-%m-%d %H:%M}Z"


def _show_decided(alert: Alert, as_json: bool) -> None:
    from d2c_mlops.monitoring.alert_messages import alert_title
    from d2c_mlops.operations.alert_rows import alert_dict

    if as_json:
        return show(alert_dict(alert))
    click.echo(f"{alert.id} {_state(alert)}: {alert_title(alert)}")
    return None


def _open_ledger() -> Ledger:
    from d2c_mlops.ledger.store import Ledger

    return Ledger.of(settings())
