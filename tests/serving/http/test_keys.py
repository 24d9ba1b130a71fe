"""A key works as long as was said when it was made, and never longer."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import UsageError
from d2c_mlops.serving.http import api_keys as keys
from d2c_mlops.serving.local.server import check_keys
from d2c_mlops.serving.state_paths import keys_file
from d2c_mlops.settings import Settings

NOW, DAY = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_rotation_never_lengthens_the_old_key(file: Path) -> None:
    short, _ = keys.create_key(file, "crm", ["*"], now=NOW, lifetime=DAY)
    long, _ = keys.create_key(file, "shop", ["*"], now=NOW)
    for key in (short, long):
        keys.rotate_key(file, key.id, now=NOW, grace=7 * DAY)
    assert keys.read_keys(file)[short.id].expires_at == (NOW + DAY).isoformat()
    assert keys.read_keys(file)[long.id].expires_at == (NOW + 7 * DAY).isoformat()
    keys.rotate_key(file, long.id, now=NOW, grace=2 * DAY)
    assert keys.read_keys(file)[long.id].expires_at == (NOW + 2 * DAY).isoformat()


def test_a_key_that_works_no_more_has_no_successor(file: Path) -> None:
    expired, _ = keys.create_key(file, "crm", ["*"], now=NOW - 2 * DAY, lifetime=DAY)
    revoked, _ = keys.create_key(file, "crm", ["*"], now=NOW)
    keys.revoke_key(file, revoked.id, now=NOW)
    before = file.read_bytes()
    for key, state in ((expired, "expired"), (revoked, "revoked")):
        with pytest.raises(UsageError, match=state):
            keys.rotate_key(file, key.id, now=NOW, grace=7 * DAY)
    assert file.read_bytes() == before


def test_a_key_that_is_revoked_twice_ended_the_first_time(file: Path) -> None:
    key, _ = keys.create_key(file, "crm", ["*"], now=NOW)
    keys.revoke_key(file, key.id, now=NOW)
    assert keys.revoke_key(file, key.id, now=NOW + DAY).revoked_at == NOW.isoformat()


def test_a_revocation_outlives_a_rotation_at_the_same_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = keys.create_key(file, "crm", ["*"], now=NOW)
    read, waiting = keys.read_keys, threading.Event()
    revoking = threading.Thread(target=keys.revoke_key, args=(file, key.id), kwargs={"now": NOW})

    def slowly(place: Path) -> dict[str, keys.Key]:
        found = read(place)
        if not waiting.is_set():
            waiting.set()
            revoking.start()
            revoking.join(0.3)  # ends in time only where the rotation does not hold the lock
        return found

    monkeypatch.setattr(keys, "read_keys", slowly)
    keys.rotate_key(file, key.id, now=NOW, grace=DAY)
    revoking.join()
    assert read(file)[key.id].state(NOW) == "revoked"


def test_a_key_that_would_never_work_is_not_made(project: Path) -> None:
    done = CliRunner().invoke(main, ["keys", "create", "crm", "--expires", "0d"])
    assert done.exit_code == 2 and "already be expired" in done.output
    assert CliRunner().invoke(main, ["keys", "list", "--json"]).output.strip() == "[]"


def test_a_damaged_file_lets_nobody_in_at_the_start_and_changes_nothing_later(file: Path) -> None:
    _, token = keys.create_key(file, "crm", ["*"], now=NOW)
    ring = keys.Keyring(file)
    file.write_text("{")
    ring.reload_if_changed()
    assert ring.refusal(token, "leads", NOW)[1] is None
    with pytest.raises(UsageError, match="not an API key file"):
        keys.Keyring(file)


def test_nothing_is_served_from_a_damaged_file_of_keys(settings: Settings) -> None:
    check_keys("mean_units", settings)
    keys_file(settings).parent.mkdir(parents=True, exist_ok=True)
    keys_file(settings).write_text("{")
    with pytest.raises(UsageError, match="not an API key file"):
        check_keys("mean_units", settings)


def test_a_key_for_a_model_that_nobody_knows_is_made_with_a_warning(settings: Settings) -> None:
    done = CliRunner().invoke(main, ["keys", "create", "crm", "--model", "mean_unit"])
    assert done.exit_code == 0 and "no version of a model mean_unit" in done.stderr
    assert "no version" not in CliRunner().invoke(main, ["keys", "create", "crm"]).stderr


def test_a_key_made_later_a_damaged_file_and_one_that_is_gone_let_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "LOOK", 0.0)
    file = tmp_path / "keys.json"
    ring = keys.Keyring(file)
    assert not ring.requires_keys()
    file.write_text("{")
    assert ring.requires_keys()
    file.unlink()
    keys.create_key(file, "crm", ["leads"], now=NOW)
    assert ring.requires_keys() and not ring.damaged
    file.unlink()
    assert ring.requires_keys() and ring.keys
