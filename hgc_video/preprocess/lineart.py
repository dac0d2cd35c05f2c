"""Line art without weights: what is darker than its surroundings, as a pen draws it"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..media.frames import Frame
from .base import LinePreprocessor
from .opencv import opencv

_LEARNED = 8  # frames at the beginning that decide how strong lines are in this clip
_WEAKEST = 16.0  # levels: below it a clip has no lines, only noise


class Lineart(LinePreprocessor):
    """Dark lines by difference from a blurred copy ("lineart standard" of ControlNet's tools); no network"""

    name = control = "lineart"
    extra = "edges"

    sigma: float = Field(6.0, gt=0, le=50, description="blur that tells a line, in pixels (sigma)")
    threshold: float = Field(8.0, ge=0, le=100, description="levels below which nothing is a line")

    def require(self, offline: bool = False) -> None:
        opencv(self.name)

    def made_by(self) -> dict[str, str]:
        return {"opencv": opencv(self.name).__version__}

    def estimates(self, frames: Iterable[Frame], fps: float) -> Iterator[NDArray[Any]]:
        reading = iter(frames)
        first = [self._darker(frame) for frame in islice(reading, _LEARNED)]
        # One strength for the whole clip: one for each frame would flicker.
        strength = self._strength(first)
        for darker in chain(first, map(self._darker, reading)):
            yield np.clip(darker * (127 / strength), 0, 255).astype(np.uint8)

    def _darker(self, frame: Frame) -> NDArray[np.float32]:
        """By how many levels each pixel (h w) is darker than around it, in its clearest channel."""
        levels = np.asarray(frame, np.float32)
        around = opencv(self.name).GaussianBlur(levels, (0, 0), self.sigma)
        darker: NDArray[np.float32] = (around - levels).min(-1).clip(0)
        return darker

    def _strength(self, darker: list[NDArray[np.float32]]) -> float:
        lines = np.concatenate([one[one > self.threshold] for one in darker])
        return max(_WEAKEST, float(np.median(lines)) if len(lines) else 0.0)
