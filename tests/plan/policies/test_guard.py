"""The controller of `guard` on series of vectors that stand for predictions: exact, smooth, and noise."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import pi, sqrt

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hgc_video.errors import PlanError, PresetError
from hgc_video.plan.adaptive import Decision, decider_state, restored_decider
from hgc_video.plan.calibration import load_calibration
from hgc_video.plan.cost import cost
from hgc_video.plan.liveness import live
from hgc_video.plan.policies.guard import Guard
from hgc_video.plan.presets import resolve
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
        kept = [self.values[i] for i in self.computed[:-4:-1]]
        rows = [kept[0], *(a - b for a, b in pairwise(kept))] if kept else []
        return tuple(tuple(float((a * b).mean()) for b in rows) for a in rows)

    def sensitivity(self):
        return None


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


def line(steps, size=8, seed=0):
    start, slope = np.random.default_rng(seed).normal(size=(2, size))
    return start + np.arange(steps)[:, None] * slope / 10


def circle(steps, turns=0.5):
    angle = np.linspace(0, 2 * pi * turns, steps)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def noise(steps, seed=0, size=400):
    return np.random.default_rng(seed).normal(size=(steps, size))


@given(
    st.integers(3, 60), st.integers(0, 99), st.integers(1, 9), st.sampled_from([1.5, 2.0, 3.0]),
    st.sampled_from([1e-3, 0.05, 0.5]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_linear_series_is_forecast_exactly_and_the_distance_grows_to_the_most(
    steps, seed, longest, growth, tolerance
):
    policy = Guard(tolerance=tolerance, longest=longest, growth=growth)
    plan, values = policy(tower(), steps), line(steps, seed=seed)
    decisions, used = run(plan, values)
    keys = [i for i, decision in enumerate(decisions) if not decision.choice]
    if len(keys) < 4:
        return
    third = keys[2]  # from where on the slope is known; before, a forecast holds what changes
    np.testing.assert_allclose(used[third:], values[third:], rtol=1e-4, atol=1e-4)
    errors = [decisions[key + 1].forecast_error for key in keys[3:] if key + 1 < steps]
    assert errors == pytest.approx([0.0] * len(errors), abs=1e-6)
    gaps = [b - a for a, b in pairwise(keys)]
    for before, gap in pairwise(gaps[1:-1]):  # the last one ends with the run
        assert gap == max(1, int(min(longest, growth * before)))


def test_the_cheapest_run_is_the_one_of_a_series_that_does_not_change():
    for steps in (2, 3, 4, 25, 50):
        for longest in (1, 2, 6):
            plan = Guard(longest=longest)(tower(), steps)
            decisions, _ = run(plan, np.ones((steps, 4)))
            assert choices_of(decisions) == plan.cheapest
            assert plan.num_computed() == (plan.cheapest.count(0), steps)
    assert Guard()(tower(), 25).num_computed() == (6, 25)


@given(st.integers(4, 50), st.integers(0, 99), st.sampled_from([0.003, 0.01, 0.03]))
@settings(max_examples=30, deadline=None)
def test_where_steps_do_not_resemble_one_another_all_are_computed(steps, seed, tolerance):
    decisions, _ = run(Guard(tolerance=tolerance)(tower(), steps), noise(steps, seed))
    assert choices_of(decisions) == (0,) * steps


def test_under_noise_nothing_is_extrapolated_and_on_a_smooth_path_nearly_all_is():
    steps = 40
    walk = np.cumsum(noise(steps), 0) + 50 * noise(1)  # every change is new
    decisions, _ = run(Guard(tolerance=0.2)(tower(), steps), walk)
    slopes = [-d.coefficients[1] if d.coefficients else 0.0 for d in decisions if d.choice]
    assert len(slopes) > 10
    assert max(slopes) < 0.3
    decide = Guard()(tower(), steps).start()
    run(Guard()(tower(), steps), circle(steps), decide)
    assert decide.share > 0.8


@given(st.integers(12, 60), st.floats(0.1, 1.0), st.sampled_from([0.01, 0.03, 0.1]))
@settings(max_examples=40, deadline=None)
def test_the_error_of_a_smooth_path_stays_within_the_tolerance_and_less_of_it_computes_more(
    steps, turns, tolerance
):
    values, counts = circle(steps, turns), []
    for asked in (tolerance, 3 * tolerance):
        decisions, used = run(Guard(tolerance=asked)(tower(), steps), values)
        # Of unit predictions that turn the latents by equal angles, all errors in one direction.
        apart = np.linalg.norm(used - values, axis=1).sum() * pi / 2 / steps
        assert apart < 4 * asked
        counts.append(choices_of(decisions).count(0))
    assert counts[1] <= counts[0]


def test_what_is_measured_is_the_forecasts_error_and_every_step_says_why():
    steps, values = 25, circle(25, 0.7)
    plan = Guard(tolerance=0.03)(tower(), steps)
    decisions, _ = run(plan, values)
    keys = [i for i, d in enumerate(decisions) if not d.choice]
    share = 0.0
    for key in keys[2:-1]:
        known = [k for k in keys if k < key]
        last, before = known[-1], known[-2]
        d = decisions[last + 1]
        if d.choice and d.coefficients:  # the share that forecasts up to the key had
            share = -d.coefficients[1] * (last - before)
            ahead = (key - last) / (last - before)
            forecast = values[last] + share * ahead * (values[last] - values[before])
            assert decisions[key + 1].forecast_error == pytest.approx(
                np.linalg.norm(forecast - values[key]), rel=1e-3
            )
    executed = plan.executed(
        [decision.of(some) for decision, some in zip(decisions, plan.choices, strict=True)]
    )
    assert share > 0
    assert all("guard: " in step.reason for step in executed.steps)
    least, most = (cost(tower(), bound).total for bound in (plan.lower_bound(), plan))
    assert least < cost(tower(), executed).total < most
    few, many = plan.num_computed()
    assert few <= len(keys) <= many


def test_a_decider_that_was_kept_goes_on_as_it_would_have():
    plan, values = Guard(tolerance=0.05)(tower(), 30), circle(30)
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
        told = restored_decider(plan.start(), decider_state(decide))
        rest, _ = run(plan, values, told, signals)
        assert first + rest == whole


def test_the_sensitivity_of_a_calibration_counts(calibration, tmp_path):  # noqa: F811
    values, steps = circle(25), 25
    found = {}
    for name, times in (("even", 1.0), ("ten", 10.0)):
        told = yaml.safe_load(calibration.read_text())
        told["sensitivity"] = [(times * pi / 2 / 25) ** 2] * 25
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(told))
        assert load_calibration(path).sensitivity[0] == pytest.approx((times * pi / 50) ** 2)
        plan = Guard(calibration=str(path))(tower(), steps)
        found[name] = choices_of(run(plan, values)[0])
    assert found["even"] == choices_of(run(Guard()(tower(), steps), values)[0])
    assert found["ten"].count(0) > found["even"].count(0)
    longer = Guard(calibration=str(path))._weights(50)
    assert longer == pytest.approx([10 * pi / 2 / 50] * 50)


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


def test_equal_turns_are_assumed_where_noise_levels_are_not_known():
    plan = Guard()(tower(), 10)
    assert plan.start()._weight(3, Series(circle(10))) == pytest.approx(pi / 20)
    assert sqrt(plan.start().spent) == 0
