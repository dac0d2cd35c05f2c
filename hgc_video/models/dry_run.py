"""Runs a model once on the meta device and notes what every module of it costs; no weights.

That depends on the model's configuration and the clip's size alone, and is done once for each in a process.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ..measure.macs import MacCounter
from ..measure.meta_results import MetaResults
from ..plan.clip_shape import ClipShape
from .image_prompt import image_prompt_like, picture_inputs, picture_shapes
from .probe import TEMPORAL_CONTROLNET, TEMPORAL_UNET, is_a
from .windowed import inner_calls, window_like

_MAX_SEEN = 64  # models of a size; a graph of a large one is a few hundred KiB


@dataclass
class Seen:
    """Per module path: MACs, the share of them that attention's two products take, output shape."""

    macs: dict[str, int] = field(default_factory=dict)
    products: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, torch.Size] = field(default_factory=dict)


_DryRun = Callable[[Any, ClipShape], Seen]


@dataclass(frozen=True)
class Build:
    """What a rebuilt model depends on: class, configuration, and what FreeNoise and IP-Adapters made of the
    model. The model is any of those; it is not kept alive."""

    kind: type
    config: str
    parts: tuple[Any, ...]
    model: Callable[[], Any] = field(compare=False)

    @classmethod
    def of(cls, model: Any) -> Build:
        """That of a live model."""
        inner = getattr(model, "_orig_mod", model)
        config = repr(sorted(item for item in inner.config.items() if not item[0].startswith("_")))
        parts = (*inner_calls(inner), *picture_shapes(inner))
        return cls(type(inner), config, parts, weakref.ref(model))


def _once(dry_run: _DryRun) -> _DryRun:
    """Runs for models of one configuration and shape once; nobody changes what was seen."""

    @lru_cache(_MAX_SEEN)
    def seen(build: Build, shape: ClipShape) -> Seen:
        return dry_run(build.model(), shape)

    def kept(model: Any, shape: ClipShape) -> Seen:
        return seen(Build.of(model), shape)

    return kept


@_once
@torch.no_grad()
def dry_run_unet(unet: Any, shape: ClipShape) -> Seen:
    """What a UNet does for one clip of one guidance branch."""
    copy, f = on_meta(unet), shape.num_frames
    channels = unet.config.in_channels
    frame = (shape.height, shape.width)
    with _watching(copy) as seen:
        if is_a(unet, TEMPORAL_UNET):
            copy(*_temporal_inputs(unet, shape))
        elif is_a(unet, "UNetMotionModel"):
            added = added_inputs(unet, 1)
            copy(_meta(1, channels, f, *frame), _meta().long(), _text(unet, f, shape), **added)
        else:
            copy(
                _meta(f, channels, *frame),
                _meta().long(),
                _text(unet, f, shape),
                **added_inputs(unet, f),
            )
    return seen


@_once
@torch.no_grad()
def dry_run_controlnet(net: Any, shape: ClipShape) -> Seen:
    """What a ControlNet does for one clip of one guidance branch."""
    if is_a(net, "SparseControlNetModel"):
        return _dry_run_sparse(net, shape)
    copy, f = on_meta(net), shape.num_frames
    factor = 2 ** (len(net.config.conditioning_embedding_out_channels) - 1)
    hint = _meta(f, net.config.conditioning_channels, shape.height * factor, shape.width * factor)
    latents = _meta(f, net.config.in_channels, shape.height, shape.width)
    with _watching(copy) as seen:
        if is_a(net, TEMPORAL_CONTROLNET):
            copy(*_temporal_inputs(net, shape), hint[None])
        else:
            copy(latents, _meta().long(), _text(net, f, shape), hint, **added_inputs(net, f))
    return seen


def _temporal_inputs(model: Any, shape: ClipShape) -> tuple[torch.Tensor, ...]:
    """Latents (1 f c h w), timestep, context and added ids of a spatio-temporal model."""
    latents = _meta(1, shape.num_frames, model.config.in_channels, shape.height, shape.width)
    return latents, _meta().long(), _text(model, 1, shape), _meta(1, 3)


def _dry_run_sparse(net: Any, shape: ClipShape) -> Seen:
    """What a SparseCtrl does for one clip: its control comes as a clip too, at the latents' size where
    it is encoded by the VAE, and with a mask of the frames that are given."""
    copy, f = on_meta(net), shape.num_frames
    simple = isinstance(copy.controlnet_cond_embedding, nn.Conv2d)
    factor = 1 if simple else 2 ** (len(net.config.conditioning_embedding_out_channels) - 1)
    frame = (shape.height * factor, shape.width * factor)
    latents = _meta(1, net.config.in_channels, f, shape.height, shape.width)
    hint, mask = _meta(1, net.config.conditioning_channels, f, *frame), _meta(1, 1, f, *frame)
    with _watching(copy) as seen:
        copy(latents, _meta().long(), _text(net, f, shape), hint, conditioning_mask=mask)
    return seen


def added_inputs(model: Any, rows: int) -> dict[str, Any]:
    """SDXL's pooled text and sizes, and what an IP-Adapter reads, as keywords of a model's forward; none
    for others."""
    added: dict[str, Any] = {}
    if pictures := picture_inputs(model, rows):
        added["image_embeds"] = pictures
    if model.config.get("addition_embed_type") == "text_time":
        ids = 6
        width = model.config.projection_class_embeddings_input_dim
        pooled = width - ids * model.config.addition_time_embed_dim
        added |= {"text_embeds": _meta(rows, pooled), "time_ids": _meta(rows, ids)}
    return {"added_cond_kwargs": added} if added else {}


def on_meta(model: Any, dtype: torch.dtype | None = None) -> Any:
    """The model rebuilt from its configuration without weights, with FreeNoise and IP-Adapters where it has
    those."""
    inner = getattr(model, "_orig_mod", model)
    if is_a(inner, "MultiControlNetModel"):
        return type(inner)([on_meta(net, dtype) for net in inner.nets])
    with torch.device("meta"):
        copy = type(inner).from_config(inner.config)
    image_prompt_like(copy, inner)
    # SVD's blenders make CPU tensors whatever the device; diffusers' own `to` warns of meta tensors.
    nn.Module.to(copy, "meta", dtype or torch.float32)
    window_like(copy, inner)
    return copy.eval()


@contextmanager
def _watching(model: nn.Module) -> Iterator[Seen]:
    seen, handles = Seen(), []
    with MetaResults(), MacCounter() as counter:
        for path, module in model.named_modules():
            begun: list[tuple[int, int]] = []

            def before(_module: Any, _args: Any, begun: list[tuple[int, int]] = begun) -> None:
                begun.append((counter.macs, counter.attention_products))

            def after(
                _module: Any, _args: Any, out: Any, path: str = path,
                begun: list[tuple[int, int]] = begun,
            ) -> None:  # fmt: skip
                macs, products = begun.pop()
                seen.macs[path] = seen.macs.get(path, 0) + counter.macs - macs
                gained = counter.attention_products - products
                seen.products[path] = seen.products.get(path, 0) + gained
                first = out[0] if isinstance(out, tuple | list) else out
                if isinstance(first, torch.Tensor):
                    seen.shapes[path] = first.shape

            handles += [
                module.register_forward_pre_hook(before),
                module.register_forward_hook(after),
            ]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def _text(model: Any, rows: int, shape: ClipShape) -> torch.Tensor:
    width = model.config.cross_attention_dim
    return _meta(rows, shape.num_tokens, width if isinstance(width, int) else width[0])


def _meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float32, device="meta")
