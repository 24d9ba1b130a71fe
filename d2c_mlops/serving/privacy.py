"""What stands in a log in place of a personal value."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any


def pseudonym(value: Any, secret: bytes) -> Any:
    """Return a value's keyed hash: the same for the same value, and nobody without the secret finds it by trying."""
    if value is None:
        return None
    return hmac.new(secret, str(value).encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]
