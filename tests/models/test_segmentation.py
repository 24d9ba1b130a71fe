"""The segmentation: choice, names, labels that stay, treatments, answers and reasons, the model's promises and edges."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.ingestion.ingest import map_tables
from d2c_mlops.data.simulate import shop
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.models.core.contract import to_records
from d2c_mlops.models.core.model import Evaluation, discover_models, load
from d2c_mlops.models.segmentation.answers import feature_contributions
from d2c_mlops.models.segmentation.choice import (
    Candidate,
    SegmentLimits,
    choose_candidate,
    fit_scale,
    kmeans_centroids,
    match_centroids,
    nearest_segments,
    squared_distances,
)
from d2c_mlops.models.segmentation.customer_features import customer_features
from d2c_mlops.models.segmentation.plots import plot_migrations, plot_planned_profit, plot_segment_counts
from d2c_mlops.models.segmentation.rfm import NAMES, Rfm
from d2c_mlops.models.segmentation.segmentation import Segmenter, calibration_by_tenth, replay_cutoffs
from d2c_mlops.models.segmentation.segments import reuse_centroids
from d2c_mlops.models.segmentation.treatments import (
    CATALOGUE,
    NOTHING,
    best_treatment,
    planned_gain_total,
    treatment_catalogue,
    treatment_effect,
)
from d2c_mlops.registry.versions import load_version, new_model, register
from d2c_mlops.serving.app.app import ServedModel, create_app
from d2c_mlops.serving.batch.score import score
from d2c_mlops.settings import Settings
from support.local_client import LocalClient
from support.purchases import bought, on

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def example() -> tuple[Tables, date]:
    return Segmenter.example()


@pytest.fixture(scope="module")
def fitted(example: tuple[Tables, date]) -> Segmenter:
    return Segmenter(segments=4).fit(*example)


@pytest.fixture(scope="module")
def asked(fitted: Segmenter, example: tuple[Tables, date]) -> pd.DataFrame:
    return fitted.contract.check_inputs(fitted.records(*example))


# -- the choice


def one(segments: int, gain: float, stability: float = 0.9, migration: float = 0.1, smallest: float = 0.1) -> Candidate:
    return Candidate(segments, gain, stability, migration, smallest, 0.3)


def test_the_fewest_segments_near_the_best_gain_are_chosen() -> None:
    assert choose_candidate([one(2, 50), one(3, 99), one(4, 100)], SegmentLimits())[0] == 1


@pytest.mark.parametrize("fault", [{"stability": 0.5}, {"migration": 0.6}, {"smallest": 0.01}])
def test_gain_does_not_excuse_what_is_unstable_restless_or_tiny(fault: dict[str, float]) -> None:
    assert choose_candidate([one(2, 50), one(3, 100, **fault)], SegmentLimits())[0] == 0


def test_a_high_silhouette_decides_nothing() -> None:
    shiny = Candidate(2, 50, 0.9, 0.1, 0.1, silhouette=0.94)
    assert choose_candidate([shiny, one(3, 100)], SegmentLimits())[0] == 1


def test_the_number_in_use_is_kept_while_it_is_nearly_as_good() -> None:
    tried = [one(2, 100), one(3, 91), one(4, 79)]
    assert choose_candidate(tried, SegmentLimits(), former_count=3)[0] == 1
    assert choose_candidate(tried, SegmentLimits(), former_count=4)[0] == 0


def test_when_none_keeps_to_the_limits_it_is_said() -> None:
    chosen, why = choose_candidate([one(2, 5, stability=0.6), one(3, 9, stability=0.5)], SegmentLimits())
    assert chosen == 0 and "no number" in why


def test_a_constant_and_an_unknown_column_are_left_out() -> None:
    frame = pd.DataFrame({"recency_days": [1.0, 50, 90], "purchases": 2.0, "order_value": [3.0, 4, 50]})
    scale, silent = fit_scale(frame)
    assert scale.names == ("recency_days", "order_value") and {"purchases", "margin_share"} <= set(silent)
    assert np.isfinite(scale.points(frame.assign(recency_days=[np.nan, 1e12, 0]))).all()


def test_centroids_find_their_predecessors() -> None:
    points = np.random.default_rng(0).normal(size=(400, 3)) + 6 * np.eye(3)[np.arange(400) % 3]
    three = kmeans_centroids(points, 3)
    assert match_centroids(three, three[[1, 2, 0]] + 0.1) == [1, 2, 0]
    assert match_centroids(three, np.vstack([three[0], [30.0, 30, 30]])) == [0, -1]
    assert len(set(nearest_segments(points, three).tolist())) == 3


def test_centroids_in_use_stay_while_they_fit_and_go_when_they_do_not() -> None:
    points = np.random.default_rng(0).normal(size=(400, 3)) + 6 * np.eye(3)[np.arange(400) % 3]
    three = kmeans_centroids(points, 3)
    assert (reuse_centroids(points, 3, three + 0.05) == three + 0.05).all()
    moved = reuse_centroids(points + np.array([4.0, 0, 0]), 3, three)
    assert abs(moved - (three + np.array([4.0, 0, 0]))).max() < 0.5
    assert len(reuse_centroids(points, 2, three)) == 2


# -- treatments


def test_what_a_voucher_must_bring_pays_for_those_who_would_have_come() -> None:
    voucher = treatment_effect(
        treatment_catalogue({"v": {"cost": 1.0, "discount": 0.1, "response": 0.02}})[-1], 0.3, 90.0, 50.0
    )
    assert voucher.cost == pytest.approx(1 + 0.1 * 30)
    assert voucher.must_bring == pytest.approx(4 / 0.2) and voucher.must_respond == pytest.approx(0.4)
    paid = treatment_effect(
        treatment_catalogue({"v": {"cost": 1.0, "discount": 0.1, "response": 0.4}})[-1], 0.3, 90.0, 50.0
    )
    assert paid.gain == pytest.approx(0)


def test_a_treatment_works_only_on_those_it_suits_and_costs_for_all() -> None:
    columns = {
        name: np.array([1.0, 9.0])
        for name in ("purchases", "tenure_days", "order_value", "return_share", "discount_share")
    }
    columns["recency_days"] = np.array([10.0, 10.0])
    second = treatment_catalogue({"second order": {"response": 0.5}})[1]
    found = best_treatment([second], columns, 0.5, 20.0)
    assert found.response == 0.25 and found.cost == second.cost


def test_no_margin_no_treatment() -> None:
    columns = {name: np.array([4.0]) for name in ("purchases", "tenure_days", "recency_days", "order_value")}
    assert best_treatment(CATALOGUE, columns, 0.0, 30.0).treatment is NOTHING
    assert planned_gain_total(np.zeros(1, int), columns, np.zeros(1), np.full(1, 30.0), CATALOGUE) == 0


def test_every_fault_of_a_treatment_is_named() -> None:
    with pytest.raises(UsageError) as told:
        Segmenter(treatments={"win back": {"discount": 1.5, "cost": -1}, "bundle": {"reponse": 1}})
    assert {f.where for f in told.value.failures} == {"win back.discount", "win back.cost", "bundle.reponse"}


# -- RFM by rule


def test_rfm_knows_champions_from_lost(example: tuple[Tables, date]) -> None:
    features = customer_features(*example)
    segment = Rfm.of(features).segments(features)
    champions, lost = (features[segment == NAMES.index(name)] for name in ("Champions", "Lost"))
    assert champions.recency_days.max() < lost.recency_days.min()
    assert champions.purchases.mean() > 3 * lost.purchases.mean()
    graded = Rfm.of(features).grades(features)
    assert graded.min() == 1 and graded.max() == 5


# -- the model


def test_it_is_found_with_a_complete_charter_and_units() -> None:
    assert discover_models()["segmentation"] is Segmenter  # test_models.py runs check_model on every model found
    assert not Segmenter.charter.open_questions()
    assert all(f.unit or f.kind == "string" for f in Segmenter.contract.input_fields)


def test_the_report_ranks_profit_and_adds_up(fitted: Segmenter, asked: pd.DataFrame) -> None:
    report, answers = fitted.report(), fitted.predict(asked)
    assert len(report) == 4 and report.name.is_unique and report.planned_profit.is_monotonic_decreasing
    by_label = answers.groupby("segment")
    sums = report.set_index("label")
    assert (by_label.size() == sums.customers).all()
    np.testing.assert_allclose(by_label.value_90d.mean(), sums.value_90d.sort_index(), rtol=1e-9)
    np.testing.assert_allclose(sums.planned_profit, sums.profit_90d + sums.gain)
    assert report.revenue_share.sum() == pytest.approx(1) and (report.margin_known > 0.9).all()


def test_what_a_treatment_must_bring_is_told_and_more_is_assumed(fitted: Segmenter) -> None:
    treated = fitted.report().query("treatment != 'leave alone'")
    assert len(treated) and (treated.must_bring > 0).all()
    assert (treated.assumed_response > treated.must_respond).all()  # else doing nothing would have been planned


def test_without_costs_the_margin_is_assumed(example: tuple[Tables, date]) -> None:
    tables, as_of = example
    bare = Tables({**tables, "products": tables["products"].assign(unit_cost=np.nan)})
    report = Segmenter(segments=3, margin=0.25).fit(bare, as_of).report()
    assert (report.margin_known == 0).all()
    np.testing.assert_allclose(report.margin_share, 0.25)


def test_labels_stay_when_the_month_changes(example: tuple[Tables, date]) -> None:
    tables, as_of = example
    before = Segmenter(segments=3).fit(tables, as_of - timedelta(days=30))
    after = Segmenter(segments=3)
    after.follow(before)
    after.fit(tables, as_of)
    old, new = (model.report().set_index("label").name.to_dict() for model in (before, after))
    assert set(old) == set(new)
    known = before.records(tables, as_of - timedelta(days=30))
    same = (before.predict(known).segment == after.predict(known).segment).mean()
    assert same > 0.9


def test_a_segment_that_never_was_gets_a_new_label(example: tuple[Tables, date], fitted: Segmenter) -> None:
    more = Segmenter(segments=6)
    more.follow(fitted)
    labels = set(more.fit(*example).report().label)
    assert len(labels) == 6 and labels - {"S1", "S2", "S3", "S4"} <= {f"S{i}" for i in range(5, 11)}
    assert more.learned.last_label >= 6


def test_moves_count_every_customer_of_a_month_ago(fitted: Segmenter, example: tuple[Tables, date]) -> None:
    tables, as_of = example
    earlier = customer_features(tables, as_of - timedelta(days=30))
    assert np.array(fitted.learned.moves).sum() == len(earlier)


def test_one_customer_and_a_million_get_the_same(fitted: Segmenter, asked: pd.DataFrame) -> None:
    answers = fitted.predict(asked)
    alone = pd.concat([fitted.predict(asked.iloc[[i]]) for i in range(40)])
    pd.testing.assert_frame_equal(alone, answers.head(40), check_exact=True)
    many = fitted.predict(pd.concat([asked] * 30, ignore_index=True))
    pd.testing.assert_frame_equal(many.tail(len(asked)).reset_index(drop=True), answers, check_exact=True)


def test_saved_it_is_json_and_answers_the_same(fitted: Segmenter, asked: pd.DataFrame, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    assert {f.name for f in (tmp_path / "model").iterdir()} == {"model.json", "segments.json"}
    again = load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.predict(asked), fitted.predict(asked), check_exact=True)
    assert again.explain(asked) == fitted.explain(asked)
    pd.testing.assert_frame_equal(again.report(), fitted.report())


def test_the_service_answers_like_the_batch(fitted: Segmenter, asked: pd.DataFrame) -> None:
    served = ServedModel(fitted, "segmentation", 1, {}, {})
    client = LocalClient(create_app(lambda: served))
    records = json.loads(json.dumps(to_records(fitted.contract.input_fields, asked)))
    online = client.post("/predict", json={"records": records}).json()["predictions"]
    batch = to_records(fitted.contract.output_fields, fitted.predict(asked))
    assert [{k: v for k, v in each.items() if k != "prediction_id"} for each in online] == batch
    told = client.post("/explain", json={"records": records[:5]}).json()["predictions"]
    assert [each["reasons"] for each in told] == fitted.explain(asked.head(5))


def test_a_registered_version_answers_alike_online_and_in_a_file(settings: Settings, tmp_path: Path) -> None:
    tables, as_of = shop(customers=400, days=450), date(2024, 3, 20)
    model = new_model("segmentation", settings, {"segments": 4})
    write_dataset(settings.store, "shop", dict(tables), "simulated", layout="canonical", created_at=datetime.now(UTC))
    found = Evaluation("wape_90d", 0.5, {"carry_forward_90d": 0.6}, True, {})
    inputs = [{"name": "shop", "digest": Tables.open(settings.store, "shop").manifest.digest}]
    version = register("segmentation", model.fit(tables, as_of), found, settings=settings, as_of=as_of, inputs=inputs)
    records = model.records(tables, as_of).head(200)
    records.to_parquet(tmp_path / "asked.parquet")
    score(version, str(tmp_path / "asked.parquet"), str(tmp_path / "out.parquet"), settings, chunk=70)
    filed = pd.read_parquet(tmp_path / "out.parquet")
    served = ServedModel(load_version(version, settings), "segmentation", version.version, {}, {})
    body = {"records": to_records(model.contract.input_fields, model.contract.check_inputs(records))}
    online = pd.DataFrame(LocalClient(create_app(lambda: served)).post("/predict", json=body).json()["predictions"])
    assert len(filed) == len(online) == 200 and len(set(filed["segment"])) > 1
    for name in model.contract.outputs.columns:
        assert filed[name].tolist() == online[name].tolist(), name


def test_customers_are_not_named_in_the_log(fitted: Segmenter) -> None:
    assert [f.name for f in fitted.contract.input_fields if f.personal] == ["customer_id"]


# -- reasons


def test_reasons_are_the_exact_difference_of_the_distances(fitted: Segmenter, asked: pd.DataFrame) -> None:
    points = fitted.learned.scale.points(asked)
    shares, first, second = feature_contributions(fitted.learned, points)
    rows, distances = np.arange(len(points)), squared_distances(points, fitted.learned.centroids)
    np.testing.assert_allclose(shares.sum(axis=1), distances[rows, second] - distances[rows, first], atol=1e-9)
    for row, said in enumerate(fitted.explain(asked.head(30))):
        top = fitted.learned.scale.names[int(np.argmax(shares[row]))]
        assert said[0].startswith(_start(top, asked.iloc[row])) and 2 <= len(said) <= 4


def _start(name: str, record: pd.Series[Any]) -> str:
    starts = {
        "recency_days": f"last purchase {record.recency_days:,.0f} day",
        "tenure_days": f"customer for {record.tenure_days:,.0f} day",
        "purchases": f"bought on {record.purchases:,.0f} day",
        "order_value": f"{record.order_value:,.2f} EUR",
        "category_breadth": f"{record.category_breadth:,.0f} categor",
    }
    return starts.get(name, "")


def test_what_would_move_them_does_move_them(fitted: Segmenter, asked: pd.DataFrame) -> None:
    moved = 0
    for row, said in enumerate(fitted.explain(asked)):
        for step in said[-1].split("; "):
            if "would move them to" not in step or step.startswith("neither"):
                continue
            then = asked.iloc[[row]].copy()
            if step.startswith("a purchase"):
                then["purchases"] += (then.recency_days > 0).astype(int)
                then["recency_days"] = 0
            elif step.startswith("60 more"):
                then[["recency_days", "tenure_days"]] += 60
            else:
                then["order_value"] *= 2
            if len(fitted.predict(then)):
                assert f"'{fitted.predict(then).segment_name.item()}'" in step
                moved += 1
        if moved > 15:
            break
    assert moved > 5


# -- out of time


def test_the_verdict_beats_what_people_do_today(example: tuple[Tables, date]) -> None:
    verdict = Segmenter().evaluate(*example)
    assert verdict.metric == "wape_90d" and set(verdict.baselines) == {"carry_forward_90d", "rfm_mean_90d"}
    assert verdict.value < min(verdict.baselines.values()) < 1
    assert len(verdict.details["cutoffs"]) == 3 and len(verdict.details["calibration"]) == 10


def test_nothing_of_the_window_is_known_at_its_beginning(example: tuple[Tables, date]) -> None:
    tables, as_of = example
    past = replay_cutoffs(Segmenter(cutoffs=1), tables, as_of)
    cut = date.fromisoformat(past.cutoff.iloc[0])
    known = Tables({name: frame for name, frame in tables.before(cut).items()})
    again = replay_cutoffs(Segmenter(cutoffs=1), Tables({**known}), cut + timedelta(days=90))
    pd.testing.assert_series_equal(past["model"], again["model"])
    assert again.came.sum() == 0 < past.came.sum()


def test_calibration_has_a_row_for_each_tenth() -> None:
    past = pd.DataFrame({"model": np.arange(100.0), "came": np.arange(100.0) * 2})
    tenths = calibration_by_tenth(past)
    assert tenths.expected.is_monotonic_increasing and np.allclose(tenths.came, 2 * tenths.expected)


# -- bad input


def test_a_shop_where_nobody_came_twice_is_refused() -> None:
    with pytest.raises(DataRefused, match="second time"):
        Segmenter().fit(bought([on("03-01", customer_id=str(i)) for i in range(80)]), date(2024, 3, 31))


def regulars(**more: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(20):
        days = rng.choice(80, 1 + i % 4, replace=False)
        rows += [
            {"customer_id": f"c{i}", "ordered_at": f"{date(2024, 1, 1) + timedelta(days=int(d))}T10:00", **more}
            for d in days
        ]
    return rows


def test_few_customers_are_a_single_segment_and_it_says_so() -> None:
    model = Segmenter().fit(bought(regulars()), date(2024, 3, 31))
    assert len(model.report()) == 1 and "single segment" in model.learned.notes[-1]
    asked = model.records(bought(regulars()), date(2024, 3, 31))
    assert set(model.predict(asked).segment) == {"S1"} and (model.predict(asked).confidence == 1).all()
    assert model.explain(asked)[0] == ["there is a single segment"]


def test_a_customer_with_only_returns_is_worth_nothing_lately_and_has_a_segment() -> None:
    back = {"customer_id": "r", "quantity": 2, "returned_quantity": 2, "returned_at": "2024-03-20"}
    tables = bought([*regulars(), on("03-01", **back), on("03-10", **back)])
    model = Segmenter().fit(tables, date(2024, 3, 31))
    asked = model.records(tables, date(2024, 3, 31)).query("customer_id == 'r'")
    assert asked.order_value.item() == 0 and asked.return_share.item() == 1
    answer = model.predict(asked).iloc[0]
    assert answer.segment == "S1" and 0 <= answer.value_90d < 10


def test_a_customer_of_one_order_has_an_answer(fitted: Segmenter) -> None:
    first = {
        "customer_id": "new",
        "recency_days": 0,
        "tenure_days": 0,
        "purchases": 1,
        "order_value": 30.0,
        "spend_90d": 30.0,
    }
    asked = fitted.contract.check_inputs(pd.DataFrame([first]))
    answer = fitted.contract.check_outputs(fitted.predict(asked)).iloc[0]
    assert answer.alive == 1 and answer.value_90d > 0
    assert len(fitted.explain(asked)[0]) >= 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recency_days": 500}, "recency_days must not be more"),
        ({"purchases": 0}, "who never bought"),
        ({"order_value": -1.0}, "0 or more"),
        ({"purchases": 900}, "more than the days"),
        ({"purchases": 1}, "a single purchase"),
        ({"order_value": float("nan")}, "0 or more"),
    ],
)
def test_impossible_customers_are_refused_by_row(fitted: Segmenter, change: dict[str, Any], said: str) -> None:
    fine = {
        "customer_id": "x",
        "recency_days": 9,
        "tenure_days": 400,
        "purchases": 5,
        "order_value": 30.0,
        "spend_90d": 0.0,
    }
    with pytest.raises(DataRefused, match=said) as told:
        fitted.predict(pd.DataFrame([fine, {**fine, **change}], index=[3, 8]))
    assert [f.where for f in told.value.failures] == ["row 8"]


def test_every_wrong_parameter_is_named_and_an_unfitted_model_says_so() -> None:
    with pytest.raises(UsageError) as told:
        Segmenter(segments=-1, margin=2, smallest=0.9, cutoffs=0)
    assert {f.where for f in told.value.failures} == {"segments", "margin", "smallest", "cutoffs"}
    with pytest.raises(UsageError, match="not fitted"):
        Segmenter().report()


def test_the_pictures_show_every_segment(fitted: Segmenter) -> None:
    axes = plt.subplots(1, 2)[1]
    plot_planned_profit(fitted.learned, axes)
    assert len(axes[0].patches) == 4
    assert len(plot_migrations(fitted.learned, plt.subplots()[1]).texts) == 16
    plot_segment_counts(fitted.learned, axes)
    plt.close("all")
    assert [asdict(one)["chosen"] for one in fitted.learned.candidates] == [True]


def test_on_a_real_shop_it_beats_carrying_forward(shared_data: Path) -> None:
    file = shared_data / "online_retail.parquet"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    tables, as_of = Tables(map_tables(str(file))[0]), date(2011, 12, 8)
    verdict = Segmenter().evaluate(tables, as_of)
    assert verdict.value < 0.99 * verdict.baselines["carry_forward_90d"]
    assert verdict.value < verdict.baselines["rfm_mean_90d"]
    assert verdict.details["rank_correlation"]["model"] > 0.5
