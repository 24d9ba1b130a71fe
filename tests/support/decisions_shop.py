"""A shop whose prices are decided upon: a model on record, what it predicted, a receiver, a server."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandera.pandas as pa
from sqlalchemy import insert

from d2c_mlops.decisions.policy import Policy
from d2c_mlops.ledger.schema import predictions, versions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import Contract, column, contract_to_dict
from d2c_mlops.settings import Settings, load_settings

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
AUTO = "abs(price - current_price) / current_price <= 0.05"
SKU = column("string", "The product", example="P-1", max_length=20)
CONTRACT = Contract(
    name="price", version="1.0.0", key="sku",
    inputs=pa.DataFrameSchema({
        "sku": SKU,
        "current_price": column("number", "Price today", unit="EUR", ge=0, nullable=True),
        "cost": column("number", "What it costs", unit="EUR", ge=0, nullable=True),
    }),
    outputs=pa.DataFrameSchema({"sku": SKU, "price": column("number", "Price to ask", unit="EUR", ge=0, le=1000)}),
)  # fmt: skip


def shop(
    folder: Path, *lines: str, name: str = "price", url: str = "", more: str = ""
) -> tuple[Settings, Ledger, Policy]:
    """Return the settings, the ledger and the policy of a shop with one version on record."""
    own = f"ledger_url = {url}\n" if url else ""
    text = f"[d2c]\nlock_wait = 20\n{own}[decisions:{name}]\nfield = price\n" + "".join(f"{line}\n" for line in lines)
    (folder / "settings.ini").write_text(text + more)
    held = load_settings(folder, environ={})
    ledger = Ledger.of(held)
    row: dict[str, Any] = {
        "model": name, "version": 1, "created_at": NOW, "run_id": None, "model_class": "x", "params": {},
        "contract": contract_to_dict(CONTRACT), "charter": {}, "evaluation": {}, "inputs": [], "as_of": "2026-06-01",
        "package_version": "0", "artifact_uri": "x", "sha256": "x",
    }  # fmt: skip
    with ledger.write() as connection:
        connection.execute(insert(versions), row)
    return held, ledger, Policy.of(name, held)


def predicted(
    ledger: Ledger,
    sku: str,
    price: float,
    current: float | None = 10.0,
    *,
    at: datetime = NOW,
    name: str = "price",
    **more: Any,
) -> str:
    """Put a prediction on record and return its id."""
    id = f"{sku}-{price}-{at.timestamp():.0f}-{name}"
    row = {"id": id, "model": name, "version": 1, "contract": "1.0.0", "variant": "champion", "key": sku, "at": at,
           "inputs": {"sku": sku, "current_price": current, "cost": 5.0}, "outputs": {"sku": sku, "price": price},
           "reasons": [f"{sku} sells well"], "caller": "batch", "request_id": "r"}  # fmt: skip
    with ledger.write() as connection:
        connection.execute(insert(predictions), row | more)
    return id


def clock(**later: float):
    """Return a clock that stands still."""
    return lambda: NOW + timedelta(**later)


class Receiver:
    """A web hook that takes each key once, as an idempotent receiver does, and keeps all calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.applied: dict[str, Any] = {}
        self.status, self.headers, self.slow = 200, {}, 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                key = self.headers["idempotency-key"]
                outer.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
                if outer.status == 200:
                    outer.applied.setdefault(key, []).append(json.loads(body).get("value"))
                time.sleep(outer.slow)
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/prices"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
