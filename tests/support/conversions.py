"""Verdicts on conversions that a test writes itself."""

from pathlib import Path
from types import SimpleNamespace

from d2c_mlops.convert.repair.repair_result import RepairResult
from d2c_mlops.convert.verify.verify import Verdict, verify
from support.notebooks import notebook


def compared(folder: Path, original: list[str], converted: list[str], names: list[list[str]]) -> Verdict:
    """Verify a conversion whose cells stand beside the original's, one by one."""
    old = notebook(folder / "old" / "x.ipynb", *original)
    repair = RepairResult("as is", old, old, order=tuple(range(len(original))))
    alignment = [{"converted": i + 1, "original": [i + 1], "names": each} for i, each in enumerate(names)]
    path = notebook(folder / "new" / "x.ipynb", *converted)
    written = SimpleNamespace(notebook=path, alignment=alignment, parameters=())
    return verify(repair, written, folder / "work", timeout=300)  # type: ignore[arg-type]
