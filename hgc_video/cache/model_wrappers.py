"""What runs in place of the forward of a UNet and of a ControlNet."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..plan.graph import PREDICTION
from .current_step import CurrentStep
from .extrapolation import measured_progress
from .model_calls import (
    bound,
    drop_residuals,
    prediction_of,
    prompt_half,
    prompt_residuals,
)

if TYPE_CHECKING:
    from .engine import Engine


class UNetWrapper:
    """Runs a UNet by the plan of the engine's current step; `name` is the model's in the graph."""

    def __init__(self, engine: Engine, unet: Any, name: str) -> None:
        self._engine, self._name = engine, name
        self._signature = inspect.signature(type(unet).forward)
        self._channels: int = unet.config.out_channels

    def __call__(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """In place of `forward`."""
        return self.run(forward, bound(self._signature, args, kwargs))

    def run(self, forward: Any, call: dict[str, Any]) -> Any:
        """The UNet's output for these arguments (by name)."""
        engine = self._engine.responsible(self._name, call, last=True)
        if engine is not self._engine:
            return forward(**call) if engine is None else engine.run(self._name, forward, call)
        step = self._enter(forward, call)
        graph, prediction = self._engine.graph, self._engine.prediction
        gated, computed = step.branches < graph.branches, graph.output in step.work.live.computed
        if gated:
            prompt_half(call)
            prompt_residuals(call, step.frames * graph.branches)
        if step.guess_mode:
            drop_residuals(call, step.work.live.computed, step.zero)
        if PREDICTION in step.work.live.added:
            out = prediction.repeat(call["sample"], step)
        elif step.work.step.clean:
            out = prediction.forecast(call, step)
        else:
            out = self._engine.call(self._name, forward, call, step)
        if computed:
            prediction.keep(out, call, step)
        difference = prediction.branch_difference(step)
        self._engine.leave(step, prediction_of(out) if computed else None)
        return prediction.both(out, difference, step) if gated else out

    def _enter(self, forward: Any, call: dict[str, Any]) -> CurrentStep:
        engine, branches = self._engine, self._engine.graph.branches
        step = engine.enter(self._name, forward, call, branches=branches)
        step.progress = measured_progress(step, call["sample"], self._channels, engine.graph)
        engine.prepare(self._name, step)
        return step


class ControlNetWrapper:
    """Runs a ControlNet by the plan of the engine's current step; `name` is the model's in the graph."""

    def __init__(self, engine: Engine, net: Any, name: str) -> None:
        self._engine, self._name = engine, name
        self._signature = inspect.signature(type(net).forward)

    def __call__(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """In place of `forward`."""
        return self.run(forward, bound(self._signature, args, kwargs))

    def run(self, forward: Any, call: dict[str, Any]) -> Any:
        """The ControlNet's output for these arguments (by name)."""
        name, engine = self._name, self._engine.responsible(self._name, call, last=False)
        if engine is not self._engine:
            return forward(**call) if engine is None else engine.run(name, forward, call)
        graph = engine.graph
        guess_mode = bool(call.get("guess_mode")) and graph.branches > 1
        step = engine.enter(name, forward, call, branches=1 if guess_mode else graph.branches)
        if guess_mode:
            return engine.call_in_guess_mode(name, forward, call, step)
        engine.prepare(name, step)
        if step.work.idle(name):
            several = sum(residual.startswith(f"{name}.") for residual in graph.residuals()) - 1
            return (step.zero,) * several, step.zero
        if step.branches < graph.branches:
            prompt_half(call)
        return engine.call(name, forward, call, step)
