"""The exact split: per-frame layers run over a few frames at a time, motion modules over a few positions.

Same result, lower peak. What couples frames is never cut: a motion module's group norm runs over all
frames and positions; inside its transformer blocks every position is for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..plan.graph import BlockGraph
from ..plan.memory.budget import Chunks
from .patch import Patch, undo_all

_PER_FRAME = ("resnet", "sampler", "conv_in", "conv_out", "hint", "zero_conv")


@contextmanager
def split(
    chunks: Chunks, *, graph: BlockGraph, unet: Any, controlnet: Any = None
) -> Iterator[None]:
    """Wraps the models' layers while the `with` block lasts; put it around the engine's `attach`."""
    patches: list[Patch] = []
    try:
        for part, model in (("unet", unet), ("controlnet", controlnet)):
            for module, rows in (
                _splittable(graph, part, model, chunks) if model is not None else ()
            ):
                patches.append(Patch(module, _InRows(rows)))
        yield
    finally:
        undo_all(patches)


def _splittable(
    graph: BlockGraph, part: str, model: Any, chunks: Chunks
) -> Iterator[tuple[nn.Module, int]]:
    """The modules of a model that can be split, each with the most rows that it may take at once."""
    inner = getattr(model, "_orig_mod", model)
    for layer in graph.layers:
        if layer.part != part or graph.frames_axis != 2:  # SVD's layers mix frames inside
            continue
        module = inner.get_submodule(layer.name.partition(".")[2]) if layer.kind != "join" else None
        if module is not None and layer.kind in _PER_FRAME and chunks.frames:
            yield module, chunks.frames
        if module is not None and layer.kind in ("attention", "motion"):
            rows = chunks.frames if layer.kind == "attention" else chunks.positions
            for block in module.transformer_blocks if rows else ():
                yield from ((inside, rows) for inside in _insides(block, layer.kind))


def _insides(block: Any, kind: str) -> list[nn.Module]:
    """What is split of a transformer block: its attentions and feed-forward, each for itself, so that
    the engine keeps their whole outputs; but not what reads the text, which is projected once for all
    rows together."""
    second = [block.attn2] if kind == "motion" else []
    return [block.attn1, *second, block.ff]


class _InRows:
    """Calls a forward on at most so many rows at a time and puts the results together."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else next(v for v in kwargs.values() if isinstance(v, Tensor))
        total = len(first)
        if total <= self.rows:
            return forward(*args, **kwargs)
        joined: Tensor | None = None
        for start in range(0, total, self.rows):
            part = slice(start, start + self.rows)
            out = forward(
                *(_cut(value, part, total) for value in args),
                **{name: _cut(value, part, total) for name, value in kwargs.items()},
            )
            in_tuple = isinstance(out, tuple)
            piece = out[0] if in_tuple else out
            if joined is None:  # written in place, so that the parts never lie beside the whole
                joined = piece.new_empty((total, *piece.shape[1:]))
            joined[part] = piece
        assert joined is not None
        return (joined,) if in_tuple else joined


def _cut(value: Any, part: slice, total: int) -> Any:
    """The rows of a tensor that has one row for each of the batch; anything else as it is."""
    rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == total
    return value[part] if rows else value
