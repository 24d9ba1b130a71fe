"""Assessment, verdict, quarantine and page of datasets."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.data.manifest import read_manifest
from d2c_mlops.data.quality.report import Finding, QualityReport
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate_all
from d2c_mlops.errors import DataRefused, Temporary, UsageError
from d2c_mlops.quality import quarantine as room
from d2c_mlops.quality.assessment import assess, quarantine_by_settings, require_quality
from d2c_mlops.quality.history import score_history
from d2c_mlops.quality.page import page
from d2c_mlops.quality.quarantine import drop, entries, quarantine, quarantined_rows, release
from d2c_mlops.quality.verdict import Thresholds, judge
from d2c_mlops.settings import Settings, load_settings

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
GOODS = ("MUG-1", "MUG-2", "CUP-7", "POT-9")


def raw_tables(days: int = 60, orders_a_day: int = 8) -> dict[str, pd.DataFrame]:
    """Return a shop of four goods and postage, the same number of orders each day."""
    rng = np.random.default_rng(3)
    count = days * orders_a_day
    ordered_at = pd.Timestamp("2026-01-01 09:00", tz="UTC") + pd.to_timedelta(
        np.repeat(np.arange(days), orders_a_day) * 24 + np.tile(np.arange(orders_a_day), days), unit="h"
    )
    ids = [f"O{n:05d}" for n in range(count)]
    orders = pd.DataFrame(
        {
            "order_id": ids,
            "customer_id": [f"C{n % 50:03d}" for n in range(count)],
            "ordered_at": ordered_at,
            "channel": "web",
            "currency": "EUR",
            "source": "test",
        }
    )
    goods = pd.DataFrame(
        {
            "order_id": ids,
            "line_no": 1,
            "product_id": rng.choice(GOODS, count),
            "quantity": 1 + rng.integers(0, 3, count),
            "unit_price": 12.0,
        }
    )
    postage = pd.DataFrame(
        {"order_id": ids[::24], "line_no": 2, "product_id": "POSTAGE", "quantity": 1, "unit_price": 4.5}
    )
    lines = pd.concat([goods, postage], ignore_index=True).sort_values(["order_id", "line_no"], ignore_index=True)
    lines = lines.merge(orders[["order_id", "ordered_at"]], on="order_id").assign(
        currency="EUR", channel="web", cancelled=False, discount=0.0, returned_quantity=0
    )
    return {"orders": orders, "order_lines": lines}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
    monkeypatch.chdir(tmp_path)
    stored = load_settings()
    write_dataset(stored.store, "shop", validate_all(raw_tables()), "test", layout="canonical", created_at=NOW)
    return stored


def rows_of(settings: Settings, table: str = "order_lines") -> pd.DataFrame:
    return Tables.open(settings.store, "shop")[table]


def finding(score: float, table: str = "order_lines", check: str = "product_postage") -> Finding:
    return Finding(
        "mislabelling",
        table,
        check,
        score,
        "120 rows are postage",
        "leave them out",
        rows=120,
        amount=540.0,
        currency="EUR",
    )


def report(*findings: Finding) -> QualityReport:
    return QualityReport.of(date(2026, 2, 28), {"order_lines": 600}, findings)


def test_rows_in_are_rows_out_and_rows_in_quarantine(settings: Settings) -> None:
    before = rows_of(settings)
    entry, manifest = quarantine(settings.store, "shop", "order_lines", ["product_postage"], by="jo", now=NOW)
    after = rows_of(settings)
    assert entry is not None and entry.rows == 20 and entry.checks == {"product_postage": 20} and entry.state == "held"
    moved = quarantined_rows(settings.store, "shop", entry)
    assert len(after) + len(moved) == len(before) and set(moved["product_id"]) == {"POSTAGE"}
    assert set(moved[room.REASON]) == {"product_postage"} and "POSTAGE" not in set(after["product_id"])
    assert manifest.digest == read_manifest(settings.store, "shop").digest == entry.digest_after


def test_released_rows_are_back_and_stay_there(settings: Settings) -> None:
    digest = read_manifest(settings.store, "shop").digest
    entry, _ = quarantine(settings.store, "shop", "order_lines", ["product_postage"], by="jo", now=NOW)
    assert entry is not None
    released, manifest = release(settings.store, "shop", entry.id, by="ann", now=NOW + timedelta(hours=1))
    assert manifest.digest == digest and released.state == "released" and released.history[-1]["by"] == "ann"
    again, unchanged = quarantine(
        settings.store, "shop", "order_lines", ["product_postage"], by="jo", now=NOW + timedelta(hours=2)
    )
    assert again is None and unchanged.digest == digest


def test_a_row_that_was_ingested_again_is_not_released_twice(settings: Settings) -> None:
    entry, _ = quarantine(settings.store, "shop", "order_lines", ["product_postage"], by="jo", now=NOW)
    assert entry is not None
    write_dataset(settings.store, "shop", validate_all(raw_tables()), "test", layout="canonical", created_at=NOW)
    release(settings.store, "shop", entry.id, by="jo", now=NOW)
    lines = rows_of(settings)
    assert (
        len(lines) == len(validate_all(raw_tables())["order_lines"])
        and not lines.duplicated(["order_id", "line_no"]).any()
    )


def test_lines_go_with_their_order(settings: Settings) -> None:
    frames = raw_tables()
    frames["orders"].loc[:4, "customer_id"] = "internal-test"
    write_dataset(settings.store, "shop", validate_all(frames), "test", layout="canonical", created_at=NOW)
    entry, _ = quarantine(settings.store, "shop", "orders", ["test_customer_id"], by="jo", now=NOW)
    assert entry is not None and entry.rows == 5 and entry.checks["follows orders: order_lines"] >= 5
    assert set(rows_of(settings)["order_id"]) <= set(rows_of(settings, "orders")["order_id"])
    release(settings.store, "shop", entry.id, by="jo", now=NOW)
    assert len(rows_of(settings)) == len(frames["order_lines"])


def test_dropped_rows_are_gone_and_the_record_stays(settings: Settings) -> None:
    entry, _ = quarantine(settings.store, "shop", "order_lines", ["product_postage"], by="jo", now=NOW)
    assert entry is not None
    drop(settings.store, "shop", entry.id, by="ann", now=NOW)
    assert [(e.state, e.rows) for e in entries(settings.store, "shop")] == [("dropped", 20)]
    with pytest.raises(UsageError, match="dropped"):
        quarantined_rows(settings.store, "shop", entries(settings.store, "shop")[0])
    with pytest.raises(UsageError, match="were dropped by ann"):
        release(settings.store, "shop", entry.id, by="jo", now=NOW)


def test_a_failure_before_the_dataset_is_rewritten_loses_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_manifest(settings.store, "shop").digest
    monkeypatch.setattr(room, "_rewrite", lambda *a: (_ for _ in ()).throw(Temporary("disk full")))
    with pytest.raises(Temporary):
        quarantine(settings.store, "shop", "order_lines", ["product_postage"], by="jo", now=NOW)
    assert read_manifest(settings.store, "shop").digest == before and entries(settings.store, "shop") == []
    assert not list((settings.store / "quarantine").rglob("*.parquet"))


def test_a_kill_after_the_dataset_was_rewritten_leaves_the_rows_in_quarantine(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As a kill: nothing after it runs."""

    rewrite = room._rewrite

    def killed(*args: object) -> object:
        rewrite(*args)  # type: ignore[arg-type]
        raise Killed

    monkeypatch.setattr(room, "_rewrite", killed)
    with pytest.raises(Killed):
        quarantine(settings.store, "shop", "order_lines", ["product_postage"], by="jo", now=NOW)
    monkeypatch.undo()
    [entry] = entries(settings.store, "shop")
    assert entry.state == "held" and len(quarantined_rows(settings.store, "shop", entry)) == 20
    assert entry.digest_after == read_manifest(settings.store, "shop").digest


def test_not_all_rows_can_leave_and_unknown_checks_are_named(settings: Settings) -> None:
    frames = raw_tables()
    frames["order_lines"]["unit_price"] = 0.0
    write_dataset(settings.store, "shop", validate_all(frames), "test", layout="canonical", created_at=NOW)
    with pytest.raises(DataRefused, match="all 500 rows"):
        quarantine(settings.store, "shop", "order_lines", ["price_not_positive"], by="jo", now=NOW)
    with pytest.raises(UsageError, match="by red_lipstick") as refused:
        quarantine(settings.store, "shop", "order_lines", ["red_lipstick"], by="jo", now=NOW)
    assert "product_postage" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "status"),
    [("never", "warn"), ("0.9", "warn"), ("0.5", "refuse"), ("never, order_lines 0.5", "refuse"), ("0.5, order_lines 0.9", "warn")],
)  # fmt: skip
def test_thresholds_are_those_of_the_table(settings: Settings, text: str, status: str) -> None:
    (settings.root / "settings.ini").write_text(f"[d2c]\nstore = d2c_store\n[data:shop]\nquality_refuse = {text}\n")
    assert judge(report(finding(0.6)), Thresholds.of(load_settings(), "shop")).status == status


@pytest.mark.parametrize("ignored", ["product_postage", "mislabelling", "order_lines.product_postage"])
def test_what_is_accepted_in_settings_passes(settings: Settings, ignored: str) -> None:
    (settings.root / "settings.ini").write_text(f"[d2c]\nstore = d2c_store\nquality_ignore = {ignored}\n")
    assert judge(report(finding(0.99)), Thresholds.of(load_settings(), "shop")).status == "pass"


@pytest.mark.parametrize("text", ["much", "0", "-1", "1.5", "lines 0.5"])
def test_a_threshold_that_is_none_is_refused_with_its_place(settings: Settings, text: str) -> None:
    (settings.root / "settings.ini").write_text(f"[d2c]\nstore = d2c_store\n[data:shop]\nquality_refuse = {text}\n")
    with pytest.raises(UsageError, match=r"\[data:shop\] quality_refuse"):
        Thresholds.of(load_settings(), "shop")


def test_training_is_refused_with_the_finding_and_the_way_to_accept_it(settings: Settings) -> None:
    frames = raw_tables()
    frames["order_lines"].loc[::2, "unit_price"] = 0.0
    write_dataset(settings.store, "shop", validate_all(frames), "test", layout="canonical", created_at=NOW)
    (settings.root / "settings.ini").write_text("[d2c]\nstore = d2c_store\nquality_refuse = 0.4\n")
    with pytest.raises(DataRefused, match="a price of 0 or below"):
        require_quality("shop", load_settings(), as_of=date(2026, 2, 28), now=NOW)
    (settings.root / "settings.ini").write_text(
        "[d2c]\nstore = d2c_store\nquality_refuse = 0.4\nquality_ignore = mislabelling, incompleteness, inconsistency, schema_volume\n"
    )
    assert require_quality("shop", load_settings(), as_of=date(2026, 2, 28), now=NOW).verdict.status != "refuse"


@pytest.mark.slow
def test_reports_are_kept_and_compared(settings: Settings) -> None:
    for day in (date(2026, 2, 20), date(2026, 2, 28), date(2026, 2, 28)):
        assess("shop", settings, now=NOW, as_of=day)
    scores = score_history(settings.store, "shop")
    assert scores["as_of"].tolist() == ["2026-02-20", "2026-02-28"] and scores["score"].between(0, 1).all()


def test_settings_move_rows_at_each_ingest(settings: Settings) -> None:
    (settings.root / "settings.ini").write_text(
        "[d2c]\nstore = d2c_store\n[data:shop]\nquarantine = order_lines.product_postage, order_lines.product_fee\n"
    )
    [entry] = quarantine_by_settings("shop", load_settings(), by="source", now=NOW)
    assert entry.rows == 20
    assert quarantine_by_settings("shop", load_settings(), by="source", now=NOW + timedelta(hours=1)) == []
    (settings.root / "settings.ini").write_text("[d2c]\nstore = d2c_store\n[data:shop]\nquarantine = postage\n")
    with pytest.raises(UsageError, match=r"no TABLE\.CHECK"):
        quarantine_by_settings("shop", load_settings(), by="source", now=NOW)


def test_the_page_needs_nobody_else_and_runs_no_text_of_the_data(settings: Settings) -> None:
    evil = finding(0.6, check="product_fee")
    evil = Finding(**{**vars(evil), "message": "<script>alert(1)</script>", "keys": ("<img src=x onerror=alert(1)>",)})
    thresholds = Thresholds.of(settings, "shop")
    html = page("<b>shop</b>", report(evil), judge(report(evil), thresholds), thresholds, pd.DataFrame())
    assert (
        "<script" not in html
        and "<img" not in html
        and "<b>shop" not in html
        and "http" not in html.replace("http-equiv", "")
    )
    assert "540 EUR" in html and "leave them out" in html


def test_the_commands(settings: Settings) -> None:
    runner = CliRunner()
    shown = runner.invoke(main, ["quality", "shop", "--html"])
    assert shown.exit_code == 0 and "quality.html" in shown.output and "as of 2026-03-01" in shown.output
    values = json.loads(runner.invoke(main, ["quality", "shop", "--json"]).output)
    assert values["verdict"]["status"] in ("pass", "warn") and values["report"]["rows"]["orders"] == 480
    assert runner.invoke(main, ["quarantine", "add", "shop", "order_lines", "product_postage"]).exit_code == 0
    [entry] = json.loads(runner.invoke(main, ["quarantine", "list", "shop", "--json"]).output)
    assert "product_postage" in runner.invoke(main, ["quarantine", "show", "shop", entry["id"]]).output
    assert runner.invoke(main, ["quarantine", "release", "shop", entry["id"][:8]]).exit_code == 0
    (settings.root / "settings.ini").write_text("[d2c]\nstore = d2c_store\nquality_refuse = 0.0001\n")
    refused = runner.invoke(main, ["quality", "shop"])
    assert refused.return_value == 3 and "refuse: shop" in refused.output


def test_a_file_is_assessed_without_being_ingested_or_changed(settings: Settings) -> None:
    file = settings.root / "Orders May.csv"
    raw_tables()["order_lines"].to_csv(file, index=False)
    content = file.read_bytes()
    result = CliRunner().invoke(main, ["quality", str(file), "--html"])
    assert result.exit_code == 0 and file.read_bytes() == content
    assert (settings.store / "quality" / "sources" / "orders-may.html").exists()


def test_references_are_known_by_the_names_of_their_files(settings: Settings) -> None:
    lines = validate_all(raw_tables())["order_lines"]
    refunds = lines.head(40)[["order_id", "product_id", "quantity"]].assign(refunded_at="2026-02-20")
    refunds.to_csv(settings.root / "refunds.csv", index=False)
    before = assess("shop", settings, now=NOW)
    after = assess("shop", settings, now=NOW, references=[str(settings.root / "refunds.csv")])
    added = {finding.check for finding in after.report.findings} - {finding.check for finding in before.report.findings}
    assert any("refund" in check or "return" in check for check in added), added


def _order_rows(first: date, price: str) -> str:
    rows = [
        f"O{n},C{n % 9},{first + timedelta(days=n // 4)},P{n % 5},1,{price if n % 4 == 0 else 9.5}" for n in range(240)
    ]
    return "\n".join(["order_id,customer_id,order_date,sku,quantity,unit_price", *rows]) + "\n"


def test_text_among_prices_is_told_with_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(_order_rows(date(2024, 1, 1), "on request"))
    done = CliRunner().invoke(main, ["quality", str(file)])
    assert "60 rows (25.0%) of 'unit_price' hold text that is no number, such as 'on request'" in done.output


def test_rows_that_are_all_dated_after_today_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(_order_rows(date(2090, 1, 1), "9.5"))
    done = CliRunner().invoke(main, ["quality", str(file)])
    assert done.exit_code == 3
    assert "all rows are dated after today, from 2090-01-01 on" in done.output


def test_some_rows_after_today_are_told(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    later = "O999,C1,2090-01-01,P1,1,9.5\n" * 3
    file.write_text(_order_rows(date(2024, 1, 1), "9.5") + later)
    done = CliRunner().invoke(main, ["quality", str(file)])
    assert "3 rows are dated after" in done.output
