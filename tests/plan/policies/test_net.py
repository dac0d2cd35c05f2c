"""The net under fixed schedules: what it measures, when it holds reuse back, and what forecasts read then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hgc_video.errors import PresetError
from hgc_video.plan.adaptive import Decision
from hgc_video.plan.liveness import live
from hgc_video.plan.policies.net import NET, Net, best_line_error, successive
from hgc_video.plan.policies.searched import CodedSchedule
from hgc_video.plan.presets import resolve
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.plan.policies.test_guard import Series, circle, noise
from tests.plan.policies.test_policies import calibration, tower  # noqa: F401


def line(steps, size=8, seed=0):
    start, slope = np.random.default_rng(seed).normal(size=(2, size))
    return start + np.arange(steps)[:, None] * slope / 10


def run(plan, signals):
    """The decisions of a run whose predictions are the series', also where only a part is computed."""
    decide, decisions, steps = plan.start(), [], []
    for step, choices in enumerate(plan.choices):
        signals.step = step
        decisions.append(decide(len(choices), signals))
        steps.append(decisions[-1].of(choices))
        if tower().output in live(tower(), steps[-1]).computed:
            signals.computed.append(step)
    return decisions, steps


@given(st.integers(0, 999))
@settings(max_examples=50, deadline=None)
def test_the_error_is_that_of_the_nearest_line(seed):
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.normal(size=(3, 30)) + rng.normal(size=30) * rng.uniform(0, 3), 0)
    series = Series(values)
    series.computed = [0, 1, 2]
    shares = np.linspace(0, 3, 3001)[:, None]
    lines = values[1] + shares * (values[1] - values[0])
    nearest = np.linalg.norm(values[2] - lines, axis=1).min() / np.linalg.norm(values[2])
    assert best_line_error(series.products()) == pytest.approx(nearest, rel=1e-3, abs=1e-3)
    gram = values @ values.T / 30
    np.testing.assert_allclose(successive(gram, (2, 1, 0)), series.products(), atol=1e-9)


@pytest.mark.parametrize(
    "preset", ["balanced", "fast", "turbo", "deepcache:interval=3", "taylorseer"]
)
def test_on_a_smooth_path_the_schedule_is_carried_out_as_it_is(preset):
    fixed = resolve(preset).schedule(tower(), 25)
    plan = resolve(f"{preset}+net").schedule(tower(), 25)
    decisions, steps = run(plan, Series(circle(25)))
    assert tuple(steps) == fixed.steps
    assert plan.executed(steps).steps == fixed.steps
    assert all(d.coefficients is None for d in decisions)
    assert plan.lower_bound().steps == fixed.steps


@pytest.mark.parametrize("closed", [False, True])
def test_where_steps_do_not_resemble_one_another_all_are_computed(closed):
    plan = Net(closed=closed).under(resolve("fast").schedule(tower(), 25), tower())
    decisions, steps = run(plan, Series(noise(25)))
    first = next(i for i, step in enumerate(steps) if step.label == NET)
    assert first <= (8 if not closed else 3)
    for i, step in enumerate(steps[first:], first):
        assert len(live(tower(), step).computed) == len(live(tower(), plan.choices[i][0]).computed)
        assert not step.extrapolate
        assert step.branches == plan.fixed.steps[i].branches
        assert step.label == NET or len(plan.choices[i]) == 1
    assert all("net: computed, error" in s.reason for s in steps[first + 3 :] if s.label == NET)
    errors = [d.forecast_error for d in decisions if d.forecast_error is not None]
    assert min(errors[3:]) > 0.8


def test_once_forecasts_are_good_again_the_schedule_goes_on_and_lines_have_their_new_distance():
    codes = CodedSchedule("FFF" + "FHH" * 7, 99, (1.0,) * 24)
    values = np.concatenate([10 * noise(9, size=8), line(15)])
    plan = Net().under(codes(tower(), 24), tower())
    decisions, steps = run(plan, Series(values))
    caught = [i for i, step in enumerate(steps) if step.label == NET]
    assert caught
    assert caught[-1] < 15
    held = [i for i in range(max(caught) + 1, 24) if decisions[i].choice]
    assert len(held) >= 5
    kept = [i for i in range(24) if not decisions[i].choice]
    for i in held:  # a line through what is kept, wherever it was made, meets the line
        newest, older = [k for k in kept if k < i][:-3:-1]
        a, b = steps[i].coefficients
        np.testing.assert_allclose(a * values[newest] + b * values[older], values[i], atol=1e-3)


def test_a_calibration_gives_the_bound(calibration, tmp_path):  # noqa: F811
    values = circle(25, 1.0)
    told = yaml.safe_load(calibration.read_text())
    told["products"] = (values @ values.T / 2).tolist()
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(told))
    fixed = resolve("balanced").schedule(tower(), 25)
    plan = Net(calibration=str(path)).under(fixed, tower())
    assert plan.start().products == tuple(map(tuple, told["products"]))
    shorter = Net(calibration=str(path)).under(resolve("balanced").schedule(tower(), 24), tower())
    assert shorter.start().products == (), "they are of a run of 25 steps"
    assert tuple(run(plan, Series(values))[1]) == fixed.steps
    faster = np.repeat(circle(25, 8.0), 1, 0)  # eight times as far from step to step
    assert any(step.label == NET for step in run(plan, Series(faster))[1])


def test_a_net_stands_under_something_fixed():
    three = Net()(replace(tower(), branches=3), 2)
    assert three == Schedule("net", (StepPlan(branches=3),) * 2, lossless=False)
    assert three.steps[0].reason == "net: nothing is reused"
    alone = resolve("net").schedule(tower(), 5)
    assert not alone.is_adaptive
    assert all(not step.reuse for step in alone.steps)
    with pytest.raises(PresetError, match="guard decides at run time already"):
        resolve("guard+net").schedule(tower(), 5)


def test_presets_get_one_where_the_sampler_adds_noise():
    fast = resolve("fast")
    assert fast.for_sampler(adds_noise=False) is fast
    assert fast.for_sampler(True, adds_noise=False).policies[-1] == Net()
    noisy = fast.for_sampler(adds_noise=True)
    assert (noisy.name, noisy.policies[-1]) == ("fast+net", Net(closed=True))
    assert fast.for_sampler(False, adds_noise=True) is fast
    assert noisy.for_sampler(adds_noise=True) is noisy
    for other in ("off", "lossless", "deepcache:interval=3", "fewer-steps:steps=4"):
        same = resolve(other)
        assert same.for_sampler(adds_noise=True) is same


def test_what_is_computed_besides_reuses_what_is_the_same_for_the_whole_run():
    graph, hint = tower(), frozenset({"controlnet.hint"})
    one, other = (frozenset({name}) for name in graph.depths[:2])
    step = StepPlan(
        hint | one, deltas=other, average_branches=other, branches=1, cfg_delta=(1.1, 1.2), extrapolate=one,
        coefficients=(1.5, -0.5), latent_progress=(0, 1), clean=((0, 1.0),), label="own",
    )  # fmt: skip
    plan = Net().under(Schedule("x", (step,)), graph)
    computed = StepPlan(hint, average_branches=other, branches=1, cfg_delta=(1.1, 1.2), label="net")
    assert plan.choices == ((computed, step),)


@pytest.mark.parametrize(("lossless", "makers"), [(True, (1, 0)), (False, (2, 1))])
def test_what_a_step_reads_was_made_where_it_was_computed(lossless, makers):
    """Residuals: step 2 reuses the prediction, and without the lossless savings its ControlNet runs all the
    same."""
    graph = tower()
    residuals = frozenset(graph.residuals())
    last = StepPlan(residuals, extrapolate=residuals, coefficients=(1.5, -0.5))
    steps = StepPlan(), StepPlan(), StepPlan(frozenset({graph.output})), last
    plan = Net().under(Schedule("x", steps, lossless=lossless), graph)
    assert plan.start().makers == ((), (), (), makers)
    assert (plan.name, plan.lossless, plan.cheapest) == ("x+net", lossless, (0, 0, 1, 1))
    held = CodedSchedule("FFF1F1", 99, (0.5,) * 5 + (0.0,))(graph, 6)
    assert Net().under(held, graph).start().makers == ((), (), (), (2, 1), (), ())


@pytest.mark.parametrize(
    ("bound", "third", "fourth", "told"),
    [
        # 4 after 4.5 and 5 is 1 beside the nearest forecast, 5: a quarter of it.
        (
            0.25, Decision(1, "", None, 0.25), Decision(1, ""), "error 0.25 <= 0.25 at step 2",
        ),
        # 3 after 5 and 4 is as foretold.
        (
            0.2, Decision(0, "net: computed, error 0.25 > 0.2 at step 2", None, 0.25),
            Decision(1, "", None, 0.0), "error 0 <= 0.2 at step 3",
        ),
    ],
)  # fmt: skip
def test_the_net_is_closed_while_the_error_is_beyond_the_bound(bound, third, fourth, told):
    fixed = CodedSchedule("FFFHHF", 99, (0.0,) * 6)(tower(), 6)
    signals, decisions = Series([[4.5], [5.0], [4.0], [3.0], [2.0], [1.0]]), []
    decide = Net(bound=bound).under(fixed, tower()).start()
    for step, choices in enumerate((1, 1, 1, 2, 2, 1)):
        signals.step = step
        decisions.append(decide(choices, signals))
        if not decisions[-1].choice:
            signals.computed.append(step)
        if step == 4:
            assert decide.told == told
    assert decisions == [Decision(0, "")] * 3 + [third, fourth, Decision(0, "")]


def test_an_error_is_measured_with_two_predictions_before_the_last_one():
    """In the store, and computed since the run was planned."""
    fixed = CodedSchedule("FFFH", 99, (0.0,) * 4)(tower(), 4)
    for computed, seen in (([1, 2], [0, 1, 2]), ([0, 1, 2], [1, 2])):
        signals = Series([[4.5], [5.0], [4.0], [3.0]])
        signals.step, signals.computed = 3, computed
        decide = replace(Net().under(fixed, tower()).start(), seen=seen)
        assert decide(2, signals) == Decision(1, "")


@pytest.mark.parametrize(
    ("actions", "line", "computed", "coefficients"),
    [
        # The parabola through steps 4, 2 and 0, at step 5; and that through 4, 2 and 1.
        ("F1F1F1", (1.875, -1.25, 0.375), [1], (2.0, -2.0, 1.0)),
        # Steps 1 and 2 make what step 3 reads in any case.
        ("F221", (2.0, -1.0), [1], None),
    ],
)
def test_a_line_goes_through_the_last_values_that_are_kept(actions, line, computed, coefficients):
    last = len(actions) - 1
    own = ((),) * last + (line,)
    fixed = CodedSchedule(actions, 99, (1.0,) * (last + 1), coefficients=own)(tower(), last + 1)
    signals = Series([])
    signals.step = last
    decide = replace(Net().under(fixed, tower()).start(), computed=computed)
    assert decide(2, signals) == Decision(1, "", coefficients)


@pytest.mark.parametrize("size", [4.0, 0.25])
def test_without_a_change_before_it_the_nearest_forecast_is_the_last_value(size):
    assert best_line_error([[size, 0, 0], [0, size / 4, 0], [0, 0, 0]]) == 0.5
