"""Predicted peaks against measured ones, and runs that are split to fit."""

from __future__ import annotations

import json

import numpy as np
import psutil
import pytest
import torch
from diffusers import AutoencoderKL

import hgc_video
from hgc_video.errors import HGCVideoWarning, InputError
from hgc_video.forecast import forecast
from hgc_video.measure.live_bytes import LiveBytes
from hgc_video.media.control import load_control
from hgc_video.models.load import load_pipeline
from hgc_video.options import GenerateOptions
from hgc_video.plan.clip_shape import ClipShape
from hgc_video.plan.memory.budget import GIB, Chunks, MemoryPlan, Peak
from hgc_video.plan.memory.placement import DEVICE, HOST, RECOMPUTE
from hgc_video.plan.presets import resolve
from hgc_video.puppet.evaluation import held_out
from hgc_video.report import Stopwatch
from hgc_video.sampling.fit_memory import Fit, memory_budget
from hgc_video.sampling.predict_peak import PeakModel, RunScale
from hgc_video.sampling.run import Run
from hgc_video.sampling.trial_step import TrialRuns
from tests.sampling.test_windows import LongClip

PROMPT = "a dancer in a red shirt on a beach"
# The size that the limits in MiB are for.
FULL = {"height": 128, "width": 128, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def pose():
    return held_out(6, 8).truth.pose


def run(pose, **options):
    options = {"num_inference_steps": 2, "height": 64, "width": 64, "progress": False, **options}
    return hgc_video.generate(pose, PROMPT, **options)


@pytest.mark.parametrize("policy", [None, "lossless", "hgc:interval=2,cut=1,gate=1,dense=0.2"])
@pytest.mark.parametrize("num_frames", [6, 11])
def test_the_predicted_peak_is_the_measured_one(policy, num_frames):
    """Denoising on real tensors, followed as the prediction follows meta tensors."""
    clip = LongClip(num_frames)
    scale = RunScale(ClipShape(num_frames, 8, 8, 7), 5, 2, overlap=2)
    vae = load_pipeline("puppet", "pose").vae
    trials = TrialRuns(clip.unet, clip.controlnet, vae, scale, torch.float32)
    predict = PeakModel(trials, 0, scale, resolve(policy or "off"))
    windows = scale.windows(min(6, num_frames))
    clip.cond = (clip.cond * 255).to(torch.uint8)
    with LiveBytes() as live:
        clip.run(windows, policy)
    inputs = clip.noise.numel() * 4 + clip.cond.numel() + clip.text.numel() * 4
    predicted = predict.denoise(windows.plain[0].length, Chunks())[0] - predict.weights
    assert predicted == pytest.approx(live.peak + inputs, rel=0.12)


def test_a_told_memory_cuts_the_clip_and_changes_nothing(pose):
    free, tight = (run(pose, memory=told, **FULL) for told in ("8GiB", "95MiB"))
    assert "whole layers" in free.report.memory and "level 2" in tight.report.memory
    assert tight.report.predicted_peak_nbytes < 95 * 2**20 < free.report.predicted_peak_nbytes
    assert np.abs(free.frames.astype(int) - tight.frames).max() <= 1
    with pytest.raises(InputError, match=r"too little.*give at least"):
        run(pose, memory="60MiB", **FULL)


def test_where_idle_caches_live_changes_the_bill_and_not_the_clip():
    pipe, pose = load_pipeline("puppet", "pose"), held_out(6, 11).truth.pose
    options = GenerateOptions(
        control_video=pose, prompt=PROMPT, num_inference_steps=2, guidance_scale=2.0, num_frames=11,
        height=64, width=64,
    )  # fmt: skip
    clips, preset = [load_control(pose, height=64, width=64)], resolve("deepcache:interval=2")
    reports, latents = {}, {}
    for idle in (DEVICE, HOST, RECOMPUTE):
        memory_plan = MemoryPlan(1, 5, Chunks(idle=idle), Peak(0, 0), None)
        made = Run(options, preset, clips, pipe, Stopwatch(), memory_plan, 2)
        latents[idle] = made.latents(lambda *_: None)
        reports[idle] = made.report()
    assert torch.equal(latents[HOST], latents[DEVICE])
    here, host, again = (reports[idle] for idle in (DEVICE, HOST, RECOMPUTE))
    assert here.macs == host.macs < again.macs == pytest.approx(again.macs_baseline, rel=0.1)
    assert host.cache_nbytes == here.cache_nbytes > 0 == again.cache_nbytes
    assert host.cache_device_nbytes < here.cache_device_nbytes
    assert here.copied_to_host_nbytes == 0 < host.copied_to_host_nbytes
    assert host.copied_to_device_nbytes == host.copied_to_host_nbytes == host.cache_host_nbytes
    assert "off it" in host.summary() and "off it" not in here.summary()


@pytest.mark.parametrize("num_frames", [1, 7])
def test_one_frame_and_prime_counts_are_made_in_any_memory(num_frames):
    pose = held_out(6, num_frames).truth.pose
    free = run(pose, num_inference_steps=1, context_length=min(3, num_frames))
    tight = run(pose, num_inference_steps=1, context_length=min(3, num_frames), memory="80MiB")
    assert free.num_frames == tight.num_frames == num_frames
    assert np.abs(free.frames.astype(int) - tight.frames).max() <= 1
    assert tight.report.predicted_peak_nbytes < 80 * 2**20


def test_out_of_memory_leads_to_the_next_smaller_cut_once(pose):
    fallen = []

    def fall_once(step, steps, latents):
        if not fallen:
            fallen.append(step)
            raise MemoryError  # as numpy raises it

    with pytest.warns(HGCVideoWarning, match="denoising ran out of memory .*smaller memory plan"):
        clip = run(pose, memory="8GiB", callback=fall_once, **FULL)
    whole = run(pose, **FULL)
    assert "level 2" in clip.report.memory
    assert np.abs(clip.frames.astype(int) - whole.frames).max() <= 1

    def always(step, steps, latents):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with (
        pytest.warns(HGCVideoWarning, match="smaller memory plan"),
        pytest.raises(torch.OutOfMemoryError),
    ):
        run(pose, memory="8GiB", callback=always, **FULL)


def test_the_stage_that_ran_out_of_memory_is_the_one_that_is_cut():
    """Decoding has the higher peak here; where denoising failed, decoding may take as much as before."""
    pipe = load_pipeline("puppet", "pose")
    scale = RunScale(ClipShape(16, 16, 16, 32), 25, 8, 4)
    fit = Fit(pipe, resolve("off"), scale, max_frames=16)
    first = fit.plan(8 * GIB)
    assert first.peak.denoise < first.peak.decode and first.chunks.decode == 16
    denoise = fit.smaller_denoise(first)
    assert denoise.peak.denoise < first.peak.denoise and denoise.chunks.split
    assert denoise.peak.decode == first.peak.decode and denoise.chunks.decode == 16
    decode = fit.smaller_decode(first)
    assert decode.peak.decode < first.peak.decode and decode.chunks.decode == 8
    assert decode.peak.denoise == first.peak.denoise and not decode.chunks.split
    # A run on the CPU that nothing was predicted of has a smaller memory plan too.
    unknown = MemoryPlan(1, 16, Chunks(decode=16), Peak(0, 0), None)
    assert fit.smaller_denoise(unknown).peak.denoise < first.peak.denoise
    for _ in range(4):
        decode = fit.smaller_decode(decode) if decode.chunks.decode > 1 else decode
    with pytest.raises(InputError, match="no smaller memory plan"):
        fit.smaller_decode(decode)


def test_decoding_that_runs_out_of_memory_is_done_again_with_the_latents_there_are(
    pose, monkeypatch, tmp_path
):
    decode, steps = AutoencoderKL.decode, []

    def of_a_small_device(vae, latents, *args, **options):
        if len(latents) > 2 and not latents.is_meta:  # a prediction tries it on meta tensors
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(vae, latents, *args, **options)

    whole = run(pose)
    monkeypatch.setattr(AutoencoderKL, "decode", of_a_small_device)
    with pytest.warns(HGCVideoWarning, match="decoding ran out of memory") as told:
        clip = run(pose, callback=lambda *_: steps.append(1), out=tmp_path / "clip")
    assert len([w for w in told if "decoding" in str(w.message)]) == 2  # 8 frames, 4, 2
    assert len(steps) == 2, "nothing is denoised again"
    assert np.abs(np.asarray(clip.frames).astype(int) - whole.frames).max() <= 1
    assert "2 frames decoded" in clip.report.memory


def test_an_error_that_is_none_of_memory_is_not_tried_again(pose):
    def broken(*_):
        raise RuntimeError("the callback's own")

    with pytest.raises(RuntimeError, match="own"):
        run(pose, callback=broken)


def test_without_a_told_budget_it_is_what_is_free():
    assert memory_budget("1GiB", "cpu") == GIB
    assert 2**27 < memory_budget(None, "cpu") < 0.91 * psutil.virtual_memory().total


def test_512_frames_at_full_size_fit_eight_gib():
    """AnimateDiff SD1.5 with a ControlNet, 512x512, half precision, weights included, no files."""
    told = forecast(model="animatediff-sd15", num_frames=512, memory="8GiB")
    assert told.memory_plan is not None and told.memory_plan.peak.nbytes <= 8 * GIB
    assert told.memory_plan.peak.spilled > 0 and "host memory" in str(told)
    one = forecast(model="animatediff-sd15", num_frames=16)
    counts = [len(told.windows.at(moved)) for moved in told.moves]
    assert counts[0] == (512 - 16) // 12 + 2 and {0, 1} >= {c - counts[0] for c in counts}
    steps = zip(one.spent.macs, counts, strict=True)
    # A text is projected once, not for each window, and shifted windows encode their hints anew.
    texts = {
        part: 2
        * sum(a.text_macs // 16 for n, a in told.graph.attentions.items() if n.startswith(part))
        for part in ("unet", "controlnet")
    }
    windows = sum(step["unet"] * count for step, count in steps)
    assert told.macs_by_part["unet"] == windows - texts["unet"] * (counts[0] - 1)
    hints = sum(layer.macs for layer in told.graph.layers if layer.kind == "hint")
    assert min(*texts.values(), hints) > 0
    frames = 32 * (one.macs_by_part["controlnet"] + hints) - 31 * texts["controlnet"]
    assert told.macs_by_part["controlnet"] == frames
    assert "copied there" in str(told) and "recomputed" in str(told) and "assumed" in str(told)
    fast = forecast(model="animatediff-sd15", num_frames=512, memory="8GiB", throughput="100,10")
    assert (fast.memory_plan.rates.macs_per_s, fast.memory_plan.rates.bus_nbytes_per_s) == (
        1e14,
        1e10,
    )
    assert "100 TMACs/s and 10 GB/s, as told" in str(fast)
    works = json.loads(told.to_json())["works"]
    assert works["host"]["to_device"] > works["host"]["to_host"] > told.memory_plan.peak.spilled
    assert works["recompute"]["macs"] > works["device"]["macs"] == works["host"]["macs"]
    assert sum(told.macs_by_part.values()) == pytest.approx(works["host"]["macs"], rel=1e-3)
    with pytest.raises(InputError, match="video models only"):
        forecast(model="sd15", memory="8GiB")
