"""Origin of a version's charter: answers of this project, or of the included example."""

from __future__ import annotations

from dataclasses import dataclass

from d2c_mlops.errors import D2CError
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.model import Model, discover_models, model_class_at
from d2c_mlops.registry.versions import Version, model_class
from d2c_mlops.settings import Settings

SHIPPED = "d2c_mlops."


@dataclass(frozen=True)
class CharterExample:
    """Charter fields that still have the answers of an included example, and the example's module."""

    module: str = ""
    fields: tuple[str, ...] = ()

    def uses_example(self, *fields: str) -> bool:
        """Return whether any of the fields has the example's value."""
        return bool(set(fields) & set(self.fields))

    def __str__(self) -> str:
        return f"charter of the shipped example {self.module}, not answered for this shop"

    @property
    def fields_text(self) -> str:
        """The fields as text; the first ones by name."""
        if len(self.fields) <= 3:
            return ", ".join(self.fields)
        return f"{', '.join(self.fields[:2])} and {len(self.fields) - 2} more answers"

    def instructions(self, model: str) -> str:
        """Return instructions for answering the fields."""
        ellipsis = ", …" if len(self.fields) > 2 else ""
        lines = ", ".join(f"charter.{name} = …" for name in self.fields[:2])
        return f"answer it in settings.ini, [model:{model}] {lines}{ellipsis}, and train again"


def example_answers(version: Version, settings: Settings) -> CharterExample:
    """Return the fields of a version's charter that have the example's answers; none for the project's own charter."""
    try:
        model_class(version.model, settings)
        shipped, module = _example_charter(model_class_at(version.model_class, settings.packages))
    except D2CError:
        return CharterExample()
    if shipped is None:
        return CharterExample()
    answered = settings.model(version.model).charter
    case, example_answers = version.case.to_dict(), shipped.to_dict()
    same = tuple(
        name
        for name, value in example_answers.items()
        if value not in (None, "") and case[name] == value and name not in answered
    )
    return CharterExample(module, same)


def _example_charter(cls: type[Model]) -> tuple[Charter | None, str]:
    """Return the included charter of a class, and its module."""
    owner = next((base for base in cls.__mro__ if "charter" in vars(base)), None)
    if owner is None:
        return None, ""
    if owner.__module__.startswith(SHIPPED):
        return owner.charter, owner.__module__  # type: ignore[attr-defined]
    for model in discover_models().values():
        if model.charter == cls.charter:
            return model.charter, model.__module__
    return None, ""
