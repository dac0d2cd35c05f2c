"""Loading: what training exports is what stock diffusers loads, and what is wrong is said in a line."""

from __future__ import annotations

import gc
import importlib
import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffControlNetPipeline,
    AutoencoderKL,
    ControlNetModel,
    UNetMotionModel,
)
from PIL import Image
from transformers import CLIPTextModel

from hgc_video.errors import HGCVideoError, HGCVideoWarning, InputError, ModelError
from hgc_video.forecast import forecast
from hgc_video.models.building import importing
from hgc_video.models.load import load_pipeline, local_model, model_folder, read_facts
from hgc_video.models.parts import locate
from hgc_video.puppet.judge import Judge
from hgc_video.puppet.training.denoiser import Denoiser, make_controlnet, make_unet
from hgc_video.puppet.training.run import Trained
from hgc_video.puppet.training.text import make_text_encoder, make_tokenizer
from hgc_video.puppet.training.vae import make_vae
from tests import tiny_pipelines as tiny


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model of random weights, in the layout and the precision that is shipped."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    controlnets = {"pose": make_controlnet(), "depth": make_controlnet()}
    encoder = make_text_encoder(len(tokenizer))
    folder = tmp_path_factory.mktemp("model")
    denoiser = Denoiser(make_unet(), controlnets, tokenizer, encoder)
    Trained(denoiser, make_vae(), Judge(), torch.rand(1, 3, 32, 32)).export(folder)
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


def as_variant(part, shard="10GB"):
    """The part as save_pretrained(variant="fp16") writes it, and no plain weights."""
    kinds = {"unet": UNetMotionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    model = kinds.get(part.name, ControlNetModel).from_pretrained(part)
    shutil.rmtree(part)
    model.save_pretrained(part, variant="fp16", max_shard_size=shard)
    assert not [p for p in part.glob("*.safetensors") if ".fp16" not in p.name]


@pytest.mark.parametrize(
    ("parts", "shard"),
    [(["unet"], "5MB"), (["unet", "vae", "text_encoder", "controlnet_pose"], "10GB")],
)
def test_weights_in_half_precision_alone_are_loaded(copied, exported, parts, shard):
    for part in parts:
        as_variant(copied / part, shard)
    (
        copied / "unet" / "README"
    ).touch()  # a name without a dot, which diffusers' own search trips over
    assert np.array_equal(
        two_steps(load_pipeline(str(copied), "pose")),
        two_steps(load_pipeline(str(exported), "pose")),
    )


def test_weights_that_are_not_safe_to_load_are_named(copied):
    for path in (copied / "vae").glob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))
    with pytest.raises(
        ModelError, match=r"vae: it holds no safetensors but diffusion_pyt.*\.bin"
    ) as caught:
        load_pipeline(str(copied), "pose")
    assert one_line(caught)


def test_a_controlnet_under_the_name_that_diffusers_gives_it_is_taken_and_told(copied, exported):
    (copied / "controlnet_pose").rename(copied / "controlnet")
    with pytest.warns(
        HGCVideoWarning, match="does not say what it was trained on; it is taken for pose"
    ):
        pipe = load_pipeline(str(copied), "pose")
    named = load_pipeline(str(exported), "pose").controlnet.state_dict()
    assert all(torch.equal(named[k], w) for k, w in pipe.controlnet.state_dict().items())
    with pytest.warns(HGCVideoWarning, match="taken for pose"):
        assert forecast(model=str(copied)).macs_by_part["controlnet"] > 0
    shutil.rmtree(copied / "controlnet_depth")
    with pytest.raises(
        ModelError, match="has no controlnet_depth but controlnet; save a Con"
    ) as told:
        load_pipeline(str(copied), "pose", "depth")
    assert one_line(told)


def test_a_folder_of_an_image_pipeline_says_what_it_is(tmp_path):
    pipe = tiny.sd_controlnet()
    pipe.save_pretrained(tmp_path / "model")
    pipe.controlnet.save_pretrained(tmp_path / "model" / "controlnet_pose")
    with pytest.raises(
        ModelError, match=r"StableDiffusionControlNetPipeline with a UNet2DConditionModel.*no video"
    ) as caught:
        load_pipeline(str(tmp_path / "model"), "pose")
    assert one_line(caught)


def test_a_repository_with_half_precision_alone_is_fetched_so(copied, tmp_path, monkeypatch):
    as_variant(copied / "unet")
    asked = []

    def download(repo, *, revision, ignore_patterns, **told):
        asked.append((repo, revision))
        ignored = shutil.ignore_patterns(
            *(p.rpartition("/")[2] for p in ignore_patterns if p[0] == "*")
        )
        return str(shutil.copytree(copied, tmp_path / f"fetched{len(asked)}", ignore=ignored))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert local_model("owner/name", offline=True) == str(tmp_path / "fetched2")
    assert list((tmp_path / "fetched2" / "unet").glob("*.fp16.safetensors"))
    assert local_model("owner/name@0123abc", offline=True) == str(tmp_path / "fetched4")
    assert asked == [("owner/name", "main")] * 2 + [("owner/name", "0123abc")] * 2
    assert locate("owner/name@v2/unet", offline=True) == tmp_path / "fetched6" / "unet"
    assert asked[4:] == [("owner/name", "v2")] * 2


@pytest.mark.parametrize(
    ("file", "odd"),
    [
        ("scheduler/scheduler_config.json", {"num_train_timesteps": None}),
        ("tokenizer/tokenizer_config.json", [1]),
        ("unet/config.json", {"block_out_channels": 7}),
    ],
)
def test_what_the_hosts_raise_of_a_damaged_configuration_is_one_line(tmp_path, file, odd):
    """diffusers and transformers raise what they stumble over."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder("puppet"), folder, copy_function=os.symlink)
    whole = json.loads((folder / file).read_text())
    (folder / file).unlink()
    (folder / file).write_text(json.dumps({**whole, **odd} if isinstance(odd, dict) else odd))
    with pytest.raises(HGCVideoError) as told:
        load_pipeline(str(folder), "pose")
    assert "\n" not in str(told.value)


def test_loading_again_keeps_nothing():
    """By mapped files, safetensors kept 3,300 numbers with every loading."""

    def blocks():
        load_pipeline("puppet", "pose", "depth")
        gc.collect()
        return sys.getallocatedblocks()

    first, _, third, _, last = (blocks() for _ in range(5))
    assert last - third < 1000, f"{first} objects became {last}"


def test_what_is_imported_is_old_at_once_and_what_is_frozen_stays_so(tmp_path, monkeypatch):
    (tmp_path / "a_module_of_this_test.py").write_text("made = [[] for _ in range(100)]")
    monkeypatch.syspath_prepend(tmp_path)
    frozen = gc.get_freeze_count()
    assert frozen > 0, "tests/conftest.py freezes what it imported"
    with importing():
        pass
    assert gc.get_freeze_count() == frozen
    gc.unfreeze()
    try:
        with importing():
            made = importlib.import_module("a_module_of_this_test").made
        assert gc.get_freeze_count() == 0
        old = {id(one) for one in gc.get_objects(generation=2)}
        assert all(id(one) in old for one in made)
        with importing():
            own = [importlib.import_module("a_module_of_this_test")]
        old = {id(one) for one in gc.get_objects(generation=2)}
        assert id(own) not in old, "nothing was new"
    finally:
        sys.modules.pop("a_module_of_this_test")
        gc.freeze()


def test_garbage_waits_while_a_model_is_loaded_and_no_longer(exported):
    def collections():
        return sum(generation["collections"] for generation in gc.get_stats())

    before = collections()
    load_pipeline(str(exported), "pose")
    assert collections() - before <= 1  # dozens, if it did not wait
    assert gc.isenabled()
    with pytest.raises(ModelError):
        load_pipeline("no model", "pose")
    assert gc.isenabled()
    gc.disable()
    try:
        load_pipeline(str(exported), "pose")
        assert not gc.isenabled(), "as it was"
    finally:
        gc.enable()
