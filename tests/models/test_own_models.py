"""The models that people have, in the formats that they have them in, under our loop and the cache."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffControlNetPipeline,
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    MotionAdapter,
    MultiControlNetModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

import hgc_video
from hgc_video.errors import InputError, ModelError, PromptError
from hgc_video.forecast import forecast
from hgc_video.measure.macs import MacCounter
from hgc_video.models.load import read_facts
from hgc_video.models.parts import ModelParts
from hgc_video.models.schedulers import scheduler_of
from hgc_video.models.single_file import clip_tokenizer, family_of
from hgc_video.options import SCHEDULERS
from hgc_video.sampling import make
from tests import original_files as files
from tests import tiny_pipelines as tiny
from tests.cache.test_adapters import ip_adapter_weights

PROMPT, STEPS, FRAMES, SIDE = "a dancer in a red shirt on a beach", 4, 2, 32
KINDS = ("pose", "depth")
# As Stable Diffusion has: the names in its files count on it.
DEEP, DEEP_ADAPTER = {"layers_per_block": 2}, {"motion_layers_per_block": 2}


class Files:
    """A folder of one model's files."""

    def __init__(self, folder):
        self.folder = folder
        self.base = tiny.make("sd")
        self.base.register_modules(unet=tiny.unet(**DEEP))
        self.nets = {kind: tiny.controlnet(4 + i, **DEEP) for i, kind in enumerate(KINDS)}
        self.adapter = tiny.adapter(**DEEP_ADAPTER)
        configs = {"motion_adapter": self.adapter, "controlnet": self.nets["pose"]}
        self.configs = files.configurations(folder / "configs", self.base, **configs)
        parts = (self.base.unet, self.base.vae, self.base.text_encoder)
        self.checkpoint = files.checkpoint(folder / "style.safetensors", *parts)
        self.motion = files.motion_adapter_file(folder / "mm.safetensors", self.adapter)
        self.controlnets = {
            kind: files.controlnet_file(folder / f"{kind}.safetensors", net)
            for kind, net in self.nets.items()
        }
        self.lora = files.kohya_lora(
            folder / "lora.safetensors", self.base.unet, self.base.text_encoder
        )
        stock = self.stock()
        self.motion_lora = files.motion_lora(folder / "zoom.safetensors", stock.unet)
        sight = tiny.svd().image_encoder
        weights = ip_adapter_weights(stock.unet, image_width=tiny.WIDTH)
        self.picture = files.ip_adapter_file(folder / "ip" / "ip.safetensors", weights, sight)

    def stock(self, kinds=KINDS, **parts):
        """The stock pipeline of the models that the files were made of."""
        nets = [self.nets[kind] for kind in kinds]
        pipe = AnimateDiffControlNetPipeline(**{
            **{n: p for n, p in self.base.components.items() if n in ("tokenizer", "vae")},
            "unet": tiny.unet(**DEEP), "text_encoder": tiny.text()[0],
            "motion_adapter": tiny.adapter(**DEEP_ADAPTER), "scheduler": tiny.scheduler(),
            "controlnet": nets[0] if len(nets) == 1 else MultiControlNetModel(nets), **parts,
        })  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        return pipe


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def clips():
    """A control clip for each kind."""
    generator = np.random.default_rng(0)
    return {
        kind: generator.integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8) for kind in KINDS
    }


PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def given(own, clips, kinds=KINDS, **more):
    """Options of a run of the user's files."""
    options = {
        "prompt": PROMPT, "control": {kind: clips[kind] for kind in kinds}, "base": own.checkpoint,
        "base_config": own.configs, "motion_adapter": own.motion, "seed": 3, "progress": False,
        "controlnet": {kind: own.controlnets[kind] for kind in kinds}, "offline": True,
        "num_inference_steps": STEPS, "preset": "off", "guidance_scale": 3.0, "force": True,
    }  # fmt: skip
    return {**options, **more}


def stock_frames(pipe, clips, kinds=KINDS, **more):
    hints = [[Image.fromarray(frame) for frame in clips[kind]] for kind in kinds]
    one = len(kinds) == 1
    options = {
        "prompt": PROMPT, "num_frames": FRAMES, "height": SIDE, "width": SIDE, "guidance_scale": 3.0,
        "num_inference_steps": STEPS, "conditioning_frames": hints[0] if one else hints,
        "controlnet_conditioning_scale": 1.0 if one else [1.0] * len(kinds), "output_type": "np",
        "generator": torch.Generator().manual_seed(3),
    }  # fmt: skip
    frames = pipe(**{**options, **more}).frames[0]
    return np.round(frames * 255).astype(np.uint8)


def counted(monkeypatch, **options):
    """A clip, its run and the MACs of every operator that ran while it was made."""
    runs = []

    class Watched(make.Run):
        def latents(self, *hooks):
            runs.append(self)
            with MacCounter() as counter:
                made = super().latents(*hooks)
            self.counted = counter.macs
            return made

    monkeypatch.setattr(make, "Run", Watched)
    clip = hgc_video.generate(**options)
    return clip, runs[0]


def assert_honest(clip, run):
    """Planned, executed and counted MACs are one number."""
    planned, report = run.planned.macs_by_part, clip.report
    assert {part: report.macs_by_part[part] for part in planned} == planned
    beside = sum(
        macs for part, macs in report.macs_by_part.items() if part not in (*planned, "vae")
    )
    assert run.counted == sum(planned.values()) + beside


def test_checkpoint_lora_ip_adapter_and_two_controlnets_in_one_call(own, clips, monkeypatch):
    everything = given(
        own, clips, lora={own.lora: 0.8, own.motion_lora: 0.5}, ip_adapter=PICTURE,
        ip_adapter_scale=0.6, ip_adapter_model=own.picture,
    )  # fmt: skip
    stock = own.stock()
    for name, file in (("a", own.lora), ("b", own.motion_lora)):
        stock.load_lora_weights(file.parent, weight_name=file.name, adapter_name=name)
    stock.set_adapters(["a", "b"], [0.8, 0.5])
    unfused = stock_frames(stock, clips)
    stock.fuse_lora()
    stock.unload_lora_weights()
    assert np.abs(stock_frames(stock, clips).astype(int) - unfused).max() <= 2
    stock.load_ip_adapter(
        str(own.picture.parent), subfolder="", weight_name=own.picture.name, local_files_only=True
    )
    stock.set_ip_adapter_scale(0.6)
    expected = stock_frames(stock, clips, ip_adapter_image=PICTURE)
    off, run = counted(monkeypatch, **everything)
    assert np.array_equal(off.frames, expected)
    assert not np.array_equal(off.frames, unfused)
    assert_honest(off, run)
    few = {"preset": "balanced", "num_inference_steps": 15}
    balanced, run = counted(monkeypatch, **{**everything, **few})
    assert_honest(balanced, run)
    assert 0.3 < balanced.report.macs_saved < 0.9
    assert balanced.report.macs_by_part["image_encoder"] > 0
    told = balanced.report.options
    assert told["lora"] == {str(own.lora): 0.8, str(own.motion_lora): 0.5}
    assert told["base"] == str(own.checkpoint)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_is_the_stock_pipelines_and_is_cached(own, clips, name, monkeypatch):
    scheduler = DDIMScheduler.from_pretrained(own.configs / "scheduler")  # what is told there alone
    stock = own.stock(("pose",), scheduler=scheduler_of(name, scheduler))
    options = given(own, clips, ("pose",), scheduler=name)
    off = hgc_video.generate(**options)
    assert np.array_equal(off.frames, stock_frames(stock, clips, ("pose",)))
    cached, run = counted(monkeypatch, **{**options, "preset": "hgc:interval=2,cut=1"})
    assert_honest(cached, run)
    assert cached.report.macs_saved > 0.2


def test_a_vae_of_its_own_and_clip_skip(own, clips, tmp_path):
    torch.manual_seed(9)
    other = AutoencoderKL.from_config(own.base.vae.config).eval()
    stock = own.stock(vae=other)
    tokens = stock.tokenizer(
        PROMPT,
        padding="max_length",
        max_length=stock.tokenizer.model_max_length,
        return_tensors="pt",
    )
    with torch.no_grad():
        layers = stock.text_encoder(tokens.input_ids, output_hidden_states=True).hidden_states
        embeds = stock.text_encoder.final_layer_norm(layers[-2])
    expected = stock_frames(stock, clips, prompt=None, prompt_embeds=embeds, negative_prompt="")
    file = files.written(tmp_path / "vae.safetensors", files.vae_weights(other))
    made = hgc_video.generate(**given(own, clips, vae=file, clip_skip=1))
    assert np.array_equal(made.frames, expected)
    plain = hgc_video.generate(**given(own, clips))
    assert not np.array_equal(made.frames, plain.frames)
    other.save_pretrained(tmp_path / "vae", variant="fp16")  # a folder with half precision alone
    of_folder = hgc_video.generate(**given(own, clips, vae=tmp_path / "vae", clip_skip=1))
    assert np.array_equal(of_folder.frames, expected)


def test_a_stock_folder_with_its_controlnets_is_a_model(own, clips, tmp_path):
    own.stock().save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "controlnet_1").is_dir()
    clip = {
        "control": clips,
        "prompt": PROMPT,
        "seed": 3,
        "progress": False,
        "preset": "off",
        "force": True,
    }
    with pytest.warns(
        hgc_video.errors.HGCVideoWarning, match=r"controlnet_1 does not say .* depth"
    ):
        made = hgc_video.generate(
            model=str(tmp_path / "model"), num_inference_steps=STEPS, guidance_scale=3.0, **clip
        )
    assert np.array_equal(made.frames, stock_frames(own.stock(), clips))


def test_a_folder_of_images_is_a_base(own, clips, tmp_path):
    own.base.save_pretrained(tmp_path / "base", variant="fp16")
    own.adapter.save_pretrained(tmp_path / "motion")
    own.nets["pose"].save_pretrained(tmp_path / "net", variant="fp16")
    made = hgc_video.generate(**given(
        own, clips, ("pose",), base=tmp_path / "base", base_config=None,
        motion_adapter=tmp_path / "motion", controlnet={"pose": tmp_path / "net"},
    ))  # fmt: skip
    assert np.array_equal(made.frames, stock_frames(own.stock(("pose",)), clips, ("pose",)))
    with pytest.raises(ModelError, match="makes no video by itself; name a motion adapter"):
        hgc_video.generate(**given(
            own, clips, base=tmp_path / "base", base_config=None, motion_adapter=None
        ))  # fmt: skip


LONG = "a dancer in a (red)1.4 shirt and blue trousers on a beach, " * 3


def test_weights_and_long_prompts_are_read_by_compel_and_costed(own, clips, monkeypatch):
    compel = pytest.importorskip("compel", reason="install hgc-video[prompts]")
    stock = own.stock()
    encode = compel.Compel(stock.tokenizer, stock.text_encoder, truncate_long_prompts=False)
    embeds = encode([LONG, ""])
    at_once = stock.tokenizer.model_max_length
    assert embeds.shape[1] > at_once and embeds.shape[1] % at_once == 0
    expected = stock_frames(
        stock, clips, prompt=None, prompt_embeds=embeds[:1], negative_prompt_embeds=embeds[1:]
    )
    options = given(own, clips, prompt=LONG, prompt_syntax="compel")
    made, run = counted(monkeypatch, **options)
    assert np.array_equal(made.frames, expected)
    assert run.adapter.num_tokens == embeds.shape[1]
    cached, run = counted(monkeypatch, **{**options, "preset": "lossless"})
    planned = run.planned.macs_by_part
    assert {part: cached.report.macs_by_part[part] for part in planned} == planned
    plain = hgc_video.generate(**given(own, clips))
    assert made.report.macs_by_part["unet"] > plain.report.macs_by_part["unet"]
    with pytest.raises(PromptError, match="or give prompt_syntax='compel'"):
        hgc_video.generate(**{**options, "prompt_syntax": "plain"})


class Large:
    """An XL of small random models, and its files."""

    def __init__(self, folder):
        text, words = tiny.text()
        torch.manual_seed(6)
        wide = 48
        config = CLIPTextConfig(**{
            **text.config.to_dict(), "hidden_size": wide, "projection_dim": wide, "hidden_act": "gelu"
        })  # fmt: skip
        second = CLIPTextModelWithProjection(config).eval()
        sizes = {
            "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "attention_head_dim": 2,
            "projection_class_embeddings_input_dim": wide + 6 * 8, "use_linear_projection": True,
            "transformer_layers_per_block": (1, 2), "cross_attention_dim": tiny.WIDTH + wide,
            "block_out_channels": (32, 64), "layers_per_block": 2, "norm_num_groups": 2, "in_channels": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        }  # fmt: skip
        torch.manual_seed(7)
        unet = UNet2DConditionModel(
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), sample_size=8, **sizes
        ).eval()
        torch.manual_seed(8)
        embedding = {"conditioning_embedding_out_channels": (8, 16, 16)}
        self.net = tiny.loud(ControlNetModel(**sizes, **embedding).eval())
        self.adapter = tiny.adapter(use_motion_mid_block=False, **DEEP_ADAPTER)
        self.base = StableDiffusionXLPipeline(
            vae=tiny.vae(), text_encoder=text, text_encoder_2=second, tokenizer=words, unet=unet,
            tokenizer_2=words, scheduler=tiny.scheduler(), add_watermarker=False,
        )  # fmt: skip
        self.configs = files.configurations(
            folder / "configs", self.base, motion_adapter=self.adapter, controlnet=self.net
        )
        self.checkpoint = files.checkpoint(
            folder / "xl.safetensors", unet, self.base.vae, text, second
        )
        self.motion = files.motion_adapter_file(folder / "mm.safetensors", self.adapter)
        self.controlnets = {"pose": folder / "net"}
        self.net.save_pretrained(folder / "net")


def test_a_checkpoint_of_xl_is_its_models_and_is_cached(clips, tmp_path, monkeypatch):
    own = Large(tmp_path)
    options = given(own, clips, ("pose",))
    off, run = counted(monkeypatch, **options)
    loaded = run.pipe
    for name in ("text_encoder", "text_encoder_2", "vae"):
        weights = getattr(loaded, name).state_dict()
        for key, weight in getattr(own.base, name).state_dict().items():
            assert torch.equal(weights[key], weight), f"{name}.{key}"
    of_images = loaded.unet.state_dict()
    for key, weight in own.base.unet.state_dict().items():
        assert torch.equal(of_images[key], weight), key
    assert_honest(off, run)
    cached, run = counted(monkeypatch, **{**options, "preset": "hgc:interval=2,cut=1"})
    assert_honest(cached, run)
    assert cached.report.macs_saved > 0.2


def test_the_facts_of_a_base_are_those_of_its_configurations(own):
    parts = ModelParts(
        base=str(own.checkpoint), base_config=str(own.configs), motion_adapter=str(own.motion)
    )
    facts = read_facts(str(own.checkpoint), parts)
    assert (facts.max_frames, facts.multiple, facts.default_area) == (8, 8, SIDE * SIDE)
    shorter = read_facts("animatediff", ModelParts(motion_adapter=str(own.motion)))
    assert (shorter.max_frames, shorter.default_area) == (8, 512 * 512)
    assert family_of(own.checkpoint) == "sd15"


def test_a_plan_answers_for_them_without_weights(own, clips, monkeypatch):
    files_ = {
        "base": str(own.checkpoint), "base_config": str(own.configs), "motion_adapter": str(own.motion)
    }  # fmt: skip
    told = forecast(
        **files_, ip_adapter_model=str(own.picture), num_frames=FRAMES, preset="balanced",
        num_inference_steps=STEPS, height=SIDE, width=SIDE, num_controlnets=2,
    )  # fmt: skip
    everything = given(
        own, clips, preset="balanced", ip_adapter=PICTURE, ip_adapter_model=own.picture
    )
    made = hgc_video.generate(**everything).report
    assert told.macs_by_part == {part: made.macs_by_part[part] for part in told.macs_by_part}
    plain = forecast(model="animatediff-sd15", preset="off", num_inference_steps=2)
    pictured = forecast(
        model="animatediff-sd15", preset="off", num_inference_steps=2, ip_adapter=True
    )
    long = forecast(model="animatediff-sd15", preset="off", num_inference_steps=2, prompt_parts=2)
    unets = [plan.macs_by_part["unet"] for plan in (plain, pictured, long)]
    assert unets[0] < unets[1] < unets[2] < 1.05 * unets[0]
    half = forecast(model="animatediff-sd15", num_inference_steps=4, preset="off", strength=0.5)
    assert half.macs_by_part == plain.macs_by_part


def test_clips_tokenizer_is_openais():
    words = clip_tokenizer("tokenizer")
    assert words("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert words("Café, 2 dancers!").input_ids[-1] == len(words) - 1 == 49407
    padded = words("a", padding="max_length").input_ids
    assert len(padded) == 77 and padded[-1] == 49407
    assert clip_tokenizer("tokenizer_2")("a", padding="max_length").input_ids[-1] == 0


def test_the_shipped_configurations_are_those_of_stable_diffusion():
    """Their sizes are the published ones: 859.5 M and 2,567.5 M parameters of the UNet, without weights."""
    from hgc_video.models.single_file import shipped_configs

    for family, millions in (("sd15", 859.5), ("sdxl", 2567.5)):
        config = json.loads((shipped_configs(family) / "unet" / "config.json").read_text())
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(config)
            adapter = MotionAdapter.from_config(
                json.loads((shipped_configs(family) / "motion_adapter" / "config.json").read_text())
            )
        assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
        blocks = adapter.config["block_out_channels"]
        assert list(blocks) == list(unet.config.block_out_channels)


def test_what_cannot_be_used_is_one_line_before_anything_is_loaded(own, clips, tmp_path):
    pickled = tmp_path / "style.ckpt"
    pickled.write_bytes(b"PK")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(own.checkpoint.read_bytes()[:5000])
    other = files.written(tmp_path / "other.safetensors", {"a": torch.zeros(2)})
    wrong = {
        "can run code": {"base": pickled}, "cannot read": {"base": cut},
        "neither Stable Diffusion 1.5 nor XL": {"base": other, "base_config": None},
        "neither a file nor a folder": {"base": "nowhere.safetensors"},
        "is no motion adapter": {"motion_adapter": other},
        "not on this machine and it was asked to stay offline": {"vae": "somebody/some-vae"},
    }  # fmt: skip
    for says, options in wrong.items():
        with pytest.raises(ModelError, match=says) as told:
            hgc_video.generate(**given(own, clips, **options))
        assert "\n" not in str(told.value)
    refused = {
        'controlnet names "canny", which no clip is given for': {"controlnet": {"canny": "a"}},
        "base_config is for a base in one file": {"base": None},
        "ip_adapter_model is given without a picture": {"ip_adapter_model": "a"},
        'unknown scheduler "dppm": did you mean "dpm..".': {"scheduler": "dppm"},
        "the scale 'x' of a is not possible": {"lora": {"a": "x"}},
        "no IP-Adapter is known for this base": {"ip_adapter": PICTURE},
    }  # fmt: skip
    for says, options in refused.items():
        with pytest.raises(InputError, match=says):
            hgc_video.generate(**given(own, clips, **options))


def test_a_lora_of_another_model_is_refused(own, clips, tmp_path):
    file = files.written(
        tmp_path / "odd.safetensors",
        {"unet.nothing.lora_A.weight": torch.zeros(2, 3), "unet.nothing.lora_B.weight": torch.zeros(3, 2)},
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ModelError):
            hgc_video.generate(**given(own, clips, lora=file))


def test_an_image_encoder_that_is_missing_is_named(own, clips, tmp_path):
    shutil.copy(own.picture, tmp_path / "ip.safetensors")
    with pytest.raises(ModelError, match="needs its image encoder beside it"):
        hgc_video.generate(**given(
            own, clips, ip_adapter=PICTURE, ip_adapter_model=tmp_path / "ip.safetensors"
        ))  # fmt: skip
    assert CLIPVisionModelWithProjection.from_pretrained(own.picture.parent / "image_encoder")
