"""What the VAE alone loses: held-out frames, encoded and decoded, beside the truth."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from ..evaluate.quality import psnr
from .evaluation import held_out
from .fidelity import gradient_energy

Frames = NDArray[np.uint8]
_BATCH = 16  # frames coded at once, and the number that is timed


@dataclass(frozen=True)
class Reconstruction:
    """PSNR per frame in dB, gradient energy as a share of the truth's, processor seconds for decoding 16."""

    frames: int
    psnr_db: float
    psnr_min_db: float
    psnr_max_db: float
    gradient_energy: float
    decode_16_frames_s: float

    def as_dict(self) -> dict[str, float]:
        """The figures by name."""
        return asdict(self)


def held_out_frames(count: int) -> Frames:
    """One frame (count 128 128 3) of each of the first held-out cases."""
    return np.stack([held_out(index, 2).truth.frames[0] for index in range(count)])


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, frames: Frames) -> Frames:
    """Frames (f H W 3) encoded and decoded."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    decoded = torch.cat(
        [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in pixels.split(_BATCH)]
    )
    values = (decoded.clamp(-1, 1) + 1) * 127.5
    return np.asarray(values.round().permute(0, 2, 3, 1).numpy(), np.uint8)


def measure(vae: AutoencoderKL, frames: Frames) -> tuple[Reconstruction, Frames]:
    """The figures of a VAE on frames (f H W 3), and what it made of them."""
    made = reconstruct(vae, frames)
    values = [psnr(a, b) for a, b in zip(made, frames, strict=True)]
    found = Reconstruction(
        frames=len(frames), psnr_db=float(np.mean(values)), psnr_min_db=min(values),
        psnr_max_db=max(values), gradient_energy=gradient_energy(made) / gradient_energy(frames),
        decode_16_frames_s=_decode_seconds(vae, frames),
    )  # fmt: skip
    return found, made


@torch.no_grad()
def _decode_seconds(vae: AutoencoderKL, frames: Frames) -> float:
    """Processor time, so that others on a busy machine count little; the least of three."""
    pixels = torch.from_numpy(frames[:_BATCH]).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = vae.encode(pixels).latent_dist.mode()
    seconds = []
    for _ in range(3):
        began = time.process_time()
        vae.decode(latents)
        seconds.append(time.process_time() - began)
    return min(seconds) * _BATCH / len(latents)


def sheet(truth: Frames, made: Frames, *, columns: int = 8, scale: int = 2) -> Frames:
    """One picture (H W 3): rows of truth, each with its reconstruction below it."""
    rows = []
    for start in range(0, len(truth), columns):
        for frames in (truth[start : start + columns], made[start : start + columns]):
            row = np.concatenate(list(frames), 1)
            missing = columns * truth.shape[2] - row.shape[1]
            rows.append(np.pad(row, ((0, 2), (0, missing), (0, 0)), constant_values=255))
    return np.concatenate(rows).repeat(scale, 0).repeat(scale, 1)
