"""Canny edges: white lines on black where the brightness jumps; no weights"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ..media.frames import Frame
from .base import LinePreprocessor
from .opencv import opencv


class Canny(LinePreprocessor):
    """Canny edges (OpenCV), as ControlNets for canny are trained on"""

    name = control = "canny"
    extra = "edges"

    low: int = Field(100, ge=1, le=255, description="weaker edges than this are left out")
    high: int = Field(200, ge=1, le=255, description="edges stronger than this begin a line")
    blur: float = Field(0.0, ge=0, le=20, description="blur before it, in pixels (sigma)")

    @model_validator(mode="after")
    def _in_order(self) -> Canny:
        if self.low > self.high:
            raise ValueError(f"low={self.low} is above high={self.high}; give low the smaller one")
        return self

    def require(self, offline: bool = False) -> None:
        opencv(self.name)

    def made_by(self) -> dict[str, str]:
        return {"opencv": opencv(self.name).__version__}

    def estimates(self, frames: Iterable[Frame], fps: float) -> Iterator[NDArray[Any]]:
        cv2 = opencv(self.name)
        for frame in frames:
            grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
            if self.blur:
                grey = cv2.GaussianBlur(grey, (0, 0), self.blur)
            yield cv2.Canny(grey, self.low, self.high)
