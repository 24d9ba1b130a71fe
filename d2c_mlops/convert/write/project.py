"""Create the project of a converted notebook, export its module, and check that it imports without side effects."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

import nbformat

from d2c_mlops import settings as settings_of
from d2c_mlops.convert.run.folder_copies import read_result
from d2c_mlops.convert.run.isolated_run import ChildLimits, run_program
from d2c_mlops.convert.write.notebook_document import CellSource
from d2c_mlops.errors import DataRefused, Failure, child_error, child_reason
from d2c_mlops.programs import find_program

Attachments = dict[str, dict[str, str]]  # pictures of a cell by name, each as MIME type and base64
PYPROJECT = """[build-system]
requires = ["setuptools>=80"]
build-backend = "setuptools.build_meta"

[project]
name = "{lib}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["d2c_mlops"]

[tool.setuptools.packages.find]
include = ["{lib}*"]

[tool.nbdev]
lib_path = "{lib}"
nbs_path = "nbs"
put_version_in_init = false
allowed_cell_metadata_keys = ["tags"]
clear_all = false
"""
LOCAL_PATH = """import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "local"))  # the author's own modules"""
IMPORT_SECONDS = 300.0
SIDE_EFFECTS = """
import json, os, sys
from pathlib import Path
root, module = sys.argv[1:3]
home = os.path.expanduser("~")
opened = []
def watch(event, args):
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    own = str(args[0]).startswith((home, os.devnull)) or "__pycache__" in str(args[0])
    if writes and not own:
        opened.append(str(args[0]))
__import__("d2c_mlops.models.core.model")
sys.path[0:0] = [root, *sys.argv[3:]]
before = {p for p in Path(".").rglob("*")}
out, sys.stdout = sys.stdout, __import__("io").StringIO()
sys.addaudithook(watch)
__import__(module)
printed, sys.stdout = sys.stdout.getvalue(), out
made = sorted(str(p) for p in set(Path(".").rglob("*")) - before)
values = vars(sys.modules[module])
fitted = [n for n, v in values.items() if not isinstance(v, type) and hasattr(v, "n_features_in_")]
with open(os.path.join(home, "import.json"), "w", encoding="utf-8") as file:
    json.dump({"printed": printed, "made": made + opened, "fitted": fitted}, file)
"""


@dataclass(frozen=True)
class Project:
    """The folders of a project: its notebooks and its package."""

    root: Path
    lib: str
    notebooks: Path

    @property
    def package(self) -> Path:
        """Folder of the package."""
        return self.root / self.lib


def find_or_create_project(root: Path, lib: str = "") -> Project:
    """Return the nbdev project at `root`; create it if there is none. Existing files are not changed."""
    pyproject = root / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8") if pyproject.exists() else ""
    settings = _nbdev_settings(text)
    if settings:
        return _add_settings(Project(root, settings.get("lib_path", root.name), root / settings.get("nbs_path", "nbs")))
    lib = lib or re.sub(r"\W+", "_", root.resolve().name).strip("_").lower() or "shop"
    lib = f"lib_{lib}" if lib[0].isdigit() else lib
    lib = f"{lib}_models" if lib in sys.stdlib_module_names or lib in ("d2c_mlops", "nbs", "models", "tests") else lib
    root.mkdir(parents=True, exist_ok=True)
    content = PYPROJECT.format(lib=lib)
    if text:
        content = text.rstrip() + "\n\n" + content[content.index("[tool.nbdev]") :]
    pyproject.write_text(content, encoding="utf-8")
    return _add_settings(Project(root, lib, root / "nbs"))


def _nbdev_settings(text: str) -> dict[str, str]:
    import tomllib

    section = tomllib.loads(text).get("tool", {}).get("nbdev", {}) if text else {}
    return {key: str(value) for key, value in section.items()}


def _add_settings(project: Project) -> Project:
    ini = project.root / settings_of.FILE
    packages = f"{project.lib}.models"
    if not ini.exists():
        ini.write_text(f"[d2c]\nstore = d2c_store\npackages = {packages}\n", encoding="utf-8")
    elif project.lib != "d2c_mlops":
        parser = ConfigParser(interpolation=None)
        text = ini.read_text(encoding="utf-8")
        parser.read_string(text)
        listed = parser.get("d2c", "packages", fallback="")
        if packages not in re.split(r"[\s,]+", listed):
            ini.write_text(_add_package_setting(text, listed, packages), encoding="utf-8")
    (project.notebooks / "models").mkdir(parents=True, exist_ok=True)
    for folder in (project.package, project.package / "models"):
        folder.mkdir(exist_ok=True)
        if not (folder / "__init__.py").exists():
            (folder / "__init__.py").write_text('"""Exported from notebooks."""\n', encoding="utf-8")
    return project


def _add_package_setting(text: str, listed: str, package: str) -> str:
    if listed:
        return re.sub(r"(?m)^(packages\s*=\s*)(.*)$", rf"\g<1>\g<2> {package}", text, count=1)
    if "[d2c]" in text:
        return text.replace("[d2c]\n", f"[d2c]\npackages = {package}\n", 1)
    return f"{text.rstrip()}\n\n[d2c]\npackages = {package}\n"


def copy_local_modules(project: Project, local: Path) -> str:
    """Copy the author's own modules into the project's package; return the cell that makes them importable.

    An existing module with other content is renamed to NAME.before.
    """
    target = project.package / "local"
    names = sorted(path.stem for path in local.iterdir())
    for file in sorted(local.iterdir()):
        place = target / file.name
        if place.exists() and not _same_content(file, place):
            before = target / f"{file.name}.before"
            shutil.rmtree(before, ignore_errors=True) if before.is_dir() else before.unlink(missing_ok=True)
            place.rename(before)
        if file.is_dir():
            shutil.copytree(file, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    init = project.package / "__init__.py"
    text = init.read_text(encoding="utf-8") if init.exists() else ""
    if LOCAL_PATH not in text:
        init.write_text(f"{text.rstrip()}\n\n{LOCAL_PATH}\n".lstrip(), encoding="utf-8")
    folder = f"{project.lib}/local"
    return (
        f"import sys\nfrom pathlib import Path\n\n# The author's own modules, {', '.join(names)}, lie in {folder}.\n"
        f'ups = [up / "{folder}" for up in (Path.cwd(), *Path.cwd().parents)]\n'
        "sys.path[:0] = [str(each) for each in ups if each.is_dir()][:1]"
    )


def _same_content(first: Path, right: Path) -> bool:
    if first.is_file() or right.is_file():
        return first.is_file() and right.is_file() and first.read_bytes() == right.read_bytes()
    files = {path.relative_to(first): path for path in first.rglob("*") if path.is_file()}
    return all(
        (right / name).is_file() and (right / name).read_bytes() == file.read_bytes() for name, file in files.items()
    )


def pasted_pictures(path: Path) -> dict[int, Attachments]:
    """Return the pictures pasted into the prose of a notebook, by the index of their cell."""
    try:
        cells = json.loads(path.read_bytes()).get("cells", [])
    except (OSError, ValueError, AttributeError):
        return {}
    return {number: cell["attachments"] for number, cell in enumerate(cells) if cell.get("attachments")}


def write_notebook(path: Path, cells: list[CellSource], pictures: Mapping[int, Attachments]) -> None:
    """Write the cells as a notebook and let ruff set it; the file appears whole or not at all."""
    document = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(cells):
        new_cell = nbformat.v4.new_markdown_cell if cell.kind == "markdown" else nbformat.v4.new_code_cell
        fresh = new_cell(cell.source, id=f"c{number:03d}")  # type: ignore[no-untyped-call]
        if cell.tags:
            fresh.metadata["tags"] = list(cell.tags)
        if cell.kind == "markdown" and (
            cell_attachments := [pictures[cell_number] for cell_number in cell.cells if cell_number in pictures]
        ):
            fresh["attachments"] = {name: data for picture in cell_attachments for name, data in picture.items()}
        document.cells.append(fresh)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.draft.ipynb")
    draft.write_text(nbformat.writes(document, version=4) + "\n", encoding="utf-8")  # type: ignore[no-untyped-call]
    if ruff := find_program("ruff"):
        subprocess.run(
            [ruff, "check", "-q", "--isolated", "--select", "I,F401", "--fix", str(draft)], capture_output=True
        )
        subprocess.run([ruff, "format", "-q", "--isolated", "--line-length", "110", str(draft)], capture_output=True)
    draft.replace(path)


def export_module(project: Project, notebook: Path) -> None:
    """Write the module of a notebook through nbdev, in a process of its own."""
    code = "import sys; from nbdev.export import nb_export; nb_export(sys.argv[1], lib_path=sys.argv[2])"
    process = subprocess.run(
        [sys.executable, "-P", "-c", code, str(notebook), str(project.package)],
        cwd=project.root, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if process.returncode:
        raise child_error(process.stderr, "nbdev could not export the notebook", where=str(notebook))


def check_import(project: Project, module: str, packages: Sequence[Path] = (), isolation: str = "") -> None:
    """Import the module in a clean, isolated process; raises DataRefused when that prints, writes or fits anything.

    The process has a home of its own, in which libraries may keep their settings, and nothing of our environment.
    """
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as home:
        # A copy of the package alone: nothing else of the project is to be seen, nor to be listed.
        site = Path(home, "site")
        shutil.copytree(project.package, site / project.lib, ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, "-P", "-c", SIDE_EFFECTS, str(site), module, *map(str, packages)]
        limits = ChildLimits(IMPORT_SECONDS, isolation=isolation)
        ended = run_program(command, Path(empty), Path(home), limits, extra=packages)
        answer = read_result(Path(home, "import.json")) if ended.status == "done" else None
        import_errors = json.loads(answer) if answer is not None else None
    where = str(project.package / Path(*module.split(".")[1:])) + ".py"
    if import_errors is None:
        why = child_reason(ended.output) if ended.status == "failed" else ended.says
        raise DataRefused("the module cannot be imported", where=where, failures=[Failure(why)])
    wrong = [Failure(f"importing {what}: {value}") for what, value in import_errors.items() if value]
    if wrong:
        raise DataRefused("importing the module has side effects", where=where, failures=wrong)
