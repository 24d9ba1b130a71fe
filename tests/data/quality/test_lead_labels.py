"""Outcomes of leads that contradict all else are found by confident learning; chance is not, and without cleanlab it is told."""

import json
from datetime import date
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.quality import assess_quality
from d2c_mlops.data.quality.labels import lead_labels as module
from d2c_mlops.data.quality.report import QualityFinding

DAY = date(2024, 6, 1)
NEEDS_CLEANLAB = pytest.mark.skipif(find_spec("cleanlab") is None, reason="cleanlab is not installed (extra `labels`)")


def leads(noise: float, signal: float = 8.0, rows: int = 800) -> tuple[pd.DataFrame, np.ndarray]:
    """Return leads with a share of wrong outcomes, and which are wrong; `signal` says how much the fields tell."""
    draw = np.random.default_rng(2)
    size = draw.normal(size=rows)
    won = draw.random(rows) < 1 / (1 + np.exp(-signal * size))
    wrong = draw.random(rows) < noise
    frame = pd.DataFrame(
        {"lead_id": [f"L{n}" for n in range(rows)], "source": "form", "scored_at": pd.Timestamp("2024-05-01", tz="UTC")}
    )
    frame["outcome"] = np.where(won ^ wrong, "won", "lost")
    frame["fields"] = [json.dumps({"size": float(value), "noise": float(value**2)}) for value in size]
    return frame, wrong


def found(frame: pd.DataFrame) -> list[QualityFinding]:
    return [f for f in assess_quality({"leads": frame}, DAY).findings if f.check == "lead_labels"]


@NEEDS_CLEANLAB
@pytest.mark.parametrize("noise", [0.03, 0.08])
def test_wrong_outcomes_are_counted_and_named(noise: float) -> None:
    frame, wrong = leads(noise)
    finding = found(frame)[0]
    assert finding.share == pytest.approx(wrong.mean(), rel=0.5)
    assert set(finding.keys) <= set(frame["lead_id"][wrong])
    assert finding.severity == "warning"


@NEEDS_CLEANLAB
@pytest.mark.parametrize(("noise", "signal"), [(0.0, 1.0), (0.0, 0.0), (0.2, 0.0)])
def test_outcomes_that_are_a_matter_of_chance_are_no_warning(noise: float, signal: float) -> None:
    assert [f for f in found(leads(noise, signal)[0]) if f.severity != "info"] == []


def test_without_cleanlab_the_report_says_what_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2c_mlops.data.quality.assess.find_spec", lambda name: None)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    report = assess_quality({"leads": leads(0.1)[0]}, DAY)
    assert any("pip install 'd2c_mlops[labels]'" in text for text in report.absent)
    assert [f for f in report.findings if f.check == "lead_labels"] == []


@NEEDS_CLEANLAB
@pytest.mark.parametrize("change", [{"fields": "no JSON"}, {"outcome": "won"}, {"outcome": None}, {"fields": None}])
def test_leads_that_cannot_be_compared_are_no_failure(change: dict[str, str | None]) -> None:
    assert found(leads(0.1)[0].assign(**change)) == []
