"""JSON logging: one line per event on standard error, written by a thread so that no request waits for a pipe."""

from __future__ import annotations

import logging
import sys
from logging.handlers import QueueHandler, QueueListener
from queue import Full, SimpleQueue
from typing import Any

import orjson

BOUND = 10_000  # lines that wait; further ones are dropped and counted


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"at": record.created, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _Bounded(QueueHandler):
    def __init__(self, waiting: SimpleQueue[Any]) -> None:
        super().__init__(waiting)
        self.waiting, self.dropped = waiting, 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # formatted by the thread

    def enqueue(self, record: logging.LogRecord) -> None:
        if self.waiting.qsize() >= BOUND:
            self.dropped += 1
            raise Full
        self.waiting.put(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


def start_json_logging(name: str = "d2c.service") -> QueueListener:
    """Write log records of the logger `name` as JSON lines; return a function that stops it."""
    queue: SimpleQueue[Any] = SimpleQueue()
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(_Line())
    logger = logging.getLogger(name)
    logger.handlers = [_Bounded(queue)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    listener = QueueListener(queue, shown)
    listener.start()
    return listener
