"""Movie files: decord for speed, PyAV where decord is absent or cannot open the file.

PyAV looks at every file first, because its errors are clean; both show frames upright. Knows
nothing about images and folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from hgc_video.errors import VideoError
from hgc_video.media.frames import DEFAULT_FPS, Frame, Source, VideoInfo


def open_movie(path: Path) -> Source:
    """Opens a movie file.

    Raises:
        VideoError: it is no video, or holds no frame that can be decoded.
    """
    _require_video(path)
    try:
        return DecordMovie(path)
    except Exception:  # decord raises bare and private errors; PyAV then gives the verdict
        return AvMovie(path)


class DecordMovie:
    """A movie read by decord: quick access to any frame; raises what it likes if it cannot."""

    def __init__(self, path: Path) -> None:
        decord = import_module("decord")  # carries no types
        self._path = path
        self._reader: Any = decord.VideoReader(str(path))
        height, width, channels = self._reader[0].shape
        if channels != 3:  # decord garbles some widths, 96 among them (dmlc/decord issue 336)
            raise VideoError(f'decord cannot read "{path}"; PyAV can')
        fps = float(self._reader.get_avg_fps()) or DEFAULT_FPS
        self.info = VideoInfo(fps, len(self._reader), height, width)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """The frames at `indices`."""
        for index in indices:
            try:
                frame: Frame = self._reader[index].asnumpy()
            except Exception as error:  # decord's own error type is not stable
                raise _damaged(self._path, index) from error
            yield frame


class AvMovie:
    """A movie read by PyAV, from its beginning up to the last frame asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        count = 0
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                fps = float(stream.average_rate or DEFAULT_FPS)
                for frame in container.decode(stream):
                    if count == 0:
                        height, width = _upright(frame).shape[:2]
                    count += 1
        except av.error.FFmpegError as error:
            if count == 0:
                raise VideoError(f'"{path}" is damaged: no frame can be decoded') from error
        if count == 0:
            raise VideoError(f'"{path}" has zero frames; give a clip with at least one')
        self.info = VideoInfo(fps, count, height, width)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """The frames at `indices`; those asked for out of order are held until their turn."""
        last_turn = {index: turn for turn, index in enumerate(indices)}
        held: dict[int, Frame] = {}
        decoded = self._decode()
        reached = -1
        for turn, index in enumerate(indices):
            while reached < index:
                reached, frame = next(decoded)
                if reached in last_turn:
                    held[reached] = _upright(frame)
            yield held.pop(index) if last_turn[index] == turn else held[index]

    def _decode(self) -> Iterator[tuple[int, av.VideoFrame]]:
        index, broken = 0, av.error.FFmpegError  # at the interpreter's end the module is gone
        try:
            with av.open(str(self._path)) as container:
                for index, frame in enumerate(container.decode(video=0)):
                    yield index, frame
        except broken as error:
            raise _damaged(self._path, index) from error


def _require_video(path: Path) -> None:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f'"{path}" holds no video stream; give a video')
    except av.error.EOFError as error:
        raise VideoError(f'"{path}" has zero frames; give a clip with at least one') from error
    except PermissionError as error:
        raise VideoError(f'"{path}" cannot be read: permission denied') from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(
            f'"{path}" is not a video; give an mp4, webm, mov, gif, webp or a folder of PNGs'
        ) from error


def _upright(frame: av.VideoFrame) -> Frame:
    array = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    return np.ascontiguousarray(np.rot90(array, frame.rotation // 90))


def _damaged(path: Path, index: int) -> VideoError:
    return VideoError(f'"{path}" is damaged at frame {index}; re-encode it or take fewer frames')
