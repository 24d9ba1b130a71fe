"""One child process in which the notebooks of many tests run."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

from d2c_mlops.convert.run.isolated_run import ChildLimits
from d2c_mlops.convert.run.session import Session

CLEAN = """import os, sys, warnings
for name in [name for name in globals() if not name.startswith('_') and name not in get_ipython().user_ns_hidden]:
    del globals()[name]
import os, sys, warnings
warnings.resetwarnings()
os.chdir({folder!r})
sys.modules.pop('shopkit', None)
'matplotlib' in sys.modules and sys.modules['matplotlib'].rcdefaults()
del os, sys, warnings"""


class Shared(Session):
    """One child for all rows: a new folder and no names each time."""

    held: ClassVar[list["Shared"]] = []
    lasting_home: ClassVar[list[TemporaryDirectory[str]]] = []  # the home of a repair ends with it, before the next row

    def __new__(cls, *_: Any, **__: Any) -> "Shared":
        return cls.held[0] if cls.held else super().__new__(cls)

    def __init__(self, folder: Path, _home: Path, limits: ChildLimits, **given: Any) -> None:
        if not self.held:
            self.lasting_home.append(TemporaryDirectory(prefix="d2c-shared-home-"))
            super().__init__(Path("/"), Path(self.lasting_home[0].name), ChildLimits(3600.0, limits.memory), **given)
            self.held.append(self)
        self.run(0, CLEAN.format(folder=str(folder)))

    def __exit__(self, *_: Any) -> None: ...
    def __enter__(self) -> Self:
        return self
