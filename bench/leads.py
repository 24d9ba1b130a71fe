"""The lead score beside a regression, plain boosting and a forest, out of time; and how fast exact reasons are."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pandas as pd
from aims import Aim, close, table
from joblib import Parallel, delayed

from d2c_mlops.data.ingestion.ingest import map_tables
from d2c_mlops.data.layouts.leads import pack_lead_fields
from d2c_mlops.data.validation import validate
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.lead_scoring.additive import LearningPace, probability
from d2c_mlops.models.lead_scoring.answers import score_leads
from d2c_mlops.models.lead_scoring.baselines import Logit
from d2c_mlops.models.lead_scoring.evaluation import score_metrics
from d2c_mlops.models.lead_scoring.fields import learn_fields
from d2c_mlops.models.lead_scoring.lead_scoring import LEAD_CHARTER, LeadScorer
from d2c_mlops.models.lead_scoring.learning import Money, Prepared, Recipe, learn_lead_score, prepare_leads

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("D2C_SHARED_DATA", ROOT.parent / "shared" / "data"))
CARAVAN = ROOT / ".bench" / "islp" / "ISLP" / "data" / "Caravan.csv"
MONEY = Money(LEAD_CHARTER.right_value or 0, LEAD_CHARTER.wrong_cost or 0)
EVERY = 100  # calls, a week of them, after which every contender is trained anew
MILLION = 1_000_000

Frame = pd.DataFrame
Contender = Callable[[Frame, Any, Frame], Any]


def categories(train: Frame, asked: Frame) -> tuple[Frame, Frame]:
    """Return both frames with texts as categories, those of the training data."""
    train, asked = train.copy(), asked.copy()
    for name in train.columns[[kind.kind != "f" for kind in train.dtypes]]:
        known = sorted(train[name].dropna().unique())
        kept = (f[name].where(f[name].isin(known)) for f in (train, asked))
        train[name], asked[name] = (pd.Categorical(each, categories=known) for each in kept)
    return train, asked


def lightgbm(train: Frame, won: Any, asked: Frame) -> Any:
    from lightgbm import LGBMClassifier

    train, asked = categories(train, asked)
    return LGBMClassifier(verbose=-1, n_jobs=1).fit(train, won).predict_proba(asked)[:, 1]


def histogram(train: Frame, won: Any, asked: Frame) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    train, asked = categories(train, asked)
    made = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    return made.fit(train, won).predict_proba(asked)[:, 1]


def forest(train: Frame, won: Any, asked: Frame) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    texts = [str(n) for n in train.columns if train[n].dtype.kind != "f"]
    coded = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), texts), remainder="passthrough")
    trees = RandomForestClassifier(100, min_samples_leaf=5, n_jobs=1, random_state=0)
    return make_pipeline(coded, trees).fit(train, won).predict_proba(asked)[:, 1]


def regression(train: Frame, won: Any, asked: Frame) -> Any:
    fields, _ = learn_fields(train)
    return Logit(fields).fit(train, won).predict(asked)


PEERS: dict[str, Contender] = {
    "statsmodels Logit": regression,
    "LightGBM": lightgbm,
    "HistGradientBoosting": histogram,
    "random forest": forest,
}


def scorer(recipe: Recipe) -> Contender:
    """Return our score as a contender; the rows of its frames carry their times as index."""

    def fit_and_score(train: Frame, won: Any, asked: Frame) -> Any:
        prepared = prepared_of(recipe, train, won)
        return probability(score_leads(learn_lead_score(recipe, prepared, MONEY).sheet, asked).margin)

    return fit_and_score


def prepared_of(recipe: Recipe, train: Frame, won: Any) -> Prepared:
    leads = train.assign(outcome=np.where(won, "won", "lost"), lead_id=np.arange(len(train)).astype(str))
    packed = pack_lead_fields(leads.assign(scored_at=pd.to_datetime(train.index, utc=True)).reset_index(drop=True))
    return prepare_leads(recipe, validate("leads", packed))


def chosen(recipe: Recipe, train: Frame, won: Any) -> Recipe:
    """Return the recipe with the paces that the training data choose."""
    about = learn_lead_score(recipe, prepared_of(recipe, train, won), MONEY).about
    return replace(recipe, paces=tuple(LearningPace(*each) for each in about["paces"]))


def verdict(name: str, won: Any, said: Any) -> dict[str, Any]:
    return {"contender": name, **score_metrics(won, np.asarray(said, float), MONEY.right_value, MONEY.wrong_cost)}


def shown(title: str, verdicts: list[dict[str, Any]]) -> None:
    names = {
        "auc": "AUC",
        "pr_auc": "PR-AUC",
        "brier": "Brier",
        "calibration_error": "calibration error",
        "called": "called",
    }
    rows = [
        {
            "contender": v["contender"],
            **{label: f"{v[name]:.4f}" for name, label in names.items()},
            "profit EUR": f"{v['profit']:,.0f}",
        }
        for v in verdicts
    ]
    print(f"\n{title}\n{table(rows, markdown=True)}", flush=True)


def aims_of(data: str, verdicts: list[dict[str, Any]]) -> list[Aim]:
    ours, *peers = verdicts
    dearest = max(peers, key=lambda v: v["profit"])
    sharpest = min(peers, key=lambda v: v["brier"])
    error = ours["calibration_error"]
    return [
        Aim(
            f"{data}: profit at least that of the best other",
            f"{ours['profit']:,.0f} against {dearest['profit']:,.0f} EUR ({dearest['contender']})",
            ours["profit"] >= dearest["profit"],
        ),
        Aim(
            f"{data}: Brier score at most that of the best other",
            f"{ours['brier']:.4f} against {sharpest['brier']:.4f} ({sharpest['contender']})",
            ours["brier"] <= sharpest["brier"],
        ),
        Aim(f"{data}: calibration error < 0.02", f"{error:.4f}", error < 0.02),
    ]


def steps(name: str, contender: Contender, frame: Frame, won: Any, parts: list[tuple[Any, Any]]) -> Any:
    """Return what a contender says of each part after learning from the rows given for it."""
    started = time.perf_counter()
    run = delayed(lambda learned, asked: quietly(contender, frame.iloc[learned], won[learned], frame.iloc[asked]))
    said = Parallel(n_jobs=2)(run(learned, asked) for learned, asked in parts)
    print(f"  {name}: trained {len(parts)} times in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return np.concatenate(said)


def quietly(contender: Contender, train: Frame, won: Any, asked: Frame) -> Any:
    """Run a contender in a worker without its warnings (separation in the regression, names in the forest)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return contender(train, won, asked)


def bank() -> tuple[Frame, Any]:
    """Return the calls in the order of time, `duration` refused by the guard; the index is the time."""
    leads = map_tables(str(SHARED / "bank_marketing.zip"))[0]["leads"]
    try:
        prepare_leads(Recipe(), leads)
        raise SystemExit("the guard let `duration` through")
    except DataRefused as refused:
        print(refused)
        dropped = tuple(dict.fromkeys(failure.where for failure in refused.failures))
    if dropped != ("duration",):
        raise SystemExit(f"the guard refused {dropped}")
    sample = prepare_leads(Recipe(drop=dropped), leads).sample
    return sample.frame.drop(columns="lead_id").set_axis(sample.scored_at), sample.won


def bench_bank() -> list[Aim]:
    frame, won = bank()
    cut = int(0.8 * len(frame))
    held_out = len(frame) - cut
    starts = list(range(cut, len(frame), EVERY))
    anew = [(slice(0, a), slice(a, min(a + EVERY, len(frame)))) for a in starts]
    title = f"Bank calls, the last {held_out:,} of {len(frame):,}, every contender trained anew after {EVERY:,}:"
    moving = calls(title, frame, won, cut, EVERY, anew)
    once = [(slice(0, cut), slice(cut, None))]
    frozen = calls("The same calls, every contender trained once and never again:", frame, won, cut, held_out, once)
    return aims_of("bank", moving) + aims_of("bank, never retrained", frozen)


def calls(
    title: str, frame: Frame, won: Any, cut: int, lifetime: int, parts: list[tuple[Any, Any]]
) -> list[dict[str, Any]]:
    """Return the contenders' verdicts; ours learns, from the calls before the cut alone, how fast to forget."""
    recipe = chosen(Recipe(lifetime=lifetime), frame.iloc[:cut], won[:cut])
    paces = ", ".join(f"level {p.memory:,} and weights {p.recency:,}" for p in recipe.paces)
    print(f"\nhalf-lives that the first {cut:,} calls chose for {lifetime:,} calls a version: {paces}", flush=True)
    contenders = {"LeadScorer": scorer(recipe), **PEERS}
    found = [verdict(n, won[cut:], steps(n, c, frame, won, parts)) for n, c in contenders.items()]
    shown(title, found)
    return found


def bench_caravan() -> list[Aim]:
    frame = pd.read_csv(CARAVAN)
    won = (frame.pop("Purchase") == "Yes").to_numpy()
    minutes = np.arange(len(frame)).astype("timedelta64[m]") + np.datetime64("2000-01-01", "us")
    frame = frame.astype(float).set_axis(minutes)
    fifths = np.array_split(np.arange(len(frame)), 5)
    every = np.arange(len(frame))
    parts = [(np.setdiff1d(every, fifth), fifth) for fifth in fifths]
    contenders = {"LeadScorer": scorer(Recipe()), **PEERS}
    verdicts = [verdict(n, won, steps(n, c, frame, won, parts)) for n, c in contenders.items()]
    shown(f"Caravan, {len(frame):,} leads without a time, each fifth of the rows held out once:", verdicts)
    return aims_of("Caravan", verdicts)


def timed(work: Callable[[], Any], times: int = 3) -> float:
    """Return the shortest wall time in seconds."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def speed() -> dict[str, float]:
    """Measure a million leads with reasons beside bare LightGBM, and single leads; runs in a process of its own."""
    from lightgbm import LGBMClassifier

    frame, won = bank()
    recipe = Recipe(lifetime=EVERY, paces=(LearningPace(100, 2000),))
    model = LeadScorer()
    model.take(learn_lead_score(recipe, prepared_of(recipe, frame, won), MONEY))
    coded, _ = categories(frame, frame)
    ready = coded.apply(lambda c: c.cat.codes if c.dtype == "category" else c).to_numpy(np.float64)
    plain = LGBMClassifier(verbose=-1).fit(ready, won)
    rows = np.random.default_rng(0).integers(0, len(frame), MILLION)
    matrix = ready[rows]
    bare = timed(partial(plain.booster_.predict, matrix))
    del matrix
    many = frame.iloc[rows].reset_index(drop=True)
    many["lead_id"] = pd.array(np.arange(MILLION).astype(str), dtype="str")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answered, reasons = model.predict_with_reasons(many)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    exact(model, many.head(2000), answered.head(2000))
    count = sum(map(len, reasons)) / MILLION
    del answered, reasons
    ours = timed(lambda: model.predict_with_reasons(many))
    records = [{k: None if v != v else v for k, v in r.items()} for r in many.head(2000).to_dict("records")]
    alone = [[record] for record in records]
    single = timed(lambda: list(map(model.answer_records, alone))) / len(records)
    return {"bare": bare, "ours": ours, "peak": peak, "before": before, "single": single, "reasons": count}


def exact(model: LeadScorer, asked: Frame, answered: Frame) -> None:
    """Stop where a score is not the sum of one look-up per field."""
    sheet = model.sheet
    codes = [field.codes(asked[field.name]) for field in sheet.fields]
    total = sheet.level + sum(t[term.codes(codes)] for t, term in zip(sheet.tables, sheet.terms, strict=True))
    if np.abs(probability(total) - answered["score"].to_numpy()).max() > 1e-6:
        raise SystemExit("a score is not the sum of its look-ups")


def bench_speed() -> list[Aim]:
    done = subprocess.run([sys.executable, __file__, "--speed"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    bare, ours, peak, single = (found[n] for n in ("bare", "ours", "peak", "single"))
    print(
        f"\nA million leads: bare LightGBM.predict {bare:.2f} s, scores with {found['reasons']:.1f} reasons each {ours:.2f} s"
    )
    print(f"Peak memory {peak:,.0f} MB, of which {found['before']:,.0f} MB before the first answer")
    times = f"{ours:.2f} s against {bare:.2f} s, {ours / bare:.2f} times"
    return [
        Aim("a million leads with exact reasons ≤ 3 times bare LightGBM predict", times, ours <= 3 * bare),
        Aim("a million leads with exact reasons < 2 GB", f"{peak:,.0f} MB", peak < 2048),
        Aim("one lead with reasons < 0.2 ms", f"{single * 1000:.3f} ms", single < 0.0002),
    ]


def main() -> int:
    if "--speed" in sys.argv:
        print(json.dumps(speed()))
        return 0
    for needed in (SHARED / "bank_marketing.zip", CARAVAN):
        if not needed.exists():
            raise SystemExit(
                f"{needed} is missing; make bench-leads fetches Caravan, D2C_SHARED_DATA says where the calls are"
            )
    return close(bench_bank() + bench_caravan() + bench_speed())


if __name__ == "__main__":
    raise SystemExit(main())
