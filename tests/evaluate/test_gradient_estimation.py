"""Gradient estimation's scheduler against the sampler's own formula, for models of noise and of velocity."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from hgc_video.evaluate.gradient_estimation import GradientEstimation
from hgc_video.evaluate.methods import make_method
from hgc_video.sampling.loop import denoise

STEPS = 6


def clean(x, sigma):
    """A denoiser that is no straight line: of x = x0 + sigma noise, x0."""
    return torch.tanh(x / (1 + sigma)) * 1.5


def predict_with(scheduler):
    """The model that a scheduler asks, in what it predicts; the scheduler scales x to variance 1."""

    def predict(scaled, t, index):
        sigma = scheduler.sigmas[index]
        root = (sigma**2 + 1) ** 0.5
        x = scaled * root
        noise = (x - clean(x, sigma)) / sigma
        if scheduler.config.prediction_type == "epsilon":
            return noise
        return (noise - sigma * clean(x, sigma)) / root

    return predict


def own(prediction_type):
    return DDIMScheduler(prediction_type=prediction_type, timestep_spacing="trailing")


def run(scheduler):
    scheduler.set_timesteps(STEPS)
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    start = noise * scheduler.init_noise_sigma
    return start, denoise(predict_with(scheduler), scheduler, start, scheduler.timesteps)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [1.0, 2.0, 1.5])
def test_it_goes_beyond_the_last_change_of_direction(prediction_type, gamma):
    scheduler = GradientEstimation(gamma)(own(prediction_type), STEPS)
    x, found = run(scheduler)
    before = None
    for sigma, following in zip(scheduler.sigmas[:-1], scheduler.sigmas[1:], strict=True):
        direction = (x - clean(x, sigma)) / sigma
        taken = direction if before is None else before + gamma * (direction - before)
        x, before = x + (following - sigma) * taken, direction
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
    euler = EulerDiscreteScheduler.from_config(scheduler.config)
    assert torch.allclose(run(euler)[1], found, atol=1e-4) == (gamma == 1)
    torch.testing.assert_close(run(scheduler)[1], found)  # a second run knows nothing of the first


def test_it_is_a_method_of_compare():
    method = make_method("gradient-estimation:steps=7,gamma=1.5")
    assert method.solver == GradientEstimation(1.5) and method.preset.num_steps(25) == 7
    scheduler = method.scheduler(own("epsilon"), 7)
    assert isinstance(scheduler, EulerDiscreteScheduler)
    with pytest.raises(ValueError, match="steps"):
        make_method("gradient-estimation:gamma=2")
