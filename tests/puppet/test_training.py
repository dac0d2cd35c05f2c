"""Training's own machinery: resuming, data, the folding of latents; and the stages end to end."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import time

import numpy as np
import pytest
import torch

from hgc_video.puppet.training import data, judge, progress, run, state
from hgc_video.puppet.training.ahead import Ahead
from hgc_video.puppet.training.denoiser import level_weights
from hgc_video.puppet.training.latents import ClipSource, channel_gains, normalise
from hgc_video.puppet.training.progress import Stage, averaged_weights, stored_step
from hgc_video.puppet.training.vae import LATENT_CHANNELS, CropSource, make_vae


def toy(folder, muon_rate=None):
    """A kernel, a matrix and vectors to train, and their stage."""
    torch.manual_seed(1)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.SiLU(), torch.nn.Flatten(),
        torch.nn.Linear(36, 2),
    )  # fmt: skip
    return module, Stage("toy", folder, {"m": module}, steps=20, rate=0.05, muon_rate=muon_rate)


def train(folder, stops=(), muon_rate=None):
    """A small regression, interrupted before each step in `stops` and taken up again."""
    folder.mkdir()
    for stop in (*stops, None):
        module, stage = toy(folder, muon_rate)

        def loss_of(step, module=module, stop=stop):
            if step == stop:
                raise KeyboardInterrupt
            x = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(step))
            return (module(x) - x[:, 0, 0, :2]).square().mean()

        with contextlib.suppress(KeyboardInterrupt):
            stage.run(loss_of, save_every_s=0)
    stage.use_ema()
    return module


@pytest.mark.parametrize("muon_rate", [None, 0.02])
def test_a_stopped_stage_goes_on_exactly(tmp_path, muon_rate):
    whole = train(tmp_path / "a", muon_rate=muon_rate)
    parts = train(tmp_path / "b", (7, 13), muon_rate)
    assert stored_step(tmp_path / "b" / "toy.safetensors") == 20
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("ahead", [0, 3])
def test_batches_come_in_order_whoever_makes_them(ahead):
    made = []

    def make(number):
        made.append(number)
        if number == 5:
            raise ValueError("no fifth")
        return number * number

    batches = Ahead(make, ahead)
    assert [batches(n) for n in range(2, 5)] == [4, 9, 16]
    assert set(made) >= {2, 3, 4} and len(made) == len(set(made))
    with pytest.raises(ValueError, match="no fifth"):
        batches(5)


def test_muon_moves_matrices_and_kernels_alone_and_by_an_orthogonal_step(tmp_path):
    """All singular values of a step are near each other, however unlike those of the gradient."""
    module, stage = toy(tmp_path, muon_rate=0.02)
    assert set(stage.optimizer.matrices) == {"m.0.weight", "m.3.weight"}
    before = {k: p.detach().clone() for k, p in module.named_parameters()}
    x = torch.randn(64, 1, 3, 3)
    (module(x) * torch.tensor([4.0, 1.0])).square().mean().backward()
    gradients = torch.linalg.svdvals(module[3].weight.grad)
    stage.optimizer.step()
    moved = {k: p.detach() - before[k] for k, p in module.named_parameters()}
    assert all(change.abs().max() > 0 for change in moved.values())
    assert gradients[0] > 4 * gradients[1]
    steps = torch.linalg.svdvals(moved["3.weight"])
    assert steps[0] < 2 * steps[1]
    kernel = torch.linalg.svdvals(moved["0.weight"].flatten(1))
    assert kernel.max() < 0.02 * 1.5 and kernel[2] > 0.02 * 0.3


def test_the_loss_on_data_apart_goes_into_the_curve_and_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_CHECK_EVERY", 5)
    module, stage = toy(tmp_path)
    x = torch.ones(4, 1, 3, 3)
    stage.run(lambda step: module(x).square().mean(), held_out=lambda: module(-x).square().mean())
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out" in line] == [5, 10, 15, 20]
    plain = train_plain(tmp_path / "plain", x)
    for one, other in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def train_plain(folder, x):
    """The same training without a look at data apart."""
    folder.mkdir()
    module, stage = toy(folder)
    stage.run(lambda step: module(x).square().mean())
    return module


def test_averaged_weights_are_those_that_a_finished_stage_hands_on(tmp_path):
    module = train(tmp_path / "a", muon_rate=0.02)
    averaged = averaged_weights(tmp_path / "a" / "toy.safetensors", "m")
    for key, value in module.state_dict().items():
        assert torch.equal(averaged[key], value)


def test_kept_stages_go_on_in_an_empty_folder_from_their_averaged_weights(tmp_path, monkeypatch):
    module = train(tmp_path / "a", muon_rate=0.02)
    monkeypatch.setattr(state, "_FILE_BYTES", 200)
    lines = ({"stage": "toy", "loss": 0.5}, {"stage": "toy", "held_out": 0.6})
    (tmp_path / "a" / "curve.jsonl").write_text("\n".join(map(json.dumps, lines)))
    state.keep(tmp_path / "a", {"toy": 50}, tmp_path / "kept")
    known = json.loads((tmp_path / "kept" / "state.json").read_text())["toy"]
    assert (known["step"], known["of"], known["loss"]) == (20, 50, 0.5)
    files = sorted(p.name for p in (tmp_path / "kept").glob("*.safetensors"))
    assert files == ["toy-1.safetensors", "toy-2.safetensors"]
    fresh = tmp_path / "b"
    fresh.mkdir()
    assert state.restore(fresh, tmp_path / "kept") == ["toy"]
    taken, stage = toy(fresh, muon_rate=0.02)
    assert stage.step == 20
    for one, other in zip(taken.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert stage.run(lambda step: pytest.fail("it is finished"))


def test_kept_stages_do_not_replace_what_is_as_far(tmp_path):
    train(tmp_path / "a")
    state.keep(tmp_path / "a", {"toy": 20}, tmp_path / "kept")
    before = (tmp_path / "a" / "toy.safetensors").read_bytes()
    assert state.restore(tmp_path / "a", tmp_path / "kept") == []
    assert (tmp_path / "a" / "toy.safetensors").read_bytes() == before
    assert state.restore(tmp_path / "a", tmp_path / "nothing kept") == []


def test_low_noise_counts_less_and_high_noise_fully():
    levels = torch.tensor([0.0, 0.5, 5 / 6, 0.99, 1.0])
    weights = level_weights(levels)
    torch.testing.assert_close(weights[:3], torch.ones(3))
    assert weights[3] == pytest.approx(6 / 100, rel=1e-3)
    assert 0 < weights[4] < 1e-4


def test_no_clip_is_twice_in_a_batch_and_shards_are_encoded_when_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "CLIPS_PER_SHARD", 3)
    monkeypatch.setattr(data, "CLIP_FRAMES", 2)
    monkeypatch.setattr(data, "SHAPES", ((64, 64),) * 3)
    shards = [data.make_shard(tmp_path, index, seed=0) for index in range(2)]
    source = ClipSource(shards, 0, make_vae().eval())
    assert not list(tmp_path.rglob("latents*.npy"))
    batch = source(0, clips=3, frames=2)
    assert len(list(tmp_path.rglob("latents*.npy"))) == 1
    assert batch.latents.shape == (3, LATENT_CHANNELS, 2, 8, 8)
    for one, other in itertools.combinations(batch.latents, 2):
        assert not torch.equal(one, other)
    assert torch.equal(source(0, clips=3, frames=2).latents, batch.latents)
    again = ClipSource(shards, 0, make_vae().eval())(0, clips=3, frames=2).latents
    assert not torch.equal(again, batch.latents)  # another VAE's latents
    with pytest.raises(ValueError, match="ask for fewer"):
        source(0, clips=4, frames=2)


def test_a_stage_that_took_no_step_leaves_no_file(tmp_path):
    """Else what an unfinished stage left would be taken up in place of its final weights."""
    stage = Stage("toy", tmp_path, {"m": torch.nn.Linear(3, 2)}, steps=20, rate=0.05)
    assert not stage.run(lambda step: pytest.fail("no time for a step"), until=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("last", "minutes"), [("clips", 0), ("data", 10)])
def test_a_run_without_time_or_stages_trains_nothing_and_codes_no_latents(
    tmp_path, monkeypatch, last, minutes
):
    monkeypatch.setattr(data, "CLIPS_PER_SHARD", 1)
    monkeypatch.setattr(data, "SHAPES", ((64, 64),) * 3)
    until = time.time() + 60 * minutes if minutes else 0
    trained = run.train(tmp_path, run.Plan(shards=1), seed=0, until=until, last=last)
    assert trained.vae.config.latent_channels == LATENT_CHANNELS
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    assert not list(tmp_path.rglob("latents*.npy"))


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


def test_crops_come_from_different_shards_and_stay_inside_their_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "CLIPS_PER_SHARD", 1)
    monkeypatch.setattr(data, "CLIP_FRAMES", 1)
    shards = [data.make_shard(tmp_path, index, seed=0) for index in (0, 3, 9)]
    crops = CropSource(shards, 0, 3)
    frames = [torch.from_numpy(np.array(data.load_shard(p).frames[0, 0])) for p in shards]
    batch = ((crops(5) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    assert batch.shape == (3, 64, 64, 3)
    assert torch.equal(crops(5), crops(5)) and not torch.equal(crops(5), crops(6))
    for frame in frames:  # every shard gave one of the crops
        views = frame.unfold(0, 64, 1).unfold(1, 64, 1).permute(0, 1, 3, 4, 2)
        assert any((views == crop).flatten(2).all(-1).any() for crop in batch)


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
    """Three small shards and one or two steps a stage: the path that trained the shipped weights."""
    monkeypatch.setattr(data, "CLIPS_PER_SHARD", 2)
    monkeypatch.setattr(data, "SHAPES", ((64, 64),) * 3)
    monkeypatch.setattr(judge, "_CLIPS", 6)
    plan = run.Plan(
        shards=3, vae_steps=1, text_steps=2, still_steps=1, still_frames=2, clip_steps=1,
        clip_frames=16, decoder_steps=1, judge_steps=2,
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
