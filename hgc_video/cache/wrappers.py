"""The places in a model where a plan acts: a layer, or an attention inside one.

A wrapper is given its instructions before the forward, follows them, and holds what it made until it is
collected.
Only plain attributes are read on the way, so that a compiled model stays compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..plan.graph import Attention, Layer
from .anchors import AnchorRows

RUN, GIVE, ADD = "run", "give", "add"
_NOTHING = torch.empty(
    0
)  # one for all: to free tensors must not take memory, which may have run out


class Site:
    """What layers and attentions have in common.

    mode: run the module; give `value` in its place; or add `value` to its input.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.mode, self.value = RUN, _NOTHING
        self.keep = False
        self.made: Tensor | None = None
        self.ran = False

    def run(self) -> None:
        """Has the module run as it does by itself, and nothing kept."""
        self.mode, self.keep, self.ran = RUN, False, False

    def give(self, value: Tensor) -> None:
        """Has `value` handed on instead of running the module."""
        self.mode, self.value = GIVE, value

    def forget(self) -> None:
        """Frees all tensors."""
        self.made, self.value = None, _NOTHING


class LayerSite(Site):
    """A layer: resnet, transformer, motion module, sampler …

    copies: diffusers changes what it is handed in place (FreeU does), so that it gets copies.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer.name)
        self.layer = layer
        # Transformers are asked for a tuple by every block; a run that was seen tells better.
        self.in_tuple = layer.kind == "attention"
        self.shape: torch.Size | None = None
        self.keep_contribution = self.copies = False
        self.delta: Tensor | None = None

    def __call__(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """In place of the module's forward."""
        if self.mode == GIVE:
            value = self._own(self.value)
            return (value,) if self.in_tuple else value
        if self.mode == ADD:
            out = _input(args, kwargs) + self.value
            return (out,) if self.in_tuple else out
        out = forward(*args, **kwargs)
        if isinstance(out, list):  # of IP-Adapters, one each; never kept
            self.ran = True
            return out
        first = out[0] if isinstance(out, tuple) else out
        self.in_tuple, self.shape, self.ran = isinstance(out, tuple), first.shape, True
        if self.keep:
            self.made = self._own(first)
        if self.keep_contribution:
            self.delta = first - _input(args, kwargs)
        return out

    def seen(self) -> tuple[bool, list[int] | None]:
        """How the layer gives its output, and its shape at the last run; None before the first."""
        return self.in_tuple, None if self.shape is None else list(self.shape)

    def have_seen(self, in_tuple: bool, shape: Sequence[int] | None) -> None:
        """What `seen` told of a run that goes on."""
        self.in_tuple, self.shape = in_tuple, None if shape is None else torch.Size(shape)

    def _own(self, tensor: Tensor) -> Tensor:
        return tensor.clone(memory_format=torch.contiguous_format) if self.copies else tensor

    def run(self) -> None:
        """Has the layer run as it does by itself, and nothing kept."""
        super().run()
        self.keep_contribution = False

    def stand_in(self, zero: Tensor, rows: int) -> Tensor:
        """A tensor of the layer's shape for who must be handed something that nobody reads."""
        if self.shape is None:  # never run: only a ControlNet's, where no shapes meet
            return zero.expand(0, 1, 1, 1)
        return zero.expand(rows, *self.shape[1:])

    def forget(self) -> None:
        """Frees all tensors."""
        super().forget()
        self.delta = None


class AttentionSite(Site):
    """An attention; its output is kept before the residual is added.

    average_branches: the mean over both branches is kept, T-GATE eq. 6 (2404.02747). anchors: rows of the
    frames that are computed, and for every row the two of them it is mixed from, with the second's weight.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__(attention.name)
        self.attention = attention
        self.average_branches = False
        self.anchors: AnchorRows | None = None

    def __call__(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """In place of the attention's forward."""
        if self.mode == GIVE:
            return self._whole(self.value, _input(args, kwargs))
        out = (
            self._at_anchors(forward, *args, **kwargs) if self.anchors else forward(*args, **kwargs)
        )
        self.ran = True
        if self.keep:
            made: Tensor = out.unflatten(0, (2, -1)).mean(0) if self.average_branches else out
            # A copy, as a slice of one row is contiguous and would hold all positions.
            constant = self.attention.constant
            self.made = (
                made[:, :1].clone(memory_format=torch.contiguous_format) if constant else made
            )
        return out

    def run(self) -> None:
        """Has the attention run as it does by itself, and nothing kept."""
        super().run()
        self.anchors = None

    def _whole(self, value: Tensor, like: Tensor) -> Tensor:
        """The value for all positions; a constant attention is kept for one."""
        return value.expand(-1, like.shape[1], -1) if self.attention.constant else value

    def _at_anchors(self, forward: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        assert self.anchors is not None
        rows, first, second, weight = self.anchors
        count = len(hidden_states)
        kwargs = {name: _of_rows(value, rows, count) for name, value in kwargs.items()}
        out = forward(hidden_states[rows], *args, **kwargs)
        return torch.lerp(out[first], out[second], weight.to(out.dtype))


def _of_rows(value: Any, rows: Tensor, count: int) -> Any:
    """These rows of what has `count` of them; of the text beside pictures, which IP-Adapters have, too."""
    if isinstance(value, tuple | list):
        return type(value)(_of_rows(inner, rows, count) for inner in value)
    return value[rows] if isinstance(value, Tensor) and value.shape[:1] == (count,) else value


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that a block hands its layer, by place or by name."""
    tensor: Tensor = args[0] if args else kwargs["hidden_states"]
    return tensor
