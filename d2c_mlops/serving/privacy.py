"""What stands in a log in place of a personal value."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Any


def pseudonym(value: Any, secret: bytes) -> Any:
    """Return a value's keyed hash: the same for the same value, and nobody without the secret finds it by trying."""
    if value is None:
        return None
    return hmac.new(secret, str(value).encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


def veiled(reasons: list[str], values: Iterable[Mapping[str, Any]], personal: Iterable[str]) -> list[str]:
    """Return reasons in which a personal value, where it stands as a word of its own, is replaced by its field's name."""
    words = {str(each[name]): name for each in values for name in personal if each.get(name) not in (None, "")}
    if not words:
        return reasons
    longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    found = re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)")
    return [found.sub(lambda match: f"[{words[match[0]]}]", each) for each in reasons]
