"""A forecast writes its whole horizon without a table of records."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.data.manifest import read_manifest
from d2c_mlops.data.simulate import shop
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import UsageError
from d2c_mlops.models.core.model import Evaluation
from d2c_mlops.models.lead_scoring.lead_scoring import LeadScorer
from d2c_mlops.models.segmentation.segmentation import Segmenter
from d2c_mlops.registry.versions import Version, load_version, new_model, register
from d2c_mlops.serving.batch.asked_records import NoRecords
from d2c_mlops.serving.batch.forecast_pages import script_json, write_pages
from d2c_mlops.serving.batch.score import score
from d2c_mlops.settings import Settings
from support.training import SHOP, train

AS_OF = date(2023, 7, 19)


@pytest.fixture
def demand(settings: Settings) -> Version:
    """A version of the demand forecast of a simulated shop."""
    tables = shop(days=200, customers=200)
    manifest, _ = write_dataset(
        settings.store, "shop", dict(tables), source="simulated", layout="canonical", created_at=datetime.now(UTC)
    )
    model = new_model("demand", settings, {"horizon": 7}).fit(tables, AS_OF)
    inputs = [{"name": "shop", "digest": manifest.digest}]
    evaluation = Evaluation("wape", 0.2, {"weekday_mean_8w": 0.3}, True)
    return register("demand", model, evaluation, settings=settings, as_of=AS_OF, inputs=inputs)


def test_every_series_has_an_answer_on_every_day(settings: Settings, demand: Version, tmp_path: Path) -> None:
    result = score(demand, None, str(tmp_path / "out.csv"), settings)
    written = pd.read_csv(tmp_path / "out.csv", parse_dates=["date"])
    series = load_version(demand, settings).learned.panel.series
    assert result.records == len(written) == 7 * len(series)
    days = pd.date_range("2023-07-20", periods=7)
    assert set(zip(written["series"], written["date"], strict=True)) == {(s, d) for s in series for d in days}
    assert (written["lower_80"] <= written["forecast"]).all() and written["forecast"].notna().all()


def test_the_answers_are_those_of_a_table_of_the_same_records(
    settings: Settings, demand: Version, tmp_path: Path
) -> None:
    load_version(demand, settings).own_records().to_parquet(tmp_path / "asked.parquet")
    score(demand, None, str(tmp_path / "own.parquet"), settings)
    score(demand, str(tmp_path / "asked.parquet"), str(tmp_path / "table.parquet"), settings)
    own, table = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("own", "table"))
    pd.testing.assert_frame_equal(own, table)


def test_a_model_without_a_horizon_is_asked_about_what_its_dataset_has(settings: Settings, tmp_path: Path) -> None:
    result = score(train(settings), None, str(tmp_path / "out.csv"), settings)
    written = pd.read_csv(tmp_path / "out.csv")
    assert set(written["product_id"]) == set(SHOP[0]["order_lines"]["product_id"]) and len(written) == result.records
    last = read_manifest(settings.store, "shop").last_day
    assert result.notes == (f"{len(written):,} records of the dataset shop as of {last}",)


@pytest.mark.parametrize(("dataset", "reason"), [("", "does not say which dataset"), ("gone", "'gone'")])
def test_without_its_dataset_a_model_needs_a_source(
    settings: Settings, tmp_path: Path, dataset: str, reason: str
) -> None:
    inputs = [{"name": dataset, "digest": "x"}] if dataset else []
    version = replace(train(settings), inputs=inputs)
    with pytest.raises(UsageError, match=reason) as refusal:
        score(version, None, str(tmp_path / "out.csv"), replace(settings, models={}))
    assert refusal.value.next and not (tmp_path / "out.csv").exists()


def registered(settings: Settings, kind: Any, tables: Any, as_of: date) -> Version:
    name = kind.contract.name
    manifest, _ = write_dataset(
        settings.store, name, dict(tables), source="simulated", layout="canonical", created_at=datetime.now(UTC)
    )
    model = new_model(name, settings, {}).fit(tables, as_of)
    evaluation, inputs = Evaluation("profit", 1.0, {"none": 0.5}, False), [{"name": name, "digest": manifest.digest}]
    return register(name, model, evaluation, settings=settings, as_of=as_of, inputs=inputs)


@pytest.mark.slow
def test_all_customers_are_answered_without_a_source(settings: Settings, tmp_path: Path) -> None:
    tables, as_of = Segmenter.example()
    score(registered(settings, Segmenter, tables, as_of), None, str(tmp_path / "out.csv"), settings)
    orders = tables["orders"]
    buyers = set(orders.loc[orders["cancelled_at"].isna(), "customer_id"].dropna().astype(str))
    assert set(pd.read_csv(tmp_path / "out.csv")["customer_id"]) == buyers


@pytest.mark.slow
def test_all_open_leads_are_answered_without_a_source_and_no_others(settings: Settings, tmp_path: Path) -> None:
    leads = LeadScorer.example()[0]["leads"]
    is_open = leads.index.isin(leads.sort_values("scored_at").index[-40:])
    undecided = leads.assign(outcome=leads["outcome"].where(~is_open), outcome_at=leads["outcome_at"].where(~is_open))
    version = registered(settings, LeadScorer, Tables({"leads": undecided}), date(2023, 11, 30))
    score(version, None, str(tmp_path / "out.csv"), settings)
    assert set(pd.read_csv(tmp_path / "out.csv")["lead_id"]) == set(leads.loc[is_open, "lead_id"])
    write_dataset(
        settings.store,
        "lead_scoring",
        {"leads": leads},
        source="simulated",
        layout="canonical",
        created_at=datetime.now(UTC),
    )
    with pytest.raises(NoRecords, match="every outcome is known"):
        score(version, None, str(tmp_path / "none.csv"), settings)
    assert not (tmp_path / "none.csv").exists()


def test_the_command_takes_a_sink_alone(settings: Settings, demand: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(settings.root)
    run = CliRunner().invoke(main, ["score", "demand", "--version", "1", "--horizon", "out.csv", "--json"])
    assert run.exit_code == 0 and json.loads(run.output)["records"] == 28
    assert (settings.root / "out.csv").exists()


@pytest.mark.parametrize("places", [["--horizon", "asked.csv", "out.csv"], ["a.csv", "b.csv", "c.csv"]])
def test_a_wrong_number_of_places_is_refused(
    settings: Settings, places: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(settings.root)
    run = CliRunner().invoke(main, ["score", "demand", *places])
    assert run.exit_code == 2 and "SINK" in run.output


def test_the_sums_are_written_too_where_they_are_asked_for(
    settings: Settings, demand: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(settings.root)
    run = CliRunner().invoke(main, ["score", "demand", "--version", "1", "--horizon", "--sums", "out.csv", "--json"])
    assert run.exit_code == 0 and json.loads(run.output)["records"] > 28
    written = pd.read_csv(settings.root / "out.csv")
    is_total = written["series"] == "(total)"
    of_series = written["series"].isin(load_version(demand, settings).learned.panel.series)
    series = written[of_series].groupby("date")["forecast"].sum()
    assert (written[is_total].set_index("date")["forecast"] - series).abs().max() < 1e-9


def test_sums_of_a_source_are_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(settings.root)
    run = CliRunner().invoke(main, ["score", "demand", "--sums", "asked.csv", "out.csv"])
    assert run.exit_code == 2 and "without SOURCE" in run.output


def test_the_series_that_changed_most_are_written_with_the_reason(
    settings: Settings, demand: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(settings.root)
    command = ["score", "demand", "--horizon", "out.csv", "--movers", "movers.csv", "--version"]
    refused = CliRunner().invoke(main, [*command, "1"])
    assert refused.exit_code == 2 and "no version before 1" in refused.output and not Path("movers.csv").exists()
    assert not Path("out.csv").exists()
    later = new_model("demand", settings, {"horizon": 7}).fit(shop(days=200, customers=200), date(2023, 7, 16))
    evaluation = Evaluation("wape", 0.2, {"weekday_mean_8w": 0.3}, True)
    register("demand", later, evaluation, settings=settings, as_of=date(2023, 7, 16), inputs=[])
    run = CliRunner().invoke(main, [*command, "2", "--json"])
    assert run.exit_code == 0 and json.loads(run.output)["since"] == 1
    moved = pd.read_csv("movers.csv")
    assert list(moved) == ["series", "before", "now", "change", "why"] and moved["why"].str.len().min() > 0
    assert ((moved["now"] - moved["before"] - moved["change"]).abs() < 1e-9).all()


def test_movers_are_written_into_a_csv_file_alone(
    settings: Settings, demand: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(settings.root)
    run = CliRunner().invoke(main, ["score", "demand", "--version", "1", "--horizon", "out.csv", "--movers", "m.pdf"])
    assert run.exit_code == 2 and ".csv" in run.output and not Path("m.pdf").exists()


def chunk(path: Path) -> list[dict[str, Any]]:
    """Return the series in a file of pages."""
    call = path.read_text(encoding="utf-8").strip()
    series: list[dict[str, Any]] = json.loads(call[call.index(",") + 1 : -1])
    return series


def test_each_series_has_a_page_with_its_forecast_parts_and_reasons(
    settings: Settings, demand: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(settings.root)
    command = ["score", "demand", "--version", "1", "--horizon", "out.csv", "--pages", "pages"]
    for _ in range(2):  # the second run replaces what the first wrote
        run = CliRunner().invoke(main, command)
        assert run.exit_code == 0 and "pages of 4 series" in run.output, run.output
    learned = load_version(demand, settings).learned
    series = {values["name"]: values for values in chunk(Path("pages/data/00000.js"))}
    assert tuple(series) == learned.panel.series and sorted(p.name for p in Path("pages").iterdir()) == [
        "data",
        "index.html",
    ]
    for code, values in enumerate(series.values()):
        assert values["forecast"] == pytest.approx(learned.answers[:, code, 0], abs=0.006)
        assert len(values["low"]) == len(values["high"]) == 7 and len(values["sold"]) == len(learned.panel.dates)
        parts = [sum(part[step] for part in values["parts"].values()) for step in range(7)]
        assert parts == pytest.approx(values["forecast"], abs=0.05) and values["reasons"]
    page = Path("pages/index.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "") and "Search 4 series" in page


def test_pages_replace_no_folder_with_other_files(
    settings: Settings, demand: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(settings.root)
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine", encoding="utf-8")
    command = ["score", "demand", "--version", "1", "--horizon", "out.csv", "--pages"]
    for folder, why in (("mine", "notes.txt"), ("absent/pages", "mkdir -p"), ("mine/notes.txt", "a file of this name")):
        run = CliRunner().invoke(main, [*command, folder])
        assert run.exit_code == 2 and why in run.output, run.output
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"] and not Path("out.csv").exists()


def test_names_of_series_cannot_end_the_script_of_the_page() -> None:
    text = script_json({"names": ["</script><b>", "a\u2028b"], "sums": np.array([1.5, np.nan])})
    assert "<" not in text and "\u2028" not in text
    assert json.loads(text) == {"names": ["</script><b>", "a\u2028b"], "sums": [1.5, None]}


def test_a_model_that_is_no_forecast_has_no_pages(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no demand forecast"):
        write_pages(train(settings), settings, tmp_path / "pages")
    assert not (tmp_path / "pages").exists()
