"""What is read of a name: the last value, or a linear combination of the last ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..plan.coefficients import slope_of
from .latent_progress import per_row


def combined(
    values: Sequence[Tensor],
    coefficients: tuple[float, ...],
    progress: Tensor | None,
    branches: int,
) -> Tensor:
    """a1 F1 + a2 F2 + ... of the values (branches·frames ...), the newest first; F1 without coefficients.

    With `progress` (b) every clip goes so many times as far from F1 as the coefficients say.
    """
    newest = values[0]
    if not coefficients:
        return newest
    slope = slope_of(coefficients)
    if slope is not None:
        weight = slope if progress is None else per_row(slope * progress, newest, branches)
        return newest + weight * (newest - values[1])
    # Large coefficients of either sign cancel, which half precision would not stand.
    wide = torch.promote_types(newest.dtype, torch.float32)
    total = coefficients[0] * newest.to(wide)
    for coefficient, value in zip(coefficients[1:], values[1:], strict=True):
        total.add_(value, alpha=coefficient)
    mixed = total.to(newest.dtype)
    if progress is None:
        return mixed
    return newest + per_row(progress, newest, branches) * (mixed - newest)
