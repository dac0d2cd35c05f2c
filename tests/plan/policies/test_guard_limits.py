"""How far `guard` lets a run go: its choices, the allowance of an interval, the price of what is left, and
what it takes from the signals; on predictions that are plain vectors, worked out a second time with them."""

from __future__ import annotations

from dataclasses import replace
from math import pi, sqrt

import numpy as np
import pytest

from hgc_video.plan.policies.guard import Decider, Guard, Limits, foreseen, missed, with_forecast
from hgc_video.plan.prediction_path import PredictionPath, RunPath, equal_turns
from hgc_video.plan.schedule import StepPlan
from tests.plan.policies.test_guard import Series
from tests.plan.policies.test_policies import tower

STEPS = 12
ANGLES = tuple(pi / 2 - 0.12 * i for i in range(STEPS))  # 0.2508 are left at the last one
TO_ZERO = tuple(1.5 * (STEPS - 1 - i) / (STEPS - 1) for i in range(STEPS))


def vectors(angles):
    """Of every angle the prediction, eight numbers, so that no three predictions tell a fourth."""
    turned = np.outer(angles, np.arange(1, 9))
    return np.sin(turned + np.arange(8))


def measured(angles=ANGLES):
    """The path of these predictions, with a price that falls with the angle."""
    values = vectors(angles)
    products = values @ values.T / 8
    return PredictionPath(
        tuple(angles), tuple(map(tuple, products.tolist())), tuple(2 + a for a in angles)
    )


def along(angles=ANGLES, noise=0.0):
    path = RunPath(measured(angles), noise)
    for angle in angles:
        path.add(angle)
    return path


def size_of(factors, oldest, noise=0.0, angles=ANGLES):
    """The root mean square of a sum of predictions: of the vectors, and of a walk since the oldest one, that
    goes a random step at every step of the run."""
    tails = [factors[at:].sum() for at in range(oldest + 1, len(factors))]
    return sqrt(np.square(factors @ vectors(angles)).mean() + noise * np.square(tails).sum())


def spent(limits, noise, keys, before, angles=ANGLES):
    """What a run's forecasts cost from these keys on, with one factor for every step's prediction."""
    path, keys, steps = along(angles, noise), list(keys), limits.num_steps
    whole, interval = np.zeros(len(angles)), np.zeros(len(angles))
    for at, factor in before.items():
        whole[at] = factor
    read = set(before)
    for step in range(keys[-1] + 1, steps):
        turn = (
            angles[step]
            if step == steps - 1
            else min(angles[step - 1] - angles[step], angles[step])
        )
        longer, price = interval.copy(), turn * (2 + angles[step])
        longer[step] += price
        newest_first = keys[:-4:-1]
        for key, a in zip(newest_first, path.coefficients(keys, step, 3), strict=True):
            longer[key] -= price * a
        oldest = min(at for at in range(len(angles)) if longer[at])
        distance, gap = step - keys[-1], keys[-1] - keys[-2]
        short = distance < limits.longest and distance + 1 <= limits.growth * gap
        if short and size_of(longer, oldest, noise, angles) <= limits.allowance:
            interval = longer
            read |= {step, *newest_first}
        else:
            whole, interval = whole + interval, np.zeros(len(angles))
            keys.append(step)
    return size_of(whole + interval, min(read, default=0), noise, angles)


# The choices.


def test_each_step_is_computed_or_forecast_from_the_value_held_of_as_many_as_there_are():
    graph = tower()
    once = frozenset(graph.names("hint"))
    for branches in (1, 2):
        plan = Guard(tolerance=0.5)(replace(graph, branches=branches), 6)
        key = StepPlan(branches=branches, label="key")
        held = once | {graph.output, *graph.residuals()}
        expected = [(key,), (replace(key, reuse=once),)]
        for coefficients in ((1.0, 0.0), *[(1.0, 0.0, 0.0)] * 3):
            forecast = StepPlan(
                held, branches=branches, extrapolate=frozenset({graph.output}), label="forecast",
                coefficients=coefficients,
            )  # fmt: skip
            expected.append((replace(key, reuse=once), forecast))
        assert plan.choices == tuple(expected)


def test_under_noise_three_steps_are_computed_first_and_two_without():
    for noisy, first in ((True, 3), (False, 2)):
        plan = Guard(noisy=noisy)(tower(), 25)
        assert [len(some) for some in plan.choices] == [1] * first + [2] * (25 - first)
        assert plan.choices[0][0].reason.startswith(f"guard: one of the first {first} steps, ")


# The allowance.


def test_a_forecast_misses_what_the_keys_do_not_tell_at_the_steps_price():
    path, values, keys = along(), vectors(ANGLES), [2, 3, 5]
    for step, last in ((7, False), (11, False), (11, True)):
        turn = ANGLES[step] if last else 0.12
        price = turn * (2 + ANGLES[step])
        coefficients, errors = with_forecast(path, keys, step, {4: 0.5}, last=last)
        assert coefficients == path.coefficients([2, 3, 5], step, 3)
        five, three, two = coefficients
        assert errors == pytest.approx(
            {4: 0.5, step: price, 5: -price * five, 3: -price * three, 2: -price * two}
        )
        apart = values[step] - five * values[5] - three * values[3] - two * values[2]
        alone = {at: factor for at, factor in errors.items() if at != 4}
        assert path.squared(alone) == pytest.approx(np.square(price * apart).mean(), rel=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.003])
@pytest.mark.parametrize("allowance", [0.0, 0.03, 0.08, 0.2, 0.5, 1e3])
def test_what_a_run_will_cost_is_foreseen_as_it_is_found_step_by_step(noise, allowance):
    for longest, growth, keys, before in (
        (10, 2.0, [0, 1], {}), (3, 9.0, [0, 1, 2], {}), (10, 1.5, [1, 3, 5], {0: 0.01, 2: -0.02}),
        (10, 9.0, [6, 8, 10], {9: 0.03}), (10, 9.0, [9, 10, 11], {9: 0.03, 4: 0.1}),
    ):  # fmt: skip
        limits = Limits(1.0, allowance, longest, growth, STEPS)
        found = foreseen(limits, along(noise=noise), keys, before)
        assert found == pytest.approx(spent(limits, noise, keys, before), rel=1e-5, abs=1e-7)
    assert keys == [9, 10, 11] and before == {9: 0.03, 4: 0.1}, "what was given is left as it is"


def test_the_last_forecast_counts_for_the_whole_way_that_is_left():
    """Only the last step is left to forecast: 0.2508 to go rather than 0.12."""
    limits = Limits(1.0, 1e3, 10, 9.0, STEPS)
    keys, values = [7, 9, 10], vectors(ANGLES)
    ten, nine, seven = along().coefficients(keys, 11, 3)
    apart = values[11] - ten * values[10] - nine * values[9] - seven * values[7]
    price = ANGLES[11] * (2 + ANGLES[11])
    assert ANGLES[11] > 2 * (ANGLES[10] - ANGLES[11])
    assert foreseen(limits, along(), keys, {}) == pytest.approx(
        price * sqrt(np.square(apart).mean()), rel=1e-6
    )


def test_an_interval_may_cost_its_allowance_and_no_more():
    path, keys = along(), [7, 9, 10]
    whole = sqrt(path.squared(with_forecast(path, keys, 11, {}, last=True)[1]))
    assert whole > 0.01
    for allowance, cost in ((whole, whole), (0.999 * whole, 0.0), (1.001 * whole, whole)):
        assert foreseen(Limits(1.0, allowance, 10, 9.0, STEPS), path, keys, {}) == cost


@pytest.mark.parametrize(
    ("tolerance", "noise", "before"),
    [
        (0.02, 0.0, {}), (0.1, 0.0, {}), (0.2, 0.03, {}),
        (0.1, 0.003, {0: 0.126}), (0.15, 0.03, {0: 0.189}), (0.3, 0.03, {0: 0.379}),
    ],
)  # fmt: skip
def test_the_allowance_is_the_most_with_which_a_run_keeps_to_the_tolerance(
    tolerance, noise, before
):
    """Of all allowances, to a thousandth and a half of the tolerance; in a run of 40 steps."""
    limits, keys, angles = Limits(tolerance, 99.0, 10, 9.0, 40), [0, 1], equal_turns(40)
    found = limits.solved(along(angles, noise), keys, before)
    assert found == replace(limits, allowance=found.allowance), "and nothing else is changed"

    def keeps(allowance):
        return spent(replace(limits, allowance=allowance), noise, keys, before, angles) <= tolerance

    kept = [keeps(allowance) for allowance in np.linspace(0, tolerance, 21)[1:]]
    assert kept == sorted(kept, reverse=True) and not kept[-1]
    assert keeps(found.allowance) and not keeps(found.allowance + 0.0015 * tolerance)


def test_where_nothing_costs_too_much_the_allowance_is_the_whole_tolerance():
    for tolerance in (0.8, 3.0):  # all forecasts cost 0.795
        limits = Limits(tolerance, 0.0, 10, 9.0, STEPS)
        assert spent(replace(limits, allowance=tolerance), 0.0, [0, 1], {}) < tolerance
        found = limits.solved(along(), [0, 1], {}).allowance
        assert 0.998 * tolerance < found <= tolerance


def test_where_too_much_was_spent_before_next_to_nothing_is_allowed():
    """A quarter of the tolerance, ten times."""
    limits = Limits(0.5, 0.5, 10, 9.0, STEPS)
    found = limits.solved(along(), [0, 1], {0: 5.0}).allowance
    assert found == pytest.approx(0.5 / 4**10)


def test_what_was_spent_may_be_just_the_tolerance():
    """Where nothing is left to forecast, of a prediction whose mean square is 1 in binary numbers too."""
    path = RunPath(PredictionPath((1.5, 0.5), ((1.0, 0.0), (0.0, 1.0)), (1.0, 1.0)))
    for angle in path.path.angles:
        path.add(angle)
    limits = Limits(0.5, 0.0, 10, 9.0, 2)
    assert limits.solved(path, [0, 1], {0: 0.5}).allowance > 0.499
    assert limits.solved(path, [0, 1], {0: 0.5000001}).allowance < 1e-6


# What a decider goes by.


class Told(Series):
    """The signals of a run that knows its noise angles and what is predicted."""

    def __init__(self, values=None, step=0, angles=ANGLES, kind="v_prediction"):
        super().__init__(vectors(angles) if values is None else values)
        self.step, self.angles, self.kind = step, angles, kind

    def noise_angle(self):
        return self.angles[self.step]

    def prediction_type(self):
        return self.kind


class Short(Told):
    """The signals of a run in which only the newest prediction is left to compare with."""

    def products(self):
        return tuple(row[:1] for row in super().products()[:1])


def midway(limits, keys, here, angles=ANGLES, **more):
    """A decider before a step, after these keys, the last of which it has measured."""
    state = {"angles": list(angles[:here]), "steps": list(range(here)), "measured": keys[-1]} | more
    return Decider(limits, {"v_prediction": measured(angles)}, keys=list(keys), **state)


def test_the_last_step_is_priced_by_all_that_is_left_to_turn_and_no_other():
    values, limits = vectors(ANGLES), Limits(9.0, 7.0, 10, 9.0, STEPS)
    for here, keys, turn in (
        (9, [5, 7, 8], 0.12), (10, [6, 8, 9], 0.12), (11, [7, 9, 10], ANGLES[11]),
    ):  # fmt: skip
        decide = midway(limits, keys, here, before=[(0, 0.25)])
        decision = decide(2, Told(step=here))
        coefficients = along().coefficients(keys, here, 3)
        apart = values[here] - sum(
            a * values[key] for a, key in zip(coefficients, reversed(keys), strict=True)
        )
        made = turn * (2 + ANGLES[here]) * apart
        interval, whole = (sqrt(np.square(v).mean()) for v in (made, made + 0.25 * values[0]))
        told = f"guard: error 0 at step {keys[-1]}, {interval:.3g} of 7 and in all {whole:.3g} of 9"
        assert decision.reason == f"{told} allowed" and decision.choice == 1
        assert decision.coefficients == pytest.approx(coefficients, abs=6e-7)


def test_what_a_key_tells_is_told_where_no_step_may_be_forecast():
    decide = Decider(Limits(9.0, 7.0, 1, 9.0, STEPS), {"v_prediction": measured()})
    signals, values = Told(), vectors(ANGLES)
    for step in range(STEPS):
        signals.step = step
        decision = decide(2, signals)
        signals.computed.append(step)
        assert decision.choice == 0
        if step < 2:
            assert decision.forecast_error is None
            continue
        keys = list(range(step - 1))[-3:]
        wrong = missed(keys, step - 1, along().coefficients(keys, step - 1, 3))
        apart = sum(a * values[at] for at, a in wrong.items())
        error = np.linalg.norm(apart) / np.linalg.norm(values[step - 1])
        assert decision.forecast_error == pytest.approx(error, rel=1e-6)
        told = f"guard: error {error:.3g} at step {step - 1}, 1 steps since, and no more at once"
        assert decision.reason == told


def test_where_too_few_predictions_are_left_to_compare_nothing_is_measured():
    limits = Limits(9.0, 7.0, 1, 9.0, STEPS)
    for keys in ([0, 1], [0, 1, 2]):
        here = len(keys)
        signals = Short(step=here)
        signals.computed = list(keys)
        decide = midway(limits, keys, here, measured=keys[-2], error=0.5)
        decision = decide(2, signals)
        assert decision.forecast_error is None
        assert (decide.measured, decide.error, decide.walked) == (keys[-1], 0.5, 0.0)
        assert "error 0.5 at step" in decision.reason


def test_noise_is_what_the_forecast_from_two_keys_or_more_missed_beyond_the_path():
    """One prediction that is held says too little."""
    smooth = vectors(ANGLES)
    values = smooth + np.random.default_rng(1).normal(size=smooth.shape)
    limits = Limits(9.0, 7.0, 1, 9.0, STEPS)
    for keys in ([0, 1], [0, 1, 2], [0, 1, 2, 3]):
        here = len(keys)
        signals = Told(values, here)
        signals.computed = list(keys)
        decide = midway(limits, keys, here, measured=keys[-2], excess=0.5, walked=4.0)
        path = along(noise=0.125)
        *before, key = keys
        wrong = missed(before, key, path.coefficients(before, key, 3))
        decision = decide(2, signals)
        made, foretold = (sum(a * v[at] for at, a in wrong.items()) for v in (values, smooth))
        told = np.square(made).sum() / np.square(values[key]).sum()
        assert decision.forecast_error == pytest.approx(sqrt(told), rel=1e-6)
        if here == 2:
            assert (decide.excess, decide.walked, decide.path.noise) == (0.5, 4.0, 0.125)
            continue
        factors = [wrong[at] for at in keys]
        tails = [sum(factors[at:]) for at in range(1, len(factors))]
        excess = 0.25 + told * np.square(smooth[key]).mean() - np.square(foretold).mean()
        walked = 2 + np.square(tails).sum()
        assert decide.excess == pytest.approx(excess) and decide.walked == pytest.approx(walked)
        assert decide.path.noise == pytest.approx(excess / walked) and excess > 0


def test_a_run_goes_by_its_own_noise_angles_and_by_equal_turns_where_it_has_none():
    plan = Guard()(tower(), STEPS)
    told, untold = (plan.start(), Told()), (plan.start(), Series(vectors(ANGLES)))
    for step in range(3):
        for decide, signals in (told, untold):
            signals.step = step
            decide(1, signals)
            signals.computed.append(step)
    assert told[0].angles == told[0].path.angles == list(ANGLES[:3])
    equal = [pi / 2 * (1 - step / STEPS) for step in range(3)]
    assert untold[0].angles == untold[0].path.angles == pytest.approx(equal)


def test_a_run_goes_by_the_path_of_what_its_model_predicts_or_the_usual_one_without_noise():
    other = replace(measured(), prices=(1.0,) * STEPS)
    limits, paths = Limits(0.1, 0.1, 10, 2.0, STEPS), {"v_prediction": measured(), "epsilon": other}
    for kind, path in (("epsilon", other), ("v_prediction", measured()), ("sample", measured())):
        decide = Decider(limits, paths)
        decide(1, Told(kind=kind))
        assert decide.path.path == path
        assert decide.path.noise == 0.0, "as nothing was measured yet"
    known = Decider(limits, paths, excess=0.5, walked=4.0)
    known(1, Told())
    assert known.path.noise == 0.125
    less = Decider(limits, paths, excess=-0.5, walked=4.0)
    less(1, Told())
    assert less.path.noise == 0.0


def decided(noise, expected, here=6, angles=TO_ZERO, allowance=0.123):
    """A decider after a step under so much noise, where its allowance was for another."""
    limits = Limits(0.1, 0.2, 10, 9.0, STEPS)
    keys = [here - 4, here - 3, here - 1]
    state = {"allowance": allowance, "expected": expected, "before": [(0, 0.02)]}
    decide = midway(limits, keys, here, angles, excess=2 * noise, walked=2.0, **state)
    decision = decide(2, Told(step=here, angles=angles))
    assert decide.path.noise == noise
    return decide, decision, limits, keys


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        (0.0, 0.0), (0.004, 0.004), (0.004, 0.0035), (0.0035, 0.004), (0.75, 1.0), (1.0, 0.75),
        (1.5, 1.5), (8.0, 7.0),
    ],
)  # fmt: skip
def test_the_allowance_stays_where_the_noise_is_within_a_quarter_of_what_it_was_for(
    noise, expected
):
    decide, decision, *_ = decided(noise, expected)
    assert (decide.allowance, decide.expected) == (0.123, expected)
    assert " of 0.123 and in all " in decision.reason


def test_the_allowance_is_the_plans_until_noise_is_known():
    decide, decision, *_ = decided(0.0, 0.0, allowance=None)
    assert decide.allowance == 0.2 and " of 0.2 and in all " in decision.reason


@pytest.mark.parametrize(
    ("noise", "expected"), [(0.004, 0.0), (0.004, 0.0029), (0.004, 0.0055), (0.0, 0.004)]
)
@pytest.mark.parametrize("here", [4, 6, 8])
def test_under_other_noise_the_allowance_is_found_anew_for_what_is_left_of_the_run(
    noise, expected, here
):
    """Here of a run that turns by the same at every step, to no noise at the last one."""
    decide, decision, limits, keys = decided(noise, expected, here)
    right = limits.solved(along(TO_ZERO, noise), keys, {0: 0.02}).allowance
    assert decide.allowance == pytest.approx(right, rel=1e-6) and decide.expected == noise
    assert f" of {right:.3g} and in all " in decision.reason
