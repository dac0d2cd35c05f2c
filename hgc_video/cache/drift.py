"""What an adaptive policy may ask: plain numbers of features that are computed anyway.

A number is read back only when it is asked for; until then it is a pending scalar on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import CacheStateError
from .agreement import Agreement
from .current_step import CurrentStep
from .noise_levels import NoiseLevels, stability

_FORECAST_OF = 4  # computed predictions that are compared: one is forecast from the three before it


def _alone(step: int, flag: bool) -> bool:
    """What the only window of a step agrees on."""
    return flag


class Observers:
    """The observers of a run, one for each window of frames; without a `layer`, whose output they compare,
    the plan decides nothing at run time and they see nothing.

    noise: what `stability` is measured by. levels: the scheduler's noise levels where they are known, and
    guidance_scale the run's, None where a prediction has the prompt's branch alone or the scale is not known.
    """

    def __init__(self, layer: str | None, noise: NoiseLevels | None = None) -> None:
        self.layer, self.noise = layer, noise
        self.levels: NoiseLevels | None = None
        self.guidance_scale: float | None = None
        self._of: dict[int, Observer] = {}
        self._agreement = Agreement()

    def at(self, window: int) -> Observer:
        """The observer of a window."""
        if window not in self._of:
            self._of[window] = Observer(
                self.noise, self.levels, self.guidance_scale, partial(self._agree, window)
            )
        return self._of[window]

    def _agree(self, window: int, step: int, flag: bool) -> bool:
        return self._agreement.of(window, step, flag)

    def see_input(self, step: CurrentStep, sample: Tensor, t: Tensor | float) -> None:
        """The latents as the step's first model gets them, and its timestep."""
        if self.layer is not None:
            self.at(step.window).see_input(sample, t, step.index)

    def see_layer(self, step: CurrentStep, name: str, features: Tensor) -> None:
        """A layer's output at the step."""
        if name == self.layer:
            self.at(step.window).see_outermost(features, step.work.fullest)

    def see_output(self, step: CurrentStep, prediction: Tensor | None) -> None:
        """The step's prediction; None where it was not computed."""
        if self.layer is not None:
            self.at(step.window).see_output(prediction, step.branches)

    def only_windows(self, windows: Collection[int]) -> None:
        """Forgets what was seen of other windows."""
        self._of = {window: seen for window, seen in self._of.items() if window in windows}
        self._agreement.only_windows(windows)

    def forget(self) -> None:
        """Forgets the run."""
        self._of.clear()
        self._agreement = Agreement()

    def state(self) -> dict[str, Any]:
        """What was seen, by window, and what they agreed on: plain data and tensors."""
        seen = [[window, seen.state()] for window, seen in self._of.items()]
        return {"seen": seen, "agreement": self._agreement.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Has seen what `state` told."""
        self._agreement = Agreement.restored(state["agreement"])
        for window, seen in state["seen"]:
            self.at(window).restore(seen)


class Observer:
    """Keeps the last inputs and predictions of a run; satisfies plan.adaptive.Signals."""

    def __init__(
        self, noise: NoiseLevels | None = None, levels: NoiseLevels | None = None,
        guidance_scale: float | None = None, agree: Callable[[int, bool], bool] = _alone,
    ) -> None:  # fmt: skip
        self._agree = agree
        self._noise, self._levels, self._guidance_scale = noise, levels, guidance_scale
        self.begin()

    def begin(self) -> None:
        """Forgets the run before."""
        self.computed_last, self.step = False, 0
        self._made: list[
            tuple[Tensor, int]
        ] = []  # predictions and their branches, the newest first
        self._products: tuple[tuple[float, ...], ...] | None = None
        self._time: Tensor | float | None = None  # of this step
        self._input: Tensor | None = None
        self._past: list[
            tuple[Tensor, Tensor | float]
        ] = []  # latents and timesteps, the newest last
        self._output: Tensor | None = None
        self._computed_from: Tensor | None = None
        self._at_refresh: Tensor | None = None
        self._input_change: Tensor | float = 0.0
        self._output_change: Tensor | float = 0.0
        self._drift: Tensor | float = 0.0

    def state(self) -> dict[str, Any]:
        """All of it: plain data and tensors."""
        return {
            "computed_last": self.computed_last, "input": self._input, "output": self._output,
            "at_refresh": self._at_refresh, "input_change": self._input_change,
            "output_change": self._output_change, "drift": self._drift,
            "computed_from": self._computed_from, "past": [[x, t] for x, t in self._past],
            "step": self.step, "made": [[x, n] for x, n in self._made], "time": self._time,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Has seen what `state` told."""
        self.computed_last = state["computed_last"]
        self._input, self._output = state["input"], state["output"]
        self._at_refresh, self._drift = state["at_refresh"], state["drift"]
        self._input_change, self._output_change = state["input_change"], state["output_change"]
        self._computed_from = state["computed_from"]
        self._past = [(x, t) for x, t in state["past"]]
        self.step, self._time = state["step"], state["time"]
        self._made, self._products = [(x, n) for x, n in state["made"]], None

    def see_input(self, sample: Tensor, t: Tensor | float, step: int) -> None:
        """A step's latents as its first model sees them, at its timestep."""
        self.step, self._time = step, t
        if self._noise is not None:
            self._past = [*self._past[-3:], (sample, t)]
        if self._input is not None and self._input.shape == sample.shape:
            self._input_change = (sample - self._input).abs().mean()
        self._input = sample

    def see_output(self, prediction: Tensor | None, branches: int = 1) -> None:
        """The step's prediction (branches·b ...); None where it was not computed."""
        self.computed_last = prediction is not None
        if prediction is None:
            return
        self._made = [(prediction, branches), *self._made[: _FORECAST_OF - 1]]
        self._products = None
        self._computed_from = self._input
        if self._output is not None and self._output.shape == prediction.shape:
            self._output_change = (prediction - self._output).abs().mean()
        self._output = prediction

    def see_outermost(self, features: Tensor, refreshed: bool) -> None:
        """The outermost block's output at a step."""
        before = self._at_refresh
        if refreshed or before is None or before.shape != features.shape:
            self._at_refresh, self._drift = features, 0.0
        else:
            self._drift = (features - before).abs().mean() / before.abs().mean()

    def input_change(self) -> float:
        """See plan.adaptive.Signals."""
        return float(self._input_change)

    def input_change_since_computed(self) -> float:
        """See plan.adaptive.Signals."""
        now, then = self._input, self._computed_from
        if now is None or then is None or now.shape != then.shape:
            return 0.0
        return float((now - then).abs().mean())

    def output_change(self) -> float:
        """See plan.adaptive.Signals."""
        return float(self._output_change)

    def output_size(self) -> float:
        """See plan.adaptive.Signals."""
        return 0.0 if self._output is None else float(self._output.abs().mean())

    def stability(self) -> float:
        """See plan.adaptive.Signals."""
        if self._noise is None:
            raise CacheStateError("the policy reads noise levels; give the engine the scheduler")
        if len(self._past) < 4 or len({x.shape for x, _ in self._past}) > 1:
            return 0.0
        return float(stability(self._past, self._noise))

    def agreed(self, flag: bool) -> bool:
        """See plan.adaptive.Signals."""
        return self._agree(self.step, flag)

    def products(self) -> tuple[tuple[float, ...], ...]:
        """See plan.adaptive.Signals; one wait for the device after a step that was computed."""
        if self._products is None:
            self._products = mean_products(self._guided())
        return self._products

    def noise_angle(self) -> float | None:
        """See plan.adaptive.Signals."""
        if self._levels is None or self._time is None:
            return None
        return self._levels.angle(self._time)

    def prediction_type(self) -> str:
        """See plan.adaptive.Signals."""
        return "v_prediction" if self._levels is None else self._levels.prediction_type

    def _guided(self) -> list[Tensor]:
        """The last computed predictions, the newest first, as guidance mixes them; the prompt's branch alone
        where one of them has no other."""
        branches = [prediction.chunk(count) for prediction, count in self._made]
        if self._guidance_scale is None or any(len(parts) != 2 for parts in branches):
            return [parts[min(1, len(parts) - 1)] for parts in branches]
        return [uncond + self._guidance_scale * (cond - uncond) for uncond, cond in branches]

    def drift(self) -> float:
        """See plan.adaptive.Signals."""
        return float(self._drift)


def mean_products(values: list[Tensor]) -> tuple[tuple[float, ...], ...]:
    """The mean product of every two of the newest value and the changes between successive ones, the newest
    first; of the newest alone where not all are of one shape."""
    if not values:
        return ()
    alike = all(value.shape == values[0].shape for value in values)
    flat = torch.stack([value.flatten().float() for value in (values if alike else values[:1])])
    rows = torch.cat([flat[:1], flat[:-1] - flat[1:]])
    return tuple(map(tuple, (rows[:, None] * rows).mean(-1).tolist()))
