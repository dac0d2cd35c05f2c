"""Residual inputs for a UNet that has none: Stable Video Diffusion's takes a ControlNet's like the others.

Its forward stays diffusers' own. The residuals of the skips are added where an up block is handed them,
that of the middle where the mid block gives its output: the sums that other UNets make themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ..errors import CacheStateError
from .model_calls import RESIDUALS
from .patch import Patch, undo_all

_DOWN, _MID = RESIDUALS


@contextmanager
def residual_inputs(unet: Any) -> Iterator[None]:
    """Lets a UNet be called with `down_block_additional_residuals` and `mid_block_additional_residual`
    while the `with` block lasts; one that takes them by itself is left as it is.

    Put it around the engine's `attach`, so that the engine sees the residuals.
    """
    inner = getattr(unet, "_orig_mod", unet)  # torch.compile wraps a model in another
    patches: list[Patch] = []
    try:
        if _DOWN not in inspect.signature(type(inner).forward).parameters:
            added = _Added([len(block.resnets) for block in inner.up_blocks])
            patches.append(Patch(unet, added.around_unet, alone=False))
            patches.append(Patch(inner.mid_block, added.around_mid))
            for i, block in enumerate(inner.up_blocks):
                patches.append(Patch(block, added.around_up(i)))
        yield
    finally:
        undo_all(patches)


class _Added:
    """The residuals of the call that is under way, and the wrappers that add them.

    `counts` are the skips that each up block reads; the innermost block reads the last ones.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._total = sum(counts)
        ends = [self._total - sum(counts[:i]) for i in range(len(counts))]
        self._parts = [slice(end - n, end) for end, n in zip(ends, counts, strict=True)]
        self._down: Sequence[Tensor] | None = None
        self._mid: Tensor | None = None

    def around_unet(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """In place of the UNet's forward."""
        self._down, self._mid = kwargs.pop(_DOWN, None), kwargs.pop(_MID, None)
        if self._down is not None and len(self._down) != self._total:
            raise CacheStateError(
                f"{len(self._down)} residuals were given, this UNet has {self._total} skips; "
                "take a ControlNet that was made for it"
            )
        try:
            return forward(*args, **kwargs)
        finally:
            self._down = self._mid = None

    def around_mid(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """In place of the mid block's forward."""
        out = forward(*args, **kwargs)
        return out if self._mid is None else out + self._mid

    def around_up(self, index: int) -> Callable[..., Any]:
        """What stands in place of an up block's forward."""

        def around(forward: Any, *args: Any, **kwargs: Any) -> Any:
            if self._down is not None:
                pairs = zip(
                    kwargs["res_hidden_states_tuple"], self._down[self._parts[index]], strict=True
                )
                kwargs["res_hidden_states_tuple"] = tuple(skip + added for skip, added in pairs)
            return forward(*args, **kwargs)

        return around
