"""The unconditional branch where it is not computed: guidance dropped, or its kept difference added again."""

from __future__ import annotations

import torch
from torch import Tensor

_LOW_RADIUS = 0.2  # of the smaller side: the disc of low frequencies in FasterCache's release


def both_branches(cond: Tensor, difference: Tensor | None, weights: tuple[float, float]) -> Tensor:
    """The prompt's prediction (b … h w) as both branches (2b … h w), uncond first.

    Without a difference both are the same, and u + g (c - u) gives c back. With uncond - cond of an
    earlier step, uncond is cond plus its low and high frequencies times the weights (FasterCache
    eq. 8-9, 2410.19355); by the transform's linearity that is what their form says.
    """
    if difference is None:
        return torch.cat([cond, cond])
    low_weight, high_weight = weights
    if low_weight == high_weight:
        return torch.cat([cond + low_weight * difference, cond])
    low = low_frequencies(difference)
    return torch.cat([cond + low_weight * low + high_weight * (difference - low), cond])


def low_frequencies(frames: Tensor) -> Tensor:
    """What a disc around frequency 0 leaves of each frame (… h w)."""
    height, width = frames.shape[-2:]
    spectrum = torch.fft.fft2(frames.float())
    rows = torch.fft.fftfreq(height, 1 / height, device=frames.device)
    columns = torch.fft.fftfreq(width, 1 / width, device=frames.device)
    distance = (rows[:, None].square() + columns.square()).sqrt()
    disc = distance <= min(height, width) * _LOW_RADIUS
    low: Tensor = torch.fft.ifft2(spectrum * disc).real
    return low.to(frames.dtype)
