import json
from datetime import datetime, timedelta

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import DataRefused, GateRefused, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.registry.gate import judge_clauses
from d2c_mlops.registry.promotion_history import champion_at_time, former_champions, live_version, promotions_until
from d2c_mlops.registry.promotions import judge_and_promote as promote
from d2c_mlops.registry.promotions import revert_promotion as rollback
from d2c_mlops.registry.versions import find_version, load_version, new_model, register, version_files
from d2c_mlops.settings import Settings
from support.training import train


def test_a_version_carries_its_evidence_and_loads_unchanged(settings: Settings) -> None:
    version = train(settings, scale=2.0)
    found = find_version(Ledger.of(settings), "mean_units")
    assert found == version and found.version == 1 and found.params == {"scale": 2.0}
    assert found.schema.input_fields[0].name == "product_id" and found.case.open_questions() == []
    again = load_version(found, settings)
    tables, as_of = type(again).example()
    mine = new_model("mean_units", settings, {"scale": 2.0}).fit(tables, as_of)
    records = mine.records(tables, as_of)
    assert again.predict(records).equals(mine.predict(records))


def test_changed_files_are_refused(settings: Settings) -> None:
    version = train(settings)
    (version_files(version, settings) / "units.json").write_text("{}")
    with pytest.raises(DataRefused, match="changed after they were registered"):
        load_version(version, settings)


def test_a_class_from_a_notebook_cell_is_refused(settings: Settings) -> None:
    model = new_model("mean_units", settings, {})
    tables, as_of = type(model).example()
    local = type("Local", (type(model),), {"__module__": "__main__"})().fit(tables, as_of)
    with pytest.raises(DataRefused, match="cannot be loaded again"):
        register("local", local, local.evaluate(tables, as_of), settings=settings, as_of=as_of)


def test_the_first_good_version_is_promoted_and_the_second_time_nothing_changes(
    settings: Settings, clean_process: None
) -> None:
    version = train(settings)
    made, clauses = promote("mean_units", settings, by="Jo")
    assert made.version == version.version and made.by == "Jo" and all(c.holds for c in clauses)
    assert promote("mean_units", settings)[0] is None
    assert len(promotions_until(Ledger.of(settings))) == 1


def test_worse_than_the_champion_is_refused_with_the_figures(settings: Settings) -> None:
    train(settings)
    promote("mean_units", settings)
    train(settings, scale=3.0)
    with pytest.raises(GateRefused) as caught:
        promote("mean_units", settings)
    (broken,) = caught.value.failures
    assert broken.where == "champion" and "worse" in broken.what and "champion (version 1)" in broken.what
    assert live_version(Ledger.of(settings), "mean_units").version == 1


def test_a_champion_of_other_data_is_evaluated_on_the_data_of_the_version(settings: Settings) -> None:
    first = train(settings, scale=3.0)
    other_day = first.__class__(**{**vars(first), "as_of": "2023-11-30"})
    better = train(settings)
    clause = {c.name: c for c in judge_clauses(better, other_day, settings)}["champion"]
    model = load_version(first, settings)
    tables, _ = type(model).example()
    expected = model.evaluate(tables, datetime.fromisoformat(better.as_of).date()).value
    assert f"{expected:.4f}" in clause.finding and clause.holds


def test_losing_to_the_baseline_is_refused(settings: Settings) -> None:
    train(settings, scale=20.0)
    with pytest.raises(GateRefused, match=r"mae \d+\.\d{4} against \d\.\d{4} of the one, \d+\.\d% worse"):
        promote("mean_units", settings)


def test_an_open_charter_is_refused_with_its_questions(settings: Settings, project) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write("charter.owner =\ncharter.budget =\n")
    from d2c_mlops.settings import load_settings

    changed = load_settings(project, environ={})
    train(changed)
    with pytest.raises(GateRefused, match=r"charter\.owner is open") as caught:
        promote("mean_units", changed)
    assert "charter.budget" in str(caught.value)


def test_an_override_says_who_and_why_and_is_recorded(settings: Settings) -> None:
    train(settings, scale=20.0)
    with pytest.raises(UsageError, match="requires a name and a reason"):
        promote("mean_units", settings, override=True, by="Jo")
    made, _ = promote("mean_units", settings, override=True, by="Jo", reason="supplier changed")
    assert (made.action, made.by, made.reason) == ("override", "Jo", "supplier changed")
    assert [c["name"] for c in made.gate if not c["holds"]] == ["baseline"]


def test_history_says_what_was_live_when(settings: Settings) -> None:
    train(settings, scale=2.0)
    train(settings)
    ledger = Ledger.of(settings)
    promote("mean_units", settings, number=1)
    promote("mean_units", settings, number=2)
    first, second = promotions_until(ledger, "mean_units")
    assert champion_at_time(ledger, "mean_units", first.at - timedelta(seconds=1)) is None
    assert champion_at_time(ledger, "mean_units", first.at).version == 1
    assert champion_at_time(ledger, "mean_units", second.at).version == 2
    back = rollback("mean_units", settings, reason="odd orders")
    assert (back.version, back.previous, back.action) == (1, 2, "rollback")
    with pytest.raises(UsageError, match="no earlier champion"):
        rollback("mean_units", settings)
    shown = CliRunner().invoke(main, ["models", "history", "mean_units", "--at", "2999-01-01", "--json"])
    assert json.loads(shown.output)[0]["reason"] == "odd orders"


def test_rolling_back_twice_goes_two_versions_back() -> None:
    class Row:
        def __init__(self, action: str, version: int) -> None:
            self.action, self.version = action, version

    rows = [Row("promote", 1), Row("promote", 2), Row("promote", 3), Row("rollback", 2)]
    assert former_champions(rows) == [1]
    assert former_champions([*rows, Row("rollback", 1)]) == []
    assert former_champions([*rows, Row("promote", 4)]) == [1, 2]
