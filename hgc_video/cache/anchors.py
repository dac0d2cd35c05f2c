"""Which rows of a batch are anchor frames, and how the other frames are mixed from them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..plan.schedule import Anchors

AnchorRows = tuple[Tensor, Tensor, Tensor, Tensor]


def anchor_rows(
    anchors: Anchors, branches: int, num_frames: int, device: torch.device
) -> AnchorRows:
    """For rows (branches·f …): the anchors' rows; per row the two anchors (places among the anchors)
    that it is mixed from; and the second one's weight (branches·f 1 1)."""
    chosen = torch.tensor(anchors.frames(num_frames), device=device)
    frames = torch.arange(num_frames, device=device)
    first = torch.searchsorted(chosen, frames, right=True) - 1
    second = (first + 1).clamp(max=len(chosen) - 1)
    gap = (chosen[second] - chosen[first]).clamp(min=1)
    weight = (frames - chosen[first]) / gap
    offsets = torch.arange(branches, device=device)[:, None]
    return (
        (offsets * num_frames + chosen).flatten(),
        (offsets * len(chosen) + first).flatten(),
        (offsets * len(chosen) + second).flatten(),
        weight.repeat(branches)[:, None, None],
    )
