"""Clips in and out: `probe`, `read_frames`, `iter_frames`, `write_video`.

Reads movies, GIF, WebP, images, folders of images and frames in memory; writes by suffix. Knows
nothing about models or control.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from hgc_video.errors import InputError
from hgc_video.files import user_path
from hgc_video.media.frames import Frame, VideoInfo, VideoSource
from hgc_video.media.sources import ArraySource, open_path
from hgc_video.media.write import check_output, write_video

__all__ = [
    "Frame",
    "ImageLike",
    "VideoInfo",
    "VideoLike",
    "VideoSource",
    "check_output",
    "iter_frames",
    "open_clip",
    "probe",
    "read_frames",
    "read_image",
    "write_video",
]

VideoLike: TypeAlias = "str | os.PathLike[str] | np.ndarray[Any, Any] | Sequence[Any]"


ImageLike: TypeAlias = "str | os.PathLike[str] | np.ndarray[Any, Any] | Any"


def read_image(image: ImageLike) -> Frame:
    """A frame (H W 3) uint8 of a path, an array (H W 3) uint8 or a PIL image; of a movie its first one.

    Raises:
        VideoError: it cannot be read as an image.
    """
    clip = image if isinstance(image, str | os.PathLike) else [image]
    return next(iter(open_clip(clip).frames([0])))


def open_clip(video: VideoLike, *, source_fps: float | None = None) -> VideoSource:
    """Opens a path, an array (f H W 3) uint8 or a list of images or arrays.

    `source_fps` is the frame rate of a folder of images or of frames in memory, which carry none (None: 8).

    Raises:
        VideoError: it cannot be read as a clip.
    """
    if isinstance(video, str | os.PathLike):
        return open_path(user_path(video), source_fps)
    return ArraySource(video, source_fps)


def probe(video: VideoLike) -> VideoInfo:
    """Frame rate, length and size of a clip; raises VideoError."""
    return open_clip(video).info


def iter_frames(video: VideoLike, *, indices: Sequence[int] | None = None) -> Iterator[Frame]:
    """Frames (H W 3) uint8 one at a time, all or those at `indices` in the order given.

    Raises:
        VideoError: the clip cannot be read.
        InputError: an index lies outside the clip.
    """
    source = open_clip(video)
    count = source.info.num_frames
    wanted = range(count) if indices is None else [int(index) for index in indices]
    outside = [index for index in wanted if not 0 <= index < count]
    if outside:
        raise InputError(f"frame {outside[0]} is outside the clip, which has {count} frames")
    return source.frames(wanted)


def read_frames(video: VideoLike, *, indices: Sequence[int] | None = None) -> Frame:
    """Frames (f H W 3) uint8, all or those at `indices`; raises as `iter_frames` does."""
    if indices is not None and len(indices) == 0:
        raise InputError("indices is empty; ask for at least one frame")
    return np.stack(list(iter_frames(video, indices=indices)))
