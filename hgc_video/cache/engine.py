"""Carries out a schedule on live models: layers are computed, taken from the store, or not run.

The loop tells it the position; it decides nothing and copies no forward. Dead layers hand on
stand-ins of the right shape that take no memory, so that the host's own forward keeps working.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CacheStateError
from ..plan.cost import PARTS, layer_macs
from ..plan.graph import BlockGraph, Layer
from ..plan.schedule import Schedule
from .patch import Patch, undo_all
from .shared import SharedRows
from .store import Key, Store
from .work import StepWork, prepare


@contextmanager
def attach(
    schedule: Schedule, *, graph: BlockGraph, unet: Any, controlnet: Any = None
) -> Iterator[Engine]:
    """Wraps the models while the `with` block lasts; undo is exact, also after an exception."""
    engine = Engine(schedule, graph)
    patches: list[Patch] = []
    try:
        for part, model in (("unet", unet), ("controlnet", controlnet)):
            if model is not None:
                patches += engine.wrap(part, model)
        yield engine
    finally:
        undo_all(patches)
        engine.store.clear()


class Engine:
    """The state of one accelerated pipeline: its schedule, its store, where the run is, what it did."""

    def __init__(self, schedule: Schedule, graph: BlockGraph) -> None:
        self.schedule, self.graph = schedule.check(graph), graph
        self.store = Store()
        self._works = prepare(schedule, graph)
        self._work: StepWork | None = None
        self._run, self._window, self._rows = 0, 0, 0
        self._shapes: dict[str, tuple[torch.Size, bool]] = {}
        self._shared = SharedRows(graph.branches)
        self.executed: list[dict[str, int]] = []
        self.peak_nbytes = 0

    def begin_run(self) -> None:
        """Starts clean: nothing of the run before is left."""
        self.store.clear()
        self.peak_nbytes = 0
        self._shared.clear()
        self._run += 1
        self._work = None
        self.executed = []

    def at(self, step_index: int, window: int = 0) -> None:
        """Tells the position; CacheStateError beyond the schedule's steps."""
        if not 0 <= step_index < len(self._works):
            raise CacheStateError(
                f"step {step_index} is beyond the schedule's {len(self._works)} steps; "
                "make one of that length"
            )
        if step_index == 0:
            self.begin_run()
        self.peak_nbytes = max(self.peak_nbytes, self.nbytes)
        self._work, self._window = self._works[step_index], window
        self._forget()
        self.executed.append(dict.fromkeys(PARTS, 0))

    @property
    def work(self) -> StepWork:
        """The work of the step that the loop is at."""
        if self._work is None:
            raise CacheStateError(
                "the engine was not told the step; call at(step_index=...) before the models"
            )
        return self._work

    def macs_by_part(self) -> dict[str, int]:
        """MACs executed since the run began."""
        return {part: sum(step[part] for step in self.executed) for part in PARTS}

    @property
    def nbytes(self) -> int:
        """Bytes kept now, shared rows included."""
        return self.store.nbytes + self._shared.nbytes

    def wrap(self, part: str, model: nn.Module) -> list[Patch]:
        """Replaces the forwards of a model's layers; the caller undoes the patches."""
        patches = []
        for layer in self.graph.layers:
            if layer.part == part and layer.kind != "join":
                around = self._hint(layer) if layer.kind == "hint" else self._layer(layer)
                patches.append(Patch(_module(model, layer.name), around))
                patches += self._wrap_cross(model, layer)
        patches.append(
            Patch(model, self._unet(model) if part == "unet" else self._controlnet(model))
        )
        return patches

    def _wrap_cross(self, model: nn.Module, layer: Layer) -> Iterator[Patch]:
        for name in layer.cross:
            if layer.part == "unet":
                yield Patch(_module(model, name), self._cross(name))
            if self.schedule.share_text:
                for projection in (f"{name}.to_k", f"{name}.to_v"):
                    yield Patch(_module(model, projection), self._text(projection))

    def _key(self, layer: str) -> Key:
        return Key(self._run, self._window, self.work.branches, layer)

    def _forget(self) -> None:
        """Drops what no step from here on reads; tensors of the branches before the gate with it."""
        work = self.work
        before = self._works[work.index - 1].keep if work.index else frozenset()
        self.store.keep_only(
            lambda key: (key.layer in before and key.branches == work.branches) or "#" in key.layer
        )

    def _layer(self, layer: Layer) -> Any:
        def around(forward: Any, *args: Any, **kwargs: Any) -> Any:
            work = self.work
            if layer.name not in work.alive:
                return self._instead(layer, work)
            out = forward(*args, **kwargs)
            first = out[0] if isinstance(out, tuple) else out
            self._shapes[layer.name] = (first.shape, isinstance(out, tuple))
            if layer.name in work.keep:
                self.store.put(self._key(layer.name), first)
            self._count(layer)
            return out

        return around

    def _instead(self, layer: Layer, work: StepWork) -> Any:
        shape, in_tuple = self._shapes[layer.name]
        if layer.name in work.read:
            value = self.store.get(self._key(layer.name), self._rows)
        else:
            value = self._nothing.expand(self._rows, *shape[1:])
        return (value,) if in_tuple else value

    def _hint(self, layer: Layer) -> Any:
        """The control clip encoded once per run, and once for both branches, which see the same clip."""

        def around(forward: Any, conditioning: Tensor) -> Any:
            if layer.name in self.work.alive and not self.schedule.share_text:
                self._count(layer)
                return forward(conditioning)
            if layer.name not in self.work.alive | self.work.read:
                return self._nothing.expand(self._rows, 1, 1, 1)
            if layer.name in self.work.alive:
                self._count(layer)
            return self._shared.halves(layer.name, forward, conditioning, self.work.branches)

        return around

    def _text(self, name: str) -> Any:
        def around(forward: Any, states: Tensor) -> Tensor:
            return self._shared.rows(name, forward, states, self.work.branches)

        return around

    def _cross(self, name: str) -> Any:
        """Cross-attention: its mean over both branches is kept at the gate and used after it."""

        def around(forward: Any, *args: Any, **kwargs: Any) -> Any:
            work = self.work
            key = Key(self._run, self._window, 1, f"{name}#fused")
            if work.cross == "fused":
                return self.store.get(key, self._rows)
            out = forward(*args, **kwargs)
            if work.cross == "fuse":
                uncond, cond = out.chunk(2)
                self.store.put(key, (uncond + cond) / 2)
            return out

        return around

    def _unet(self, unet: nn.Module) -> Any:
        signature = inspect.signature(unet.forward)

        def around(forward: Any, *args: Any, **kwargs: Any) -> Any:
            call = signature.bind(*args, **kwargs).arguments
            self._begin(call["sample"])
            gated = self.work.branches < self.graph.branches
            if gated:
                _second_half(call, "sample", "encoder_hidden_states")
            sample = call["sample"]
            self._rows = sample.shape[0] * (sample.shape[2] if sample.ndim == 5 else 1)
            out = forward(**call)
            return _twice(out) if gated else out

        return around

    def _controlnet(self, controlnet: nn.Module) -> Any:
        signature = inspect.signature(controlnet.forward)
        count = sum(la.kind == "zero_conv" for la in self.graph.layers) - 1

        def around(forward: Any, *args: Any, **kwargs: Any) -> Any:
            call = signature.bind(*args, **kwargs).arguments
            self._begin(call["sample"])
            if self.work.idle("controlnet"):
                return (self._nothing,) * count, self._nothing
            if self.work.branches < self.graph.branches:
                _second_half(call, "sample", "encoder_hidden_states", "controlnet_cond")
            self._rows = call["sample"].shape[0]
            return forward(**call)

        return around

    def _begin(self, like: Tensor) -> None:
        self._nothing = torch.zeros((), dtype=like.dtype, device=like.device)

    def _count(self, layer: Layer) -> None:
        step = self.schedule.steps[self.work.index]
        self.executed[-1][layer.part] += layer_macs(
            self.graph, layer, step, self.schedule.share_text, first=self.work.index == 0
        )


def _module(model: nn.Module, name: str) -> nn.Module:
    """The module of a layer's name, which begins with the part."""
    return model.get_submodule(name.partition(".")[2])


def _second_half(call: dict[str, Any], *names: str) -> None:
    """Leaves the prompt's branch of the doubled batch: uncond is first, cond second."""
    for name in names:
        call[name] = call[name].chunk(2)[1]


def _twice(out: Any) -> Any:
    """One branch's prediction as both: guidance u + g (c - u) then gives it back unchanged."""
    if isinstance(out, tuple):
        return (torch.cat([out[0]] * 2), *out[1:])
    out.sample = torch.cat([out.sample] * 2)
    return out
