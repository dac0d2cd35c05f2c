"""generate() end to end on the embedded model, short and small."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import hgc_video
from hgc_video.errors import (
    Cancelled,
    InputError,
    ModelError,
    NumericalError,
    PresetError,
    PromptError,
)
from hgc_video.models.device import choose_device, choose_dtype
from hgc_video.models.load import default_guidance_scale, load_pipeline
from hgc_video.puppet.evaluation import held_out
from hgc_video.puppet.judge import load_judge
from tests.puppet_latents import CHANNELS

PROMPT = "a dancer in a red shirt and blue trousers on a beach"


@pytest.fixture(scope="module")
def pose():
    """Four skeleton frames (4 128 128 3) of a held-out motion."""
    return held_out(0, 4).truth.pose


def run(pose, **options):
    options = {
        "num_inference_steps": 4,
        "height": 64,
        "width": 64,
        "progress": False,
        "seed": 3,
        **options,
    }
    return hgc_video.generate(pose, PROMPT, **options)


@pytest.mark.parametrize("control", ["pose", "depth"])
@pytest.mark.parametrize("guidance_scale", [None, 1.0])
def test_off_is_bit_identical_to_the_stock_pipeline(control, guidance_scale):
    frames = getattr(held_out(1, 3).truth, control)[:, ::2, ::2]  # of the size that is made
    ours = run(
        frames, control=control, preset="off", guidance_scale=guidance_scale, negative_prompt="hat"
    )
    stock = load_pipeline("puppet", control)(
        prompt=PROMPT,
        negative_prompt="hat",
        num_frames=3,
        height=64,
        width=64,
        num_inference_steps=4,
        guidance_scale=guidance_scale or default_guidance_scale("puppet"),
        conditioning_frames=[Image.fromarray(f) for f in frames],
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).frames[0]
    assert np.array_equal(ours.frames, np.round(stock * 255).astype(np.uint8))


def test_lossless_is_within_rounding_and_cheaper(pose):
    off, lossless = run(pose, preset="off"), run(pose, preset="lossless")
    assert np.abs(off.frames.astype(int) - lossless.frames).max() <= 1
    assert lossless.report.macs < off.report.macs == off.report.macs_baseline


def test_balanced_saves_and_says_so(pose):
    clip = run(pose[:2], preset="balanced", num_inference_steps=25)
    report = clip.report
    assert clip.frames.shape == (2, 64, 64, 3)
    assert report.macs_saved >= 0.4
    assert len(report.steps) == 25
    assert report.cache_nbytes > 0
    assert {"unet", "controlnet", "vae", "text_encoder"} <= set(report.macs_by_part)


def test_the_same_seed_gives_the_same_clip_and_another_one_does_not(pose):
    first, again, other = (run(pose, seed=seed, num_inference_steps=2) for seed in (3, 3, 4))
    assert np.array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames, other.frames)


def test_another_control_gives_the_clip_of_that_control(pose):
    """The dancer stands where the skeleton is, and with its mirror image there; in a few steps already."""
    truth, judge = held_out(0, 4).truth.silhouette, load_judge()
    there, mirrored = (
        judge.silhouette(run(frames, num_inference_steps=5, height=128, width=128).frames)
        for frames in (pose, pose[:, :, ::-1].copy())
    )
    for found, wanted, other in (
        (there, truth, truth[:, :, ::-1]), (mirrored, truth[:, :, ::-1], truth),
    ):  # fmt: skip
        assert (found & wanted).sum() / (found | wanted).sum() > 0.5
        assert (found & wanted).sum() > 1.2 * (found & other).sum()


def test_control_at_scale_zero_does_not_run(pose):
    report = run(pose, conditioning_scale=0.0, preset="lossless").report
    assert report.macs_by_part["controlnet"] == 0 < report.macs_baseline_by_part["controlnet"]


def test_the_callback_sees_every_step_and_can_stop(pose):
    seen = []
    run(pose, callback=lambda i, n, latents: seen.append((i, n, tuple(latents.shape))))
    assert seen == [(i, 4, (1, CHANNELS, 4, 8, 8)) for i in range(4)]
    with pytest.raises(Cancelled, match="step 2 of 4"):
        run(pose, callback=lambda i, n, latents: i < 1)


def test_latents_that_are_no_numbers_stop_the_run_and_are_not_kept(pose, tmp_path):
    """A callback that spoils one value: the step after it is named, and what is kept is from before."""

    def spoil(step, steps, latents):
        if step == 1:
            latents.view(-1)[7] = torch.nan

    kept = {"work": tmp_path / "work", "checkpoint_every_s": 1e-9}
    says = r"NaN after step 3 of 4 \(deepcache:interval=2.*, float32\); try preset \"off\""
    with pytest.raises(NumericalError, match=says) as error:
        run(pose, preset="deepcache:interval=2", callback=spoil, **kept)
    assert "\n" not in str(error.value)
    assert max(p.name for p in (tmp_path / "work").glob("checkpoint-*")) == "checkpoint-000002"


def test_sizes_and_images(pose):
    images = [Image.fromarray(f).resize((96, 160)) for f in pose]
    clip = run(images, height=None, width=None)
    assert clip.frames.shape == (4, 160, 96, 3)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"preset": "balnced"}, PresetError, "balanced"),
        ({"num_inference_steps": 0}, InputError, "num_inference_steps=0"),
        ({"num_frames": 9}, InputError, "9"),
        ({"num_frames": 500}, InputError, "500"),
        ({"control": "pse"}, InputError, "pose"),
        ({"model": "no/such/model"}, ModelError, "no/such/model"),
        ({"guidance_scale": -1.0}, InputError, "guidance_scale"),
        ({"seed": -1}, InputError, "seed"),
        ({"seed": "3"}, InputError, "seed='3' is not possible; give a whole number"),
        ({"seed": 1.5}, InputError, "seed=1.5"),
        ({"num_inference_steps": "4"}, InputError, "num_inference_steps='4'"),
        ({"num_frames": 2.0}, InputError, "num_frames=2.0"),
        ({"guidance_scale": True}, InputError, "guidance_scale=True"),
        ({"guidance_scale": "7"}, InputError, "guidance_scale='7'"),
        ({"fps": "8"}, InputError, "fps='8'"),
        ({"conditioning_scale": "1"}, InputError, "conditioning_scale='1'"),
        ({"control_guidance_start": None}, InputError, "control_guidance_start=None"),
        ({"negative_prompt": ["hat"]}, PromptError, "negative_prompt=.'hat'. is no text"),
        ({"negative_prompt": "hat \udcff"}, PromptError, "negative_prompt='hat .*half a character"),
        ({"device": "cuda:99"}, InputError, "cuda:99"),
        ({"dtype": "float61"}, InputError, 'did you mean "float16"'),
        ({"dtype": torch.int8}, InputError, 'unknown dtype "int8"'),
        ({"height": 100}, InputError, "100"),
    ],
)
def test_bad_input_is_one_line(pose, options, error, says):
    with pytest.raises(error, match=says) as caught:
        run(pose, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "is empty"), ("  ", "is empty"), ({}, "is empty"), ({0: "a", 2: " "}, "is empty"),
        ("red " * 60, "make it shorter"), (["a dancer", 3], "3 is no text; give one text"),
        ({0: "a", 2: 3}, "3 is no text"), (None, "None is no text"), ({1: "a"}, "begin at frame 0"),
        ({0: "a", 4: "b", 48: "c"}, "from frame 4 on, and the clip has 4 frames, 0 to 3"),
    ],
)  # fmt: skip
def test_bad_prompts(pose, prompt, says):
    with pytest.raises(PromptError, match=says) as caught:
        hgc_video.generate(pose, prompt, num_inference_steps=2, progress=False)
    assert "\n" not in str(caught.value)


def test_a_seed_that_is_not_told_is_drawn_and_reported(pose):
    clip, other = (run(pose, seed=None, num_frames=1, num_inference_steps=1) for _ in range(2))
    assert clip.report.seed != other.report.seed
    again = run(pose, seed=clip.report.seed, num_frames=1, num_inference_steps=1)
    assert np.array_equal(again.frames, clip.frames)


def test_numbers_of_numpy_are_numbers(pose, tmp_path):
    clip = run(pose, seed=np.int64(3), num_frames=np.int32(1), conditioning_scale=np.float32(0.5))
    clip.report.save(tmp_path / "report.json")
    assert np.array_equal(clip.frames, run(pose, num_frames=1, conditioning_scale=0.5).frames)


def test_the_fastest_device_is_chosen_and_a_dtype_by_its_name(monkeypatch):
    here = {"cuda": False, "mps": False}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: here["mps"])
    assert choose_device(None) == "cpu"
    here["mps"] = True
    assert choose_device(None) == "mps" and choose_device("cpu") == "cpu"
    with pytest.raises(InputError, match='"nonsense" cannot be used here; use cpu, mps'):
        choose_device("nonsense")
    here["cuda"] = True
    assert choose_device(None) == "cuda"
    assert choose_dtype("bfloat16") == choose_dtype(torch.bfloat16) == torch.bfloat16
    assert choose_dtype(None) is None


def test_a_dtype_is_what_the_models_run_in(pose):
    report = run(pose, dtype="bfloat16", num_frames=1, num_inference_steps=1).report
    assert report.dtype == "bfloat16"


def test_a_control_window_is_the_stock_pipelines_and_saves_the_controlnet(pose):
    pose = pose[:, ::2, ::2]
    window = {"control_guidance_start": 0.25, "control_guidance_end": 0.75}
    stock = load_pipeline("puppet", "pose")(
        prompt=PROMPT, num_frames=4, height=64, width=64, num_inference_steps=4,
        guidance_scale=default_guidance_scale("puppet"), output_type="np",
        conditioning_frames=[Image.fromarray(f) for f in pose],
        generator=torch.Generator().manual_seed(3), **window,
    ).frames[0]  # fmt: skip
    off, lossless = run(pose, preset="off", **window), run(pose, preset="lossless", **window)
    assert np.array_equal(off.frames, np.round(stock * 255).astype(np.uint8))
    assert np.abs(off.frames.astype(int) - lossless.frames).max() <= 1
    spent = [clip.report.macs_by_part["controlnet"] for clip in (off, lossless)]
    assert 0 < spent[1] < 0.51 * spent[0]
    assert not np.array_equal(off.frames, run(pose, preset="off").frames)
    with pytest.raises(InputError, match="two shares"):
        run(pose, control_guidance_start=0.8, control_guidance_end=0.2)


@pytest.mark.parametrize("name", [
    "easycache:threshold=0.3,warm_up=2", "hgc-online:threshold=0.5", "sada:fixed=0.4",
])  # fmt: skip
def test_a_run_that_decides_for_itself_reports_what_it_did(pose, name):
    report = run(pose, preset=name, num_inference_steps=10).report
    assert len(report.steps) == 10
    assert 0 < report.macs_saved < 1
    labels = " ".join(row.label for row in report.steps)
    assert any(word in labels for word in ("skip", "depth", "lagrange"))
