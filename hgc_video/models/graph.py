"""Builds the block graph of a UNet and its ControlNet: MACs and bytes of every layer, from the meta device.

The models are rebuilt from their configuration without weights and run once on meta tensors, where
torch's counter counts every product, fused attention included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..measure.macs import MacCounter
from ..plan.graph import Attention, BlockGraph, Layer
from .layout import Layout, Node, read_layout


@dataclass
class _Seen:
    """What one run on the meta device showed of a module."""

    macs: dict[str, int] = field(default_factory=dict)
    nbytes: dict[str, int] = field(default_factory=dict)


def build_graph(
    unet: Any, controlnet: Any = None, *, num_frames: int, height: int, width: int, num_tokens: int,
    branches: int = 2, dtype_nbytes: int = 4,
) -> BlockGraph:  # fmt: skip
    """The graph for clips of `num_frames` latents of `height` x `width` and prompts of `num_tokens`.

    `branches` is 2 with classifier-free guidance. Raises AdapterError for an unknown layout.
    """
    layout = read_layout(unet, controlnet)
    size = (num_frames, height, width)
    seen = {"unet": _run_unet(_on_meta(unet), *size, num_tokens)}
    if controlnet is not None:
        seen["controlnet"] = _run_controlnet(_on_meta(controlnet), *size, num_tokens)
    models = {"unet": unet, "controlnet": controlnet}
    layers = [_layer(node, layout, models, seen, dtype_nbytes) for node in layout.nodes]
    blocks = tuple(len(b.resnets) for b in reversed(unet.up_blocks))
    return BlockGraph(tuple(layers), layout.cuts, branches, num_frames, blocks)


def _attention_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Path and module of every attention."""
    for path, child in module.named_modules():
        if hasattr(child, "is_cross_attention"):
            yield path, child


def _layer(
    node: Node, layout: Layout, models: dict[str, Any], seen: dict[str, _Seen], dtype_nbytes: int
) -> Layer:
    if node.path is None:
        return Layer(node.name, node.kind, node.inputs)
    part = node.name.partition(".")[0]
    found, owner = seen[part], models[part].get_submodule(node.path)
    crosses = [(f"{node.path}.{path}", m) for path, m in _attention_modules(owner)]
    return Layer(
        name=node.name,
        kind=node.kind,
        inputs=node.inputs,
        macs=found.macs[node.path],
        nbytes=found.nbytes[node.path] * dtype_nbytes,
        attentions=tuple(
            Attention(
                f"{part}.{c}",
                "cross"
                if m.is_cross_attention
                else "temporal"
                if node.kind == "motion"
                else "spatial",
                found.macs[c],
                found.nbytes[c] * dtype_nbytes,
                sum(found.macs[f"{c}.{p}"] for p in ("to_k", "to_v"))
                if m.is_cross_attention
                else 0,
            )
            for c, m in crosses
        ),
    )


def _on_meta(model: Any) -> Any:
    with torch.device("meta"):
        copy = type(model).from_config(model.config)
    return copy.to("meta").eval()


@contextmanager
def _watching(model: nn.Module) -> Iterator[_Seen]:
    """Notes MACs and output elements of every module that runs meanwhile."""
    seen, handles = _Seen(), []
    with MacCounter() as counter:
        for path, module in model.named_modules():
            begun: list[int] = []

            def before(_module: Any, _args: Any, begun: list[int] = begun) -> None:
                begun.append(counter.macs)

            def after(
                _module: Any, _args: Any, out: Any, path: str = path, begun: list[int] = begun
            ) -> None:
                first = out[0] if isinstance(out, tuple) else out
                seen.macs[path] = seen.macs.get(path, 0) + counter.macs - begun.pop()
                seen.nbytes[path] = first.numel() if isinstance(first, torch.Tensor) else 0

            handles += [
                module.register_forward_pre_hook(before),
                module.register_forward_hook(after),
            ]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


@torch.no_grad()
def _run_unet(unet: Any, num_frames: int, height: int, width: int, num_tokens: int) -> _Seen:
    flat = "UNetMotionModel" not in [c.__name__ for c in type(unet).__mro__]
    channels = unet.config.in_channels
    shape = (
        (num_frames, channels, height, width) if flat else (1, channels, num_frames, height, width)
    )
    with _watching(unet) as seen:
        unet(_meta(*shape), _meta().long(), _text(unet, num_frames, num_tokens))
    return seen


@torch.no_grad()
def _run_controlnet(
    controlnet: Any, num_frames: int, height: int, width: int, num_tokens: int
) -> _Seen:
    factor = 2 ** (len(controlnet.config.conditioning_embedding_out_channels) - 1)
    hint = _meta(
        num_frames, controlnet.config.conditioning_channels, height * factor, width * factor
    )
    latents = _meta(num_frames, controlnet.config.in_channels, height, width)
    with _watching(controlnet) as seen:
        controlnet(latents, _meta().long(), _text(controlnet, num_frames, num_tokens), hint)
    return seen


def _text(model: Any, num_frames: int, num_tokens: int) -> torch.Tensor:
    width = model.config.cross_attention_dim
    return _meta(num_frames, num_tokens, width if isinstance(width, int) else width[0])


def _meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")
