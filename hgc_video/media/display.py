"""A decoded frame as it is shown: colours, sample aspect ratio, display matrix.

Knows nothing about files or timestamps.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Colorspace, Interpolation

from hgc_video.media.frames import Frame
from hgc_video.media.limits import check_pixels

_UNTAGGED = 2  # AVCOL_SPC_UNSPECIFIED
_HD_HEIGHT, _HD_WIDTH = 720, 1280  # from here on players read untagged files as BT.709


@dataclass(frozen=True)
class Display:
    """How the frames of a movie are shown: height and width with square pixels, before they are turned, and
    the display matrix (a b c d of x' = a x + c y, y' = b x + d y), None for as they are.

    It is taken from the first frame: a frame whose side data were looked at is freed late, by the garbage
    collector, and so is its picture.
    """

    height: int
    width: int
    matrix: tuple[int, int, int, int] | None = None

    def shown(self, frame: av.VideoFrame) -> Frame:
        """The frame (H W 3) uint8 as a player shows it."""
        rgb = frame.to_ndarray(
            format="rgb24", height=self.height, width=self.width, interpolation=Interpolation.BICUBIC,
            src_colorspace=_matrix(frame),
        ).astype(np.uint8, copy=False)  # fmt: skip
        return rgb if self.matrix is None else np.ascontiguousarray(_placed(rgb, self.matrix))


def display_of(frame: av.VideoFrame, sample_aspect: Fraction | None) -> Display:
    """How a movie is shown, by its first frame and its sample aspect ratio; no pixel is given up. VideoError
    where frames are larger than allowed."""
    height, width, aspect = frame.height, frame.width, sample_aspect or Fraction(1)
    if aspect > 1:
        width = round(width * aspect)
    elif 0 < aspect < 1:
        height = round(height / aspect)
    check_pixels(width, height, "a frame of the clip")
    data: Any = frame.side_data
    found = next((d for d in data if d.type is SideData.DISPLAYMATRIX), None)
    if found is None:
        return Display(height, width)
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(found))
    return Display(height, width, (a, b, c, d))


def _matrix(frame: av.VideoFrame) -> int:
    """The YUV matrix that the file names, or else the one that players take for the frame's size."""
    if frame.colorspace != _UNTAGGED:
        return int(frame.colorspace)
    large = frame.height >= _HD_HEIGHT or frame.width >= _HD_WIDTH
    return int(Colorspace.ITU709 if large else Colorspace.ITU601)


def _placed(rgb: Frame, matrix: tuple[int, int, int, int]) -> Frame:
    """Mirrored and turned by quarters as the display matrix says."""
    across, down_by_x, across_by_y, down = matrix
    if abs(across_by_y) > abs(across):  # x and y change places
        rgb, across, down = rgb.swapaxes(0, 1), across_by_y, down_by_x
    return rgb[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
