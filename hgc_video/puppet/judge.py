"""Finds the dancer in any clip: a small network that measures control fidelity from pixels alone.

It is a measuring instrument, trained on the world's own truth; its error on true clips is reported
beside every figure it gives.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ..models.building import BUILDING


class Judge(nn.Module):
    """Frames (b 3 H W) in -1..1 to the logit of "dancer" per pixel (b H W)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = (width, 2 * width, 4 * width, 4 * width)
        self.down = nn.ModuleList(
            _Layer(a, b, stride=2) for a, b in zip((3, *sizes[:-1]), sizes, strict=True)
        )
        self.up = nn.ModuleList(
            _Layer(a + b, b) for a, b in zip(sizes[:0:-1], sizes[-2::-1], strict=True)
        )
        self.fine = _Layer(sizes[0] + 3, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits; positive where a dancer is seen."""
        steps = [pixels]
        for layer in self.down:
            steps.append(layer(steps[-1]))
        state = steps.pop()
        for layer in (*self.up, self.fine):
            skip = steps.pop()
            state = layer(torch.cat([functional.interpolate(state, size=skip.shape[2:]), skip], 1))
        logits: Tensor = self.head(state)[:, 0]
        return logits

    @torch.no_grad()
    def silhouette(self, frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Where the dancer is in frames (f H W 3), as (f H W)."""
        pixels = (
            torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
        )
        found: NDArray[np.bool_] = (self(pixels) > 0).numpy()
        return found


class _Layer(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(4, outputs), nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1), nn.SiLU(),
        )  # fmt: skip


def load_judge(path: Path | None = None) -> Judge:
    """The trained judge that comes with the package."""
    with BUILDING:
        judge = Judge()
    path = path or Path(
        str(resources.files("hgc_video.puppet").joinpath("weights/judge.safetensors"))
    )
    judge.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return judge.eval()
