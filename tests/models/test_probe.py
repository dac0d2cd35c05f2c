"""A diffusers that moved things is refused with what was expected and what was found, by every adapter."""

from __future__ import annotations

import pytest

from hgc_video.errors import AdapterError
from hgc_video.models.layout import read_layout
from hgc_video.models.supported_pipelines import probe_pipeline
from tests import tiny_models as models
from tests import tiny_pipelines as tiny

MODELS = {
    "motion": (models.motion_unet, None),
    "image": (models.image_unet, None),
    "sdxl": (models.sdxl_unet, None),
    "video": (models.svd_unet, None),
    "controlnet": (models.motion_unet, models.controlnet),
    "sparse controlnet": (models.motion_unet, tiny.sparse_controlnet),
}
PLACES = {
    "": ("time_embedding", "conv_in", "down_blocks", "mid_block", "up_blocks", "conv_out"),
    "down_blocks.0": ("resnets", "attentions", "motion_modules", "downsamplers"),
    "down_blocks.1": ("downsamplers",),  # the innermost has none, and says so
    "mid_block": ("resnets", "attentions"),
    "up_blocks.0": ("upsamplers",),
    "up_blocks.1": ("resnets", "attentions", "motion_modules", "upsamplers"),
    "controls": ("controlnet_cond_embedding", "controlnet_down_blocks", "controlnet_mid_block"),
}
ATTENTION = ("to_q", "to_k", "to_v", "is_cross_attention")


def rename(module, name):
    """Moves an attribute, a module or a plain one, to another name."""
    for kept in (module._modules, vars(module)):
        if name in kept:
            kept[f"{name}_moved"] = kept.pop(name)
            return
    raise AttributeError(name)


def made(name):
    """The UNet, its ControlNet if that is meant, and which of both is meant."""
    unet, control = MODELS[name]
    unet, control = unet(), control() if control else None
    return unet, control, control if control is not None else unet


@pytest.mark.parametrize("name", MODELS)
def test_every_renamed_part_is_missed_and_what_is_there_is_told(name):
    tried = 0
    for place, attributes in PLACES.items():
        for attribute in attributes:
            unet, control, meant = made(name)
            try:
                module = meant.get_submodule("" if place == "controls" else place)
                rename(module, attribute)
            except AttributeError:
                continue  # this kind has no such part
            tried += 1
            with pytest.raises(
                AdapterError, match=rf"(?s){type(module).__name__} was expected to have"
            ):
                read_layout(unet, control)
    assert tried >= 9


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("attribute", ATTENTION)
def test_an_attention_that_cannot_be_told_is_refused(name, attribute):
    unet, control, meant = made(name)
    attentions = [m for m in meant.modules() if hasattr(m, "is_cross_attention")]
    assert attentions
    for attention in attentions:
        rename(attention, attribute)
    with pytest.raises(AdapterError, match=f"expected to have .*{attribute}.*; it has "):
        read_layout(unet, control)


def test_the_message_names_what_was_found():
    unet = models.motion_unet()
    rename(unet.down_blocks[0], "attentions")
    with pytest.raises(AdapterError, match=r"it has .*attentions_moved.*: this diffusers"):
        read_layout(unet)


@pytest.mark.parametrize("part", ["unet", "scheduler", "progress_bar", "step", "scale_model_input"])
def test_a_pipeline_without_a_part_is_refused(part):
    class AnimateDiffPipeline:
        """A class of a supported name, as a later diffusers may have it."""

        class scheduler:
            step = scale_model_input = True

        unet = progress_bar = True

    owner = (
        AnimateDiffPipeline.scheduler
        if part.startswith("s") and part != "scheduler"
        else AnimateDiffPipeline
    )
    delattr(owner, part)
    with pytest.raises(AdapterError, match=f"AnimateDiffPipeline was expected to have .*{part}"):
        probe_pipeline(AnimateDiffPipeline())


def test_a_controlnet_of_another_unet_is_refused():
    unet, net = models.motion_unet(layers=2), models.controlnet(layers=1)
    with pytest.raises(AdapterError, match=r"4 residuals cannot control .* 6 skip connections"):
        read_layout(unet, net)
