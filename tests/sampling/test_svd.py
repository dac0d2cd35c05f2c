"""Stable Video Diffusion in our loop, on small random weights: the stock pipeline without a ControlNet, the
same engine with one, and one line for what cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hgc_video
from hgc_video.errors import InputError, ModelError, VideoError
from hgc_video.forecast import forecast
from hgc_video.models.load import load_pipeline, read_facts
from hgc_video.plan.memory.budget import GIB
from tests import tiny_pipelines as tiny

STEPS, FRAMES, SIDE = 4, 4, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The pipeline's folder, as save_pretrained writes it, with a ControlNet for depth beside its parts."""
    made = tmp_path_factory.mktemp("svd")
    tiny.svd().save_pretrained(made)
    tiny.svd_controlnet().save_pretrained(made / "controlnet_depth")
    return made


@pytest.fixture(scope="module")
def depth():
    return np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def first():
    return tiny.images(1)[0]


@pytest.fixture(scope="module")
def generate(folder, depth, first):
    def run(**options):
        told = {
            "control": {"depth": depth}, "image": first, "model": str(folder), "preset": "off",
            "num_inference_steps": STEPS, "height": SIDE, "width": SIDE, "progress": False,
        }  # fmt: skip
        return hgc_video.generate(**{**told, **options})

    return run


@pytest.fixture(scope="module")
def off(generate):
    return generate()


@pytest.fixture(scope="module")
def plain(folder, first):
    """What the stock pipeline makes."""
    return stock(folder, first)


def stock(folder, first, **options):
    told = {
        "num_frames": FRAMES, "height": SIDE, "width": SIDE, "num_inference_steps": STEPS,
        "generator": torch.Generator().manual_seed(0), "output_type": "np",
    }  # fmt: skip
    frames = load_pipeline(str(folder), "depth")(first, **{**told, **options}).frames[0]
    return np.round(frames * 255).astype(np.uint8)


def without_controlnet(monkeypatch):
    """A ControlNet is loaded, and not put into the run."""

    def load(*args, **options):
        pipe = load_pipeline(*args, **options)
        pipe.controlnet = None
        return pipe

    monkeypatch.setattr("hgc_video.generator.load_pipeline", load)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"guidance_scale": 1.0}, {"max_guidance_scale": 1.0}),
        (
            {
                "guidance_scale": 5.0,
                "motion": {
                    "fps": 9, "motion_bucket_id": 60, "noise_aug_strength": 0.1, "min_guidance_scale": 1.5,
                },
            },
            {
                "max_guidance_scale": 5.0, "min_guidance_scale": 1.5, "fps": 9, "motion_bucket_id": 60,
                "noise_aug_strength": 0.1,
            },
        ),
    ],
)  # fmt: skip
def test_without_a_controlnet_our_loop_is_the_stock_pipeline_to_the_bit(
    generate, folder, first, monkeypatch, ours, theirs
):
    expected = stock(folder, first, **theirs)
    without_controlnet(monkeypatch)
    off = generate(**ours)
    assert np.array_equal(off.frames, expected)
    assert off.report.macs_by_part["controlnet"] == 0
    assert np.array_equal(generate(preset="full", **ours).frames, expected)


def test_with_a_controlnet_off_is_full_and_the_control_pulls(generate, off, plain):
    assert np.array_equal(off.frames, generate(preset="full").frames)
    assert np.abs(off.frames.astype(int) - plain).max() > 2
    assert np.array_equal(generate(conditioning_scale=0.0).frames, plain)
    report = off.report
    assert report.macs == report.macs_baseline
    assert set(report.macs_by_part) == {"unet", "controlnet", "image_encoder", "vae"}
    assert (report.guidance_scale, report.prompt, report.image) == (3.0, "", "an image in memory")
    assert "an image in memory" in report.summary() and "prompt" not in report.summary()


def test_the_stock_loop_is_cached_without_the_controlnet_beside_it(folder, first, plain):
    pipe = load_pipeline(str(folder), "depth")
    with hgc_video.enable_cache(pipe, "full") as cache:
        frames = pipe(
            first, num_frames=FRAMES, height=SIDE, width=SIDE, num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(0), output_type="np",
        ).frames[0]  # fmt: skip
        assert cache.report.macs_by_part["controlnet"] == 0
        assert cache.report.macs == cache.report.macs_baseline
    assert np.array_equal(np.round(frames * 255).astype(np.uint8), plain)


def test_another_image_or_control_is_another_clip(generate, off, depth):
    assert not np.array_equal(off.frames, generate(image=tiny.images(2)[1]).frames)
    assert not np.array_equal(off.frames, generate(control={"depth": depth[::-1]}).frames)


def test_lossless_is_within_rounding_and_caches_save(generate, off):
    lossless = generate(preset="lossless")
    assert np.abs(off.frames.astype(int) - lossless.frames).max() <= 1
    assert lossless.report.macs < off.report.macs
    cached = generate(preset="hgc:interval=2,cut=1,gate=0.7", num_inference_steps=6)
    assert 0.3 < cached.report.macs_saved < 0.9
    assert len(cached.report.steps) == 6 and "gated" in cached.report.steps[-1].label
    silent = generate(preset="lossless", conditioning_scale=0.0).report
    assert silent.macs_by_part["controlnet"] == 0


@pytest.mark.parametrize("preset", ["off", "hgc:interval=2,cut=1,gate=0.7"])
def test_executed_macs_of_the_loop_are_what_torch_counts(generate, monkeypatch, preset):
    from hgc_video.measure.macs import MacCounter
    from hgc_video.sampling import run

    counted, denoise = [], run.denoise

    def spied(*args, **options):
        with MacCounter() as counter:
            latents = denoise(*args, **options)
        counted.append(counter.macs)
        return latents

    monkeypatch.setattr(run, "denoise", spied)
    parts = generate(preset=preset).report.macs_by_part
    assert counted == [parts["unet"] + parts["controlnet"]]


def test_the_callback_sees_frames_first(generate):
    seen = []
    generate(callback=lambda i, n, latents: seen.append((i, n, tuple(latents.shape))))
    assert seen == [(i, STEPS, (1, FRAMES, 4, 8, 8)) for i in range(STEPS)]


def test_the_image_may_be_a_path_an_array_or_an_image(generate, off, first, tmp_path):
    first.save(tmp_path / "first.png")
    clips = [generate(image=i) for i in (np.asarray(first), tmp_path / "first.png")]
    assert all(np.array_equal(off.frames, clip.frames) for clip in clips)
    assert clips[1].report.image.endswith("first.png")


def test_a_memory_budget_is_predicted_and_kept_to(generate, off):
    clip = generate(memory="2GiB")
    assert 0 < clip.report.predicted_peak_nbytes < 2**31
    assert np.array_equal(clip.frames, off.frames)
    with pytest.raises(InputError, match="too little"):
        generate(memory="1MiB")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": None}, "begins with an image, and none is given; give image"),
        ({"prompt": "a dancer"}, "begins with an image and reads no prompt; leave it out"),
        ({"negative_prompt": "hat"}, "reads no negative_prompt"),
        ({"num_frames": 9}, "beyond the model's 4"),
        ({"context_length": 2}, "leave context_length out"),
        ({"motion": {"motion_bucket": 1}}, 'no field "motion_bucket": did you mean "motion_bucket_id"'),
        ({"motion": {"motion_bucket_id": 1.5}}, "a whole number"),
        ({"motion": {"fps": 0}}, "give 1 or more"),
        ({"motion": {"noise_aug_strength": -1}}, "0 or more"),
        ({"auto_calibrate": True}, "auto_calibrate"),
        ({"control": {"depth": 1, "lineart": 2}}, "follows one control"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(generate, options, says):
    with pytest.raises(InputError, match=says) as caught:
        generate(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.float32), np.zeros((2, 2, 2, 3), np.uint8), 7]
)
def test_what_is_no_image_is_one_line(generate, image):
    with pytest.raises(VideoError) as caught:
        generate(image=image)
    assert "\n" not in str(caught.value)


def test_a_text_model_takes_no_image(depth, first):
    for option in ({"image": first}, {"motion": {"motion_bucket_id": 60}}):
        with pytest.raises(InputError, match="begins with a prompt; leave"):
            hgc_video.generate(depth, "a dancer", **option)


def test_a_plan_needs_no_weights(folder, off):
    """Of the folder, with what the run then took; and of the full size by name."""
    told = forecast(
        model=str(folder),
        control="depth",
        preset="off",
        num_inference_steps=STEPS,
        height=SIDE,
        width=SIDE,
    )
    spent = off.report.macs_by_part
    assert told.macs_by_part == {part: spent[part] for part in ("unet", "controlnet")}
    for frames in ({"model": "svd", "num_frames": 26}, {"model": str(folder), "num_frames": 5}):
        with pytest.raises(InputError, match="ask for less"):
            forecast(control="depth", **frames)


@pytest.mark.slow
def test_memory_is_planned_at_full_size():
    """UNet, ControlNet, VAE and CLIP have 5.47 GiB of weights in half precision; a clip is never
    windowed, and decoded as a whole where there is room."""
    told = forecast(model="svd", preset="off", num_inference_steps=2, memory="60GiB").memory_plan
    assert told is not None and (told.context, told.chunks.decode) == (25, 25)
    assert 5.47 * GIB < told.peak.denoise < told.peak.decode < 60 * GIB


def test_the_folder_is_known_and_told_what_it_lacks(folder, tmp_path):
    import shutil

    facts = read_facts(str(folder))
    assert (facts.from_image, facts.max_frames, facts.guidance_scale) == (True, FRAMES, 3.0)
    assert (facts.multiple, facts.default_area) == (8, SIDE * SIDE)
    copied = shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(copied / "image_encoder")
    with pytest.raises(ModelError, match="lacks image_encoder"):
        read_facts(str(copied))
    with pytest.raises(ModelError, match="no controlnet_lineart"):
        load_pipeline(str(folder), "lineart")
