"""Clips as sources of frames, and frames that are read when they are asked for.

Knows nothing about where frames come from: a decoder, a folder, a drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hgc_video.errors import VideoError

Frame: TypeAlias = NDArray[np.uint8]

_WORTH_A_START = 32  # frames; reading is begun anew where so many would be read in vain
DEFAULT_FPS = 8.0  # for images and arrays, which carry no frame rate


@dataclass(frozen=True)
class VideoInfo:
    """Frame rate, length and size (as shown, after rotation) of a clip.

    `carries_fps`: the clip itself says its rate; a folder of images and frames in memory do not.
    `begins_s`: when the first frame is shown, in the file's own time, which its sound shares.
    """

    fps: float
    num_frames: int
    height: int
    width: int
    carries_fps: bool = True
    begins_s: float = 0.0

    @property
    def duration_s(self) -> float:
        """Seconds the clip runs."""
        return self.num_frames / self.fps


class VideoSource(Protocol):
    """An opened clip."""

    @property
    def info(self) -> VideoInfo: ...

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """The frames (H W 3) at `indices`, which lie within the clip, in the order given."""
        ...


class LazyFrames:
    """Frames (f H W 3) uint8; `read(start)` gives those from `start` on, one at a time.

    Reading on goes on where it was left. With `hold` a frame is read once and kept; without it nothing is
    kept, and whoever goes back has the source read again from there.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(
        self, read: Callable[[int], Iterator[Frame]], num_frames: int, height: int, width: int,
        *, hold: bool,
    ) -> None:  # fmt: skip
        self.shape = (num_frames, height, width, 3)
        self._read, self._next = read, 0
        self._stream: Iterator[Frame] | None = None
        self._held = np.empty(self.shape, np.uint8) if hold else None

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, at: Any) -> Frame:
        """A frame (H W 3) by number, frames (n H W 3) by slice; by anything else all are read."""
        if isinstance(at, int):
            frame: Frame = self._frames([range(len(self))[at]])[0]
            return frame
        if isinstance(at, slice):
            return self._frames(range(len(self))[at])
        some: Frame = np.asarray(self)[at]
        return some

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self._frames(range(len(self)))
        return array.astype(dtype or np.uint8, copy=bool(copy))

    def as_array(self) -> Frame | LazyFrames:
        """The array, where frames are kept; otherwise this."""
        return self if self._held is None else np.asarray(self)

    def _frames(self, indices: range | list[int]) -> Frame:
        if not len(indices):
            return np.empty((0, *self.shape[1:]), np.uint8)
        if self._held is None:
            return np.stack([self._one(index) for index in indices])
        while self._next <= max(indices):
            index = self._next
            self._held[index] = self._following()
        first, last = indices[0], indices[-1]
        if last - first == len(indices) - 1:
            return self._held[first : last + 1]  # a view: windows are not copied
        return self._held[list(indices)]

    def _one(self, index: int) -> Frame:
        if not self._next <= index < self._next + _WORTH_A_START or self._stream is None:
            self._stream, self._next = self._read(index), index
        while self._next < index:
            self._following()
        return self._following()

    def _following(self) -> Frame:
        if self._stream is None:
            self._stream = self._read(self._next)
        try:
            frame = next(self._stream)
        except StopIteration:
            raise VideoError(
                f"the clip ends before frame {self._next} of {len(self)}; re-encode it or take fewer frames"
            ) from None
        self._next += 1
        return frame


def collect_frames(chunks: Iterable[Frame], num_frames: int, height: int, width: int) -> Frame:
    """All frames (f H W 3) of chunks (n H W 3), each freed once it is copied."""
    frames, done = np.empty((num_frames, height, width, 3), np.uint8), 0
    for chunk in chunks:
        frames[done : done + len(chunk)] = chunk
        done += len(chunk)
    return frames


Frames: TypeAlias = "Frame | LazyFrames"
