"""Trains the autoencoder on single rendered frames, then encodes every training clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from .data import Shard, load_shard
from .progress import Stage

LATENT_CHANNELS = 16


def make_vae() -> AutoencoderKL:
    """An 8x autoencoder with 16 latent channels; two thirds of its weights are the decoder's."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(16, 32, 64, 88),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=128,
        scaling_factor=1.0,
    )


_DANCER_SHARE = 0.5  # of the crops: there is the finest detail, on a tenth of the frame
_CROP = 64  # pixels; small crops give four times the steps
_CROP_SHARE = 0.88  # of the steps; whole frames at the end set the statistics of group norms


class FrameSource:
    """Random frames (b 3 H W) in -1..1 of one shape, each from its own shard where there are enough."""

    def __init__(self, shards: list[Path], seed: int, batch: int) -> None:
        self.shards = [load_shard(p) for p in shards]
        self.seed, self.batch = seed, batch

    def __call__(self, step: int) -> Tensor:
        rng = np.random.default_rng([self.seed, step])
        first = self.shards[int(rng.integers(len(self.shards)))]
        alike = [s for s in self.shards if s.frames.shape[2:] == first.frames.shape[2:]]
        picks = rng.choice(len(alike), self.batch, replace=len(alike) < self.batch)
        return to_pixels(np.stack([_frame(alike[int(k)], rng) for k in picks]))


def _frame(shard: Shard, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random frame (H W 3) of a shard's clips."""
    clip, frame = (int(rng.integers(size)) for size in shard.frames.shape[:2])
    return np.asarray(shard.frames[clip, frame])


class CropSource:
    """Random crops (b 3 64 64) in -1..1, each of another shard; half of them at the dancer."""

    def __init__(self, shards: list[Path], seed: int, batch: int) -> None:
        self.shards = [load_shard(p) for p in shards]
        self.seed, self.batch = seed, batch

    def __call__(self, step: int) -> Tensor:
        rng = np.random.default_rng([self.seed, step])
        count = len(self.shards)
        picks = rng.choice(count, self.batch, replace=count < self.batch)
        return to_pixels(np.stack([_crop(self.shards[int(k)], rng) for k in picks]))


def _crop(shard: Shard, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random crop (64 64 3) of a shard's clips."""
    clip, frame = (int(rng.integers(size)) for size in shard.frames.shape[:2])
    room = [size - _CROP for size in shard.frames.shape[2:4]]
    y, x = (int(rng.integers(size + 1)) for size in room)
    if rng.random() < _DANCER_SHARE:
        drawn = np.argwhere(shard.pose[clip, frame].any(-1))
        if len(drawn):
            at = drawn[int(rng.integers(len(drawn)))] - rng.integers(_CROP, size=2)
            y, x = (int(np.clip(a, 0, size)) for a, size in zip(at, room, strict=True))
    return shard.frames[clip, frame, y : y + _CROP, x : x + _CROP]


def first_frames(shards: list[Path]) -> Tensor:
    """The first frame of every clip of some shards of one shape, (b 3 H W)."""
    return to_pixels(np.concatenate([load_shard(p).frames[:, 0] for p in shards]))


def to_pixels(frames: NDArray[np.uint8]) -> Tensor:
    """(b H W 3) uint8 to (b 3 H W) float in -1..1."""
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def vae_loss(
    vae: AutoencoderKL, pixels: Tensor, kl_weight: float = 1e-6, jitter: float = 0.02
) -> Tensor:
    """L1 on pixels and on their gradients, a light KL term, a decoder used to slightly wrong latents."""
    posterior = vae.encode(pixels).latent_dist
    latents = posterior.sample()
    noise = torch.randn_like(latents) * torch.rand(len(latents), 1, 1, 1) * 2 * jitter
    decoded = vae.decode(latents + noise * latents.std()).sample
    kl: Tensor = posterior.kl().float().mean()
    return reconstruction_loss(decoded.float(), pixels) + kl_weight * kl


def reconstruction_loss(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Absolute and squared error of pixels (b 3 H W) and of their horizontal and vertical differences.

    The absolute error alone leaves out what covers less than half of a place, such as dots on cloth; the
    squared error, of the differences above all, does not.
    """
    error = decoded - pixels
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    edges = across.abs().mean() + down.abs().mean()
    squared_edges = across.square().mean() + down.square().mean()
    return error.abs().mean() + 3 * error.square().mean() + 0.5 * edges + 2 * squared_edges


def train_vae(
    folder: Path, shards: list[Path], *, steps: int, batch: int, seed: int, until: float
) -> AutoencoderKL:
    """Trains (or goes on training) the autoencoder; returns it with averaged weights.

    Batches are crops at first, then a quarter as many whole frames.
    """
    torch.manual_seed(seed)
    vae = make_vae()
    stage = Stage(
        "vae", folder, {"vae": vae}, steps=steps, rate=3e-3, muon_rate=0.02, decay=1.0, ema=0.998,
        weight_decay=0.0,
    )  # fmt: skip
    crops, frames = CropSource(shards, seed, batch), FrameSource(shards, seed, max(1, batch // 4))

    def loss_of(step: int) -> Tensor:
        torch.manual_seed(step)  # the posterior's sample and the jitter, the same after a resume
        pixels = crops(step) if step < _CROP_SHARE * steps else frames(step)
        with torch.autocast("cpu", torch.bfloat16):
            return vae_loss(vae, pixels)

    stage.run(loss_of, until=until)
    stage.use_ema()
    return vae.eval()


def train_decoder(
    folder: Path,
    vae: AutoencoderKL,
    shards: list[Path],
    *,
    steps: int,
    batch: int,
    seed: int,
    until: float,
) -> None:
    """Sharpens the decoder on whole frames; the encoder, and so every latent, stays as it is.

    It sees latents a little off, as a denoiser leaves them, but without the posterior's own noise.
    """
    vae.requires_grad_(False)
    parts = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    for part in parts.values():
        part.requires_grad_(True)
    stage = Stage(
        "decoder", folder, parts, steps=steps, rate=1e-3, muon_rate=0.005, decay=1.0, ema=0.998,
        weight_decay=0.0,
    )  # fmt: skip
    source = FrameSource(shards, seed + 3, batch)

    def loss_of(step: int) -> Tensor:
        torch.manual_seed(step)
        pixels = source(step)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(pixels).latent_dist.mean
            decoded = vae.decode(latents + 0.03 * torch.randn_like(latents)).sample
        return reconstruction_loss(decoded.float(), pixels)

    stage.run(loss_of, until=until)
    stage.use_ema()
    vae.requires_grad_(False).eval()
