"""Keeps a VAE's values within float16's range: what each level adds up may reach millions in training.

Every group norm divides by the spread of what it reads, so a level's sum and the sums inside its residual
blocks may be scaled as a whole: the factors go into the convolutions and no picture changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

_MOST = 512.0  # the largest value on the frames looked at; float16 ends at 65,504


@torch.no_grad()
def fit_float16(vae: AutoencoderKL, pixels: Tensor) -> dict[str, float]:
    """Scales what exceeds 512 on these frames (b 3 H W) in -1..1 by a power of two; the factors by place."""
    largest, found = _largest(vae, pixels), {}
    for name, convolution in _inner(vae):
        found[name] = _factor(largest[convolution])
        _scale(convolution, found[name], found[name])
    for name, coder in (("encoder", vae.encoder), ("decoder", vae.decoder)):
        before = 1.0
        for level, (producer, resnets) in enumerate(_levels(coder)):
            factor = _factor(max(largest[module] for module in (producer, *resnets)))
            _scale(producer, factor / before, factor)
            for resnet in resnets:
                _scale(resnet.conv2, factor, factor)
                if resnet.conv_shortcut is not None:
                    _scale(resnet.conv_shortcut, 1, factor)
            found[f"{name}.{level}"] = before = factor
    return {name: factor for name, factor in found.items() if factor != 1}


def _inner(vae: AutoencoderKL) -> Iterator[tuple[str, Any]]:
    """The first convolution of every residual block: a norm reads it and nothing else does."""
    for name, module in vae.named_modules():
        if hasattr(module, "conv1") and hasattr(module, "norm2"):
            yield f"{name}.conv1", module.conv1


def _levels(coder: Any) -> Iterator[tuple[Any, list[Any]]]:
    """The convolution that begins each level's sum, and the residual blocks that add to it."""
    encodes = hasattr(coder, "down_blocks")
    blocks = list(coder.down_blocks if encodes else coder.up_blocks)
    producer, resnets = coder.conv_in, [] if encodes else list(coder.mid_block.resnets)
    for block in blocks:
        resnets += block.resnets
        moves = (block.downsamplers if encodes else block.upsamplers) or ()
        if moves:
            yield producer, resnets
            producer, resnets = moves[0].conv, []
    yield producer, resnets + (list(coder.mid_block.resnets) if encodes else [])


def _largest(vae: AutoencoderKL, pixels: Tensor) -> dict[nn.Module, float]:
    """The largest magnitude that each module with one output gives on the way to latents and back."""
    seen: dict[nn.Module, float] = {}

    def look(module: nn.Module, _: object, out: object) -> None:
        if isinstance(out, Tensor):
            seen[module] = max(seen.get(module, 0.0), float(out.abs().max()))

    handles = [module.register_forward_hook(look) for module in vae.modules()]
    try:
        vae.decode(vae.encode(pixels).latent_dist.mean)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _factor(largest: float) -> float:
    return 1.0 if largest <= _MOST else 2.0 ** math.floor(math.log2(_MOST / largest))


def _scale(convolution: nn.Conv2d, weight: float, bias: float) -> None:
    convolution.weight.mul_(weight)
    if convolution.bias is not None:
        convolution.bias.mul_(bias)
