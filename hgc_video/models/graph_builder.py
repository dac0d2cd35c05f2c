"""Builds the block graph of a UNet and its ControlNets: MACs and bytes of every layer and attention.

The models are rebuilt from their configuration without weights and run once on meta tensors, where
torch's counter counts every product, fused attention included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from ..errors import PlanError
from ..plan.clip_shape import ClipShape
from ..plan.graph import Attention, BlockGraph, Layer
from .dry_run import Seen, dry_run_controlnet, dry_run_unet
from .layout import Node, controlnets, read_layout

ALL, NO_PRODUCTS = "all", "no-attention-products"
CONVENTIONS = (ALL, NO_PRODUCTS)


def build_graph(
    unet: Any,
    controlnet: Any,
    shape: ClipShape,
    *,
    dtype_nbytes: int = 4,
    convention: str = ALL,
) -> BlockGraph:
    """The graph of a UNet and its ControlNets (or None) for clips of a shape.

    `dtype_nbytes` are the bytes of a number in the tensors that are kept. `convention`
    "no-attention-products" leaves out what older counters miss: the products of queries with keys and of
    weights with values. Raises AdapterError for an unknown layout, PlanError for an unknown convention.
    """
    if convention not in CONVENTIONS:
        raise PlanError(f'unknown convention "{convention}"; choose {" or ".join(CONVENTIONS)}')
    layout = read_layout(unet, controlnet)
    nets = controlnets(controlnet)
    seen = {"unet": dry_run_unet(unet, shape)}
    seen |= {prefix: dry_run_controlnet(net, shape) for prefix, net in nets.items()}
    models = {"unet": unet, **nets}
    read = _Reader(convention, dtype_nbytes, shape.num_tokens)
    layers = tuple(read.layer(node, models[node.model], seen[node.model]) for node in layout.nodes)
    return BlockGraph(
        layers, layout.depths, shape.branches, shape.num_frames, layout.blocks, layout.frames_axis
    )


class _Reader:
    """Turns nodes and what was seen of their modules into layers."""

    def __init__(self, convention: str, dtype_nbytes: int, num_tokens: int) -> None:
        self.whole, self.dtype_nbytes = convention == ALL, dtype_nbytes
        self.num_tokens = num_tokens

    def layer(self, node: Node, model: Any, seen: Seen) -> Layer:
        """The layer of a node."""
        if node.path is None:
            return Layer(node.name, node.kind, node.inputs)
        attentions = [
            self._attention(node, path, module, seen)
            for path, module in _attention_modules(model.get_submodule(node.path), node.path)
            if not node.inner_calls
        ]
        return Layer(
            node.name, node.kind, node.inputs, self._macs(node.path, seen),
            self._nbytes(node.path, seen), tuple(attentions),
        )  # fmt: skip

    def _attention(self, node: Node, path: str, module: Any, seen: Seen) -> Attention:
        temporal = node.kind == "motion" or ".temporal_transformer_blocks." in path
        kind = "temporal" if temporal else "spatial"
        nbytes, text, constant = self._nbytes(path, seen), 0, False
        if module.is_cross_attention:
            kind, constant = "cross", self.num_tokens == 1
            if constant:  # kept for one position only
                nbytes //= seen.shapes[path][1]
            else:
                text = sum(self._macs(f"{path}.{p}", seen) for p in ("to_k", "to_v"))
        return Attention(
            f"{node.model}.{path}", kind, self._macs(path, seen), nbytes, text, constant
        )

    def _macs(self, path: str, seen: Seen) -> int:
        return seen.macs[path] if self.whole else seen.macs[path] - seen.products[path]

    def _nbytes(self, path: str, seen: Seen) -> int:
        return seen.shapes[path].numel() * self.dtype_nbytes


def _attention_modules(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Path and module of every attention in a layer; known by what it has, never by its name."""
    for inner, child in module.named_modules():
        if hasattr(child, "is_cross_attention"):
            yield f"{path}.{inner}", child
