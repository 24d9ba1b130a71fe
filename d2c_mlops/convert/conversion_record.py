"""The record of a conversion: its JSON values, as report.json and `d2c convert --json` have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from d2c_mlops.convert.plan.data_flow import DataFlowReport
    from d2c_mlops.convert.repair.repair_result import RepairFacts
    from d2c_mlops.convert.source.finding import FindingFacts
    from d2c_mlops.convert.verify.verify import VerdictFacts
    from d2c_mlops.convert.write.write_conversion import WrittenFacts


class StageRefusal(TypedDict):
    """Why a conversion stopped: the stage, the cell (from 1, 0 for none), the reason and the next step."""

    stage: str
    cell: int
    why: str
    next: str


class ConversionRecord(TypedDict):
    """The result of each stage; None for a stage that was not reached."""

    notebook: str
    name: str
    status: str  # refused, converted, read or revived
    refusal: StageRefusal | None
    revived: RepairFacts | None
    read: DataFlowReport | None
    written: WrittenFacts | None
    verdict: VerdictFacts | None
    local: list[str]
    findings: list[FindingFacts]
    isolation: str
    isolated_by: str
    runs: dict[str, int]
    seconds: dict[str, float]
    report: str | None
    next: str
