"""BG/NBD and Gamma-Gamma: known parameters are found again, formulas agree with simulation, edges are answered or refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import betaln

from d2c_mlops.errors import DataRefused
from d2c_mlops.models.segmentation.lifetime_value import (
    BGNBD,
    GammaGamma,
    expected_order_value,
    expected_purchases,
    fit_bgnbd,
    fit_gamma_gamma,
    log_likelihood,
    probability_alive,
)

Array = NDArray[np.float64]
CDNOW = BGNBD(0.2426, 4.414, 0.793, 2.426)  # Fader, Hardie and Lee 2005, table 2; time in weeks


def lives(model: BGNBD, customers: int, days: float, ahead: float, seed: int) -> tuple[Array, Array, Array, Array]:
    """Return x, t_x, T and the purchases of the `ahead` days after, of customers that follow the model."""
    rng = np.random.default_rng(seed)
    rate, leave = rng.gamma(model.r, 1 / model.alpha, customers), rng.beta(model.a, model.b, customers)
    span = rng.uniform(days / 2, days, customers)
    x, t_x, later = np.zeros(customers), np.zeros(customers), np.zeros(customers)
    here, clock = np.ones(customers, bool), np.zeros(customers)
    while here.any():
        clock = clock + rng.exponential(1 / rate)
        here &= clock <= span + ahead
        seen = here & (clock <= span)
        x, t_x, later = x + seen, np.where(seen, clock, t_x), later + (here & ~seen)
        here &= rng.random(customers) > leave
    return x, t_x, span, later


@pytest.mark.parametrize("true", [BGNBD(0.7, 60.0, 0.8, 3.0), BGNBD(1.5, 40.0, 2.0, 8.0)])
def test_known_parameters_are_found_again(true: BGNBD) -> None:
    x, t_x, span, _ = lives(true, 30_000, 700, 0, seed=3)
    found = fit_bgnbd(x, t_x, span)
    for name in ("r", "alpha"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=0.08)
    assert found.a / (found.a + found.b) == pytest.approx(true.a / (true.a + true.b), rel=0.08)


def test_the_likelihood_of_a_customer_is_the_integral_of_the_paper() -> None:
    x, t_x, span = 2.0, 30.4, 38.9

    def of_rate(power: float, until: float) -> float:
        def density(rate: float) -> float:
            gamma = CDNOW.alpha**CDNOW.r * rate ** (CDNOW.r - 1) * np.exp(-CDNOW.alpha * rate)
            return float(rate**power * np.exp(-rate * until) * gamma)

        from scipy.special import gamma as gamma_function

        return float(quad(density, 0, 60, limit=400)[0] / gamma_function(CDNOW.r))

    stays = np.exp(betaln(CDNOW.a, CDNOW.b + x) - betaln(CDNOW.a, CDNOW.b)) * of_rate(x, span)
    leaves = np.exp(betaln(CDNOW.a + 1, CDNOW.b + x - 1) - betaln(CDNOW.a, CDNOW.b)) * of_rate(x, t_x)
    found = log_likelihood(CDNOW, *(np.array([v]) for v in (x, t_x, span)))[0]
    assert found == pytest.approx(np.log(stays + leaves), abs=1e-6)


def test_the_expectation_is_what_simulated_customers_do() -> None:
    true = BGNBD(0.7, 60.0, 0.8, 3.0)
    x, t_x, span, later = lives(true, 200_000, 700, 90, seed=5)
    ahead = expected_purchases(true, x, t_x, span, 90)
    for often in (x == 0, x == 1, (x > 1) & (x < 6), x >= 6):
        assert ahead[often].mean() == pytest.approx(later[often].mean(), rel=0.05)
    chance = probability_alive(true, x, t_x, span)
    silent = (x > 3) & (span - t_x > 200)
    assert later[silent].mean() < 0.5 * later[(x > 3) & ~silent].mean()
    assert chance[silent].mean() < chance[(x > 3) & ~silent].mean()


def test_the_published_expectation_of_a_customer_of_cdnow() -> None:
    # The paper's note on computing in a spreadsheet: x = 2, t_x = 30.43, T = 38.86, 39 weeks ahead: 1.226 purchases
    ahead = expected_purchases(CDNOW, np.array([2.0]), np.array([30.43]), np.array([38.86]), 39.0)
    assert ahead[0] == pytest.approx(1.226, abs=0.002)


def test_at_a_equal_to_one_the_limit_is_taken() -> None:
    around = [
        expected_purchases(BGNBD(0.5, 30.0, a, 3.0), np.array([3.0]), np.array([90.0]), np.array([100.0]), 90.0)[0]
        for a in (0.999, 1.0, 1.001)
    ]
    assert around[0] > around[1] > around[2] or around[0] < around[1] < around[2]
    assert around[1] == pytest.approx((around[0] + around[2]) / 2, rel=1e-3)


def test_gamma_gamma_parameters_are_found_again() -> None:
    rng = np.random.default_rng(2)
    n = rng.integers(1, 12, 40_000).astype(float)
    m = rng.gamma(6.0 * n, 1 / (n * rng.gamma(4.0, 1 / 15.0, 40_000)))
    found = fit_gamma_gamma(n, m)
    assert [found.p, found.q, found.v] == pytest.approx([6, 4, 15], rel=0.1)


def test_an_order_value_is_drawn_towards_everybody() -> None:
    model = GammaGamma(6.0, 4.0, 15.0)  # everybody: 6 * 15 / 3 = 30
    values = expected_order_value(model, np.array([1.0, 1, 50, 1]), np.array([0.0, 100, 100, -5]))
    assert 0 < values[0] < 30 < values[1] < values[2] < 100 and values[3] == values[0]


@pytest.mark.parametrize(
    ("x", "t_x", "span", "said"),
    [
        ([0, 0, 0], [0, 0, 0], [5, 9, 30], "second time"),
        ([1, 0], [9, 0], [3, 9], "between 0 and T"),
        ([-1, 2], [0, 3], [3, 9], "x must be 0 or more"),
        ([0, 2], [4, 3], [9, 9], "t_x must be 0 where x is 0"),
        ([float("nan"), 2], [0, 3], [3, 9], "x must be 0 or more"),
        ([], [], [], "no customer"),
    ],
)
def test_impossible_histories_are_refused(x: list[float], t_x: list[float], span: list[float], said: str) -> None:
    with pytest.raises(DataRefused, match=said):
        fit_bgnbd(*(np.array(v, dtype=float) for v in (x, t_x, span)))


def test_nobody_paid_is_refused() -> None:
    with pytest.raises(DataRefused, match="fewer than two"):
        fit_gamma_gamma(np.array([1.0, 2.0]), np.array([0.0, 10.0]))


def test_a_few_customers_are_enough_for_finite_numbers() -> None:
    x, t_x, span = np.array([1.0, 0, 3]), np.array([30.0, 0, 200]), np.array([60.0, 90, 230])
    ahead = expected_purchases(fit_bgnbd(x, t_x, span), x, t_x, span, 90)
    assert np.isfinite(ahead).all() and (ahead >= 0).all()
