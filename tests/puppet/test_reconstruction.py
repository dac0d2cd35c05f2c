"""What is said of the VAE: of the one that comes with the package, and of one that is broken."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers import AutoencoderKL

from hgc_video.evaluate.quality import psnr
from hgc_video.models.load import model_folder
from hgc_video.puppet.reconstruction import held_out_frames, measure, sheet


@pytest.fixture(scope="module")
def frames():
    return held_out_frames(5)


def shipped_vae():
    return AutoencoderKL.from_pretrained(model_folder("puppet") / "vae").float().eval()


def test_held_out_frames_are_different_and_always_the_same(frames):
    assert frames.shape == (5, 128, 128, 3) and frames.dtype == np.uint8
    assert np.array_equal(held_out_frames(2), frames[:2])
    assert psnr(frames[0], frames[1]) < 20


def test_the_figures_are_those_of_what_was_made(frames):
    figures, made = measure(shipped_vae(), frames)
    each = [psnr(a, b) for a, b in zip(made, frames, strict=True)]
    assert figures.frames == 5 and figures.psnr_db == pytest.approx(np.mean(each))
    assert (figures.psnr_min_db, figures.psnr_max_db) == (min(each), max(each))
    assert figures.psnr_db > 24
    assert 0.3 < figures.gradient_energy < 1.05
    assert figures.decode_16_frames_s > 0


def test_a_vae_that_forgets_its_latents_is_found_out(frames):
    vae = shipped_vae()
    vae.post_quant_conv.weight.data.zero_()
    figures, _ = measure(vae, frames)
    assert figures.psnr_db < 17
    assert figures.gradient_energy < 0.1


def test_a_sheet_has_each_reconstruction_below_its_truth():
    truth = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    picture = sheet(truth, truth + 100, columns=2, scale=2)
    assert picture.shape == (4 * (4 + 2) * 2, 2 * 4 * 2, 3)
    rows = picture[::12, ::8, 0]
    assert rows.tolist() == [[0, 1], [100, 101], [2, 255], [102, 255]]
