"""Several controls at once, on the embedded model's own two."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import hgc_video
from hgc_video.errors import InputError
from hgc_video.models.load import default_guidance_scale, load_pipeline
from hgc_video.puppet.evaluation import held_out

PROMPT = "a dancer in a red shirt and blue trousers on a beach"
STEPS = 3


@pytest.fixture(scope="module")
def clips():
    truth = held_out(9000, 3).truth
    return {"pose": truth.pose[:, ::2, ::2], "depth": truth.depth[:, ::2, ::2]}


def generate(clips, **options):
    options = {
        "num_inference_steps": STEPS,
        "height": 64,
        "width": 64,
        "progress": False,
        "preset": "off",
        **options,
    }
    return hgc_video.generate(prompt=PROMPT, control=clips, **options)


@pytest.mark.slow
def test_two_controls_are_what_the_stock_pipeline_makes_of_them(clips):
    ours = generate(clips, conditioning_scale={"pose": 0.7, "depth": 0.4})
    pipe = load_pipeline("puppet", "pose", "depth")
    stock = pipe(
        PROMPT, num_inference_steps=STEPS, num_frames=3, height=64, width=64, output_type="np",
        guidance_scale=default_guidance_scale("puppet"), generator=torch.Generator().manual_seed(0),
        conditioning_frames=[[Image.fromarray(f) for f in clip] for clip in clips.values()],
        controlnet_conditioning_scale=[0.7, 0.4],
    ).frames[0]  # fmt: skip
    assert np.array_equal(ours.frames, np.round(stock * 255).astype(np.uint8))
    cached = generate(clips, preset="lossless")
    exact = generate(clips)
    assert np.abs(cached.frames.astype(int) - exact.frames).max() <= 1
    assert cached.report.macs < exact.report.macs


@pytest.mark.slow
def test_a_control_at_scale_zero_is_left_out_and_costs_nothing(clips):
    both = generate(clips, preset="lossless", conditioning_scale={"depth": 0.0})
    alone = generate({"pose": clips["pose"]}, preset="lossless")
    assert np.abs(both.frames.astype(int) - alone.frames).max() <= 1
    assert both.report.macs_by_part["controlnet"] == alone.report.macs_by_part["controlnet"]


def test_a_second_control_that_is_too_short_is_named(clips):
    short = {"pose": clips["pose"], "depth": clips["depth"][:2]}
    with pytest.raises(
        InputError,
        match=r"^the depth clip, .*, beside the pose clip of 3 frames at 8 fps \(0.4 s\): .*2 frames",
    ) as caught:
        generate(short)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"control": {}}, "no control clip"),
        ({"control": {"pose": 1, "smell": 2}}, 'unknown control "smell"'),
        ({"control_video": "a.mp4", "control": {"pose": "a.mp4"}}, "leave control_video out"),
        ({"control": {"pose": 1}, "conditioning_scale": {"depth": 1}}, 'names "depth"'),
        ({"control": {"pose": 1}, "conditioning_scale": -1}, "conditioning_scale=-1"),
        ({}, "no control clip is given"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(options, says):
    with pytest.raises(InputError, match=says):
        hgc_video.generate(prompt=PROMPT, **options)


def test_clips_of_different_lengths_are_refused(clips):
    with pytest.raises(InputError, match="beyond the clip, which has 2 frames"):
        generate({"pose": clips["pose"], "depth": clips["depth"][:2]})


@pytest.fixture(scope="module")
def sdxl_folder(tmp_path_factory):
    """AnimateDiff SDXL beside a ControlNet of SDXL, small and random."""
    from diffusers import AnimateDiffSDXLPipeline

    from tests import tiny_pipelines as tiny

    folder = tmp_path_factory.mktemp("sdxl")
    adapter = tiny.adapter(use_motion_mid_block=False)
    tiny.sdxl(AnimateDiffSDXLPipeline, motion_adapter=adapter).save_pretrained(folder)
    tiny.xl_controlnet().save_pretrained(folder / "controlnet_pose")
    return folder


@pytest.mark.slow
def test_animatediff_sdxl_takes_a_controlnet_in_our_loop(sdxl_folder, clips):
    options = {
        "model": str(sdxl_folder), "num_inference_steps": 4, "height": 64, "width": 64, "guidance_scale": 4.0,
    }  # fmt: skip
    pose = {"pose": clips["pose"]}
    off = generate(pose, **options)
    without = generate(pose, conditioning_scale=0.0, **options)
    assert off.frames.shape == (3, 64, 64, 3)
    assert np.abs(off.frames.astype(int) - without.frames).max() > 2, "the control pulls"
    full = generate(pose, preset="full", **options)
    assert np.array_equal(full.frames, off.frames)
    exact = generate(pose, preset="lossless", **options)
    assert np.abs(exact.frames.astype(int) - off.frames).max() <= 1
    cached = generate(pose, preset="hgc:interval=2,cut=1", memory="2GiB", **options)
    assert cached.report.macs_saved > 0.25
    assert 0 < cached.report.predicted_peak_nbytes < 2**31


@pytest.mark.slow
def test_without_control_our_sdxl_loop_is_the_stock_one(sdxl_folder, clips):
    ours = generate(
        {"pose": clips["pose"]}, model=str(sdxl_folder), height=64, width=64, guidance_scale=4.0,
        conditioning_scale=0.0, preset="lossless",
    )  # fmt: skip
    pipe = load_pipeline(str(sdxl_folder), "pose")
    stock = pipe(
        PROMPT, num_inference_steps=STEPS, num_frames=3, height=64, width=64, guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0), output_type="np",
    ).frames[0]  # fmt: skip
    assert np.abs(ours.frames.astype(int) - np.round(stock * 255)).max() <= 1
