"""The store: the same content changes nothing, and whatever happens to a writer, readers see a whole dataset."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.data import simulate, store
from d2c_mlops.data.manifest import Manifest, list_datasets, read_manifest
from d2c_mlops.data.schemas import KEYS
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, Temporary, UsageError

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def put(root: Path, shop: Tables | dict[str, pd.DataFrame], name: str = "shop") -> tuple[Manifest, bool]:
    return store.write_dataset(root, name, shop, "simulated", layout="canonical", created_at=NOW, timeout=0.2)


def state(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, size and time of change of every file and folder."""
    return {
        str(p.relative_to(root)): (p.stat().st_ino, p.stat().st_size, p.stat().st_mtime_ns) for p in root.rglob("*")
    }


@pytest.fixture(scope="module")
def shop() -> Tables:
    return simulate.shop(customers=60, days=150)


def corrected(shop: Tables, month: int) -> dict[str, pd.DataFrame]:
    lines = shop["order_lines"]
    return {
        **shop,
        "order_lines": lines.assign(discount=lines["discount"].mask(lines["ordered_at"].dt.month == month, 0.01)),
    }


def test_what_comes_back_is_what_went_in(tmp_path: Path, shop: Tables) -> None:
    manifest, changed = put(tmp_path, shop)
    assert changed
    read = Tables.open(tmp_path, "shop")
    assert set(read) == set(shop)
    for name, frame in shop.items():
        left, right = (f.sort_values(KEYS[name], ignore_index=True) for f in (frame, read[name]))
        pd.testing.assert_frame_equal(left, right)
        assert manifest.tables[name].rows == len(frame)
        assert sum(part.rows for part in manifest.tables[name].parts) == len(frame)
    assert read_manifest(tmp_path, "shop") == manifest
    assert list_datasets(tmp_path) == ["shop"]
    assert manifest.tables["orders"].min_date == shop["orders"]["ordered_at"].min().date()
    assert manifest.tables["products"].min_date is None


def test_the_same_content_in_any_order_changes_nothing_on_disk(tmp_path: Path, shop: Tables) -> None:
    first, _ = put(tmp_path, shop)
    before = state(tmp_path)
    mixed = {name: frame.sample(frac=1, random_state=2) for name, frame in shop.items()}
    again, changed = store.write_dataset(
        tmp_path, "shop", mixed, "elsewhere", layout="shopify", created_at=datetime(2025, 1, 1, tzinfo=UTC)
    )
    assert not changed
    assert again == first
    assert state(tmp_path) == before


def test_only_the_month_that_changed_is_written(tmp_path: Path, shop: Tables) -> None:
    put(tmp_path, shop)
    before = state(tmp_path)
    manifest, changed = put(tmp_path, corrected(shop, 3))
    after = state(tmp_path)
    assert changed
    new = [p for p in after if p not in before and p.endswith(".parquet")]
    assert len(new) == 1
    assert "order_lines/month=2023-03" in new[0]
    assert all(after[p] == before[p] for p in before if p.endswith(".parquet"))
    assert len(Tables.open(tmp_path, "shop").manifest.tables) == len(manifest.tables)  # type: ignore[union-attr]


def test_a_former_digest_opens_former_rows_and_returning_to_it_is_a_change(tmp_path: Path, shop: Tables) -> None:
    first, _ = put(tmp_path, shop)
    second, _ = put(tmp_path, corrected(shop, 2))
    assert first.digest != second.digest
    old = Tables.open(tmp_path, "shop", first.digest[:12])
    assert old["order_lines"]["discount"].sum() == pytest.approx(shop["order_lines"]["discount"].sum())
    third, changed = put(tmp_path, shop)
    assert changed
    assert third.digest == first.digest
    assert read_manifest(tmp_path, "shop").digest == first.digest


def test_one_cell_more_or_less_changes_the_digest(tmp_path: Path, shop: Tables) -> None:
    lines = shop["order_lines"]
    digests = {put(tmp_path / "a", shop)[0].digest}
    for column, value in (("store_id", ""), ("store_id", "x"), ("unit_price", 1.0), ("cancelled", True)):
        changed = lines.copy()
        changed.loc[changed.index[0], column] = value
        digests.add(put(tmp_path / column / str(value), {**shop, "order_lines": changed})[0].digest)
    assert len(digests) == 5


@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_the_digest_does_not_depend_on_the_order_of_rows(
    tmp_path_factory: pytest.TempPathFactory, random: object, seed: int
) -> None:
    shop = simulate.shop(seed=seed, customers=8, days=70, products=4)
    root = tmp_path_factory.mktemp("store")
    first, _ = put(root, shop)
    mixed = {n: f.sample(frac=1, random_state=random.randint(0, 99)) for n, f in shop.items()}  # type: ignore[attr-defined]
    assert put(root, mixed) == (first, False)


def test_before_reads_only_the_months_needed(tmp_path: Path, shop: Tables) -> None:
    manifest, _ = put(tmp_path, shop)
    for part in manifest.tables["order_lines"].parts:
        if part.month is not None and part.month > "2023-02":
            (tmp_path / "data" / "shop" / part.path).unlink()
    as_of = date(2023, 2, 28)
    known, expected = Tables.open(tmp_path, "shop").before(as_of), shop.before(as_of)["order_lines"]
    assert len(known["order_lines"]) == len(expected)
    by_sql = known.sql("SELECT sum(returned_quantity) AS back FROM order_lines")["back"].item()
    assert by_sql == expected["returned_quantity"].sum()
    with pytest.raises(DataRefused, match="cannot be read"):
        Tables.open(tmp_path, "shop")["order_lines"]


@pytest.mark.parametrize("as_of", [date(2022, 12, 31), date(2023, 1, 1), date(2023, 3, 31), date(2024, 1, 1)])
def test_before_on_disk_in_sql_and_in_memory_agree(tmp_path: Path, shop: Tables, as_of: date) -> None:
    put(tmp_path, shop)
    known, expected = Tables.open(tmp_path, "shop").before(as_of), shop.before(as_of)
    for name, frame in expected.items():
        for got in (known[name], known.sql(f"SELECT * FROM {name}")):
            left, right = (f.sort_values(KEYS[name], ignore_index=True) for f in (got, frame))
            pd.testing.assert_frame_equal(left, right)


@pytest.mark.parametrize("name", ["../out", "Shop", "a/b", "", ".hidden", "shop\n", "-x"])
def test_names_that_could_leave_the_store_are_refused(tmp_path: Path, shop: Tables, name: str) -> None:
    with pytest.raises(UsageError, match="no name for a dataset"):
        put(tmp_path / "store", shop, name)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("digest", ["zzzzzz", "../../x", "abc", "0" * 64])
def test_an_unknown_digest_names_those_known(tmp_path: Path, shop: Tables, digest: str) -> None:
    manifest, _ = put(tmp_path, shop)
    with pytest.raises(UsageError, match=manifest.digest[:12]):
        Tables.open(tmp_path, "shop", digest)


def test_an_unknown_dataset_names_those_known(tmp_path: Path, shop: Tables) -> None:
    put(tmp_path, shop)
    with pytest.raises(UsageError, match="known: shop"):
        Tables.open(tmp_path, "shap")


def test_a_time_of_creation_without_zone_is_refused(tmp_path: Path, shop: Tables) -> None:
    with pytest.raises(UsageError, match="time zone"):
        store.write_dataset(tmp_path, "shop", shop, "s", layout="l", created_at=datetime(2024, 1, 1))


def test_frames_that_are_not_in_schema_order_are_refused(tmp_path: Path, shop: Tables) -> None:
    with pytest.raises(DataRefused, match="not those of the schema"):
        put(tmp_path, {"orders": shop["orders"].iloc[:, ::-1]})
    assert list_datasets(tmp_path) == []


def test_a_broken_manifest_is_named(tmp_path: Path, shop: Tables) -> None:
    put(tmp_path, shop)
    (tmp_path / "data" / "shop" / "manifest.json").write_text("{")
    with pytest.raises(DataRefused, match=r"manifest\.json"):
        read_manifest(tmp_path, "shop")


def test_a_manifest_survives_json(tmp_path: Path, shop: Tables) -> None:
    manifest = replace(put(tmp_path, shop)[0], notes=("1 line dropped",))
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_second_writer_waits_and_is_told(tmp_path: Path, shop: Tables) -> None:
    put(tmp_path, shop)
    with (tmp_path / "data" / "shop" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = time.monotonic()
        with pytest.raises(Temporary, match="another process"):
            put(tmp_path, corrected(shop, 2))
        assert time.monotonic() - start >= 0.2
        assert len(Tables.open(tmp_path, "shop")["orders"]) == len(shop["orders"])
    assert put(tmp_path, corrected(shop, 2))[1]


def test_writers_in_parallel_leave_one_whole_dataset(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from datetime import UTC, datetime
        from pathlib import Path
        from d2c_mlops.data import simulate, store
        shop = simulate.shop(seed=int(sys.argv[2]), customers=30, days=90)
        now = datetime(2024, 1, 1, tzinfo=UTC)
        store.write_dataset(Path(sys.argv[1]), "shop", shop, "s", layout="l", created_at=now, timeout=60)
    """)
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(seed)]) for seed in (1, 2)]
    assert [process.wait(120) for process in running] == [0, 0]
    read = Tables.open(tmp_path, "shop")
    sizes = {len(simulate.shop(seed=seed, customers=30, days=90)["orders"]) for seed in (1, 2)}
    assert len(read["orders"]) in sizes
    assert not list(tmp_path.rglob(".tmp-*"))


KILLED = textwrap.dedent("""
    import os, signal, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from d2c_mlops.data import simulate, store
    moment, calls, rename = int(sys.argv[2]), 0, os.replace
    def dying(source, target):
        global calls
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)
    os.replace = dying
    shop = simulate.shop(seed=9, customers=40, days=150)
    store.write_dataset(Path(sys.argv[1]), "shop", shop, "s", layout="l", created_at=datetime(2024, 1, 1, tzinfo=UTC))
    print(calls)
""")


@pytest.mark.parametrize("moment", [1, 5, -2, -1])
def test_a_killed_writer_leaves_the_former_dataset_and_the_next_one_cleans_up(
    tmp_path: Path, shop: Tables, moment: int
) -> None:
    former, _ = put(tmp_path, shop)
    if moment < 0:
        shutil.copytree(tmp_path / "data", tmp_path / "spare" / "data")
        spare = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path / "spare"), "0"],
            capture_output=True,
            text=True,
            check=True,
        )
        moment = int(spare.stdout) + 1 + moment
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(moment)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.joinpath("data").rglob(".tmp-*"))
    assert read_manifest(tmp_path, "shop") == former
    assert len(Tables.open(tmp_path, "shop")["order_lines"]) == len(shop["order_lines"])
    assert put(tmp_path, shop) == (former, False)
    assert not list(tmp_path.joinpath("data").rglob(".tmp-*"))
    known = {
        p.path
        for path in (tmp_path / "data/shop/manifests").iterdir()
        for t in Manifest.from_json(path.read_text()).tables.values()
        for p in t.parts
    }
    there = {str(p.relative_to(tmp_path / "data/shop")) for p in (tmp_path / "data").rglob("*.parquet")}
    assert there == known


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_temporary_and_leaves_the_former_dataset(small_disk: Path, shop: Tables) -> None:
    former, _ = put(small_disk, shop)
    big = simulate.shop(seed=5, customers=3000, days=150)
    with pytest.raises(Temporary, match="the disk is full") as refused:
        put(small_disk, big)
    assert "free some space" in refused.value.next
    assert not list(small_disk.rglob(".tmp-*"))
    assert read_manifest(small_disk, "shop") == former
    assert len(Tables.open(small_disk, "shop")["orders"]) == len(shop["orders"])
    assert put(small_disk, shop) == (former, False)
    assert put(small_disk, corrected(shop, 3))[1]


def test_errors_of_the_file_system_other_than_a_full_disk_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="read-only"):
        put(tmp_path, simulate.shop(customers=5, days=20))
    assert not list(tmp_path.rglob(".tmp-*"))
