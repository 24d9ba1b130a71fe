"""NumPy, up to 2.4."""

from __future__ import annotations

from d2c_mlops.convert.api_changes.change import ApiChange


def _removed_api(
    name: str, since_version: str, replacement: str, *, to: str = "", text: str = "", example: str = ""
) -> ApiChange:
    example = example or f"import numpy as np\nx = np.{name}"
    return ApiChange("numpy", f"numpy.{name}", since_version, "gone", replacement, example, to=to, text=text)


CHANGES = (
    *(
        _removed_api(name, "1.24", f"{text} or a sized type such as np.{text}64", text=text)
        for name, text in {"int": "int", "float": "float", "complex": "complex"}.items()
    ),
    *(
        _removed_api(name, "1.24", text, text=text)
        for name, text in {"object": "object", "str": "str", "unicode": "str"}.items()
    ),
    *(
        _removed_api(old, "2.0", f"np.{new}", to=f"numpy.{new}")
        for old, new in {
            "NaN": "nan",
            "NAN": "nan",
            "Inf": "inf",
            "Infinity": "inf",
            "infty": "inf",
            "PINF": "inf",
            "float_": "float64",
            "complex_": "complex128",
            "unicode_": "str_",
            "string_": "bytes_",
            "round_": "round",
            "product": "prod",
            "cumproduct": "cumprod",
            "sometrue": "any",
            "alltrue": "all",
            "bool8": "bool_",
        }.items()
    ),
    _removed_api("NINF", "2.0", "-np.inf"),
    _removed_api("PZERO", "2.0", "0.0", text="0.0"),
    _removed_api("NZERO", "2.0", "-0.0"),
    _removed_api("asscalar", "1.23", "the array's own .item()", example="import numpy as np\nx = np.asscalar(a)"),
    _removed_api("asfarray", "2.0", "np.asarray(a, dtype=float)", example="import numpy as np\nx = np.asfarray(a)"),
    _removed_api("mat", "2.0", "np.asmatrix", to="numpy.asmatrix", example="import numpy as np\nx = np.mat(a)"),
    _removed_api("msort", "2.0", "np.sort(a, axis=0)", example="import numpy as np\nx = np.msort(a)"),
    _removed_api("rank", "1.18", "np.ndim", to="numpy.ndim", example="import numpy as np\nx = np.rank(a)"),
    _removed_api("trapz", "2.4", "np.trapezoid", to="numpy.trapezoid", example="import numpy as np\nx = np.trapz(y)"),
    _removed_api("in1d", "2.4", "np.isin", to="numpy.isin", example="import numpy as np\nx = np.in1d(a, b)"),
    _removed_api("find_common_type", "2.0", "np.result_type"),
    _removed_api("cast", "2.0", "np.asarray(a, dtype=...)"),
    _removed_api("source", "2.0", "inspect.getsource"),
    _removed_api("issubclass_", "2.0", "issubclass", text="issubclass"),
    _removed_api("typeDict", "1.24", "np.sctypeDict", to="numpy.sctypeDict"),
    _removed_api("lookfor", "2.0", "the search on numpy.org"),
    *(
        ApiChange(
            "numpy",
            f"numpy.{name}",
            "2.4",
            "keyword",
            "method=",
            f"import numpy as np\nx = np.{name}(a, 50, interpolation='lower')",
            argument="interpolation",
            to="method",
        )
        for name in ("percentile", "quantile", "nanpercentile", "nanquantile")
    ),
)
