"""Pseudonyms and encryption of personal values in logs and stored answers."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

SEALED, NONCE = b"\0", 16  # how a sealed answer begins: with no byte of JSON, and this many random ones


def keyed_pseudonym(value: Any, secret: bytes) -> Any:
    """Return a value's keyed hash: deterministic, and not reversible by trial without the secret."""
    if value is None:
        return None
    return hmac.new(secret, str(value).encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


def body_key(body: bytes, secret: bytes) -> bytes:
    """Return the encryption key of a stored answer, derived from the secret and the request's body."""
    return hashlib.blake2b(body, key=secret[:64], person=b"d2c kept answer", digest_size=32).digest()


def encrypt_answer(answer: bytes, key: bytes) -> bytes:
    """Return an answer encrypted under a single-use key: SHAKE-256 of key and nonce as the stream (NIST FIPS 202)."""
    nonce = secrets.token_bytes(NONCE)
    return SEALED + nonce + _xor_with_stream(answer, key + nonce)


def decrypt_answer(stored: bytes, key: bytes) -> bytes:
    """Return the decrypted answer; an unencrypted answer is returned unchanged."""
    if not stored.startswith(SEALED):
        return stored
    start = len(SEALED) + NONCE
    return _xor_with_stream(stored[start:], key + stored[len(SEALED) : start])


def _xor_with_stream(text: bytes, seed: bytes) -> bytes:
    stream = hashlib.shake_256(seed).digest(len(text))
    return (int.from_bytes(text) ^ int.from_bytes(stream)).to_bytes(len(text))


def mask_reason_texts(reasons: list[str], values: Iterable[Mapping[str, Any]], personal: Iterable[str]) -> list[str]:
    """Return reasons in which personal values that occur as whole words are replaced by their field's name."""
    words = {str(record[name]): name for record in values for name in personal if record.get(name) not in (None, "")}
    if not words:
        return reasons
    longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)")
    return [pattern.sub(lambda match: f"[{words[match[0]]}]", reason) for reason in reasons]
