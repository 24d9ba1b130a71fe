"""Return types of well-known library calls, and the classes that are models, transformers or samplers."""

from __future__ import annotations

import re

from d2c_mlops.convert.source.scopes import split_words

FRAME, SERIES, ARRAY = "pandas.DataFrame", "pandas.Series", "numpy.ndarray"
GROUPS, COLUMN_GROUPS, INDEX = "pandas.DataFrameGroupBy", "pandas.SeriesGroupBy", "pandas.Index"
AXES, FIGURE = "matplotlib.axes.Axes", "matplotlib.figure.Figure"

_FRAME_TO_FRAME = split_words(
    "abs add agg aggregate align append apply applymap asfreq assign astype bfill clip "
    "combine_first compare convert_dtypes copy corr cov cummax cummin cumprod cumsum describe diff "
    "div divide drop drop_duplicates dropna ewm explode ffill fillna filter head infer_objects "
    "interpolate isin isna isnull iteritems join map mask melt merge mul nlargest notna notnull "
    "nsmallest pct_change pipe pivot pivot_table query rank reindex rename rename_axis replace "
    "reset_index round sample select_dtypes set_axis set_index shift sort_index sort_values stack "
    "sub swaplevel tail tail to_period to_timestamp transform transpose truncate tz_convert "
    "tz_localize unstack where"
)
_FRAME_TO_SERIES = split_words(
    "all any count duplicated idxmax idxmin kurt mad max mean median min mode nunique pop prod "
    "quantile sem skew squeeze std sum value_counts var"
)
_SERIES_TO_SERIES = split_words(
    "abs add append apply asfreq astype between bfill clip combine_first copy cumprod cumsum diff "
    "div drop drop_duplicates dropna ffill fillna head interpolate isin isna isnull map mask mul "
    "nlargest notna notnull nsmallest pct_change rank reindex rename replace round sample shift "
    "sort_index sort_values sub tail to_period to_timestamp transform truncate tz_convert "
    "tz_localize value_counts where"
)
_GROUP_RESULTS = split_words(
    "agg aggregate all any apply bfill count cumcount cumsum diff ffill fillna filter first head "
    "last max mean median min nunique prod quantile rank sem shift size std sum tail transform "
    "value_counts var"
)

RETURNS: dict[str, str] = {
    **{
        f"pandas.{name}": FRAME
        for name in [
            "merge",
            "crosstab",
            "pivot_table",
            "melt",
            "get_dummies",
            "json_normalize",
            "pivot",
            "wide_to_long",
        ]
    },
    **{f"pandas.{name}": SERIES for name in ["cut", "qcut", "to_datetime", "to_numeric", "to_timedelta"]},
    **{f"{FRAME}.{name}": FRAME for name in _FRAME_TO_FRAME},
    **{f"{FRAME}.{name}": SERIES for name in _FRAME_TO_SERIES},
    **{f"{SERIES}.{name}": SERIES for name in _SERIES_TO_SERIES},
    **{f"{GROUPS}.{name}": FRAME for name in _GROUP_RESULTS},
    **{f"{COLUMN_GROUPS}.{name}": SERIES for name in _GROUP_RESULTS},
    f"{FRAME}.groupby": GROUPS,
    f"{SERIES}.groupby": COLUMN_GROUPS,
    f"{FRAME}.resample": "pandas.Resampler",
    f"{SERIES}.resample": "pandas.SeriesResampler",
    f"{FRAME}.rolling": "pandas.Rolling",
    f"{SERIES}.rolling": "pandas.SeriesRolling",
    f"{FRAME}.to_numpy": ARRAY,
    f"{SERIES}.to_numpy": ARRAY,
    f"{SERIES}.ravel": ARRAY,
    f"{SERIES}.unique": ARRAY,
    f"{SERIES}.to_frame": FRAME,
    f"{SERIES}.reset_index": FRAME,
    f"{SERIES}.unstack": FRAME,
    **{
        f"pandas.Resampler.{name}": FRAME
        for name in ["sum", "mean", "count", "max", "min", "last", "first", "agg", "ffill", "bfill"]
    },
    **{
        f"pandas.SeriesResampler.{name}": SERIES
        for name in ["sum", "mean", "count", "max", "min", "last", "first", "ffill"]
    },
    **{f"pandas.Rolling.{name}": FRAME for name in ["sum", "mean", "std", "max", "min", "median"]},
    **{f"pandas.SeriesRolling.{name}": SERIES for name in ["sum", "mean", "std", "max", "min", "median"]},
    **{
        f"numpy.{name}": ARRAY
        for name in split_words(
            "arange array asarray concatenate exp full hstack linspace log log1p ones percentile "
            "random.choice random.normal random.rand random.randint random.randn random.uniform reshape "
            "round sqrt vstack where zeros"
        )
    },
    "matplotlib.pyplot.gca": AXES,
    "matplotlib.pyplot.axes": AXES,
    "matplotlib.pyplot.subplot": AXES,
    "matplotlib.pyplot.figure": FIGURE,
    "pmdarima.auto_arima": "pmdarima.arima.ARIMA",
    "sklearn.pipeline.make_pipeline": "sklearn.pipeline.Pipeline",
    "imblearn.pipeline.make_pipeline": "imblearn.pipeline.Pipeline",
    "sklearn.compose.make_column_transformer": "sklearn.compose.ColumnTransformer",
    "keras.models.load_model": "keras.Model",
    "tensorflow.keras.models.load_model": "keras.Model",
}
ATTRIBUTES: dict[str, str] = {
    f"{FRAME}.T": FRAME,
    f"{FRAME}.values": ARRAY,
    f"{SERIES}.values": ARRAY,
    f"{FRAME}.columns": INDEX,
    f"{FRAME}.index": INDEX,
    f"{SERIES}.index": INDEX,
    f"{FRAME}.dtypes": SERIES,
    f"{SERIES}.dt": "pandas.Series.dt",
    f"{SERIES}.str": "pandas.Series.str",
}
FRAME_ATTRIBUTES = frozenset(
    split_words(
        "T at attrs axes ftypes columns dtypes empty flags hist boxplot iat iloc index ix keys loc "
        "ndim plot shape size sparse style values"
    )
)
_TRANSFORMERS = re.compile(
    r"^(sklearn\.(preprocessing|impute|decomposition|feature_selection|feature_extraction(\.text)?|random_projection|"
    r"compose|kernel_approximation|discriminant_analysis\.LinearDiscriminantAnalysis$)|category_encoders|"
    r"feature_engine(\.\w+)*|sklearn\.manifold|factor_analyzer|umap)\."
)
_MODELS = re.compile(
    r"^(sklearn\.(linear_model|ensemble|tree|svm|neighbors|naive_bayes|neural_network|cluster|mixture|gaussian_process|"
    r"discriminant_analysis|dummy|multiclass|multioutput|calibration|isotonic|kernel_ridge|semi_supervised|covariance)"
    r"|sklearn\.(model_selection|grid_search)\.(GridSearchCV|RandomizedSearchCV|HalvingGridSearchCV)|(sklearn|imblearn)\."
    r"pipeline\.Pipeline|xgboost\.XGB|lightgbm\.LGBM|catboost\.CatBoost|statsmodels\.|(fb)?prophet\.Prophet|pmdarima\.|"
    r"(tensorflow\.)?(python\.)?keras\.(\w+\.)*(Sequential|Model)|lifetimes\.\w+Fitter|lifetimes\.fitters|lifelines\.|"
    r"surprise\.|implicit\.|kmodes\.|mlxtend\.(classifier|regressor)|imblearn\.ensemble)"
)
_CLUSTERERS = re.compile(
    r"^(sklearn\.(cluster|mixture)\.|kmodes\.|sklearn\.ensemble\.IsolationForest|sklearn\.covariance)"
)
_SAMPLERS = re.compile(r"^imblearn\.(over_sampling|under_sampling|combine)\.")
_SEARCHES = re.compile(r"\.(GridSearchCV|RandomizedSearchCV|HalvingGridSearchCV|Pipeline|make_pipeline)$")


def is_transformer(path: str) -> bool:
    """Whether a class prepares data: scalers, encoders, imputers, selectors, decompositions."""
    return bool(_TRANSFORMERS.match(path))


def is_model(path: str) -> bool:
    """Whether a class predicts: classifiers, regressors, forecasters, clusterers, and wrappers around them."""
    return bool(_MODELS.match(path)) and not is_transformer(path)


def is_clusterer(path: str) -> bool:
    """Whether a class has no target: clusters, mixtures, outliers."""
    return bool(_CLUSTERERS.match(path))


def is_sampler(path: str) -> bool:
    """Whether a class adds or removes rows to balance classes."""
    return bool(_SAMPLERS.match(path))


def is_wrapper(path: str) -> bool:
    """Whether a class only wraps other estimators: searches and pipelines."""
    return bool(_SEARCHES.search(path))


def returned_class(path: str) -> str:
    """Return the class of the result of a call of `path`; empty if it is not known."""
    inferred = RETURNS.get(path)
    if inferred:
        return inferred
    if path.startswith("pandas.read_") and not path.endswith(("read_html", "read_pickle")):
        return FRAME
    last = path.rpartition(".")[2]
    if last[:1].isupper() and "." in path:
        return path
    return ""
