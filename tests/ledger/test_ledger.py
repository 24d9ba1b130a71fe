import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from d2c_mlops.errors import Temporary, UsageError
from d2c_mlops.ledger import store
from d2c_mlops.ledger.migrate import alembic_config
from d2c_mlops.ledger.schema import metadata
from d2c_mlops.ledger.store import Ledger


def test_migrations_make_the_tables_that_the_schema_says(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    with ledger.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_newest_migration_is_the_one_that_is_looked_for() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == store.HEAD


def test_an_up_to_date_ledger_is_opened_without_alembic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger(url).close()
    monkeypatch.setitem(__import__("sys").modules, "d2c_mlops.ledger.migrate", None)
    Ledger(url).close()


def test_a_locked_ledger_is_temporary_and_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = Ledger(url, lock_wait=0.2)
    other = sqlite3.connect(tmp_path / "ledger.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Temporary, match=r"locked for 0\.2 s") as caught, ledger.write() as connection:
        connection.exec_driver_sql("DELETE FROM runs")
    assert caught.value.exit_code == 75
    other.close()


def test_a_file_that_is_no_ledger_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    file.write_text("these are my notes, not a database" * 100)
    with pytest.raises(UsageError, match="not a ledger"):
        Ledger(f"sqlite:///{file}")
    assert file.read_text().startswith("these are my notes")


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(Temporary) as caught:
        Ledger("postgresql+psycopg://me:geheim@127.0.0.1:1/db?connect_timeout=1")
    assert "geheim" not in str(caught.value)


def test_the_ledger_lives_on_postgresql(postgres: str) -> None:
    ledger = Ledger(postgres)
    assert {"runs", "versions", "promotions"} <= set(inspect(ledger.engine).get_table_names())
    with ledger.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
