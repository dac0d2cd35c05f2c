"""Loading: what training exports is what stock diffusers loads, and what is wrong is said in a line."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffControlNetPipeline, ControlNetModel
from PIL import Image

from hgc_video.errors import InputError, ModelError
from hgc_video.models.load import load_pipeline, model_folder, read_facts
from hgc_video.puppet.judge import Judge
from hgc_video.puppet.training.denoiser import Denoiser, make_controlnet, make_unet
from hgc_video.puppet.training.run import Trained
from hgc_video.puppet.training.text import make_text_encoder, make_tokenizer
from hgc_video.puppet.training.vae import make_vae


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model of random weights, in the layout and the precision that is shipped."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    controlnets = {"pose": make_controlnet(), "depth": make_controlnet()}
    encoder = make_text_encoder(len(tokenizer))
    folder = tmp_path_factory.mktemp("model")
    denoiser = Denoiser(make_unet(), controlnets, tokenizer, encoder)
    Trained(denoiser, make_vae(), Judge()).export(folder)
    return folder


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(exported, tmp_path / "model")


def two_steps(pipe):
    hints = [Image.fromarray(np.full((64, 96, 3), k, np.uint8)) for k in (0, 200)]
    return pipe(
        prompt="a dancer", num_frames=2, height=64, width=96, num_inference_steps=2,
        conditioning_frames=hints, generator=torch.Generator().manual_seed(0), output_type="np",
    ).frames[0]  # fmt: skip


@pytest.mark.parametrize("control", ["pose", "depth"])
def test_stock_diffusers_loads_the_export_and_gets_the_same_clip(exported, control):
    controlnet = ControlNetModel.from_pretrained(exported / f"controlnet_{control}")
    stock = AnimateDiffControlNetPipeline.from_pretrained(
        exported, controlnet=controlnet, motion_adapter=None
    )
    stock.set_progress_bar_config(disable=True)
    frames = two_steps(stock)
    assert frames.shape == (2, 64, 96, 3)
    assert np.isfinite(frames).all()
    assert frames.std() > 0
    assert np.array_equal(two_steps(load_pipeline(str(exported), control)), frames)


def test_the_export_is_small_and_safe(exported):
    files = [p for p in exported.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 40 * 10**6
    assert max(p.stat().st_size for p in files) <= 16 * 2**20
    assert not [p for p in files if p.suffix in {".bin", ".pt", ".ckpt"}]
    assert read_facts(str(exported)).multiple == 32
    assert read_facts(str(exported)).default_area == 128 * 128


def test_a_model_that_is_nowhere_is_named():
    with pytest.raises(ModelError, match="nowhere/at/all") as caught:
        load_pipeline("nowhere/at/all", "pose")
    assert one_line(caught)


@pytest.mark.parametrize("part", ["model_index.json", "unet", "vae", "text_encoder", "scheduler"])
def test_a_missing_part_is_named(copied, part):
    (shutil.rmtree if (copied / part).is_dir() else type(copied).unlink)(copied / part)
    with pytest.raises(ModelError, match=f"lacks {part};") as caught:
        model_folder(str(copied))
    assert one_line(caught)


def test_an_unknown_control_names_the_nearest(exported):
    with pytest.raises(InputError, match='unknown control "deph": did you mean "depth"') as caught:
        load_pipeline(str(exported), "deph")
    assert one_line(caught)


def test_a_model_without_this_control_says_so(copied):
    shutil.rmtree(copied / "controlnet_depth")
    with pytest.raises(ModelError, match="has no controlnet_depth") as caught:
        load_pipeline(str(copied), "depth")
    assert one_line(caught)


@pytest.mark.parametrize("part", ["unet", "controlnet_pose", "vae", "text_encoder"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_weights_that_are_gone_or_cut_short_are_one_line(copied, part, damage):
    for file in (copied / part).glob("*.safetensors"):
        file.unlink() if damage == "gone" else file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load") as caught:
        load_pipeline(str(copied), "pose")
    assert one_line(caught)


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_configuration_that_cannot_be_read_is_one_line(copied, text):
    config = copied / "unet" / "config.json"
    config.unlink() if text is None else config.write_text(text)
    with pytest.raises(ModelError, match="unet") as caught:
        read_facts(str(copied))
    assert one_line(caught)


def one_line(caught):
    return "\n" not in str(caught.value)


def test_text_weights_under_other_names_are_an_error_and_not_random_ones(copied):
    """As an older transformers finds them that names its modules otherwise."""
    from safetensors.torch import load_file, save_file

    path = next((copied / "text_encoder").glob("*.safetensors"))
    weights = {f"encoder_of_old.{name}": tensor for name, tensor in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"does not fit the CLIPTextModel of transformers .* missing"
    ):
        load_pipeline(str(copied), "pose")
