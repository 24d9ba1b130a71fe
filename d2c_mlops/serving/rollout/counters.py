"""Counters of champion and challenger, summed over the workers of a service, and the guardrails of a rollout."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Any

from d2c_mlops.serving.rollout.state_file import key_text
from d2c_mlops.settings import RolloutSettings

STEP = log(1.1)  # latencies are counted in steps of a tenth
LEAST_CALLS = 20  # of the champion, before its latency says anything
SLOW_SHARE = 0.05  # what lies above a 95th percentile
HEARD = ("followed", "overridden", "ignored")
REMEMBERED = 200_000  # keys, and feedback, that a worker remembers in a stage


class Tally:
    """Counters of one worker in one stage of a rollout."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.keys: dict[int, None] = {}  # hashes of keys that were asked about, the oldest first
        self.told: dict[int, None] = {}  # hashes of feedback that was counted

    def answered(self, variant: str, records: int, seconds: float) -> None:
        """Count a call of a model by its number of records."""
        step = str(round(log(max(seconds, 1e-6) * 1e3) / STEP))
        with self.lock:
            self.counts["answers", variant] += records
            self.counts["ms", variant, str(records.bit_length()), step] += 1

    def failed(self, records: int) -> None:
        """Count records that the challenger failed on and the champion answered."""
        with self.lock:
            self.counts["errors", "challenger"] += records

    def asked(self, keys: Sequence[Any]) -> None:
        """Remember requested keys."""
        self.keys.update(dict.fromkeys(map(hash, map(key_text, keys))))
        if len(self.keys) > 2 * REMEMBERED:
            with self.lock:
                self.keys = dict.fromkeys(list(self.keys)[-REMEMBERED:])

    def was_asked(self, key: str | None) -> bool:
        """Whether a key was requested from this worker in this stage, as far as it is remembered."""
        return key is not None and hash(key) in self.keys

    def heard(self, variant: str, action: str, about: str = "") -> None:
        """Count feedback; once for each `about` (prediction or key) where it is given."""
        if action in HEARD:
            with self.lock:
                mark = hash((action, about))
                if about and mark in self.told:
                    return
                if len(self.told) >= REMEMBERED:
                    del self.told[next(iter(self.told))]
                if about:
                    self.told[mark] = None
                self.counts[action, variant] += 1

    def after(self) -> Tally:
        """Return the counters of the next stage: the champion's latency is kept, all others start at zero.

        At a share of 100 % the champion gets no requests, but the challenger is still compared with it.
        """
        made = Tally()
        with self.lock:
            made.counts.update({name: n for name, n in self.counts.items() if name[:2] == ("ms", "champion")})
        return made

    def to_dict(self) -> dict[str, int]:
        """Return the counts as JSON values."""
        with self.lock:
            return {" ".join(name): count for name, count in self.counts.items()}


def total(tallies: Iterable[Mapping[str, int]]) -> Counter[tuple[str, ...]]:
    """Return the sum of the counts of several workers."""
    summed: Counter[tuple[str, ...]] = Counter()
    for each in tallies:
        summed.update({tuple(name.split(" ")): count for name, count in each.items()})
    return summed


def summary(counts: Counter[tuple[str, ...]]) -> dict[str, Any]:
    """Return statistics of each variant: answers, errors, p95 in milliseconds, share followed."""
    found = {}
    for variant in ("champion", "challenger"):
        heard = {action: counts[action, variant] for action in HEARD}
        said = sum(heard.values())
        found[variant] = {
            "answers": counts["answers", variant],
            "errors": counts["errors", variant],
            "p95_ms": _p95(_calls(counts, variant)),
            "feedback": said,
            "followed": round(heard["followed"] / said, 4) if said else None,
        }
    return found


def verdict(counts: Counter[tuple[str, ...]], guards: RolloutSettings) -> str | None:
    """Return which guardrail the challenger violates; None while there is none.

    A limit counts as violated once it is certain to be violated at the minimum number of answers.
    """
    return _too_wrong(counts, guards) or _too_slow(counts, guards) or _not_followed(counts, guards)


def _too_wrong(counts: Counter[tuple[str, ...]], guards: RolloutSettings) -> str | None:
    errors = counts["errors", "challenger"]
    asked = counts["answers", "challenger"] + errors
    if errors > guards.max_errors * max(asked, guards.min_answers):
        return f"errors: {errors} of {asked} predictions of the challenger failed, the limit is {guards.max_errors:.1%}"
    return None


def _too_slow(counts: Counter[tuple[str, ...]], guards: RolloutSettings) -> str | None:
    """Compare calls of the challenger with calls of the champion for at least as many records."""
    theirs, ours = _by_size(counts, "challenger"), _by_size(counts, "champion")
    for size, calls in theirs.items():
        like = next((ours[each] for each in sorted(ours) if each >= size and ours[each].total() >= LEAST_CALLS), None)
        if like is None:
            continue
        champion = _p95(like) or 0.0
        limit = max(guards.slow_ms, guards.max_slowdown * champion)
        slow = sum(count for step, count in calls.items() if _ms(step) > limit)
        if slow > SLOW_SHARE * max(calls.total(), guards.min_answers):
            return (
                f"latency: {slow} of {calls.total()} calls of the challenger took more than {limit:.1f} ms, "
                f"the champion's p95 is {champion:.1f} ms"
            )
    return None


def _not_followed(counts: Counter[tuple[str, ...]], guards: RolloutSettings) -> str | None:
    said = {variant: sum(counts[action, variant] for action in HEARD) for variant in ("champion", "challenger")}
    if said["challenger"] < max(guards.min_feedback, 1):
        return None
    share = counts["followed", "challenger"] / said["challenger"]
    if share < guards.min_followed:
        return (
            f"adoption: {share:.0%} of the challenger's {said['challenger']} predictions with feedback were followed, "
            f"the minimum is {guards.min_followed:.0%}"
        )
    if said["champion"] >= max(guards.min_feedback, 1):
        champion = counts["followed", "champion"] / said["champion"]
        if champion - share > guards.max_followed_drop:
            return (
                f"adoption: {share:.0%} of the challenger's {said['challenger']} predictions with feedback were followed, "
                f"{champion:.0%} of the champion's {said['champion']}"
            )
    return None


def _by_size(counts: Counter[tuple[str, ...]], variant: str) -> dict[int, Counter[int]]:
    found: dict[int, Counter[int]] = {}
    for name, count in counts.items():
        if name[:2] == ("ms", variant):
            found.setdefault(int(name[2]), Counter())[int(name[3])] += count
    return found


def _calls(counts: Counter[tuple[str, ...]], variant: str) -> Counter[int]:
    return sum(_by_size(counts, variant).values(), Counter())


def _p95(calls: Counter[int]) -> float | None:
    """Return the 95th percentile in milliseconds, to a tenth of it."""
    left = calls.total() * (1 - SLOW_SHARE)
    for step in sorted(calls):
        left -= calls[step]
        if left <= 0:
            return round(_ms(step), 3)
    return None


def _ms(step: int) -> float:
    return float(1.1**step)
