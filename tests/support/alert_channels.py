"""A web hook and an SMTP server on 127.0.0.1 that record messages, and alerts to send there."""

import email
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from d2c_mlops.ledger.store import Ledger
from d2c_mlops.monitoring.alerts import Breach
from d2c_mlops.settings import Settings, load_settings

NOON = datetime(2026, 6, 3, 12, tzinfo=UTC)
BREACH = Breach(
    "demand", "drift", "price_index", "warning", "price_index is 9 % above its reference", "d2c monitor demand"
)
JUDGED = {("demand", "drift")}


class WebHook:
    """A web hook that records the requests: method, path, delivery id and body; `status` is what it answers."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[tuple[str, str, str, str]] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
                hook.requests.append((self.command, self.path, self.headers["D2C-Delivery"] or "", body))
                self.send_response(hook.status)
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}"

    @property
    def ids(self) -> list[str]:
        return [id for _, _, id, _ in self.requests]

    @property
    def titles(self) -> list[str]:
        return [json.loads(body)["title"] for _, _, _, body in self.requests]

    @property
    def texts(self) -> list[str]:
        return [json.loads(body)["message"] for _, _, _, body in self.requests]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def smtp_server() -> Iterator[tuple[int, list[Message]]]:
    """The port of an SMTP server and the e-mails that it accepted."""
    mails: list[Message] = []

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.answer(220, "test ESMTP")
            while line := self.rfile.readline().decode().strip():
                verb = line.split()[0].upper()
                if verb == "DATA":
                    self.answer(354, "end with a dot")
                    lines = iter(self.rfile.readline, b".\r\n")
                    mails.append(email.message_from_bytes(b"".join(line.removeprefix(b".") for line in lines)))
                if verb == "EHLO":
                    self.wfile.write(b"250-test\r\n")
                self.answer(221 if verb == "QUIT" else 250, "OK")
                if verb == "QUIT":
                    return

        def answer(self, code: int, words: str) -> None:
            self.wfile.write(f"{code} {words}\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.server_address[1], mails
        server.shutdown()


def alert_project(folder: Path, options: str = "", more: str = "") -> tuple[Settings, Ledger]:
    """Return the settings and the ledger of a project with a section [alerts]."""
    folder.mkdir(exist_ok=True)
    (folder / "settings.ini").write_text(f"[d2c]\nlock_wait = 10\n[alerts]\n{options}\n{more}\n")
    settings = load_settings(folder, environ={})
    return settings, Ledger.of(settings)
