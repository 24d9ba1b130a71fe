"""A short part of `make test-fuzz`: random bytes to the readers, and a reader that fails is found."""

import logging
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture
def fuzz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    made = import_module("fuzz")
    monkeypatch.setattr(made, "OUT", tmp_path)
    return made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["http", "rules", "notebooks", "settings"])
def test_a_reader_reads_or_refuses_random_bytes(fuzz: Any, name: str) -> None:
    reader = fuzz.READERS[name]()
    assert [fuzz.failure(reader, data) for data in reader.corpus] == [""] * len(reader.corpus)
    count, wrong = fuzz.fuzz(reader, seed=7, seconds=0.6)
    assert count > 5 and wrong == []


def broken(data: bytes) -> None:
    if data.count(b"a") > 1:
        raise ZeroDivisionError("two of them")


def test_a_reader_that_fails_is_found_and_its_input_is_kept(fuzz: Any, tmp_path: Path) -> None:
    reader = fuzz.Reader("broken", broken, (b"aab",), (b"a",))
    count, wrong = fuzz.fuzz(reader, seed=1, seconds=0.2)
    assert count > 5 and len(wrong) == 1 and wrong[0].startswith("ZeroDivisionError: two of them")
    (kept,) = tmp_path.glob("broken-1-*.bin")
    assert kept.read_bytes().count(b"a") > 1


def test_cases_are_the_same_for_the_same_seed(fuzz: Any) -> None:
    def cases(seed: int) -> list[bytes]:
        draw = fuzz.random.Random(seed)
        return [fuzz.mutated(draw, (b"price > 3", b"a")) for _ in range(50)]

    assert cases(1) == cases(1) != cases(2) and len(set(cases(1))) > 30


@pytest.mark.parametrize(("power", "grows"), [(1, False), (3, True)])
def test_time_that_grows_faster_than_the_bytes_is_found(fuzz: Any, power: int, grows: bool) -> None:
    def read(data: bytes) -> None:
        end = time.process_time() + 0.1 * (len(data) / 400) ** power
        while time.process_time() < end:
            pass

    ((_, times),) = fuzz.grown(fuzz.Reader("slow", read, (b"a",), (b"a",)), length=100)
    assert (times > fuzz.GROWTH) is grows


def test_each_round_is_written_down_and_a_cut_line_is_passed_over(fuzz: Any) -> None:
    try:
        fuzz.work("rules", seed=3, seconds=0.2, first=5)
    finally:
        logging.disable(logging.NOTSET)
    (done,) = fuzz.rounds()
    assert (
        (done.reader, done.seed, done.number, done.wrong) == ("rules", 3, 5, ()) and done.cases > 5 and done.cpu > 0.1
    )
    with fuzz.record().open("a") as file:
        file.write('{"reader": "ru')
    assert fuzz.rounds() == [done]


def test_rounds_on_other_sources_do_not_count(fuzz: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "PACKAGE", tmp_path)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.py").write_text("a = 1\n")
    reader = fuzz.Reader("r", broken, (), (), ("part",))
    before = reader.version()
    assert before == reader.version()
    (tmp_path / "part" / "a.py").write_text("a = 2\n")
    assert reader.version() != before


def test_too_little_time_and_a_dead_process_miss_the_aim(fuzz: Any) -> None:
    done = fuzz.Round("rules", "v", 1, 0, 10, 60.0, ())
    assert [aim.met for aim in fuzz.judged("rules", [done], 1.0, 0)] == [True]
    assert [aim.met for aim in fuzz.judged("rules", [done], 2.0, 0)] == [False]
    assert [aim.met for aim in fuzz.judged("rules", [done], 1.0, -9)] == [False, True]


def test_the_sources_of_every_reader_exist(fuzz: Any) -> None:
    for name in fuzz.READERS:
        sources = fuzz.READERS[name]().sources
        assert sources and all((fuzz.PACKAGE / each).exists() for each in sources)
