"""The path of predictions: interpolated, priced, with noise; what a calibration has to hold for one."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import cos, pi, sin
from pathlib import Path

import pytest
import yaml

from hgc_video.errors import PlanError
from hgc_video.files import package_data
from hgc_video.plan.calibration import load_calibration
from hgc_video.plan.linear_fit import fitted
from hgc_video.plan.prediction_path import (
    PredictionPath,
    RunPath,
    equal_turns,
    path_data,
    path_of,
    paths_of,
    share_of_turn,
    shipped_paths,
)  # fmt: skip
from tests.plan.policies.test_policies import calibration  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
ANGLES = equal_turns(10)


def cubic(angle):
    return 1 + angle - 0.5 * angle**2 + 0.2 * angle**3


def along(value, angles):
    """The path at these angles of predictions that are a number each."""
    known = [value(angle) for angle in ANGLES]
    products = tuple(tuple(a * b for b in known) for a in known)
    path = RunPath(PredictionPath(ANGLES, products, tuple(2 + angle for angle in ANGLES)))
    for angle in angles:
        path.add(angle)
    return path


def test_at_measured_angles_it_is_what_was_measured_and_cubics_are_known_between():
    angles = (*ANGLES[:4], 1.0, 0.71, 0.3, 0.05)  # the last one beyond
    path = along(cubic, angles)
    for i, one in enumerate(angles):
        for j, other in enumerate(angles):
            assert path.product(i, j) == pytest.approx(cubic(one) * cubic(other))


def test_the_mean_square_of_a_sum_has_the_noise_of_the_steps_between():
    path = along(cubic, ANGLES)
    line = {5: 1.0, 4: -2.0, 3: 1.0}
    smooth = (cubic(ANGLES[5]) - 2 * cubic(ANGLES[4]) + cubic(ANGLES[3])) ** 2
    assert path.squared(line) == pytest.approx(smooth, rel=1e-6)
    # A walk w has w5 - 2 w4 + w3 = (w5 - w4) - (w4 - w3), two independent steps.
    assert path.walked(line) == 2
    path.noise = 0.3
    assert path.squared(line) == pytest.approx(smooth + 0.6, rel=1e-6)
    assert path.squared({}) == 0


def test_coefficients_forecast_what_is_smooth_and_hold_what_is_noise():
    path = along(cubic, ANGLES)
    assert path.squared({6: 1.0} | dict(zip((5, 3, 2), (-a for a in path.coefficients([2, 3, 5], 6, 3)),
                                            strict=True))) < 1e-8  # fmt: skip
    path.noise = 1e6
    held, *others = path.coefficients([2, 3, 5], 6, 3)
    assert held == pytest.approx(1, abs=0.01)
    assert others == pytest.approx([0, 0], abs=0.01)


def test_a_step_costs_by_how_far_the_latents_turn_at_it():
    path = along(cubic, ANGLES)
    turn = pi / 20
    assert path.price(3, last=False) == pytest.approx(turn * (2 + ANGLES[3]))
    assert path.price(9, last=True) == pytest.approx(ANGLES[9] * (2 + ANGLES[9]))
    between = (ANGLES[4] + ANGLES[5]) / 2
    assert path.path.price(between) == pytest.approx(2 + between)
    assert path.path.price(3.0) == path.path.prices[0]


def test_a_prediction_is_interpolated_from_the_two_measured_ones_on_either_side():
    path = along(cubic, ()).path
    between = [(a + b) / 2 for a, b in pairwise(ANGLES)]
    near = [list(path.weights(angle)) for angle in (3.0, *between, 0.01)]
    assert (
        near
        == [[0, 1, 2, 3]] * 3 + [[k, k + 1, k + 2, k + 3] for k in range(1, 6)] + [[6, 7, 8, 9]] * 3
    )
    middle = path.weights(between[4])  # of equal distances those of the cubic in the middle
    assert list(middle.values()) == pytest.approx([-1 / 16, 9 / 16, 9 / 16, -1 / 16])
    short = PredictionPath((1.0, 0.5), ((1.0, 1.0), (1.0, 1.0)), (1.0, 1.0))
    assert short.weights(0.75) == {0: pytest.approx(0.5), 1: pytest.approx(0.5)}


def test_the_first_step_turns_from_pure_noise_and_the_last_one_all_the_way():
    path = along(cubic, (1.5, 1.4, 1.2, 0.1))
    prices = [path.path.price(angle) for angle in path.angles]
    turns = [pi / 2 - 1.5, 0.1, 0.2, 0.1]  # at the last one no further than there is to turn
    assert [path.price(i, last=False) for i in range(4)] == pytest.approx(
        [turn * price for turn, price in zip(turns, prices, strict=True)]
    )
    assert path.price(1, last=True) == pytest.approx(1.4 * prices[1])
    assert path.path.price(0.01) == path.path.prices[-1], "below the last measured one as there"


def test_noise_walks_from_the_oldest_step():
    path = along(cubic, ANGLES)
    assert path.walked({5: 1.0, 3: 1.0}) == 2 and path.walked({4: 3.0}) == 0
    path.noise = 0.25
    smooth = cubic(ANGLES[5]) * cubic(ANGLES[3])
    assert path.product(5, 3) == pytest.approx(smooth + 0.25 * 3)
    assert path.product(5, 3, 2) == pytest.approx(smooth + 0.25)


@pytest.mark.parametrize("terms", [2, 3, 4])
def test_coefficients_are_the_best_ones_under_a_walk_from_the_oldest_value(terms):
    path, keys, step = along(cubic, ANGLES), [1, 2, 3, 5], 7
    path.noise = 0.25
    oldest = keys[-terms]
    known = {
        i: {
            j: cubic(ANGLES[i]) * cubic(ANGLES[j]) + 0.25 * (min(i, j) - oldest)
            for j in [*keys, step]
        }
        for i in [*keys, step]
    }
    best = fitted(known, keys, step, terms=terms).coefficients
    assert path.coefficients(keys, step, terms) == pytest.approx(best, rel=1e-6)
    assert len(best) == terms


def test_an_error_of_every_type_has_its_price():
    """The deviation that an error leaves for every unit turned; as much more as its type has less of v, but
    at most twenty times."""
    angles, sensitivity = (1.56, 0.8, 0.01), (0.04, 0.0, 0.09)
    products = ((4.0,), (3.0, 2.0), (1.0, 1.5, 1.0))
    v = [0.2 / (1.56 - 0.8), 0.0, 0.3 / 0.01]
    kinds = dict.fromkeys(("v_prediction", "epsilon", "sample"), products)
    made = paths_of(angles, sensitivity, kinds)
    assert made["v_prediction"].prices == pytest.approx(v)
    assert made["epsilon"].prices == pytest.approx((20 * v[0], 0.0, v[2] / cos(0.01)))
    assert made["sample"].prices == pytest.approx((v[0] / sin(1.56), 0.0, 20 * v[2]))
    for path in made.values():
        assert path.angles == angles
        assert path.products == ((4.0, 3.0, 1.0), (3.0, 2.0, 1.5), (1.0, 1.5, 1.0))


@pytest.mark.parametrize(
    ("rows", "sensitivity"),
    [(((1.0,), (1.0, 1.0), (1.0, 1.0)), (1.0,) * 3), (((1.0,) * 3,) * 3, (1.0, -0.1, 1.0))],
)
def test_rows_that_are_too_short_and_errors_below_nothing_are_no_path(rows, sensitivity):
    with pytest.raises(PlanError, match=r"products or sensitivity are none; .*hgc-video calibrate"):
        paths_of((1.5, 1.0, 0.5), sensitivity, {"epsilon": rows})


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "sample"])
def test_an_error_of_a_prediction_turns_the_latents_by_its_share(kind):
    """Latents of unit variance on a circle: x = cos(phi) x0 + sin(phi) e, v = cos(phi) e - sin(phi) x0."""
    angle, turn, error = 0.8, 1e-3, 1e-2
    alpha, sigma = cos(angle), sin(angle)
    x, v = 1.0, 0.4
    x0, e = alpha * x - sigma * v, sigma * x + alpha * v
    if kind == "v_prediction":
        x0, e = alpha * x - sigma * (v + error), sigma * x + alpha * (v + error)
    elif kind == "epsilon":
        e += error
        x0 = (x - sigma * e) / alpha
    else:
        x0 += error
        e = (x - alpha * x0) / sigma
    moved = cos(angle - turn) * x0 + sin(angle - turn) * e
    right = cos(angle - turn) * (alpha * x - sigma * v) + sin(angle - turn) * (
        sigma * x + alpha * v
    )
    made = abs(moved - right) / error
    assert made == pytest.approx(turn / share_of_turn(kind, angle), rel=2e-3)


def test_the_shipped_path_is_the_calibrations():
    told = yaml.safe_load((package_data("schedules") / "guard.yaml").read_text())
    measured = load_calibration(ROOT / "configs" / "puppet-calibration.yaml")
    if measured.setting.model_hash != told["model_hash"]:
        pytest.skip("the path was taken from a calibration of other weights")
    assert told["path"] == path_data(measured)
    shipped, own = shipped_paths(), path_of(measured)
    assert set(shipped) == {"epsilon", "v_prediction", "sample"}
    assert shipped["v_prediction"].prices == pytest.approx(own.prices, rel=1e-3)
    for one, other in zip(shipped["v_prediction"].products, own.products, strict=True):
        assert one == pytest.approx(other, rel=1e-6)


def test_a_calibration_that_has_none_says_so(calibration):  # noqa: F811
    measured = load_calibration(calibration)
    assert path_of(measured).angles == equal_turns(25)
    for wrong, said in (
        ({"products": ()}, "holds no products"), ({"sensitivity": (1.0,)}, "not of the same"),
        ({"angles": (0.5,) * 25}, "not of the same"), ({"products": ((1.0,),) * 25}, "are none"),
    ):  # fmt: skip
        with pytest.raises(PlanError, match=said):
            path_of(replace(measured, **wrong))
    with pytest.raises(PlanError, match="no products by type"):
        path_data(measured)
    with pytest.raises(PlanError, match="not of the same"):
        paths_of((1.0,), (1.0, 1.0), {"epsilon": ((1.0,),)})
