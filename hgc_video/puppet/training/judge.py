"""Trains the judge on rendered frames, soft and noisy ones included, as generated ones may be."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from ..judge import Judge
from ..motion import random_motion
from ..spec import random_spec
from ..world import render
from .progress import Stage
from .vae import to_pixels

_CLIPS = 500


def train_judge(folder: Path, *, steps: int, seed: int, until: float) -> Judge:
    """Returns the trained judge; its clips are rendered apart from the other stages'."""
    torch.manual_seed(seed)
    judge = Judge()
    stage = Stage("judge", folder, {"judge": judge}, steps=steps, rate=2e-3, ema=0.99)
    if stage.step < steps and time.time() < until:
        frames, masks = _frames(seed + 77)

    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        picks = np.sort(rng.choice(len(frames), 16, replace=False))
        pixels, truth = (
            _worsen(to_pixels(frames[picks]), rng),
            torch.from_numpy(masks[picks]).float(),
        )
        return functional.binary_cross_entropy_with_logits(judge(pixels), truth)

    stage.run(loss_of, until=until)
    stage.use_ema()
    return judge.eval()


def save_judge(judge: Judge, target: Path) -> None:
    """Writes the judge's weights in half precision."""
    save_file(
        {k: v.half().contiguous() for k, v in judge.state_dict().items()},
        target / "judge.safetensors",
    )


def _frames(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    clips = [
        render(random_spec(rng), random_motion(rng, 4), int(rng.integers(2**31)))
        for _ in range(_CLIPS)
    ]
    return np.concatenate([c.frames for c in clips]), np.concatenate([c.silhouette for c in clips])


def _worsen(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, noise and another brightness, each at times."""
    if rng.random() < 0.6:
        size = int(rng.choice([32, 48, 64, 96]))
        small = functional.interpolate(pixels, size=(size, size), mode="area")
        soft = functional.interpolate(small, size=pixels.shape[2:], mode="bilinear")
        pixels = pixels + float(rng.uniform(0.3, 1)) * (soft - pixels)
    if rng.random() < 0.4:
        pixels = pixels + float(rng.uniform(0, 0.12)) * torch.randn_like(pixels)
    return (pixels * float(rng.uniform(0.85, 1.15)) + float(rng.uniform(-0.1, 0.1))).clamp(-1, 1)
