"""`guard` and the net carried out on tiny models: counted, replayed, undone, by window; what is measured."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler

from hgc_video.cache.current_step import CurrentStep
from hgc_video.cache.drift import Observer, Observers, mean_products
from hgc_video.cache.engine import attach
from hgc_video.cache.noise_levels import NoiseLevels, known_levels
from hgc_video.cache.overflow import OverflowGuard
from hgc_video.cache.prepared import PreparedStep
from hgc_video.cache.store import Store
from hgc_video.errors import CacheStateError
from hgc_video.measure.macs import MacCounter
from hgc_video.plan.cost import cost, full_cost
from hgc_video.plan.liveness import Live
from hgc_video.plan.policies.net import NET, Net
from hgc_video.plan.prediction_path import equal_turns
from hgc_video.plan.presets import resolve
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.tiny_models import Clip, controlnet, graph_of, motion_unet

STEPS = 12


@pytest.fixture(scope="module")
def clip():
    clip = Clip(motion_unet(), controlnet())
    clip.timesteps = torch.linspace(
        900, 850, STEPS
    )  # near one another, so that something is reused
    return clip


def attached(clip, plan):
    return attach(
        plan, graph=graph_of(clip), unet=clip.unet, controlnet=clip.controlnet, guidance_scale=3.0
    )


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("text", ["guard:tolerance=0.05", "guard+gate:at=0.5", "fast+net"])
def test_what_is_executed_is_counted_within_the_planned_range_and_can_be_replayed(clip, text):
    graph, before = graph_of(clip), [sorted(vars(m)) for m in clip.unet.modules()]
    plan = resolve(text).schedule(graph, STEPS)
    with attached(clip, plan) as engine:
        with MacCounter() as counter:
            outputs = clip.run(engine)
        record, executed = engine.log.record(), engine.log.macs_by_part()
    assert [sorted(vars(m)) for m in clip.unet.modules()] == before
    planned = cost(graph, record)
    assert executed == planned.by_part()
    assert counter.macs == pytest.approx(planned.total, rel=1e-9)
    assert cost(graph, plan.lower_bound()).total <= planned.total < cost(graph, plan).total
    with attached(clip, record) as engine:  # as a schedule that is fixed
        assert same(clip.run(engine), outputs)


def test_a_tolerance_that_is_too_small_leaves_the_lossless_run(clip):
    graph = graph_of(clip)
    with attached(clip, resolve("guard:tolerance=1e-9").schedule(graph, STEPS)) as engine:
        ours = clip.run(engine)
    with attached(clip, resolve("lossless").schedule(graph, STEPS)) as engine:
        assert same(clip.run(engine), ours)


@pytest.mark.parametrize("preset", ["balanced", "turbo", "deepcache:interval=3"])
def test_a_net_that_holds_nothing_back_changes_no_bit(clip, preset):
    graph = graph_of(clip)
    fixed = resolve(preset).schedule(graph, STEPS)
    with attached(clip, fixed) as engine:
        plain, macs = clip.run(engine), engine.log.macs_by_part()
    with attached(clip, Net(bound=1e6).under(fixed, graph)) as engine:
        assert same(clip.run(engine), plain)
        assert engine.log.macs_by_part() == macs
        assert engine.log.record().steps == fixed.steps


def test_a_net_that_holds_everything_back_computes_what_the_preset_reuses(clip):
    graph = graph_of(clip)
    fixed = resolve("balanced").schedule(graph, STEPS)
    with attached(clip, Net(bound=1e-9, closed=True).under(fixed, graph)) as engine:
        ours = clip.run(engine)
        assert {step.label for step in engine.log.record().steps} == {"key", NET}
    for given, stock in zip(ours, clip.run(), strict=True):
        torch.testing.assert_close(given, stock, rtol=1e-5, atol=1e-5)


def test_every_window_decides_by_itself(clip):
    """Two windows, one of which gets fresh noise at every step."""
    graph = graph_of(clip)
    plan = resolve("guard:tolerance=0.02").schedule(graph, STEPS)
    still, computed = clip.latents, {0: 0, 1: 0}
    generator = torch.Generator().manual_seed(0)
    try:
        with attached(clip, plan) as engine:
            for i, t in enumerate(clip.timesteps):
                engine.only_windows({0, 1}, 0)
                for window in (0, 1):
                    noisy = torch.randn(still.shape, generator=generator) if window else still
                    clip.latents = noisy
                    engine.at(i, window)
                    clip.step(t)
                    computed[window] += engine._observers.at(window).computed_last
    finally:
        clip.latents = still
    assert computed[1] == STEPS
    assert computed[0] < STEPS


def test_products_are_those_of_the_guided_predictions():
    a, b, c = torch.randn(3, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    seen = Observer(guidance_scale=2.5)
    for value in (a, b, c):
        seen.see_output(value, 2)
    u, v, w = (x[:1] + 2.5 * (x[1:] - x[:1]) for x in (a, b, c))
    rows = [w, w - v, v - u]
    expected = [[float((p * q).mean()) for q in rows] for p in rows]
    torch.testing.assert_close(torch.tensor(seen.products()), torch.tensor(expected))
    seen.see_output(None)
    assert len(seen.products()) == 3
    seen.see_output(c[1:], 1)  # after a gate there is the prompt's branch alone
    assert seen.products()[1][1] == 0
    assert mean_products([]) == ()
    assert len(mean_products([a, b[:1]])) == 1


def test_what_is_measured_by_hand():
    x1, x2, x3 = map(torch.tensor, ([1.0, 1.0], [2.0, 4.0], [1.0, -3.0]))
    seen = Observer(levels=NoiseLevels(DDIMScheduler()))

    def measured():
        return (
            seen.input_change(), seen.input_change_since_computed(), seen.output_change(),
            seen.output_size(), seen.drift(), seen.computed_last, seen.step,
        )  # fmt: skip

    assert measured() == (0, 0, 0, 0, 0, False, 0)
    assert (seen.noise_angle(), seen.products()) == (None, ())
    seen.see_input(x1, 900.0, 4)
    assert measured() == (0, 0, 0, 0, 0, False, 4), "nothing was computed yet"
    seen.see_output(torch.tensor([1.0, 3.0]))
    assert seen.products() == ((5,),), "both numbers are the prompt's"
    seen.see_outermost(torch.tensor([4.0, 4.0]), False)  # there was none before
    assert measured() == (0, 0, 0, 2, 0, True, 4)
    seen.see_input(x2, 800.0, 5)
    seen.see_output(None)
    seen.see_outermost(torch.tensor([5.0, 7.0]), False)
    assert measured() == (2, 2, 0, 2, 0.5, False, 5)
    seen.see_input(x3, 700.0, 6)
    # From x2 it is (1 + 7) / 2, from x1, of which a prediction was computed last, (0 + 4) / 2.
    assert measured() == (4, 2, 0, 2, 0.5, False, 6)
    seen.see_output(torch.tensor([2.0, -4.0]))
    seen.see_outermost(torch.tensor([5.0, 7.0]), True)
    assert measured() == (4, 0, 4, 3, 0, True, 6)
    seen.see_outermost(torch.tensor([8.0, 10.0]), False)
    assert seen.drift() == 0.5
    # A clip of other frames is compared with nothing.
    seen.see_input(torch.ones(3), 600.0, 7)
    assert seen.input_change_since_computed() == 0
    seen.see_output(torch.tensor([5.0, 6.0, 7.0]))
    seen.see_outermost(torch.ones(3), False)
    assert (seen.output_size(), seen.drift()) == (6, 0)
    seen.begin()
    assert measured() == (0, 0, 0, 0, 0, False, 0)


def test_products_are_of_the_last_four_predictions():
    seen = Observer()
    for number in (1.0, 2.0, 4.0, 8.0, 16.0):
        seen.see_output(torch.tensor([number]))
    # 16 and the changes 16 - 8, 8 - 4 and 4 - 2.
    assert seen.products() == tuple(tuple(p * q for q in (16, 8, 4, 2)) for p in (16, 8, 4, 2))
    a, b, c = torch.ones(3, 2)
    assert len(mean_products([a, b[:1], c])) == 1, "c was computed before the shape changed"


def a_step(window, *, fullest=True, branches=2):
    """A step as observers get it."""
    schedule = Schedule("test", (StepPlan(branches=branches),))
    step = CurrentStep(Store(), 1, 0, window, OverflowGuard(schedule))
    alive = Live(*[frozenset()] * len(dataclasses.fields(Live)))
    step.prepared = PreparedStep(0, schedule.steps[0], alive, {}, {}, {}, False, fullest)
    return step


def test_every_window_has_an_observer_with_what_is_known_of_the_run():
    observers, both = Observers("a"), torch.tensor([[1.0], [3.0]])
    observers.see_output(a_step(3), both)
    assert observers.at(3).prediction_type() == "v_prediction"
    assert observers.at(3).products() == ((9,),), "without a scale the prompt's branch alone"
    observers.see_output(a_step(4, branches=3), torch.tensor([[1.0], [3.0], [7.0]]))
    assert observers.at(4).products() == ((9,),), "the perturbed branch comes behind it"
    observers = Observers("a")
    observers.levels = NoiseLevels(DDIMScheduler(prediction_type="epsilon"))
    observers.guidance_scale = 2.0
    observers.see_input(a_step(3), both, 900.0)
    observers.see_output(a_step(3), both)
    assert observers.at(3).prediction_type() == "epsilon" and observers.at(3).noise_angle()
    assert observers.at(3).products() == ((25,),)  # 1 + 2 * (3 - 1)
    for features, fullest in ((4.0, True), (5.0, False)):
        observers.see_layer(a_step(3, fullest=fullest), "a", torch.tensor([features]))
        observers.see_layer(a_step(3, fullest=fullest), "b", torch.tensor([99.0]))
    assert (observers.at(3).drift(), observers.at(5).drift()) == (0.25, 0)
    observers.see_layer(a_step(3), "a", torch.tensor([6.0]))
    assert observers.at(3).drift() == 0, "a step that computes most is a refresh"


def test_observers_go_on_from_their_state_by_window():
    noise = NoiseLevels(DDIMScheduler())
    draw = torch.Generator().manual_seed(0)
    samples = torch.randn(2, 5, 6, generator=draw)
    first, other = Observers("a", noise), Observers("a", noise)

    def go_on(observers, steps):
        for window in (3, 5):
            for i in steps:
                sample = samples[window // 5, i]
                observers.see_input(a_step(window), sample, 900.0 - 50 * i)
                if i != 3:
                    observers.see_output(a_step(window, branches=1), sample.sin())

    def measured(observers):
        return [
            (s.computed_last, s.input_change_since_computed(), s.stability(), s.products())
            for s in (observers.at(3), observers.at(5))
        ]

    go_on(first, range(3))
    other.restore(first.state())
    assert [seen.computed_last for seen in (other.at(3), other.at(5))] == [True, True]
    for steps in ([3], [4]):
        go_on(first, steps)
        go_on(other, steps)
        assert measured(other) == measured(first)
        one, two = measured(first)
        assert one != two and all(
            (seen[1] == 0) == (steps == [4]) and seen[2] for seen in (one, two)
        )


def test_latents_of_several_shapes_have_no_stability():
    seen = Observer(NoiseLevels(DDIMScheduler()))
    for frames, t in ((2, 900.0), (2, 800.0), (2, 700.0), (3, 600.0)):
        seen.see_input(torch.ones(frames), t, 0)
    assert seen.stability() == 0
    with pytest.raises(CacheStateError, match="reads noise levels; give the engine the scheduler"):
        Observer().stability()


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "sample"])
def test_the_noise_angle_is_the_schedulers(kind):
    scheduler = DDIMScheduler(prediction_type=kind, timestep_spacing="trailing")
    levels = NoiseLevels(scheduler)
    alpha, sigma = levels.at(490.0)
    assert levels.angle(490.0) == pytest.approx(float(torch.atan2(sigma, alpha)))
    assert (levels.prediction_type, levels.angle(500.0) > levels.angle(490.0)) == (kind, True)
    x, clean = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    for other in ("v_prediction", "epsilon", "sample"):
        stated = levels.stated_as(other, x, clean, 490.0)
        of_its_kind = NoiseLevels(DDIMScheduler(prediction_type=other))
        torch.testing.assert_close(of_its_kind.clean(x, stated, 490.0), clean)


def test_without_known_noise_levels_there_is_no_angle():
    assert known_levels(None) is None
    seen = Observer(levels=None)
    seen.see_input(torch.zeros(1), 900.0, 0)
    assert (seen.noise_angle(), seen.prediction_type()) == (None, "v_prediction")
    scheduler = DDIMScheduler(
        prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2",
        rescale_betas_zero_snr=True, timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(25)
    seen = Observer(levels=known_levels(scheduler))
    angles = []
    for t in scheduler.timesteps:
        seen.see_input(torch.zeros(1), t, 0)
        angles.append(seen.noise_angle())
    assert angles == pytest.approx(equal_turns(25), abs=0.02)


def test_a_run_that_was_kept_goes_on_to_the_same_bits(clip):
    graph = graph_of(clip)
    plan = resolve("guard:tolerance=0.05").schedule(graph, STEPS)
    with attached(clip, plan) as engine:
        whole, record = clip.run(engine), engine.log.record()
        for stop in (3, 6):
            for i, t in enumerate(clip.timesteps[:stop]):
                engine.at(i)
                clip.step(t)
            state = engine.state()
            with_it = []
            engine.restore(state, torch.device("cpu"))
            for i, t in enumerate(clip.timesteps[stop:], stop):
                engine.at(i)
                with_it.append(clip.step(t))
            assert same(with_it, whole[stop:])
            assert engine.log.record() == record
    assert full_cost(graph, STEPS).total > cost(graph, record).total
