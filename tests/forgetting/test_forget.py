"""A customer who is forgotten is nowhere below the store afterwards, and everybody else is as before."""

import bz2
import gzip
import json
import lzma
import os
import signal
import sqlite3
import subprocess
import sys
import unicodedata
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sqlalchemy import insert, select

from d2c_mlops.cli import main
from d2c_mlops.data import simulate
from d2c_mlops.data.ingestion.increment import ingest_new
from d2c_mlops.data.ingestion.ingest import ingest
from d2c_mlops.data.layouts.leads import pack_lead_fields
from d2c_mlops.data.manifest import read_manifest
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import Temporary, UsageError
from d2c_mlops.forgetting.file_scrubbing import replace_file, scrub_content
from d2c_mlops.forgetting.forget import forget
from d2c_mlops.forgetting.person import Person
from d2c_mlops.ledger.schema import decisions, feedback, forgettings, predictions, runs, versions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import processes
from d2c_mlops.serving.batch.webhook_sink import DeliveryLog, HookMessage, _payload_digest
from d2c_mlops.serving.http.idempotency import IdempotencyStore
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.serving.predict.privacy import keyed_pseudonym
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.settings import Settings, load_settings
from support.training import train

WHO, MAIL, LEAD = "Canary-7001", "canary.jane@example.com", "L-canary-9"
NEAR = ("Canary-70012", "XCanary-7001", "Canary-7001-2")  # ids of others that the person's is a part of
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def shop(scale: float = 1.0) -> dict[str, pd.DataFrame]:
    """A shop in which the person and three people with nearly the same id have orders."""
    frames = dict(simulate.shop(customers=30, days=90))
    ids = sorted(frames["orders"]["customer_id"].dropna().unique())
    renamed = dict(zip(ids, (WHO, *NEAR), strict=False))
    for table in ("orders", "customers"):
        frames[table] = frames[table].assign(customer_id=frames[table]["customer_id"].replace(renamed))
    lines = frames["order_lines"]
    frames["order_lines"] = lines.assign(unit_price=lines["unit_price"] * scale)
    return frames


def leads() -> pd.DataFrame:
    raw = {"lead_id": ["L-1", LEAD, "L-2"], "scored_at": pd.Timestamp("2026-01-02", tz="UTC"), "source": "web",
           "outcome": ["won", "lost", "won"], "outcome_at": pd.Timestamp("2026-01-09", tz="UTC"),
           "email": ["a@b.de", MAIL.upper(), f"x{MAIL}"], "full_name": ["Al", "Jane Canaryname", "Bo"],
           "visits": [1, 7, 9]}  # fmt: skip
    return pack_lead_fields(pd.DataFrame(raw))


def prediction(id: str, key: str, model: str = "clv", **inputs: Any) -> dict[str, Any]:
    return {"id": id, "model": model, "version": 1, "contract": "1.0.0", "variant": "champion", "key": key, "at": NOW,
            "inputs": {"customer_id": key, **inputs}, "outputs": {"customer_id": key, "value": 3.5}, "reasons": [f"{key} buys"],
            "caller": None, "request_id": "r", "origin": None}  # fmt: skip


def decision(id: str, about: str, key: str) -> dict[str, Any]:
    return {"id": id, "prediction_id": about, "model": "clv", "version": 1, "key": key, "field": "value",
            "subject": json.dumps({"customer_id": key}), "proposed": 3.5, "status": "pending", "reason": f"for {key}",
            "predicted_at": NOW, "proposed_at": NOW, "deadline_at": NOW, "dry_run": False, "policy": {}, "attempts": 0}  # fmt: skip


def run_row(id: str, settings: Settings, status: str = "succeeded", **more: Any) -> dict[str, Any]:
    return {"id": id, "runbook": "r", "notebook": "r.ipynb", "notebook_sha256": "0", "parameters": {"customer_id": WHO, "n": 12},
            "package_version": "1", "inputs": [], "status": status, "started_at": NOW, "recorded": {"best": [WHO, NEAR[0]]},
            "outputs": {"folder": str(settings.store / "runs" / id)}, "host": "elsewhere", "pid": 1, "pid_started": 1.0, **more}  # fmt: skip


def version_row(digest: str, number: int = 1) -> dict[str, Any]:
    return {"model": "clv", "version": number, "created_at": NOW, "model_class": "a:B", "params": {}, "contract": {"key": "customer_id"},
            "charter": {}, "evaluation": {}, "inputs": [{"name": "shop", "digest": digest}], "as_of": "2026-01-01",
            "package_version": "1", "artifact_uri": "file:///nowhere", "sha256": "0"}  # fmt: skip


def log_line(id: str, *keys: str) -> bytes:
    rows = [{"customer_id": key} for key in keys]
    return json.dumps({"kind": "predictions", "id": id, "first": 0, "model": "clv", "version": 1, "contract": "1.0.0",
                       "key": "customer_id", "variant": "champion", "caller": None, "request_id": "r", "at": NOW.isoformat(),
                       "inputs": rows, "outputs": [{**row, "value": i} for i, row in enumerate(rows)]}).encode()  # fmt: skip


def plant(settings: Settings) -> dict[str, str]:
    """Put the person everywhere, and return the digests of the versions of the dataset `shop`."""
    store = settings.store
    first, _ = write_dataset(store, "shop", shop(), "simulated", layout="canonical", created_at=NOW)
    second, _ = write_dataset(store, "shop", shop(2.0), "simulated", layout="canonical", created_at=NOW)
    write_dataset(store, "crm", {"leads": _canonical(leads())}, "crm.csv", layout="leads", created_at=NOW)
    ledger = Ledger.of(settings)
    with ledger.write() as connection:
        connection.execute(insert(versions), [version_row(first.digest), version_row("f" * 64, 2)])
        rows = [prediction("p1", WHO, email=MAIL), prediction("p2", NEAR[0]), prediction("p3", NEAR[1])]
        connection.execute(insert(predictions), [*rows, prediction("p4", LEAD, model="leads")])
        told = [("f1", "p1", WHO), ("f2", "p2", NEAR[0]), ("f3", "p1", None)]
        connection.execute(insert(feedback), [
            {"id": i, "model": "clv", "prediction_id": p, "key": k, "at": NOW, "action": "ignored", "reason": f"{k} called"}
            for i, p, k in told])  # fmt: skip
        connection.execute(insert(decisions), [decision("d1", "p1", WHO), decision("d2", "p2", NEAR[0])])
        connection.execute(insert(runs), run_row("run1", settings))
    ledger.close()
    book = Logbook(store / "serving" / "clv" / "log")
    assert (
        book.append(log_line("a", NEAR[0], WHO, NEAR[1]))
        and book.append(log_line("b", WHO))
        and book.append(log_line("c", NEAR[2]))
    )
    book.close()
    kept = IdempotencyStore(store / "serving" / "clv" / "kept.db")
    for name, keys in (("k1", (WHO, NEAR[0])), ("k2", (WHO,)), ("k3", (NEAR[0],)), (f"call-{MAIL}", (NEAR[0],))):
        kept.store_answer(
            "s",
            name,
            "d",
            json.dumps({"model": "clv", "predictions": [{"customer_id": k, "v": 1} for k in keys]}).encode(),
        )
    kept.close()
    folder = store / "runs" / "run1"
    folder.mkdir(parents=True)
    text = f"<td>{WHO}</td> <td>{NEAR[0]}</td> mailto:{MAIL.replace('@', '%40')} {MAIL}"
    (folder / "output.html").write_text(text)
    (folder / "run.log").write_text(f"scored {WHO}\nscored {NEAR[0]}\n")
    cell = {
        "cell_type": "code",
        "source": [f"who = '{WHO}'"],
        "outputs": [{"data": {"text/plain": [WHO, f"{NEAR[0]} {WHO}"]}}],
    }
    (folder / "output.ipynb").write_text(
        json.dumps({"cells": [cell], "metadata": {"papermill": {"parameters": {"customer": WHO}}}}, indent=1)
    )
    (folder / "top.csv").write_text(f"customer_id,value\n{WHO},1\n{NEAR[0]},2\n")
    (folder / "values.json").write_text(
        json.dumps({"top": [{"customer_id": WHO}, {"customer_id": NEAR[0]}], "by": {WHO: 1, NEAR[0]: 2}})
    )
    pq.write_table(pa.table({"customer_id": [WHO, NEAR[0]], "value": [1, 2]}), folder / "top.parquet")
    (store / "logs").mkdir()
    with gzip.open(store / "logs" / "clv.log.gz", "wt") as file:
        file.write(f"asked by {MAIL}\n")
    (store / "outbox").mkdir()
    letters = [{"number": i, "why": "HTTP 422", "prediction": {"customer_id": k}} for i, k in enumerate((WHO, NEAR[0]))]
    (store / "outbox" / "x.dead.jsonl").write_text("".join(json.dumps(each) + "\n" for each in letters))
    lab = sqlite3.connect(store / "lab.db")
    lab.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY, parameters TEXT)")
    lab.execute(
        "INSERT INTO jobs VALUES (1, ?), (2, ?)", (json.dumps({"customer": WHO}), json.dumps({"customer": NEAR[0]}))
    )
    lab.commit()
    lab.close()
    model = store / "mlartifacts" / "1" / "artifacts" / "model"
    model.mkdir(parents=True)
    (model / "example.json").write_text(json.dumps({"customer_id": WHO}))
    return {"first": first.digest, "second": second.digest}


def _canonical(frame: pd.DataFrame) -> pd.DataFrame:
    from d2c_mlops.data.validation import validate

    return validate("leads", frame)


def tree(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink())
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in files if p.name != ".lock"}


def holders(store: Path, *names: str) -> set[str]:
    """Return the files that hold a name as bytes, in whatever is compressed, too."""
    found = set()
    for path in store.rglob("*"):
        if not path.is_file() or "gate" in path.parts:
            continue
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        if content[:4] == b"PAR1":
            content = json.dumps(pq.read_table(path, partitioning=None).to_pylist(), default=str).encode()
        for near in sorted(NEAR, key=len, reverse=True):
            content = content.replace(near.encode(), b"")
        if any(name.lower().encode() in content.replace(f"x{MAIL}".encode(), b"").lower() for name in names):
            found.add(str(path.relative_to(store)))
    return found


def ids(settings: Settings, table: Any) -> list[str]:
    ledger = Ledger.of(settings)
    with ledger.read() as connection:
        found = sorted(connection.execute(select(table.c.id)).scalars())
    ledger.close()
    return found


EXAMPLE = "mlartifacts/1/artifacts/model/example.json"


@pytest.mark.parametrize("erase", [True, False])
def test_no_byte_of_the_customer_remains_but_where_it_is_listed(settings: Settings, erase: bool) -> None:
    plant(settings)
    assert len(holders(settings.store, WHO, MAIL)) > 15
    told = forget(WHO, settings, also=[MAIL], erase=erase, yes=True, by="Jo")
    assert holders(settings.store, WHO, MAIL, LEAD) == {EXAMPLE}
    assert any(EXAMPLE in line for line in told.not_reached) and told.changed
    again = forget(WHO, settings, also=[MAIL], erase=erase, yes=True)
    assert (again.found, again.changed) == ({}, False) and again.done_before


def test_other_customers_keep_every_value(settings: Settings) -> None:
    digests = plant(settings)
    before = {d: dict(Tables.open(settings.store, "shop", digest)) for d, digest in digests.items()}
    forget(WHO, settings, also=[MAIL], erase=True, yes=True)
    for name, digest in digests.items():
        old, now = before[name], Tables.open(settings.store, "shop", digest)
        mine = old["orders"][old["orders"]["customer_id"] == WHO]["order_id"]
        assert len(mine)
        for table, gone in (("orders", old["orders"]["order_id"].isin(mine)), ("order_lines", old["order_lines"]["order_id"].isin(mine)),
                            ("customers", old["customers"]["customer_id"] == WHO), ("products", pd.Series(False, old["products"].index))):  # fmt: skip
            key = {
                "order_lines": ["order_id", "line_no"],
                "products": ["product_id"],
                "customers": ["customer_id"],
            }.get(table, ["order_id"])
            left, right = (f.sort_values(key, ignore_index=True) for f in (old[table][~gone], now[table]))
            pd.testing.assert_frame_equal(left, right)
    assert (
        ids(settings, predictions) == ["p2", "p3"]
        and ids(settings, feedback) == ["f2"]
        and ids(settings, decisions) == ["d2"]
    )
    assert (settings.store / "runs/run1/top.csv").read_text() == f"customer_id,value\n{NEAR[0]},2\n"
    assert (settings.store / "runs/run1/run.log").read_text() == f"scored {'*' * len(WHO)}\nscored {NEAR[0]}\n"
    values = json.loads((settings.store / "runs/run1/values.json").read_text())
    assert values == {"top": [{"customer_id": NEAR[0]}], "by": {NEAR[0]: 2}}
    kept = sqlite3.connect(settings.store / "serving/clv/kept.db")
    answers = {
        key: [p["customer_id"] for p in json.loads(a)["predictions"]]
        for key, a in kept.execute("SELECT key, answer FROM answers")
    }
    assert answers == {"k1": [NEAR[0]], "k3": [NEAR[0]]}


def test_logged_predictions_of_others_keep_their_ids_when_they_are_collected(settings: Settings) -> None:
    plant(settings)
    forget(WHO, settings, also=[MAIL], erase=True, yes=True)
    assert CliRunner().invoke(main, ["collect"]).exit_code == 0
    assert ids(settings, predictions) == ["a-0", "a-2", "c-0", "p2", "p3"]


def test_a_pseudonym_is_the_same_everywhere_and_totals_stay(settings: Settings) -> None:
    digests = plant(settings)
    old = dict(Tables.open(settings.store, "shop", digests["second"]))
    revenue = old["order_lines"]["unit_price"].sum(), old["orders"]["customer_id"].nunique()
    forget(WHO, settings, also=[MAIL], yes=True)
    now = Tables.open(settings.store, "shop", digests["second"])
    assert (now["order_lines"]["unit_price"].sum(), now["orders"]["customer_id"].nunique()) == revenue
    (stand_in,) = set(now["customers"]["customer_id"]) - set(old["customers"]["customer_id"])
    assert stand_in.startswith("forgotten-") and stand_in in set(now["orders"]["customer_id"])
    ledger = Ledger.of(settings)
    with ledger.read() as connection:
        row = connection.execute(select(predictions).where(predictions.c.id == "p1")).mappings().one()
    assert row["key"] == row["inputs"]["customer_id"] == stand_in and row["reasons"] == [f"{stand_in} buys"]
    assert MAIL not in json.dumps(row["inputs"]) and row["outputs"]["value"] == 3.5
    fields = [json.loads(text) for text in Tables.open(settings.store, "crm")["leads"]["fields"]]
    assert sorted(f["visits"] for f in fields) == [1, 7, 9] and "Jane Canaryname" not in json.dumps(fields)
    assert sum(f.get("full_name") in ("Al", "Bo") for f in fields) == 2


def test_a_pseudonymised_customer_can_be_erased_later(settings: Settings) -> None:
    plant(settings)
    forget(WHO, settings, also=[MAIL], yes=True)
    later = forget(WHO, settings, also=[MAIL], erase=True, yes=True)
    assert later.changed and later.found
    assert not holders(settings.store, "forgotten-") - {"forgotten/list.json"}
    assert ids(settings, predictions) == ["p2", "p3"]


def test_former_digests_open_the_version_without_the_customer(settings: Settings) -> None:
    digests = plant(settings)
    told = forget(WHO, settings, erase=True, yes=True)
    for digest in digests.values():
        now = read_manifest(settings.store, "shop", digest)
        assert now.digest == told.datasets["shop"][digest] and now.digest != digest
        assert any("erased" in note for note in now.notes)
        assert read_manifest(settings.store, "shop", now.digest) == now
    assert len(list((settings.store / "data/shop/parts/orders").rglob("*.parquet"))) > 1
    assert write_dataset(settings.store, "shop", shop(2.0), "simulated", layout="canonical", created_at=NOW)[1] is False


def test_a_dry_run_changes_nothing_and_lists_what_would_be(settings: Settings) -> None:
    plant(settings)
    before = tree(settings.store)
    told = forget(WHO, settings, also=[MAIL])
    ran = CliRunner().invoke(main, ["forget", WHO, "--also", MAIL, "--erase", "--yes", "--dry-run"])
    assert ran.exit_code == 0 and f"d2c forget {WHO} --also {MAIL} --erase --yes" in ran.output
    assert tree(settings.store) == before and not told.changed
    assert {
        "data/shop orders",
        "data/crm leads",
        "ledger predictions",
        "ledger decisions",
        "runs/run1",
        "serving/clv",
    } <= set(told.found)
    assert "data/shop order_lines, former versions" not in told.found and told.found["ledger predictions"] == 2


def test_the_record_has_who_when_and_where_but_not_whom(settings: Settings) -> None:
    plant(settings)
    told = json.loads(CliRunner().invoke(main, ["forget", WHO, "--also", MAIL, "--yes", "--by", "Jo", "--json"]).output)
    ledger = Ledger.of(settings)
    with ledger.read() as connection:
        rows = connection.execute(select(forgettings).order_by(forgettings.c.id)).mappings().all()
    assert [row["status"] for row in rows] == ["begun", "done"] and {row["by"] for row in rows} == {"Jo"}
    assert rows[1]["places"] == told["found"] and rows[1]["mode"] == "pseudonymise" and len(rows[1]["subject"]) == 64
    assert WHO not in json.dumps([dict(row) for row in rows], default=str)
    (model,) = rows[1]["models"]
    assert (model["version"], model["next"], model["datasets"]) == (1, "d2c run train -p model=clv", ["shop"])
    assert any("backups" in line for line in told["not_reached"]) and any(
        "source simulated" in line for line in told["not_reached"]
    )


@pytest.mark.parametrize("erase", [True, False])
def test_ingest_does_not_bring_the_customer_back_and_says_so(settings: Settings, tmp_path: Path, erase: bool) -> None:
    exports = tmp_path / "exports"
    exports.mkdir()
    frames = shop()
    for table in ("orders", "order_lines", "customers", "products"):
        frames[table].to_csv(exports / f"{table}.csv", index=False)
    ingest(str(exports), "shop", store=settings.store, created_at=NOW)
    ingest_new(str(exports), "nightly", store=settings.store, created_at=NOW)
    forget(WHO, settings, erase=erase, yes=True)
    digest = read_manifest(settings.store, "shop").digest
    again = ingest(str(exports), "shop", store=settings.store, created_at=NOW)
    assert not again.changed and again.manifest.digest == digest
    word = "left out" if erase else "pseudonymised"
    assert any(word in note and "of a forgotten customer" in note for note in again.notes)
    late = frames["orders"][frames["orders"]["customer_id"] == WHO].iloc[:1].assign(order_id="late-1")
    late.to_csv(exports / "orders_2026-02-01.csv", index=False)
    frames["order_lines"].iloc[:1].assign(order_id="late-1").to_csv(exports / "order_lines_2026-02-01.csv", index=False)
    news = ingest_new(str(exports), "nightly", store=settings.store, created_at=NOW)
    assert any(word in note for note in news.notes)
    assert WHO not in set(Tables.open(settings.store, "nightly")["orders"]["customer_id"])
    assert ("late-1" in set(Tables.open(settings.store, "nightly")["order_lines"]["order_id"])) is not erase


def test_lines_of_an_erased_order_that_come_alone_are_left_out(settings: Settings, tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    exports.mkdir()
    frames = shop()
    for table in ("orders", "order_lines", "customers"):
        frames[table].to_csv(exports / f"{table}.csv", index=False)
    ingest_new(str(exports), "shop", store=settings.store, created_at=NOW)
    forget(WHO, settings, erase=True, yes=True)
    mine = set(frames["orders"].loc[frames["orders"]["customer_id"] == WHO, "order_id"])
    frames["order_lines"].assign(discount=0.0).to_csv(exports / "order_lines.csv", index=False)
    (exports / "orders.csv").unlink()
    news = ingest_new(str(exports), "shop", store=settings.store, created_at=NOW)
    lines = Tables.open(settings.store, "shop")["order_lines"]
    assert mine and not mine & set(lines["order_id"]) and (lines["discount"] == 0).all()
    assert any("left out" in note for note in news.notes)


def test_a_ledger_in_postgresql_forgets_too(postgres: str, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[d2c]\n")
    held = load_settings(tmp_path, overrides={"ledger_url": postgres}, environ={})
    ledger = Ledger.of(held)
    with ledger.write() as connection:
        connection.execute(insert(predictions), [prediction("p1", WHO, email=MAIL.upper()), prediction("p2", NEAR[0])])
        connection.execute(insert(predictions), [prediction("p3", "L-7", model="leads", who=["Jürgen Ökonom"])])
        connection.execute(insert(decisions), [decision("d1", "p1", WHO), decision("d2", "p2", NEAR[0])])
        connection.execute(insert(runs), run_row("run1", held))
    assert forget(WHO, held, also=[MAIL], erase=True).found["ledger predictions"] == 1
    forget(WHO, held, also=[MAIL], erase=True, yes=True)
    assert ids(held, predictions) == ["p2", "p3"] and ids(held, decisions) == ["d2"]
    told = forget("Jürgen Ökonom", held, yes=True)
    assert told.found == {"ledger predictions": 1}
    with ledger.read() as connection:
        assert "Jürgen" not in json.dumps(
            connection.execute(select(predictions.c.inputs)).scalars().all(), ensure_ascii=False
        )
    ledger.close()


def test_hashed_fields_of_logs_and_sent_records_are_found(settings: Settings) -> None:
    shown = "Jane@Shop.example"
    frames = shop()
    for table in ("orders", "customers"):
        frames[table] = frames[table].assign(customer_id=frames[table]["customer_id"].replace(WHO, shown))
    write_dataset(settings.store, "shop", frames, "s", layout="canonical", created_at=NOW)
    (settings.store / "serving").mkdir()
    (settings.store / "serving" / "log.secret").write_text("pepper")
    hashed = masking_of(shown)
    ledger = Ledger.of(settings)
    with ledger.write() as connection:
        connection.execute(insert(predictions), [prediction("p1", hashed), prediction("p2", masking_of(NEAR[0]))])
    ledger.close()
    (settings.store / "outbox").mkdir()
    sent = DeliveryLog(settings.store / "outbox" / "x.db", "clv")
    sent.record(
        [HookMessage(i, f"{_payload_digest([who])}-1", "d", {}) for i, who in enumerate((shown, NEAR[0]))], True
    )
    sent.close()
    forget(shown.lower(), settings, erase=True, yes=True)
    assert ids(settings, predictions) == ["p2"]
    left = sqlite3.connect(settings.store / "outbox" / "x.db").execute("SELECT name FROM sent").fetchall()
    assert left == [(f"{_payload_digest([NEAR[0]])}-1",)]


def masking_of(value: str) -> str:
    return str(keyed_pseudonym(value, b"pepper"))


def test_personal_texts_beside_the_identifier_go_with_it(settings: Settings) -> None:
    ledger = Ledger.of(settings)
    about = {"full_name": "Jane Canaryname", "city_size": "large", "visits": 3}
    with ledger.write() as connection:
        connection.execute(insert(predictions), [prediction("p1", WHO, **about), prediction("p2", NEAR[0], **about)])
    forget(WHO, settings, yes=True)
    with ledger.read() as connection:
        first, second = connection.execute(select(predictions.c.inputs).order_by(predictions.c.id)).scalars()
    assert {n: first[n] for n in about} == about | {"full_name": "[erased]"}
    assert second == {"customer_id": NEAR[0], **about}


def test_what_is_appended_to_a_log_meanwhile_stays(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text(f"one {WHO}\n")
    made, count = scrub_content(log.name, log.read_bytes(), Person.of([WHO], b"k", erased=True))
    with log.open("a") as file:
        replace_file(log, made)
        file.write("two\n")
        file.flush()
        replace_file(log, made)
        file.write("three\n")
    assert (log.read_text(), count) == (f"one {'*' * len(WHO)}\ntwo\nthree\n", 1)


def test_an_archive_is_listed_and_not_changed(settings: Settings) -> None:
    settings.store.joinpath("runs", "r").mkdir(parents=True)
    with zipfile.ZipFile(settings.store / "runs" / "r" / "all.zip", "w") as archive:
        archive.writestr("top.csv", f"customer_id,v\n{WHO},1\n")
    told = forget(WHO, settings, erase=True, yes=True)
    assert any("all.zip" in line and "an archive, top.csv" in line for line in told.not_reached)


def test_the_record_names_no_file_after_the_customer(settings: Settings) -> None:
    folder = settings.store / "out" / WHO
    folder.mkdir(parents=True)
    (folder / f"{WHO}.bin").write_bytes(b"\0" + WHO.encode())
    (folder / "a.txt").write_text(WHO)
    told = forget(WHO, settings, yes=True)
    assert any(f"{WHO}.bin" in line for line in told.not_reached) and f"out/{WHO}" in told.found
    ledger = Ledger.of(settings)
    with ledger.read() as connection:
        rows = connection.execute(select(forgettings)).mappings().all()
    assert len(rows) == 2 and WHO not in json.dumps([dict(row) for row in rows], default=str)
    ledger.close()


def test_without_its_key_the_list_stops_ingest(settings: Settings) -> None:
    plant(settings)
    forget(WHO, settings, yes=True)
    (settings.store / "forgotten" / "key").unlink()
    with pytest.raises(UsageError, match="key of the list"):
        write_dataset(settings.store, "shop", shop(), "simulated", layout="canonical", created_at=NOW)


@pytest.mark.parametrize(
    ("name", "value", "hit"),
    [
        ("customer_id", "12", True), ("customer_id", 12, True), ("customer_id", 12.0, True), ("customer_id", "123", False),
        ("company_size", 12, False), ("product_id", "12", False), ("key", 12, True), ("customer_id", "112", False), ("customer_id", True, False),
    ],
)  # fmt: skip
def test_a_number_counts_under_the_name_of_a_person_alone(name: str, value: Any, hit: bool) -> None:
    person = Person.of(["12"], b"k", erased=True)
    assert person.is_value(value, name) is hit


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("12 rows of customer 12, customer_id=123", "12 rows of customer [erased], customer_id=123"),
        ('{"customer_id": 12, "n": 12}', '{"customer_id": [erased], "n": 12}'),
        ("mailto:J@x.de, j@x.de.evil, aj@x.de, J@X.DE.", "mailto:[erased], j@x.de.evil, aj@x.de, [erased]."),
        ("j%40x.de and J\\u00fcrgen & Co", "[erased] and [erased] & Co"),
    ],
)
def test_a_text_loses_whole_identifiers_alone(text: str, made: str) -> None:
    assert Person.of(["12", "j@x.de", "Jürgen"], b"k", erased=True).redact_text(text) == made


def test_a_number_that_is_a_product_elsewhere_stays_there(settings: Settings) -> None:
    ledger = Ledger.of(settings)
    with ledger.write() as connection:
        contracts = [("demand", "product_id"), ("clv", "customer_id")]
        rows = [version_row("0" * 64) | {"model": m, "contract": {"key": key}} for m, key in contracts]
        connection.execute(insert(versions), rows)
        product = prediction("p1", "12", model="demand") | {
            "inputs": {"product_id": 12},
            "outputs": {"product_id": 12, "units": 12},
            "reasons": None,
        }
        connection.execute(insert(predictions), [product, prediction("p2", "12"), prediction("p3", "123")])
    ledger.close()
    forget("12", settings, erase=True, yes=True)
    assert ids(settings, predictions) == ["p1", "p3"]


def test_a_long_number_of_something_else_stays_in_json(settings: Settings) -> None:
    person = Person.of(["1000001"], b"k", erased=True)
    record = {
        "product_id": "1000001",
        "sku": 1000001,
        "note": "by 1000001",
        "orders": [{"customer_id": 1000001}, {"customer_id": 7}],
    }
    made = {"product_id": "1000001", "sku": 1000001, "note": "by [erased]", "orders": [{"customer_id": 7}]}
    assert person.remove_from_json(record) == made


def test_a_dataset_bounds_whose_identifier_it_is(settings: Settings) -> None:
    write_dataset(settings.store, "one", shop(), "a", layout="canonical", created_at=NOW)
    other, _ = write_dataset(settings.store, "other", shop(), "b", layout="canonical", created_at=NOW)
    forget(WHO, settings, dataset=["one"], erase=True, yes=True)
    assert WHO not in set(Tables.open(settings.store, "one")["orders"]["customer_id"])
    assert read_manifest(settings.store, "other") == other
    assert not write_dataset(settings.store, "other", shop(), "b", layout="canonical", created_at=NOW)[1]
    with pytest.raises(UsageError, match="no dataset"):
        forget(WHO, settings, dataset=["none"])


def test_a_run_that_is_going_holds_it_up(settings: Settings) -> None:
    plant(settings)
    ledger = Ledger.of(settings)
    mine = {"host": processes.host_identity(), "pid": os.getpid(), "pid_started": processes.process_start(os.getpid())}
    with ledger.write() as connection:
        connection.execute(insert(runs), run_row("going", settings, "running", **mine))
    before = tree(settings.store / "data")
    with pytest.raises(Temporary, match="1 run is in progress"):
        forget(WHO, settings, yes=True)
    assert tree(settings.store / "data") == before
    assert forget(WHO, settings).found


def test_a_log_that_a_service_writes_is_waited_for(settings: Settings) -> None:
    book = Logbook(settings.store / "serving" / "clv" / "log")
    assert book.append(log_line("a", WHO))
    with pytest.raises(Temporary, match="is writing a log"):
        forget(WHO, settings, erase=True, yes=True, timeout=0.1)
    book.close()
    assert forget(WHO, settings, erase=True, yes=True).changed and not holders(settings.store, WHO)


def test_somebody_unknown_is_put_on_the_list_once(settings: Settings) -> None:
    first, again = (forget("nobody-1", settings, yes=True) for _ in range(2))
    assert (first.found, first.changed, again.changed) == ({}, True, False)
    with pytest.raises(UsageError):
        forget(" ", settings)


KILLED = """
import os, sys
from pathlib import Path
from d2c_mlops.settings import load_settings
import d2c_mlops.forgetting.forget as f, d2c_mlops.data.store as s, d2c_mlops.forgetting.datasets as d
import d2c_mlops.forgetting.file_scrubbing as files, d2c_mlops.forgetting.databases as b, d2c_mlops.forgetting.ledger_rows as l
left = int(sys.argv[1])
def counted(real):
    def call(*args, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
        return real(*args, **named)
    return call
for module, name in ((d, "write_atomic"), (files, "write_atomic"), (d, "remove_unreferenced"), (b, "compact_database"), (l, "vacuum"), (l, "scrub_ledger")):
    setattr(module, name, counted(getattr(module, name)))
f.forget(sys.argv[2], load_settings(Path.cwd()), also=[sys.argv[3]], erase=sys.argv[4] == "True", yes=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("erase", [True, False])
def test_after_a_kill_at_any_step_the_same_command_ends_it(settings: Settings, erase: bool) -> None:
    plant(settings)
    kills = 0
    for step in range(1, 60):
        command = [sys.executable, "-c", KILLED, str(1 + step * 4 % 13), WHO, MAIL, str(erase)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=settings.root)
        Tables.open(settings.store, "shop")["orders"]  # whole at any time
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
    assert kills > 3
    assert forget(WHO, settings, also=[MAIL], erase=erase, yes=True).found == {}
    assert holders(settings.store, WHO, MAIL, LEAD) == {EXAMPLE}
    assert not [p for p in settings.store.rglob(".tmp-*")]


@pytest.mark.slow
def test_the_gate_judges_a_version_that_was_trained_before(settings: Settings) -> None:
    version = train(settings)
    (data,) = version.inputs
    orders = Tables.open(settings.store, "shop", data["digest"])["orders"]
    told = forget(orders["customer_id"].dropna().iloc[0], settings, yes=True)
    assert [(m["model"], m["version"], m["live"]) for m in told.models] == [("mean_units", 1, False)]
    made, clauses = promote("mean_units", settings, by="Jo")
    assert made is not None and all(clause.holds for clause in clauses)


@pytest.mark.slow
def test_two_at_once_end_as_one(settings: Settings) -> None:
    plant(settings)
    command = [sys.executable, "-m", "d2c_mlops", "forget", WHO, "--also", MAIL, "--erase", "--yes"]
    both = [
        subprocess.Popen(command, cwd=settings.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [each.communicate(timeout=200) for each in both]
    assert all(each.returncode in (0, 75) for each in both) and any(each.returncode == 0 for each in both), ends
    assert holders(settings.store, WHO, MAIL, LEAD) == {EXAMPLE}


# --- odd spellings and files

ACCENT = "Zoë-5501"
SPLIT = unicodedata.normalize("NFD", ACCENT)


@pytest.mark.parametrize("erase", [True, False])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", f"customer_id,v\n{ACCENT},1\nother,2\n".encode("utf-16")), ("b.csv", f"customer_id,v\n{ACCENT},1\n".encode("utf-16-le")),
        ("c.csv", f"customer_id,v\n{ACCENT},1\nother,2\n".encode("cp1252")), ("d.txt", f"for {SPLIT}.".encode()), ("e.json", json.dumps({"note": f"of {SPLIT}"}).encode()),
        ("f.log", b'{"a": "of Zo\\u00EB-5501"}\n'), ("g.html", b"<a href='/?id=zoe&who=Zo%c3%ab-5501'>"), ("h.csv.bz2", bz2.compress(f"customer_id\n{ACCENT}\n".encode())),
        ("i.jsonl.xz", lzma.compress(json.dumps({"customer_id": ACCENT}).encode())),
    ],
)  # fmt: skip
def test_a_file_in_another_encoding_or_spelling_names_the_customer_no_more(
    name: str, content: bytes, erase: bool
) -> None:
    person = Person.of([ACCENT], b"k", erased=erase)
    made, count = scrub_content(name, content, person)
    assert count >= 1
    assert scrub_content(name, made or b"", person) == (made or b"", 0)
    unpacked = {".bz2": bz2.decompress, ".xz": lzma.decompress}.get(Path(name).suffix, bytes)(made or b"")
    texts = [unpacked.decode(encoding, "ignore") for encoding in ("utf-8", "cp1252", "utf-16", "utf-16-le")]
    assert not any("5501" in text for text in texts)
    assert "other" in made.decode("utf-16" if name == "a.csv" else "cp1252") if name in ("a.csv", "c.csv") else True


COLUMNS = {
    "a float": pa.array([550100.0, 7.0]), "a decimal": pa.array([Decimal(550100), Decimal(7)], pa.decimal128(18, 0)), "a short integer": pa.array([550100, 7], pa.int64()),
    "a list": pa.array([["550100"], ["7"]]), "a record": pa.array([{"customer_id": "550100", "v": 1}, {"customer_id": "7", "v": 2}]),
    "records": pa.array([[{"customer_id": "550100"}, {"customer_id": "8"}], [{"customer_id": "7"}]]),
}  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("erase", [True, False])
def test_a_parquet_file_names_the_customer_no_more_whatever_its_types_are(column: str, erase: bool) -> None:
    table = pa.table({"customer_id": COLUMNS[column], "n": [550100, 2]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    made, count = scrub_content("out.parquet", sink.getvalue().to_pybytes(), Person.of(["550100"], b"k", erased=erase))
    after = pq.read_table(pa.BufferReader(made))
    assert count == 1 and after.schema.types == table.schema.types
    assert not any("550100" in str(value) for value in after["customer_id"].to_pylist())
    assert table["customer_id"].to_pylist()[1] in after["customer_id"].to_pylist()
    assert after["n"].to_pylist() in ([2], [550100, 2])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.bin", b"\x00\x00" + WHO.encode("utf-16-le")), ("b.bin", b"\x00\x00\x00" + WHO.encode("utf-16-le")), ("c.csv.zst", b"\x28\xb5\x2f\xfd\x00"), ("d.feather", b"ARROW1\0\0"),
        ("e.csv.gz", b"\x1f\x8b damaged"), ("f.7z", b"7z\xbc\xaf\x27\x1c"), ("g.duckdb", b"12345678DUCK\0"), ("h.csv", gzip.compress(WHO.encode(), mtime=0)),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_searched_or_changed_is_listed(settings: Settings, name: str, content: bytes) -> None:
    (settings.store / "runs" / "r").mkdir(parents=True)
    (settings.store / "runs" / "r" / name).write_bytes(content)
    assert any(name in line and "not changed" in line for line in forget(WHO, settings).not_reached)


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (SPLIT, ACCENT),
        (ACCENT, SPLIT),
        ("ZOË@x.de", "zoë@x.de"),
        ("ёж", "ёж"),
        ('Z"ë"o', 'Z"ë"o'),
        ("100%_ë", "100%_ë"),
    ],
)
@pytest.mark.parametrize("erase", [True, False])
def test_a_ledger_is_searched_in_all_spellings(settings: Settings, stored: str, asked: str, erase: bool) -> None:
    ledger = Ledger.of(settings)
    with ledger.write() as connection:
        rows = [prediction("p1", stored), prediction("p2", f"x{stored}"), prediction("p3", "100x_ë")]
        connection.execute(insert(predictions), [row | {"reasons": None} for row in rows])
    ledger.close()
    forget(asked, settings, erase=erase, yes=True)
    ledger = Ledger.of(settings)
    with ledger.read() as connection:
        keys = {row.id: (row.key, row.inputs["customer_id"]) for row in connection.execute(select(predictions))}
    ledger.close()
    assert "p1" not in keys if erase else stored not in keys["p1"]
    assert keys["p2"] == (f"x{stored}",) * 2 and keys["p3"] == ("100x_ë",) * 2


def test_a_customer_spelled_otherwise_is_not_ingested_again(settings: Settings) -> None:
    frames = shop()
    frames["orders"] = frames["orders"].assign(customer_id=frames["orders"]["customer_id"].replace(WHO, ACCENT))
    frames["customers"] = frames["customers"].assign(
        customer_id=frames["customers"]["customer_id"].replace(WHO, ACCENT)
    )
    write_dataset(settings.store, "shop", frames, "simulated", layout="canonical", created_at=NOW)
    forget(SPLIT, settings, erase=True, yes=True)
    again = {name: frame.replace({ACCENT: SPLIT}) for name, frame in frames.items()}
    write_dataset(settings.store, "shop", again, "simulated", layout="canonical", created_at=NOW)
    assert not any("5501" in str(value) for value in Tables.open(settings.store, "shop")["orders"]["customer_id"])
