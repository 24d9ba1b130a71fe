"""Notifications about the result of a slot, through any channel that apprise supports."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from d2c_mlops.errors import D2CError, UsageError
from d2c_mlops.runs.execution.leases import LogMessage
from d2c_mlops.runs.secrets.secrets import resolve_reference
from d2c_mlops.settings import JobSettings


def notify_channels(job: JobSettings, event: str, title: str, text: str, print_line: LogMessage) -> int:
    """Send a message to the job's channels for this event; return how many accepted it.

    Failed notifications are logged and do not stop the scheduler: the result is already recorded.
    """
    if event not in job.notify_on or not job.notify:
        return 0
    try:
        return sum(send_notification(url, title, text, print_line, job.name) for url in job.notify)
    except D2CError as err:
        print_line(f"{job.name}: notification failed: {err}")
        return 0


def send_notification(
    url: str,
    title: str,
    text: str,
    print_line: LogMessage,
    name: str,
    delivery_id: str = "",  # the same at each attempt; web hooks and e-mails carry it as the header D2C-Delivery
) -> bool:
    """Send a message to one channel, which may be written secret:NAME; return whether it was accepted. The URL is not logged."""
    channel = _new_apprise().Apprise()
    scheme = url.partition("://")[0] if "://" in url else url
    if not channel.add(_with_header(resolve_reference(url), delivery_id)):
        print_line(f"{name}: {scheme} is not a channel that apprise supports")
        return False
    if not channel.notify(title=title, body=text):
        print_line(f"{name}: {scheme} did not accept the message")
        return False
    return True


WITH_HEADERS = ("json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos")


def _with_header(url: str, delivery_id: str) -> str:
    """Return a URL with the id of a message as a header, for channels that have headers."""
    if not delivery_id or url.partition("://")[0].lower() not in WITH_HEADERS:
        return url
    return f"{url}{'&' if '?' in url else '?'}+D2C-Delivery={delivery_id}"


def _new_apprise() -> Any:
    try:
        return import_module("apprise")
    except ImportError:
        raise UsageError("apprise is not installed", next="pip install 'd2c_mlops[notify]'") from None
