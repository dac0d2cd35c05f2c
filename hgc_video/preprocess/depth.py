"""Depth clips, near is bright, by any depth estimator of transformers; one scale for a clip, so that nothing
pumps"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from ..errors import ModelError
from ..files import kept_sha256_of
from ..media.control import Placement
from ..media.frames import Frame
from ..models.building import loading
from ..models.config_file import check_configs
from ..models.device import choose_device
from ..models.hub import fetch, loading_options, named_part
from .base import Drawn, Estimates, Preprocessor, drawn_field, padded

EMBEDDED = "puppet"
_EMBEDDED_FOLDER = Path(__file__).parent.parent / "puppet" / "depth_estimator"
_SAMPLED = 4096  # values of a frame that its percentiles are taken from
_METRIC = ("glpn", "zoedepth")  # models that give metres, far is large; the others give nearness


class Depth(Preprocessor):
    """Depth, near is bright, by an estimator of transformers, with one scale for the whole clip"""

    name = control = "depth"
    own_size = True

    model: str = Field(
        "depth-anything/Depth-Anything-V2-Small-hf",
        description="a depth estimator: a hub repository (owner/name@COMMIT pins it), a local folder, or "
        "puppet (for its clips alone)",
    )
    scale: Literal["clip", "running"] = drawn_field(
        "clip",
        description="one range for the whole clip, or one that follows slowly, for long shots",
    )
    window: float = drawn_field(
        4.0, ge=0.1, le=60, description="seconds over which a running range is smoothed"
    )
    cut: float = drawn_field(
        1.0, ge=0, le=20, description="percent of the nearest and of the farthest that are cut off"
    )

    def require(self, offline: bool = False) -> None:
        config = self._folder(offline) / "config.json"
        if not config.is_file():
            raise ModelError(
                f'"{self.model}" has no config.json; name a depth estimator of transformers'
            )

    def made_by(self) -> dict[str, str]:
        return {"weights": kept_sha256_of(self._folder(offline=True))}

    def estimates(self, frames: Iterable[Frame], fps: float) -> Iterator[NDArray[Any]]:
        device = choose_device(None)
        estimator = _estimator(str(self._folder(offline=True)), device)
        reading, at_once = iter(frames), 8 if device.startswith("cuda") else 2
        while batch := list(islice(reading, at_once)):
            yield from estimator(batch)

    def drawn(self, found: Estimates, place: Placement, fps: float) -> Drawn:
        low, high = self.ranges(found, fps)
        height, width = place.box[2:]

        def frames(start: int) -> Iterator[Frame]:
            for number, nearness in enumerate(found.read(start), start):
                values = (nearness.astype(np.float32) - low[number]) / (high[number] - low[number])
                resized = Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
                grey = np.clip(np.asarray(resized), 0, 1) * 255 + 0.5
                yield padded(grey.astype(np.uint8), place)

        return Drawn(frames)

    def ranges(
        self, found: Estimates, fps: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The nearness (f) that is black and the one that is white in each frame."""
        sampled = []
        for nearness in found.read():
            step = max(1, nearness.size // _SAMPLED)
            sampled.append(nearness.astype(np.float64).ravel()[::step])
        shares = (self.cut, 100 - self.cut)
        if self.scale == "clip":
            ends = np.tile(np.percentile(np.concatenate(sampled), shares), (len(sampled), 1))
        else:
            own = np.stack([np.percentile(values, shares) for values in sampled])
            ends = _followed(own, max(1, round(self.window * fps)))
        low, high = ends.T
        return low, np.maximum(high, low + 1e-6)

    def _folder(self, offline: bool) -> Path:
        if self.model == EMBEDDED:
            return _EMBEDDED_FOLDER
        try:
            return fetch(named_part(self.model), offline=offline)
        except ModelError as error:
            raise ModelError(f"depth: {error}, as depth:model=FOLDER") from error


def _followed(ends: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Ranges (f 2) over time: what lasts for less than half a window is left out, the rest is smoothed."""
    from scipy.ndimage import median_filter, uniform_filter1d

    steady = median_filter(ends, size=(window, 1), mode="nearest")
    followed: NDArray[np.float64] = uniform_filter1d(steady, window, axis=0, mode="nearest")
    return followed


@lru_cache(maxsize=1)
def _estimator(folder: str, device: str) -> _Estimator:
    return _Estimator(folder, device)


class _Estimator:
    """A loaded estimator: frames (H W 3) in, nearness (h w) float16 out, at the model's own size."""

    def __init__(self, folder: str, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        check_configs(Path(folder))
        try:
            options = loading_options(device, None)
            with loading():
                self._model = AutoModelForDepthEstimation.from_pretrained(folder, **options)
            self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f'"{folder}" cannot be loaded as a depth estimator: {first}'
            ) from error
        self._model.to(device).eval()
        config = self._model.config
        kind = getattr(config, "depth_estimation_type", "relative")
        self._metric = kind == "metric" or config.model_type in _METRIC

    def __call__(self, frames: list[Frame]) -> Iterator[NDArray[np.float16]]:
        import torch

        pixels = self._processor(images=frames, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            pixels = pixels.to(self._model.device, self._model.dtype)
            found = self._model(pixel_values=pixels).predicted_depth.float()
            if self._metric:
                found = 1 / found.clamp_min(1e-3)
            yield from found.cpu().numpy().astype(np.float16)
