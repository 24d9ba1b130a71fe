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
SLOW_SHARE = 0.05  # share of calls above the 95th percentile
FEEDBACK_ACTIONS = ("followed", "overridden", "ignored")
REMEMBERED = 200_000  # keys and feedback records that a worker remembers in a stage


class RolloutCounters:
    """Counters of one worker in one stage of a rollout."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.keys: dict[int, None] = {}  # hashes of requested keys, oldest first
        self.told: dict[int, None] = {}  # hashes of counted feedback

    def count_answers(self, variant: str, records: int, seconds: float) -> None:
        """Count a call of a model by its number of records."""
        step = str(round(log(max(seconds, 1e-6) * 1e3) / STEP))
        with self.lock:
            self.counts["answers", variant] += records
            self.counts["ms", variant, str(records.bit_length()), step] += 1

    def failed(self, records: int) -> None:
        """Count records that the challenger failed on and the champion answered."""
        with self.lock:
            self.counts["errors", "challenger"] += records

    def count_requests(self, keys: Sequence[Any]) -> None:
        """Remember requested keys."""
        self.keys.update(dict.fromkeys(map(hash, map(key_text, keys))))
        if len(self.keys) > 2 * REMEMBERED:
            with self.lock:
                self.keys = dict.fromkeys(list(self.keys)[-REMEMBERED:])

    def was_asked(self, key: str | None) -> bool:
        """Whether a key was requested from this worker in this stage, as far as it is remembered."""
        return key is not None and hash(key) in self.keys

    def count_feedback(self, variant: str, action: str, prediction_or_key: str = "") -> None:
        """Count feedback; once for each `prediction_or_key` (prediction or key) where it is given."""
        if action in FEEDBACK_ACTIONS:
            with self.lock:
                mark = hash((action, prediction_or_key))
                if prediction_or_key and mark in self.told:
                    return
                if len(self.told) >= REMEMBERED:
                    del self.told[next(iter(self.told))]
                if prediction_or_key:
                    self.told[mark] = None
                self.counts[action, variant] += 1

    def for_next_stage(self) -> RolloutCounters:
        """Return the counters of the next stage: the champion's latency is kept, all others start at zero.

        At a share of 100 % the champion gets no requests, but the challenger is still compared with it.
        """
        tally = RolloutCounters()
        with self.lock:
            tally.counts.update({name: n for name, n in self.counts.items() if name[:2] == ("ms", "champion")})
        return tally

    def to_dict(self) -> dict[str, int]:
        """Return the counts as JSON values."""
        with self.lock:
            return {" ".join(name): count for name, count in self.counts.items()}


def sum_counts(tallies: Iterable[Mapping[str, int]]) -> Counter[tuple[str, ...]]:
    """Return the sum of the counts of several workers."""
    summed: Counter[tuple[str, ...]] = Counter()
    for tally in tallies:
        summed.update({tuple(name.split(" ")): count for name, count in tally.items()})
    return summed


def rollout_statistics(counts: Counter[tuple[str, ...]]) -> dict[str, Any]:
    """Return statistics of each variant: answers, errors, p95 in milliseconds, share followed."""
    statistics = {}
    for variant in ("champion", "challenger"):
        feedback = {action: counts[action, variant] for action in FEEDBACK_ACTIONS}
        feedback_count = sum(feedback.values())
        statistics[variant] = {
            "answers": counts["answers", variant],
            "errors": counts["errors", variant],
            "p95_ms": _p95(_call_counts(counts, variant)),
            "feedback": feedback_count,
            "followed": round(feedback["followed"] / feedback_count, 4) if feedback_count else None,
        }
    return statistics


def violated_guard(counts: Counter[tuple[str, ...]], guards: RolloutSettings) -> str | None:
    """Return which guardrail the challenger violates; None while there is none.

    A limit counts as violated once it is certain to be violated at the minimum number of answers.
    """
    return _error_violation(counts, guards) or _latency_violation(counts, guards) or _adoption_violation(counts, guards)


def _error_violation(counts: Counter[tuple[str, ...]], guards: RolloutSettings) -> str | None:
    errors = counts["errors", "challenger"]
    predictions = counts["answers", "challenger"] + errors
    if errors > guards.max_errors * max(predictions, guards.min_answers):
        return f"errors: {errors} of {predictions} predictions of the challenger failed, the limit is {guards.max_errors:.1%}"
    return None


def _latency_violation(counts: Counter[tuple[str, ...]], guards: RolloutSettings) -> str | None:
    """Compare calls of the challenger with calls of the champion for at least as many records."""
    theirs, ours = _calls_by_size(counts, "challenger"), _calls_by_size(counts, "champion")
    for size, calls in theirs.items():
        like = next(
            (ours[records] for records in sorted(ours) if records >= size and ours[records].total() >= LEAST_CALLS),
            None,
        )
        if like is None:
            continue
        champion = _p95(like) or 0.0
        limit = max(guards.slow_ms, guards.max_slowdown * champion)
        slow = sum(count for step, count in calls.items() if _milliseconds_of_step(step) > limit)
        if slow > SLOW_SHARE * max(calls.total(), guards.min_answers):
            return (
                f"latency: {slow} of {calls.total()} calls of the challenger took more than {limit:.1f} ms, "
                f"the champion's p95 is {champion:.1f} ms"
            )
    return None


def _adoption_violation(counts: Counter[tuple[str, ...]], guards: RolloutSettings) -> str | None:
    feedback = {
        variant: sum(counts[action, variant] for action in FEEDBACK_ACTIONS) for variant in ("champion", "challenger")
    }
    if feedback["challenger"] < max(guards.min_feedback, 1):
        return None
    share = counts["followed", "challenger"] / feedback["challenger"]
    if share < guards.min_followed:
        return (
            f"adoption: {share:.0%} of the challenger's {feedback['challenger']} predictions with feedback were followed, "
            f"the minimum is {guards.min_followed:.0%}"
        )
    if feedback["champion"] >= max(guards.min_feedback, 1):
        champion = counts["followed", "champion"] / feedback["champion"]
        if champion - share > guards.max_followed_drop:
            return (
                f"adoption: {share:.0%} of the challenger's {feedback['challenger']} predictions with feedback were followed, "
                f"{champion:.0%} of the champion's {feedback['champion']}"
            )
    return None


def _calls_by_size(counts: Counter[tuple[str, ...]], variant: str) -> dict[int, Counter[int]]:
    by_size: dict[int, Counter[int]] = {}
    for name, count in counts.items():
        if name[:2] == ("ms", variant):
            by_size.setdefault(int(name[2]), Counter())[int(name[3])] += count
    return by_size


def _call_counts(counts: Counter[tuple[str, ...]], variant: str) -> Counter[int]:
    return sum(_calls_by_size(counts, variant).values(), Counter())


def _p95(calls: Counter[int]) -> float | None:
    """Return the 95th percentile in milliseconds, to a tenth of it."""
    remaining = calls.total() * (1 - SLOW_SHARE)
    for step in sorted(calls):
        remaining -= calls[step]
        if remaining <= 0:
            return round(_milliseconds_of_step(step), 3)
    return None


def _milliseconds_of_step(step: int) -> float:
    return float(1.1**step)
