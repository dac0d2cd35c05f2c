"""The exact search for key steps: its prices, what it predicts, and what segments it may use."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from hgc_video.plan.search.fit_steps import StepFitter
from hgc_video.plan.search.segments import Prices, least_error, search_keys
from tests.plan.policies.test_policies import tower
from tests.plan.search.test_search import SETTING, brute, curved, measured
from tests.plan.test_graph import ladder


def test_prices_are_those_of_steps_after_the_first_by_hand():
    """On the ladder, with hint and text computed before; of 246 MACs for both branches, for one half."""
    macs = {"F": 2 * (1 + 88 + 10 + 7), "T": 2 * (1 + 88 + 10), "1": 2 * (1 + 10 + 7), "H": 0}
    prices = Prices.of(ladder(), "H1T")
    assert prices.before == pytest.approx({letter: n / 246 for letter, n in macs.items()})
    assert prices.gated == pytest.approx({letter: n / 2 / 246 for letter, n in macs.items()})


@pytest.mark.parametrize("coherent", [False, True])
@pytest.mark.parametrize(("seed", "gate"), [(0, 7), (1, 5), (2, 1), (3, 3)])
@pytest.mark.parametrize("budget", [0.3, 0.6])
def test_the_predicted_error_is_the_least_there_is(seed, gate, budget, coherent):
    """As shares of variance, or, where errors point the same way, of the deviation: the plan that is found is
    then another."""
    calibration, graph = measured(seed), tower()
    if not coherent:
        found = least_error(calibration, graph, budget, gate=gate, letters="H1")
        best = brute(calibration, graph, budget, gate)
        assert found == (None if best == math.inf else pytest.approx(best, rel=1e-9))
        return
    plan = search_keys(calibration, graph, budget, gate=gate, coherent=True)
    best = brute(calibration, graph, budget, gate, coherent=True)
    if plan is None:
        assert best == math.inf
        return
    assert deviation(plan, calibration) == pytest.approx(best, rel=1e-2)
    assert plan.gate == gate
    assert plan.extrapolation == tuple(round(d, 3) for d in plan.extrapolation)


def deviation(plan, calibration):
    """The predicted error of a plan whose errors add up as they are: in a segment each is as large as all."""
    total, keys = 0.0, [i for i, a in enumerate(plan.actions) if a == "F"]
    for at, key in enumerate(keys):
        after = keys[at + 1] if at + 1 < len(keys) else len(plan.actions)
        older, inner, error = keys[at - 1] if at else -1, range(key + 1, after), 0.0
        for step in inner:
            cut = 0 if plan.actions[step] == "H" else 1
            a, b, q = calibration.reused[cut][older, key, step]
            c = plan.extrapolation[step]
            error += calibration.sensitivity[step] * (a + 2 * b * c + q * c * c)
        total += math.sqrt(error * len(inner))
    gated = range(plan.gate, len(plan.actions))
    return total + sum(
        math.sqrt(calibration.sensitivity[i] * calibration.cfg_drop_error[i]) for i in gated
    )


def test_errors_are_taken_as_independent_unless_said():
    """Of variances a run of equal errors costs their sum; of deviations as many times the square root."""
    calibration, graph = measured(2), tower()
    plain, loose, same = (
        search_keys(calibration, graph, 0.6, gate=7, **how)
        for how in ({}, {"coherent": False, "letters": "FTH12"}, {"coherent": True})
    )
    assert plain == loose != same


def test_behind_the_first_key_alone_nothing_is_extrapolated():
    found = search_keys(measured(), tower(), 0.4, gate=7)
    second = found.actions.index("F", 1)
    assert found.extrapolation[:second] == (0.0,) * second and second > 1
    assert all(
        d == 0.0 for d, a in zip(found.extrapolation, found.actions, strict=True) if a == "F"
    )


def within(calibration, reach, *depths):
    """A calibration in which reuse of these depths was measured for so many steps behind a key."""
    tables = {
        depth: {at: v for at, v in table.items() if depth not in depths or at[2] - at[1] <= reach}
        for depth, table in calibration.reused.items()
    }
    return replace(calibration, reused=tables)


def test_segments_reach_as_far_as_was_measured():
    calibration, graph = within(measured(), 1, 0), tower()
    found = search_keys(calibration, graph, 0.45, gate=7)
    assert "11" in found.actions and "HH" not in found.actions
    assert search_keys(within(measured(), 1, 0, 1), graph, 0.45, gate=7) is None


@pytest.mark.parametrize(("steps", "found"), [(13, "F" + "H" * 12), (14, None)])
def test_fitted_segments_reach_twelve_steps_beyond_what_was_measured(steps, found):
    calibration = replace(
        within(curved(steps)[0], 1, 0, 1), setting=replace(SETTING, num_inference_steps=steps)
    )
    graph, budget = tower(), 1.01 / steps
    assert search_keys(calibration, graph, budget, gate=steps, letters="FH") is None
    plan = search_keys(
        calibration, graph, budget, gate=steps, letters="FH", fit=StepFitter(calibration, 3)
    )
    assert (plan and plan.actions) == found


def test_no_plan_has_no_error():
    assert least_error(measured(), tower(), 0.01, gate=7, letters="H1") is None


@pytest.mark.parametrize("ridge", [0.001, 5.0])
@pytest.mark.parametrize("coherent", [False, True])
def test_fitted_segments_have_the_least_error_that_the_fit_tells(coherent, ridge):
    """Of all words with as many keys, by errors whose ridge is towards the segment's slope in quarters."""
    calibration = curved()[0]
    fit = StepFitter(calibration, 3, ridge)

    def told(word):
        total, keys = 0.0, [i for i, a in enumerate(word) if a == "F"]
        for at, key in enumerate(keys):
            inner = range(key + 1, keys[at + 1] if at + 1 < len(keys) else len(word))
            sensitivity = [calibration.sensitivity[step] for step in inner]
            rows = [calibration.reused[0][keys[at - 1] if at else -1, key, step] for step in inner]
            b, q = (sum(g * r[k] for g, r in zip(sensitivity, rows, strict=True)) for k in (1, 2))
            slope = round(4 * min(max(-b / q, 0.0), 1.2)) / 4 if q else 0.0
            error = sum(
                g * fit.of("H", keys[: at + 1], step, slope).error
                for g, step in zip(sensitivity, inner, strict=True)
            )
            total += math.sqrt(error * len(inner)) if coherent else error
        return total

    for budget in (0.15, 0.45, 0.7):
        found = search_keys(
            calibration, tower(), budget, gate=7, letters="FH", fit=fit, coherent=coherent
        )
        words = ("F" + "".join(rest) for rest in itertools.product("FH", repeat=6))
        alike = [word for word in words if word.count("F") == found.actions.count("F")]
        assert told(found.actions) <= 1.001 * min(map(told, alike))
        assert found == fit(replace(found, coefficients=()))
