"""Closed-form coefficients against least squares on the values themselves."""

from __future__ import annotations

import itertools

import pytest
import torch

from hgc_video.plan.least_squares import solve
from hgc_video.plan.linear_fit import Fit, fitted, squared_error

KEYS, STEP = [0, 2, 3, 6], 8


def path(noise=0.0, width=400):
    """Values of ten steps along a curve, and their mean products."""
    draw = torch.Generator().manual_seed(0)
    parts = torch.randn(3, width, generator=draw, dtype=torch.float64)
    s = torch.arange(10, dtype=torch.float64)[:, None] / 10
    values = parts[0] + s * parts[1] + s**2 * parts[2]
    values = values + noise * torch.randn(values.shape, generator=draw, dtype=torch.float64)
    return values, (values @ values.T / width).tolist()


@pytest.mark.parametrize("terms", [1, 2, 3, 4])
def test_without_a_ridge_it_is_least_squares(terms):
    values, products = path(noise=0.01)
    nodes = KEYS[::-1][:terms]
    found = fitted(products, KEYS, STEP, terms=terms, ridge=0.0)
    expected = torch.linalg.lstsq(values[nodes].T, values[STEP]).solution
    if terms == 1:  # one value is held: nothing tells a share of it from noise
        expected = torch.ones(1, dtype=torch.float64)
    told = torch.tensor(found.coefficients, dtype=torch.float64)
    torch.testing.assert_close(told, expected, rtol=1e-5, atol=1e-6)
    missed = (values[STEP] - told @ values[nodes]).square().mean()
    assert found.error == pytest.approx(float(missed), rel=1e-5)


def test_a_large_ridge_is_the_slope():
    _, products = path()
    found = fitted(products, KEYS, STEP, ridge=1e9, slope=0.5)
    ahead = 0.5 * (8 - 6) / (6 - 3)
    assert found.coefficients == pytest.approx((1 + ahead, -ahead, 0.0), abs=1e-6)
    plain = squared_error(products, [6, 3, 2], STEP, (1 + ahead, -ahead, 0.0))
    assert found.error == pytest.approx(plain, rel=1e-4)


def test_three_values_of_a_parabola_give_the_fourth_exactly():
    _, products = path()
    three, two = (fitted(products, KEYS, STEP, terms=n, ridge=1e-9) for n in (3, 2))
    assert three.error < 1e-3 * two.error
    lagrange = (2.5, -4.0, 2.5)  # over 6, 3 and 2, at 8
    assert three.coefficients == pytest.approx(lagrange, abs=0.05)


def test_a_ridge_prices_what_noise_alone_would_ask_for():
    """Fitted to one clip and judged on another, the coefficients with a ridge are the better ones."""
    _, products = path(noise=0.3, width=12)
    _, fresh = path(noise=0.3, width=4000)
    nodes = KEYS[::-1]
    free, ridged = (
        fitted(products, KEYS, STEP, terms=4, ridge=ridge).coefficients for ridge in (0.0, 1.0)
    )
    assert squared_error(fresh, nodes, STEP, ridged) < squared_error(fresh, nodes, STEP, free)


@pytest.mark.parametrize(
    ("slope", "ridge", "coefficients", "error"),
    [
        (0.5, 1.0, (2.0, -1.0), 1.0), (0.5, 0.0, (2.5, -1.5), 0.0), (0.5, 3.0, (1.75, -0.75), 2.25),
        (0.0, 1.0, (1.75, -0.75), 2.25), (0.0, 2.0, (1.5, -0.5), 4.0),
    ],
)  # fmt: skip
def test_a_ridge_by_hand(slope, ridge, coefficients, error):
    """Values 3, 5, 8 of steps 0, 2, 4: by slope 5 + 2 slope, of which 3 - 2 slope is missed. The change of 2
    is added (3 - 2 slope) / 2 times more where it costs nothing, and 1 + ridge times less where it does."""
    values = {0: 3.0, 2: 5.0, 4: 8.0}
    products = {i: {j: a * b for j, b in values.items()} for i, a in values.items()}
    found = fitted(products, [0, 2], 4, terms=2, ridge=ridge, slope=slope, free_sum=False)
    assert found == Fit(pytest.approx(coefficients), pytest.approx(error))


def test_as_it_comes_three_values_are_fitted_with_a_small_ridge():
    _, products = path(noise=0.3)
    plain = fitted(products, KEYS, STEP)
    assert plain == fitted(products, KEYS, STEP, terms=3, ridge=1e-3, slope=0.5, free_sum=True)
    assert sum(plain.coefficients) != pytest.approx(1, abs=1e-3)


def test_as_many_coefficients_as_values_have_an_error():
    _, products = path()
    for coefficients in ((1.0,), (1.0, 0.5, -0.5)):
        with pytest.raises(ValueError):
            squared_error(products, [6, 3], STEP, coefficients)


def test_equations_are_solved_in_the_order_that_pivots_allow():
    """Rows 0 1 1, 1 1 0 and 0 0 2, in every order, have the solution 1, 2, 3."""
    rows = {(0, 1, 1): 5, (1, 1, 0): 3, (0, 0, 2): 6}
    for order in itertools.permutations(rows):
        assert solve(order, [rows[row] for row in order]) == pytest.approx([1, 2, 3])
    assert solve([[1e-20, 1, 0], [1, 1, 0], [0, 0, 1]], [1, 2, 3]) == pytest.approx([1, 1, 3])
    with pytest.raises(ZeroDivisionError):
        solve([[1, 2], [2, 4]], [1, 2])
    with pytest.raises(ValueError):
        solve([[1, 0], [0, 1]], [1])
