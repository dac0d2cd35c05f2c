"""Control clips: which frames, at what size and rate, as a model takes them.

Frame choice and size are planned from plain numbers (frame_choice.py, frame_size.py); `Placement`
carries pixels and keypoints into the planned frame the same way. Knows nothing about any model
beyond the numbers it is given.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hgc_video.errors import InputError, collected_warnings, warn
from hgc_video.media.frame_choice import ALL, FrameChoice, plan_frames
from hgc_video.media.frame_size import plan_size
from hgc_video.media.frames import Frame, Frames, LazyFrames, VideoInfo, VideoSource
from hgc_video.media.looks import tell_of_looks
from hgc_video.media.video import VideoLike, open_clip

HELD_NBYTES = 2**30
LOOKED_AT = 8  # frames, to see whether a clip is what it is given as


@dataclass(frozen=True)
class ControlClip:
    """A clip ready to steer a model: `stream` (f H W 3) uint8, read as it is asked for.

    Of extracted skeletons, `num_bridged` frames lie in short gaps of the detection and were drawn between
    their neighbours, `num_empty` frames show nobody and are black, and `num_people` were told apart.
    """

    stream: Frames
    fps: float
    kind: str
    source_height: int
    source_width: int
    source: VideoInfo | None = None  # the clip that it is taken from, whole
    num_bridged: int = 0
    num_empty: int = 0
    taken: tuple[int, ...] = ()  # which frames of the source these are
    num_people: int = 0
    keypoints: NDArray[np.floating] | None = (
        None  # (t f n 4): x, y in pixels of the frame, z, visibility
    )
    cuts: tuple[int, ...] = ()  # at which of these frames a new scene begins
    file: Path | None = None  # or folder that it was read from

    @property
    def frames(self) -> Frame:
        """All frames (f H W 3) uint8; reads those that were not read yet."""
        return np.asarray(self.stream)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width, without reading any."""
        num_frames, height, width, _ = self.stream.shape
        return num_frames, height, width


@dataclass(frozen=True)
class Placement:
    """Where a source frame comes to lie, whole and centred, inside height x width."""

    source_height: int
    source_width: int
    height: int
    width: int

    @property
    def scale(self) -> float:
        """Target pixels per source pixel."""
        return min(self.height / self.source_height, self.width / self.source_width)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, height and width of the picture in the target, in whole pixels."""
        height = min(self.height, max(1, round(self.source_height * self.scale)))
        width = min(self.width, max(1, round(self.source_width * self.scale)))
        return (self.height - height) // 2, (self.width - width) // 2, height, width

    def frame(self, frame: Frame) -> Frame:
        """A frame (H W 3) resized without aliasing and padded with black; nothing is cut off."""
        top, left, height, width = self.box
        if (height, width) == frame.shape[:2] == (self.height, self.width):
            return frame
        # Hamming keeps thin skeleton lines as bright as if drawn small, and does not ring.
        shrinks = height < frame.shape[0]
        method = Image.Resampling.HAMMING if shrinks else Image.Resampling.BICUBIC
        placed = np.zeros((self.height, self.width, 3), np.uint8)
        resized = Image.fromarray(frame).resize((width, height), method)
        placed[top : top + height, left : left + width] = np.asarray(resized)
        return placed

    def points(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Points (... 2), x and y in source pixels, in pixels of the target."""
        top, left, height, width = self.box
        zoom = np.array([width / self.source_width, height / self.source_height])
        placed: NDArray[np.floating] = points * zoom + np.array([left, top])
        return placed


def load_control(
    control_video: VideoLike,
    kind: str = "pose",
    *,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    multiple: int = 32,
    default_area: int = 128 * 128,
    max_frames: int | None = None,
    source_fps: float | None = None,
    invert_depth: bool = False,
    choice: FrameChoice = ALL,
    force: bool = False,
) -> ControlClip:
    """A ready control clip (skeletons, depth or lines) from a path, an array (f H W 3) or images.

    Frames are chosen by `plan_frames` and sized by `plan_size`; they keep their aspect and are
    padded with black, so nobody is cut off. They are read as they are asked for: kept in memory up to
    `HELD_NBYTES`, of a longer clip read anew at every step. `fps` is the result's rate. A folder of images
    and frames in memory carry no rate: theirs is `source_fps`, or else `fps`, or else 8.
    `invert_depth` turns a depth clip round in which near is dark. `force` takes a clip that would surely
    make a worthless result, with a warning.

    Warns (HGCVideoWarning) of an assumed rate, and of frames that do not look like a control of this kind.

    Raises:
        VideoError: the clip cannot be read.
        InputError: a size, rate or frame count that is not possible; `invert_depth` of another kind; frames
            that cannot be a control of this kind, as a raw film given as skeletons.
    """
    if invert_depth and kind != "depth":
        raise InputError(f"invert_depth is for depth clips, not for {kind}; leave it out")
    source = open_control(control_video, fps, source_fps)
    info = source.info
    indices, rate = plan_frames(
        info.num_frames,
        info.fps,
        num_frames=num_frames,
        fps=fps,
        max_frames=max_frames,
        choice=choice,
    )
    size = plan_size(info.height, info.width, height, width, multiple, default_area)
    place = Placement(info.height, info.width, *size)
    if isinstance(control_video, np.ndarray) and size == (info.height, info.width):
        taken = _taken(control_video, indices)
        stream: Frames = 255 - taken if invert_depth else taken
    else:

        def read(start: int) -> Iterator[Frame]:
            frames = source.frames(indices[start:])
            return (place.frame(255 - frame if invert_depth else frame) for frame in frames)

        stream = LazyFrames(read, len(indices), *size, hold=_held(len(indices), *size))
    top, left, shown_height, shown_width = place.box
    looked_at = np.stack([stream[at] for at in _spread(len(indices))])
    inside = looked_at[:, top : top + shown_height, left : left + shown_width]
    tell_of_looks(
        inside, kind, name_of(control_video), whole=stream, force=force, turned=invert_depth
    )
    return ControlClip(stream, rate, kind, info.height, info.width, info, taken=tuple(indices))


def open_control(video: VideoLike, fps: float | None, source_fps: float | None) -> VideoSource:
    """Opens a control clip and warns of a rate that was assumed for it, or given in vain."""
    for name, rate in (("fps", fps), ("source_fps", source_fps)):
        if rate is not None and not 0 < rate <= sys.float_info.max:
            raise InputError(f"{name}={rate} is not possible; give a positive number")
    source = open_clip(video, source_fps=source_fps or fps)
    info = source.info
    if info.carries_fps and source_fps is not None and not math.isclose(source_fps, info.fps):
        warn(
            f"source_fps={source_fps:g} is not used: {name_of(video)} carries its own rate, "
            f"{info.fps:g} fps"
        )
    is_folder = isinstance(video, str | os.PathLike) and not info.carries_fps
    if is_folder and info.num_frames > 1 and source_fps is None and fps is None:
        warn(
            f"the images of {name_of(video)} carry no frame rate: {info.fps:g} fps is assumed; "
            "give theirs with source_fps (--source-fps)"
        )
    return source


def source_rates(
    videos: Mapping[str, VideoLike], source_fps: float | None = None
) -> dict[str, float | None]:
    """The `source_fps` of each of several controls.

    Images that carry no rate are matched frame to frame with another control that carries one and has as
    many frames: they were made from the same film.
    """
    if len(videos) < 2 or source_fps is not None:
        return dict.fromkeys(videos, source_fps)
    with collected_warnings():  # each clip's own come when it is read
        infos = {kind: open_clip(video).info for kind, video in videos.items()}
    told = {info.num_frames: info.fps for info in infos.values() if info.carries_fps}
    return {
        kind: None if info.carries_fps else told.get(info.num_frames)
        for kind, info in infos.items()
    }


def name_of(video: VideoLike) -> str:
    """A clip's name in messages."""
    return f'"{video}"' if isinstance(video, str | os.PathLike) else "the clip in memory"


def _spread(num_frames: int) -> list[int]:
    """Up to `LOOKED_AT` frames from the first to the last."""
    spread = np.linspace(0, num_frames - 1, min(LOOKED_AT, num_frames))
    return [int(at) for at in spread.round()]


def _held(num_frames: int, height: int, width: int) -> bool:
    """Whether frames are kept once they are read: at every step they are needed again, and reading takes
    longer than a short clip's bytes are worth."""
    return num_frames * height * width * 3 <= HELD_NBYTES


def _taken(frames: Frame, indices: list[int]) -> Frame:
    """The frames at increasing indices; a view where they are evenly spaced."""
    stride = indices[1] - indices[0] if len(indices) > 1 else 1
    even = stride > 0 and indices == list(range(indices[0], indices[-1] + 1, stride))
    return frames[indices[0] : indices[-1] + 1 : stride] if even else frames[indices]
