"""Run the decision service: the HTTP application, and a thread that proposes and applies decisions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from d2c_mlops.decisions.app import LOG, DecisionApp, Dependencies
from d2c_mlops.decisions.cycle import configured_policies, run_cycle
from d2c_mlops.decisions.signed_links import link_secrets
from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.secrets.secrets import secret_names_in
from d2c_mlops.serving.deploy import DecisionServicePlan
from d2c_mlops.serving.http import json_logging as journal
from d2c_mlops.serving.http.api_keys import DECIDE, Keyring
from d2c_mlops.serving.local.server import check_port
from d2c_mlops.serving.state_paths import keys_file
from d2c_mlops.settings import Settings


class CycleThread:
    """Thread that runs a decision cycle at an interval, and at once after a decision."""

    def __init__(self, ledger: Ledger, settings: Settings, every: float) -> None:
        self.ledger, self.settings, self.every = ledger, settings, every
        self.due, self.over = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run_server, name="decisions", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def wake(self) -> None:
        """Run a cycle now."""
        self.due.set()

    def close(self) -> None:
        """Finish the current cycle, and stop."""
        self.over.set()
        self.due.set()
        self.thread.join(60.0)

    def _run_server(self) -> None:
        while not self.over.is_set():
            self.due.clear()
            try:
                run_cycle(self.ledger, self.settings, log=self._log_message, continue_on_error=True)
            except Exception as err:
                LOG.error("decision run failed", exc_info=err, extra={"facts": {}})
            self.due.wait(self.every)

    def _log_message(self, text: str) -> None:
        LOG.warning("turn", extra={"facts": {"said": text}})


def application_dependencies(
    settings: Settings, ledger: Ledger, wake_cycle: Callable[[], None] = lambda: None
) -> Dependencies:
    """Return the dependencies of the application. Raises UsageError when nobody can decide: no policy, no API key, no secret for links."""
    configured_policies(settings)
    ring, secrets = Keyring(keys_file(settings)), link_secrets(settings)
    if not secrets and not any(DECIDE in key.scopes for key in ring.keys.values()):
        raise UsageError(
            "nobody can decide: no API key has the scope decide, and no secret for links is set",
            where=str(ring.file),
            next="`d2c keys create NAME --model MODEL --scope decide`, or `links = secret:NAME` in [decisions]",
        )
    return Dependencies(settings, ledger, ring, secrets, wake_cycle)


def decision_service_plan(settings: Settings) -> DecisionServicePlan | None:
    """Return what a deployment of the decision service needs; None where the project has no policy."""
    if not settings.policies:
        return None
    texts = [
        text for policy in settings.policies.values() for text in (policy.apply, policy.sign, *policy.notify.values())
    ]
    links, others = secret_names_in(list(settings.decisions.links)), secret_names_in(texts)
    return DecisionServicePlan(settings.decisions.port, tuple(sorted(links)), tuple(sorted(others - links)))


def serve_decisions(settings: Settings, on_ready: Callable[[], None], *, host: str, port: int, every: float) -> None:
    """Serve until the process is stopped; `on_ready` is called once it listens."""
    import uvicorn

    check_port(host, port)
    ledger = Ledger.of(settings)
    turns = CycleThread(ledger, settings, every)
    app = DecisionApp(application_dependencies(settings, ledger, turns.wake if every else lambda: None))
    listener = journal.start_json_logging("d2c.decisions")

    class Told(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            on_ready()

    server = Told(uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False, server_header=False))
    try:
        if every:
            turns.start()
        server.run()
    finally:
        if every:
            turns.close()
        listener.stop()
        ledger.close()
