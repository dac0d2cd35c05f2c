"""What a model is called with and what it gives back: the prompt's half of it, the prediction in it."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

RESIDUALS = ("down_block_additional_residuals", "mid_block_additional_residual")
_DOUBLED = (
    "sample", "timestep", "encoder_hidden_states", "controlnet_cond", "timestep_cond",
    "added_time_ids", "added_cond_kwargs", "conditioning_mask",
)  # fmt: skip


def bound(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """What a model is called with, by name; residuals too where its class does not know them, because
    `residual_inputs` takes them."""
    beside = {
        name: kwargs[name]
        for name in RESIDUALS
        if name not in signature.parameters and name in kwargs
    }
    own = {name: value for name, value in kwargs.items() if name not in beside}
    call = signature.bind(None, *args, **own).arguments
    del call["self"]
    return call | beside


def prompt_half(call: dict[str, Any]) -> None:
    """Leaves the prompt's branch of everything that comes doubled: uncond is first, cond second."""
    for name in _DOUBLED:
        if name in call:
            call[name] = _half(call[name])


def prompt_residuals(call: dict[str, Any], rows: int) -> None:
    """Leaves the prompt's half of those residuals that still have the rows of both branches."""
    down = call.get("down_block_additional_residuals")
    if down is not None:
        call["down_block_additional_residuals"] = tuple(_of_rows(r, rows) for r in down)
    mid = call.get("mid_block_additional_residual")
    if mid is not None:
        call["mid_block_additional_residual"] = _of_rows(mid, rows)


def drop_residuals(call: dict[str, Any], alive: Collection[str], zero: Tensor) -> None:
    """A net that ran whole hands on residuals for skips that nobody reads: they have no rows to meet, and
    `zero` takes their place. `alive` are the names of what is computed."""
    down = call.get("down_block_additional_residuals")
    if down is None:
        return
    call["down_block_additional_residuals"] = tuple(
        residual if f"unet.skip.{k}" in alive else zero for k, residual in enumerate(down)
    )
    if "unet.skip.mid" not in alive:
        call["mid_block_additional_residual"] = zero


def sum_residuals(
    nets: Sequence[tuple[Sequence[Tensor], Tensor]],
) -> tuple[Sequence[Tensor], Tensor]:
    """The residuals of several ControlNets, added up in their order as MultiControlNetModel does it."""
    (down, mid), *others = nets
    for more, last in others:
        down = [before + added for before, added in zip(down, more, strict=True)]
        mid = mid + last
    return down, mid


def _of_rows(residual: Tensor, rows: int) -> Tensor:
    both = residual.ndim > 0 and len(residual) == rows
    return residual.chunk(2)[1] if both else residual


def _half(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _half(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_half(item) for item in value)
    doubled = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] % 2 == 0
    return value.chunk(2)[1] if doubled else value


def latents_of(sample: Tensor, prediction: Tensor) -> Tensor:
    """The latents among a UNet's input channels, which come first; an image's may follow them."""
    axis = 2 if sample.ndim == 5 and sample.shape[2] != prediction.shape[2] else 1
    return sample.narrow(axis, 0, prediction.shape[axis])


def prediction_of(out: Any) -> Tensor:
    """The prediction in a UNet's output."""
    prediction: Tensor = out[0] if isinstance(out, tuple) else out.sample
    return prediction


def with_prediction(out: Any, prediction: Tensor) -> Any:
    """The model's output with another prediction."""
    if isinstance(out, tuple):
        return (prediction, *out[1:])
    out.sample = prediction
    return out


def transforms_skips(unet: Any) -> bool:
    """Whether the UNet's blocks work on what they are handed beyond concatenating it: FreeU (2309.11497)
    scales it in place, and its Fourier transforms refuse stand-ins without rows."""
    return any(getattr(block, "s1", None) is not None for block in unet.up_blocks)
