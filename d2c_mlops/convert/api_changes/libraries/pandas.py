"""pandas, up to 3.1."""

from __future__ import annotations

from d2c_mlops.convert.api_changes.change import ApiChange
from d2c_mlops.convert.source.finding import Severity

_START = "import pandas as pd\ndf = pd.read_csv('sales.csv')\n"


def _removed_api(name: str, since_version: str, replacement: str, *, to: str = "", use: str = "") -> ApiChange:
    example = f"import pandas as pd\nx = pd.{name}{use}"
    return ApiChange("pandas", f"pandas.{name}", since_version, "gone", replacement, example, to=to)


def _method_change(
    holders: str, name: str, since_version: str, replacement: str, *, to: str = "", use: str = "()"
) -> tuple[ApiChange, ...]:
    starts = {"DataFrame": "df", "Series": "df['a']"}
    return tuple(
        ApiChange(
            "pandas",
            f"pandas.{holder}.{name}",
            since_version,
            "gone",
            replacement,
            f"{_START}x = {starts[holder]}.{name}{use}",
            to=f"pandas.{holder}.{to}" if to else "",
        )
        for holder in holders.split()
    )


def _keyword_change(
    path: str,
    argument: str,
    since_version: str,
    replacement: str,
    use: str,
    *,
    to: str = "",
    droppable: tuple[object, ...] = (),
    severity: Severity = "error",
) -> ApiChange:
    return ApiChange(
        "pandas",
        f"pandas.{path}",
        since_version,
        "keyword",
        replacement,
        _START + use,
        argument=argument,
        to=to,
        droppable=droppable,
        severity=severity,
    )


def _positional_change(path: str, position: int, names: str, use: str, since_version: str = "2.0") -> ApiChange:
    words = tuple(names.split())
    instead = f"name them: {', '.join(f'{word}=' for word in words)}"
    return ApiChange(
        "pandas", f"pandas.{path}", since_version, "positional", instead, _START + use, position=position, names=words
    )


_BOTH = "DataFrame Series"
CHANGES: tuple[ApiChange, ...] = (
    _removed_api("datetime", "2.0", "datetime.datetime, after `from datetime import datetime`", use=".now()"),
    _removed_api("np", "2.0", "numpy itself: import numpy as np", use=".nan"),
    _removed_api("Panel", "1.0", "a DataFrame with a MultiIndex, or xarray"),
    _removed_api("tools", "1.0", "pandas.plotting for plots, pandas itself for the rest", use=".plotting"),
    _removed_api(
        "scatter_matrix", "1.0", "pd.plotting.scatter_matrix", to="pandas.plotting.scatter_matrix", use="(df)"
    ),
    _removed_api("TimeGrouper", "1.0", "pd.Grouper(freq=...)", use="('ME')"),
    _removed_api("rolling_mean", "1.0", "series.rolling(n).mean()", use="(s, 3)"),
    _removed_api("rolling_std", "1.0", "series.rolling(n).std()", use="(s, 3)"),
    _removed_api("rolling_sum", "1.0", "series.rolling(n).sum()", use="(s, 3)"),
    _removed_api("ewma", "1.0", "series.ewm(...).mean()", use="(s, 3)"),
    _removed_api("value_counts", "3.0", "pd.Series(values).value_counts()", use="(s)"),
    _removed_api("match", "1.0", "Index.get_indexer"),
    _removed_api("Int64Index", "2.0", "pd.Index(..., dtype='int64')"),
    _removed_api("Float64Index", "2.0", "pd.Index(..., dtype='float64')"),
    _removed_api("UInt64Index", "2.0", "pd.Index(..., dtype='uint64')"),
    _removed_api("datetools", "1.0", "pd.tseries.offsets"),
    _removed_api("io.json.json_normalize", "2.0", "pd.json_normalize", to="pandas.json_normalize", use="(d)"),
    _removed_api("util.testing", "2.0", "pd.testing", to="pandas.testing"),
    _removed_api("core.algorithms.quantile", "2.0", "np.quantile"),
    *_method_change(_BOTH, "append", "2.0", "pd.concat([a, b])", use="(other)"),
    *_method_change(_BOTH, "ix", "1.0", ".loc for labels, .iloc for positions", use="[0]"),
    *_method_change("DataFrame", "lookup", "2.0", ".loc with one label each, or melt and query", use="(r, c)"),
    *_method_change(_BOTH, "iteritems", "2.0", ".items()", to="items"),
    *_method_change(_BOTH, "mad", "2.0", "(s - s.mean()).abs().mean()"),
    *_method_change(_BOTH, "as_matrix", "1.0", ".to_numpy()", to="to_numpy"),
    *_method_change("DataFrame", "applymap", "3.0", ".map()", to="map", use="(str)"),
    *_method_change("DataFrame", "sort", "1.0", ".sort_values(...) or .sort_index()", use="('a')"),
    *_method_change("Series", "order", "1.0", ".sort_values()", to="sort_values"),
    *_method_change(_BOTH, "get_value", "1.0", ".at[row, column]", use="(0, 'a')"),
    *_method_change(_BOTH, "set_value", "1.0", ".at[row, column] = value", use="(0, 'a', 1)"),
    *_method_change(_BOTH, "tshift", "2.0", ".shift(freq=...)"),
    *_method_change(_BOTH, "slice_shift", "2.0", ".shift(...)"),
    *_method_change(_BOTH, "pad", "3.0", ".ffill()", to="ffill"),
    *_method_change(_BOTH, "backfill", "3.0", ".bfill()", to="bfill"),
    *_method_change("DataFrame", "swapaxes", "3.0", ".T or .transpose()", use="(0, 1)"),
    *_method_change(_BOTH, "first", "3.0", ".loc with a mask on the index", use="('3D')"),
    *_method_change(_BOTH, "last", "3.0", ".loc with a mask on the index", use="('3D')"),
    *_method_change("DataFrame", "bool", "3.0", ".iloc[0, 0]"),
    *_method_change("Series", "bool", "3.0", ".item()", to="item"),
    *_method_change(_BOTH, "from_csv", "1.0", "pd.read_csv(..., index_col=0)"),
    *_method_change("DataFrame", "ftypes", "1.0", ".dtypes", to="dtypes", use=""),
    *_method_change("DataFrame", "get_dtype_counts", "1.0", ".dtypes.value_counts()"),
    *_method_change("Series", "ravel", "3.0", ".to_numpy()", to="to_numpy"),
    *_method_change("Series", "view", "3.0", ".astype(...)", use="('int64')"),
    *_method_change("Series", "is_monotonic", "2.0", ".is_monotonic_increasing", to="is_monotonic_increasing", use=""),
    *_method_change("Series", "dt.week", "2.0", ".dt.isocalendar().week", use=""),
    *_method_change("Series", "dt.weekofyear", "2.0", ".dt.isocalendar().week", use=""),
    *_method_change("Series", "dt.weekday_name", "1.0", ".dt.day_name()", use=""),
    *(
        ApiChange(
            "pandas", f"pandas.DatetimeIndex.{name}", since, "gone", instead, f"{_START}x = pd.DatetimeIndex([]).{name}"
        )
        for name, since, instead in (
            ("week", "2.0", ".isocalendar().week"),
            ("weekofyear", "2.0", ".isocalendar().week"),
            ("weekday_name", "1.0", ".day_name()"),
        )
    ),
    *(
        change
        for position in (0, 1)
        for holder, start in (("DataFrame", "df"), ("Series", "df['a']"))
        for change in [
            ApiChange(
                "pandas",
                f"pandas.{holder}.{('interpolate', 'pct_change')[position]}",
                "3.0",
                "value",
                ".ffill() or .bfill(), then the call",
                f"{_START}{start}.{('interpolate', 'pct_change')[position]}({('method', 'fill_method')[position]}='pad')",
                argument=("method", "fill_method")[position],
                values={"pad": None, "ffill": None, "bfill": None, "backfill": None},
            )
        ]
    ),
    *(
        _keyword_change(
            f"{holder}.fillna", "method", "3.0", ".ffill() or .bfill()", f"x = {start}.fillna(method='ffill')"
        )
        for holder, start in (("DataFrame", "df"), ("Series", "df['a']"))
    ),
    *(
        _keyword_change(
            f"{holder}.replace",
            "method",
            "3.0",
            ".ffill() after masking",
            f"x = {start}.replace(0, method='ffill')",
        )
        for holder, start in (("DataFrame", "df"), ("Series", "df['a']"))
    ),
    _keyword_change(
        "DataFrame.groupby",
        "axis",
        "3.0",
        "df.T.groupby(...) for columns",
        "x = df.groupby('a', axis=0)",
        droppable=(0, "index"),
    ),
    _keyword_change(
        "Series.groupby",
        "axis",
        "3.0",
        "nothing: a Series has only rows",
        "x = df['a'].groupby('b', axis=0)",
        droppable=(0, "index"),
    ),
    _keyword_change(
        "DataFrame.groupby",
        "squeeze",
        "2.0",
        "nothing; squeeze the result",
        "x = df.groupby('a', squeeze=False)",
        droppable=(False,),
    ),
    *(
        _keyword_change(
            f"{holder}.resample",
            argument,
            since,
            instead,
            f"x = {start}.resample('D', {argument}={value})",
            droppable=drop,
        )
        for holder, start in (("DataFrame", "df"), ("Series", "df['a']"))
        for argument, since, instead, value, drop in (
            ("how", "1.0", "a method after the call: .resample('D').sum()", "'sum'", ()),
            ("fill_method", "1.0", "a method after the call: .resample('D').ffill()", "'ffill'", ()),
            ("base", "2.0", "offset= or origin=", "1", (0,)),
            ("loffset", "2.0", "shift the index of the result", "'1D'", (None,)),
            ("kind", "3.0", ".to_period() on the result", "'period'", (None,)),
            ("axis", "3.0", "transpose first", "0", (0,)),
        )
    ),
    *(
        _keyword_change(
            f"{holder}.rolling",
            "axis",
            "3.0",
            "transpose first",
            f"x = {start}.rolling(3, axis=0)",
            droppable=(0,),
        )
        for holder, start in (("DataFrame", "df"), ("Series", "df['a']"))
    ),
    *(
        _keyword_change(
            f"{holder}.{name}",
            "level",
            "2.0",
            f".groupby(level=...).{name}()",
            f"x = {start}.{name}(level=0)",
        )
        for holder, start in (("DataFrame", "df"), ("Series", "df['a']"))
        for name in ("sum", "mean", "count", "max", "min", "median")
    ),
    *(
        _keyword_change(
            f"{reader}",
            argument,
            since,
            instead,
            f"x = pd.{reader}('a.csv', {argument}={value})",
            droppable=drop,
        )
        for reader in ("read_csv", "read_table")
        for argument, since, instead, value, drop in (
            ("error_bad_lines", "2.0", "on_bad_lines='skip'", "False", (True,)),
            ("warn_bad_lines", "2.0", "on_bad_lines='warn'", "True", (True,)),
            ("squeeze", "2.0", ".squeeze('columns') on the result", "True", (False,)),
            ("prefix", "2.0", ".add_prefix(...) on the result", "'x'", (None,)),
            ("mangle_dupe_cols", "2.0", "nothing: names are always made unique", "True", (True,)),
            ("infer_datetime_format", "3.0", "nothing: the format is always inferred", "True", (True, False)),
            ("date_parser", "3.0", "date_format=, or pd.to_datetime afterwards", "f", (None,)),
            ("delim_whitespace", "3.0", r"sep=r'\s+'", "True", (False,)),
            ("keep_date_col", "3.0", "keep the columns and combine them yourself", "True", (False,)),
            ("verbose", "3.0", "nothing", "True", (True, False)),
        )
    ),
    _keyword_change(
        "read_excel",
        "sheetname",
        "1.0",
        "sheet_name=",
        "x = pd.read_excel('a.xlsx', sheetname=0)",
        to="sheet_name",
    ),
    _keyword_change(
        "read_excel",
        "parse_cols",
        "1.0",
        "usecols=",
        "x = pd.read_excel('a.xlsx', parse_cols=2)",
        to="usecols",
    ),
    _keyword_change(
        "to_datetime",
        "infer_datetime_format",
        "3.0",
        "nothing: the format is always inferred",
        "x = pd.to_datetime(df['a'], infer_datetime_format=True)",
        droppable=(True, False),
    ),
    _keyword_change(
        "DataFrame.to_csv",
        "line_terminator",
        "2.0",
        "lineterminator=",
        r"df.to_csv('b.csv', line_terminator='\n')",
        to="lineterminator",
    ),
    _keyword_change(
        "DataFrame.to_excel",
        "encoding",
        "2.0",
        "nothing: Excel files are Unicode",
        "df.to_excel('b.xlsx', encoding='utf-8')",
        droppable=("utf-8", "utf8", "UTF-8", None),
    ),
    _keyword_change(
        "DataFrame.describe",
        "datetime_is_numeric",
        "2.0",
        "nothing: dates are always treated as numbers",
        "x = df.describe(datetime_is_numeric=True)",
        droppable=(True,),
    ),
    _keyword_change(
        "Series.describe",
        "datetime_is_numeric",
        "2.0",
        "nothing: dates are always treated as numbers",
        "x = df['a'].describe(datetime_is_numeric=True)",
        droppable=(True,),
    ),
    _keyword_change(
        "date_range",
        "closed",
        "2.0",
        "inclusive=",
        "x = pd.date_range('2020', periods=3, closed='left')",
        to="inclusive",
    ),
    _keyword_change(
        "concat",
        "join_axes",
        "1.0",
        ".reindex(...) on the result",
        "x = pd.concat([df, df], join_axes=[df.index])",
    ),
    *(
        _positional_change(path, position, names, use)
        for path, position, names, use in (
            ("DataFrame.drop", 1, "axis index columns level inplace errors", "x = df.drop('a', 1)"),
            ("Series.drop", 1, "axis index columns level inplace errors", "x = df['a'].drop(0, 0)"),
            ("DataFrame.dropna", 0, "axis how thresh subset inplace", "x = df.dropna(1)"),
            ("DataFrame.sort_values", 1, "axis ascending inplace", "x = df.sort_values('a', 0, False)"),
            ("DataFrame.sort_index", 0, "axis level ascending inplace", "x = df.sort_index(0)"),
            (
                "DataFrame.set_index",
                1,
                "drop append inplace verify_integrity",
                "x = df.set_index('a', False)",
            ),
            ("DataFrame.fillna", 1, "method axis inplace limit", "x = df.fillna(0, None)"),
            ("Series.fillna", 1, "method axis inplace limit", "x = df['a'].fillna(0, None)"),
            (
                "DataFrame.drop_duplicates",
                1,
                "keep inplace ignore_index",
                "x = df.drop_duplicates('a', 'first')",
            ),
            ("DataFrame.pivot", 0, "index columns values", "x = df.pivot('a', 'b', 'c')"),
            (
                "DataFrame.to_csv",
                1,
                "sep na_rep float_format columns header index",
                "df.to_csv('b.csv', ';')",
            ),
            ("DataFrame.any", 0, "axis bool_only skipna", "x = df.any(1)"),
            ("DataFrame.all", 0, "axis bool_only skipna", "x = df.all(1)"),
            ("concat", 1, "axis join ignore_index", "x = pd.concat([df, df], 1)"),
            ("read_csv", 1, "sep", "x = pd.read_csv('a.csv', ';')"),
            ("read_table", 1, "sep", "x = pd.read_table('a.csv', ';')"),
            ("Series.str.split", 1, "n expand", "x = df['a'].str.split(',', 1)"),
            ("Series.str.rsplit", 1, "n expand", "x = df['a'].str.rsplit(',', 1)"),
        )
    ),
    ApiChange(
        "pandas",
        "pandas.Series.between",
        "2.0",
        "value",
        "inclusive='both' or 'neither'",
        f"{_START}x = df['a'].between(1, 2, inclusive=True)",
        argument="inclusive",
        values={"True": "both", "False": "neither"},
    ),
    ApiChange(
        "pandas",
        "pandas.set_option",
        "2.0",
        "value",
        "None for no limit",
        "import pandas as pd\npd.set_option('mode.use_inf_as_na', True)",
        position=0,
        values={
            "mode.use_inf_as_na": None,
            "mode.use_inf_as_null": None,
            "display.height": None,
            "display.line_width": None,
        },
    ),
    ApiChange(
        "pandas",
        "pandas.get_dummies",
        "2.0",
        "behaviour",
        "dtype=int if 0 and 1 are expected: the new columns contain True and False",
        f"{_START}x = pd.get_dummies(df)",
        argument="dtype",
        severity="info",
    ),
)
