"""Noise levels by timestep: at the ends of the table, of whatever dtype and device, and refused by name."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler, UniPCMultistepScheduler

from hgc_video.cache.noise_levels import NoiseLevels, known_levels, stability
from hgc_video.errors import CacheStateError

DDIM = DDIMScheduler(beta_schedule="squaredcos_cap_v2")


@pytest.mark.parametrize("t", [0, 1, 2, 500, 998, 999])
def test_at_a_timestep_of_the_training_they_are_the_tables_own(t):
    levels, alphas = NoiseLevels(DDIM), DDIM.alphas_cumprod
    alpha, sigma = levels.at(t)
    assert torch.equal(alpha[0], alphas[t].sqrt()) and torch.equal(sigma[0], (1 - alphas[t]).sqrt())
    torch.testing.assert_close(levels.beta(t)[0], DDIM.betas[t], rtol=1e-2, atol=1e-7)


def test_between_two_timesteps_they_are_in_between():
    alpha, _ = NoiseLevels(DDIM).at(700.25)
    torch.testing.assert_close(
        alpha[0] ** 2, 0.75 * DDIM.alphas_cumprod[700] + 0.25 * DDIM.alphas_cumprod[701]
    )


@pytest.mark.parametrize("t", [999.5, 1000.0, 1003.0])
def test_beyond_the_training_they_are_its_last(t):
    last = DDIM.alphas_cumprod[-1]
    alpha, sigma = NoiseLevels(DDIM).at(t)
    assert torch.equal(alpha[0], last.sqrt()) and torch.equal(sigma[0], (1 - last).sqrt())


def test_of_a_batch_of_one_timestep_there_is_one_level():
    levels, each = NoiseLevels(DDIM), torch.tensor([[700, 700], [700, 700]])
    for of_one, of_all in zip(
        (*levels.at(700), levels.beta(700)), (*levels.at(each), levels.beta(each)), strict=True
    ):
        assert of_all.shape == (1,) and torch.equal(of_all, of_one)


def test_they_come_on_the_device_of_the_timestep():
    levels, t = NoiseLevels(DDIM), torch.tensor(500, device="meta")
    alpha, sigma = levels.at(t)
    assert {level.device.type for level in (alpha, sigma, levels.beta(t))} == {"meta"}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_clean_latents_and_predictions_are_of_the_latents_dtype(kind, dtype):
    levels = NoiseLevels(DDIMScheduler(prediction_type=kind))
    x, made = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    clean = levels.clean(x, made, 500)
    assert clean.dtype == dtype
    back = levels.prediction(x, clean, 500)
    assert back.dtype == dtype
    torch.testing.assert_close(back, made, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "scheduler",
    [
        EDMEulerScheduler(prediction_type="epsilon"),  # by sigma alone
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    ],
)
def test_a_scheduler_without_levels_or_of_another_prediction_is_refused_by_its_name(scheduler):
    with pytest.raises(CacheStateError, match=f"{type(scheduler).__name__} has no noise levels"):
        NoiseLevels(scheduler)
    assert known_levels(scheduler) is None


def four_latents(dtype=torch.float64):
    """Latents at four timesteps in a row: one step is as long as the unit that betas are given in."""
    draw = torch.Generator().manual_seed(1)
    latents = torch.randn(4, 50, generator=draw, dtype=torch.float64).to(dtype)
    return list(zip(latents, (503, 502, 501, 500), strict=True))


def test_the_stability_by_hand():
    """dx/dt of a step from an angle to the next: the latents lie on an arc, of which dphi/dt is known."""
    past, levels = four_latents(), NoiseLevels(DDIM)
    changes = []
    for (x, t), (following, t_next) in pairwise(past):
        phi, turn = levels.angle(t), levels.angle(t_next) - levels.angle(t)
        velocity = (following - torch.cos(torch.tensor(turn)) * x) / torch.sin(torch.tensor(turn))
        speed = 0.5 * float(DDIM.betas[t]) / torch.tan(torch.tensor(phi))
        changes.append(speed * velocity)
    third, second, newest = changes
    foretold = past[2][0] - (0.625 * newest + 0.75 * second - 0.375 * third)
    expected = ((past[3][0] - foretold) * (newest - 2 * second + third)).mean()
    assert float(stability(past, levels)) == pytest.approx(float(expected), rel=1e-2)


def test_the_stability_is_of_the_latents_dtype():
    levels = NoiseLevels(DDIM)
    assert stability(four_latents(torch.bfloat16), levels).dtype == torch.bfloat16
