"""What is kept of the UNet's whole prediction, and how a prediction is made of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import CacheStateError
from ..plan.graph import PREDICTION
from ..plan.liveness import CFG_DELTA, clean_at, delta
from .cfg import both_branches
from .combination import combined
from .current_step import CurrentStep
from .model_calls import latents_of, prediction_of, with_prediction
from .noise_levels import NoiseLevels


class PredictionCache:
    """Keeps the prediction as its difference to the latents, and the difference of the guidance branches;
    gives the prediction back in the output type of the UNet."""

    def __init__(self, noise: NoiseLevels | None = None) -> None:
        self.noise = noise
        self._output_type: Any = None

    def state(self) -> str | None:
        """The name of the UNet's output type, None before one was kept."""
        return None if self._output_type is None else str(self._output_type.__name__)

    def restore(self, state: str | None, unet: Any) -> None:
        """Takes the output type of this name, which the UNet's own module knows; CacheStateError where it
        does not."""
        home = sys.modules[type(getattr(unet, "_orig_mod", unet)).__module__]
        known = {None: None, "tuple": tuple}
        self._output_type = known[state] if state in known else getattr(home, str(state), None)
        if state is not None and not isinstance(self._output_type, type):
            raise CacheStateError(
                f"{type(unet).__name__} has no output {state}; begin the run anew"
            )

    def keep(self, out: Any, call: Mapping[str, Any], step: CurrentStep) -> None:
        """Keeps what a later step reads of an output that was computed from a call (arguments by name)."""
        prediction, keep, sample = prediction_of(out), step.work.keep, call["sample"]
        self._output_type = type(out)
        if clean_at(step.index) in keep:
            latents = latents_of(sample, prediction)
            clean = self._levels().clean(latents, prediction, call["timestep"])
            step.put(clean_at(step.index), clean)
        if delta(PREDICTION) in keep:
            step.put(delta(PREDICTION), prediction - latents_of(sample, prediction))
        if CFG_DELTA in keep and step.branches == 2:
            uncond, cond = prediction.chunk(2)
            step.put(CFG_DELTA, uncond - cond, 1)

    def repeat(self, sample: Tensor, step: CurrentStep) -> Any:
        """The UNet's output without running it: the latents plus the kept difference."""
        kept = step.read(delta(PREDICTION), PREDICTION)
        return self._output(latents_of(sample, kept) + kept)

    def forecast(self, call: Mapping[str, Any], step: CurrentStep) -> Any:
        """The UNet's output for a call (arguments by name) without running it, from the clean latents that
        earlier steps' predictions stand for, which the step's then stands for."""
        weights = dict(step.work.step.clean)
        values = [step.read(clean_at(index)) for index in weights]
        clean = combined(values, tuple(weights.values()), None, step.branches)
        if clean_at(step.index) in step.work.keep:
            step.put(clean_at(step.index), clean)
        latents = latents_of(call["sample"], clean)
        return self._output(self._levels().prediction(latents, clean, call["timestep"]))

    def _output(self, prediction: Tensor) -> Any:
        return (prediction,) if self._output_type is tuple else self._output_type(sample=prediction)

    def _levels(self) -> NoiseLevels:
        if self.noise is None:
            raise CacheStateError("the plan forecasts clean latents; give the engine the scheduler")
        return self.noise

    def branch_difference(self, step: CurrentStep) -> Tensor | None:
        """uncond - cond of an earlier step, where this step's plan adds it."""
        return None if step.work.step.cfg_delta is None else step.read_one_branch(CFG_DELTA)

    def both(self, out: Any, difference: Tensor | None, step: CurrentStep) -> Any:
        """The prompt branch's output as that of both branches."""
        weights = step.work.step.cfg_delta or (1.0, 1.0)
        return with_prediction(out, both_branches(prediction_of(out), difference, weights))
