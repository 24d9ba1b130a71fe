"""Foreign code runs within limits, in a copy, without secrets, and leaves nothing behind."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from d2c_mlops.convert.run.folder_copies import (
    LeftOut,
    Workplace,
    clone_folder,
    copy_folder,
    files_below,
    left_out_summary,
)
from d2c_mlops.convert.run.isolated_run import ChildLimits, Stopped, child_environment, processes_with_mark, run_program
from d2c_mlops.convert.run.isolation import mode_works
from d2c_mlops.convert.run.local_packages import LocalPackage, copy_packages
from d2c_mlops.convert.run.session import Session
from d2c_mlops.errors import DataRefused

ROOM = ChildLimits(120.0, 2 << 30)
HERE = [name for name in ("bubblewrap", "namespaces", "landlock", "none") if name == "none" or mode_works(name)]


def session(folder: Path, limits: ChildLimits = ROOM) -> Session:
    (folder / "here").mkdir(exist_ok=True)
    return Session(folder / "here", folder / "home", limits)


@pytest.fixture(scope="module", params=HERE)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    os.environ["SHOP_TOKEN"] = "geheim"
    try:
        with session(tmp_path_factory.mktemp("shell"), replace(ROOM, isolation=request.param)) as made:
            yield made
    finally:
        del os.environ["SHOP_TOKEN"]


def shown(held: Session, source: str) -> str:
    done = held.run(1, source)
    assert done.error is None, done.error
    return "".join(one.get("text", "") or one.get("data", {}).get("text/plain", "") for one in done.outputs)


def test_names_live_from_cell_to_cell_and_results_are_shown(shell: Session) -> None:
    assert shown(shell, "x = 20") == "" and shown(shell, "x + 1") == "21"
    assert shown(shell, "print('a'); x") == "a\n20"
    assert shell.kinds(["x", "nothing", "str"]) == {"x": "builtins.int", "nothing": "", "str": "class:builtins.str"}


def test_the_environment_holds_no_secret_and_no_home_of_ours(shell: Session) -> None:
    assert os.environ["SHOP_TOKEN"] == "geheim"
    assert "geheim" not in shown(
        shell, "import os\nprint(dict(os.environ))\n!env\n!cat /proc/self/environ | tr '\\0' ' '"
    )
    assert shown(shell, "import pathlib\nprint(pathlib.Path.home() == pathlib.Path(os.environ['HOME']))") == "True\n"
    assert str(Path.home()) != shown(shell, "print(pathlib.Path.home())").strip()


def test_only_what_is_named_goes_into_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "MLFLOW_TRACKING_URI", "SSH_AUTH_SOCK", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "geheim")
    assert "geheim" not in str(child_environment(tmp_path))


def test_an_error_comes_with_its_place_and_the_kinds_around_it(shell: Session) -> None:
    error = shell.run(7, "word = 'a'\ndef f(t):\n    return t.nothing\nf(word)").error
    assert error is not None and (error["kind"], error["name"], error["holder"]) == (
        "AttributeError",
        "nothing",
        "builtins.str",
    )
    assert [(frame["cell"], frame["line"]) for frame in error["frames"]] == [(7, 4), (7, 3)]
    assert error["kinds"]["t"] == "builtins.str"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("input('your name?')", "EOFError"),
        ("import getpass; getpass.getpass()", "EOFError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("1 +", "SyntaxError"),
        ("class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd", "ValueError"),
    ],
)
def test_what_a_cell_raises_is_an_answer(source: str, kind: str, shell: Session) -> None:
    error = shell.run(1, source).error
    assert error is not None and error["kind"] == kind
    assert shown(shell, "print(1)") == "1\n"


def test_a_flood_of_output_is_cut(shell: Session) -> None:
    text = shown(shell, "for i in range(300_000): print('all work and no play')")
    assert len(text) < 1_100_000 and text.endswith("... (cut)\n")


def test_closed_streams_and_odd_texts_do_no_harm(shell: Session) -> None:
    assert shown(shell, "import sys\nprint('\\ud800 é')\nsys.stderr.write('w')").endswith("w1")
    assert shell.run(1, "sys.stdout.buffer").error is not None
    assert shown(shell, "print('still here')") == "still here\n"


@pytest.mark.parametrize(
    ("source", "says"), [("import os; os._exit(3)", "exit code 3"), ("import os; os.kill(os.getpid(), 9)", "SIGKILL")]
)
def test_a_process_that_ends_itself_is_told(source: str, says: str, tmp_path: Path) -> None:
    with session(tmp_path) as held, pytest.raises(Stopped) as stopped:
        held.run(1, source)
    assert says in str(stopped.value)


@pytest.mark.slow
def test_an_endless_cell_is_stopped_with_all_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    with session(tmp_path, ChildLimits(4.0, 2 << 30)) as held:
        token = held.token
        with pytest.raises(Stopped) as stopped:
            held.run(1, "import subprocess, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                        "p = subprocess.Popen(['sleep', '1000'], start_new_session=True)\nwhile True: pass")  # fmt: skip
    assert stopped.value.ended.status == "timeout" and "time limit" in str(stopped.value)
    assert time.monotonic() - began < 30
    assert not processes_with_mark(token)


@pytest.mark.parametrize(
    "source",
    [
        "import time\nheld = []\nwhile True: held.append(b'x' * (20 << 20)); time.sleep(0.02)",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import time; x = b\"x\" * (700 << 20); time.sleep(60)'])",
    ],
    ids=["its own", "of what it started"],
)
def test_memory_is_limited(source: str, tmp_path: Path) -> None:
    with session(tmp_path, ChildLimits(60.0, 600 << 20)) as held, pytest.raises(Stopped) as stopped:
        held.run(1, source)
    assert stopped.value.ended.status == "memory" and "memory" in str(stopped.value)


def test_what_was_started_ends_with_the_session(tmp_path: Path) -> None:
    with session(tmp_path) as held:
        token = held.token
        held.run(
            1,
            "import subprocess\np = subprocess.Popen(['setsid', 'sleep', '1000'])\n!nohup sleep 1000 >/dev/null 2>&1 &",
        )
        assert len(processes_with_mark(token)) > 1
    assert not processes_with_mark(token)


def test_a_program_runs_to_its_end_or_its_limit(tmp_path: Path) -> None:
    done = run_program(["sh", "-c", "echo said; exit 4"], tmp_path, tmp_path / "home", ROOM)
    assert (done.status, done.returncode, done.output) == ("failed", 4, "said\n")
    assert run_program(["sleep", "60"], tmp_path, tmp_path / "home", ChildLimits(1.0)).status == "timeout"


def test_a_copy_takes_files_and_leaves_links_out_and_notebooks_behind(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("geheim")
    shop = tmp_path / "shop"
    (shop / "deep").mkdir(parents=True)
    for name in ("a.csv", "deep/b.csv", ".env", "x.ipynb"):
        (shop / name).write_text(name)
    (shop / "out.txt").symlink_to(tmp_path / "secret.txt")
    (shop / "round").symlink_to(shop)
    (shop / "large.bin").write_bytes(b"0" * 2000)
    left_out = copy_folder(shop, tmp_path / "copy", max_file_bytes=1000)
    found = sorted(str(one.relative_to(tmp_path / "copy")) for one in files_below(tmp_path / "copy"))
    assert found == ["a.csv", "deep/b.csv"]
    assert {omitted.path.name: omitted.why for omitted in left_out} == {
        "large.bin": "too large (0 MB)",
        "out.txt": "a link to a place outside the folder",
        "round": "a link to a folder",
    }


def test_files_beyond_the_limit_are_reported_where_the_listing_stops(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.csv").touch()
    left_out: list[LeftOut] = []
    assert len(list(files_below(tmp_path, max_files=7, left_out=left_out))) == 7 and left_out == []
    names = [file.name for file in files_below(tmp_path, max_files=5, left_out=left_out)]
    assert names == ["0.csv", "1.csv", "2.csv", "3.csv", "4.csv"]
    assert left_out == [LeftOut(tmp_path / "5.csv", "this file and all after it: the limit is 5 files")]


def test_folders_below_the_deepest_level_are_reported(tmp_path: Path) -> None:
    deep = tmp_path / "shop" / "a/b/c/d/e"
    (deep / "f").mkdir(parents=True)
    (deep / "near.csv").touch()
    (deep / "f" / "far.csv").touch()
    left_out = copy_folder(tmp_path / "shop", tmp_path / "copy")
    assert (tmp_path / "copy/a/b/c/d/e/near.csv").exists() and not (tmp_path / "copy/a/b/c/d/e/f").exists()
    assert left_out_summary(left_out, tmp_path / "shop") == "a/b/c/d/e/f: deeper than 6 folders"


def test_what_is_no_regular_file_is_reported_and_a_summary_names_five(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    os.mkfifo(tmp_path / "shop" / "pipe")
    for number in range(6):
        (tmp_path / "shop" / f"{number}").symlink_to(tmp_path / "nowhere")
    left_out = copy_folder(tmp_path / "shop", tmp_path / "copy")
    assert LeftOut(tmp_path / "shop" / "pipe", "not a regular file") in left_out and len(left_out) == 7
    text = left_out_summary(left_out, tmp_path / "shop")
    assert text.startswith("0: a link to a place outside the folder; 1: ") and text.endswith("; and 2 more")


def test_a_run_gets_every_file_of_the_copy_however_many_and_deep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(files_below.__kwdefaults__, "most", 1)
    copy = tmp_path / "copy"
    (copy / "a/b/c/d/e/f/g").mkdir(parents=True)
    for name in ("1.csv", "2.csv", "a/b/c/d/e/f/g/3.csv"):
        (copy / name).write_text(name)
    clone_folder(copy, tmp_path / "run")
    copies = sorted(file.relative_to(tmp_path / "run").as_posix() for file in (tmp_path / "run").rglob("*.csv"))
    assert copies == ["1.csv", "2.csv", "a/b/c/d/e/f/g/3.csv"]


def test_a_local_package_is_copied_at_any_depth_or_refused_with_the_files_left_out(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    deep = package / "a/b/c/d/e/f/g"
    deep.mkdir(parents=True)
    (package / "__init__.py").touch()
    (deep / "rate.py").write_text("RATE = 0.19\n")
    assert copy_packages([LocalPackage("shop", package)], tmp_path / "local") == ["shop"]
    assert (tmp_path / "local/shop/a/b/c/d/e/f/g/rate.py").exists()
    (tmp_path / "tax.py").touch()
    (package / "tax.py").symlink_to(tmp_path / "tax.py")
    with pytest.raises(DataRefused, match="cannot be copied whole") as refused:
        copy_packages([LocalPackage("shop", package)], tmp_path / "local")
    assert [failure.where for failure in refused.value.failures] == [str(package / "tax.py")]


def test_data_beside_a_local_package_that_is_not_copied_is_reported(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "leads.csv").symlink_to(tmp_path / "leads.csv")
    texts: list[str] = []
    copy_packages([LocalPackage("shop", package)], tmp_path / "local", texts.append)
    assert texts == [f"not copied from {package}: leads.csv: a link to a place outside the folder"]


def test_a_run_writes_into_its_own_copy_alone(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "a.csv").write_text("old")
    place = Workplace(tmp_path / "copy", tmp_path / "runs", tmp_path / "home")
    with Session(place.fresh(), place.home, ROOM) as held:
        assert held.run(1, "open('a.csv', 'w').write('new'); open('b.csv', 'w').write('')").error is None
    assert (tmp_path / "copy" / "a.csv").read_text() == "old" and not (tmp_path / "copy" / "b.csv").exists()
    assert (place.fresh() / "a.csv").read_text() == "old"


def test_a_run_that_writes_to_its_files_changes_no_copy_of_ours(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "a.csv").write_text("old")
    clone_folder(tmp_path / "copy", tmp_path / "run")
    assert (tmp_path / "run" / "a.csv").stat().st_nlink == 1
    (tmp_path / "run" / "a.csv").write_text("new")
    assert (tmp_path / "copy" / "a.csv").read_text() == "old"


@pytest.mark.slow
@pytest.mark.parametrize("isolation", HERE)
def test_a_program_does_not_outlive_who_started_it(tmp_path: Path, isolation: str) -> None:
    code = (
        "import sys; from pathlib import Path; from d2c_mlops.convert.run.isolated_run import ChildLimits, run_program\n"
        "here = Path(sys.argv[1])\n"
        "run_program(['sh', '-c', 'touch ready; setsid sleep 1000 & exec sleep 1000'], here, here / 'home',"
        " ChildLimits(600.0, isolation=sys.argv[2]))"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), isolation])
    end = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < end and starter.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)
    started = psutil.Process(starter.pid).children(recursive=True)
    assert any("sleep" in process.cmdline() for process in started)
    starter.kill()
    starter.wait()
    _, alive = psutil.wait_procs(started, timeout=10)
    left = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    for process in left:
        process.kill()
    # Without isolation only the process itself ends with who started it, not a session of its own.
    assert len(left) <= (isolation == "none"), left


@pytest.mark.slow
@pytest.mark.parametrize("mode", [name for name in ("bubblewrap", "namespaces") if mode_works(name)])
@pytest.mark.parametrize("place", ["sub", "deep/er", "with space"])
def test_what_is_mounted_below_a_readable_folder_cannot_be_written(mode: str, place: str, tmp_path: Path) -> None:
    """Libraries may lie on a mount of their own, below the folder of the interpreter."""
    for name in ("here", "home", f"libraries/{place}"):
        (tmp_path / name).mkdir(parents=True)
    code = (
        "import sys\nfrom pathlib import Path\nfrom d2c_mlops.convert.run.isolated_run import ChildLimits, run_program\n"
        f"root = Path({str(tmp_path)!r})\n"
        f"target = root / 'libraries' / {place!r} / 'new'\n"
        f"ended = run_program([sys.executable, '-c', f'open({{str(target)!r}}, \"w\")'], root / 'here', root / 'home', "
        f"ChildLimits(60.0, 1 << 30, {mode!r}), extra=[root / 'libraries'])\n"
        "print(ended.status, 'Read-only' in ended.output, target.exists())"
    )
    mount = 'mount -t tmpfs none "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", tmp_path / "libraries" / place, sys.executable, code],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "failed True False\n", done.stderr
