"""The block graph: a UNet with its ControlNets as layers that read each other's outputs.

Pure data. Does not know how layers are found in a model, how they are run, nor what a step reuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import PlanError, one_line

PREDICTION = "unet"  # names the UNet itself where a step reuses the whole prediction
ATTENTION_KINDS = ("spatial", "temporal", "cross")


@dataclass(frozen=True)
class Attention:
    """An attention inside a layer; its output, before the residual is added, can be reused by itself.

    MACs and output bytes are of one guidance branch. `text_macs` is the share of `macs` that projects
    the text to keys and values. A `constant` one reads a single token, so that its softmax is 1 and
    its output depends neither on the latents nor on the step.
    """

    name: str
    kind: str
    macs: int = 0
    nbytes: int = 0
    text_macs: int = 0
    constant: bool = False

    @property
    def per_frame(self) -> bool:
        """Whether it reads the text anew for every frame, so that some frames can stand for others."""
        return self.kind == "cross" and not self.constant


@dataclass(frozen=True)
class Layer:
    """One node: a module of the model, or a `join` where a skip meets the ControlNets' residuals.

    `name` is the part ("unet" or "controlnet") and the module's path. MACs and output bytes are of
    one guidance branch; the attentions' MACs are part of the layer's.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    macs: int = 0
    nbytes: int = 0
    attentions: tuple[Attention, ...] = ()

    @property
    def part(self) -> str:
        """unet or controlnet."""
        return self.name.partition(".")[0]

    @property
    def has_delta(self) -> bool:
        """Whether the layer adds to its input, so that out - in can be kept instead of the output."""
        return self.kind in ("attention", "motion")


@dataclass(frozen=True)
class BlockGraph:
    """Layers in execution order; the last one is the prediction. `depths[d - 1]` is the tensor that
    a step may take from the store to keep only the last d layers of the up path alive; `blocks` are
    how many of these layers each up block has, outermost first; `frames_axis` is where the UNet's
    input has its frames: 2 of (b c f h w), 1 of (b f c h w)."""

    layers: tuple[Layer, ...]
    depths: tuple[str, ...]
    branches: int
    num_frames: int
    blocks: tuple[int, ...] = ()
    frames_axis: int = 2

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for layer in self.layers:
            unknown = [name for name in layer.inputs if name not in seen]
            if unknown or layer.name in seen:
                raise PlanError(f"layer {layer.name} reads {unknown} before they are made")
            seen.add(layer.name)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and words; `from_dict` reads them back. Defaults are left out."""
        fields: dict[str, Any] = _adapter().dump_python(self, mode="json", exclude_defaults=True)
        return fields

    @classmethod
    def from_dict(cls, data: Any) -> BlockGraph:
        """The graph that `to_dict` wrote; PlanError says what is wrong with another."""
        try:
            return _adapter().validate_python(data)
        except ValidationError as error:
            said = one_line(error, "a block graph", cls.__dataclass_fields__)
            raise PlanError(f"this is no block graph: {said}; give what to_dict wrote") from error

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """Layers by name."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def attentions(self) -> dict[str, Attention]:
        """Attentions by name."""
        return {a.name: a for layer in self.layers for a in layer.attentions}

    @property
    def output(self) -> str:
        """The layer whose output is the prediction."""
        return self.layers[-1].name

    def names(self, kind: str, part: str = "") -> tuple[str, ...]:
        """Names of all layers of a kind, of one part or of all."""
        return tuple(la.name for la in self.layers if la.kind == kind and part in ("", la.part))

    def attention_names(self, *kinds: str, part: str = "unet") -> frozenset[str]:
        """Names of a part's attentions of these kinds: spatial, temporal, cross."""
        found = self._attentions_of(part)
        return frozenset(a.name for a in found if a.kind in kinds)

    def residuals(self) -> tuple[str, ...]:
        """Names of what the ControlNets hand to the UNet."""
        return self.names("zero_conv")

    def _attentions_of(self, part: str) -> Iterator[Attention]:
        for layer in self.layers:
            if layer.part == part:
                yield from layer.attentions


@cache
def _adapter() -> TypeAdapter[BlockGraph]:
    return TypeAdapter(BlockGraph)
