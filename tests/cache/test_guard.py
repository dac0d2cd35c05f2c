"""`guard` and the net carried out on tiny models: counted, replayed, undone, by window; what is measured."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from hgc_video.cache.drift import Observer, mean_products
from hgc_video.cache.engine import attach
from hgc_video.cache.noise_levels import NoiseLevels, known_levels
from hgc_video.measure.macs import MacCounter
from hgc_video.plan.cost import cost, full_cost
from hgc_video.plan.policies.net import NET, Net
from hgc_video.plan.prediction_path import equal_turns
from hgc_video.plan.presets import resolve
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
    seen.see_input(torch.zeros(1), 900.0)
    assert (seen.noise_angle(), seen.prediction_type()) == (None, "v_prediction")
    scheduler = DDIMScheduler(
        prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2",
        rescale_betas_zero_snr=True, timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(25)
    seen = Observer(levels=known_levels(scheduler))
    angles = []
    for t in scheduler.timesteps:
        seen.see_input(torch.zeros(1), t)
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
