"""Ids of predictions, signed: every replica can check whether a service of this project gave an id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b, sha256
from hmac import compare_digest

# An id is TOKEN-PLACE. A token is 96 random bits, the signature, the places that it stands for where those are more than place 0, and
# the challenger's version where that answered. The signature is keyed BLAKE2b of 64 bits (RFC 7693) under the log's secret.
PURPOSE = b"d2c prediction id"  # prefix, so that another hash under the same secret is not a valid signature
RANDOM = 24  # hexadecimal digits
FORM = re.compile(
    r"([0-9a-f]{24})([0-9a-f]{16})(?:x(0|[1-9][0-9]{0,9})x([1-9][0-9]{0,9}))?(?:\.([1-9][0-9]{0,8}))?-(0|[1-9][0-9]{0,9})"
)
UNSIGNED = re.compile(r"[0-9a-f]{24}(?:[0-9a-f]{8})?(?:\.([1-9][0-9]{0,8}))?-(?:0|[1-9][0-9]{0,9})")
UNTOLD = re.compile(r"[0-9A-Za-z._]{1,64}-[0-9]{1,10}")  # form of ids without a secret


@dataclass(frozen=True)
class PredictionId:
    """Fields of a decoded prediction id."""

    challenger: int | None  # version of the challenger that answered; None for the champion
    verified: bool  # False for an id without a signature: a batch's, or one of a service of before


class Signer:
    """Signs and checks the ids of one model. Without a secret nothing is signed, and no id is verified."""

    def __init__(self, secret: bytes, model: str) -> None:
        key = blake2b(PURPOSE + b"\0" + model.encode(), key=sha256(secret).digest()).digest()
        self._start = blake2b(key=key, digest_size=8) if secret else None

    def token(self, batch: str, first: int, end: int, challenger: int | None = None) -> str:
        """Return the token of a batch's ids for the places from `first` to before `end`; an id is TOKEN-PLACE."""
        suffix = "" if challenger is None else f".{challenger}"
        if self._start is None:
            return batch + suffix
        random = batch[:RANDOM]
        places = "" if end == 1 else f"x{first}x{end}"
        signature = self._start.copy()
        signature.update(f"{random}{places}{suffix}".encode())
        return f"{random}{signature.hexdigest()}{places}{suffix}"

    def decode(self, prediction_id: str) -> PredictionId | None:
        """Decode and verify an id; None for an id that no service of this model created."""
        former = UNSIGNED.fullmatch(prediction_id)
        if former is not None:
            return PredictionId(int(former[1]) if former[1] else None, verified=False)
        if self._start is None:
            return PredictionId(None, verified=False) if UNTOLD.fullmatch(prediction_id) else None
        match = FORM.fullmatch(prediction_id)
        if match is None:
            return None
        random, _, first, end, version, place = match.groups()
        challenger = int(version) if version else None
        start, stop = (int(first), int(end)) if end else (0, 1)
        token = self.token(random, start, stop, challenger)
        right = compare_digest(token, prediction_id.rpartition("-")[0])
        return PredictionId(challenger, verified=True) if right and start <= int(place) < stop else None
