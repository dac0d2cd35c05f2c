"""Models by name: their files, and the real loading on local folders in the repositories' layout."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import yaml

import hgc_video
from hgc_video.errors import InputError, ModelError
from hgc_video.models import load
from hgc_video.models.assemble import load_preset
from hgc_video.models.catalog import model_preset, model_presets
from hgc_video.models.hub import Part, fetch
from hgc_video.models.load import load_pipeline, read_facts
from tests import tiny_pipelines as tiny


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """Local folders laid out as the hub's: a base, an adapter, ControlNets."""
    folder = tmp_path_factory.mktemp("hub")
    tiny.make("sd").save_pretrained(folder / "base")
    tiny.adapter().save_pretrained(folder / "adapter")
    for seed, kind in enumerate(("pose", "depth")):
        tiny.controlnet(4 + seed).save_pretrained(folder / kind)
    return folder


@pytest.fixture
def local(repositories):
    """The animatediff preset made of them."""
    parts = {kind: Part(str(repositories / kind)) for kind in ("pose", "depth")}
    return dataclasses.replace(
        model_preset("animatediff"), name="tiny", base=Part(str(repositories / "base")),
        motion_adapter=Part(str(repositories / "adapter")), controlnets=parts,
    )  # fmt: skip


def test_every_preset_names_its_parts_and_defaults():
    assert set(model_presets()) == {"animatediff", "animatediff-lightning", "animatelcm", "svd"}
    for name in set(model_presets()) - {"svd"}:
        told = model_preset(name)
        assert set(told.controlnets) == {"pose", "depth", "canny", "softedge", "lineart"}
        assert all(part.repo.count("/") == 1 for part in told.controlnets.values())
        facts = read_facts(name)
        assert facts.num_inference_steps == told.num_inference_steps
        assert facts.default_area == 512 * 512
    lightning = model_preset("animatediff-lightning")
    assert lightning.motion_adapter.file.endswith(".safetensors")
    assert (lightning.num_inference_steps, lightning.guidance_scale) == (4, 1.0)
    assert model_preset("animatelcm").lora.file.endswith(".safetensors")
    svd, facts = model_preset("svd"), read_facts("svd")
    assert set(svd.controlnets) == {"depth", "lineart"} and len(svd.base.revision) == 40
    assert facts.from_image and (facts.max_frames, facts.default_area) == (25, 576 * 1024)


def test_a_preset_loads_one_control_or_several_with_its_scheduler(local):
    options = {"device": "cpu", "dtype": None, "offline": True}
    one = load_preset(local, ("pose",), **options)
    assert type(one).__name__ == "AnimateDiffControlNetPipeline"
    assert one.scheduler.config.timestep_spacing == "linspace"
    both = load_preset(local, ("pose", "depth"), **options)
    assert len(both.controlnet.nets) == 2
    with pytest.raises(InputError, match='no control "canny"'):
        load_preset(local, ("canny",), **options)


@pytest.mark.slow
def test_generate_runs_a_preset_with_two_controls(local, monkeypatch, tmp_path):
    told = dataclasses.asdict(local)
    (tmp_path / "tiny.yaml").write_text(
        yaml.safe_dump({k: v for k, v in told.items() if k not in ("name", "lora", "lora_scale")})
    )
    monkeypatch.setattr("hgc_video.models.catalog.package_data", lambda kind: tmp_path)
    clip = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    made = hgc_video.generate(
        prompt="a dancer", control={"pose": clip, "depth": clip[::-1]}, model="tiny",
        preset="hgc:interval=2,cut=1", num_inference_steps=5, height=64, width=64,
        offline=True, progress=False, force=True,
        conditioning_scale={"depth": 0.5},
    )  # fmt: skip
    assert made.frames.shape == (4, 64, 64, 3)
    assert made.report.conditioning_scale == {"pose": 1.0, "depth": 0.5}
    assert made.report.guidance_scale == 7.5
    assert 0.1 < made.report.macs_saved < 0.9


@pytest.mark.parametrize("model", ["animatediff", "animatelcm", "svd", "somebody/some-model"])
def test_without_the_files_or_the_hub_one_line_says_so(model, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ModelError, match="not on this machine and it was asked to stay offline"
    ) as told:
        load_pipeline(model, "depth", offline=True)
    assert "\n" not in str(told.value)


def test_generate_asks_the_hub_for_a_repository_too(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="not on this machine and it was asked to stay offline"):
        hgc_video.generate("clip.mp4", "a dancer", model="somebody/some-model", offline=True)


@pytest.fixture
def local_svd(tmp_path):
    """The svd preset made of folders laid out as its repositories: the ControlNet lies in a folder of its
    own, and its configuration names the community's class."""
    import json

    tiny.svd().save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "svd_xt.safetensors").write_bytes(
        b"the weights once more, which nobody reads"
    )
    tiny.svd_controlnet().save_pretrained(tmp_path / "depth" / "controlnet")
    config = tmp_path / "depth" / "controlnet" / "config.json"
    told = json.loads(config.read_text()) | {"_class_name": "ControlNetSDVModel"}
    config.write_text(json.dumps(told))
    preset = model_preset("svd")
    return dataclasses.replace(
        preset, name="tiny", base=dataclasses.replace(preset.base, repo=str(tmp_path / "base")),
        controlnets={"depth": dataclasses.replace(preset.controlnets["depth"], repo=str(tmp_path / "depth"))},
    )  # fmt: skip


def test_the_svd_preset_loads_a_pipeline_with_a_controlnet_beside_it(local_svd):
    options = {"device": "cpu", "dtype": None, "offline": True}
    pipe = load_preset(local_svd, ("depth",), **options)
    assert type(pipe).__name__ == "StableVideoDiffusionPipeline"
    assert type(pipe.controlnet).__name__ == "SpatioTemporalControlNetModel"
    assert pipe.scheduler.config.prediction_type == "v_prediction" and not pipe.controlnet.training
    with pytest.raises(InputError, match='no control "pose"'):
        load_preset(local_svd, ("pose",), **options)


def test_only_what_a_part_names_is_fetched(monkeypatch):
    from fnmatch import fnmatch

    def fetched(part, files):
        asked = {}
        monkeypatch.setattr(
            "huggingface_hub.snapshot_download", lambda repo, **told: asked.update(told) or "/"
        )
        with contextlib.suppress(ModelError):
            fetch(part)
        return [
            f for f in files
            if any(fnmatch(f, p) for p in asked["allow_patterns"])
            and not any(fnmatch(f, p) for p in asked["ignore_patterns"])
        ]  # fmt: skip

    svd = model_preset("svd")
    files = [
        "model_index.json", "svd_xt.safetensors", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
        "feature_extractor/preprocessor_config.json",
        "other/config.json.md",
    ]  # fmt: skip
    assert fetched(svd.base, files) == [files[0], files[2], files[3], files[5]]
    files = ["controlnet/config.json", "controlnet/model.safetensors", "unet/model.safetensors"]
    assert fetched(svd.controlnets["depth"], files) == files[:2]
    files = ["unet/model.safetensors", "safety_checker/model.safetensors", "a.bin"]
    assert fetched(model_preset("animatediff").base, files) == files[:1]


def test_a_part_may_be_one_file_of_a_folder(tmp_path):
    (tmp_path / "a.safetensors").touch()
    assert fetch(Part(str(tmp_path), file="a.safetensors")) == tmp_path / "a.safetensors"
    with pytest.raises(ModelError, match=r"has no b\.safetensors"):
        fetch(Part(str(tmp_path), file="b.safetensors"))


def test_the_presets_names_are_told_where_a_model_is_unknown():
    with pytest.raises(ModelError, match="animatediff-lightning"):
        load.model_folder("nowhere")
