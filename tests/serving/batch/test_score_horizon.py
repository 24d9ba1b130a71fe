"""A forecast writes its whole horizon without a table of records."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.data.simulate import shop
from d2c_mlops.data.store import write_dataset
from d2c_mlops.errors import UsageError
from d2c_mlops.models.core.model import Evaluation
from d2c_mlops.registry.versions import Version, load_version, new_model, register
from d2c_mlops.serving.batch.forecast_pages import script_json, write_pages
from d2c_mlops.serving.batch.score import score
from d2c_mlops.settings import Settings
from support.training import train

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


def test_a_model_without_a_horizon_asks_for_a_source(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no horizon of its own") as refusal:
        score(train(settings), None, str(tmp_path / "out.csv"), settings)
    assert "SOURCE" in str(refusal.value.next) and not (tmp_path / "out.csv").exists()


def test_the_command_takes_a_sink_alone(settings: Settings, demand: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(settings.root)
    run = CliRunner().invoke(main, ["score", "demand", "--version", "1", "--horizon", "out.csv", "--json"])
    assert run.exit_code == 0 and json.loads(run.output)["records"] == 28
    assert (settings.root / "out.csv").exists()


@pytest.mark.parametrize("places", [["--horizon", "asked.csv", "out.csv"], ["out.csv"], ["a.csv", "b.csv", "c.csv"]])
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
    assert run.exit_code == 2 and "--horizon" in run.output


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
