"""The block graph of models that are given by their configurations: as kept, or built and then kept.

Loads torch and diffusers only where a graph has to be built.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import PlanError
from ..plan.graph import BlockGraph
from .configurations import Configurations
from .kept_data import keep, read_own, read_shipped


@dataclass(frozen=True)
class GraphShape:
    """What a graph depends on beside its models: frames, latent height and width, tokens of the prompt,
    guidance branches, bytes of a number, and how MACs are counted (see `build_graph`)."""

    num_frames: int
    height: int
    width: int
    num_tokens: int
    branches: int = 2
    dtype_nbytes: int = 4
    convention: str = "all"


def graph_of(models: Configurations, shape: GraphShape) -> BlockGraph:
    """The graph of a UNet and its ControlNets for clips of this shape.

    Raises:
        AdapterError: an unknown layout.
        PlanError: an unknown convention.
    """
    request = graph_request(models, shape)
    for read in (read_shipped, read_own):
        if (kept := read(request)) is not None:
            with suppress(PlanError):  # spoilt: it is built anew
                return BlockGraph.from_dict(kept)
    graph = build(models, shape)
    keep(request, graph.to_dict())
    return graph


def build(models: Configurations, shape: GraphShape) -> BlockGraph:
    """The graph from the models themselves, on the meta device."""
    from .graph_builder import build_graph

    return build_graph(*models.build(), **asdict(shape))


def graph_request(models: Configurations, shape: GraphShape) -> dict[str, Any]:
    """What a graph is kept under."""
    return {"kind": "graph", **described(models), "shape": asdict(shape)}


def described(models: Configurations) -> dict[str, Any]:
    """UNet and ControlNets as plain data, without what diffusers notes of where a file comes from."""
    told: dict[str, Any] = {
        "unet": _described(models.unet),
        "controlnets": [_described(net) for net in models.controlnets],
    }
    return told if models.picture is None else {**told, "picture": list(models.picture)}


def _described(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k == "_class_name" or not k.startswith("_")}
