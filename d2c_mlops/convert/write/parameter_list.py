"""Parameters of a converted notebook: names, types, defaults, and the literals that they replace."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from d2c_mlops.convert.source.source_edits import TextChange


@dataclass(frozen=True)
class CodeParameter:
    """One line of the parameters cell."""

    name: str
    annotation: str
    default: str
    note: str = ""
    word: str = ""  # what a library calls it

    def __str__(self) -> str:
        line = f"{self.name}: {self.annotation} = {self.default}"
        return f"{line}  # {self.note}" if self.note and len(line) + len(self.note) < LINE else line


@dataclass
class CodeParameters:
    """All parameters, and the changes that put them into the code."""

    every: list[CodeParameter] = field(default_factory=list)
    changes: dict[tuple[int, int], list[TextChange]] = field(default_factory=dict)
    folder: str = ""  # the parameter that holds the data's folder, where files are read
    files: list[str] = field(default_factory=list)
    computed: bool = False  # whether paths are only known when the code runs: they are looked up by in_data()
    fixed: list[tuple[int, str]] = field(
        default_factory=list
    )  # cell and name of what reads from the default folder only

    def add(self, parameter: CodeParameter) -> None:
        """Add a parameter; an existing one gets an additional note."""
        listed = self.find(parameter.name)
        if listed is None:
            self.every.append(parameter)
        elif parameter.note and parameter.note not in listed.note.split(", "):
            self.every[self.every.index(listed)] = replace(listed, note=f"{listed.note}, {parameter.note}")

    def find(self, name: str) -> CodeParameter | None:
        """Return the parameter of a name."""
        return next((parameter for parameter in self.every if parameter.name == name), None)


LINE = 106  # letters of a parameter and its note; a longer one goes without the note
