"""Prompts that travel along the frames: told for some of them, interpolated between."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def travelling(
    prompts: Mapping[int, str], num_frames: int, encode: Callable[[str], Tensor]
) -> Tensor:
    """Text embeddings (f n d) for `{0: "...", 48: "..."}`: a frame between two told ones gets their
    linear mixture, a frame after the last one the last (as diffusers' FreeNoise does)."""
    told = sorted(frame for frame in prompts if frame < num_frames)
    known = {frame: encode(prompts[frame])[0] for frame in told}
    rows = []
    for frame in range(num_frames):
        before = max(f for f in told if f <= frame)
        after = min((f for f in told if f > frame), default=before)
        share = 0.0 if after == before else (frame - before) / (after - before)
        rows.append(torch.lerp(known[before], known[after], share))
    return torch.stack(rows)
