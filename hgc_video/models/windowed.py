"""What FreeNoise (2310.15169) makes of a motion UNet, as diffusers has it.

Its motion modules run their transformer blocks on windows of frames and blend them; split inference runs
layers on a few rows at a time. A layer stays one layer; what lies inside runs more than once a call.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

_WINDOWS = ("context_length", "context_stride")


def inner_calls(module: Any) -> tuple[Any, ...]:
    """How a layer runs what lies inside it more than once: lengths and strides of FreeNoise's windows,
    sizes of split inference; empty where everything in it runs once."""
    calls: list[Any] = []
    for part in module.modules():
        if is_windowed(part):
            calls.append(tuple(getattr(part, name) for name in _WINDOWS))
        elif is_split(part):
            calls.append((part.split_size, part.split_dim))
    return tuple(calls)


def is_windowed(module: nn.Module) -> bool:
    """Whether this is a FreeNoise transformer block."""
    return type(module).__name__ == "FreeNoiseTransformerBlock"


def is_split(module: nn.Module) -> bool:
    """Whether this runs the module that it holds on a few rows at a time."""
    return type(module).__name__ == "SplitInferenceModule"


def window_like(copy: Any, live: Any) -> None:
    """Gives a rebuilt UNet the FreeNoise blocks that the live one has, as the pipeline does it."""
    blocks = [block for block in live.modules() if is_windowed(block)]
    if not blocks:
        return
    from diffusers.pipelines.free_noise_utils import AnimateDiffFreeNoiseMixin

    first = blocks[0]
    pipe = SimpleNamespace(
        _free_noise_context_length=first.context_length,
        _free_noise_context_stride=first.context_stride,
        _free_noise_weighting_scheme=first.weighting_scheme,
        device=copy.device, dtype=copy.dtype,
    )  # fmt: skip
    parts = [*copy.down_blocks, copy.mid_block, *copy.up_blocks]
    for part in parts:
        if getattr(part, "motion_modules", None) is not None:
            AnimateDiffFreeNoiseMixin._enable_free_noise_in_block(pipe, part)
