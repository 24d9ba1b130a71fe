"""Scores whose outcomes are late or unknown: an estimated AUC beside NannyML's on real leads, and a changed relation on simulated ones."""

from __future__ import annotations

import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd
from aims import Aim, interval, share, table

from d2c_mlops.monitoring.daily_series import daily_series
from d2c_mlops.monitoring.drift import find_drift
from d2c_mlops.monitoring.performance import auc
from d2c_mlops.monitoring.relation import find_changed_relation
from d2c_mlops.monitoring.unlabelled import expected_performance

SPLITS = ((0.15, 0.30), (0.30, 0.50), (0.50, 0.70), (0.70, 0.85))  # end of training and of the rows with known outcomes
LEAST = 100  # rows of a month
CHANGE, DAYS = 400, 1095
LEADS = {
    "healthy": (1.0, 0.0),
    "worse leads": (1.0, -0.6),
    "better leads": (1.0, 0.6),
    "odds x .65": (0.65, 0.0),
    "odds x 1.5": (1.5, 0.0),
}
LABEL = "odds x .65"
FIRST_SEED = 4000
Alarms = tuple[str, int | None, int | None, float, int, bool]


def simulated_leads(seed: int, name: str) -> pd.DataFrame:
    """Return three years of scored leads with outcomes, of which something changes on day 400 and a random part of 300 more."""
    factor, moved = LEADS[name]
    rng = np.random.default_rng(seed)
    onset = CHANGE + int(rng.integers(0, 300))
    place = np.repeat(np.arange(DAYS), rng.poisson(rng.uniform(20, 100), DAYS))
    is_after = place >= onset
    wander = np.cumsum(rng.normal(0, 0.05 / np.sqrt(365), DAYS))[place]
    quality = rng.normal(0, 1, len(place)) + np.where(is_after, moved, 0.0)
    odds = np.exp(quality - 2.2 + wander) * np.where(is_after, factor, 1.0)
    won = (rng.random(len(place)) < odds / (1 + odds)).astype(float)
    return pd.DataFrame(
        {
            "day": pd.Timestamp("2022-01-03") + pd.to_timedelta(place, "D"),
            "predicted": 1 / (1 + np.exp(2.2 - 0.8 * quality)),
            "outcome": won,
            "visits": np.round(10 * np.exp(0.4 * quality + rng.normal(0, 0.3, len(place)))),
            "is_after": is_after,
        }
    )


def first_alarms(task: tuple[int, str]) -> Alarms:
    """Return what changed, the days until the relation and the inputs alarmed (from the change; None: never), and expected wins until the first."""
    seed, name = task
    leads = simulated_leads(seed, name)
    start = leads["day"].min()
    change = int((leads.loc[leads["is_after"], "day"].min() - start).days)
    relation = find_changed_relation(leads[["day", "predicted", "outcome"]])
    inputs = find_drift(daily_series(leads[["visits"]], leads["day"], reference=365, prefix="inputs."))
    by_kind = []
    for report in (relation, inputs):
        alarms = np.flatnonzero(report.evidence >= report.threshold)
        by_kind.append(int((report.days[alarms[0]] - start).days) - change if len(alarms) else None)
    alarm = by_kind[0]
    rate = float(leads.loc[~leads["is_after"], "outcome"].mean())
    until = start + pd.Timedelta(days=change + (DAYS if alarm is None else alarm))
    expected = rate * int((leads["is_after"] & (leads["day"] <= until)).sum())
    months = leads.groupby(leads["day"].dt.to_period("M"))["outcome"].agg(["sum", "size"])
    later = months[months.index > (start + pd.Timedelta(days=90)).to_period("M")]
    is_first = leads["day"] < start + pd.Timedelta(days=90)
    usual = float(leads.loc[is_first, "outcome"].mean())
    fires = (np.abs(later["sum"] - usual * later["size"]) > 1.96 * np.sqrt(later["size"] * usual * (1 - usual))).any()
    return name, by_kind[0], by_kind[1], expected, change, bool(fires)


def relations(run: Callable[..., Iterable[Alarms]], shops: int) -> list[Aim]:
    """Count alarms of healthy and of changed streams of leads by `run`, a map over tasks."""
    tasks = [(FIRST_SEED + number, name) for name in LEADS for number in range(shops)]
    answers = list(run(first_alarms, tasks))
    rows, within, right, changed = [], 0, 0, 0
    for name, (factor, moved) in LEADS.items():
        own = [answer for answer in answers if answer[0] == name]
        relation = [answer[1] for answer in own]
        inputs = [answer[2] for answer in own]
        found = [delay for delay in (relation if factor != 1 else inputs) if delay is not None and delay >= 0]
        if factor != 1 or moved:
            changed += len(own)
            right += sum(
                (a is not None and a >= 0 and (b is None or b > a))
                if factor != 1
                else (b is not None and b >= 0 and (a is None or a > b))
                for a, b in zip(relation, inputs, strict=True)
            )
        if name == LABEL:
            within = sum(a is not None and a >= 0 and wins <= 400 for _, a, _, wins, _, _ in own)
        wins = [answer[3] for answer in own if answer[1] is not None and answer[1] >= 0]
        rows.append(
            {
                "leads": name, "relation ever": share(sum(a is not None for a in relation), len(own)), "inputs ever": share(sum(b is not None for b in inputs), len(own)),
                "median days": f"{np.median(found):.0f}" if found and name != "healthy" else "",
                "median expected wins": f"{np.median(wins):.0f}" if wins and factor != 1 else "",
                "win rate, p < .05": share(sum(answer[5] for answer in own), len(own)),
            }
        )  # fmt: skip
    print(
        f"\nscored leads, {shops} streams of three years each, seeds from {FIRST_SEED}; outcomes count when they are known"
    )
    print(table(rows))
    healthy = sum(answer[1] is not None for answer in answers if answer[0] == "healthy")
    return [
        Aim("healthy leads whose relation is ever called changed in three years ≤ .05", share(healthy, shops), interval(healthy, shops)[0] <= 0.05),
        Aim("odds × .65 found within 400 expected wins ≥ .80", share(within, shops), interval(within, shops)[1] >= 0.80),
        Aim("right kind, data or concept, first ≥ .85", share(right, changed), interval(right, changed)[1] >= 0.85),
    ]  # fmt: skip


def bank_leads(data: Path) -> pd.DataFrame:
    """Return the leads of a bank in the order of their calls, with `month` as a running number; the duration of the call is left out."""
    with zipfile.ZipFile(data / "bank_marketing.zip") as outer:
        inner = (
            zipfile.ZipFile(BytesIO(outer.read("bank-additional.zip")))
            if "bank-additional.zip" in outer.namelist()
            else outer
        )
        name = next(name for name in inner.namelist() if name.endswith("bank-additional-full.csv"))
        leads = pd.read_csv(BytesIO(inner.read(name)), sep=";").drop(columns="duration")
    leads["number"] = (leads["month"] != leads["month"].shift()).cumsum()
    leads["outcome"] = (leads.pop("y") == "yes").astype(int)
    return leads


def scores_of(inputs: pd.DataFrame, outcome: np.ndarray, count: int, kind: str) -> np.ndarray:
    """Return the scores of all rows by a model that learned from the first `count`."""
    if kind == "boosted trees":
        codes = inputs.apply(
            lambda column: column if pd.api.types.is_numeric_dtype(column) else pd.factorize(column)[0]
        )
        settings = {
            "objective": "binary",
            "num_leaves": 15,
            "learning_rate": 0.05,
            "num_threads": 1,
            "verbose": -1,
            "seed": 0,
        }
        model = lgb.train(settings, lgb.Dataset(codes[:count], outcome[:count]), num_boost_round=100)
        return np.asarray(model.predict(codes))
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    wide = pd.get_dummies(inputs).astype(float)
    logistic = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(
        wide[:count], outcome[:count]
    )
    return np.asarray(logistic.predict_proba(wide)[:, 1])


def without_labels(data: Path, peer: Path) -> list[Aim]:
    """Estimate the AUC of the months of bank_marketing without their outcomes, beside NannyML's CBPE in the environment of `peer`."""
    if not (data / "bank_marketing.zip").exists():
        print(f"left out: bank_marketing ({data / 'bank_marketing.zip'} is not there)")
        return []
    leads = bank_leads(data)
    outcome, inputs = leads["outcome"].to_numpy(), leads.drop(columns=["outcome", "number"])
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for first, second in SPLITS:
            for kind in ("boosted trees", "logistic"):
                begin, end = int(first * len(leads)), int(second * len(leads))
                scores = scores_of(inputs, outcome, begin, kind)
                frame = leads[["number", "outcome"]].assign(score=scores)
                frame.iloc[begin:end].to_parquet(f"{place}/known.parquet")
                frame.iloc[end:].to_parquet(f"{place}/later.parquet")
                theirs = {}
                if peer.exists():
                    script = Path(__file__).with_name("monitor_nannyml.py")
                    subprocess.run([str(peer), "-W", "ignore", str(script), place], check=True, capture_output=True)
                    theirs = pd.read_parquet(f"{place}/expected.parquet").set_index("number")["auc"].to_dict()
                for number, month in frame.iloc[end:].groupby("number"):
                    if len(month) < LEAST or not 0 < month["outcome"].sum() < len(month):
                        continue
                    chosen = month.index.to_numpy()
                    ours = expected_performance(
                        inputs[begin:end],
                        scores[begin:end],
                        outcome[begin:end].astype(float),
                        inputs.loc[chosen],
                        scores[chosen],
                    )
                    true = auc(outcome[chosen].astype(float), scores[chosen])
                    rows.append(
                        {
                            "model": kind, "split": f"{first:.2f} {second:.2f}", "month": int(str(number)), "true": true, "d2c": ours.auc.value,
                            "NannyML CBPE": theirs.get(number, np.nan), "as before": ours.known_auc,
                        }
                    )  # fmt: skip
    months = pd.DataFrame(rows)
    names = ["d2c", "NannyML CBPE", "as before"]
    errors = months[names].sub(months["true"], axis=0).abs().assign(model=months["model"], split=months["split"])
    shown = (
        errors.groupby(["model", "split"]).mean().assign(months=errors.groupby(["model", "split"]).size()).reset_index()
    )
    print("\nbank_marketing: mean absolute error of the AUC that is expected of a month before its outcomes are known")
    print(
        table(
            [
                {str(name): f"{value:.4f}" if isinstance(value, float) else str(value) for name, value in row.items()}
                for row in shown.to_dict("records")
            ]
        )
    )
    means = errors[names].mean()
    if np.isnan(means["NannyML CBPE"]):
        print("left out: NannyML is not installed (make bench-monitor installs it)")
        return []
    ratio = means["d2c"] / means["NannyML CBPE"]
    text = f"{ratio:.3f} ({means['d2c']:.4f} and {means['NannyML CBPE']:.4f}, {len(months)} months; unchanged AUC: {means['as before']:.4f})"
    return [Aim("error of the AUC without outcomes ≤ 1.05 times NannyML's", text, bool(ratio <= 1.05))]
