"""Keras 3, TensorFlow 2, Prophet, XGBoost, imbalanced-learn and other packages that renamed themselves."""

from __future__ import annotations

from d2c_mlops.convert.api_changes.change import ApiChange


def _moved_api(library: str, path: str, since_version: str, replacement: str, *, to: str = "") -> ApiChange:
    module, _, name = path.rpartition(".")
    example = f"from {module} import {name}" if module else f"import {path}"
    return ApiChange(library, path, since_version, "gone", replacement, example, to=to)


def _method_change(
    library: str, module: str, name: str, method: str, since_version: str, replacement: str, *, to: str = ""
) -> ApiChange:
    example = f"from {module} import {name}\nm = {name}()\nm.{method}(X, y)"
    return ApiChange(
        library,
        f"{module}.{name}.{method}",
        since_version,
        "gone",
        replacement,
        example,
        to=f"{module}.{name}.{to}" if to else "",
    )


_KERAS_MODULES = {
    "layers.core": "layers",
    "layers.recurrent": "layers",
    "layers.convolutional": "layers",
    "layers.embeddings": "layers",
    "layers.normalization": "layers",
    "layers.advanced_activations": "layers",
}
CHANGES: tuple[ApiChange, ...] = (
    *(
        _moved_api("keras", f"{start}.{old}", "3.0", f"keras.{new}", to=f"{start}.{new}")
        for start in ("keras", "tensorflow.keras")
        for old, new in _KERAS_MODULES.items()
    ),
    *(
        _moved_api(
            "keras",
            f"{start}.wrappers.scikit_learn",
            "2.12",
            "the package scikeras, or keras.wrappers.SKLearnClassifier",
        )
        for start in ("keras", "tensorflow.keras")
    ),
    *(
        _moved_api("keras", f"{start}.preprocessing.text", "3.0", "keras.layers.TextVectorization")
        for start in ("keras", "tensorflow.keras")
    ),
    *(
        _moved_api(
            "keras",
            f"keras.preprocessing.{old}",
            "3.0",
            f"tensorflow.keras.preprocessing.{old}",
            to=f"tensorflow.keras.preprocessing.{old}",
        )
        for old in ("sequence.TimeseriesGenerator", "image.ImageDataGenerator", "text.Tokenizer")
    ),
    _moved_api("keras", "keras.utils.np_utils", "3.0", "keras.utils.to_categorical"),
    _moved_api(
        "keras",
        "keras.utils.np_utils.to_categorical",
        "3.0",
        "keras.utils.to_categorical",
        to="keras.utils.to_categorical",
    ),
    _moved_api("keras", "keras.utils.vis_utils", "3.0", "keras.utils.plot_model"),
    _moved_api("keras", "keras.utils.generic_utils", "3.0", "keras.utils"),
    _moved_api("keras", "keras.engine", "3.0", "keras.layers and keras.Model"),
    _moved_api(
        "keras",
        "keras.layers.CuDNNLSTM",
        "3.0",
        "keras.layers.LSTM, which uses the GPU automatically",
        to="keras.layers.LSTM",
    ),
    _moved_api(
        "keras",
        "keras.layers.CuDNNGRU",
        "3.0",
        "keras.layers.GRU, which uses the GPU automatically",
        to="keras.layers.GRU",
    ),
    *(
        _method_change("keras", f"{start}.models", "Sequential", method, "3.0", instead, to=to)
        for start in ("keras", "tensorflow.keras")
        for method, instead, to in (
            ("fit_generator", ".fit, which accepts generators", "fit"),
            ("evaluate_generator", ".evaluate", "evaluate"),
            ("predict_generator", ".predict", "predict"),
            ("predict_classes", ".predict(X).argmax(axis=-1), or > 0.5 for one output", ""),
            ("predict_proba", ".predict", "predict"),
        )
    ),
    *(
        ApiChange(
            "keras",
            f"{start}.optimizers.{name}",
            "3.0",
            "keyword",
            instead,
            f"from {start}.optimizers import {name}\no = {name}({argument}={value})",
            argument=argument,
            to=to,
        )
        for start in ("keras", "tensorflow.keras")
        for name in ("Adam", "SGD", "RMSprop", "Adagrad", "Adamax")
        for argument, instead, to, value in (
            ("lr", "learning_rate=", "learning_rate", "0.01"),
            ("decay", "a learning-rate schedule", "", "1e-6"),
        )
    ),
    *(
        _moved_api("tensorflow", f"tensorflow.{name}", "2.0", instead)
        for name, instead in (
            ("contrib", "the part of TensorFlow or the package that it moved to"),
            ("Session", "eager execution, or tf.compat.v1.Session"),
            ("placeholder", "arguments of a tf.function, or tf.compat.v1.placeholder"),
            ("set_random_seed", "tf.random.set_seed"),
            ("global_variables_initializer", "nothing: variables are initialised when they are created"),
            ("get_default_graph", "tf.compat.v1.get_default_graph"),
        )
    ),
    _moved_api("tensorflow", "tensorflow.python.keras", "2.16", "tensorflow.keras", to="tensorflow.keras"),
    _moved_api("prophet", "fbprophet", "1.0", "prophet", to="prophet"),
    _moved_api("pmdarima", "pyramid", "1.0", "pmdarima", to="pmdarima"),
    _moved_api("pandas", "pandas_profiling", "1.0", "ydata_profiling", to="ydata_profiling"),
    _moved_api("pandas", "pandas.io.data", "0.19", "the package pandas-datareader"),
    _moved_api("pandas", "pandas.plotting._converter", "1.0", "pandas.plotting", to="pandas.plotting"),
    *(
        _method_change(
            "imbalanced-learn", f"imblearn.{module}", name, method, "0.8", ".fit_resample", to="fit_resample"
        )
        for module, name in (
            ("over_sampling", "SMOTE"),
            ("over_sampling", "RandomOverSampler"),
            ("over_sampling", "ADASYN"),
            ("under_sampling", "RandomUnderSampler"),
            ("under_sampling", "NearMiss"),
            ("combine", "SMOTETomek"),
            ("combine", "SMOTEENN"),
        )
        for method in ("fit_sample",)
    ),
    *(
        ApiChange(
            "imbalanced-learn",
            f"imblearn.{module}.{name}",
            "0.8",
            "keyword",
            "sampling_strategy=",
            f"from imblearn.{module} import {name}\ns = {name}(ratio=1.0)",
            argument="ratio",
            to="sampling_strategy",
        )
        for module, name in (
            ("over_sampling", "SMOTE"),
            ("over_sampling", "RandomOverSampler"),
            ("under_sampling", "RandomUnderSampler"),
        )
    ),
    *(
        ApiChange(
            "xgboost",
            f"xgboost.{name}.fit",
            "2.1",
            "keyword",
            instead,
            f"from xgboost import {name}\nm = {name}()\nm.fit(X, y, {argument}={value})",
            argument=argument,
        )
        for name in ("XGBClassifier", "XGBRegressor")
        for argument, instead, value in (
            ("early_stopping_rounds", "the constructor's early_stopping_rounds=", "10"),
            ("eval_metric", "the constructor's eval_metric=", "'auc'"),
        )
    ),
    *(
        ApiChange(
            "lightgbm",
            path,
            "4.0",
            "keyword",
            instead,
            f"{start}({argument}={value})",
            argument=argument,
        )
        for path, start in (
            (
                "lightgbm.LGBMClassifier.fit",
                "from lightgbm import LGBMClassifier\nm = LGBMClassifier()\nm.fit",
            ),
            ("lightgbm.LGBMRegressor.fit", "from lightgbm import LGBMRegressor\nm = LGBMRegressor()\nm.fit"),
            ("lightgbm.train", "import lightgbm as lgb\nlgb.train"),
        )
        for argument, instead, value in (
            ("early_stopping_rounds", "callbacks=[lightgbm.early_stopping(n)]", "10"),
            ("verbose_eval", "callbacks=[lightgbm.log_evaluation(n)]", "10"),
        )
    ),
)
