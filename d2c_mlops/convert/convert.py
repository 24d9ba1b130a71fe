"""Convert a notebook: repair and run it, read it, write the conversion, verify it, report. Any stage may refuse it."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from d2c_mlops.convert.check.check import check
from d2c_mlops.convert.conversion_report import feature_agreement_text, write_report
from d2c_mlops.convert.plan import data_flow
from d2c_mlops.convert.plan.plan import Plan, plan_notebook
from d2c_mlops.convert.run import container_pool
from d2c_mlops.convert.run.containers import PREFIX
from d2c_mlops.convert.run.isolated_run import ChildLimits
from d2c_mlops.convert.run.isolation import best_mode, find_mode
from d2c_mlops.convert.source.finding import Finding, FindingFacts
from d2c_mlops.convert.source.notebook import read_notebook
from d2c_mlops.convert.write.project import find_or_create_project
from d2c_mlops.convert.write.write_conversion import WrittenNotebook, default_module_name, write_notebook_and_module
from d2c_mlops.errors import D2CError, DataRefused, Failure, UsageError
from d2c_mlops.settings import Settings

if TYPE_CHECKING:
    from d2c_mlops.convert.conversion_record import ConversionRecord
    from d2c_mlops.convert.repair.repair_result import RepairResult
    from d2c_mlops.convert.verify.verify import Verdict

STAGES = ("revive", "read", "write", "verify", "report")
LARGEST_COPY = 512 << 20  # bytes of data that are copied into the project
Progress = Callable[[str], None]


@dataclass(frozen=True)
class ConversionRefused:
    """Why a conversion stopped: the stage, the cell (from 1, 0 for none), the reason and the next step."""

    stage: str
    cell: int
    why: str
    next: str


@dataclass
class Conversion:
    """The result of each stage; `work` is the folder of the artefacts and the report."""

    notebook: Path
    name: str
    work: Path
    repair: RepairResult | None = None
    plan: Plan | None = None
    written: WrittenNotebook | None = None
    verdict: Verdict | None = None
    refusal: ConversionRefused | None = None
    findings: list[FindingFacts] = field(default_factory=list)
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
            "to repair it": self.repair.runs if self.repair else 0,
            "to infer its types and test its model": int(self.written is not None and bool(self.isolation)),
            "to verify it": self.verdict.runs if self.verdict else 0,
        }
        return {stage: count for stage, count in counts.items() if count}

    @property
    def exit_code(self) -> int:
        """3 if the notebook was refused or the conversion has different results, else 0."""
        return (
            DataRefused.exit_code
            if self.refusal or (self.verdict is not None and self.verdict.status == "differs")
            else 0
        )

    def to_text(self) -> str:
        """Return the result as a few lines for a terminal."""
        if self.refusal is not None:
            cell = f", cell {self.refusal.cell}" if self.refusal.cell else ""
            lines = [f"refused at {self.refusal.stage}{cell}: {self.refusal.why}"]
        else:
            lines = [f"fix: {fix.reason}" for fix in (self.repair.fixes if self.repair else ())]
            if self.written is None and self.plan is not None:
                lines.append(data_flow.to_text(data_flow.data_flow_report(self.plan)))
            elif self.written is None and self.repair is not None:
                lines.append(f"repaired  {self.repair.notebook}")
            if self.written is not None:
                lines.append(f"notebook  {self.written.notebook}\nmodule    {self.written.module_file}")
                lines.append(f"model     {self.written.model or 'none: ' + self.written.no_model}")
                if self.local:
                    place = self.written.module_file.parents[1] / "local"
                    lines.append(f"local     {', '.join(self.local)} copied into {place}: edit the copies")
                if self.written.agreement:
                    lines.append(f"served    {feature_agreement_text(self.written.agreement)}")
            if self.verdict is not None:
                lines.append(f"verdict   {self.verdict.status}: {self.verdict.reason}")
                if saved := self.verdict.saved.get("cells"):
                    same = self.verdict.saved["same"]
                    lines.append(f"saved     {same} of {saved} cells reproduce the numbers in their saved outputs")
        lines += [f"fetched   {source.text}" for source in (self.repair.fetched if self.repair else ())]
        if self.isolation:
            lines.append(f"isolation {find_mode(self.isolation).summary}")
        if self.runs:
            stages = ", ".join(f"{count} {stage}" for stage, count in self.runs.items())
            lines.append(f"runs      {sum(self.runs.values())} in copies of the notebook's folder: {stages}")
        if self.report is not None:
            lines.append(f"report    {self.report}")
        return "\n".join([*lines, f"next      {self.next}"])

    def to_dict(self) -> ConversionRecord:
        """Return all results as JSON values."""
        values = {
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
            "revived": self.repair.to_dict() if self.repair is not None else None,
            "read": None if self.plan is None else data_flow.data_flow_report(self.plan),
            "written": None if self.written is None else self.written.to_dict(),
            "verdict": self.verdict.to_dict() if self.verdict is not None else None,
            "local": self.local,
            "findings": self.findings,
            "isolation": self.isolation or "nothing was run",
            "isolated_by": find_mode(self.isolation).summary if self.isolation else "",
            "runs": self.runs,
            "seconds": self.seconds,
            "report": None if self.report is None else str(self.report),
            "next": self.next,
        }
        return cast("ConversionRecord", json.loads(json.dumps(values, default=str)))

    def raise_for_refusal(self) -> None:
        """Raise DataRefused (exit code 3) where the notebook was refused."""
        if self.refusal is not None:
            where = f"{self.notebook}, cell {self.refusal.cell}" if self.refusal.cell else str(self.notebook)
            report = [Failure(f"report: {self.report}")] if self.report else []
            raise DataRefused(
                self.refusal.why, where=where, failures=report, next=self.refusal.next, cell=self.refusal.cell
            )


@dataclass(frozen=True)
class StageOptions:
    """The options of a conversion, the same for every stage."""

    data: Path  # folder with the notebook's files
    settings: Settings
    install: bool
    run: bool
    limits: ChildLimits
    progress: Progress


Stage = Callable[[Conversion, StageOptions], None]


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
        raise UsageError(f"unknown stage: {', '.join(sorted(wrong))}", next=f"use some of: {', '.join(STAGES)}")
    if not path.is_file():
        raise UsageError("the notebook does not exist", where=str(path), next=f"ls {path.parent}")
    if data is not None and not Path(data).is_dir():
        raise UsageError("the folder does not exist", where=str(data), next="pass the folder with the notebook's files")
    name = name or _conversion_name(path)
    if not name.isidentifier() or name != name.lower():
        raise UsageError(f"{name!r} is not a valid module name", next="use lower case letters, digits and _")
    if install and isolation.startswith(PREFIX):
        image = isolation.removeprefix(PREFIX)
        raise UsageError("packages cannot be installed: the container image is read-only", where=f"--container {image} --install",
                         next=f"add the packages to the image {image} and omit --install")  # fmt: skip
    work = settings.store / "convert" / name
    work.mkdir(parents=True, exist_ok=True)
    conversion = Conversion(path, name, work, fetch=fetch and run, fetch_from=tuple(fetch_from))
    folder = Path(data) if data is not None else path.parent
    if run and any(stage in stages for stage in ("revive", "write", "verify")):
        isolation = (find_mode(isolation) if isolation else best_mode()).name  # first, because it may raise
    limits = ChildLimits(timeout, memory, isolation)
    conversion.isolation = isolation if run else ""
    options = StageOptions(folder, settings, install, run, limits, progress)
    stage = STAGES[0]
    try:
        conversion.local = _copy_local_modules(conversion, folder if data is not None else None, local, index, progress)
        for stage in [name for name in STAGES if name in stages and name != "report"]:
            if not run and stage in ("revive", "verify"):
                continue
            progress(stage)
            began = datetime.now(UTC)
            _STAGES[stage](conversion, options)
            conversion.seconds[stage] = round((datetime.now(UTC) - began).total_seconds(), 2)
            if conversion.refusal is not None:
                break
    except UsageError:
        raise
    except D2CError as error:
        conversion.refusal = _refusal_from_error(stage, error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # no notebook may crash the converter: any error becomes a refusal
        what = f"{type(error).__name__}: {str(error)[:300]}"
        conversion.refusal = ConversionRefused(
            stage, 0, f"the converter does not support this notebook yet ({what})", "convert it by hand"
        )
    finally:
        if isolation.startswith(PREFIX):
            container_pool.close_waiting_containers()
    conversion.findings = [finding.to_dict() for finding in _check_findings(path)]
    if "report" in stages:
        conversion.report = work / "report.html"
        write_report(conversion.to_dict(), work)
    return conversion


def _copy_local_modules(
    conversion: Conversion, data: Path | None, local: Sequence[str], index: Sequence[str], progress: Progress
) -> list[str]:
    """Copy the author's own modules for the runs; raises DataRefused if a name is also the name of a package."""
    from d2c_mlops.convert.run.local_packages import FOLDER, choose_local_packages, copy_packages, import_roots

    conversion.index = tuple(index)
    try:
        notebook = read_notebook(conversion.notebook)
    except D2CError:
        return []  # the first stage reports the reason
    roots = import_roots(conversion.notebook.parent, notebook, data)
    return copy_packages(
        choose_local_packages(notebook, roots, local=local, index=index).values(), conversion.work / FOLDER, progress
    )


def _import_folders(conversion: Conversion) -> list[Path]:
    """Return the folders from which the runs import, beyond the environment."""
    return [folder for name in ("local", "packages") if (folder := conversion.work / name).is_dir()]


def _conversion_name(path: Path) -> str:
    from d2c_mlops.convert.plan import naming

    module_name = naming.snake_case(path.stem)
    return module_name if module_name.isidentifier() else "notebook"


def _repair_copy(conversion: Conversion, options: StageOptions) -> None:
    from d2c_mlops.convert.repair.repairing import repair_notebook

    conversion.repair = repair_notebook(
        conversion.notebook,
        conversion.work,
        data=options.data,
        install=options.install,
        index=conversion.index,
        timeout=options.limits.seconds,
        memory=options.limits.memory,
        isolation=options.limits.isolation,
        fetch=conversion.fetch,
        fetch_from=conversion.fetch_from,
        progress=options.progress,
    )
    refusal = conversion.repair.refusal
    if refusal is not None:
        cell = 0 if refusal.cell is None else refusal.cell + 1
        conversion.refusal = ConversionRefused("revive", cell, refusal.why, refusal.next)


def _read_notebook(conversion: Conversion, options: StageOptions) -> None:
    conversion.plan = plan_notebook(read_notebook(_notebook_to_convert(conversion)))


def _write_project(conversion: Conversion, options: StageOptions) -> None:
    if conversion.plan is None:
        _read_notebook(conversion, options)
    assert conversion.plan is not None
    project = find_or_create_project(options.settings.root)
    folder = _notebook_to_convert(conversion).parent if conversion.repair is not None else options.data
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    days = [date.fromtimestamp(path.stat().st_mtime) for path in files if path.suffix != ".ipynb"]
    small = sum(path.stat().st_size for path in files) <= LARGEST_COPY
    conversion.written = write_notebook_and_module(
        conversion.plan,
        project,
        conversion.name,
        data=folder.resolve(),
        keep=f"data/{conversion.name}" if small else "",
        day=str(max(days, default=date(2024, 1, 1))),
        run=options.run,
        timeout=options.limits.seconds,
        memory=options.limits.memory,
        isolation=options.limits.isolation,
        packages=_import_folders(conversion),
        local=conversion.work / "local" if conversion.local else None,
    )
    shutil.copyfile(conversion.notebook, conversion.work / "original.ipynb")
    sidecar = {"alignment": conversion.written.alignment, "notebook": str(conversion.written.notebook)}
    (conversion.work / "alignment.json").write_text(json.dumps(sidecar, indent=1), encoding="utf-8")


def _verify_conversion(conversion: Conversion, options: StageOptions) -> None:
    from d2c_mlops.convert.verify.verify import verify

    assert conversion.repair is not None and conversion.written is not None
    limits = options.limits
    conversion.verdict = verify(
        conversion.repair,
        conversion.written,
        conversion.work,
        timeout=limits.seconds,
        memory=limits.memory,
        isolation=limits.isolation,
    )


_STAGES: dict[str, Stage] = {
    "revive": _repair_copy,
    "read": _read_notebook,
    "write": _write_project,
    "verify": _verify_conversion,
}


def _notebook_to_convert(conversion: Conversion) -> Path:
    """Return the notebook to convert: the repaired copy where there is one."""
    repaired = conversion.repair.notebook if conversion.repair is not None else None
    return conversion.notebook if repaired is None else repaired


def _refusal_from_error(stage: str, error: D2CError) -> ConversionRefused:
    why = "; ".join([error.what, *(str(failure) for failure in error.failures)])
    return ConversionRefused(stage, error.cell, why, error.next or "d2c check lists what is wrong with the notebook")


def _check_findings(path: Path) -> Sequence[Finding]:
    try:
        return check(path).findings
    except D2CError:
        return ()


__all__ = ["STAGES", "Conversion", "ConversionRefused", "convert", "default_module_name"]
