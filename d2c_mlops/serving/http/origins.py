"""Host and Origin checks in development mode: protect a local service from web pages of other sites."""

from __future__ import annotations

import socket
from functools import cache, lru_cache
from ipaddress import ip_address

from d2c_mlops.serving.http.messages import HttpRefused, Request, problem_answer

OPEN = frozenset({"/livez", "/readyz", "/healthz"})  # health checks: answered under any name


def check_origin(request: Request, hosts: tuple[str, ...]) -> None:
    """Raise HttpRefused for a request that a page of another site may have sent through a browser.

    A foreign name in Host is a sign of DNS rebinding: a site's name that resolves to this address.
    An IP address cannot be rebound. `hosts` are further names, with or without a port.
    """
    host = request.header(b"host")
    if host is not None and not is_own_host(host, hosts):
        shown = host[:100].decode("latin-1")
        raise HttpRefused(
            problem_answer(
                403,
                "Host not allowed",
                f"{shown}: add it to `hosts` in [service], or use localhost",
            )
        )
    origin = request.header(b"origin")
    if origin is not None and not is_allowed_origin(origin, host or b"", hosts):
        raise HttpRefused(
            problem_answer(
                403,
                "Origin not allowed",
                "add the page's host to `hosts` in [service] if it is yours",
            )
        )


@lru_cache(1024)
def is_own_host(host: bytes, hosts: tuple[str, ...]) -> bool:
    """Return whether a Host header names this machine: by address, as localhost, by its own name or one of `hosts`."""
    text = host.decode("latin-1").lower()
    name = text.partition(":")[0].rstrip(".")
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        if port and not port.startswith(":"):
            return False  # a name that begins like an address: [::1].example.org
    if name == "localhost" or name.endswith(".localhost") or not {text, name}.isdisjoint(map(str.lower, hosts)):
        return True
    try:
        return bool(ip_address(name))
    except ValueError:
        return name in local_host_names()


@lru_cache(1024)
def is_allowed_origin(origin: bytes, host: bytes, hosts: tuple[str, ...]) -> bool:
    """Return whether an Origin header is the service's own page, or a page on one of `hosts`."""
    scheme, _, place = origin.decode("latin-1").lower().partition("://")
    if scheme not in ("http", "https"):
        return False
    return place == host.decode("latin-1").lower() or not {place, place.partition(":")[0]}.isdisjoint(
        map(str.lower, hosts)
    )


@cache
def local_host_names() -> frozenset[str]:
    """Return the host names of this machine."""
    name = socket.gethostname().lower()
    return frozenset({name, f"{name}.local", name.partition(".")[0]})
