"""How far a clip's latents have come since two earlier steps: what the extrapolation of features goes by."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST, _MOST = 0.3, 3.0  # of the way that the count of steps would tell


def own_latents(sample: Tensor, channels: int, branches: int, frames_axis: int) -> Tensor:
    """A copy of the latents (b c f h w), (b f c h w) or (b c h w) in a UNet's input, which has them for
    every guidance branch and may carry an image's channels behind them."""
    axis = 2 if sample.ndim == 5 and frames_axis == 1 else 1
    return sample.chunk(branches)[-1].narrow(axis, 0, channels).clone()


def way(now: Tensor, newer: Tensor, older: Tensor, ahead: float) -> Tensor:
    """How many times the way from `older` to `newer` (b ...) the latents have gone since, along it, for
    every clip (b): <p - p1, p1 - p2> / <p1 - p2, p1 - p2> (WorldCache's, 2603.22286), within a range
    around `ahead`, which the count of steps tells."""
    gone = (now.float() - newer.float()).flatten(1)
    before = (newer.float() - older.float()).flatten(1)
    length = before.square().sum(1).clamp_min(torch.finfo(torch.float32).tiny)
    return ((gone * before).sum(1) / length).clamp(_LEAST * ahead, _MOST * ahead)


def most_progress(between: tuple[int, int], index: int) -> float:
    """The most that `way` can give at a step `index`, of the latents of two earlier steps."""
    return _MOST * (index - between[1]) / (between[1] - between[0])


def per_row(slopes: Tensor, like: Tensor, branches: int) -> Tensor:
    """Every clip's slope (b) for its rows of features (branches·b·f ...), as `like` has them."""
    each = len(like) // (branches * len(slopes))
    rows = slopes.repeat(branches).repeat_interleave(each).to(like.dtype)
    return rows.reshape(-1, *[1] * (like.ndim - 1))
