"""Choose the metric of a converted model and write the code that computes it."""

from __future__ import annotations

from d2c_mlops.convert.plan.evaluation_plan import SCORES
from d2c_mlops.convert.plan.model_plan import ModelChoice


def metric_and_source(model_choice: ModelChoice, classes: bool) -> tuple[str, str, bool, str]:
    """Return the metric's name, its source over (answers, predicted, features), whether lower is better, its import."""
    metric = model_choice.score if model_choice.score in SCORES else ""
    if model_choice.fit.kind == "clusterer":
        metric = "silhouette_score"
    elif metric == "silhouette_score" or not metric:
        metric = "accuracy_score" if classes else "r2_score"
    if model_choice.kept == "regression" and model_choice.fit.path.endswith((".Logit", ".Probit")):
        return "roc_auc", "roc_auc_score(answers, predicted)", False, "from sklearn.metrics import roc_auc_score"
    name, lower = SCORES[metric]
    arguments = "features, predicted" if metric == "silhouette_score" else "answers, predicted"
    return name, f"{metric}({arguments})", lower, f"from sklearn.metrics import {metric}"
