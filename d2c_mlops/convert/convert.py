"""The whole way: bring back to life, read, write, verify, report. A refusal at any stage is an answer."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from d2c_mlops.convert.check.check import check
from d2c_mlops.convert.conversion_report import served_text, write_report
from d2c_mlops.convert.plan import reading
from d2c_mlops.convert.plan.plan import Plan, read
from d2c_mlops.convert.run.containers import PREFIX
from d2c_mlops.convert.run.isolated_run import ChildLimits
from d2c_mlops.convert.run.isolation import best, mode
from d2c_mlops.convert.source.notebook import read_notebook
from d2c_mlops.convert.write.project import find_or_make
from d2c_mlops.convert.write.writing import WrittenNotebook, default_name, write
from d2c_mlops.errors import D2CError, DataRefused, Failure, UsageError
from d2c_mlops.settings import Settings

STAGES = ("revive", "read", "write", "verify", "report")
LARGEST_COPY = 512 << 20  # bytes of data that are copied into the project
Progress = Callable[[str], None]


@dataclass(frozen=True)
class ConversionRefused:
    """Where it ended: the stage, the cell (as a reader counts, 0 for none), why, and what a person can do."""

    stage: str
    cell: int
    why: str
    next: str


@dataclass
class Conversion:
    """What each stage gave; `work` holds the artefacts and the report."""

    notebook: Path
    name: str
    work: Path
    revived: Any = None
    plan: Plan | None = None
    written: WrittenNotebook | None = None
    verdict: Any = None
    refusal: ConversionRefused | None = None
    findings: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    report: Path | None = None
    isolation: str = ""  # the mode that code was run in; empty where none was run
    local: list[str] = field(default_factory=list)  # the author's own modules, copied into work/local
    index: tuple[str, ...] = ()  # names for which the package was chosen
    fetch: bool = False
    fetch_from: tuple[str, ...] = ()

    @property
    def next(self) -> str:
        """The next command."""
        if self.refusal is not None:
            return self.refusal.next
        if self.written is None:
            return f"d2c convert {shlex.quote(str(self.notebook))}"
        if self.written.model:
            return f"d2c run {shlex.quote(str(self.written.notebook))}"
        return f"jupyter lab {shlex.quote(str(self.written.notebook))}"

    @property
    def runs(self) -> dict[str, int]:
        """How often the notebook or its conversion was run, by stage."""
        counts = {
            "to repair it": getattr(self.revived, "runs", 0),
            "to see its types and try its model": int(self.written is not None and bool(self.isolation)),
            "to verify it": getattr(self.verdict, "runs", 0),
        }
        return {stage: count for stage, count in counts.items() if count}

    @property
    def exit_code(self) -> int:
        """3 where the notebook was refused or the conversion computes something else, else 0."""
        return DataRefused.exit_code if self.refusal or getattr(self.verdict, "status", "") == "differs" else 0

    def to_text(self) -> str:
        """Return what came of it in a few lines for a terminal."""
        if self.refusal is not None:
            cell = f", cell {self.refusal.cell}" if self.refusal.cell else ""
            lines = [f"refused at {self.refusal.stage}{cell}: {self.refusal.why}"]
        else:
            lines = [f"mend: {mend.reason}" for mend in getattr(self.revived, "mends", ())]
            if self.written is None and self.plan is not None:
                lines.append(reading.to_text(reading.reading(self.plan)))
            elif self.written is None and self.revived is not None:
                lines.append(f"revived   {self.revived.notebook}")
            if self.written is not None:
                lines.append(f"notebook  {self.written.notebook}\nmodule    {self.written.module_file}")
                lines.append(f"model     {self.written.model or 'none: ' + self.written.no_model}")
                if self.local:
                    place = self.written.module_file.parents[1] / "local"
                    lines.append(f"local     {', '.join(self.local)} copied into {place}: change them there")
                if self.written.agreement:
                    lines.append(f"served    {served_text(self.written.agreement)}")
            if self.verdict is not None:
                lines.append(f"verdict   {self.verdict.status}: {self.verdict.reason}")
                if saved := self.verdict.saved.get("cells"):
                    same = self.verdict.saved["same"]
                    lines.append(f"then      {same} of {saved} cells show the figures of their saved outputs")
        lines += [f"fetched   {each.text}" for each in getattr(self.revived, "fetched", ())]
        if self.isolation:
            lines.append(f"isolation {mode(self.isolation).summary}")
        if self.runs:
            stages = ", ".join(f"{count} {stage}" for stage, count in self.runs.items())
            lines.append(f"runs      {sum(self.runs.values())} in copies of its folder: {stages}")
        if self.report is not None:
            lines.append(f"report    {self.report}")
        return "\n".join([*lines, f"next      {self.next}"])

    def to_dict(self) -> dict[str, Any]:
        """Return all results as JSON values."""
        made = {
            "notebook": str(self.notebook),
            "name": self.name,
            "status": "refused"
            if self.refusal
            else "converted"
            if self.written
            else "read"
            if self.plan
            else "revived",
            "refusal": None if self.refusal is None else vars(self.refusal),
            "revived": _plain(self.revived),
            "read": None if self.plan is None else reading.reading(self.plan),
            "written": None if self.written is None else self.written.to_dict(),
            "verdict": _plain(self.verdict),
            "local": self.local,
            "findings": self.findings,
            "isolation": self.isolation or "nothing was run",
            "isolated_by": mode(self.isolation).summary if self.isolation else "",
            "runs": self.runs,
            "seconds": self.seconds,
            "report": None if self.report is None else str(self.report),
            "next": self.next,
        }
        return json.loads(json.dumps(made, default=str))  # type: ignore[no-any-return]

    def raise_for_refusal(self) -> None:
        """Raise DataRefused (exit code 3) where the notebook was refused."""
        if self.refusal is not None:
            where = f"{self.notebook}, cell {self.refusal.cell}" if self.refusal.cell else str(self.notebook)
            shown = [Failure(f"the report is {self.report}")] if self.report else []
            raise DataRefused(self.refusal.why, where=where, failures=shown, next=self.refusal.next)


def convert(
    notebook: Path | str,
    *,
    settings: Settings,
    name: str = "",  # of the module and the model; the file's name when empty
    data: Path | str | None = None,  # folder with the notebook's files; its own when None
    install: bool = False,  # whether missing distributions may be installed for the run
    local: Sequence[str] = (),  # names that mean the author's own module, though a package has them too
    index: Sequence[str] = (),  # names that mean the package, though a module of the author has them too
    run: bool = True,  # False stops after the stages that execute nothing
    stages: Sequence[str] = STAGES,
    timeout: float = 600.0,  # seconds for one execution of the notebook
    memory: int = 4 << 30,  # bytes for one execution of the notebook
    isolation: str = "",  # bubblewrap, namespaces, landlock, container:IMAGE or none; the best that works here when empty
    fetch: bool = False,  # whether addresses that it reads are downloaded first, outside of the isolation
    fetch_from: Sequence[str] = (),  # HOST or HOST:PORT inside this network that may be asked
    progress: Progress = lambda text: None,
) -> Conversion:
    """Convert a notebook into the project of the settings; the original is never changed. Raises UsageError only."""
    path = Path(notebook)
    if wrong := set(stages) - set(STAGES):
        raise UsageError(f"there is no stage {', '.join(sorted(wrong))}", next=f"use some of: {', '.join(STAGES)}")
    if not path.is_file():
        raise UsageError("there is no such notebook", where=str(path), next=f"ls {path.parent}")
    if data is not None and not Path(data).is_dir():
        raise UsageError("there is no such folder", where=str(data), next="pass the folder with the notebook's files")
    name = name or _name(path)
    if not name.isidentifier() or name != name.lower():
        raise UsageError(f"{name!r} is no name for a module", next="use lower case letters, digits and _")
    if install and isolation.startswith(PREFIX):
        image = isolation.removeprefix(PREFIX)
        raise UsageError("packages cannot be installed into an image that is read-only", where=f"--container {image} --install",
                         next=f"add them to the image {image}, and leave --install out")  # fmt: skip
    work = settings.store / "convert" / name
    work.mkdir(parents=True, exist_ok=True)
    done = Conversion(path, name, work, fetch=fetch and run, fetch_from=tuple(fetch_from))
    folder = Path(data) if data is not None else path.parent
    if run and any(stage in stages for stage in ("revive", "write", "verify")):
        isolation = (mode(isolation) if isolation else best()).name  # before anything else: it may be refused
    limits = ChildLimits(timeout, memory, isolation)
    done.isolation = isolation if run else ""
    stage = STAGES[0]
    try:
        done.local = _local(done, folder if data is not None else None, local, index)
        for stage in [each for each in STAGES if each in stages and each != "report"]:
            if not run and stage in ("revive", "verify"):
                continue
            progress(stage)
            began = datetime.now(UTC)
            _STAGES[stage](done, folder, settings, install, run, limits, progress)
            done.seconds[stage] = round((datetime.now(UTC) - began).total_seconds(), 2)
            if done.refusal is not None:
                break
    except UsageError:
        raise
    except D2CError as error:
        done.refusal = _refused(stage, error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a notebook never crashes the converter: whatever it was, it is reported
        what = f"{type(error).__name__}: {str(error)[:300]}"
        done.refusal = ConversionRefused(
            stage, 0, f"the converter cannot handle this notebook yet ({what})", "convert it by hand"
        )
    done.findings = [each.to_dict() for each in _findings(path)]
    if "report" in stages:
        done.report = work / "report.html"
        write_report(done.to_dict(), work)
    return done


def _local(done: Conversion, data: Path | None, local: Sequence[str], index: Sequence[str]) -> list[str]:
    """Copy the author's own modules for the runs; raises DataRefused where a name is a package of others, too."""
    from d2c_mlops.convert.run.local_packages import FOLDER, decide, import_roots, lay_out

    done.index = tuple(index)
    try:
        notebook = read_notebook(done.notebook)
    except D2CError:
        return []  # the first stage says why
    roots = import_roots(done.notebook.parent, notebook, data)
    return lay_out(decide(notebook, roots, local=local, index=index).values(), done.work / FOLDER)


def _extra(done: Conversion) -> list[Path]:
    """The folders from which the runs of a conversion import, beyond the environment."""
    return [each for name in ("local", "packages") if (each := done.work / name).is_dir()]


def _name(path: Path) -> str:
    from d2c_mlops.convert.plan import naming

    made = naming.snake(path.stem)
    return made if made.isidentifier() else "notebook"


def _revive(
    done: Conversion, data: Path, settings: Settings, install: bool, run: bool, limits: ChildLimits, progress: Progress
) -> None:
    from d2c_mlops.convert.repair.revive import revive

    done.revived = revive(
        done.notebook,
        done.work,
        data=data,
        install=install,
        index=done.index,
        timeout=limits.seconds,
        memory=limits.memory,
        isolation=limits.isolation,
        fetch=done.fetch,
        fetch_from=done.fetch_from,
        progress=progress,
    )
    refusal = done.revived.refusal
    if refusal is not None:
        cell = 0 if refusal.cell is None else refusal.cell + 1
        done.refusal = ConversionRefused("revive", cell, refusal.why, refusal.next)


def _read(
    done: Conversion, data: Path, settings: Settings, install: bool, run: bool, limits: ChildLimits, progress: Progress
) -> None:
    done.plan = read(read_notebook(_source(done)))


def _write(
    done: Conversion, data: Path, settings: Settings, install: bool, run: bool, limits: ChildLimits, progress: Progress
) -> None:
    if done.plan is None:
        _read(done, data, settings, install, run, limits, progress)
    assert done.plan is not None
    project = find_or_make(settings.root)
    folder = _source(done).parent if done.revived is not None else data
    files = [each for each in folder.rglob("*") if each.is_file()] if folder.is_dir() else []
    days = [date.fromtimestamp(each.stat().st_mtime) for each in files if each.suffix != ".ipynb"]
    small = sum(each.stat().st_size for each in files) <= LARGEST_COPY
    done.written = write(
        done.plan,
        project,
        done.name,
        data=folder.resolve(),
        keep=f"data/{done.name}" if small else "",
        day=str(max(days, default=date(2024, 1, 1))),
        run=run,
        timeout=limits.seconds,
        memory=limits.memory,
        isolation=limits.isolation,
        packages=_extra(done),
        local=done.work / "local" if done.local else None,
    )
    shutil.copyfile(done.notebook, done.work / "original.ipynb")
    sidecar = {"alignment": done.written.alignment, "notebook": str(done.written.notebook)}
    (done.work / "alignment.json").write_text(json.dumps(sidecar, indent=1), encoding="utf-8")


def _verify(
    done: Conversion, data: Path, settings: Settings, install: bool, run: bool, limits: ChildLimits, progress: Progress
) -> None:
    from d2c_mlops.convert.verify.verify import verify

    assert done.written is not None
    done.verdict = verify(
        done.revived, done.written, done.work, timeout=limits.seconds, memory=limits.memory, isolation=limits.isolation
    )


_STAGES: dict[str, Callable[[Conversion, Path, Settings, bool, bool, ChildLimits, Progress], None]] = {
    "revive": _revive,
    "read": _read,
    "write": _write,
    "verify": _verify,
}


def _source(done: Conversion) -> Path:
    """The notebook that is converted: the revived one where there is one."""
    found = getattr(done.revived, "notebook", None)
    return Path(found) if found is not None else done.notebook


def _refused(stage: str, error: D2CError) -> ConversionRefused:
    import re

    text = " ".join([error.where, *(str(failure) for failure in error.failures)])
    cell = re.search(r"cell (\d+)", text)
    why = "; ".join([error.what, *(str(failure) for failure in error.failures)])
    return ConversionRefused(
        stage, int(cell[1]) if cell else 0, why, error.next or "d2c check shows what is wrong with it"
    )


def _findings(path: Path) -> Sequence[Any]:
    try:
        return check(path).findings
    except D2CError:
        return ()


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else value


__all__ = ["STAGES", "Conversion", "ConversionRefused", "convert", "default_name"]
