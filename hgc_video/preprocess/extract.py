"""Takes a control clip from a raw film: chooses frames and size, estimates or reads what is kept, draws."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from ..errors import VideoError, warn
from ..media.content import content_of, state_of_clip
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
        VideoError: the clip cannot be read, or changed while it was.
        MissingExtraError: a package is not installed. ModelError: weights cannot be had.
    """
    if isinstance(preprocessor, str):
        preprocessor = make_preprocessor(preprocessor)
    preprocessor.require(offline)
    state = state_of_clip(video)
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
    frames = _Frames(video, state, source, indices, rate, place)
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
    """The frames that are taken of a film, the state of its files before any was read, and where they come
    to lie."""

    video: VideoLike
    state: tuple[Any, ...]
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
        with _unchanged(taken):
            content = content_of(taken.video)
        request = {
            **preprocessor.key(), "content": content, "frames": taken.indices, "fps": taken.fps, "size": box,
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
        arrays = _of_one_film(
            preprocessor.estimates(_each(bar), taken.fps), taken, request.get("content")
        )
        if not keep_found:
            return HeldEstimates(tuple(arrays))
        return keep(request, arrays, name_of(taken.video))


def _of_one_film(
    arrays: Iterable[NDArray[Any]], taken: _Frames, content: str | None
) -> Iterator[NDArray[Any]]:
    """The estimates of a film that is still the same after its last frame; otherwise what they would be kept
    under is not the content of these frames."""
    with _unchanged(taken, content):
        yield from arrays


@contextmanager
def _unchanged(taken: _Frames, content: str | None = None) -> Iterator[None]:
    """VideoError where a film is not what it was any more: its files, or the content of frames in memory
    (None: not known). That it cannot be read comes of that, too."""
    changed = VideoError(
        f"{name_of(taken.video)} changed while it was read; run it again once nothing writes to it"
    )
    try:
        yield
    except (VideoError, OSError) as error:
        if state_of_clip(taken.video) != taken.state:
            raise changed from error
        raise
    in_memory = not isinstance(taken.video, str | os.PathLike)
    if state_of_clip(taken.video) != taken.state or (
        in_memory and content is not None and content_of(taken.video) != content
    ):
        raise changed


def _each(bar: Any) -> Iterator[Frame]:
    yield from bar


def _resized(frame: Frame, size: tuple[int, int]) -> Frame:
    """A frame (H W 3) at a size, without aliasing."""
    if frame.shape[:2] == size:
        return frame
    resized = Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(resized)
