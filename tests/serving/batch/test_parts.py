"""A folder of Parquet files is answered file by file as one table is, and published as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.data.sources.files import files_below
from d2c_mlops.errors import DataRefused, Temporary, UsageError
from d2c_mlops.file_lock import lock
from d2c_mlops.registry.versions import Version
from d2c_mlops.serving.batch import parquet_folder
from d2c_mlops.serving.batch.parquet_folder import is_parts_sink, score_parts
from d2c_mlops.serving.batch.score import score
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.serving.rollout.state_file import Rollout
from d2c_mlops.settings import Settings
from support.batches import asked
from support.training import train


@pytest.fixture
def version(settings: Settings) -> Version:
    registered = train(settings)
    promote("mean_units", settings)
    return registered


def folder_of(place: Path, sizes: dict[str, int]) -> Path:
    """Return a folder of files with so many records each."""
    for name, count in sizes.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        asked((place / name).parent, count, (place / name).name)
    return place


def predictions(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(folder / name) for name in files_below(folder)], ignore_index=True)


SIZES = {"part-0.parquet": 30, "deep/part-1.parquet": 7, "part-2.parquet": 50}


@pytest.mark.parametrize("backend", ["sequential", "threading:2"])
def test_the_files_of_a_folder_are_answered_as_one_table(settings, version, tmp_path, backend):
    source = folder_of(tmp_path / "ask", SIZES)
    result = score_parts(version, str(source), f"{tmp_path}/out/", replace(settings, backend=backend))
    assert list(files_below(tmp_path / "out")) == list(files_below(source))
    whole = predictions(source)
    whole.to_parquet(tmp_path / "whole.parquet")
    score(version, str(tmp_path / "whole.parquet"), str(tmp_path / "whole-out.parquet"), settings)
    pd.testing.assert_frame_equal(predictions(tmp_path / "out"), pd.read_parquet(tmp_path / "whole-out.parquet"))
    assert (result.records, result.written.inserted) == (87, 87)
    assert result.columns == tuple(predictions(tmp_path / "out").columns)
    assert not list(tmp_path.glob(".out*"))


def test_the_same_folder_again_changes_nothing_and_a_changed_one_replaces_all(settings, version, tmp_path):
    source, sink = folder_of(tmp_path / "ask", SIZES), f"{tmp_path}/out/"
    score_parts(version, str(source), sink, settings)
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files_below(tmp_path / "out")}
    again = score_parts(version, str(source), sink, settings)
    assert (again.written.unchanged, again.written.inserted) == (87, 0)
    assert before == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before}
    (source / "part-2.parquet").unlink()
    assert score_parts(version, str(source), sink, settings).written.inserted == 37
    assert list(files_below(tmp_path / "out")) == ["part-0.parquet", "deep/part-1.parquet"]


def test_one_bad_record_leaves_the_former_predictions_and_names_its_file(settings, version, tmp_path):
    source, sink = folder_of(tmp_path / "ask", SIZES), f"{tmp_path}/out/"
    score_parts(version, str(source), sink, settings)
    before = predictions(tmp_path / "out")
    for name in ("part-0.parquet", "part-2.parquet"):
        bad = pd.read_parquet(source / name).astype({"day": "object"})
        bad.loc[3, "day"] = "soon"
        bad.astype({"day": "str"}).to_parquet(source / name)
    with pytest.raises(DataRefused) as caught:
        score_parts(version, str(source), sink, settings)
    assert all(any(name in str(f) for f in caught.value.failures) for name in ("part-0.parquet", "part-2.parquet"))
    pd.testing.assert_frame_equal(predictions(tmp_path / "out"), before)
    assert not list(tmp_path.glob(".out*"))


def test_after_an_interruption_only_unfinished_files_are_predicted(settings, version, tmp_path, monkeypatch):
    source, sink = folder_of(tmp_path / "ask", SIZES), f"{tmp_path}/out/"
    predict, calls = parquet_folder.predict_chunk, []

    def stop_at_the_last(model, rows, *others):
        calls.append(len(rows))
        if len(rows) == 7:
            raise KeyboardInterrupt
        return predict(model, rows, *others)

    monkeypatch.setattr(parquet_folder, "predict_chunk", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        score_parts(version, str(source), sink, settings)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(parquet_folder, "predict_chunk", lambda *a: calls.append(len(a[1])) or predict(*a))
    calls.clear()
    done = sum(1 for path in (tmp_path / ".out.draft" / "parts").rglob("*.parquet"))
    result = score_parts(version, str(source), sink, settings)
    assert calls == [7] and done == 2 and result.records == 87
    assert result.notes == ("2 of 3 files were finished by an earlier attempt",)


@pytest.mark.slow
def test_files_of_an_attempt_with_other_records_are_not_used(settings, version, tmp_path, monkeypatch):
    source, sink = folder_of(tmp_path / "ask", SIZES), f"{tmp_path}/out/"
    monkeypatch.setattr(parquet_folder, "_publish_target", lambda *a: (_ for _ in ()).throw(Temporary("disk full")))
    with pytest.raises(Temporary):
        score_parts(version, str(source), sink, settings)
    monkeypatch.undo()
    asked(source, 31, "part-0.parquet")
    result = score_parts(version, str(source), sink, settings)
    assert result.notes == () and len(predictions(tmp_path / "out")) == 88


@pytest.mark.slow
def test_a_kill_between_the_two_renames_loses_neither_folder(settings, version, tmp_path, monkeypatch):
    source, sink = folder_of(tmp_path / "ask", SIZES), f"{tmp_path}/out/"
    score_parts(version, str(source), sink, settings)
    before = predictions(tmp_path / "out")
    draft = tmp_path / ".out.draft"
    draft.mkdir()
    (draft / "batch").write_text("of another batch")
    (tmp_path / "out").rename(draft / "former")
    asked(source, 3, "part-9.parquet")
    monkeypatch.setattr(parquet_folder, "_publish_target", lambda *a: (_ for _ in ()).throw(Temporary("disk full")))
    with pytest.raises(Temporary):
        score_parts(version, str(source), sink, settings)
    pd.testing.assert_frame_equal(predictions(tmp_path / "out"), before)


@pytest.mark.slow
def test_an_empty_file_is_left_out_with_a_note(settings, version, tmp_path):
    source = folder_of(tmp_path / "ask", SIZES | {"none.parquet": 0})
    result = score_parts(version, str(source), f"{tmp_path}/out/", settings)
    assert result.records == 87 and not (tmp_path / "out" / "none.parquet").exists()
    assert result.notes == ("1 files have no records and are left out: none.parquet",)


@pytest.mark.slow
def test_two_commands_for_one_folder_do_not_mix(settings, version, tmp_path):
    source, target = folder_of(tmp_path / "ask", SIZES), (tmp_path / "out").resolve()
    place = parquet_folder.lock_folder(target, settings)
    with lock(place, "this folder", 1), pytest.raises(Temporary):
        score_parts(version, str(source), f"{target}/", replace(settings, lock_wait=0.05))


@pytest.mark.slow
def test_a_challenger_answers_its_keys_in_a_folder_too(settings, version, tmp_path):
    challenger = train(settings, scale=2.0)
    source = folder_of(tmp_path / "ask", SIZES)
    rollout = Rollout("mean_units", version.version, challenger.version, "share", 0.5, "2")
    assert callable(rollout.chooses)  # what it caches cannot be sent to a worker
    both = (rollout, challenger)
    result = score_parts(version, str(source), f"{tmp_path}/out/", settings, rollout_and_challenger=both)
    answers = predictions(tmp_path / "out")
    assert result.challenged == (answers["variant"] == "challenger").sum() == (answers["version"] == 2).sum()
    assert 0 < result.challenged < 87 and (result.challenger, result.failed) == (2, 0)


def _other_file(place: Path) -> Path:
    folder_of(place / "ask", SIZES)
    (place / "ask" / "readme.txt").write_text("text")
    return place / "ask"


def _one_file(place: Path) -> Path:
    return Path(asked(place, 3))


def _nothing(place: Path) -> Path:
    (place / "ask").mkdir()
    return place / "ask"


@pytest.mark.parametrize("make", [_other_file, _one_file, _nothing])
def test_a_source_that_is_no_folder_of_parquet_files_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(UsageError, match=r"folder of Parquet files|not Parquet: readme.txt|no Parquet file"):
        parquet_folder.parquet_files_below(make(tmp_path), tmp_path / "out")


@pytest.mark.parametrize("sink", ["ask", "ask/below", ".", "taken.parquet", "absent/out", "mixed"])
def test_a_sink_that_would_lose_files_is_refused(tmp_path: Path, sink: str) -> None:
    source = folder_of(tmp_path / "ask", SIZES)
    (tmp_path / "taken.parquet").write_bytes(b"data")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError):
        parquet_folder.parquet_files_below(source, (tmp_path / sink).resolve())
    assert parquet_folder.parquet_files_below(source, tmp_path / "out") == [
        "part-0.parquet",
        "part-2.parquet",
        "deep/part-1.parquet",
    ]


def test_the_command_takes_a_folder_as_its_sink(settings, version, tmp_path, monkeypatch):
    monkeypatch.setenv("D2C_BACKEND", "threading:2")
    monkeypatch.setenv("D2C_STORE", str(settings.store))
    monkeypatch.setenv("D2C_ROOT", str(settings.root))
    source = folder_of(tmp_path / "ask", SIZES)
    ended = CliRunner().invoke(main, ["score", "mean_units", str(source), f"{tmp_path}/out/"])
    assert ended.exit_code == 0 and "predicted 87 records: 87 new" in ended.output, ended.output
    assert len(predictions(tmp_path / "out")) == 87


def test_only_a_path_with_a_slash_at_its_end_is_a_folder() -> None:
    assert is_parts_sink("out/") and is_parts_sink("a/b/")
    assert not any(map(is_parts_sink, ("out", "out.parquet", "https://host/hook/", "s3://bucket/out/", "ledger:")))
