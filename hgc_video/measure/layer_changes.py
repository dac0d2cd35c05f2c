"""Measures how much every layer changes from step to step in real runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from torch import Tensor

from ..plan.graph import BlockGraph, Layer

Seen = Callable[[str, int, Tensor], None]


class Recorder:
    """Watches the layers of live models while a loop runs; tell it the position as an engine.

    `see(layer, step_index, features)` gets deltas (out - in) of layers that have them and
    outputs of the others.
    """

    def __init__(self, graph: BlockGraph, models: Mapping[str, Any], see: Seen) -> None:
        self.graph, self.models, self.see = graph, models, see
        self._index = 0
        self._handles: list[Any] = []

    def at(self, step_index: int, window: int = 0) -> None:
        """Tells the position."""
        self._index = step_index

    def only_windows(self, windows: object, following: int) -> None:
        """Nothing is kept for windows."""

    def __enter__(self) -> Recorder:
        for layer in self.graph.layers:
            model = self.models.get(layer.part)
            if model is not None and layer.kind != "join":
                module = model.get_submodule(layer.name.partition(".")[2])
                hook = self._hook(layer)
                self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _hook(self, layer: Layer) -> Any:
        def look(module: Any, args: Any, kwargs: Any, out: Any) -> None:
            first = out[0] if isinstance(out, tuple) else out
            if layer.has_delta:
                first = first - (args[0] if args else kwargs["hidden_states"])
            self.see(layer.name, self._index, first)

        return look


class ChangeMeter:
    """Mean relative L1 change of each layer against the step before (Block Caching eq. 6)."""

    def __init__(self, num_inference_steps: int) -> None:
        self.num_inference_steps = num_inference_steps
        self._before: dict[str, Tensor] = {}
        self._sums: dict[str, list[float]] = {}
        self._clips: dict[str, int] = {}

    def __call__(self, layer: str, step_index: int, features: Tensor) -> None:
        """Takes in a layer's features at a step."""
        sums = self._sums.setdefault(layer, [0.0] * self.num_inference_steps)
        if step_index == 0:
            self._clips[layer] = self._clips.get(layer, 0) + 1
        else:
            change = (features - self._before[layer]).abs().mean() / features.abs().mean()
            sums[step_index] += float(change)
        self._before[layer] = features

    def means(self) -> dict[str, tuple[float, ...]]:
        """By layer, for every step the mean over all clips so far; 0 at step 0."""
        return {k: tuple(v / self._clips[k] for v in sums) for k, sums in self._sums.items()}
