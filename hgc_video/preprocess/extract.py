"""Takes a control clip from a raw film: chooses frames and size, estimates or reads what is kept, draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ..errors import warn
from ..media.content import content_of
from ..media.control import (
    HELD_NBYTES,
    ControlClip,
    Placement,
    name_of,
    open_control,
)
from ..media.frame_choice import ALL, FrameChoice, plan_frames
from ..media.frame_size import plan_size
from ..media.frames import Frame, LazyFrames, VideoSource
from ..media.video import VideoLike
from .base import Drawn, Estimates, Preprocessor
from .kept import HeldEstimates, keep, kept
from .registry import make_preprocessor

_RARE = 0.5  # of the frames: where fewer show a person, that is said


def extract_control(
    video: VideoLike,
    preprocessor: str | Preprocessor = "pose",
    *,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    multiple: int = 32,
    default_area: int | None = 128 * 128,
    max_frames: int | None = None,
    source_fps: float | None = None,
    choice: FrameChoice = ALL,
    offline: bool = False,
    keep_found: bool = True,
    progress: bool = False,
) -> ControlClip:
    """The control clip of a raw video by a preprocessor, or a text that names one ("pose:hands=true").

    Frames, size and rates are chosen as in `load_control`; without `default_area` the clip's own size and
    rate are kept where no other is given. What is found is kept on disk (`keep_found`); the same frames are
    not estimated again.

    Warns (HGCVideoWarning) where a person is found in less than half of the frames.

    Raises:
        InputError: an unknown preprocessor or parameter, nobody is found; also as `load_control`.
        VideoError: the clip cannot be read.
        MissingExtraError: a package is not installed. ModelError: weights cannot be had.
    """
    if isinstance(preprocessor, str):
        preprocessor = make_preprocessor(preprocessor)
    preprocessor.require(offline)
    source = open_control(video, fps, source_fps)
    info = source.info
    own = default_area is None
    indices, rate = plan_frames(
        info.num_frames, info.fps, num_frames=num_frames, max_frames=max_frames,
        fps=info.fps if own and fps is None else fps, choice=choice,
    )  # fmt: skip
    if own and height is None and width is None:
        size = (info.height, info.width)
    else:
        size = plan_size(info.height, info.width, height, width, multiple, default_area or 1)
    place = Placement(info.height, info.width, *size)
    frames = _Frames(video, source, indices, rate, place)
    found = _estimates(preprocessor, frames, keep_found, progress)
    drawn = preprocessor.drawn(found, place, rate)
    _tell_of_few(drawn, len(indices), name_of(video))
    held = len(indices) * size[0] * size[1] * 3 <= HELD_NBYTES
    return ControlClip(
        LazyFrames(drawn.frames, len(indices), *size, hold=held), rate, preprocessor.control,
        info.height, info.width, info,
        num_bridged=drawn.num_bridged, num_empty=drawn.num_empty, num_people=drawn.num_people,
        keypoints=drawn.keypoints, taken=tuple(indices),
    )  # fmt: skip


def _tell_of_few(drawn: Drawn, num_frames: int, name: str) -> None:
    """Warns where a person is found in few of the frames."""
    if drawn.num_empty > (1 - _RARE) * num_frames:
        warn(
            f"a person is found in {num_frames - drawn.num_empty} of the {num_frames} frames taken from "
            f"{name}; the others are black and steer nothing",
            stacklevel=3,
        )


@dataclass(frozen=True)
class _Frames:
    """The frames that are taken of a film, and where they come to lie."""

    video: VideoLike
    source: VideoSource
    indices: list[int]
    fps: float
    place: Placement


def _estimates(
    preprocessor: Preprocessor, taken: _Frames, keep_found: bool, progress: bool
) -> Estimates:
    """What is kept of these frames, or else estimated now, and kept."""
    box = None if preprocessor.own_size else taken.place.box[2:]
    request: dict[str, Any] = {}
    if keep_found:
        request = {
            **preprocessor.key(), "content": content_of(taken.video), "frames": taken.indices,
            "fps": taken.fps, "size": box,
        }  # fmt: skip
        if (found := kept(request)) is not None:
            return found
    frames = taken.source.frames(taken.indices)
    bar = tqdm(
        frames if box is None else (_resized(frame, box) for frame in frames),
        total=len(taken.indices), desc=f"extracting {preprocessor.name}", unit="frame",
        disable=not progress, leave=False,
    )  # fmt: skip
    with bar:
        arrays = preprocessor.estimates(_each(bar), taken.fps)
        if not keep_found:
            return HeldEstimates(tuple(arrays))
        return keep(request, arrays, name_of(taken.video))


def _each(bar: Any) -> Iterator[Frame]:
    yield from bar


def _resized(frame: Frame, size: tuple[int, int]) -> Frame:
    """A frame (H W 3) at a size, without aliasing."""
    if frame.shape[:2] == size:
        return frame
    resized = Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(resized)
