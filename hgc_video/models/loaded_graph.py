"""The block graph of models that are loaded: as kept for their configurations, or built and then kept."""

from __future__ import annotations

from typing import Any

from ..plan.clip_shape import ClipShape
from ..plan.graph import BlockGraph
from .graph_builder import build_graph
from .graph_store import graph_request, keep_graph, kept_graph
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
    if models is None:
        return build_graph(unet, controlnet, shape, dtype_nbytes=dtype_nbytes)
    request = graph_request(models, shape, dtype_nbytes)
    found = kept_graph(request)
    if found is None or not _is_of(found, unet, controlnet):
        found = build_graph(unet, controlnet, shape, dtype_nbytes=dtype_nbytes)
        keep_graph(request, found)
    return found


def _is_of(graph: BlockGraph, unet: Any, controlnet: Any) -> bool:
    """Whether a graph has the layers of these models, which may have been changed since they were made."""
    layout = read_layout(unet, controlnet)
    nodes = [(node.name, node.kind, node.inputs) for node in layout.nodes]
    return nodes == [(layer.name, layer.kind, layer.inputs) for layer in graph.layers]
