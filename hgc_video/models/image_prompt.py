"""What an IP-Adapter (2308.06721) makes of a UNet: attention to a picture, and what projects the picture."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

PROJECTION = "encoder_hid_proj"
_PATCHES = 257  # of ViT-H at 224 pixels, with the class token


def image_prompt_like(copy: Any, live: Any) -> None:
    """Gives a UNet that was rebuilt on the meta device the IP-Adapters that the live one has."""
    if not has_pictures(live):
        return
    copy.encoder_hid_proj = _on_meta(live.encoder_hid_proj)
    copy.config.encoder_hid_dim_type = "ip_image_proj"
    copy.set_attn_processor({
        name: _on_meta(processor) if isinstance(processor, nn.Module) else processor
        for name, processor in live.attn_processors.items()
    })  # fmt: skip


def add_image_prompt(unet: Any, tokens: int, width: int) -> None:
    """Gives a UNet on the meta device an IP-Adapter of the usual kind, for pictures of so many tokens whose
    encoder gives vectors of this width."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
    from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection

    text = unet.config.cross_attention_dim
    made = dict(unet.attn_processors)
    with torch.device("meta"):
        for name in made:
            if name.endswith("attn2.processor") and "motion_modules" not in name:
                attention = unet.get_submodule(name.removesuffix(".processor"))
                made[name] = IPAdapterAttnProcessor2_0(
                    attention.to_q.out_features, text, num_tokens=(tokens,)
                )
        unet.encoder_hid_proj = MultiIPAdapterImageProjection(
            [ImageProjection(width, text, tokens)]
        )
    unet.config.encoder_hid_dim_type = "ip_image_proj"
    unet.set_attn_processor(made)


def picture_inputs(model: Any, rows: int) -> list[torch.Tensor]:
    """Meta tensors as the picture's encoder gives them, one for each IP-Adapter: (rows 1 d), or
    (rows 1 n d) for those that read its patches; none where there is no IP-Adapter."""
    if not has_pictures(model):
        return []
    layers = model.encoder_hid_proj.image_projection_layers
    return [_input(layer, rows) for layer in layers]


def picture_shapes(model: Any) -> tuple[torch.Size, ...]:
    """The shapes of all weights of a UNet's IP-Adapters; none where there is none."""
    if not has_pictures(model):
        return ()
    modules = [model.encoder_hid_proj, *model.attn_processors.values()]
    return tuple(
        p.shape for module in modules if isinstance(module, nn.Module) for p in module.parameters()
    )


def has_pictures(model: Any) -> bool:
    """Whether a UNet has IP-Adapters."""
    projection = getattr(getattr(model, "_orig_mod", model), PROJECTION, None)
    return type(projection).__name__ == "MultiIPAdapterImageProjection"


def _input(layer: Any, rows: int) -> torch.Tensor:
    plain = getattr(layer, "image_embeds", None)
    if plain is not None:
        return torch.empty(rows, 1, plain.in_features, dtype=torch.float32, device="meta")
    first = next(part for part in layer.modules() if isinstance(part, nn.Linear))
    return torch.empty(rows, 1, _PATCHES, first.in_features, dtype=torch.float32, device="meta")


def _on_meta(module: nn.Module) -> nn.Module:
    """A copy without weights; none are ever there twice."""
    tensors = [*module.parameters(), *module.buffers()]
    memo: dict[int, Any] = {}
    for tensor in tensors:
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if is_parameter else empty
    return deepcopy(module, memo)
