"""Refuses models whose layout is not known, with what was expected and what was found."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any, NoReturn

from ..errors import AdapterError

TEMPORAL_UNET, TEMPORAL_CONTROLNET = (
    "UNetSpatioTemporalConditionModel",
    "SpatioTemporalControlNetModel",
)
UNETS = ("UNetMotionModel", "UNet2DConditionModel", TEMPORAL_UNET)
CONTROLNETS = ("ControlNetModel", "SparseControlNetModel", TEMPORAL_CONTROLNET)
_IN_BLOCKS = ("resnets", "attentions", "motion_modules", "downsamplers", "upsamplers")
_ADDED = (None, "text_time")  # what SDXL adds to the timestep; others need inputs we do not know


def is_a(model: Any, name: str) -> bool:
    """Whether a model is of the diffusers class of this name, also wrapped by torch.compile."""
    inner = getattr(model, "_orig_mod", model)
    return name in [c.__name__ for c in type(inner).__mro__]


def foreign_method(cls: type, method: str, known: Collection[str]) -> str | None:
    """The name of a class that overrides a method of one of the `known` classes, by name, and does not
    call theirs; None where it is theirs that runs in the end."""
    for base in cls.__mro__:
        if base.__name__ in known and method in vars(base):
            return None
        if method in vars(base):
            names = inspect.unwrap(vars(base)[method]).__code__.co_names
            if method not in names or not {"super", *known} & set(names):
                return base.__name__
    return None


def _probe_forward(model: Any, known: Collection[str]) -> None:
    """AdapterError where a subclass runs its layers in an order of its own."""
    cls = type(getattr(model, "_orig_mod", model))
    if (other := foreign_method(cls, "forward", known)) is not None:
        raise AdapterError(
            f"{other} has a forward of its own, which a cache cannot follow; supported are the forwards of "
            f"{', '.join(known)}, and subclasses that call theirs"
        )


def probe_unet(unet: Any) -> None:
    """AdapterError unless this is a UNet that can be laid out."""
    if not any(is_a(unet, name) for name in UNETS):
        raise AdapterError(
            f"{type(unet).__name__} is not supported; supported are {', '.join(UNETS)}"
        )
    _probe_forward(unet, UNETS)
    _expect(unet, "time_embedding", "conv_in", "down_blocks", "mid_block", "up_blocks", "conv_out")
    _probe_blocks(unet)
    for block in unet.up_blocks:
        _expect_named(block, "upsamplers")
    _probe_embeddings(unet)


def probe_controlnet(controlnet: Any) -> None:
    """AdapterError unless this is a ControlNet that can be laid out."""
    if not any(is_a(controlnet, name) for name in CONTROLNETS):
        raise AdapterError(
            f"{type(controlnet).__name__} is not supported; supported are {', '.join(CONTROLNETS)} and "
            "MultiControlNetModel"
        )
    _probe_forward(controlnet, CONTROLNETS)
    _expect(
        controlnet, "controlnet_cond_embedding", "time_embedding", "conv_in", "down_blocks",
        "mid_block", "controlnet_down_blocks", "controlnet_mid_block",
    )  # fmt: skip
    _probe_blocks(controlnet)
    _probe_embeddings(controlnet)


def probe_pair(unet: Any, controlnet: Any) -> None:
    """AdapterError unless the ControlNet's frames go together as the UNet's do."""
    if is_a(unet, TEMPORAL_UNET) != is_a(controlnet, TEMPORAL_CONTROLNET):
        raise AdapterError(
            f"{type(controlnet).__name__} cannot control {type(unet).__name__}: {TEMPORAL_UNET} and "
            f"{TEMPORAL_CONTROLNET} belong together, as do the others"
        )


def _probe_embeddings(model: Any) -> None:
    added = model.config.get("addition_embed_type")
    if added not in _ADDED or model.config.get("class_embed_type") is not None:
        raise AdapterError(
            f"{type(model).__name__} adds {added or model.config.class_embed_type} embeddings to its "
            "timestep; only SDXL's (text_time) are known"
        )


def _probe_blocks(model: Any) -> None:
    """What a block holds must be known by name, or its layers would be run where a plan says not to."""
    for block in (*model.down_blocks, model.mid_block, *getattr(model, "up_blocks", ())):
        _expect(block, "resnets")
        unknown = [name for name, _ in block.named_children() if name not in _IN_BLOCKS]
        if unknown:
            _moved(block, f"nothing but {', '.join(_IN_BLOCKS)}")
        for name in ("attentions", "motion_modules"):
            for module in getattr(block, name, None) or ():
                if module is not None:
                    _probe_attentions(module)
    for block in model.down_blocks:
        _expect_named(block, "downsamplers")


def _probe_attentions(module: Any) -> None:
    attentions = [part for part in module.modules() if hasattr(part, "is_cross_attention")]
    if not attentions:
        _moved(module, "attentions that tell is_cross_attention")
    for attention in attentions:
        _expect(attention, "to_q", "to_k", "to_v")


def _expect(module: Any, *attributes: str) -> None:
    missing = [a for a in attributes if getattr(module, a, None) is None]
    if missing:
        _moved(module, ", ".join(missing))


def _expect_named(module: Any, attribute: str) -> None:
    """For what a block may be without, but says so."""
    if not hasattr(module, attribute):
        _moved(module, f"{attribute}, or to say that it has none")


def _moved(module: Any, expected: str) -> NoReturn:
    found = ", ".join(name for name, _ in module.named_children()) or "no modules"
    raise AdapterError(
        f"{type(module).__name__} was expected to have {expected}; it has {found}: "
        "this diffusers lays its models out differently"
    )
