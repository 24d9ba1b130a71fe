"""The newest version is released without a person: gate first, then by the model's settings."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from d2c_mlops.ledger.schema import predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.model import Evaluation
from d2c_mlops.operations.release import release_newest
from d2c_mlops.registry.promotion_history import champion_at_time, promotions_until
from d2c_mlops.serving.rollout.promotion import rollback
from d2c_mlops.serving.rollout.rollout_commands import abort_rollout
from d2c_mlops.serving.rollout.rollout_history import current_rollout
from d2c_mlops.settings import ModelSettings, RolloutSettings, Settings
from support.training import train

MODEL = "mean_units"
WEEK = timedelta(days=7, minutes=1)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The gate refuses for the reasons in the list."""
    from d2c_mlops.registry.gate import Clause

    reasons: list[str] = []

    def judged(*_: object) -> list[Clause]:
        return [Clause("metric", not reasons, reasons[0] if reasons else "it is better")]

    monkeypatch.setattr("d2c_mlops.registry.promotions.judge_clauses", judged)
    monkeypatch.setattr("d2c_mlops.operations.release.judge_clauses", judged)
    return reasons


def released_as(settings: Settings, release: str, **options: str) -> Settings:
    models = {MODEL: ModelSettings(MODEL, data="shop", release=release, **options)}
    return replace(settings, models=models, rollout=RolloutSettings(min_answers=3))


def champion(settings: Settings) -> int | None:
    version = champion_at_time(Ledger.of(settings), MODEL)
    return version.version if version else None


def better(settings: Settings, scale: float):
    return train(settings, Evaluation("mae", 10.0 - scale, {"one": 20.0}, True), scale=scale)


def answered(settings: Settings, version: int, count: int, origin: str | None = None) -> None:
    rows = [{"id": f"{version}-{number}-{origin}", "model": MODEL, "version": version, "contract": "1.0.0", "key": "A",
             "variant": "challenger", "at": datetime.now(UTC) + timedelta(seconds=1), "inputs": {}, "outputs": {},
             "origin": origin} for number in range(count)]  # fmt: skip
    with Ledger.of(settings).write() as connection:
        connection.execute(insert(predictions), rows)


def test_the_first_version_becomes_champion_and_a_second_run_changes_nothing(settings: Settings, gate: list) -> None:
    settings = released_as(settings, "10%")
    better(settings, 1.0)
    assert release_newest(MODEL, settings).action == "promoted" and champion(settings) == 1
    assert release_newest(MODEL, settings).action == "unchanged"
    assert len(promotions_until(Ledger.of(settings), MODEL)) == 1


def test_a_version_that_fails_the_gate_changes_nothing_and_says_why(settings: Settings, gate: list) -> None:
    better(settings, 1.0)
    release_newest(MODEL, settings)
    better(settings, 2.0)
    gate.append("worse than the champion")
    for release in ("champion", "shadow", "10%"):
        result = release_newest(MODEL, released_as(settings, release))
        assert (result.action, result.version) == ("refused", 2) and "worse than the champion" in result.reason
    assert champion(settings) == 1 and current_rollout(Ledger.of(settings), MODEL, settings) is None


@pytest.mark.parametrize("release", ["shadow", "10 %"])
def test_a_challenger_is_promoted_after_its_time_with_enough_predictions(
    settings: Settings, gate: list, release: str
) -> None:
    settings = released_as(settings, release)
    better(settings, 1.0)
    release_newest(MODEL, settings)
    better(settings, 2.0)
    assert release_newest(MODEL, settings).action == "started"
    rollout = current_rollout(Ledger.of(settings), MODEL, settings)
    assert (rollout.challenger, rollout.mode) == (2, "shadow" if release == "shadow" else "share")
    assert rollout.share == (0.0 if release == "shadow" else 0.1)
    later = datetime.now(UTC) + WEEK
    answered(settings, 2, 5, "probe")
    assert "lasts until" in release_newest(MODEL, settings).reason
    assert "0 predictions on record" in release_newest(MODEL, settings, now=later).reason, "probes prove nothing"
    answered(settings, 2, 3)
    better(settings, 3.0)
    result = release_newest(MODEL, settings, now=later)
    assert (result.action, result.version, champion(settings)) == ("promoted", 2, 2)
    assert release_newest(MODEL, settings, now=later).version == 3, "the next one begins afterwards"


def test_a_challenger_that_the_gate_refuses_at_the_end_is_aborted_and_not_tried_again(
    settings: Settings, gate: list
) -> None:
    settings = released_as(settings, "shadow", release_after="1d")
    better(settings, 1.0)
    release_newest(MODEL, settings)
    better(settings, 2.0)
    release_newest(MODEL, settings)
    answered(settings, 2, 3)
    gate.append("its outcomes are worse")
    result = release_newest(MODEL, settings, now=datetime.now(UTC) + WEEK)
    assert result.action == "aborted" and "its outcomes are worse" in result.reason
    gate.clear()
    again = release_newest(MODEL, settings)
    assert again.action == "unchanged" and "was aborted" in again.reason and champion(settings) == 1


def test_a_version_that_a_person_rolled_back_is_not_released_again(settings: Settings, gate: list) -> None:
    for scale in (1.0, 2.0):
        better(settings, scale)
        release_newest(MODEL, settings)
    rollback(MODEL, settings, by="jo", reason="odd orders")
    result = release_newest(MODEL, settings)
    assert result.action == "unchanged" and "odd orders" in result.reason and champion(settings) == 1
    better(settings, 3.0)
    assert release_newest(MODEL, settings).action == "promoted" and champion(settings) == 3


def test_an_equal_version_starts_no_rollout(settings: Settings, gate: list) -> None:
    better(settings, 1.0)
    release_newest(MODEL, settings)
    better(settings, 1.0)
    for release in ("champion", "shadow", "10%"):
        assert release_newest(MODEL, released_as(settings, release)).action == "unchanged"


def test_a_rollout_that_a_person_ended_is_not_continued(settings: Settings, gate: list) -> None:
    settings = released_as(settings, "shadow")
    better(settings, 1.0)
    release_newest(MODEL, settings)
    better(settings, 2.0)
    release_newest(MODEL, settings)
    abort_rollout(MODEL, settings, by="jo", reason="too slow")
    answered(settings, 2, 9)
    result = release_newest(MODEL, settings, now=datetime.now(UTC) + WEEK)
    assert result.action == "unchanged" and "too slow" in result.reason
