"""The block graph of models that are given by their configurations: as kept, or built and then kept.

Loads torch and diffusers only where a graph has to be built.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ..errors import PlanError
from ..plan.clip_shape import ClipShape
from ..plan.graph import BlockGraph
from .configurations import Configurations
from .kept_data import keep, read_own, read_shipped


def graph_of(
    models: Configurations, shape: ClipShape, dtype_nbytes: int = 4, convention: str = "all"
) -> BlockGraph:
    """The graph of a UNet and its ControlNets for clips of a shape; see `build_graph`.

    Raises:
        AdapterError: an unknown layout.
        PlanError: an unknown convention.
    """
    request = graph_request(models, shape, dtype_nbytes, convention)
    for read in (read_shipped, read_own):
        if (kept := read(request)) is not None:
            with suppress(PlanError):  # spoilt: it is built anew
                return BlockGraph.from_dict(kept)
    graph = build(models, shape, dtype_nbytes, convention)
    keep(request, graph.to_dict())
    return graph


def build(
    models: Configurations, shape: ClipShape, dtype_nbytes: int = 4, convention: str = "all"
) -> BlockGraph:
    """The graph from the models themselves, on the meta device."""
    from .graph_builder import build_graph

    return build_graph(*models.build(), shape, dtype_nbytes=dtype_nbytes, convention=convention)


def graph_request(
    models: Configurations, shape: ClipShape, dtype_nbytes: int = 4, convention: str = "all"
) -> dict[str, Any]:
    """What a graph is kept under."""
    asked = {**asdict(shape), "dtype_nbytes": dtype_nbytes, "convention": convention}
    return {"kind": "graph", **described(models), "shape": asked}


def of_request(request: Mapping[str, Any]) -> tuple[Configurations, ClipShape, int, str]:
    """The arguments of `graph_of` that a graph is kept under."""
    asked = dict(request["shape"])
    counted = asked.pop("dtype_nbytes"), asked.pop("convention")
    models = Configurations(request["unet"], tuple(request["controlnets"]), {})
    return models, ClipShape(**asked), *counted


def described(models: Configurations) -> dict[str, Any]:
    """UNet and ControlNets as plain data, without what diffusers notes of where a file comes from."""
    told: dict[str, Any] = {
        "unet": plain_configuration(models.unet),
        "controlnets": [plain_configuration(net) for net in models.controlnets],
    }
    return told if models.picture is None else {**told, "picture": list(models.picture)}


def plain_configuration(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's configuration without what diffusers notes of where its file comes from."""
    return {k: v for k, v in config.items() if k == "_class_name" or not k.startswith("_")}
