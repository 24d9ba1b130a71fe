"""Former names of modules: projects, notebooks and versions written before a module moved keep working."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

from d2c_mlops.former_modules import MODULES, PACKAGES
from d2c_mlops.former_objects import OBJECTS

ROOT = __package__ or "d2c_mlops"
FOLDER = Path(__file__).parent


class FormerNames(MetaPathFinder, Loader):
    """Find modules by their former names, which no module has any more.

    It is asked first: a package that is found by its former name would else give its modules a second time.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of a former name is found, None for other names and for another copy of the package.

        A Bento brings the package that it was made with; a process may import that one after this one.
        """
        name = fullname.removeprefix(f"{ROOT}.")
        if name == fullname or (name not in MODULES and name not in OBJECTS):
            return None
        if not any(Path(folder).is_relative_to(FOLDER) for folder in path or ()):
            return None
        if name in MODULES:
            return spec_from_loader(fullname, self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None and not spec.submodule_search_locations:
            spec.loader = LoaderOfRenamed(fullname, spec.origin)
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module that has the present name."""
        present = f"{ROOT}.{MODULES[spec.name.removeprefix(f'{ROOT}.')]}"
        warnings.warn(f"{spec.name} is now {present}", DeprecationWarning, stacklevel=2)
        module = import_module(present)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own specification back, which the import has replaced."""
        if module.__spec__ is not None and module.__spec__.loader is self:
            module.__spec__ = module.__spec__.loader_state


class LoaderOfRenamed(SourceFileLoader):
    """Load a module whose classes or functions had other names: former ones are found, with a warning."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module; a `__getattr__` of its own stays."""
        super().exec_module(module)
        if "__getattr__" not in vars(module):
            module.__getattr__ = partial(renamed_class, module.__name__)  # type: ignore[method-assign]


def attribute(package: str, name: str) -> Any:
    """Return what a package's former module has under a name. Raises AttributeError."""
    present = PACKAGES[package.removeprefix(f"{ROOT}.")]
    if (
        not name.startswith("__") and find_spec(f"{package}.{name}") is None
    ):  # a module of the package is imported, not looked up
        try:
            return getattr(import_module(f"{ROOT}.{present}"), name)
        except AttributeError:
            pass
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


def renamed_class(module: str, name: str) -> Any:
    """Return the class, function or constant of a module that had another name before. Raises AttributeError."""
    present = OBJECTS[module.removeprefix(f"{ROOT}.")].get(name)
    if present is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is now {present}", DeprecationWarning, stacklevel=3)
    home, _, present = present.rpartition(":")
    return getattr(import_module(f"{ROOT}.{home}" if home else module), present)


def install() -> None:
    """Find former names in this process from now on."""
    if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, FormerNames())
