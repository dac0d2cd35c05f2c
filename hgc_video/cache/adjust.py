"""Scale and shift per channel for kept contributions, fitted from calibration runs.

Block Caching (2312.03209, section 3.3) trains them; here they are the least-squares fit of the fresh
contribution by the kept one, in closed form, so that nothing is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CacheStateError


class Adjustments:
    """`scale * kept + shift` by layer and step; what was not fitted stays as it is."""

    def __init__(self, fitted: Mapping[str, Tensor]) -> None:
        self._fitted = fitted

    def __call__(self, layer: str, step_index: int, kept: Tensor) -> Tensor:
        """The kept contribution (rows c h w) adjusted for a step."""
        fit = self._fitted.get(adjustment_name(layer, step_index))
        if fit is None:
            return kept
        if fit.shape[1] != kept.shape[1]:
            raise CacheStateError(
                f"the adjustment of {layer} is for {fit.shape[1]} channels, the model has "
                f"{kept.shape[1]}; fit it on this model"
            )
        scale, shift = fit.to(kept)[:, :, None, None]
        adjusted: Tensor = scale * kept + shift
        return adjusted


class Fit:
    """Running sums of one layer and step, over clips: (c,) each."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, kept: Tensor, fresh: Tensor) -> None:
        """Takes in contributions (rows c h w) of one run."""
        x, y = (t.double().movedim(1, 0).flatten(1) for t in (kept, fresh))
        sums = [x.sum(1), y.sum(1), (x * y).sum(1), (x * x).sum(1)]
        self.sums = [a + b for a, b in zip(self.sums, sums, strict=True)] if self.sums else sums
        self.count += x.shape[1]

    def solve(self) -> Tensor:
        """(2, c): scale and shift that fit fresh by kept best; a channel without spread is shifted only."""
        x, y, xy, xx = (total / self.count for total in self.sums)
        spread = xx - x * x
        scale = torch.where(spread > 1e-12, (xy - x * y) / spread.clamp(min=1e-12), 1.0)
        return torch.stack([scale, y - scale * x]).float()


def adjustment_name(layer: str, step_index: int) -> str:
    """The name of a fit in its file."""
    return f"{layer}@{step_index}"


def load_adjustments(path: str) -> Adjustments:
    """The file's fits; none for an empty path. CacheStateError says why it cannot be used."""
    if not path:
        return Adjustments({})
    from safetensors.torch import load_file

    try:
        return Adjustments(load_file(Path(path).expanduser()))
    except Exception as error:  # safetensors raises its own kinds for what is no file of its
        raise CacheStateError(
            f'adjustments "{path}" cannot be used: {error}; write them with scripts/record_similarity.py'
        ) from error
