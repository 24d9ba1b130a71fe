"""SciPy 1.17, statsmodels 0.15 and lifelines 0.30."""

from __future__ import annotations

from d2c_mlops.convert.api_changes.change import ApiChange


def _moved_api(library: str, path: str, since_version: str, replacement: str, *, to: str = "") -> ApiChange:
    module, _, name = path.rpartition(".")
    return ApiChange(library, path, since_version, "gone", replacement, f"from {module} import {name}", to=to)


def _keyword_change(
    library: str, path: str, argument: str, since_version: str, replacement: str, *, to: str = "", value: str = "1"
) -> ApiChange:
    module, _, name = path.rpartition(".")
    example = f"from {module} import {name}\nx = {name}(y, {argument}={value})"
    return ApiChange(library, path, since_version, "keyword", replacement, example, argument=argument, to=to)


_COX = "lifelines.CoxPHFitter"
_FITTED = "from lifelines import CoxPHFitter\nc = CoxPHFitter()\nx = c."
_OLD_ARIMA = "the model of statsmodels.tsa.arima.model or SARIMAX; .fit(disp=...) and the tuple returned by forecast() were removed too"
CHANGES: tuple[ApiChange, ...] = (
    *(
        ApiChange("lifelines", f"{_COX}.{old}", "0.25", "gone", f".{new}", f"{_FITTED}{old}", to=f"{_COX}.{new}")
        for old, new in (
            ("score_", "concordance_index_"),
            ("plot_covariate_groups", "plot_partial_effects_on_outcome"),
        )
    ),
    *(
        _moved_api("scipy", f"scipy.misc.{name}", since, new, to=new)
        for name, since, new in (
            ("comb", "1.3", "scipy.special.comb"),
            ("factorial", "1.3", "scipy.special.factorial"),
            ("logsumexp", "1.3", "scipy.special.logsumexp"),
            ("imread", "1.3", "imageio.imread"),
            ("electrocardiogram", "1.12", "scipy.datasets.electrocardiogram"),
        )
    ),
    _moved_api("scipy", "scipy.misc.imresize", "1.3", "PIL.Image.resize"),
    _moved_api("scipy", "scipy.misc.derivative", "1.12", "your own central difference, or scipy.differentiate"),
    *(
        _moved_api("scipy", f"scipy.{name}", since, f"numpy.{new}", to=f"numpy.{new}")
        for name, since, new in (
            ("interp", "1.10", "interp"),
            ("array", "1.12", "array"),
            ("mean", "1.12", "mean"),
            ("randn", "1.10", "random.randn"),
            ("rand", "1.10", "random.rand"),
            ("log", "1.12", "log"),
            ("sqrt", "1.12", "sqrt"),
            ("exp", "1.12", "exp"),
            ("arange", "1.12", "arange"),
            ("linspace", "1.12", "linspace"),
            ("zeros", "1.12", "zeros"),
            ("ones", "1.12", "ones"),
            ("pi", "1.12", "pi"),
            ("nan", "1.12", "nan"),
            ("inf", "1.12", "inf"),
        )
    ),
    *(
        _moved_api("scipy", f"scipy.integrate.{old}", "1.14", f"scipy.integrate.{new}", to=f"scipy.integrate.{new}")
        for old, new in {"trapz": "trapezoid", "simps": "simpson", "cumtrapz": "cumulative_trapezoid"}.items()
    ),
    _moved_api("scipy", "scipy.stats.itemfreq", "1.3", "numpy.unique(values, return_counts=True)"),
    _moved_api("scipy", "scipy.stats.binom_test", "1.12", "scipy.stats.binomtest(...).pvalue"),
    _moved_api(
        "scipy",
        "scipy.stats.median_absolute_deviation",
        "1.9",
        "scipy.stats.median_abs_deviation, which has another default scale",
    ),
    _moved_api("scipy", "scipy.stats.signaltonoise", "1.0", "the mean divided by the standard deviation"),
    *(
        _moved_api(
            "scipy",
            f"scipy.signal.{name}",
            "1.13",
            f"scipy.signal.windows.{name}",
            to=f"scipy.signal.windows.{name}",
        )
        for name in ("gaussian", "hann", "hamming", "blackman", "boxcar", "triang")
    ),
    _moved_api("scipy", "scipy.linalg.pinv2", "1.9", "scipy.linalg.pinv", to="scipy.linalg.pinv"),
    _moved_api("scipy", "scipy.interpolate.interp2d", "1.14", "RegularGridInterpolator"),
    *(
        _moved_api("statsmodels", f"statsmodels.tsa.arima_model.{name}", "0.13", _OLD_ARIMA)
        for name in ("ARIMA", "ARMA", "ARIMAResults", "ARMAResults")
    ),
    _moved_api("statsmodels", "statsmodels.tsa.ar_model.AR", "0.13", "statsmodels.tsa.ar_model.AutoReg"),
    *(
        _moved_api(
            "statsmodels",
            f"statsmodels.formula.api.{name}",
            "0.14",
            f"statsmodels.formula.api.{name.lower()}, or statsmodels.api.{name} for arrays",
        )
        for name in ("OLS", "GLS", "WLS", "GLM", "Logit", "Probit", "Poisson")
    ),
    *(
        _keyword_change(
            "statsmodels", f"{module}.seasonal_decompose", "freq", "0.13", "period=", to="period", value="12"
        )
        for module in ("statsmodels.tsa.seasonal", "statsmodels.api.tsa")
    ),
    *(
        _keyword_change(
            "statsmodels",
            f"statsmodels.tsa.stattools.{name}",
            "unbiased",
            "0.14",
            "adjusted=",
            to="adjusted",
            value="True",
        )
        for name in ("acf", "acovf")
    ),
    *(
        _keyword_change(
            "statsmodels",
            f"{module}.{name}",
            "damped",
            "0.14",
            "damped_trend=",
            to="damped_trend",
            value="True",
        )
        for module in ("statsmodels.tsa.holtwinters", "statsmodels.tsa.api")
        for name in ("ExponentialSmoothing", "Holt")
    ),
    _keyword_change(
        "statsmodels",
        "statsmodels.tsa.stattools.grangercausalitytests",
        "verbose",
        "0.15",
        "nothing",
        value="False",
    ),
)
