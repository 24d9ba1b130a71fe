"""Signed links: each allows one action on one decision, once, until it expires. HMAC-SHA256 (RFC 2104) over all its fields."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from d2c_mlops.decisions.decision_rows import Decision
from d2c_mlops.decisions.verdicts import VERDICTS
from d2c_mlops.errors import UsageError
from d2c_mlops.runs.secrets.secrets import secret
from d2c_mlops.settings import Settings

SHORTEST = 16  # bytes of a secret
PURPOSE = "d2c decision link 1"  # prefix: a signature made for another purpose under the same secret is not valid here


class LinkRefused(Exception):
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

    def signature(self, key: bytes) -> str:
        """Return the signature under a key."""
        message = "\n".join((PURPOSE, self.id, self.action, self.by, str(self.expires), self.nonce))
        return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()

    def query_string(self, key: bytes) -> str:
        """Return the part of the URL behind the question mark."""
        fields = {"by": self.by, "expires": self.expires, "nonce": self.nonce, "signature": self.signature(key)}
        return urlencode(fields)


def link_secrets(settings: Settings) -> list[bytes]:
    """Return the secrets for links, the one that signs first; none when there is none. Raises UsageError."""
    secrets_ = [secret(name.removeprefix("secret:")).encode() for name in settings.decisions.links]
    if any(len(key) < SHORTEST for key in secrets_):
        raise UsageError(
            f"the secret for links is shorter than {SHORTEST} bytes",
            where="[decisions] links",
            next='create one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
        )
    return secrets_


def action_links(decision: Decision, decider: str, base: str, key: bytes) -> dict[str, str]:
    """Return a link for each action on a decision, valid until its deadline."""
    if "\n" in decider:
        raise UsageError("a name must be a single line", where=decider)
    expires = int(decision.deadline_at.timestamp())
    links = {}
    for action in VERDICTS:
        link = Link(decision.id, action, decider, expires, secrets.token_urlsafe(18))
        links[action] = f"{base.rstrip('/')}/d/{decision.id}/{action}?{link.query_string(key)}"
    return links


def verify_link(id: str, action: str, query: Mapping[str, str], keys_: Sequence[bytes], now: datetime) -> Link:
    """Return the fields of a link with a valid signature. Raises LinkRefused; the comparison takes constant time."""
    expires, signature = query.get("expires", ""), query.get("signature", "")
    if not expires.isascii() or not expires.isdigit() or len(expires) > 12 or not signature.isascii():
        raise LinkRefused("tampered link", 403)
    link = Link(id, action, query.get("by", ""), int(expires), query.get("nonce", ""))
    if not any([hmac.compare_digest(link.signature(key), signature) for key in keys_]):
        raise LinkRefused("tampered link", 403)
    if datetime.fromtimestamp(link.expires, UTC) <= now:
        raise LinkRefused("expired link", 410)
    return link
