"""Image to image and inpainting under enable_cache: the stock result, cached from the first step on."""

from __future__ import annotations

import diffusers
import pytest
import torch
from PIL import Image

import hgc_video
from hgc_video.measure.macs import MacCounter
from tests import tiny_pipelines as tiny

STEPS, STRENGTH = 8, 0.75
RUNS = 6  # of the steps
NAMES = [
    f"StableDiffusion{size}{control}{task}Pipeline"
    for size in ("", "XL")
    for control in ("", "ControlNet")
    for task in ("Img2Img", "Inpaint")
]
NINE = "StableDiffusionInpaintPipeline with mask and picture as channels"


def made(name):
    """The pipeline of a class around small random models."""
    cls = getattr(diffusers, name.partition(" ")[0])
    parts = {"controlnet": tiny.controlnet()} if "ControlNet" in name else {}
    if "XL" in name:
        parts = {"controlnet": tiny.xl_controlnet()} if parts else {}
        return tiny.sdxl(cls, **parts)
    unet = nine_channels() if name == NINE else tiny.unet()
    return cls(
        **tiny._common(), unet=unet, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, **parts,
    )  # fmt: skip


def nine_channels():
    """A UNet that reads latents, mask and masked picture, as those that were trained for it."""
    config = {**tiny.unet().config, "in_channels": 9}
    torch.manual_seed(2)
    return diffusers.UNet2DConditionModel.from_config(config).eval()


def call(pipe, name):
    """The latents that it gives (1 4 h w)."""
    image, hint = tiny.images(2)
    given = {
        "prompt": "a dancer in a red shirt", "image": image, "guidance_scale": 3.0, "strength": STRENGTH,
        "num_inference_steps": STEPS, "output_type": "latent", "generator": torch.Generator().manual_seed(0),
    }  # fmt: skip
    if "ControlNet" in name:
        given["control_image"] = hint
    if "Inpaint" in name:
        given["mask_image"] = Image.new("L", image.size, 0)
        given["mask_image"].paste(255, (8, 8, 24, 24))
        given |= {"height": tiny.PIXELS, "width": tiny.PIXELS}
    return pipe(**given).images.clone()


@pytest.mark.parametrize("name", [*NAMES, NINE])
def test_it_is_the_stock_result_and_cached_from_the_first_step(name):
    pipe = made(name)
    pipe.set_progress_bar_config(disable=True)
    with MacCounter() as stock:
        plain = call(pipe, name)
    with hgc_video.enable_cache(pipe, "full") as cache:
        assert torch.equal(call(pipe, name), plain)
        full = cache.report
    assert len(full.steps) == RUNS and full.macs == full.macs_baseline
    with hgc_video.enable_cache(pipe, "hgc:interval=3,cut=1") as cache:
        tiny.assert_near(call(pipe, name), plain, 0.8)  # and what is planned once is planned
        with MacCounter() as counter:
            call(pipe, name)
        report = cache.report
    assert stock.macs - counter.macs == full.macs - report.macs, (
        "what was counted is what was saved"
    )
    assert [row.label == "key" for row in report.steps] == [True, False, False] * 2
    assert report.macs_saved > 0.2
