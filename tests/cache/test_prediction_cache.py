"""What is kept of the whole prediction, and predictions that are made of it without the UNet."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

from hgc_video.cache.noise_levels import NoiseLevels
from hgc_video.cache.prediction import PredictionCache
from hgc_video.errors import CacheStateError
from hgc_video.plan.graph import PREDICTION
from hgc_video.plan.liveness import CFG_DELTA, clean_at, delta
from hgc_video.plan.schedule import StepPlan
from tests.cache.test_current_step import Run
from tests.tiny_models import image_unet

WHOLE = frozenset({PREDICTION})
T = torch.tensor(700)
# Two branches of two channels; the UNet's input has an image's channel behind them.
SAMPLE = torch.tensor([[1.0, 2.0, 9.0], [1.0, 2.0, 9.0]])
MADE = torch.tensor([[5.0, 3.0], [4.0, 8.0]])


def call(sample=SAMPLE):
    return {"sample": sample, "timestep": T}


def test_a_prediction_is_repeated_as_its_difference_to_the_latents():
    run, cache = Run(StepPlan(), StepPlan(deltas=WHOLE)), PredictionCache()
    cache.keep((MADE,), call(), run.at(0))
    assert {key.name for key in run.store._values} == {delta(PREDICTION)}
    (out,) = cache.repeat(SAMPLE + 10, run.at(1))
    assert torch.equal(out, MADE + 10)


def test_the_difference_is_extrapolated_where_the_plan_says_so():
    step = StepPlan(deltas=WHOLE, extrapolate=WHOLE, coefficients=(1.5, -0.5))
    run, cache = Run(StepPlan(), StepPlan(), step), PredictionCache()
    for index, made in enumerate((MADE, MADE + 4)):
        cache.keep((made,), call(), run.at(index))
    (out,) = cache.repeat(SAMPLE, run.at(2))
    assert torch.equal(out, MADE + 6)


@pytest.mark.parametrize("kind", [tuple, UNet2DConditionOutput])
def test_a_prediction_is_given_in_the_type_of_the_unets_own(kind):
    run, cache = Run(StepPlan(), StepPlan(deltas=WHOLE)), PredictionCache()
    assert cache.state() is None
    given = (MADE, "more") if kind is tuple else kind(sample=MADE)
    cache.keep(given, call(), run.at(0))
    out = cache.repeat(SAMPLE, run.at(1))
    assert type(out) is kind and len(out) == 1 and torch.equal(out[0], MADE)
    assert cache.state() == kind.__name__


@pytest.fixture(scope="module")
def unet():
    return image_unet()


@pytest.mark.parametrize("kind", [tuple, UNet2DConditionOutput])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_that_goes_on_knows_the_type_by_its_name(unet, kind, compiled):
    run, cache = Run(StepPlan(), StepPlan(deltas=WHOLE)), PredictionCache()
    PredictionCache().keep((MADE,), call(), run.at(0))
    # torch.compile wraps a model in another.
    cache.restore(kind.__name__, SimpleNamespace(_orig_mod=unet) if compiled else unet)
    assert cache.state() == kind.__name__
    assert type(cache.repeat(SAMPLE, run.at(1))) is kind


def test_a_run_that_kept_no_prediction_knows_no_type(unet):
    cache = PredictionCache()
    cache.restore("tuple", unet)
    cache.restore(None, unet)
    assert cache.state() is None


@pytest.mark.parametrize("name", ["UNetOfTomorrowOutput", "logger"])
def test_a_type_that_the_unet_does_not_know_is_refused(unet, name):
    with pytest.raises(
        CacheStateError, match=f"UNet2DConditionModel has no output {name}; begin the run anew"
    ):
        PredictionCache().restore(name, unet)


def levels():
    return NoiseLevels(DDIMScheduler(prediction_type="epsilon"))


def test_a_forecast_stands_for_the_clean_latents_that_the_plan_mixes():
    mixed = StepPlan(clean=((1, 2.0), (0, -1.0)))
    held = StepPlan(clean=((2, 1.0),))
    run, noise = Run(StepPlan(), StepPlan(), mixed, held), levels()
    cache, cleans = PredictionCache(noise), []
    for index, made in enumerate((MADE, MADE + 4)):
        cache.keep((made,), call(), run.at(index))
        cleans.append(noise.clean(SAMPLE[:, :2], made, T))
        assert torch.equal(run.at(index).values(clean_at(index))[0].tensor, cleans[-1])
    through = 2 * cleans[1] - cleans[0]
    for index, sample in ((2, SAMPLE + 1), (3, SAMPLE - 1)):
        (out,) = cache.forecast(call(sample), run.at(index))
        expected = noise.prediction(sample[:, :2], through, T)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(run.at(3).read(clean_at(2)), through)
    assert not run.at(3).holds(clean_at(3)), "no step reads it"


def test_after_a_gate_a_forecast_is_of_the_prompts_branch():
    run, noise = Run(StepPlan(), StepPlan(branches=1, clean=((0, 1.0),))), levels()
    cache = PredictionCache(noise)
    cache.keep((MADE,), call(), run.at(0))
    (out,) = cache.forecast(call(SAMPLE[1:]), run.at(1))
    torch.testing.assert_close(out, MADE[1:], rtol=1e-4, atol=1e-4)


def test_without_a_scheduler_nothing_is_forecast():
    run, cache = Run(StepPlan(), StepPlan(clean=((0, 1.0),))), PredictionCache()
    with pytest.raises(CacheStateError, match="give the engine the scheduler"):
        cache.keep((MADE,), call(), run.at(0))
    PredictionCache(levels()).keep((MADE,), call(), run.at(0))
    with pytest.raises(CacheStateError, match="give the engine the scheduler"):
        cache.forecast(call(), run.at(1))


def test_the_last_guidance_difference_is_added_again():
    add = StepPlan(branches=1, cfg_delta=(0.5, 0.5))
    run, cache = Run(StepPlan(), StepPlan(branches=1), add), PredictionCache()
    uncond, cond = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))  # 3 frames
    both, sample = torch.cat([uncond, cond]), torch.zeros(6, 3)
    cache.keep((both,), call(sample), run.at(0, frames=3))
    ((kept, branches, _),) = run.at(0).values(CFG_DELTA)
    assert branches == 1 and torch.equal(kept, uncond - cond)
    cache.keep((cond + 3,), call(sample[3:]), run.at(1, frames=3))  # has no difference of its own
    assert cache.branch_difference(run.at(1, frames=3)) is None
    difference = cache.branch_difference(run.at(2, frames=3))
    assert torch.equal(difference, kept)
    (out, beside) = cache.both((cond, "more"), difference, run.at(2))
    assert torch.equal(out, torch.cat([cond + 0.5 * kept, cond])) and beside == "more"
    (out,) = cache.both((cond,), None, run.at(1))
    assert torch.equal(out, torch.cat([cond, cond])), "guidance is dropped"


def test_nothing_is_kept_that_no_later_step_reads():
    run, cache = Run(StepPlan(), StepPlan()), PredictionCache()
    cache.keep((MADE,), call(), run.at(0))
    assert run.store.nbytes == 0
