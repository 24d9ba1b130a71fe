"""Look up installed modules without importing them."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path

from d2c_mlops.convert.source.path_exists import is_file, is_folder

DISTRIBUTIONS = {
    "Bio": "biopython",
    "PIL": "pillow",
    "apyori": "apyori",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "category_encoders": "category-encoders",
    "community": "python-louvain",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "factor_analyzer": "factor-analyzer",
    "fbprophet": "prophet",
    "feature_engine": "feature-engine",
    "fuzzywuzzy": "fuzzywuzzy",
    "gensim": "gensim",
    "git": "gitpython",
    "google.cloud": "google-cloud-storage",
    "imblearn": "imbalanced-learn",
    "jwt": "pyjwt",
    "kmodes": "kmodes",
    "linearmodels": "linearmodels",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "mysql": "mysql-connector-python",
    "mysqldb": "mysqlclient",
    "pandas_profiling": "ydata-profiling",
    "pandas_datareader": "pandas-datareader",
    "plotly": "plotly",
    "psycopg2": "psycopg2-binary",
    "pylab": "matplotlib",
    "pyramid": "pmdarima",
    "scikitplot": "scikit-plot",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "sklearn_pandas": "sklearn-pandas",
    "skopt": "scikit-optimize",
    "surprise": "scikit-surprise",
    "umap": "umap-learn",
    "win32com": "pywin32",
    "xgboost": "xgboost",
    "yaml": "pyyaml",
    "ydata_profiling": "ydata-profiling",
    "yellowbrick": "yellowbrick",
    "zmq": "pyzmq",
}
_DYNAMIC = re.compile(
    r"\b(?:def __getattr__|lazy_loader|_LazyModule|globals\(\)|sys\.modules|__path__|exec\(|setattr\()|^[ \t]*(?:from[ \t]+\S+[ \t]+)?import[ \t]+\*",
    re.MULTILINE,
)


def distribution_of(module: str) -> str:
    """Return the name under which a package is installed: scikit-learn for sklearn."""
    return DISTRIBUTIONS.get(module, module.replace("_", "-"))


@cache
def is_installed(module: str) -> bool:
    """Whether a top-level module can be found."""
    if module in sys.builtin_module_names or module in sys.stdlib_module_names or module in sys.modules:
        return True
    try:
        return PathFinder.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


@cache
def missing_member(module: str, member: str) -> str:
    """Return the name that an import will not find in an installed package, by its files; empty if it is found or unsure."""
    top, *inner = module.split(".")
    if top in sys.builtin_module_names or not is_installed(top):
        return ""
    try:
        spec = PathFinder.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return ""
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    place = Path(spec.origin)
    for part in inner:
        if place.name != "__init__.py":
            return "" if _is_dynamic(place) or part in _read_pins(place) else f"`{module}` is not a package"
        step = _submodule_file(place.parent, part)
        if step is None:
            return (
                ""
                if _is_dynamic(place) or _mentions_version(place, part)
                else f"`{module}` is not in the installed {distribution_of(top)}"
            )
        if step.suffix != ".py":
            return ""
        place = step
    if not member or _is_dynamic(place) or _mentions_version(place, member):
        return ""
    if place.name == "__init__.py" and _submodule_file(place.parent, member) is not None:
        return ""
    return f"`{member}` is not in `{module}` of the installed {distribution_of(top)}"


def _submodule_file(folder: Path, name: str) -> Path | None:
    """The file behind a submodule; a folder without __init__ counts as itself."""
    if is_file(folder / name / "__init__.py"):
        return folder / name / "__init__.py"
    for suffix in (".py", *EXTENSION_SUFFIXES, ".pyi"):
        if is_file(folder / f"{name}{suffix}"):
            return folder / f"{name}{suffix}"
    return folder / name if is_folder(folder / name) else None


def _mentions_version(place: Path, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", _read_pins(place)) is not None


def _is_dynamic(place: Path) -> bool:
    return _DYNAMIC.search(_read_pins(place)) is not None


@cache
def _read_pins(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


OWN_NAMES = frozenset(  # of packages that authors write themselves: what an index has under them is somebody else's
    "src utils util config configs settings helpers helper common lib libs core tools models features data preprocessing "  # noqa: SIM905
    "pipeline pipelines scripts modules functions constants paths my_utils utilities".split()
)
# Module: the distribution to install for it, where that is another one than is known above or than its name says.
TO_INSTALL = {
    "Bio": "biopython", "Crypto": "pycryptodome", "MySQLdb": "mysqlclient", "PIL": "pillow", "bs4": "beautifulsoup4",
    "category_encoders": "category-encoders", "cv2": "opencv-python-headless", "dateutil": "python-dateutil",
    "docx": "python-docx", "dotenv": "python-dotenv", "factor_analyzer": "factor-analyzer", "fbprophet": "prophet",
    "feature_engine": "feature-engine", "fitz": "pymupdf", "graphviz": "graphviz", "haversine": "haversine",
    "imblearn": "imbalanced-learn", "keras": "tensorflow", "kmodes": "kmodes", "lifetimes": "lifetimes",
    "mpl_toolkits.basemap": "basemap", "pandas_datareader": "pandas-datareader", "pandas_profiling": "ydata-profiling",
    "plotly_express": "plotly", "pptx": "python-pptx", "psycopg2": "psycopg2-binary", "pyramid": "pmdarima",
    "scikitplot": "scikit-plot", "serial": "pyserial", "skimage": "scikit-image", "sklearn": "scikit-learn",
    "skopt": "scikit-optimize", "surprise": "scikit-surprise", "tensorflow": "tensorflow-cpu", "umap": "umap-learn", "wx": "wxPython",
    "yaml": "pyyaml", "ydata_profiling": "ydata-profiling", "yfinance": "yfinance", "zmq": "pyzmq",
    "chart_studio": "chart-studio", "implicit": "implicit", "squarify": "squarify", "wordcloud": "wordcloud",
    "apyori": "apyori", "mlxtend": "mlxtend", "catboost": "catboost", "pmdarima": "pmdarima", "shap": "shap", "tables": "tables",
}  # fmt: skip
TO_INSTALL["keras"] = "tensorflow-cpu"
TO_INSTALL["pkg_resources"] = "setuptools<81"
