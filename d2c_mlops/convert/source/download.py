"""Download one file over http or https: public hosts only, no credentials, limits of size and time."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, quote, urljoin, urlsplit

LARGEST = 1 << 30  # bytes of one file
SECONDS = 300.0  # for one file, from the first connection to the last byte
REDIRECTS = 5
PART = 1 << 16
AGENT = "d2c-convert"
PORTS = {"http": 80, "https": 443}
TRANSLATED = tuple(ipaddress.ip_network(word) for word in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"))


class NotFetched(Exception):
    """Why an address was not downloaded."""


@dataclass(frozen=True)
class Download:
    """A downloaded file: bytes, SHA-256, and the final address after redirects."""

    size: int
    sha256: str
    final: str


class Lookup(Protocol):
    """Resolves a host name, as socket.getaddrinfo does."""

    def __call__(
        self, host: str, port: int, /, *, type: int
    ) -> Sequence[tuple[object, int, int, str, Sequence[object]]]:
        """Return the addresses of a host."""


def download(
    url: str,
    target: Path,
    *,
    allowed_private_hosts: Collection[str] = (),  # HOST or HOST:PORT that may have a private or loopback address
    max_bytes: int = LARGEST,  # bytes
    seconds: float = SECONDS,
    lookup: Lookup = socket.getaddrinfo,
) -> Download:
    """Download an address to `target`, completely or not at all; raises NotFetched.

    Each address on the way is resolved once, checked, and connected to under that very number, so that a second answer of a name server
    cannot lead elsewhere. Neither proxies, cookies, ~/.netrc nor any variable of the environment is read.
    """
    end = time.monotonic() + seconds
    for _ in range(REDIRECTS + 1):
        parts = parse_address(url)
        numbers = _peer_addresses(parts, allowed_private_hosts, lookup)
        answer = _send_request(parts, numbers, target, end, max_bytes)
        if isinstance(answer, Download):
            return answer
        url = urljoin(url, answer)
    raise NotFetched(f"more than {REDIRECTS} redirects")


def parse_address(url: str) -> SplitResult:
    """Return the parts of an allowed address; raises NotFetched for others."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for what is no number
    except ValueError as error:
        raise NotFetched(f"it is not a valid URL: {error}") from None
    if parts.scheme not in PORTS:
        raise NotFetched(f"{parts.scheme or 'it'} is not http or https")
    if not parts.hostname or any(ord(letter) < 33 for letter in url):
        raise NotFetched("it is not a valid URL")
    if parts.username is not None or parts.password is not None:
        raise NotFetched("it contains a user name or a password")
    return parts


def is_public(number: str) -> bool:
    """Whether an IP address is one of the internet: not of this machine, its network, its provider's services or a test."""
    address = ipaddress.ip_address(number.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in TRANSLATED):
            return False  # they stand for another address, perhaps a private one
        address = address.ipv4_mapped or address
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _peer_addresses(parts: SplitResult, allowed: Collection[str], lookup: Lookup) -> list[tuple[str, int]]:
    """Return the numbers and ports to connect to; every number that the name has must be allowed."""
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    try:
        numbers = [str(entry[4][0]) for entry in lookup(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise NotFetched(f"the host {host} cannot be resolved: {error}") from None
    name = f"[{host}]" if ":" in host else host
    allowed_hosts = {host_name.lower() for host_name in allowed}
    if not allowed_hosts & {host, name, f"{name}:{port}"}:
        if private := [number for number in numbers if not is_public(number)]:
            number_shown = "" if private[0] == host else f" ({private[0]})"
            raise NotFetched(f"{host}{number_shown} is inside your network; to allow it: --fetch-from {name}:{port}")
    if not numbers:
        raise NotFetched(f"the host {host} cannot be resolved")
    return [(number, port) for number in dict.fromkeys(numbers)]


def _send_request(
    parts: SplitResult, numbers: list[tuple[str, int]], target: Path, deadline: float, largest: int
) -> Download | str:
    """Send one request; return the download, or the target of a redirect."""
    seconds_left = deadline - time.monotonic()
    if seconds_left <= 0:
        raise NotFetched("it exceeded its time limit")
    draft = target.with_name(f".{target.name}.part")
    opened: list[socket.socket] = []
    late = threading.Event()

    def stop() -> None:
        late.set()
        for connection in opened:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds_left, stop)
    timer.daemon = True
    timer.start()
    try:
        opened.append(_connect_to_first(numbers, deadline))
        connection = http.client.HTTPConnection(parts.hostname or "", numbers[0][1])
        connection.sock = opened[0]
        if parts.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(opened[0], server_hostname=parts.hostname)
            opened.append(connection.sock)
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
        default = parts.port is None or parts.port == PORTS[parts.scheme]
        host = (parts.hostname or "").encode("idna").decode("ascii")
        name = f"[{host}]" if ":" in host else host
        head = {"Host": name if default else f"{name}:{parts.port}", "User-Agent": AGENT, "Accept": "*/*",
                "Accept-Encoding": "identity", "Connection": "close"}  # fmt: skip
        connection.request("GET", path + query, headers=head)
        answer = connection.getresponse()
        place = answer.getheader("Location")
        if answer.status in (301, 302, 303, 307, 308) and place:
            return place
        if answer.status != 200:
            raise NotFetched(f"the server answered {answer.status} {answer.reason[:60]}")
        if answer.getheader("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise NotFetched(
                f"the server sends it as {answer.getheader('Content-Encoding', '')[:20]}, which was not requested"
            )
        return _write_body(answer, parts, draft, target, largest, late)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set():
            raise NotFetched("it exceeded its time limit") from None
        raise NotFetched(f"{type(error).__name__}: {str(error)[:200]}") from None
    finally:
        timer.cancel()
        for opened_connection in opened:
            opened_connection.close()
        draft.unlink(missing_ok=True)


def _connect_to_first(numbers: list[tuple[str, int]], end: float) -> socket.socket:
    """Connect to the first number that answers."""
    for number in numbers[:-1]:
        with suppress(OSError):
            return socket.create_connection(number, timeout=max(0.1, (end - time.monotonic()) / 3))
    return socket.create_connection(numbers[-1], timeout=max(0.1, end - time.monotonic()))


def _write_body(
    answer: http.client.HTTPResponse,
    parts: SplitResult,
    draft: Path,
    target: Path,
    largest: int,
    deadline_passed: threading.Event,
) -> Download:
    """Write the body to a temporary name, and rename it when it is complete."""
    length = answer.getheader("Content-Length", "")
    length = length if length.isascii() and len(length) <= 18 else ""
    if length.isdigit() and int(length) > largest:
        raise NotFetched(f"it has {int(length):,} bytes, more than {largest:,}")
    size, digest = 0, hashlib.sha256()
    with draft.open("wb") as file:
        while part := answer.read(PART):
            size += len(part)
            if size > largest:
                raise NotFetched(f"it has more than {largest:,} bytes")
            digest.update(part)
            file.write(part)
    if deadline_passed.is_set():  # without a length a connection that was cut looks like the end
        raise NotFetched("it exceeded its time limit")
    if length.isdigit() and size != int(length):
        raise NotFetched(f"the connection was closed after {size:,} of {int(length):,} bytes")
    draft.replace(target)
    return Download(size, digest.hexdigest(), parts.geturl())
