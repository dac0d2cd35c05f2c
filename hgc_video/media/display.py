"""A decoded frame as it is shown: colours, sample aspect ratio, display matrix.

Knows nothing about files or timestamps.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Colorspace, Interpolation

from hgc_video.media.frames import Frame

_UNTAGGED = 2  # AVCOL_SPC_UNSPECIFIED
_HD_HEIGHT, _HD_WIDTH = 720, 1280  # from here on players read untagged files as BT.709


def shown_size(frame: av.VideoFrame, sample_aspect: Fraction | None) -> tuple[int, int]:
    """Height and width with square pixels, before the display matrix; no pixel is given up."""
    aspect = sample_aspect or Fraction(1)
    if aspect <= 0 or aspect == 1:
        return frame.height, frame.width
    if aspect > 1:
        return frame.height, round(frame.width * aspect)
    return round(frame.height / aspect), frame.width


def as_shown(frame: av.VideoFrame, size: tuple[int, int]) -> Frame:
    """The frame (H W 3) uint8 as a player shows it; `size` is what `shown_size` says."""
    height, width = size
    rgb = frame.to_ndarray(
        format="rgb24", height=height, width=width, interpolation=Interpolation.BICUBIC,
        src_colorspace=_matrix(frame),
    )  # fmt: skip
    return np.ascontiguousarray(_placed(rgb.astype(np.uint8, copy=False), frame))


def _matrix(frame: av.VideoFrame) -> int:
    """The YUV matrix that the file names, or else the one that players take for the frame's size."""
    if frame.colorspace != _UNTAGGED:
        return int(frame.colorspace)
    large = frame.height >= _HD_HEIGHT or frame.width >= _HD_WIDTH
    return int(Colorspace.ITU709 if large else Colorspace.ITU601)


def _placed(rgb: Frame, frame: av.VideoFrame) -> Frame:
    """Mirrored and turned by quarters as the display matrix says."""
    data: Any = frame.side_data
    matrix = next((d for d in data if d.type is SideData.DISPLAYMATRIX), None)
    if matrix is None:
        return rgb
    across, down_by_x, _, across_by_y, down, *_ = struct.unpack("=9i", bytes(matrix))
    if abs(across_by_y) > abs(across):  # x and y change places
        rgb, across, down = rgb.swapaxes(0, 1), across_by_y, down_by_x
    return rgb[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
