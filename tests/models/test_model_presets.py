"""Models by name: their files, and the real loading on local folders in the repositories' layout."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import yaml

import hgc_video
from hgc_video.errors import InputError, ModelError
from hgc_video.models import load
from hgc_video.models.hub import Part, fetch
from hgc_video.models.load import load_pipeline, read_facts
from hgc_video.models.model_presets import load_preset, model_preset, model_presets
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
    assert set(model_presets()) == {"animatediff", "animatediff-lightning", "animatelcm"}
    for name in model_presets():
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
    monkeypatch.setattr("hgc_video.models.model_presets.shipped", lambda kind: tmp_path)
    clip = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    made = hgc_video.generate(
        prompt="a dancer", control={"pose": clip, "depth": clip[::-1]}, model="tiny",
        preset="hgc:interval=2,cut=1", num_inference_steps=5, height=64, width=64,
        offline=True, progress=False,
        conditioning_scale={"depth": 0.5},
    )  # fmt: skip
    assert made.frames.shape == (4, 64, 64, 3)
    assert made.report.conditioning_scale == {"pose": 1.0, "depth": 0.5}
    assert made.report.guidance_scale == 7.5
    assert 0.1 < made.report.macs_saved < 0.9


@pytest.mark.parametrize("model", ["animatediff", "animatelcm", "somebody/some-model"])
def test_without_the_files_or_the_hub_one_line_says_so(model, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ModelError, match="not on this machine and it was asked to stay offline"
    ) as told:
        load_pipeline(model, "pose", offline=True)
    assert "\n" not in str(told.value)


def test_generate_asks_the_hub_for_a_repository_too(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="not on this machine and it was asked to stay offline"):
        hgc_video.generate("clip.mp4", "a dancer", model="somebody/some-model", offline=True)


def test_a_part_may_be_one_file_of_a_folder(tmp_path):
    (tmp_path / "a.safetensors").touch()
    assert fetch(Part(str(tmp_path), file="a.safetensors")) == tmp_path / "a.safetensors"
    with pytest.raises(ModelError, match=r"has no b\.safetensors"):
        fetch(Part(str(tmp_path), file="b.safetensors"))


def test_the_presets_names_are_told_where_a_model_is_unknown():
    with pytest.raises(ModelError, match="animatediff-lightning"):
        load.model_folder("nowhere")
