"""Video to video: the stock pipelines' own result to the bit, cached from the first step that really runs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffVideoToVideoControlNetPipeline, AnimateDiffVideoToVideoPipeline
from PIL import Image

import hgc_video
from hgc_video.errors import InputError
from hgc_video.models.load import load_pipeline
from hgc_video.puppet.evaluation import held_out

PROMPT, FRAMES, SEED = "a dancer in a green shirt and white trousers on a beach", 2, 3


@pytest.fixture(scope="module")
def truth():
    """A clip to restyle, with its skeletons and depth, of 64x64 pixels."""
    whole = held_out(1, FRAMES).truth
    parts = {name: getattr(whole, name)[:, ::2, ::2] for name in ("frames", "pose", "depth")}
    return SimpleNamespace(**parts)


def run(video, **more):
    options = {
        "prompt": PROMPT, "video": video, "strength": 0.6, "num_inference_steps": 6, "seed": SEED,
        "height": 64, "width": 64,
        "preset": "off", "progress": False, "guidance_scale": 2.5,
    }  # fmt: skip
    return hgc_video.generate(**{**options, **more})


def stock(video, clips, **more):
    """The stock pipeline's frames, with a ControlNet for each of the clips, one or several or none."""
    loaded = load_pipeline("puppet", *clips)
    parts = {
        name: getattr(loaded, name)
        for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    }
    told = {}
    if clips:
        pipe = AnimateDiffVideoToVideoControlNetPipeline(
            **parts, motion_adapter=None, controlnet=loaded.controlnet
        )
        hints = [[Image.fromarray(frame) for frame in clip] for clip in clips.values()]
        one = len(hints) == 1
        told["conditioning_frames"] = hints[0] if one else hints
        told["controlnet_conditioning_scale"] = 1.0 if one else [1.0] * len(hints)
    else:
        pipe = AnimateDiffVideoToVideoPipeline(**parts, motion_adapter=None)
    pipe.set_progress_bar_config(disable=True)
    frames = pipe(
        [Image.fromarray(frame) for frame in video], PROMPT, height=64, width=64, output_type="np",
        generator=torch.Generator().manual_seed(SEED), guidance_scale=2.5,
        **{"num_inference_steps": 6, "strength": 0.6, **told, **more},
    ).frames[0]  # fmt: skip
    return np.round(frames * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("kinds", "more"),
    [
        (("pose", "depth"), {"control_guidance_start": 0.3, "control_guidance_end": 0.7}),
        ((), {}),
        (("pose",), {"strength": 1.0, "num_inference_steps": 2}),
    ],
)
def test_off_is_the_stock_pipeline_to_the_bit(truth, kinds, more):
    clips = {kind: getattr(truth, kind) for kind in kinds}
    control = {"control": clips} if clips else {}
    ours = run(truth.frames, **control, **more)
    assert np.array_equal(ours.frames, stock(truth.frames, clips, **more))
    steps = int(more.get("num_inference_steps", 6) * more.get("strength", 0.6))
    assert len(ours.report.steps) == steps
    assert ours.report.macs == ours.report.macs_baseline


def test_it_is_cached_from_the_first_step_that_it_runs(truth):
    given = {"control": {"pose": truth.pose}, "num_inference_steps": 8, "strength": 0.5}
    off, lossless, cached = (
        run(truth.frames, preset=preset, **given)
        for preset in ("off", "lossless", "hgc:interval=2,cut=1,gate=1+lossless")
    )
    assert np.abs(off.frames.astype(int) - lossless.frames).max() <= 1
    steps = cached.report.steps
    assert ["key" in row.label for row in steps] == [True, False, True, False]
    assert steps[0].macs == lossless.report.steps[0].macs
    assert cached.report.macs_saved > 0.3
    assert cached.report.macs_by_part["vae"] == off.report.macs_by_part["vae"] > 0


def test_strength_departs_from_the_clip(truth):
    near, far = (
        run(truth.frames, strength=strength, num_inference_steps=5) for strength in (0.2, 1.0)
    )
    distance = [np.abs(clip.frames.astype(int) - truth.frames).mean() for clip in (near, far)]
    assert distance[0] < 0.6 * distance[1]


def test_the_clip_decides_size_and_rate_and_the_schedulers_add_its_noise(truth):
    small = [Image.fromarray(frame).resize((96, 160)) for frame in truth.frames]
    own = {"height": None, "width": None}
    clip = run(small, source_fps=6, scheduler="euler", preset="balanced", **own)
    assert clip.frames.shape == (FRAMES, 160, 96, 3) and clip.fps == 6
    assert clip.control.shape == clip.frames.shape, "what it was made of"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"strength": 0.0}, "strength=0.0 is not possible; give more than 0"),
        ({"strength": 1.5}, "give at most 1"),
        ({"strength": 0.1}, "strength=0.1 of 6 steps leaves no step; give 0.167 or more"),
        ({"video": None}, "or a video to restyle"),
    ],
)
def test_what_is_not_possible(truth, options, says):
    with pytest.raises(InputError, match=says):
        run(**{"video": truth.frames, **options})
