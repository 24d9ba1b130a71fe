"""A client of the tests that asks a service as a program on the same machine does."""

from typing import Any

from starlette.testclient import TestClient


class LocalClient(TestClient):
    """Names the service localhost, and calls bodies JSON where a test says nothing else."""

    __test__ = False

    def __init__(self, app: Any, **more: Any) -> None:
        super().__init__(
            app, **{"base_url": "http://localhost", "headers": {"content-type": "application/json"}} | more
        )
