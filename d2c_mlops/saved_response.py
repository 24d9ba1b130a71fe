"""The response of a web server, read from its downloaded file."""

from __future__ import annotations

import mimetypes
from io import BytesIO
from pathlib import Path
from typing import Any


def saved_response(path: str | Path, url: str) -> Any:
    """Return the file as `requests.get(url)` would return it: status 200, the content, the type by its name.

    Raises FileNotFoundError where the file is not there. No connection is opened.
    """
    import requests

    content = Path(path).read_bytes()
    response = requests.Response()
    response.raw = BytesIO(content)
    response.status_code, response.reason, response.url = 200, "OK", url
    kind = mimetypes.guess_type(str(path))[0] or "application/octet-stream"
    response.headers["Content-Type"] = kind
    response.headers["Content-Length"] = str(len(content))
    response.encoding = "utf-8" if kind.startswith("text/") or kind.endswith("json") else None
    return response


def saved_url(path: str | Path) -> str:
    """Return the address of a local file (`file:…`), which `urllib.request` opens as it opens others."""
    return Path(path).absolute().as_uri()
