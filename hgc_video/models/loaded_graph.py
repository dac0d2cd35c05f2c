"""The block graph of models that are loaded: as kept for their configurations, or built and then kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..errors import ModelError
from ..plan.clip_shape import ClipShape
from ..plan.graph import BlockGraph
from .configurations import Configurations, model_class
from .dry_run import Build
from .graph_builder import build_graph
from .graph_store import graph_request, keep_graph, kept_graph
from .layout import controlnets, read_layout


def loaded_graph(
    unet: Any, controlnet: Any, shape: ClipShape, *, dtype_nbytes: int = 4
) -> BlockGraph:
    """The graph that `build_graph` gives, without the second that it takes where it was built before, in
    whatever process.

    It is kept for models that their configurations describe, so not with FreeNoise or an IP-Adapter.

    Raises:
        AdapterError: an unknown layout.
    """
    models = _described(unet, controlnet)
    if models is None:
        return build_graph(unet, controlnet, shape, dtype_nbytes=dtype_nbytes)
    request = graph_request(models, shape, dtype_nbytes)
    found = kept_graph(request)
    if found is None or not _is_of(found, unet, controlnet):
        found = build_graph(unet, controlnet, shape, dtype_nbytes=dtype_nbytes)
        keep_graph(request, found)
    return found


def _described(unet: Any, controlnet: Any) -> Configurations | None:
    """The models' configurations; None where those do not say all that the graph depends on."""
    models = [unet, *controlnets(controlnet).values()]
    told = [_configuration(model) for model in models]
    known = [one for one in told if one is not None]
    return Configurations(known[0], tuple(known[1:]), {}) if len(known) == len(told) else None


def _configuration(model: Any) -> Mapping[str, Any] | None:
    """A model's configuration with its class; None where the model is more than that, another class of that
    name, or has a configuration that is no plain data (quantised models note objects there)."""
    build = Build.of(model)
    name = build.kind.__name__
    config = getattr(model, "_orig_mod", model).config
    told = {k: v for k, v in config.items() if not k.startswith("_")} | {"_class_name": name}
    with suppress(ModelError, TypeError):
        json.dumps(told)
        return told if model_class(name) is build.kind and not build.parts else None
    return None


def _is_of(graph: BlockGraph, unet: Any, controlnet: Any) -> bool:
    """Whether a graph has the layers of these models, which may have been changed since they were made."""
    layout = read_layout(unet, controlnet)
    nodes = [(node.name, node.kind, node.inputs) for node in layout.nodes]
    return nodes == [(layer.name, layer.kind, layer.inputs) for layer in graph.layers]
