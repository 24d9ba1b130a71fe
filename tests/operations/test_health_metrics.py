"""Metrics of a look: what cannot be judged has no state, and names cannot break out of their label."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from prometheus_client.parser import text_string_to_metric_families

from d2c_mlops.monitoring.drift import DriftReport
from d2c_mlops.monitoring.vital_signs import BREACH, OK, TOO_LITTLE, VitalSign
from d2c_mlops.operations.health_metrics import health_metrics, write_health_metrics
from d2c_mlops.operations.monitor import DriftLook, ModelHealth
from d2c_mlops.settings import Settings

DAYS = pd.date_range("2024-01-01", periods=3)
SIGNS = (
    VitalSign("accuracy", BREACH, "worse", 0.5, 0.4),
    VitalSign("latency", OK, "fast", 20.0, 500.0),
    VitalSign("cost", TOO_LITTLE, "unknown"),
)
LOOKS = (
    DriftLook("data", "dataset", DriftReport(DAYS, np.array([0.0, 1.0, 30.0]), 20.0, (), 4)),
    DriftLook("concept", "answers", DriftReport(DAYS, np.zeros(3), 20.0, (), 0, "too little")),
)
HEALTH = ModelHealth("demand", 7, date(2024, 1, 3), datetime(2024, 1, 4, tzinfo=UTC), "wape", SIGNS, LOOKS, ())


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """The values by name and the sorted values of labels, as Prometheus' own parser reads them."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_a_metric_that_cannot_be_judged_has_no_state() -> None:
    values = samples(health_metrics(HEALTH, {"critical": 2}))
    assert values[("d2c_health_breach", "accuracy", "demand")] == 1
    assert values[("d2c_health_breach", "demand", "latency")] == 0
    assert values[("d2c_health_value", "accuracy", "demand")] == 0.5
    assert values[("d2c_health_threshold", "demand", "latency")] == 500
    assert ("d2c_health_breach", "cost", "demand") not in values
    assert values[("d2c_health_judged", "cost", "demand")] == 0
    assert values[("d2c_drift_evidence", "data", "dataset", "demand")] == 30
    assert not [key for key in values if key[0].startswith("d2c_drift") and "concept" in key]
    assert values[("d2c_alerts_open", "critical", "demand")] == 2
    assert values[("d2c_alerts_open", "demand", "warning")] == 0
    assert values[("d2c_champion_version", "demand")] == 7
    assert values[("d2c_health_timestamp_seconds", "demand")] == 1704326400


def test_a_name_cannot_break_out_of_its_label_or_its_folder(settings: Settings) -> None:
    name = '../x"} 1\nd2c_up 1'
    values = samples(health_metrics(replace(HEALTH, model=name), {}))
    assert values[("d2c_champion_version", name)] == 7
    assert not [key for key in values if key[0] == "d2c_up"]
    file = write_health_metrics(settings, replace(HEALTH, model=name), {})
    assert file.parent == settings.store / "metrics"
    assert [path.name for path in Path(file.parent).iterdir()] == [file.name]
