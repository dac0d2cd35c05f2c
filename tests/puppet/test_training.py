"""Training's own machinery: resuming, data, the folding of latents; and the stages end to end."""

from __future__ import annotations

import contextlib
import math
import time

import numpy as np
import pytest
import torch

from hgc_video.puppet.training import data, judge, run
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


def test_a_stage_that_took_no_step_leaves_no_file(tmp_path):
    """Else what an unfinished stage left would be taken up in place of its final weights."""
    stage = Stage("toy", tmp_path, {"m": torch.nn.Linear(3, 2)}, steps=20, rate=0.05)
    assert not stage.run(lambda step: pytest.fail("no time for a step"), until=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("last", "minutes"), [("decoder", 0), ("data", 10)])
def test_a_run_without_time_or_stages_trains_nothing_and_codes_no_latents(
    tmp_path, monkeypatch, last, minutes
):
    monkeypatch.setattr(data, "CLIPS_PER_SHARD", 1)
    monkeypatch.setattr(data, "SHAPES", ((64, 64),) * 3)
    until = time.time() + 60 * minutes if minutes else 0
    trained = run.train(tmp_path, run.Plan(shards=1), seed=0, until=until, last=last)
    assert trained.vae.config.latent_channels == 12
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    assert not list(tmp_path.rglob("latents.npy"))


def test_joints_are_hidden_at_times_and_never_moved():
    motion = np.ones((4, 18, 4), np.float32)
    hidden = [data.hide_joints(motion, np.random.default_rng(seed)) for seed in range(200)]
    share = np.mean([(h[..., 3] == 0).any() for h in hidden])
    assert 0.2 < share < 0.5
    assert all(np.array_equal(h[..., :3], motion[..., :3]) for h in hidden)
    assert motion.all()


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
    """Three small shards and two steps a stage: the path that trained the shipped weights."""
    monkeypatch.setattr(data, "CLIPS_PER_SHARD", 2)
    monkeypatch.setattr(data, "SHAPES", ((64, 64),) * 3)
    monkeypatch.setattr(judge, "_CLIPS", 6)
    plan = run.Plan(
        shards=3, vae_steps=2, text_steps=2, still_steps=2, still_frames=2, clip_steps=2,
        clip_frames=16, decoder_steps=2, judge_steps=2,
    )  # fmt: skip
    trained = run.train(tmp_path / "run", plan, seed=0, until=math.inf)
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
