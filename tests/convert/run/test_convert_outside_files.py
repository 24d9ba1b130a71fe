"""What a notebook names, links or leaves behind leads to no file outside of its copy, neither for its run nor for the converter."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from d2c_mlops.convert.convert import convert
from d2c_mlops.convert.repair.data_files import DataFiles
from d2c_mlops.convert.run import folder_copies
from d2c_mlops.convert.run.container_pool import Folder, Lease
from d2c_mlops.convert.run.folder_copies import (
    Workplace,
    add_missing_file,
    is_visible_below,
    read_result,
    repository_root,
)
from d2c_mlops.convert.run.isolated_run import Child, ChildLimits
from d2c_mlops.convert.run.isolation import TRUSTED, mode_works
from d2c_mlops.convert.run.local_packages import LocalPackage, copy_packages, find_local, import_roots
from d2c_mlops.convert.source.notebook import read_notebook
from d2c_mlops.errors import DataRefused
from d2c_mlops.settings import load_settings


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (made := tmp_path / "victim").mkdir()
    (made / "secret.csv").write_text("geheim-4711")
    (made / "private.py").write_text("TOKEN = 'geheim-4711'")
    return made


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (made := tmp_path / "work" / "here").mkdir(parents=True)
    return made


# --- files that a cell names ---


@pytest.mark.parametrize("wanted", ["{victim}/secret.csv", "../../victim/secret.csv", "../../victim/../victim/secret.csv",
                                    "{victim}/private.py", "link.csv", "link/secret.csv"])  # fmt: skip
def test_a_file_outside_is_not_copied_for_a_notebook(here: Path, victim: Path, wanted: str) -> None:
    (here / "link.csv").symlink_to(victim / "secret.csv")
    (here / "link").symlink_to(victim)
    assert DataFiles([here], here).find(wanted.format(victim=victim)) is None


def test_a_table_of_the_folder_above_is_not_found_by_its_name_without_a_repository(here: Path) -> None:
    (here.parent / "other").mkdir()
    (here.parent / "other" / "salaries.csv").write_text("a\n1\n")
    assert repository_root(here) is None
    assert DataFiles([here], here).find("C:/Users/jo/salaries.csv") is None


@pytest.mark.parametrize(("name", "found"), [("../data/sales.csv", True), ("../.env", False), ("../data/.hidden.csv", False),
                                             ("../data/key.pem", False), ("../../secret.csv", False)])  # fmt: skip
def test_tables_of_its_repository_alone_can_be_read(here: Path, name: str, found: bool) -> None:
    root = here.parent
    (root / "pyproject.toml").touch()
    for file in ("data/sales.csv", ".env", "data/.hidden.csv", "data/key.pem", "../secret.csv"):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text("a\n1\n")
    assert repository_root(here) == root
    assert (DataFiles([here], here, repository=root, beyond=root).find(name) is not None) is found


@pytest.mark.parametrize("up", [".", ".."])
def test_a_home_folder_is_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, up: str) -> None:
    (home := tmp_path / "homes" / "jo").mkdir(parents=True)
    (home / "Downloads").mkdir()
    (home / up / ".git").mkdir()
    monkeypatch.setattr(Path, "home", lambda: home)
    assert repository_root(home / "Downloads") is None


@pytest.mark.parametrize(
    "source", ["sys.path.append('{victim}')", "sys.path.insert(0, '../../victim')", "os.chdir('{victim}')"]
)
def test_modules_outside_are_not_copied_for_a_notebook(here: Path, victim: Path, source: str) -> None:
    cell = f"import os, sys\n{source.format(victim=victim)}\nimport private"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), here / "a.ipynb")
    notebook = read_notebook(here / "a.ipynb")
    assert find_local("private", import_roots(here, notebook)) is None


def test_modules_that_are_links_to_elsewhere_are_not_copied(here: Path, victim: Path) -> None:
    (here / "linked.py").symlink_to(victim / "secret.csv")
    (here / "pack").symlink_to(victim)
    (here / "half").mkdir()
    (here / "half" / "__init__.py").symlink_to(victim / "private.py")
    assert [find_local(name, [here]) for name in ("linked", "pack")] == [None] * 2
    with pytest.raises(DataRefused, match="a link to a place outside"):
        copy_packages([LocalPackage("half", here / "half")], here.parent / "local")
    assert not any(file.is_file() for file in (here.parent / "local").rglob("*"))
    (here / "own.py").touch()
    (here / "same.py").symlink_to(here / "own.py")
    assert find_local("own", [here]) and find_local("same", [here])


def test_a_path_that_cannot_be_resolved_lies_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    assert not is_visible_below(tmp_path / "a" / "b", [tmp_path]) and not is_visible_below(Path("\0"), [tmp_path])


# --- files that a run leaves for the converter ---


@pytest.mark.parametrize("name", ["link/new.csv", "a/link/new.csv", "link/deep/new.csv"])
def test_a_file_is_added_through_no_link_of_a_run(here: Path, victim: Path, name: str) -> None:
    (here / "a").mkdir()
    (here / "link").symlink_to(victim)
    (here / "a" / "link").symlink_to(victim)
    (here.parent / "new.csv").write_text("x")
    before = sorted(victim.rglob("*"))
    assert not add_missing_file(here.parent / "new.csv", here, Path(name))
    assert sorted(victim.rglob("*")) == before


def test_a_file_is_added_where_nothing_is(here: Path, victim: Path) -> None:
    (here.parent / "new.csv").write_text("x")
    assert (
        add_missing_file(here.parent / "new.csv", here, Path("a/b/new.csv"))
        and (here / "a/b/new.csv").read_text() == "x"
    )
    (here / "dangling.csv").symlink_to(victim / "made.csv")
    assert (
        not add_missing_file(here.parent / "new.csv", here, Path("dangling.csv")) and not (victim / "made.csv").exists()
    )


@pytest.mark.parametrize("kind", ["a link", "a pipe", "a folder", "a second name", "too much", "nothing"])
def test_a_result_is_read_from_a_regular_file_alone(here: Path, victim: Path, kind: str) -> None:
    answer = here / "answer.json"
    match kind:
        case "a link":
            answer.symlink_to(victim / "secret.csv")
        case "a pipe":
            os.mkfifo(answer)
        case "a folder":
            answer.mkdir()
        case "a second name":
            os.link(victim / "secret.csv", answer)
        case "too much":
            answer.write_bytes(b"x" * 101)
    assert read_result(answer, 100) is None
    (here / "other").write_bytes(b"x" * 100)
    assert read_result(here / "other", 100) == b"x" * 100


def test_what_a_run_leaves_in_its_home_is_not_there_in_the_next(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "copy", tmp_path / "runs", tmp_path / "home")
    (tmp_path / "copy").mkdir()
    (tmp_path / "home" / "tmp").mkdir(parents=True)
    (tmp_path / "home" / "tmp" / "state").write_text("run 1")
    place.fresh()
    assert not (tmp_path / "home" / "tmp" / "state").exists()


def test_output_of_a_run_has_no_name_that_could_be_a_link(here: Path, victim: Path) -> None:
    home = here.parent / "home"
    code = (
        f'for f in {str(home)!r}/*; do [ -f "$f" ] && rm "$f" && ln -s {victim}/secret.csv "$f"; done; echo own; exit 7'
    ).replace(f"{str(home)!r}/*", f"{home}/*")
    with Child(["/bin/sh", "-c", code], here, home, ChildLimits(20.0, 1 << 30, TRUSTED)) as child:
        child.process.wait(20)
        ended = child.end("failed")
    assert ended.output == "own\n" and [each for each in home.iterdir() if each.is_file()] == []


# --- folders that a container keeps between runs ---


def test_contents_are_exchanged_and_the_mounted_folder_stays_the_same(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.csv").write_text(name)
    folder = Folder(tmp_path / "first")
    number = (tmp_path / "first").stat().st_ino
    (tmp_path / "first" / "out").symlink_to("/etc")
    assert folder.move_contents_back()
    assert (tmp_path / "first" / "data.csv").read_text() == "first" and (tmp_path / "first" / "out").is_symlink()
    assert folder.path.stat().st_ino == number != (tmp_path / "first").stat().st_ino and not list(folder.path.iterdir())
    assert folder.lend(tmp_path / "second")
    assert (tmp_path / "second").stat().st_ino == number and (tmp_path / "second" / "data.csv").read_text() == "second"
    assert folder.move_contents_back()
    folder.discard()
    assert not folder.path.exists() and (tmp_path / "second" / "data.csv").read_text() == "second"


@pytest.mark.parametrize("change", ["mode", "attribute"])
def test_a_mounted_folder_that_a_run_changed_is_not_used_again(tmp_path: Path, change: str) -> None:
    (tmp_path / "a").mkdir()
    folder = Folder(tmp_path / "a")
    if change == "mode":
        (tmp_path / "a").chmod(0o711)
    else:
        os.setxattr(tmp_path / "a", "user.state", b"1")
    assert not folder.move_contents_back() and folder.path == tmp_path / "a"


def test_a_mounted_folder_that_is_not_empty_is_not_lent(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    folder = Folder(tmp_path / "a")
    (tmp_path / "a" / "rest").touch()
    assert not folder.lend(tmp_path / "b") and (tmp_path / "b").exists()


def test_paths_are_told_as_the_container_sees_them() -> None:
    lease = Lease((), None, (), {"/srv/run-1": "/work/notebook", "/srv/home": "/work/home"})  # type: ignore[arg-type]
    told = [
        lease.inside(text) for text in ("/srv/run-1", "/srv/run-1/a", "/srv/run-10", "x /srv/run-1", "/srv/home/tmp")
    ]
    assert told == ["/work/notebook", "/work/notebook/a", "/srv/run-10", "x /srv/run-1", "/work/home/tmp"]


# --- whole conversions ---


@pytest.mark.slow
@pytest.mark.skipif(not mode_works("bubblewrap"), reason="bubblewrap does not work here")
@pytest.mark.parametrize("cells", [
    ["print(open('{victim}/secret.csv').read())"],
    ["import pandas as pd\nprint(pd.read_csv('../../victim/secret.csv', header=None))"],
    ["import sys\nsys.path.append('{victim}')\nimport private\nprint(private.TOKEN)"],
    ["import shutil, os\nshutil.rmtree('x')\nos.symlink('{victim}', 'x')",
     "import pandas as pd\ndf = pd.read_csv('C:/Users/jo/sales.csv')\nprint(df.ix[0])"],
])  # fmt: skip
def test_a_conversion_neither_reads_nor_writes_outside(
    tmp_path: Path, here: Path, victim: Path, cells: list[str]
) -> None:
    (here / "x").mkdir()
    for name in ("x/new.csv", "sales.csv"):
        (here / name).write_text("a\n1\n")
    made = [nbformat.v4.new_code_cell(cell.format(victim=victim)) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made), here / "a.ipynb")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
    before = {path: path.read_bytes() for path in victim.iterdir()}
    done = convert(
        here / "a.ipynb",
        settings=load_settings(tmp_path / "shop", environ={}),
        isolation="bubblewrap",
        stages=("revive",),
    )
    text = done.to_text() + "".join(
        p.read_text(errors="replace") for p in (tmp_path / "shop").rglob("*") if p.is_file()
    )
    assert "geheim" not in text and {path: path.read_bytes() for path in victim.iterdir()} == before
    assert (done.refusal is None) is (len(cells) == 2), done.to_text()


def test_markers_are_known_in_one_place() -> None:
    assert ".git" in folder_copies.MARKERS
