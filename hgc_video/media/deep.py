"""Images with more than 8 bits, as depth cameras and estimators write them, brought to 0..255.

Knows nothing about where images come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hgc_video.errors import VideoError, warn
from hgc_video.media.frames import Frame

_FULL = range(2**15, 2**16)  # where the brightest value lies of a clip that uses its 16 bits


@dataclass(frozen=True)
class DeepRange:
    """The least and the greatest value of a clip's images; 0 is no value but "not measured"."""

    low: int
    high: int

    @property
    def is_full(self) -> bool:
        """Whether the 16 bits are used: then a value means the same brightness in every clip."""
        return self.high in _FULL

    def to_uint8(self, values: NDArray[np.integer]) -> Frame:
        """Values (H W) as 0..255: their upper 8 bits, or scaled by the range where 16 bits are not used."""
        if self.is_full:
            return (values >> 8).clip(0, 255).astype(np.uint8)
        # What a depth camera did not measure is taken as far, the greatest distance.
        measured = np.where(values > 0, values, self.high).astype(np.float64)
        scaled = (measured - self.low) / max(1, self.high - self.low)
        return np.round(255 * scaled.clip(0, 1)).astype(np.uint8)


def is_deep(image: Image.Image) -> bool:
    """Whether an image has one channel of more than 8 bits; VideoError for floats, which have no range."""
    if image.mode == "F":
        raise VideoError(
            "images of floats (PIL mode F) carry no range; scale them to 0..255, near bright, and save "
            "them as 8-bit grey"
        )
    return image.mode.startswith("I")


def range_of(images: Iterable[Image.Image]) -> DeepRange:
    """The range of the deep images among these."""
    low, high = np.iinfo(np.int64).max, 0
    for image in images:
        if is_deep(image):
            values = np.asarray(image)
            measured = values[values > 0]
            if measured.size:
                low, high = min(low, int(measured.min())), max(high, int(measured.max()))
    return DeepRange(min(low, high), high)


def tell_of(deep: DeepRange, name: str) -> None:
    """Warns where values are scaled: millimetres and other distances are dark where they should be bright."""
    if not deep.is_full:
        warn(
            f"the 16-bit images of {name} reach {deep.high} of 65535: scaled so that {deep.low} to "
            f"{deep.high} become 0 to 255; if they hold distances, near must be made bright with "
            "invert_depth=True (--invert-depth)",
            stacklevel=2,
        )
