"""The cache on a CUDA device: pinned memory, streams, offloading, half precision. Skipped without one.

HGC_VIDEO_TEST_DEVICE=cpu runs what a CPU can do of it.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hgc_video
from hgc_video.evaluate.quality import psnr
from hgc_video.models.load import load_pipeline
from hgc_video.puppet.evaluation import held_out
from hgc_video.puppet.prompts import plain_prompt

DEVICE = os.environ.get("HGC_VIDEO_TEST_DEVICE", "cuda")
ON_GPU = DEVICE == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="no CUDA device"),
]
ROOT = Path(__file__).parents[1]
_WORKSPACES = 64 * 2**20  # of cuBLAS and cuDNN, which are in no plan


@pytest.fixture(scope="module", autouse=True)
def exact_products():
    """Without TF32, whose products are rounded to ten bits."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@functools.cache
def case():
    return held_out(6, 12)


def clip(num_frames=4, **options):
    options = {"num_inference_steps": 12, "seed": 7, "progress": False, "device": DEVICE, **options}
    return hgc_video.generate(case().truth.pose[:num_frames], plain_prompt(case().spec), **options)


def test_the_gpu_makes_the_clip_of_the_cpu():
    here, there = clip(preset="off", dtype="float32"), clip(preset="off", device="cpu")
    assert here.report.device.startswith(DEVICE)
    assert psnr(here.frames, there.frames) > 45
    assert here.report.macs == there.report.macs


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_presets_in_every_precision(dtype):
    off = clip(preset="off", dtype=dtype)
    whole = clip(preset="off", dtype="float32")
    assert psnr(off.frames, whole.frames) > (25 if dtype == "bfloat16" else 35)
    for preset, least in {"lossless": 35, "quality": 30, "balanced": 30, "fast": 25}.items():
        made = clip(preset=preset, dtype=dtype)
        reached = psnr(made.frames, off.frames)
        assert reached > least, f"{preset} in {dtype}: {reached:.1f} dB"
        assert made.report.macs < off.report.macs


@pytest.mark.parametrize("preset", ["off", "balanced", "turbo", "guard:tolerance=0.1"])
def test_the_same_seed_gives_the_same_clip(preset):
    first, second = clip(preset=preset), clip(preset=preset)
    assert np.array_equal(first.frames, second.frames)
    assert first.report.schedule == second.report.schedule


@pytest.mark.parametrize("preset", ["balanced", "deepcache:interval=2"])
def test_caches_in_pinned_memory_change_nothing(preset):
    from hgc_video.media.control import load_control
    from hgc_video.options import GenerateOptions
    from hgc_video.plan.memory.budget import Chunks, MemoryPlan, Peak
    from hgc_video.plan.memory.placement import DEVICE as ON_DEVICE
    from hgc_video.plan.memory.placement import HOST
    from hgc_video.plan.presets import resolve
    from hgc_video.report import Stopwatch
    from hgc_video.sampling.run import Run

    dtype = torch.float16 if ON_GPU else torch.float32
    pipe = load_pipeline("puppet", "pose", dtype=dtype).to(DEVICE)
    pose = case().truth.pose
    options = GenerateOptions(
        control_video=pose, prompt="a dancer", num_inference_steps=8, num_frames=len(pose)
    )
    latents = {}
    for idle in (ON_DEVICE, HOST):
        plan = MemoryPlan(1, 5, Chunks(idle=idle), Peak(0, 0), None)
        made = Run(options, resolve(preset), [load_control(pose)], pipe, Stopwatch(), plan, 2)
        latents[idle] = made.latents(lambda *_: None)
        report = made.report()
        assert (report.copied_to_host_nbytes > 0) == (idle == HOST)
        assert (report.copied_to_device_nbytes > 0) == (idle == HOST)
    assert torch.equal(latents[HOST], latents[ON_DEVICE])


_ALONE = """
import json, sys
from tests.test_gpu import clip
made = clip(int(sys.argv[1]), preset=sys.argv[2], memory=sys.argv[3], num_inference_steps=8)
print(json.dumps([made.report.peak_nbytes, made.report.predicted_peak_nbytes, made.report.memory]))
"""


@pytest.mark.parametrize(
    ("num_frames", "preset", "memory"),
    [(12, "off", "2GiB"), (12, "balanced", "2GiB"), (12, "balanced", "110MiB")],
)
def test_the_predicted_peak_is_kept(num_frames, preset, memory):
    """In a process of its own: what others hold of the device counts to the peak."""
    command = [sys.executable, "-c", _ALONE, str(num_frames), preset, memory]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured, predicted, how = json.loads(done.stdout.splitlines()[-1])
    told = f"{measured / 2**20:.1f} MiB of {predicted / 2**20:.1f} predicted, {how}"
    if ON_GPU:
        assert measured <= 1.1 * predicted + _WORKSPACES, told
        assert measured > 0.6 * predicted, told


def stock(pipe, steps=8):
    """The latents of a call of the stock pipeline."""
    from PIL import Image

    return pipe(
        prompt="a dancer in a red shirt", negative_prompt="", num_frames=4, height=128, width=128,
        num_inference_steps=steps, guidance_scale=2.5,
        conditioning_frames=[Image.fromarray(frame) for frame in case().truth.pose[:4]],
        generator=torch.Generator().manual_seed(3), output_type="latent",
    ).frames  # fmt: skip


def _whole_models(pipe):
    pipe.enable_model_cpu_offload()


def _layers(pipe):
    pipe.enable_sequential_cpu_offload()


def _groups(pipe):
    pipe.enable_group_offload(torch.device("cuda"), torch.device("cpu"), offload_type="leaf_level")


def _groups_with_a_stream(pipe):
    pipe.enable_group_offload(
        torch.device("cuda"), torch.device("cpu"), offload_type="leaf_level", use_stream=True
    )


@pytest.mark.skipif(not ON_GPU, reason="offloading needs a CUDA device")
@pytest.mark.parametrize("offload", [_whole_models, _layers, _groups, _groups_with_a_stream])
@pytest.mark.parametrize("preset", ["lossless", "balanced"])
def test_offloaded_models_under_a_cache(offload, preset):
    there = load_pipeline("puppet", "pose", dtype=torch.float16).to("cuda")
    with hgc_video.enable_cache(there, preset):
        expected = stock(there)
    pipe = load_pipeline("puppet", "pose", dtype=torch.float16)
    offload(pipe)
    uncached = stock(pipe)
    with hgc_video.enable_cache(pipe, preset) as handle:
        for _ in range(2):
            torch.testing.assert_close(stock(pipe), expected, atol=2e-2, rtol=2e-2)
        assert handle.report.macs_saved > 0
    assert torch.equal(stock(pipe), uncached)


@pytest.mark.skipif(not ON_GPU, reason="device memory is a GPU's")
def test_nothing_stays_on_the_device():
    pipe = load_pipeline("puppet", "pose", dtype=torch.float16).to("cuda")
    before_clip = stock(pipe)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for preset in ("balanced", "deepcache:interval=3", "guard:tolerance=0.1"):
        with hgc_video.enable_cache(pipe, preset):
            stock(pipe)
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() - before < 2**20, preset
    assert torch.equal(stock(pipe), before_clip)


@pytest.mark.slow
@pytest.mark.skipif(not ON_GPU, reason="compiled for a CUDA device")
def test_compiled_models_under_a_cache():
    pipe = load_pipeline("puppet", "pose", dtype=torch.float16).to("cuda")
    with hgc_video.enable_cache(pipe, "balanced"):
        expected = stock(pipe)
    pipe.unet.compile()
    pipe.controlnet.compile()
    with hgc_video.enable_cache(pipe, "balanced") as handle:
        made = stock(pipe)
        assert handle.report.macs_saved > 0.2
    error = (made - expected).float().norm() / expected.float().norm()
    assert error < 0.05


def test_a_run_goes_on_to_the_same_bits(tmp_path):
    whole = clip(preset="balanced")

    def stop(index, *_):
        if index == 5:
            raise KeyboardInterrupt

    work = tmp_path / "work"
    with pytest.raises(BaseException):  # noqa: B017, a cancelled run or the interrupt itself
        clip(preset="balanced", work=work, checkpoint_every_s=0, callback=stop)
    gone_on = hgc_video.resume(work, progress=False)
    assert gone_on.report.resumed_at > 0
    assert np.array_equal(gone_on.frames, whole.frames)


def test_latents_that_are_no_numbers_stop_the_run():
    def spoil(index, timestep, latents):
        if index == 3:
            latents.fill_(float("nan"))

    with pytest.raises(hgc_video.errors.HGCVideoError, match=r"NaN|not finite|no numbers"):
        clip(preset="balanced", callback=spoil)


@pytest.mark.skipif(not ON_GPU, reason="CUDA graphs")
def test_a_replayed_training_step_has_the_loss_and_the_gradients_of_a_step():
    from hgc_video.puppet.training import text
    from hgc_video.puppet.training.denoiser import Denoiser
    from hgc_video.puppet.training.graphed import GraphedLoss
    from hgc_video.puppet.training.latents import Batch

    pipe = load_pipeline("puppet", "pose", dtype=torch.float32).to("cuda")
    tokenizer = text.make_tokenizer()
    nets = {"pose": pipe.controlnet}
    denoiser = Denoiser(pipe.unet, nets, tokenizer, pipe.text_encoder, "cuda")
    parameters = [p for _, module in denoiser.modules() for p in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    graphed = GraphedLoss(denoiser.loss_of, parameters)
    channels = pipe.unet.config.in_channels
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(2, channels, 8, 16, 16, generator=generator)
        control = torch.rand(16, 3, 128, 128, generator=generator)
        batch = Batch(latents, control if seed < 2 else None, "pose", ["a red shirt", ""])
        inputs = denoiser.inputs(batch, generator)
        expected = denoiser.loss_of(inputs, "pose")
        wanted = torch.autograd.grad(expected, parameters, allow_unused=True)
        loss = graphed(inputs, "pose")
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
        for one, other in zip(found, wanted, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert (one - other).norm() <= 0.05 * other.norm() + 1e-6
