"""Frames of latents where the VAE's values exceed what float16 holds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from hgc_video.errors import HGCVideoWarning, NumericalError
from hgc_video.models.load import load_pipeline
from hgc_video.sampling.stock_pipeline import adapter_of
from tests.puppet_latents import CHANNELS


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def latents():
    return torch.randn(1, CHANNELS, 3, 4, 4, generator=torch.Generator().manual_seed(3)) / 2


def grown(dtype, factor):
    """The embedded model with the last level of its decoder scaled, which the norm after it divides out."""
    pipe = load_pipeline("puppet", "pose", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    decoder = pipe.vae.decoder
    for resnet in decoder.up_blocks[-1].resnets:
        for parameter in resnet.conv2.parameters():
            parameter *= factor
        if resnet.conv_shortcut is not None:
            resnet.conv_shortcut.bias *= factor
    for parameter in decoder.up_blocks[-2].upsamplers[0].conv.parameters():
        parameter *= factor
    torch.nn.Module.to(pipe.vae, dtype)
    return pipe


def test_a_vae_that_exceeds_float16_decodes_in_float32_and_says_so(latents):
    expected = adapter_of(grown(torch.float32, 1)).decode(latents, 3)
    pipe = grown(torch.float16, 2.0**9)
    adapter, before = adapter_of(pipe), {k: v.clone() for k, v in pipe.vae.state_dict().items()}
    with pytest.warns(HGCVideoWarning, match="exceed float16.*decodes in float32") as told:
        frames = adapter.decode(latents.half(), 2)
    assert len(told) == 1 and frames.shape == (3, 32, 32, 3)
    assert np.abs(frames.astype(int) - expected).max() <= 2
    after = pipe.vae.state_dict()
    assert all(v.dtype == torch.float16 and torch.equal(v, after[k]) for k, v in before.items())


def test_what_float16_holds_is_decoded_in_it_without_a_word(latents):
    pipe = grown(torch.float16, 2.0**-8)
    expected = adapter_of(grown(torch.float32, 1)).decode(latents, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", HGCVideoWarning)
        frames = adapter_of(pipe).decode(latents.half(), 3)
    assert np.abs(frames.astype(int) - expected).max() <= 2


def test_a_vae_that_gives_no_numbers_in_float32_is_an_error(latents):
    pipe = grown(torch.float32, 1)
    pipe.vae.decoder.conv_out.bias[0] = torch.inf
    with pytest.raises(NumericalError, match="infinite values in float32; its weights"):
        adapter_of(pipe).decode(latents, 3)
