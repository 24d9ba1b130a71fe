"""Private names of BentoML, and the service class that is made from them.

Tested with bentoml >=1.4.39,<1.5. Outside of that range, or where a name is missing, the service is mounted by BentoML's public interface.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import bentoml

from d2c_mlops.library_versions import VersionRange
from d2c_mlops.serving.http.messages import ASGI, Receive, Scope, Send

TESTED = VersionRange("bentoml", (1, 4, 39), (1, 5))
INSTEAD = "requests pass through BentoML's own layers, which is slower; BentoML answers /livez, /readyz, /healthz and /metrics"
SERVICE = ("_bentoml_sdk", "Service")
CONTAINER = ("bentoml._internal.configuration.containers", "BentoMLContainer")


def private_name(place: tuple[str, str]) -> Any:
    """Return a private name of BentoML; None if it is missing."""
    module, name = place
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def make_service(inner: type[Any], app: Callable[[ASGI | None], ASGI], **config: Any) -> Any:
    """Return a Bento service named d2c whose requests go to an application.

    `app` makes the application in a worker; it is given BentoML's own application, which runs start and stop, where requests bypass that.
    """
    base, container = private_name(SERVICE), private_name(CONTAINER)
    needed = {".".join(SERVICE): base, "Service.to_asgi": getattr(base, "to_asgi", None)}
    needed |= {
        ".".join(CONTAINER): container,
        "BentoMLContainer.metrics_client": getattr(container, "metrics_client", None),
    }
    missing = next((name for name, value in needed.items() if value is None), "")
    if TESTED.usable(missing, INSTEAD):
        return mount_application(base, container, app)(name="d2c", inner=inner, config=config)
    return bentoml.asgi_app(DeferredApp(app), path="/")(bentoml.service(name="d2c", **config)(inner))


def mount_application(base: type[Any], container: Any, app: Callable[[ASGI | None], ASGI]) -> type[Any]:
    """Return a service class whose requests go straight to the application.

    BentoML's own layers (traces, metrics, access log, a timer of a minute for each request) cost three times what the model costs,
    and the timers pile up until the collector has to walk through them. Its supervisor, its workers and its life cycle stay.
    """

    class DirectService(base):  # type: ignore[misc]
        """A Bento service without layers between server and application."""

        def to_asgi(self, is_main: bool = True) -> ASGI:
            """Return the application; BentoML's own runs start and stop."""
            container.metrics_client.get()  # sets the folder that the workers' metrics share
            return app(super().to_asgi(is_main))

    return DirectService


class DeferredApp:
    """An application that is made at its first request, in the worker."""

    def __init__(self, make: Callable[[ASGI | None], ASGI]) -> None:
        self.make = make
        self.made: ASGI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self.made is None:
            self.made = self.make(None)
        await self.made(scope, receive, send)
