"""A VAE whose values exceed float16 is scaled, and makes the same pictures."""

from __future__ import annotations

import copy

import pytest
import torch

from hgc_video.puppet.training.half_precision import fit_float16
from hgc_video.puppet.training.vae import make_vae


@pytest.fixture
def grown():
    """A VAE of random weights with one level of each half, and a sum within one block, scaled up."""
    torch.manual_seed(0)
    vae = make_vae().eval().requires_grad_(False)
    encoder, decoder = vae.encoder.down_blocks, vae.decoder.up_blocks
    scale(encoder[1].downsamplers[0].conv, 2.0**14)
    scale(encoder[2].resnets[0].conv2, 2.0**14)
    scale(decoder[-1].resnets[0].conv1, 2.0**18)
    scale(decoder[-2].upsamplers[0].conv, 2.0**16)
    return vae


def scale(convolution, factor):
    convolution.weight *= factor
    convolution.bias *= factor


def test_what_exceeds_float16_is_scaled_and_no_picture_changes(grown):
    generator = torch.Generator().manual_seed(1)
    pixels, others = torch.rand(2, 2, 3, 32, 32, generator=generator) * 2 - 1
    latents = grown.encode(others).latent_dist.mean
    picture = grown.decode(latents).sample
    half = copy.deepcopy(grown).half()
    assert not half.decode(latents.half()).sample.isfinite().all()
    factors = fit_float16(grown, pixels)
    assert all(factor < 1 for factor in factors.values())
    assert {"encoder.2", "decoder.3", "decoder.up_blocks.3.resnets.0.conv1"} <= set(factors)
    assert fit_float16(grown, pixels) == {}, "nothing is left to scale"
    torch.testing.assert_close(grown.encode(others).latent_dist.mean, latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grown.decode(latents).sample, picture, rtol=1e-4, atol=1e-4)
    half = grown.half().decode(latents.half()).sample
    torch.testing.assert_close(half.float(), picture, rtol=0.05, atol=0.02)
