"""The block graph of models that are loaded: as kept for their configurations, or built and then kept."""

from __future__ import annotations

from typing import Any

from ..plan.clip_shape import ClipShape
from ..plan.graph import BlockGraph
from .graph_builder import build_graph
from .graph_store import graph_of
from .layout import read_layout
from .loaded_configurations import configurations_of


def loaded_graph(
    unet: Any, controlnet: Any, shape: ClipShape, *, dtype_nbytes: int = 4
) -> BlockGraph:
    """The graph that `build_graph` gives, without the second that it takes where it was built before, in
    whatever process.

    It is kept for models that their configurations describe, so not with FreeNoise or an IP-Adapter.

    Raises:
        AdapterError: an unknown layout.
    """
    models = configurations_of(unet, controlnet)
    if models is not None:
        # Built from the configurations alone: what is kept for them is never that of a changed model.
        graph = graph_of(models, shape, dtype_nbytes)
        if _is_of(graph, unet, controlnet):
            return graph
    return build_graph(unet, controlnet, shape, dtype_nbytes=dtype_nbytes)


def _is_of(graph: BlockGraph, unet: Any, controlnet: Any) -> bool:
    """Whether a graph has the layers of these models, which may have been changed since they were made."""
    layout = read_layout(unet, controlnet)
    nodes = [(node.name, node.kind, node.inputs) for node in layout.nodes]
    return nodes == [(layer.name, layer.kind, layer.inputs) for layer in graph.layers]
