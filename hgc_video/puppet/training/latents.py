"""Encoded training clips: latents beside each shard, and batches of them with controls and prompts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ..prompts import mentioned_at_random, write_prompt
from .data import Shard, load_shard
from .vae import to_pixels

CONTROLS = ("pose", "depth")
_NO_PROMPT = 0.12  # share of prompts left empty, for guidance
_NO_CONTROL = 0.06
_EVERY = 4  # of the frames that channels are weighed on: each is decoded once for every channel


@dataclass(frozen=True)
class Batch:
    """Latents (k c f h w) scaled to unit variance, control (k·f 3 H W) in 0..1 or None, k prompts."""

    latents: Tensor
    control: Tensor | None
    kind: str
    prompts: list[str]


def latents_path(vae: AutoencoderKL, path: Path) -> Path:
    """Where a shard's latents of this VAE lie: another VAE's are never taken for them."""
    parts = (*vae.encoder.state_dict().values(), *vae.quant_conv.state_dict().values())
    digest = hashlib.sha256(b"".join(v.detach().float().cpu().numpy().tobytes() for v in parts))
    return path / f"latents-{digest.hexdigest()[:8]}.npy"


@torch.no_grad()
def encode_shard(vae: AutoencoderKL, path: Path) -> Path:
    """Writes the latents (k f c h w) float16 beside the shard's frames, once; returns their file."""
    target = latents_path(vae, path)
    if target.exists():
        return target
    frames = load_shard(path).frames
    scale, device = vae.config.scaling_factor, vae.device
    with torch.autocast(device.type, torch.bfloat16):
        moments = (vae.encode(to_pixels(clip).to(device)).latent_dist for clip in frames)
        coded = [one.mean.float() * scale for one in moments]
    temporary = target.with_suffix(".partial.npy")
    np.save(temporary, torch.stack(coded).half().cpu().numpy())
    temporary.replace(target)
    return target


@torch.no_grad()
def normalise(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Folds each latent channel's mean and spread, and its weight in the picture, into the VAE.

    Pipelines only know one scaling factor. Channels become zero-mean; those that the picture depends
    on get unit variance, the others less: an autoencoder leaves some nearly unused, and blown up to
    unit variance they would be noise that the denoiser wastes itself on.
    """
    latents = vae.encode(pixels).latent_dist.mean
    _fold(vae, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    latents = vae.encode(pixels).latent_dist.mean
    zero = torch.zeros(latents.shape[1])
    _fold(vae, zero, 1 / channel_gains(vae, latents[::_EVERY]))


def channel_gains(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """How much each channel (b c h w) of unit variance should count, 0.05..1: by what leaving it out
    changes in the decoded picture."""
    whole = vae.decode(latents).sample
    changes = []
    for channel in range(latents.shape[1]):
        without = latents.clone()
        without[:, channel] = 0
        changes.append((vae.decode(without).sample - whole).square().mean())
    return (torch.stack(changes) / 1e-3).pow(0.25).clamp(0.05, 1)


def _fold(vae: AutoencoderKL, mean: Tensor, spread: Tensor) -> None:
    """Makes the encoder give (latents - mean) / spread and the decoder read just that."""
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += torch.einsum("oc,c->o", post.weight[:, :, 0, 0], mean)
    post.weight *= spread.view(1, -1, 1, 1)
    quant.weight[:channels] /= spread.view(-1, 1, 1, 1)
    quant.bias[:channels] = (quant.bias[:channels] - mean) / spread
    quant.bias[channels:] -= 2 * spread.log()


class ClipSource:
    """Random batches of shards, encoded when first drawn; `frames` consecutive frames of `clips` different
    clips, one shape."""

    def __init__(self, shards: list[Path], seed: int, vae: AutoencoderKL) -> None:
        self.shards, self.seed, self.vae = shards, seed, vae

    def __call__(self, step: int, clips: int, frames: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        path = self.shards[int(rng.integers(len(self.shards)))]
        latents = np.load(encode_shard(self.vae, path), mmap_mode="r")
        shard = load_shard(path)
        total, length = latents.shape[:2]
        if clips > total:
            raise ValueError(f"{clips} different clips of a shard's {total}; ask for fewer a batch")
        chosen = rng.choice(total, clips, replace=False)
        starts = rng.integers(0, length - frames + 1, clips)
        spans = [
            (int(c), slice(int(s), int(s) + frames)) for c, s in zip(chosen, starts, strict=True)
        ]
        picked = torch.from_numpy(np.stack([latents[c, span] for c, span in spans])).float()
        kind = str(rng.choice(CONTROLS))
        control = None if rng.random() < _NO_CONTROL else _control(shard, kind, spans, rng)
        return Batch(
            picked.transpose(1, 2), control, kind, [_prompt(shard, c, rng) for c, _ in spans]
        )


def _prompt(shard: Shard, clip: int, rng: np.random.Generator) -> str:
    if rng.random() < _NO_PROMPT:
        return ""
    return write_prompt(shard.specs[clip], rng, mentioned_at_random(rng))


def _control(
    shard: Shard, kind: str, spans: list[tuple[int, slice]], rng: np.random.Generator
) -> Tensor:
    """Control frames (k·f 3 H W) in 0..1; depth gets another gain and bend per clip, as estimators do."""
    if kind == "pose":
        pixels = np.concatenate([shard.pose[c, span] for c, span in spans])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    clips = []
    for c, span in spans:
        depth = torch.from_numpy(np.array(shard.depth[c, span])).float() / 255
        clips.append(
            (depth * rng.uniform(0.8, 1.1) + rng.uniform(-0.06, 0.03)).clamp(0, 1)
            ** rng.uniform(0.75, 1.35)
        )
    return torch.cat(clips)[:, None].expand(-1, 3, -1, -1)
