"""pandas, up to 3.1: frequencies and units of time."""

from __future__ import annotations

from d2c_mlops.convert.api_changes.change import ApiChange

_START = "import pandas as pd\ndf = pd.read_csv('sales.csv')\n"
FREQUENCIES: dict[str, str | None] = {
    "M": "ME",
    "Q": "QE",
    "Y": "YE",
    "A": "YE",
    "BM": "BME",
    "BQ": "BQE",
    "BY": "BYE",
    "BA": "BYE",
    "SM": "SME",
    "CBM": "CBME",
    "AS": "YS",
    "BAS": "BYS",
    "H": "h",
    "BH": "bh",
    "T": "min",
    "S": "s",
    "L": "ms",
    "U": "us",
    "N": "ns",
}
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
FREQUENCIES |= {
    f"{old}-{month}": f"{new}-{month}"
    for old, new in {"Q": "QE", "A": "YE", "Y": "YE", "AS": "YS"}.items()
    for month in _MONTHS
}
_PERIODS: dict[str, str | None] = {"H": "h", "T": "min", "S": "s", "A": "Y", "BH": "bh"}
_CLOCK: dict[str, str | None] = {key: FREQUENCIES[key] for key in ("H", "T", "S", "L", "U", "N")}


def _frequency_change(
    path: str,
    argument: str,
    position: int | None,
    use: str,
    values: dict[str, str | None],
    since_version: str = "3.0",
) -> ApiChange:
    instead = "the new alias: " + ", ".join(f"{old} is {new}" for old, new in values.items() if "-" not in old)
    return ApiChange(
        "pandas",
        f"pandas.{path}",
        since_version,
        "value",
        instead,
        _START + use,
        argument=argument,
        position=position,
        values=values,
    )


CHANGES: tuple[ApiChange, ...] = (
    *(
        _frequency_change(f"{holder}.{name}", argument, 0, f"x = {start}.{name}('M')", FREQUENCIES)
        for holder, start in (("DataFrame", "df"), ("Series", "df['a']"))
        for name, argument in (("resample", "rule"), ("asfreq", "freq"))
    ),
    *(
        _frequency_change(f"{holder}.shift", "freq", 1, f"x = {start}.shift(1, 'M')", FREQUENCIES)
        for holder, start in (("DataFrame", "df"), ("Series", "df['a']"))
    ),
    _frequency_change("date_range", "freq", 3, "x = pd.date_range('2020', periods=3, freq='M')", FREQUENCIES),
    _frequency_change("bdate_range", "freq", 3, "x = pd.bdate_range('2020', periods=3, freq='BM')", FREQUENCIES),
    _frequency_change("Grouper", "freq", 2, "x = pd.Grouper(key='a', freq='M')", FREQUENCIES),
    _frequency_change("DatetimeIndex", "freq", 1, "x = pd.DatetimeIndex(['2020-01-31'], freq='M')", FREQUENCIES),
    _frequency_change(
        "tseries.frequencies.to_offset", "freq", 0, "x = pd.tseries.frequencies.to_offset('M')", FREQUENCIES
    ),
    _frequency_change("period_range", "freq", 3, "x = pd.period_range('2020', periods=3, freq='H')", _PERIODS),
    _frequency_change("DataFrame.to_period", "freq", 0, "x = df.to_period('H')", _PERIODS),
    _frequency_change("Series.dt.to_period", "freq", 0, "x = df['a'].dt.to_period('A')", _PERIODS),
    *(
        _frequency_change(f"Series.dt.{name}", "freq", 0, f"x = df['a'].dt.{name}('H')", _CLOCK)
        for name in ("floor", "ceil", "round")
    ),
    *(
        ApiChange(
            "pandas",
            f"pandas.{name}",
            "2.0",
            "value",
            "days, or pd.DateOffset(months=1): a month has no fixed length",
            f"{_START}x = pd.{name}(1, 'M')",
            argument="unit",
            position=1,
            values={"M": None, "Y": None, "y": None},
        )
        for name in ("Timedelta", "to_timedelta")
    ),
    *(
        ApiChange(
            "pandas",
            f"pandas.{holder}.astype",
            "2.0",
            "value",
            "a unit that pandas supports (s, ms, us, ns); for whole days use .dt.days, for dates .dt.normalize()",
            f"{_START}x = {start}.astype('{old}')",
            argument="dtype",
            position=0,
            values=dict.fromkeys(
                [f"{kind}64[{unit}]" for kind in ("timedelta", "datetime") for unit in "DMYWhm"]
                + ["datetime64", "timedelta64"]
            ),
        )
        for holder, start, old in (
            ("DataFrame", "df", "datetime64[D]"),
            ("Series", "df['a']", "timedelta64[D]"),
        )
    ),
)
