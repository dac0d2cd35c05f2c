"""The block graph: a UNet with its ControlNet as layers that read each other's outputs.

Pure data. Does not know how layers are found in a model, nor how they are run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ..errors import PlanError


@dataclass(frozen=True)
class Layer:
    """One node: a module of the model, or a `join` where a skip meets a ControlNet residual.

    `name` is the part ("unet" or "controlnet") and the module's path. MACs and output bytes are of
    one guidance branch; `cross_macs` is the share of `macs` that cross-attention takes, `text_macs`
    the share of it that projects the text to keys and values; `cross` names those attentions.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    macs: int = 0
    nbytes: int = 0
    cross_macs: int = 0
    text_macs: int = 0
    cross: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """unet or controlnet."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class BlockGraph:
    """Layers in execution order; the last one is the prediction. `cuts[d - 1]` is the tensor that
    a step may take from the store to keep only the last d layers of the up path alive."""

    layers: tuple[Layer, ...]
    cuts: tuple[str, ...]
    branches: int
    num_frames: int

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for layer in self.layers:
            unknown = [name for name in layer.inputs if name not in seen]
            if unknown or layer.name in seen:
                raise PlanError(f"layer {layer.name} reads {unknown} before they are made")
            seen.add(layer.name)

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """Layers by name."""
        return {layer.name: layer for layer in self.layers}

    @property
    def output(self) -> str:
        """The layer whose output is the prediction."""
        return self.layers[-1].name

    def names(self, kind: str) -> tuple[str, ...]:
        """Names of all layers of a kind."""
        return tuple(layer.name for layer in self.layers if layer.kind == kind)

    def alive(self, reused: Iterable[str] = ()) -> frozenset[str]:
        """The layers that must be computed when the outputs of `reused` come from the store."""
        held = set(reused)
        alive: set[str] = set()
        waiting = [self.output]
        while waiting:
            name = waiting.pop()
            if name not in alive and name not in held:
                alive.add(name)
                waiting.extend(self.by_name[name].inputs)
        return frozenset(alive)

    def read(self, reused: Iterable[str] = ()) -> frozenset[str]:
        """The stored outputs that a step with these reuses really reads."""
        held = set(reused)
        alive = self.alive(held)
        inputs = {name for layer in alive for name in self.by_name[layer].inputs}
        return frozenset(inputs & held)
