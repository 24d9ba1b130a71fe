"""What a preparation learned in the training, replayed on new records."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import randint
from sklearn.model_selection import RandomizedSearchCV, train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor
from skops.io import get_untrusted_types

from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.models.converted.recorded_steps import (
    Learned,
    from_plain,
    load_fitted,
    save_fitted,
    steady,
    to_plain,
)

CUSTOMERS = pd.DataFrame({"spend": [1.0, None, 3.0], "plan": ["b", "a", "c"], "town": ["Bonn", "Kiel", "Bonn"]})


def prepare(frame: pd.DataFrame, learned: Learned) -> pd.DataFrame:
    """A small preparation as an author might write it."""
    shop = learned.records(frame)
    shop["spend"] = shop["spend"].fillna(learned.keep("mean", lambda: shop["spend"].mean()))
    shop["plan"] = learned.codes("plan", shop["plan"])
    return learned.dummies("town", shop, columns=["town"])


def scaled(frame: pd.DataFrame, learned: Learned) -> tuple[np.ndarray, np.ndarray]:
    """A function that fits a scaler of its own on its training part."""
    shop = learned.records(frame)
    train, test = learned.parts(lambda: train_test_split(shop, random_state=0), shop, each=2)
    scaler = learned.fit("scaler", StandardScaler(), train)
    return scaler.transform(train), scaler.transform(test)


def trained() -> tuple[Learned, pd.DataFrame]:
    learned = Learned()
    table = prepare(CUSTOMERS, learned)
    learned.learning = False
    return learned, table


@pytest.mark.parametrize("value", [2.5, np.float64(2.5), pd.Timestamp("2024-03-01"), None, "Bonn", [1, "a", None]])
def test_plain_values_come_back(value: Any) -> None:
    assert from_plain(to_plain(value)) == value


def test_tables_series_and_arrays_come_back() -> None:
    figures = pd.DataFrame({"mean": [1.5, 2.0]}, index=pd.Index(["Bonn", "Kiel"], name="town"))
    pd.testing.assert_frame_equal(from_plain(to_plain(figures)), figures)
    pd.testing.assert_series_equal(from_plain(to_plain(figures["mean"])), figures["mean"])
    assert from_plain(to_plain(np.array([[1.0, 2.0]]))).tolist() == [[1.0, 2.0]]
    assert from_plain(to_plain(pd.Series(["Ulm", "Bonn"]).unique())).tolist() == ["Ulm", "Bonn"]
    assert np.isnan(from_plain(to_plain(float("nan"))))


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="type set"):
        to_plain({1, 2})
    with pytest.raises(UsageError, match="several levels"):
        to_plain(CUSTOMERS.set_index(["plan", "town"]))


def test_a_search_over_distributions_is_saved_as_its_best_estimator(tmp_path: Path) -> None:
    x = np.arange(30.0).reshape(-1, 1)
    search = RandomizedSearchCV(
        DecisionTreeRegressor(random_state=0), {"max_depth": randint(1, 4)}, n_iter=2, cv=2, random_state=0
    ).fit(x, np.sqrt(x[:, 0]))
    save_fitted(search, tmp_path / "search.skops")
    best = load_fitted(tmp_path / "search.skops", get_untrusted_types(file=tmp_path / "search.skops"))
    assert (best.predict(x) == search.predict(x)).all()


def test_a_type_that_is_not_trusted_is_refused(tmp_path: Path) -> None:
    save_fitted(DecisionTreeRegressor().fit([[0.0], [1.0]], [0.0, 1.0]), tmp_path / "tree.skops")
    with pytest.raises(DataRefused, match="not trusted"):
        load_fitted(tmp_path / "tree.skops", trusted=[])


def test_a_line_in_a_loop_is_replayed_turn_by_turn() -> None:
    learned = Learned()
    assert [learned.keep("mean", lambda: 2.0), learned.keep("mean", lambda: 4.0)] == [2.0, 4.0]
    learned.learning = False
    learned.records(pd.DataFrame())
    assert [learned.keep("mean", lambda: 0.0) for _ in range(2)] == [2.0, 4.0]


def test_a_record_alone_gets_what_its_row_got_in_the_training() -> None:
    learned, table = trained()
    assert table["spend"].tolist() == [1.0, 2.0, 3.0]
    for row in range(3):
        alone = prepare(CUSTOMERS.iloc[[row]], learned)
        pd.testing.assert_frame_equal(alone, table.iloc[[row]].reset_index(drop=True))


@pytest.mark.filterwarnings("ignore:Constructing a Categorical")
def test_values_that_the_training_did_not_have_get_no_column_and_the_code_minus_one() -> None:
    learned, _ = trained()
    row = prepare(pd.DataFrame({"spend": [2.0], "plan": ["z"], "town": ["Rome"]}), learned).loc[0]
    assert row["plan"] == -1
    assert not row["town_Bonn"] and not row["town_Kiel"]


def test_recorded_steps_survive_their_files(tmp_path: Path) -> None:
    learned, table = trained()
    learned.give("scaler", StandardScaler().fit([[1.0], [3.0]]))
    learned.write(tmp_path)
    again = Learned.read(tmp_path, trusted=[])
    assert again["scaler"].transform([[3.0]])[0, 0] == 1.0
    pd.testing.assert_frame_equal(prepare(CUSTOMERS.iloc[[1]], again), table.iloc[[1]].reset_index(drop=True))


def test_bins_and_the_column_of_ones_are_those_of_the_training() -> None:
    spend = pd.Series([1.0, 2.0, 5.0, 9.0, 30.0])
    learned = Learned()
    bins = learned.cut("thirds", pd.qcut, spend, 3, labels=False)
    learned.constant("ones", spend.to_frame())
    learned.learning = False
    for row in range(5):
        learned.records(pd.DataFrame())
        assert learned.cut("thirds", pd.qcut, spend.iloc[[row]], 3, labels=False).tolist() == [bins[row]]
        ones = learned.constant("ones", spend.iloc[[row]].to_frame())
        assert ones.to_numpy().tolist() == [[1.0, spend[row]]]


def test_a_scaler_that_a_function_fits_serves_every_later_record() -> None:
    visits = pd.DataFrame({"visits": np.arange(12.0) ** 2})
    learned = Learned()
    scaled(visits, learned)
    learned.learning = False
    everything, again = scaled(visits, learned)
    assert len(everything) == len(again) == 12
    for row in range(12):
        assert scaled(visits.iloc[[row]], learned)[1].tolist() == everything[[row]].tolist()


def test_ranks_group_figures_and_codes_of_a_record_are_those_of_the_training() -> None:
    orders = pd.DataFrame({"town": ["Bonn", "Kiel", "Bonn"], "spend": [1.0, 5.0, 3.0]})
    learned = Learned()

    def features(frame: pd.DataFrame) -> list[list[float]]:
        shop = learned.records(frame)
        rank = learned.rank("rank", shop["spend"], pct=True)
        mean = learned.groups("town", shop, "town", "spend", "mean")
        return [rank.tolist(), mean.tolist(), learned.factorize("codes", shop["town"])[0].tolist()]

    everything = features(orders)
    learned.learning = False
    assert everything == [[1 / 3, 1.0, 2 / 3], [2.0, 5.0, 2.0], [0, 1, 0]]
    for row in range(3):
        assert features(orders.iloc[[row]]) == [[part[row]] for part in everything]


def test_a_table_is_ranked_column_by_column_and_inverse_is_the_place_among_sorted_values() -> None:
    towns, spend = np.array(["Ulm", "Bonn", "Ulm"]), pd.DataFrame({"spend": [10.0, 30.0, 20.0]})
    learned = Learned()
    assert learned.inverse("town", towns).tolist() == [1, 0, 1]
    assert learned.rank("spend", spend, pct=True)["spend"].tolist() == spend["spend"].rank(pct=True).tolist()
    learned.learning = False
    learned.records(pd.DataFrame())
    assert learned.inverse("town", ["Ulm", "Rome"]).tolist() == [1, -1]


def test_answers_do_not_depend_on_the_last_digits() -> None:
    assert steady([0.1 + 0.2]).tolist() == [0.3]
    assert steady(np.array([["yes"], ["no"]])).tolist() == ["yes", "no"]
