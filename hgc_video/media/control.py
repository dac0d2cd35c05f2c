"""Control clips: which frames, at what size and rate, as a model takes them.

Frame choice and size are planned from plain numbers (`plan_frames`, `plan_size`); `Placement`
carries pixels and keypoints into the planned frame the same way. Knows nothing about any model
beyond the numbers it is given, and does not look at what the frames show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hgc_video.errors import InputError
from hgc_video.media.frames import Frame, Frames, LazyFrames, VideoInfo
from hgc_video.media.video import VideoLike, open_clip

ControlKind: TypeAlias = Literal["pose", "depth"]

HELD_NBYTES = 2**30
FLUID_FPS = 12.0  # rates above it are thinned, so that few frames still show a movement


@dataclass(frozen=True)
class ControlClip:
    """A clip ready to steer a model: `stream` (f H W 3) uint8, read as it is asked for."""

    stream: Frames
    fps: float
    kind: ControlKind
    source_height: int
    source_width: int
    source: VideoInfo | None = None  # the clip that it is taken from, whole

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
    kind: ControlKind = "pose",
    *,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    multiple: int = 32,
    default_area: int = 128 * 128,
    max_frames: int | None = None,
) -> ControlClip:
    """A ready control clip (skeletons or depth) from a path, an array (f H W 3) or images.

    Frames are chosen by `plan_frames` and sized by `plan_size`; they keep their aspect and are
    padded with black, so nobody is cut off. They are read as they are asked for: kept in memory up to
    `HELD_NBYTES`, of a longer clip read anew at every step. `fps` is the result's rate; frames in
    memory carry none and are taken to be at that rate already (8 when it is not told).

    Raises:
        VideoError: the clip cannot be read.
        InputError: a size, rate or frame count that is not possible.
    """
    source = open_clip(control_video, assumed_fps=fps)
    info = source.info
    indices, rate = plan_frames(
        info.num_frames, info.fps, num_frames=num_frames, fps=fps, max_frames=max_frames
    )
    size = plan_size(info.height, info.width, height, width, multiple, default_area)
    place = Placement(info.height, info.width, *size)
    if isinstance(control_video, np.ndarray) and size == (info.height, info.width):
        taken = _taken(control_video, indices)
        return ControlClip(taken, rate, kind, info.height, info.width, info)

    def read(start: int) -> Iterator[Frame]:
        return (place.frame(frame) for frame in source.frames(indices[start:]))

    stream = LazyFrames(read, len(indices), *size, hold=_held(len(indices), *size))
    return ControlClip(stream, rate, kind, info.height, info.width, info)


def _held(num_frames: int, height: int, width: int) -> bool:
    """Whether frames are kept once they are read: at every step they are needed again, and reading takes
    longer than a short clip's bytes are worth."""
    return num_frames * height * width * 3 <= HELD_NBYTES


def _taken(frames: Frame, indices: list[int]) -> Frame:
    """The frames at increasing indices; a view where they are evenly spaced."""
    stride = indices[1] - indices[0] if len(indices) > 1 else 1
    even = stride > 0 and indices == list(range(indices[0], indices[-1] + 1, stride))
    return frames[indices[0] : indices[-1] + 1 : stride] if even else frames[indices]


def plan_frames(
    available: int,
    source_fps: float,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
) -> tuple[list[int], float]:
    """Indices of the frames to take from the beginning of a clip, and their rate.

    Movement keeps its speed. Without `fps`, every s-th frame is taken with the smallest s that
    brings the rate to about 12 or less (24 -> 12, 25 -> 12.5, 30 -> 10); s shrinks when
    `num_frames` would not fit otherwise. With `fps`, frames are taken by their time. Without
    `num_frames` the whole clip is taken, at most `max_frames`.

    Raises:
        InputError: `num_frames` or `fps` is not positive, beyond the clip or beyond `max_frames`.
    """
    if num_frames is not None and num_frames < 1:
        raise InputError(f"num_frames={num_frames} is not possible; ask for at least 1")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise InputError(f"fps={fps} is not possible; give a positive number")
    if num_frames is not None and max_frames is not None and num_frames > max_frames:
        raise InputError(
            f"num_frames={num_frames} is beyond the model's {max_frames}; ask for less"
        )
    if fps is None:
        stride = max(1, math.ceil(source_fps / FLUID_FPS - 0.1))
        while stride > 1 and num_frames is not None and num_frames > -(-available // stride):
            stride -= 1
        indices, rate = list(range(0, available, stride)), source_fps / stride
    else:
        count = max(1, math.floor(available * fps / source_fps + 1e-6))
        indices = [min(available - 1, int(i * source_fps / fps + 1e-6)) for i in range(count)]
        rate = fps
    if num_frames is not None and num_frames > len(indices):
        raise InputError(
            f"num_frames={num_frames} is beyond the clip, which has {len(indices)} frames "
            f"at {rate:g} fps; ask for at most {len(indices)}"
        )
    return indices[: num_frames or max_frames], rate


def plan_size(
    source_height: int,
    source_width: int,
    height: int | None = None,
    width: int | None = None,
    multiple: int = 32,
    default_area: int = 128 * 128,
) -> tuple[int, int]:
    """Height and width, both multiples of `multiple`, for a source of any size.

    Told sizes are kept; one that is missing follows the source's aspect; with none told it is the
    size nearest to that aspect among those within a tenth of `default_area` (128x128, 160x96 and
    96x160 for the defaults).

    Raises:
        InputError: a told size is no positive multiple of `multiple`.
    """
    for name, size in (("height", height), ("width", width)):
        if size is not None and (size < multiple or size % multiple):
            near = max(multiple, round(size / multiple) * multiple)
            raise InputError(f"{name}={size} is no multiple of {multiple}; take {near}")
    aspect = source_width / source_height
    if height is not None and width is not None:
        return height, width
    if height is not None:
        return height, max(multiple, round(height * aspect / multiple) * multiple)
    if width is not None:
        return max(multiple, round(width / aspect / multiple) * multiple), width
    sizes = _sizes_near(default_area, multiple)
    return min(sizes, key=lambda hw: abs(math.log(hw[1] / hw[0] / aspect)))


def _sizes_near(area: int, multiple: int) -> Iterable[tuple[int, int]]:
    longest = max(1, round(2 * math.sqrt(area) / multiple))  # no sliver beyond 1:4
    steps = range(multiple, longest * multiple + 1, multiple)
    sizes = [(h, w) for h in steps for w in steps if abs(h * w / area - 1) <= 0.1]
    side = max(1, round(math.sqrt(area) / multiple)) * multiple
    return [(side, side), *sizes]
