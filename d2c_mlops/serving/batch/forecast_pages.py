"""A page for each series of a forecast: history, forecast, interval, parts and reasons, with a searchable list. A folder that any browser opens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from jinja2 import Environment
from numpy.typing import NDArray

from d2c_mlops.data.store import translate_full_disk
from d2c_mlops.errors import UsageError
from d2c_mlops.file_lock import lock
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.models.forecasting.forecasts import LearnedDemand
from d2c_mlops.models.forecasting.intervals import VALUES
from d2c_mlops.models.forecasting.periods import WORDS, ends_after
from d2c_mlops.models.forecasting.reasons import contributions, forecast_reasons
from d2c_mlops.registry.versions import Version, load_version
from d2c_mlops.serving.batch.parquet_folder import lock_folder
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import home_path

CHUNK = 100  # series in a file, which a browser loads when one of them is looked at
DIGITS = 2  # of the numbers
LEAST_PART = 0.005  # units that a part has on some step at least
INDEX, DATA = "index.html", "data"


def write_pages(version: Version, settings: Settings, folder: Path) -> int:
    """Write the pages of all series into a folder, which is replaced as a whole, and return how many there are.

    Raises UsageError where the version is no demand forecast, or the folder has other files.
    """
    model = load_version(version, settings)
    if not isinstance(model, DemandForecaster):
        raise UsageError(
            f"{version.model} is no demand forecast", where="--pages", next="leave --pages out, or name a forecast"
        )
    target = home_path(str(folder)).resolve()
    require_own_folder(target)
    draft, former = (target.with_name(f".{target.name}.{state}") for state in ("draft", "former"))
    with lock(lock_folder(target, settings), str(target), settings.lock_wait), translate_full_disk(target.parent):
        if former.exists() and not target.exists():  # killed between the two renames
            former.rename(target)
        for leftover in (draft, former):
            shutil.rmtree(leftover, ignore_errors=True)
        (draft / DATA).mkdir(parents=True)
        for number, content in enumerate(series_chunks(model.learned)):
            (draft / DATA / f"{number:05d}.js").write_text(f"addChunk({number},{content})\n", encoding="utf-8")
        (draft / INDEX).write_text(index_page(model, version), encoding="utf-8")
        if target.exists():
            target.rename(former)
        draft.rename(target)
        shutil.rmtree(former, ignore_errors=True)
    return len(model.learned.panel.series)


def require_own_folder(target: Path) -> None:
    """Raise UsageError where `target` cannot be replaced by pages: a file, a folder with other files, or below a folder that does not exist."""
    if not target.parent.is_dir():
        raise UsageError("the folder does not exist", where=str(target.parent), next=f"mkdir -p {target.parent}")
    if target.exists() and not target.is_dir():
        raise UsageError("there is a file of this name", where=str(target), next="name another folder")
    names = {path.name for path in target.iterdir()} if target.exists() else set()
    data = target / DATA
    if data.is_dir():
        names |= {f"{DATA}/{path.name}" for path in data.iterdir() if path.suffix != ".js"}
    if foreign := sorted(names - {INDEX, DATA}):
        raise UsageError(
            f"the folder holds other files ({foreign[0]}) and would be replaced as a whole",
            where=str(target),
            next="name another folder",
        )


def script_json(content: Any) -> str:
    """Return content as JSON that a script element of HTML may hold; NaN is null."""
    text = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def index_page(model: DemandForecaster, version: Version) -> str:
    """Return the page with the list, which draws a series from its file."""
    learned = model.learned
    sums = learned.answers[..., 0].sum(axis=0)
    word = WORDS[learned.panel.freq]
    about = {
        "names": learned.panel.series,
        "sums": np.round(sums, DIGITS),
        "largest": int(np.argmax(sums)) if len(sums) else 0,
        "past": learned.panel.dates.astype(str).tolist(),
        "ahead": ends_after(learned.as_of, len(learned.answers), learned.panel.freq).astype(str).tolist(),
        "word": word,
        "chunk": CHUNK,
    }
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("d2c_mlops.serving.batch").joinpath("forecast_pages.html").read_text(encoding="utf-8")
    )
    return template.render(
        model=version.model,
        version=version.version,
        as_of=learned.as_of.isoformat(),
        word=word,
        count=f"{len(learned.panel.series):,}",
        notes=model.notes,
        about=script_json(about),
    )


def series_chunks(learned: LearnedDemand) -> Iterator[str]:
    """Yield the JSON of CHUNK series after CHUNK series, in the order of the panel."""
    for first in range(0, len(learned.panel.series), CHUNK):
        codes = np.arange(first, min(first + CHUNK, len(learned.panel.series)))
        parts = parts_of_series(learned, codes)
        yield script_json([series_values(learned, code, parts[number]) for number, code in enumerate(codes.tolist())])


def parts_of_series(learned: LearnedDemand, codes: NDArray[np.int64]) -> list[dict[str, NDArray[np.float64]]]:
    """Return the parts of the forecast of each series by name, in units by step; parts that are nothing on every step are left out."""
    steps = len(learned.answers)
    rows = contributions(learned, codes.repeat(steps), np.tile(np.arange(steps), len(codes)))
    values = np.round(rows.to_numpy().reshape(len(codes), steps, -1), DIGITS)
    return [
        {name: part for name, part in zip(rows.columns, of_series.T, strict=True) if np.abs(part).max() >= LEAST_PART}
        for of_series in values
    ]


def series_values(learned: LearnedDemand, code: int, parts: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return what the page of a series shows."""
    answers = np.round(learned.answers[:, code], DIGITS)
    low, high = (answers[:, VALUES.index(f"{side}_80")] for side in ("lower", "upper"))
    return {
        "name": learned.panel.series[code],
        "sold": np.round(learned.panel.sold[:, code], DIGITS),
        "forecast": answers[:, 0].copy(),
        "low": low.copy(),
        "high": high.copy(),
        "parts": {name: part.copy() for name, part in parts.items()},
        "reasons": forecast_reasons(learned, code, 0),
    }
