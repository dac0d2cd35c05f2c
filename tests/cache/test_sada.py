"""SADA: noise levels against diffusers' schedulers, forecasts of clean latents on the tiny models against
their predictions by hand, and the criterion against its release's arithmetic."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from hgc_video.cache.drift import Observer
from hgc_video.cache.engine import attach
from hgc_video.cache.noise_levels import NoiseLevels, stability
from hgc_video.errors import CacheStateError
from hgc_video.plan.cost import cost
from hgc_video.plan.policies.sada import SADA
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.plan.policies.test_policies import tower
from tests.tiny_models import Clip, controlnet, graph_of, motion_unet

KINDS = ["epsilon", "v_prediction"]


def scheduler_of(kind):
    return DDIMScheduler(prediction_type=kind, clip_sample=False, timestep_spacing="trailing")


@pytest.mark.parametrize("kind", KINDS)
def test_clean_latents_are_those_that_the_scheduler_sees(kind):
    scheduler = scheduler_of(kind)
    scheduler.set_timesteps(10)
    levels = NoiseLevels(scheduler)
    x, made = torch.randn(2, 1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        clean = levels.clean(x, made, t)
        seen = scheduler.step(made, t, x).pred_original_sample
        torch.testing.assert_close(clean, seen, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(levels.prediction(x, clean, t), made, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(levels.beta(t)[0], scheduler.betas[t], rtol=1e-2, atol=1e-6)
    between = levels.at(500.5)[0] ** 2
    torch.testing.assert_close(between[0], scheduler.alphas_cumprod[500:502].mean())


def test_a_scheduler_without_such_levels_is_refused():
    with pytest.raises(CacheStateError, match="NoneType has no noise levels"):
        NoiseLevels(None)
    edm = EulerDiscreteScheduler(prediction_type="v_prediction", timestep_type="continuous")
    with pytest.raises(CacheStateError, match="choose a scheduler such as DDIMScheduler"):
        NoiseLevels(edm)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_made_of_the_clean_latents_of_earlier_ones(kind):
    clip, scheduler = Clip(motion_unet(), controlnet()), scheduler_of(kind)
    graph, levels = graph_of(clip), NoiseLevels(scheduler)
    rests = frozenset(graph.residuals())
    lagrange = StepPlan(rests, clean=((0, 1.0), (1, -3.0), (2, 3.0)))
    held = StepPlan(rests, branches=1, clean=((3, 1.0),))  # of a step that was forecast itself
    schedule = Schedule("x", (*[StepPlan()] * 3, lagrange, held), lossless=False)
    stock, planned, stored = clip.run(), cost(graph, schedule), []
    parts = {"graph": graph, "unet": clip.unet, "controlnet": clip.controlnet}
    with attach(schedule, **parts, scheduler=scheduler) as engine:
        outputs = []
        for i, t in enumerate(clip.timesteps):
            engine.at(i)
            stored.append(engine.store.nbytes)
            outputs.append(clip.step(t))
        assert engine.log.macs_by_part() == planned.by_part()
        assert stored == [0, *planned.nbytes[:-1]]
        assert planned.macs[3] == planned.macs[4] == {"unet": 0, "controlnet": 0}
    seen = [clip.latents.repeat(2, 1, 1, 1, 1) * (0.5 + t / 1000) for t in clip.timesteps]
    clean = [
        levels.clean(x, out, t)
        for x, out, t in zip(seen[:3], stock[:3], clip.timesteps[:3], strict=True)
    ]
    through = clean[0] - 3 * clean[1] + 3 * clean[2]
    for i, branches in ((3, slice(None)), (4, slice(1, None))):
        expected = levels.prediction(seen[i], through, clip.timesteps[i])
        torch.testing.assert_close(outputs[i][branches], expected[branches], rtol=1e-3, atol=1e-3)
    with attach(schedule, **parts) as engine, pytest.raises(CacheStateError, match="the scheduler"):
        clip.run(engine)


def test_the_criterion_is_the_released_one_on_a_deterministic_path():
    """For a velocity model under DDIM: f from its guided output, x^ by the release's coefficients."""
    scheduler = scheduler_of("v_prediction")
    scheduler.set_timesteps(10)  # so that its steps lie where the next ones begin
    levels, draw = NoiseLevels(scheduler), torch.Generator().manual_seed(3)
    x = torch.randn(1, 4, 3, 8, 8, generator=draw, dtype=torch.float64)
    seen, f, found, before = Observer(levels), [], [], x
    for i, t in enumerate(scheduler.timesteps):
        seen.see_input(x.float().repeat(2, 1, 1, 1, 1), t, 0)
        found.append(seen.stability())
        if i >= 3:
            foretold = before - (0.625 * f[-1] + 0.75 * f[-2] - 0.375 * f[-3])
            expected = ((x - foretold) * (f[-1] - 2 * f[-2] + f[-3])).mean()
            assert found[-1] == pytest.approx(float(expected), rel=1e-2, abs=1e-9)
        before = x
        v = torch.sin(x * (1 + i / 6)) + 0.1 * x  # whatever a model says
        alpha, sigma = (level.double() for level in levels.at(t))
        f.append(0.5 * scheduler.betas[t].double() / sigma * alpha * v)
        x = scheduler.step(v, t, x).prev_sample
    assert found[:3] == [0.0] * 3 and min(found) < 0 < max(found)
    still = [(torch.ones(2, 2), t) for t in scheduler.timesteps[:4]]
    assert stability(still, levels).shape == ()


class Told:
    """What SADA asks, as a list says it."""

    def __init__(self, values):
        self.values, self.asked = values, 0

    def stability(self):
        self.asked += 1
        return self.values.pop(0)


def test_its_steps_are_the_releases_of_50():
    """acc_range=(10, 47), lagrange_int=4, lagrange_step=24, lagrange_term=4, max_interval=4: what is known
    after a step decides on the next one."""
    plan = SADA()(tower(), 50)
    free = [i for i, choices in enumerate(plan.choices) if len(choices) > 1]
    # From step 24 on those after a step that is no multiple of 4.
    assert free == [*range(11, 25), *(i for i in range(25, 48) if (i - 1) % 4)]
    assert dict(plan.choices[30][1].clean).keys() == {17, 21, 25, 29}
    decide, told = plan.start(), Told([-1.0, 0.0, 1.0] + [-1.0] * 20)
    skipped = [i for i in range(50) if decide(len(plan.choices[i]), told).choice]
    #                  two, computed, four in a row, computed, four, and then three of four
    assert skipped == [11, 12, 14, 15, 16, 17, 19, 20, 21, 22, 24, *free[14:]]


def test_a_linear_series_of_clean_latents_is_continued_exactly():
    plan = SADA()(tower(), 50)
    for i in range(25, 48):
        for choice in plan.choices[i][1:]:
            assert sum(w * (2 + 3 * j) for j, w in choice.clean) == pytest.approx(2 + 3 * i)


def test_it_runs_on_the_tiny_models_as_it_reports():
    clip = Clip(motion_unet(), controlnet())
    clip.timesteps = torch.arange(950, 0, -50)
    graph, policy = graph_of(clip), SADA(fixed=0.5)
    plan = policy(graph, len(clip.timesteps))
    parts = {"graph": graph, "unet": clip.unet, "controlnet": clip.controlnet}
    with attach(plan, **parts, scheduler=scheduler_of("epsilon")) as engine:
        outputs = clip.run(engine)
        record = engine.log.record()
        assert engine.log.macs_by_part() == cost(graph, record).by_part()
    labels = [step.label for step in record.steps]
    assert labels.count("lagrange") >= 3 and all(torch.isfinite(out).all() for out in outputs)
    assert all("sada" in step.reason for step in record.steps)
