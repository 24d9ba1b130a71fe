"""Lock for processes that write to the same folder."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d2c_mlops.errors import Temporary
from d2c_mlops.private_files import private_file, private_folder


@contextmanager
def lock(folder: Path, purpose: str, timeout: float) -> Iterator[None]:
    """Lock `folder` for writing. Raises Temporary after `timeout` seconds of waiting.

    The lock is the kernel's: it is gone when the process that holds it is, kill -9 included.
    """
    private_folder(folder)
    private_file(folder / ".lock")
    with (folder / ".lock").open("ab") as file:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Temporary(
                        f"another process has been writing {purpose} for more than {timeout:g} s",
                        where=str(folder),
                        next="run the same command again when it has finished",
                    ) from None
                time.sleep(0.05)
        yield
