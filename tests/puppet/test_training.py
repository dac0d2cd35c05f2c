"""Training's own machinery: resuming, data, the folding of latents; and the stages end to end."""

from __future__ import annotations

import contextlib
import dataclasses
import time

import numpy as np
import pytest
import torch

from hgc_video.puppet.training import data, run
from hgc_video.puppet.training.latents import channel_gains, normalise
from hgc_video.puppet.training.progress import Stage, stored_step
from hgc_video.puppet.training.vae import make_vae


def train(folder, stops=()):
    """A small regression, interrupted before each step in `stops` and taken up again."""
    folder.mkdir()
    for stop in (*stops, None):
        torch.manual_seed(1)
        module = torch.nn.Linear(3, 2)
        stage = Stage("toy", folder, {"m": module}, steps=20, rate=0.05)

        def loss_of(step, module=module, stop=stop):
            if step == stop:
                raise KeyboardInterrupt
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            return (module(x) - x[:, :2]).square().mean()

        with contextlib.suppress(KeyboardInterrupt):
            stage.run(loss_of, save_every_s=0)
    stage.use_ema()
    return module


def test_a_stopped_stage_goes_on_exactly(tmp_path):
    whole, parts = train(tmp_path / "a"), train(tmp_path / "b", (7, 13))
    assert stored_step(tmp_path / "b" / "toy.safetensors") == 20
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_a_half_written_shard_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "CLIPS_PER_SHARD", 2)
    monkeypatch.setattr(data, "CLIP_FRAMES", 3)
    path = data.make_shard(tmp_path, 3, seed=0)
    shard = data.load_shard(path)
    assert shard.frames.shape == shard.pose.shape == (2, 3, 160, 96, 3)
    assert shard.depth.shape == (2, 3, 160, 96)
    frames = np.array(shard.frames)
    (path / "specs.json").unlink()
    (path / "frames.npy").write_bytes(b"half")
    assert np.array_equal(data.load_shard(data.make_shard(tmp_path, 3, seed=0)).frames, frames)


@torch.no_grad()
def test_normalising_latents_leaves_the_decoded_picture():
    torch.manual_seed(0)
    vae = make_vae().eval()
    pixels = torch.rand(6, 3, 64, 64) * 2 - 1
    before = vae.decode(vae.encode(pixels).latent_dist.mean).sample
    normalise(vae, pixels)
    latents = vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(vae.decode(latents).sample, before, rtol=1e-3, atol=1e-3)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    assert latents.std((0, 2, 3)).max() <= 1.001
    assert channel_gains(vae, latents).max() <= 1


@pytest.mark.slow
def test_every_stage_from_nothing_to_an_exported_model(tmp_path, monkeypatch):
    """Three shards and one or two steps a stage: the path that trained the shipped weights."""
    monkeypatch.setattr(data, "CLIPS_PER_SHARD", 2)
    plan = run.Plan(
        shards=3, vae_steps=2, text_steps=2, still_steps=2, still_frames=2, clip_steps=2,
        clip_frames=16, decoder_steps=2,
    )  # fmt: skip
    trained = run.train(tmp_path / "run", plan, seed=0, until=time.time() + 600)
    trained.export(tmp_path / "model")
    import hgc_video

    pose = data.load_shard(tmp_path / "run" / "data" / "shard-0000").pose[0]
    clip = hgc_video.generate(
        pose,
        "a dancer",
        model=str(tmp_path / "model"),
        num_inference_steps=2,
        num_frames=2,
        progress=False,
    )
    assert clip.frames.shape == (2, 128, 128, 3)


def test_the_plan_is_the_one_in_the_scripts_help():
    assert all(isinstance(v, int | float) for v in dataclasses.asdict(run.Plan()).values())
