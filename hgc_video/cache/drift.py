"""What an adaptive policy may ask: plain numbers of features that are computed anyway.

A number is read back only when it is asked for; until then it is a pending scalar on the device.
"""

from __future__ import annotations

from torch import Tensor


class Observer:
    """Keeps the last inputs and predictions of a run; satisfies plan.adaptive.Signals."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forgets the run before."""
        self.computed_last = False
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        self._at_refresh: Tensor | None = None
        self._input_change: Tensor | float = 0.0
        self._output_change: Tensor | float = 0.0
        self._drift: Tensor | float = 0.0

    def see_input(self, sample: Tensor) -> None:
        """A step's latents as its first model sees them."""
        if self._input is not None and self._input.shape == sample.shape:
            self._input_change = (sample - self._input).abs().mean()
        self._input = sample

    def see_output(self, prediction: Tensor | None) -> None:
        """The step's prediction; None where it was not computed."""
        self.computed_last = prediction is not None
        if prediction is None:
            return
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

    def output_change(self) -> float:
        """See plan.adaptive.Signals."""
        return float(self._output_change)

    def output_size(self) -> float:
        """See plan.adaptive.Signals."""
        return 0.0 if self._output is None else float(self._output.abs().mean())

    def drift(self) -> float:
        """See plan.adaptive.Signals."""
        return float(self._drift)
