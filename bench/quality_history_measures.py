"""Measures of a daily batch of a column, alone and against the batch of the day before, as Auto-Validate-by-History has them."""

from __future__ import annotations

from collections import Counter
from functools import cache
from math import erfc, exp, sqrt

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
DISTANCES = ("L1", "largest", "cosine", "chi-squared", "JS", "KL")
NUMBERS = (
    "EMD",
    "JS",
    "KL",
    "KS",
    "Cohen",
    "min",
    "max",
    "mean",
    "median",
    "count",
    "sum",
    "range",
    "unique",
    "complete",
)
TEXTS = (
    *DISTANCES, "count", "length", "letters", "digits", "punctuation", "unique", "complete", "distinct", *(f"pattern {name}" for name in DISTANCES),
)  # fmt: skip


def cumulative_gaps(now: Floats, before: Floats) -> tuple[Floats, Floats]:
    """Return the differences of two cumulative distributions between all values, and the widths of these steps."""
    values = np.sort(np.concatenate([now, before]))
    apart = np.searchsorted(np.sort(now), values[:-1], "right") / len(now)
    apart = apart - np.searchsorted(np.sort(before), values[:-1], "right") / len(before)
    return np.abs(apart), np.diff(values)


def number_measures(now: Floats, before: Floats, scale: float) -> list[float]:
    """Return the measures of NUMBERS; `scale` is rows over the rows that are given."""
    rows = len(now)
    now, before = now[np.isfinite(now)], before[np.isfinite(before)]
    if len(now) < 2 or len(before) < 2:
        return [np.nan] * 9 + [rows * scale] + [np.nan] * 3 + [len(now) / max(rows, 1)]
    gaps, steps = cumulative_gaps(now, before)
    counts, edges = np.histogram(now, 10)
    first, second = counts / len(now), np.histogram(before, edges)[0] / len(before)
    both = (first > 0) & (second > 0)
    first, second = first[both], second[both]
    middle = (first + second) / 2
    js = float((first * np.log(first / middle) + second * np.log(second / middle)).sum() / 2)
    size = len(now) * len(before) / (len(now) + len(before))
    root = sqrt(size) * float(gaps.max(initial=0.0))
    ks = min(2 * sum((-1) ** (k - 1) * exp(-2 * (k * root) ** 2) for k in range(1, 30)), 1.0) if root > 0.2 else 1.0
    variance = ((len(now) - 1) * now.var(ddof=1) + (len(before) - 1) * before.var(ddof=1)) / (
        len(now) + len(before) - 2
    )
    return [
        float((gaps * steps).sum()), js, float((first * np.log(first / second)).sum()), ks,
        float((now.mean() - before.mean()) / (sqrt(variance) + 1e-10)), now.min(), now.max(), now.mean(), float(np.median(now)), rows * scale,
        now.sum() * scale, np.ptp(now), len(np.unique(now)) / len(now), len(now) / rows,
    ]  # fmt: skip


@cache
def shape_of(text: str) -> tuple[str, int, int]:
    """Return the pattern of a text (runs of digits, letters and marks), its letters and its digits."""
    kinds = ["d" if char.isdigit() else "l" if char.isalpha() else "-" for char in text]
    pattern = "".join(kind for n, kind in enumerate(kinds) if n == 0 or kinds[n - 1] != kind)
    return pattern, kinds.count("l"), kinds.count("d")


def text_distances(now: Counter[str], before: Counter[str]) -> list[float]:
    """Return the measures of DISTANCES."""
    keys = list(now.keys() | before.keys())
    first, second = (np.array([counts[key] for key in keys], float) for counts in (now, before))
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        js = sqrt(max(float(np.nansum(p * np.log(p / middle)) + np.nansum(q * np.log(q / middle))) / 2, 0.0))
    smooth = np.array([first + 1, second + 1])
    expected = smooth.sum(axis=1, keepdims=True) * smooth.sum(axis=0) / smooth.sum()
    chi2, freedom = float(((smooth - expected) ** 2 / expected).sum()), max(len(keys) - 1, 1)
    cube = ((chi2 / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / sqrt(2 / (9 * freedom))  # Wilson and Hilferty
    x, y = smooth[0] / smooth[0].sum(), smooth[1] / smooth[1].sum()
    cosine = 1 - float(p @ q) / max(float(np.linalg.norm(p) * np.linalg.norm(q)), 1e-12)
    kl = float((x * np.log(x / y)).sum())
    return [float(np.abs(p - q).sum()), float(np.abs(p - q).max()), cosine, erfc(cube / sqrt(2)) / 2, js, kl]


def text_measures(now: list[str | None], before: list[str | None], scale: float) -> list[float]:
    """Return the measures of TEXTS; `scale` is rows over the rows that are given."""
    counts, earlier = Counter(t for t in now if t is not None), Counter(t for t in before if t is not None)
    rows = counts.total()
    if not rows or not earlier:
        return [np.nan] * 6 + [len(now) * scale] + [np.nan] * 5 + [rows / max(len(now), 1)] + [np.nan] * 7
    patterns: list[Counter[str]] = [Counter(), Counter()]
    for into, counted in zip(patterns, (counts, earlier), strict=True):
        for text, count in counted.items():
            into[shape_of(text)[0]] += count
    length, letters, digits = (
        sum(of(text) * count for text, count in counts.items()) / rows
        for of in (len, lambda text: shape_of(text)[1], lambda text: shape_of(text)[2])
    )
    return [
        *text_distances(counts, earlier), len(now) * scale, length, letters, digits, length - letters - digits, len(counts) / rows,
        rows / len(now), float(len(counts)), *text_distances(*patterns),
    ]  # fmt: skip
