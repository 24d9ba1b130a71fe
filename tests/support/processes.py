"""Living processes, and waiting for what they do."""

import time

import psutil


def marked(text: str) -> list[psutil.Process]:
    """Return the living processes with a text in their command line, or that belong to the run of this id."""
    return [
        p for p in psutil.process_iter(["cmdline", "status", "environ"])
        if text in (*(p.info["cmdline"] or []), (p.info["environ"] or {}).get("D2C_RUN_ID"))
        or text in " ".join(p.info["cmdline"] or [])
        if p.info["status"] != psutil.STATUS_ZOMBIE
    ]  # fmt: skip


def wait_for(condition, patience: float = 180.0) -> None:
    limit = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.1)
