"""The controller of `guard` on series of vectors that stand for predictions: as were measured, and noise."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from math import pi

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hgc_video.errors import PlanError, PresetError
from hgc_video.plan.adaptive import Decision, decider_state, restored_decider
from hgc_video.plan.cost import cost
from hgc_video.plan.liveness import live
from hgc_video.plan.policies.guard import Cost, Guard, Limits, added, missed
from hgc_video.plan.prediction_path import RunPath, equal_turns, shipped_paths
from hgc_video.plan.presets import resolve
from hgc_video.plan.quality_map import shipped_map
from hgc_video.plan.schedule import StepPlan
from tests.plan.policies.test_policies import calibration, tower  # noqa: F401


class Series:
    """The signals of a run whose predictions, where they are computed, are those of a series (steps n)."""

    def __init__(self, values):
        self.values, self.step, self.computed = np.asarray(values, float), 0, []

    @property
    def computed_last(self):
        return self.computed[-1:] == [self.step - 1]

    def products(self):
        kept = [self.values[i] for i in self.computed[:-5:-1]]
        rows = [kept[0], *(a - b for a, b in pairwise(kept))] if kept else []
        return tuple(tuple(float((a * b).mean()) for b in rows) for a in rows)

    def agreed(self, flag):
        return flag

    def noise_angle(self):
        return None

    def prediction_type(self):
        return "v_prediction"


def run(plan, values, decide=None, signals=None):
    """The decision of every step; what is forecast is the combination that the decision asks for."""
    decide, signals = decide or plan.start(), signals or Series(values)
    decisions, used = [], []
    for step in range(signals.step, len(plan)):
        signals.step = step
        decision = decide(len(plan.choices[step]), signals)
        kept = [signals.values[i] for i in signals.computed[::-1]]
        decisions.append(decision)
        if not decision.choice:
            signals.computed.append(step)
            used.append(signals.values[step])
            continue
        a = decision.coefficients or (1.0,)
        used.append(sum(c * value for c, value in zip(a, kept, strict=False)))
    return decisions, np.array(used)


def choices_of(decisions):
    return tuple(decision.choice for decision in decisions)


def measured(steps, seed=0):
    """Predictions whose products are those that were measured, at equal turns; turned at random."""
    path = RunPath(shipped_paths()["v_prediction"])
    for angle in equal_turns(steps):
        path.add(angle)
    products = np.array([[path.product(i, j) for j in range(steps)] for i in range(steps)])
    sizes, ways = np.linalg.eigh(products)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(steps, steps)))[0]
    return ways * np.sqrt(np.maximum(sizes, 0) * steps) @ turn


def circle(steps, turns=0.5):
    angle = np.linspace(0, 2 * pi * turns, steps)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def noise(steps, seed=0, size=400):
    return np.random.default_rng(seed).normal(size=(steps, size))


def foretold(decisions, used, values):
    """What the forecasts of a run make of the final latents, by the prices that were measured."""
    steps, path = len(values), RunPath(shipped_paths()["v_prediction"])
    for angle in equal_turns(steps):
        path.add(angle)
    prices = [path.price(i, last=i == steps - 1) for i in range(steps)]
    return np.sqrt(np.square((np.array(prices)[:, None] * (used - values)).sum(0)).mean())


@given(st.integers(12, 60), st.integers(0, 99), st.sampled_from([0.005, 0.02, 0.05]))
@settings(max_examples=8, deadline=None)
def test_predictions_as_they_were_measured_cost_what_is_tolerated(steps, seed, tolerance):
    values, counts = measured(steps, seed), []
    for asked in (tolerance, 3 * tolerance):
        decisions, used = run(Guard(tolerance=asked, growth=9)(tower(), steps), values)
        cost = foretold(decisions, used, values)
        assert cost <= 1.01 * asked
        counts.append(choices_of(decisions).count(0))
        # Not much less either, where it is not the longest distance that ends an interval.
        assert cost > 0.3 * asked or counts[-1] <= steps / 10 + 3
    assert counts[1] <= counts[0]


def test_the_cheapest_run_is_the_one_of_a_tolerance_that_is_never_used_up():
    for steps in (2, 3, 4, 25, 50):
        for longest in (1, 2, 6):
            for noisy in (False, True):
                plan = Guard(longest=longest, tolerance=1e6, noisy=noisy)(tower(), steps)
                decisions, _ = run(plan, np.ones((steps, 4)))
                assert choices_of(decisions) == plan.cheapest
                assert plan.num_computed() == (plan.cheapest.count(0), steps)
    assert Guard()(tower(), 25).num_computed() == (5, 25)


@pytest.mark.parametrize(("steps", "first"), [(4, 2), (25, 2), (26, 3), (50, 4), (100, 8)])
def test_nothing_is_forecast_before_the_third_measured_noise_level(steps, first):
    """Between the first ones, at pure noise, predictions change as no curve through them tells."""
    plan = Guard(tolerance=10.0)(tower(), steps)
    assert [len(some) for some in plan.choices[:first]] == [1] * first
    assert len(plan.choices[first]) == 2
    assert first >= 2 * steps / len(shipped_paths()["v_prediction"].angles)


@given(st.integers(4, 50), st.integers(0, 99), st.sampled_from([0.003, 0.01]))
@settings(max_examples=8, deadline=None)
def test_where_steps_do_not_resemble_one_another_all_are_computed(steps, seed, tolerance):
    plan = Guard(tolerance=tolerance, noisy=True)(tower(), steps)
    decisions, _ = run(plan, noise(steps, seed))
    assert choices_of(decisions) == (0,) * steps


def test_under_noise_little_is_extrapolated_and_the_tolerance_holds():
    steps, size = 25, 2000
    values = np.sqrt(size / steps) * measured(steps) @ np.linalg.qr(noise(steps, 1, size).T)[0].T
    walk = values + 0.2 * np.cumsum(noise(steps, 2, size), 0)
    slopes = {}
    for name, series in (("smooth", values), ("noisy", walk)):
        decisions, used = run(Guard(tolerance=0.1, noisy=name == "noisy")(tower(), steps), series)
        late = [d.coefficients for d in decisions[12:] if d.choice]
        slopes[name] = np.mean([sum(map(abs, a[1:])) for a in late])
        assert 0.02 < foretold(decisions, used, series) < 0.15
    assert slopes["noisy"] < 0.5 * slopes["smooth"]


def test_what_is_measured_is_the_forecasts_error_and_every_step_says_why():
    steps, values = 25, measured(25)
    plan = Guard(tolerance=0.02)(tower(), steps)
    decisions, _ = run(plan, values)
    keys = [i for i, d in enumerate(decisions) if not d.choice]
    path = RunPath(shipped_paths()["v_prediction"])
    for angle in equal_turns(steps):
        path.add(angle)
    for at, key in enumerate(keys[1:-1], 1):
        before = keys[:at][-3:]
        wrong = missed(before, key, path.coefficients(before, key, 3))
        apart = np.linalg.norm(sum(a * values[i] for i, a in wrong.items()))
        error = decisions[key + 1].forecast_error
        assert error == pytest.approx(apart / np.linalg.norm(values[key]), rel=1e-2)
    executed = plan.executed(
        [decision.of(some) for decision, some in zip(decisions, plan.choices, strict=True)]
    )
    assert all("guard: " in step.reason for step in executed.steps)
    assert "tolerance 0.02" in executed.steps[0].reason
    least, most = (cost(tower(), bound).total for bound in (plan.lower_bound(), plan))
    assert least < cost(tower(), executed).total < most
    few, many = plan.num_computed()
    assert few <= len(keys) <= many


def test_a_decider_that_was_kept_goes_on_as_it_would_have():
    plan = Guard(tolerance=0.05)(tower(), 30)
    values = measured(30) + 0.02 * noise(30, size=30)
    whole, _ = run(plan, values)
    for stop in (1, 2, 9, 17):
        signals, decide = Series(values), plan.start()
        first, _ = run(
            replace(plan, alternatives=plan.alternatives[:stop], cheapest=()),
            values,
            decide,
            signals,
        )
        signals.step = stop
        kept = json.loads(json.dumps(decider_state(decide)))  # plain data
        assert "path" not in kept
        rest, _ = run(plan, values, restored_decider(plan.start(), kept), signals)
        assert first + rest == whole


def test_a_calibration_of_ones_own_counts(calibration, tmp_path):  # noqa: F811
    found = {}
    for name, times in (("even", 1.0), ("ten", 10.0)):
        told = yaml.safe_load(calibration.read_text())
        told["sensitivity"] = [(times * pi / 2 / 25) ** 2] * 25
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(told))
        plan = Guard(calibration=str(path), tolerance=0.2)(tower(), 25)
        found[name] = choices_of(run(plan, measured(25))[0]).count(0)
    assert found["ten"] > found["even"]
    del told["products"]
    path.write_text(yaml.safe_dump(told))
    with pytest.raises(PlanError, match="holds no products"):
        Guard(calibration=str(path))(tower(), 25)


def test_a_psnr_is_asked_for_by_the_map_of_the_samplers_kind():
    for noisy, kind in ((False, "deterministic"), (True, "noisy")):
        preset = resolve("quality=45dB").for_sampler(adds_noise=noisy)
        assert preset.policies == (Guard(psnr_db=45, noisy=noisy),)
        assert preset.name == "quality=45dB"
        step = preset.schedule(tower(), 25).choices[0][0]
        tolerance = shipped_map(noisy).tolerance_of(45)
        assert f"45 dB asked, tolerance {tolerance:g} by the map for {kind} samplers" in step.reason
        same = Guard(tolerance=tolerance, noisy=noisy)(tower(), 25).start()
        assert preset.schedule(tower(), 25).start() == same


def test_fixed_policies_join_in_at_every_choice():
    graph = tower()
    gated = resolve("guard+gate:at=0.5").schedule(graph, 10)
    assert gated.name == "guard+gate"
    assert {c.branches for choices in gated.choices[5:] for c in choices} == {1}
    assert {c.branches for choices in gated.choices[:5] for c in choices} == {2}
    partial = resolve("guard+deepcache:interval=2,controlnet_interval=2").schedule(graph, 10)
    key, forecast = partial.choices[5]
    assert graph.output in live(graph, key).computed
    assert len(live(graph, key).computed) < len(live(graph, StepPlan()).computed)
    assert not live(graph, forecast).computed
    with pytest.raises(PlanError, match="extrapolate differently"):
        resolve("guard+hgc:slope=0.3").schedule(graph, 10)
    with pytest.raises(PresetError, match="guard and easycache both decide at run time"):
        resolve("guard+easycache").schedule(graph, 10)


def test_a_decision_cannot_read_more_than_was_planned():
    step = StepPlan(frozenset({"a"}), extrapolate=frozenset({"a"}), coefficients=(2.0, -1.0))
    assert Decision(0, "x", (1.5, -0.5), 0.1).of([step]).coefficients == (1.5, -0.5)
    assert Decision(0, "x", (), 0.1).of([step]).coefficients == ()
    assert Decision(0, "x").of([step]) == step
    with pytest.raises(PlanError, match=r"3 coefficients were chosen for a step .* 2 values"):
        Decision(0, "x", (1.0, 1.0, -1.0)).of([step])


def test_a_forecast_is_allowed_by_its_interval_or_by_what_the_run_has_left_of_its_share():
    limits = Limits(tolerance=0.8, allowance=0.1, longest=9, growth=2.0, num_steps=8)
    for step, interval, whole, allowed in (
        (7, 0.1, 0.8, True), (7, 0.1, 0.81, False), (7, 0.0, 0.81, False),  # all of the tolerance
        (1, 0.1, 0.8, True), (1, 0.11, 0.8, False),  # by the interval
        (1, 0.11, 0.2, True), (1, 0.11, 0.21, False),  # two steps of eight may cost a quarter
        (3, 0.11, 0.4, True), (3, 0.11, 0.41, False),
    ):  # fmt: skip
        assert limits.allowed(step, Cost(interval, whole)) is allowed, (step, interval, whole)


def test_an_interval_is_no_longer_than_it_may_be_nor_grows_faster():
    limits = Limits(1.0, 0.1, longest=4, growth=2.0, num_steps=20)
    # Computed would be the step after: keys 3 apart may be followed by one 6 away, and 4 at most.
    assert [limits.too_far((2, 5), step) for step in (7, 8, 9)] == [False, False, True]
    assert [limits.too_far((4, 5), step) for step in (6, 7)] == [False, True]
    assert [replace(limits, longest=1).too_far((4, 5), step) for step in (6,)] == [True]


def test_sums_of_predictions_are_by_step():
    assert missed([3, 5], 7, (1.5, -0.5)) == {7: 1.0, 5: -1.5, 3: 0.5}
    assert missed([1, 3, 5], 7, (2.0,)) == {7: 1.0, 5: -2.0}
    assert added({1: 1.0, 2: 2.0}, {2: 3.0, 4: 5.0}) == {1: 1.0, 2: 5.0, 4: 5.0}
    assert added({1: 1.0}, {1: 2.0}, 0.5) == {1: 2.0}


def test_a_step_says_what_was_measured_where_and_how_long_ago():
    plan = Guard(tolerance=1e6, longest=3)(tower(), 25)
    decisions, _ = run(plan, measured(25))
    keys = [i for i, decision in enumerate(decisions) if not decision.choice]
    assert (decisions[0].reason, decisions[0].forecast_error) == ("", None)
    assert decisions[1].reason == "" and decisions[1].forecast_error is None, (
        "no forecast was before it"
    )
    for key, after in pairwise(keys[2:]):
        told = decisions[after]
        assert told.reason.endswith(
            f" at step {key}, {after - key} steps since, and no more at once"
        ) or (after == key + 1)
        inside = [decisions[i] for i in range(key + 1, after)]
        assert all(f" at step {key}, " in one.reason for one in inside)
        assert inside[0].forecast_error is not None, "measured at the key, told right after it"
        assert {one.forecast_error for one in [*inside[1:], told]} == {None}, "and told once"
    # Where a step leaves no choice, what was measured is told all the same.
    one_choice = tuple(some[:1] if at < 6 else some for at, some in enumerate(plan.choices))
    forced = replace(plan, alternatives=one_choice, cheapest=())
    first, _ = run(forced, measured(25))
    assert [one.reason for one in first[:6]] == [""] * 6
    assert [one.forecast_error is None for one in first[:6]] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert all(
        len(f"{abs(a):.9f}".rstrip("0").partition(".")[2]) <= 6
        for one in decisions if one.coefficients for a in one.coefficients
    )  # fmt: skip
