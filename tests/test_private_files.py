"""Files of the store are closed to other users, whatever the umask is and however they were before."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.data.simulate import shop
from d2c_mlops.data.store import write_atomic, write_dataset
from d2c_mlops.file_lock import lock
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.private_files import make_private, private_file, private_folder, tighten_store
from d2c_mlops.serving.batch.webhook_sink import DeliveryLog
from d2c_mlops.serving.http.idempotency import IdempotencyStore
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.settings import Settings
from support.training import train


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_to_others(folder: Path) -> list[str]:
    """Return what others than the owner may read, write or enter."""
    loose = []
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # SQLite removes its log when the last connection is collected
            if mode(path) & 0o077:
                loose.append(f"{path.relative_to(folder)} {mode(path):o}")
    return loose


def test_a_dataset_a_ledger_and_a_lock_are_closed_to_others(umask: int, tmp_path: Path) -> None:
    store = tmp_path / "deep" / "store"
    write_dataset(
        store, "shop", shop(customers=20, days=60), "sample", layout="canonical", created_at=datetime.now(UTC)
    )
    with lock(store / "models", "models", 1.0):
        pass
    settings = Settings(root=tmp_path, store=store)
    with Ledger.of(settings).read():
        assert open_to_others(store) == [] and (store / "ledger.db").exists()
    assert mode(store / "ledger.db") == 0o600 and mode(store) == 0o700


def test_logs_kept_answers_and_the_outbox_are_closed_to_others(umask: int, tmp_path: Path) -> None:
    store = tmp_path / "store"
    book = Logbook(store / "serving" / "demand" / "log")
    assert book.append(b'{"a": 1}')
    kept = IdempotencyStore(store / "serving" / "demand" / "kept.db")
    private_folder(store / "outbox")
    sent = DeliveryLog(store / "outbox" / "a.db", "demand")
    assert open_to_others(store) == []
    for each in (book, kept, sent):
        each.close()
    assert open_to_others(store) == [] and len(list((store / "serving").rglob("*.jsonl"))) == 1


def test_what_training_leaves_is_closed_to_others(settings: Settings) -> None:
    before = os.umask(0)
    try:
        train(settings)
    finally:
        os.umask(before)
    tighten_store(settings.store, settings.root)
    assert mode(settings.store / "mlflow.db") == 0o600
    loose = [each for each in open_to_others(settings.store) if "mlartifacts" in each and "/artifacts" in each]
    assert loose == []


def test_an_older_store_is_closed_by_the_next_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.ini").write_text("[d2c]\nstore = kept\n")
    old = tmp_path / "kept" / "datasets" / "shop"
    old.mkdir(parents=True)
    (old / "manifest.json").write_text("{}")
    script = tmp_path / "run.sh"
    script.write_text("true")
    script.chmod(0o755)
    (old / "link").symlink_to(script)
    for path in (old, old.parent, old.parent.parent):
        path.chmod(0o777)
    (old / "manifest.json").chmod(0o666)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["runs"]).exit_code == 0
    assert open_to_others(tmp_path / "kept") == [f"datasets/shop/link {0o755:o}"]
    assert mode(script) == 0o755 and mode(old / "manifest.json") == 0o600


def test_a_store_that_a_group_shares_stays_the_groups(umask: int, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(0o2777)
    write_dataset(
        store, "shop", shop(customers=20, days=60), "sample", layout="canonical", created_at=datetime.now(UTC)
    )
    private_file(store / "ledger.db")
    tighten_store(store, tmp_path)
    assert mode(store) == 0o2770 and mode(store / "ledger.db") == 0o660
    assert {mode(path) for path in store.rglob("*") if path.is_dir()} == {0o2770}
    assert {mode(path) for path in store.rglob("*.parquet")} == {0o660}


def test_a_store_that_holds_the_project_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "notebook.ipynb").write_text("{}")
    (tmp_path / "notebook.ipynb").chmod(0o644)
    for project in (tmp_path, tmp_path / "project"):
        tighten_store(tmp_path, project)
        assert mode(tmp_path) == 0o755 and mode(tmp_path / "notebook.ipynb") == 0o644


def test_files_for_others_stay_open_to_them(umask: int, tmp_path: Path) -> None:
    write_atomic(tmp_path / "compose.yaml", b"services: {}")
    write_atomic(tmp_path / "a" / "secret.json", b"{}", private=True)
    assert mode(tmp_path / "compose.yaml") == 0o666 & ~umask
    assert mode(tmp_path / "a" / "secret.json") == 0o600 and mode(tmp_path / "a") == 0o700
    assert json.loads((tmp_path / "a" / "secret.json").read_text()) == {}


def test_closing_follows_no_links(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside):
        folder.mkdir()
        folder.chmod(0o755)
    (outside / "a").write_text("a")
    (outside / "a").chmod(0o644)
    (inside / "folder").symlink_to(outside)
    (inside / "file").symlink_to(outside / "a")
    (inside / "gone").symlink_to(tmp_path / "nothing")
    make_private(inside)
    assert (mode(inside), mode(outside), mode(outside / "a")) == (0o700, 0o755, 0o644)
