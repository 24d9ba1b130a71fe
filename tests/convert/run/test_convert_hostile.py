"""Attacks of `make test-hostile` that need little time: each succeeds without isolation and fails in the best mode."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from d2c_mlops.convert.run.isolation import TRUSTED, best_mode

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
import hostile

NAMES = ("delete a file", "write through a hard link", "TCP", "an abstract socket", "the environment of all processes",
         "outlive it with env -i", "leave shared memory")  # fmt: skip


def test_there_are_attacks_of_many_kinds() -> None:
    assert len({**hostile.ATTACKS, **hostile.GREEDY, **hostile.FORGED}) >= 50
    assert set(NAMES) <= set(hostile.ATTACKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_attack_succeeds_without_isolation_and_fails_with_it(name: str) -> None:
    assert hostile.attack(hostile.ATTACKS[name], TRUSTED), "without isolation it must do harm, or it shows nothing"
    assert hostile.attack(hostile.ATTACKS[name], best_mode().name) == []
