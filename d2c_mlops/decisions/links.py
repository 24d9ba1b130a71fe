"""Signed links: each allows one action on one decision, once, until it expires. HMAC-SHA256 (RFC 2104) over all its fields."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from d2c_mlops.decisions.deciding import VERDICTS
from d2c_mlops.decisions.records import Decision
from d2c_mlops.errors import UsageError
from d2c_mlops.runs.secrets.secrets import secret
from d2c_mlops.settings import Settings

SHORTEST = 16  # bytes of a secret
PURPOSE = "d2c decision link 1"  # prefix: a signature made for another purpose under the same secret is not valid here


class BadLink(Exception):
    """A link that is refused, and the reason that is logged."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


@dataclass(frozen=True)
class Link:
    """Fields of a link."""

    id: str
    action: str
    by: str
    expires: int  # seconds since 1970, UTC
    nonce: str

    def signed(self, key: bytes) -> str:
        """Return the signature under a key."""
        said = "\n".join((PURPOSE, self.id, self.action, self.by, str(self.expires), self.nonce))
        return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()

    def query(self, key: bytes) -> str:
        """Return the part of the URL behind the question mark."""
        said = {"by": self.by, "expires": self.expires, "nonce": self.nonce, "signature": self.signed(key)}
        return urlencode(said)


def keys(settings: Settings) -> list[bytes]:
    """Return the secrets for links, the one that signs first; none when there is none. Raises UsageError."""
    found = [secret(name.removeprefix("secret:")).encode() for name in settings.decisions.links]
    if any(len(each) < SHORTEST for each in found):
        raise UsageError(
            f"the secret for links is shorter than {SHORTEST} bytes",
            where="[decisions] links",
            next='create one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
        )
    return found


def links_of(decision: Decision, by: str, base: str, key: bytes) -> dict[str, str]:
    """Return a link for each action on a decision, valid until its deadline."""
    if "\n" in by:
        raise UsageError("a name must be a single line", where=by)
    expires = int(decision.deadline_at.timestamp())
    made = {}
    for action in VERDICTS:
        link = Link(decision.id, action, by, expires, secrets.token_urlsafe(18))
        made[action] = f"{base.rstrip('/')}/d/{decision.id}/{action}?{link.query(key)}"
    return made


def verified(id: str, action: str, query: Mapping[str, str], known: Sequence[bytes], now: datetime) -> Link:
    """Return the fields of a link with a valid signature. Raises BadLink; the comparison takes constant time."""
    expires, given = query.get("expires", ""), query.get("signature", "")
    if not expires.isascii() or not expires.isdigit() or len(expires) > 12 or not given.isascii():
        raise BadLink("tampered link", 403)
    link = Link(id, action, query.get("by", ""), int(expires), query.get("nonce", ""))
    if not any([hmac.compare_digest(link.signed(key), given) for key in known]):
        raise BadLink("tampered link", 403)
    if datetime.fromtimestamp(link.expires, UTC) <= now:
        raise BadLink("expired link", 410)
    return link
