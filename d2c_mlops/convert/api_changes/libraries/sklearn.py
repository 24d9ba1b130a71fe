"""scikit-learn, up to 1.9."""

from __future__ import annotations

from d2c_mlops.convert.api_changes.change import ApiChange
from d2c_mlops.convert.source.scopes import split_words

_LIBRARY = "scikit-learn"


def _moved_api(path: str, since_version: str, replacement: str, *, to: str = "", use: str = "") -> ApiChange:
    module, _, name = path.rpartition(".")
    example = f"from {module} import {name}" if module else f"import {path}"
    return ApiChange(_LIBRARY, path, since_version, "gone", replacement, example + use, to=to)


def _keyword_change(
    path: str,
    argument: str,
    since_version: str,
    replacement: str,
    *,
    to: str = "",
    droppable: tuple[object, ...] = (),
    value: str = "1",
) -> ApiChange:
    module, _, name = path.rpartition(".")
    example = f"from {module} import {name}\nx = {name}({argument}={value})"
    return ApiChange(
        _LIBRARY, path, since_version, "keyword", replacement, example, argument=argument, to=to, droppable=droppable
    )


def _value_change(
    path: str, argument: str, since_version: str, values: dict[str, str | None], replacement: str = ""
) -> ApiChange:
    module, _, name = path.rpartition(".")
    replacement = replacement or ", ".join(f"{argument}={new!r} for {old!r}" for old, new in values.items())
    example = f"from {module} import {name}\nx = {name}({argument}={next(iter(values))!r})"
    return ApiChange(_LIBRARY, path, since_version, "value", replacement, example, argument=argument, values=values)


_MODEL_SELECTION = split_words(
    "GridSearchCV KFold LeaveOneOut RandomizedSearchCV ShuffleSplit StratifiedKFold "
    "StratifiedShuffleSplit cross_val_predict cross_val_score learning_curve train_test_split "
    "validation_curve"
)
_LINEAR = split_words(
    "BayesianRidge ElasticNet ElasticNetCV Lars LarsCV Lasso LassoCV LassoLars LinearRegression "
    "OrthogonalMatchingPursuit Ridge RidgeCV RidgeClassifier"
)
_SCALE_FREE = ("LinearRegression",)  # without a penalty the scale of a column changes nothing
_FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier", "RandomForestRegressor", "ExtraTreesRegressor")
_REGRESSION_TREES = (
    "sklearn.ensemble.RandomForestRegressor",
    "sklearn.ensemble.ExtraTreesRegressor",
    "sklearn.tree.DecisionTreeRegressor",
)
_TREES = tuple(
    f"sklearn.ensemble.{name}" for name in (*_FORESTS, "GradientBoostingClassifier", "GradientBoostingRegressor")
) + (
    "sklearn.tree.DecisionTreeClassifier",
    "sklearn.tree.DecisionTreeRegressor",
)
_VECTORIZERS = ("CountVectorizer", "TfidfVectorizer")

CHANGES: tuple[ApiChange, ...] = (
    *(
        _moved_api(
            f"sklearn.{old}.{name}",
            "0.20",
            f"sklearn.model_selection.{name}",
            to=f"sklearn.model_selection.{name}",
        )
        for old in ("cross_validation", "grid_search", "learning_curve")
        for name in _MODEL_SELECTION
    ),
    _moved_api("sklearn.cross_validation", "0.20", "sklearn.model_selection", to="sklearn.model_selection"),
    _moved_api("sklearn.grid_search", "0.20", "sklearn.model_selection", to="sklearn.model_selection"),
    _moved_api("sklearn.learning_curve", "0.20", "sklearn.model_selection", to="sklearn.model_selection"),
    _moved_api("sklearn.externals.joblib", "0.23", "import joblib", to="joblib"),
    _moved_api("sklearn.externals.six", "0.23", "nothing on Python 3, or the package six", to="six"),
    _moved_api("sklearn.externals.six.StringIO", "0.23", "io.StringIO", to="io.StringIO"),
    _moved_api("sklearn.lda", "0.19", "sklearn.discriminant_analysis.LinearDiscriminantAnalysis"),
    _moved_api("sklearn.qda", "0.19", "sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis"),
    _moved_api("sklearn.preprocessing.Imputer", "0.22", "sklearn.impute.SimpleImputer, which works on columns only"),
    _moved_api(
        "sklearn.preprocessing.CategoricalEncoder",
        "0.20",
        "sklearn.preprocessing.OneHotEncoder or OrdinalEncoder",
    ),
    _moved_api("sklearn.mixture.GMM", "0.20", "sklearn.mixture.GaussianMixture"),
    _moved_api("sklearn.linear_model.RandomizedLasso", "0.21", "SelectFromModel with a Lasso"),
    _moved_api(
        "sklearn.linear_model.RandomizedLogisticRegression",
        "0.21",
        "SelectFromModel with a LogisticRegression",
    ),
    _moved_api("sklearn.datasets.load_boston", "1.2", "fetch_california_housing, or the data from its own source"),
    _moved_api("sklearn.metrics.plot_confusion_matrix", "1.2", "ConfusionMatrixDisplay.from_estimator"),
    _moved_api("sklearn.metrics.plot_roc_curve", "1.2", "RocCurveDisplay.from_estimator"),
    _moved_api("sklearn.metrics.plot_precision_recall_curve", "1.2", "PrecisionRecallDisplay.from_estimator"),
    _moved_api("sklearn.metrics.plot_det_curve", "1.2", "DetCurveDisplay.from_estimator"),
    _moved_api("sklearn.inspection.plot_partial_dependence", "1.2", "PartialDependenceDisplay.from_estimator"),
    _moved_api(
        "sklearn.metrics.jaccard_similarity_score",
        "0.23",
        "jaccard_score, or accuracy_score for the old meaning",
    ),
    _moved_api("sklearn.utils.safe_indexing", "0.24", "sklearn.utils._safe_indexing"),
    _moved_api("sklearn.utils.linear_assignment_", "0.23", "scipy.optimize.linear_sum_assignment"),
    _moved_api("sklearn.utils.testing", "0.24", "numpy.testing"),
    _moved_api(
        "sklearn.neighbors.DistanceMetric",
        "1.3",
        "sklearn.metrics.DistanceMetric",
        to="sklearn.metrics.DistanceMetric",
    ),
    _moved_api("sklearn.covariance.GraphLasso", "0.22", "GraphicalLasso"),
    *(
        _moved_api(old, "0.24", new, to=new)
        for old, new in {
            "sklearn.metrics.classification": "sklearn.metrics",
            "sklearn.metrics.ranking": "sklearn.metrics",
            "sklearn.metrics.scorer": "sklearn.metrics",
            "sklearn.metrics.regression": "sklearn.metrics",
            "sklearn.linear_model.logistic": "sklearn.linear_model",
            "sklearn.linear_model.base": "sklearn.linear_model",
            "sklearn.linear_model.stochastic_gradient": "sklearn.linear_model",
            "sklearn.linear_model.coordinate_descent": "sklearn.linear_model",
            "sklearn.ensemble.forest": "sklearn.ensemble",
            "sklearn.ensemble.gradient_boosting": "sklearn.ensemble",
            "sklearn.ensemble.bagging": "sklearn.ensemble",
            "sklearn.ensemble.weight_boosting": "sklearn.ensemble",
            "sklearn.tree.tree": "sklearn.tree",
            "sklearn.cluster.k_means_": "sklearn.cluster",
            "sklearn.cluster.hierarchical": "sklearn.cluster",
            "sklearn.cluster.dbscan_": "sklearn.cluster",
            "sklearn.decomposition.pca": "sklearn.decomposition",
            "sklearn.preprocessing.data": "sklearn.preprocessing",
            "sklearn.preprocessing.label": "sklearn.preprocessing",
            "sklearn.preprocessing.imputation": "sklearn.impute",
            "sklearn.feature_selection.univariate_selection": "sklearn.feature_selection",
            "sklearn.feature_selection.from_model": "sklearn.feature_selection",
            "sklearn.neural_network.multilayer_perceptron": "sklearn.neural_network",
            "sklearn.neighbors.classification": "sklearn.neighbors",
            "sklearn.svm.classes": "sklearn.svm",
            "sklearn.datasets.samples_generator": "sklearn.datasets",
            "sklearn.manifold.t_sne": "sklearn.manifold",
        }.items()
    ),
    _keyword_change(
        "sklearn.preprocessing.OneHotEncoder",
        "sparse",
        "1.4",
        "sparse_output=",
        to="sparse_output",
        value="False",
    ),
    _keyword_change(
        "sklearn.preprocessing.OneHotEncoder",
        "categorical_features",
        "0.22",
        "a ColumnTransformer around the encoder",
    ),
    _keyword_change("sklearn.preprocessing.OneHotEncoder", "n_values", "0.22", "categories="),
    *(
        _keyword_change(
            f"sklearn.linear_model.{name}",
            "multi_class",
            "1.8",
            "OneVsRestClassifier for 'ovr', nothing otherwise",
            droppable=("auto",),
            value="'ovr'",
        )
        for name in ("LogisticRegression", "LogisticRegressionCV")
    ),
    *(
        _keyword_change(
            f"sklearn.linear_model.{name}",
            "normalize",
            "1.2",
            "nothing: it predicts the same" if name in _SCALE_FREE else "a StandardScaler in a pipeline before it",
            droppable=(False, True) if name in _SCALE_FREE else (False,),
            value="True",
        )
        for name in _LINEAR
    ),
    *(
        _keyword_change(
            f"sklearn.linear_model.{name}",
            "n_alphas",
            "1.9",
            "alphas=, which also accepts a number",
            to="alphas",
            value="50",
        )
        for name in ("LassoCV", "ElasticNetCV")
    ),
    *(
        _keyword_change(path, "base_estimator", "1.4", "estimator=", to="estimator", value="tree")
        for path in (
            "sklearn.ensemble.BaggingClassifier",
            "sklearn.ensemble.BaggingRegressor",
            "sklearn.ensemble.AdaBoostClassifier",
            "sklearn.ensemble.AdaBoostRegressor",
            "sklearn.calibration.CalibratedClassifierCV",
            "sklearn.multioutput.ClassifierChain",
        )
    ),
    _keyword_change(
        "sklearn.ensemble.AdaBoostClassifier",
        "algorithm",
        "1.8",
        "nothing: SAMME is the only algorithm",
        droppable=("SAMME",),
        value="'SAMME.R'",
    ),
    _keyword_change(
        "sklearn.cluster.AgglomerativeClustering",
        "affinity",
        "1.4",
        "metric=",
        to="metric",
        value="'euclidean'",
    ),
    _keyword_change(
        "sklearn.metrics.mean_squared_error",
        "squared",
        "1.6",
        "root_mean_squared_error(...) for squared=False",
        droppable=(True,),
        value="False",
    ),
    _keyword_change(
        "sklearn.metrics.mean_squared_log_error",
        "squared",
        "1.6",
        "root_mean_squared_log_error(...) for squared=False",
        droppable=(True,),
        value="False",
    ),
    _keyword_change("sklearn.metrics.log_loss", "eps", "1.5", "clip the predictions yourself"),
    _keyword_change(
        "sklearn.cluster.KMeans",
        "n_jobs",
        "1.0",
        "nothing: threads are used automatically",
        droppable=(1, -1, None),
        value="-1",
    ),
    _keyword_change(
        "sklearn.cluster.KMeans",
        "precompute_distances",
        "1.0",
        "nothing",
        droppable=("auto", True, False),
        value="'auto'",
    ),
    _keyword_change("sklearn.model_selection.GridSearchCV", "iid", "0.24", "nothing", droppable=(False,), value="True"),
    _keyword_change(
        "sklearn.model_selection.RandomizedSearchCV",
        "iid",
        "0.24",
        "nothing",
        droppable=(False,),
        value="True",
    ),
    _keyword_change("sklearn.model_selection.GridSearchCV", "fit_params", "0.21", "arguments of .fit(...)"),
    _keyword_change("sklearn.model_selection.cross_val_score", "fit_params", "1.6", "params=", to="params"),
    *(
        _keyword_change(path, "min_impurity_split", "1.0", "min_impurity_decrease=", droppable=(None,))
        for path in _TREES
    ),
    *(
        _keyword_change(path, "presort", "0.24", "nothing", droppable=(False, "auto", "deprecated"), value="True")
        for path in _TREES
        if "Forest" not in path and "Extra" not in path
    ),
    _keyword_change(
        "sklearn.ensemble.IsolationForest", "behaviour", "0.24", "nothing", droppable=("new",), value="'new'"
    ),
    _keyword_change("sklearn.manifold.TSNE", "n_iter", "1.7", "max_iter=", to="max_iter", value="500"),
    *(
        _keyword_change(f"sklearn.linear_model.{name}", "n_iter", "0.21", "max_iter=", value="5")
        for name in ("SGDClassifier", "SGDRegressor", "Perceptron")
    ),
    _keyword_change("sklearn.impute.SimpleImputer", "verbose", "1.3", "nothing", droppable=(0,), value="0"),
    _keyword_change(
        "sklearn.utils.check_array",
        "force_all_finite",
        "1.8",
        "ensure_all_finite=",
        to="ensure_all_finite",
        value="False",
    ),
    *(
        _value_change(path, "criterion", "1.2", {"mse": "squared_error", "mae": "absolute_error"})
        for path in _REGRESSION_TREES
    ),
    _value_change(
        "sklearn.ensemble.GradientBoostingRegressor",
        "criterion",
        "1.2",
        {"mse": "squared_error", "mae": None},
    ),
    _value_change(
        "sklearn.ensemble.GradientBoostingRegressor",
        "loss",
        "1.2",
        {"ls": "squared_error", "lad": "absolute_error"},
    ),
    _value_change("sklearn.ensemble.GradientBoostingClassifier", "loss", "1.3", {"deviance": "log_loss"}),
    *(_value_change(f"sklearn.ensemble.{name}", "max_features", "1.3", {"auto": "sqrt"}) for name in _FORESTS[:2]),
    *(
        _value_change(f"sklearn.ensemble.{name}", "max_features", "1.3", {"auto": None}, "max_features=1.0 for 'auto'")
        for name in _FORESTS[2:]
    ),
    _value_change("sklearn.linear_model.LogisticRegression", "penalty", "1.4", {"none": None}, "penalty=None"),
    _value_change(
        "sklearn.linear_model.SGDClassifier",
        "loss",
        "1.3",
        {"log": "log_loss", "squared_loss": "squared_error"},
    ),
    _value_change("sklearn.linear_model.SGDRegressor", "loss", "1.2", {"squared_loss": "squared_error"}),
    _value_change("sklearn.cluster.KMeans", "algorithm", "1.3", {"auto": "lloyd", "full": "lloyd"}),
    *(
        _value_change(
            f"sklearn.model_selection.{name}",
            "scoring",
            "0.20",
            {
                "mean_squared_error": "neg_mean_squared_error",
                "mean_absolute_error": "neg_mean_absolute_error",
                "log_loss": "neg_log_loss",
            },
        )
        for name in ("cross_val_score", "GridSearchCV", "RandomizedSearchCV")
    ),
    *(
        ApiChange(
            _LIBRARY,
            f"sklearn.feature_extraction.text.{name}.get_feature_names",
            "1.2",
            "gone",
            ".get_feature_names_out(), which returns an array",
            f"from sklearn.feature_extraction.text import {name}\nv = {name}()\nx = v.get_feature_names()",
        )
        for name in _VECTORIZERS
    ),
    *(
        ApiChange(
            _LIBRARY,
            f"sklearn.{module}.{name}.get_feature_names",
            "1.2",
            "gone",
            ".get_feature_names_out(), which returns an array",
            f"from sklearn.{module} import {name}\nv = {name}()\nx = v.get_feature_names()",
        )
        for module, name in (
            ("preprocessing", "OneHotEncoder"),
            ("preprocessing", "PolynomialFeatures"),
            ("compose", "ColumnTransformer"),
            ("feature_extraction", "DictVectorizer"),
        )
    ),
    ApiChange(
        _LIBRARY,
        "sklearn.preprocessing.StandardScaler.std_",
        "0.19",
        "gone",
        ".scale_",
        "from sklearn.preprocessing import StandardScaler\ns = StandardScaler()\nx = s.std_",
        to="sklearn.preprocessing.StandardScaler.scale_",
    ),
    *(
        ApiChange(
            _LIBRARY,
            f"sklearn.ensemble.{name}.n_features_",
            "1.2",
            "gone",
            ".n_features_in_",
            f"from sklearn.ensemble import {name}\nm = {name}()\nx = m.n_features_",
            to=f"sklearn.ensemble.{name}.n_features_in_",
        )
        for name in _FORESTS
    ),
    ApiChange(
        _LIBRARY,
        "sklearn.utils.class_weight.compute_class_weight",
        "1.0",
        "positional",
        "name them: classes=, y=",
        "from sklearn.utils.class_weight import compute_class_weight\nx = compute_class_weight('balanced', c, y)",
        position=1,
        names=("classes", "y"),
    ),
)
