"""The policies that forecast whole steps, against their papers' formulas and their releases' schedules.

Every predictor is also shown a series that is linear in the steps: it must be continued exactly, or with
the share of its slope that is known of the method.
"""

from __future__ import annotations

from dataclasses import replace
from math import tanh

import pytest
import torch

from hgc_video.errors import PlanError
from hgc_video.plan.least_squares import solve
from hgc_video.plan.liveness import kept, live
from hgc_video.plan.policies.calibrated_spectrum import CalibratedSpectrum
from hgc_video.plan.policies.fitted import Fitted
from hgc_video.plan.policies.hicache import HiCache
from hgc_video.plan.policies.l2p import L2P, trained
from hgc_video.plan.policies.resilphase import ResilPhase
from hgc_video.plan.policies.spectrum import Spectrum
from hgc_video.plan.policies.taylorseer import TaylorSeer
from hgc_video.plan.policies.whole_steps import growing, newest_first
from tests.plan.policies.test_policies import tower
from tests.plan.search.test_search import measured

STEPS = 25


def forecast(policy, index, series, steps=STEPS):
    """What a policy makes of a series of values at a step."""
    keys = [key for key in policy.key_steps(steps) if key < index]
    rule = policy.rule(keys, index, steps)
    assert set(rule) <= set(keys)
    return sum(value * series(key) for key, value in rule.items())


def last_skipped(policy, steps=STEPS):
    return max(set(range(steps)) - set(policy.key_steps(steps)))


def slope_share(policy, index):
    """How far a series that rises by 1 a step is taken to have risen since the last computed step."""
    newest = max(key for key in policy.key_steps(STEPS) if key < index)
    return forecast(policy, index, lambda s: 3.0 + s) - (3.0 + newest)


@pytest.mark.parametrize(
    ("policy", "share"),
    [
        (TaylorSeer(interval=5, order=1), lambda j, n: j),
        (TaylorSeer(interval=5, order=2), lambda j, n: j),
        (HiCache(interval=5, order=1), lambda j, n: j / 2),
        (HiCache(interval=5, order=2), lambda j, n: j / 2),
        (HiCache(interval=5, order=1, sigma=0.5**0.5), lambda j, n: j),
        (ResilPhase(alpha=1e-4), lambda j, n: j),
        (ResilPhase(), lambda j, n: n * (tanh(0.55 * (1 + 2 * j / n)) / tanh(0.55) - 1) / 2),
        (Spectrum(m=1, lam=1e-9), lambda j, n: j),
        (Spectrum(w=0), lambda j, n: j),
        (Spectrum(w=0, line="fixed", slope=0.5), lambda j, n: n / 2),
        # The error is that of a forecast for the step before: one step of the rise too much.
        (CalibratedSpectrum(m=1, lam=1e-9, w=1, grow="computed"), lambda j, n: j + 0.5),
    ],
)
def test_a_linear_series_is_continued_with_the_share_that_is_known(policy, share):
    keys = policy.key_steps(STEPS)
    skipped = [i for i in range(7, STEPS) if i not in keys]
    assert len(skipped) > 5
    for i in skipped:
        newer, older = sorted((key for key in keys if key < i), reverse=True)[:2]
        assert slope_share(policy, i) == pytest.approx(share(i - newer, newer - older), abs=1e-4)


def test_the_computed_steps_are_those_of_the_releases():
    assert Spectrum().key_steps(25) == [0, 1, 2, 3, 4, 6, 8, 11, 15, 20]  # 10 of 25
    assert Spectrum(flex=0.25).key_steps(12) == [0, 1, 2, 3, 4, 6, 8, 10]
    cpp = Spectrum(w=0.4, m=3, lam=1, flex=0.5, warm_up=4, stop=0.9)
    assert cpp.key_steps(20) == [0, 1, 2, 3, 5, 7, 10, 13, 17, 18, 19]
    assert CalibratedSpectrum().key_steps(30) == [0, 1, 2, 3, 4, 10, *range(24, 30)]
    for policy in (TaylorSeer(interval=6), HiCache(interval=6), ResilPhase()):
        assert policy.key_steps(25) == [0, 1, 2, 8, 14, 20]


@pytest.mark.parametrize(("m", "lam", "w"), [(4, 0.1, 1.0), (3, 1.0, 0.4), (4, 0.1, 0.5)])
def test_spectrum_is_a_ridge_fit_of_chebyshev_polynomials_blended_with_a_line(m, lam, w):
    """The fit is made to values, as in the release, and not to the coefficients that the plan has."""
    policy = Spectrum(m=m, lam=lam, w=w)
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(STEPS, 7, generator=draw, dtype=torch.float64)
    for index in (5, 12, last_skipped(policy)):
        keys = [key for key in policy.key_steps(STEPS) if key < index]

        def basis(steps):
            angle = torch.acos(torch.tensor(steps, dtype=torch.float64) / 25 - 1)
            return torch.cos(angle[:, None] * torch.arange(m + 1))

        x, f = basis(keys), values[keys]
        stacked = torch.cat([x, lam**0.5 * torch.eye(m + 1, dtype=x.dtype)])
        padded = torch.cat([f, torch.zeros(m + 1, 7, dtype=f.dtype)])
        fit = basis([index]) @ torch.linalg.lstsq(stacked, padded).solution
        ahead = (index - keys[-1]) / (keys[-1] - keys[-2])
        line = f[-1] + ahead * (f[-1] - f[-2])
        expected = w * fit[0] + (1 - w) * line
        found = forecast(policy, index, lambda s: values[s])
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_spectrum_by_hand():
    """A constant is fitted to three steps and to a ridge of the weight of one more; a line is the last
    change's, and nothing is known of the change where there is one step."""
    assert Spectrum(m=0, lam=1).rule([0, 1, 4], 6, STEPS) == {0: 0.25, 1: 0.25, 4: 0.25}
    assert Spectrum(w=0, m=0).rule([0, 1], 3, STEPS) == pytest.approx({1: 3, 0: -2})
    assert Spectrum(w=0, m=0).rule([4], 6, STEPS) == pytest.approx({4: 1})


@pytest.mark.parametrize(
    ("keys", "index", "rule"),
    [
        # 2 F3 - F1, and half of what 2 F1 - F0, the forecast of step 2, is less than F3.
        ([0, 1, 3], 4, {3: 2.5, 1: -2, 0: 0.5}),
        # 2 F5 - F3, and half of what 2 F3 - F1, the forecast of step 4, is less than F5.
        ([0, 1, 3, 5], 6, {5: 2.5, 3: -2, 1: 0.5}),
        ([0, 1, 2], 3, {2: 2, 1: -1}),  # nothing was forecast yet
    ],
)
def test_calibrated_spectrum_by_hand(keys, index, rule):
    """With the line alone, one gap long wherever the step is."""
    policy = CalibratedSpectrum(w=0, m=0, strength=0.5)
    found = {key: value for key, value in policy.rule(keys, index, STEPS).items() if value}
    assert found == pytest.approx(rule)


def test_calibrated_spectrum_adds_a_share_of_the_last_forecasts_error():
    policy = CalibratedSpectrum(grow="computed", flex=0.5)
    plain = policy.model_copy(update={"strength": 0.0})
    draw = torch.Generator().manual_seed(1)
    values = torch.randn(STEPS, 5, generator=draw, dtype=torch.float64)
    keys, before, error, corrected = policy.key_steps(STEPS), None, None, 0
    for i in range(STEPS):  # as its node does: the raw forecast is kept until a step is computed
        if i in keys:
            error = error if before is None else values[i] - before
            continue
        before = forecast(plain, i, lambda s: values[s])
        expected = before if error is None else before + 0.5 * error
        corrected += error is not None
        torch.testing.assert_close(forecast(policy, i, lambda s: values[s]), expected)
    assert corrected > 3


def test_orders_above_one_follow_the_published_terms():
    """With outputs s^2: D1 = (F1 - F2) / n, D2 = (D1 - the D1 before) / n."""
    keys, index = [0, 1, 2, 8, 14], 17
    d1, before = (14**2 - 8**2) / 6, (8**2 - 2**2) / 6
    d2, j = (d1 - before) / 6, 3
    taylor = 14**2 + j * d1 + j**2 / 2 * d2
    hermite = 14**2 + 0.5 * j * d1 + (j**2 - 2) / 8 * d2
    for policy, expected in ((TaylorSeer(order=2), taylor), (HiCache(order=2), hermite)):
        rule = policy.rule(keys, index, STEPS)
        assert sum(c * key**2 for key, c in rule.items()) == pytest.approx(expected)
    # The first derivative is the last of the first steps': at steps 0 and 1 there is none.
    assert TaylorSeer(order=2, warm_up=3).rule([0, 1, 2], 3, STEPS) == pytest.approx({2: 2, 1: -1})


def test_resilphase_interpolates_over_warped_steps_of_any_order():
    policy = ResilPhase(order=2)
    nodes = [tanh(0.55 * x) for x in (-1, 0, 1)]  # around the mean of 8, 14 and 20
    rule = policy.rule([2, 8, 14, 20], 23, STEPS)
    at = tanh(0.55 * 1.5)
    for power in range(3):  # a polynomial of its degree is met
        told = sum(rule[key] * node**power for key, node in zip((8, 14, 20), nodes, strict=True))
        assert told == pytest.approx(at**power)


def test_what_is_skipped_is_forecast_from_the_store():
    graph = tower()
    for policy, name in (
        (Spectrum(), graph.output),
        (Spectrum(of="features"), graph.layers[-2].name),
    ):
        schedule = policy(graph, STEPS)
        step = schedule.steps[24]
        alive = live(graph, step, lossless=False)
        assert alive.held == {name} and not {n for n in alive.computed if "controlnet" in n}
        assert (graph.output in alive.computed) == (policy.of == "features")
        assert len(step.coefficients) == 10  # all computed steps
        assert kept(graph, schedule)[23] == {name: 10}
        few = policy.model_copy(update={"keep": 6})(graph, STEPS)
        assert kept(graph, few)[23] == {name: 6}


def test_rules_are_written_without_what_is_not_read():
    assert newest_first({4: 1.0}, [0, 2, 4]) == ()
    assert newest_first({4: 1.5, 2: -0.5, 0: 1e-12}, [0, 2, 4]) == (1.5, -0.5)
    assert newest_first({0: 0.5, 4: 0.5}, [0, 2, 4]) == (0.5, 0.0, 0.5)


def test_equations_are_solved():
    assert solve([[0, 2], [4, 1]], [2, 9]) == [2.0, 1.0]
    with pytest.raises(ZeroDivisionError):
        solve([[1, 2], [2, 4]], [1, 1])


@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_l2p_is_trained_as_released(size):
    """On outputs, by torch's Adam; ours sees their inner products alone. Of small outputs the slopes are no
    larger than what Adam adds to their roots."""
    draw = torch.Generator().manual_seed(2)
    steps, width = 6, 40
    x = size * torch.randn(steps, width, generator=draw, dtype=torch.float64).cumsum(0)
    weight = torch.eye(steps, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weight], lr=0.01)
    for _ in range(30):
        adam.zero_grad()
        ((weight.tril() @ x)[:-1] - x[1:]).square().mean().backward()
        adam.step()
    found = torch.tensor(trained((x @ x.T / width).tolist(), 30, 0.01), dtype=torch.float64)
    torch.testing.assert_close(found, weight.detach().tril(), rtol=1e-6, atol=1e-9)


def test_l2p_feeds_its_forecasts_back(tmp_path):
    draw = torch.Generator().manual_seed(4)
    values = torch.randn(7, 9, generator=draw, dtype=torch.float64).cumsum(0)
    products = tuple(map(tuple, (values @ values.T / 9).tolist()))
    replace(measured(), products=products).save(tmp_path / "measured.yaml")
    policy = L2P(calibration=str(tmp_path / "measured.yaml"), interval=3, warm_up=2)
    keys, history = policy.key_steps(7), []
    matrix = torch.tensor(trained(products, 201, 0.01), dtype=torch.float64)
    assert keys == [0, 1, 4]
    for i in range(7):  # as the release runs: whatever a step gave is the history of the next
        told = values[i] if i in keys else matrix[i - 1, :i] @ torch.stack(history)
        history.append(told)
        if i not in keys:
            found = forecast(policy, i, lambda s: values[s], steps=7)
            torch.testing.assert_close(found, told, rtol=1e-6, atol=1e-6)
    with pytest.raises(PlanError, match="made for 7 steps and the run has 25"):
        policy(tower(), 25)
    measured().save(tmp_path / "older.yaml")
    with pytest.raises(PlanError, match="no products of predictions"):
        L2P(calibration=str(tmp_path / "older.yaml"))(tower(), 7)


def test_l2p_continues_a_linear_series_with_the_share_that_its_training_reached():
    """Outputs a + b s: the last change alone would do, of which so many iterations of 0.01 reach a part."""
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x = torch.stack([a + b * s for s in range(8)])
    products = (x @ x.T / 50).tolist()
    before, after = (
        [
            float(
                (torch.tensor(trained(products, n, 0.01), dtype=x.dtype) @ x - x.roll(-1, 0))[
                    6
                ].norm()
            )
            for n in ns
        ]
        for ns in ((0,), (201, 2001))
    )
    assert before[0] == pytest.approx(float(b.norm()))  # it begins by holding
    assert after[0] < 0.05 * before[0] and after[1] < after[0]


def test_fitted_coefficients_continue_what_was_measured(tmp_path):
    """Outputs along a parabola: three terms meet it, and as much of a ridge as there is goes to the slope."""
    a, b, c = torch.randn(3, 60, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    values = torch.stack([a + b * s / 10 + c * s**2 / 100 for s in range(12)])
    products = tuple(map(tuple, (values @ values.T / 60).tolist()))
    replace(measured(), products=products).save(tmp_path / "measured.yaml")
    fit = Fitted(calibration=str(tmp_path / "measured.yaml"), ridge=1e-6, warm_up=3)
    for i in sorted(set(range(12)) - set(fit.key_steps(12))):
        found = forecast(fit, i, lambda s: values[s], steps=12)
        torch.testing.assert_close(found, values[i], rtol=1e-2, atol=1e-2)
    pulled = fit.model_copy(update={"ridge": 1e9})
    rule = pulled.rule([0, 1, 2, 4], 6, 12)
    assert rule == pytest.approx({4: 1.5, 2: -0.5, 1: 0.0}, abs=1e-6)
    whole = fit.model_copy(update={"ridge": 1e9, "slope": 1.0, "terms": 2})
    assert whole.rule([0, 1, 2, 4], 6, 12) == pytest.approx({4: 2.0, 2: -1.0}, abs=1e-6)
    with pytest.raises(PlanError, match="made for 12 steps and the run has 25"):
        fit(tower(), 25)


def test_a_plan_by_hand():
    """Key steps 0, 1 and 4; the others lie on the line through the last two before them."""
    plan = TaylorSeer(order=1, interval=3, warm_up=2)(tower(), 6)
    assert plan.name == "taylorseer" and plan.lossless is False
    assert [step.label for step in plan.steps] == [
        "key",
        "key",
        "forecast",
        "forecast",
        "key",
        "forecast",
    ]
    assert [step.coefficients for step in plan.steps] == [
        (), (), (2.0, -1.0), (3.0, -2.0), (), (pytest.approx(4 / 3), pytest.approx(-1 / 3)),
    ]  # fmt: skip
    name = frozenset({tower().output})
    for index, said in (
        (2, "+2 of 1 -1 of 0"),
        (3, "+3 of 1 -2 of 0"),
        (5, "+1.33 of 4 -0.333 of 1"),
    ):
        step = plan.steps[index]
        assert step.reuse == name | set(tower().residuals()) and step.extrapolate == name
        assert step.reason == f"taylorseer: forecast from the key steps, {said}"
    assert plan.steps[4].reason == "taylorseer: a key step, computed"
    held = TaylorSeer(order=1, interval=3, warm_up=1)(tower(), 3).steps[1]
    assert held.coefficients == () and held.reason.endswith("from the key steps, +1 of 0")
    alone = TaylorSeer(order=1, interval=3, warm_up=2)(replace(tower(), branches=1), 6)
    assert {step.branches for step in alone.steps} == {1}
    features = TaylorSeer(of="features", order=1, interval=3, warm_up=2)(tower(), 6).steps[2]
    assert features.extrapolate == frozenset({tower().layers[-2].name})


def test_gaps_that_grow():
    assert growing(10, 2, 2, 1.0) == [0, 1, 3, 6]
    assert growing(8, 2, 1, 1.0) == [0, 1, 2, 4, 7], (
        "the gap grows with the first step after the warm-up"
    )
    assert growing(10, 2, 2, 1.0, last=8) == [0, 1, 3, 6, 8, 9]
