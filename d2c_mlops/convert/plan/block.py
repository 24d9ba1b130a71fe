"""A block of the converted notebook: prose, a function, a step that becomes a function, or plain cells."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from d2c_mlops.convert.plan.plan import PlanLine


@dataclass
class Block:
    """A part of the notebook to write, in the order of the original."""

    kind: str  # prose, raw, definition, step or plain
    cells: list[int]
    lines: list[PlanLine] = field(default_factory=list)
    text: str = ""
    role: str = ""
    name: str = ""  # of the function
    heading: str = ""  # the author's words above it
    chapter: str = ""  # the heading above that one
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    extra: set[str] = field(default_factory=set)  # of what it hands out, the names that only a model wants
    imports: list[str] = field(default_factory=list)  # that hold only inside
    parameters: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)  # parameter -> what the function calls it, where that differs
    base: str = ""  # its name before it is told apart from others
    quiet: str = ""  # the name that it would have without the author's words
    spoken_above: bool = False  # whether the author's comment stands above the call, not in the function
    like: Block | None = None  # the earlier step whose function does the same

    @property
    def called(self) -> str:
        """The name of the function that is called."""
        return self.like.name if self.like is not None else self.name

    @property
    def size(self) -> int:
        """Lines of code."""
        return sum(line.statement.lines for line in self.lines)


def in_binding_order(block: Block, names: Collection[str]) -> list[str]:
    """Order names as the step binds them; names that it only changes come last."""
    bound = [name for line in block.lines for name in line.facts.binds]
    return sorted(names, key=lambda name: (bound.index(name) if name in bound else len(bound), name))
