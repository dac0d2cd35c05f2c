"""Movie files, read by PyAV. Every frame is found by its timestamp.

Opening a movie demuxes it, which tells the timestamps of its frames at little cost; a file whose packets
do not tell them is decoded once instead. Knows nothing about images and folders.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import av
import av.error
import numpy as np
from av.video.frame import PictureType

from hgc_video.errors import VideoError, text_of, warn
from hgc_video.media.display import Display, display_of
from hgc_video.media.frames import DEFAULT_FPS, Frame, VideoInfo
from hgc_video.media.timeline import Timeline, make_timeline

# Packets of VP8 need not show a frame: it keeps pictures that others refer to in packets of their own.
_HIDDEN_FRAMES = {"vp8"}
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of ITU-T H.273
_WORTH_A_SEEK = 32  # frames; decoding on over fewer is as quick as a seek


class Movie:
    """A movie file as a clip of constant rate; frames upright, with square pixels, in their own colours.

    Raises:
        VideoError: it is no video, or holds no frame that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _require_video(path)
        with _readable(path):
            self._index, self._display, first = _opened(path)
            self._timeline = self._index.timeline()
        height, width = first.shape[:2]
        fps, count = self._timeline.fps, len(self._timeline.shown)
        self.info = VideoInfo(fps, count, height, width, begins_s=self._index.begins_s)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """The frames (H W 3) at `indices`; one that cannot be decoded is the one before it, and said."""
        stamps, cursor = self._index.stamps, _Cursor(self._path, self._index)
        held, frame, gaps = -1, None, _Gaps(self._path)
        for index in indices:
            wanted = self._timeline.shown[index]
            if frame is None or wanted != held:
                with _readable(self._path):
                    stamp, found = cursor.at(stamps[wanted])
                    shown = self._display.shown(found)
                if stamp != stamps[wanted]:
                    gaps.add(wanted)
                held, frame = wanted, shown
            yield frame
        gaps.sum_up()


@dataclass(frozen=True)
class _Index:
    """The timestamps of a movie's frames in the order shown, and those that decoding can begin at.

    `counted`: the file has no timestamps, its frames are numbered as they are decoded.
    """

    stamps: tuple[int, ...]
    keys: tuple[int, ...]
    second: float  # of one unit of a timestamp
    fps: float | None
    last_nticks: int | None = None
    counted: bool = False

    @property
    def begins_s(self) -> float:
        """When the first frame is shown, in the file's own time."""
        return 0.0 if self.counted else self.stamps[0] * self.second

    def timeline(self) -> Timeline:
        """The constant rate that the movie is read at."""
        seconds = [stamp * self.second for stamp in self.stamps]
        last = self.last_nticks * self.second if self.last_nticks else None
        return make_timeline(seconds, self.fps, last)

    def starting_with(self, stamp: int) -> _Index:
        """Without frames before `stamp`: those refer to what was cut off, and no decoder shows them."""
        return replace(self, stamps=tuple(s for s in self.stamps if s >= stamp))


def _opened(path: Path) -> tuple[_Index, Display, Frame]:
    """A movie's index, how its frames are shown, and the first one of them."""
    index = _demuxed(path)
    with av.open(str(path)) as container:
        stream = _stream(container)
        first = next(_decoded(container, stream), None)
        if first is None:
            raise VideoError(f'"{path}" is damaged: no frame can be decoded')
        _tell_of_hdr(path, first)
        display = display_of(first, stream.sample_aspect_ratio)
    if index is not None and first.pts is not None and first.pts in index.stamps:
        index = index.starting_with(first.pts)
    else:
        index = _scanned(path)
    return index, display, display.shown(first)


def _demuxed(path: Path) -> _Index | None:
    """The index from packets alone; None where they do not tell which frames will be shown."""
    lasting: dict[int, int | None] = {}  # how long each frame stays, by its timestamp
    keys, count, shown = [], 0, 0
    try:
        with av.open(str(path)) as container:
            stream = _stream(container)
            declared = stream.frames
            if stream.codec_context.name in _HIDDEN_FRAMES:
                return None
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                count += 1
                if packet.pts is None or packet.is_corrupt:
                    return None
                if packet.is_keyframe:
                    keys.append(packet.pts)
                if not packet.is_discard:
                    shown += 1
                    lasting[packet.pts] = packet.duration
            told = _told_of(stream)
    except av.error.FFmpegError:
        return None
    if not shown or len(lasting) < shown or (declared and declared != count):
        return None
    stamps = sorted(lasting)
    return _Index(tuple(stamps), tuple(sorted(keys)), *told, lasting[stamps[-1]])


def _scanned(path: Path) -> _Index:
    """The index by decoding the whole file: the frames that there really are."""
    with av.open(str(path)) as container:
        stream = _stream(container)
        found = [frame.pts for frame in _decoded(container, stream)]
        stamps = [stamp for stamp in found if stamp is not None]
        counted = len(stamps) < len(found) or any(np.diff(stamps) <= 0)
        declared, (second, fps) = stream.frames, _told_of(stream, counted)
    if declared > len(found):
        warn(
            f'"{path}" is broken off: {len(found)} of its {declared} frames can be read; '
            "copy or record it again if the end matters"
        )
    if counted:
        return _Index(tuple(range(len(found))), (), 1 / (fps or DEFAULT_FPS), fps, counted=True)
    return _Index(tuple(stamps), (), second, fps)


def _told_of(stream: Any, counted: bool = False) -> tuple[float, float | None]:
    """Seconds of one unit of a stream's timestamps, and the frame rate that it declares."""
    # A stream without timestamps has no average; its own rate is then in the codec's headers.
    rate = stream.codec_context.framerate if counted else stream.average_rate
    rate = rate or stream.guessed_rate
    return float(stream.time_base), float(rate) if rate else None


class _Cursor:
    """Decodes a movie onwards, or from an earlier key frame, to the frame with a timestamp."""

    def __init__(self, path: Path, index: _Index) -> None:
        self._path, self._index = path, index
        self._keys = tuple(key for key in index.keys if key > index.stamps[0])
        self._decoded: Iterator[_Stamped] = iter(())
        self._last: _Stamped | None = None
        self._next: _Stamped | None = None

    def at(self, stamp: int) -> _Stamped:
        """The frame with this timestamp, or the last one before it where that cannot be decoded."""
        if self._last is None or self._last[0] > stamp or self._is_far(self._last[0], stamp):
            self._begin(stamp)
        while self._next is not None and self._next[0] <= stamp:
            self._step()
        if self._last is None:
            raise VideoError(
                f'"{self._path}" cannot be decoded any more; was it changed meanwhile?'
            )
        return self._last

    def _is_far(self, here: int, stamp: int) -> bool:
        """Whether a key frame lies between here and there, and long after here."""
        stamps, key = self._index.stamps, self._key(stamp)
        if key is None:
            return False
        return bisect_right(stamps, key) - bisect_right(stamps, here) > _WORTH_A_SEEK

    def _key(self, stamp: int) -> int | None:
        """The last key frame up to here that decoding can begin at, but for the clip's first one."""
        at = bisect_right(self._keys, stamp)
        return self._keys[at - 1] if at else None

    def _begin(self, stamp: int) -> None:
        """Starts at the key frame before `stamp`; from the beginning where the file has none that holds.

        It holds when it comes out first and as an intra picture. Where a picture is refreshed little by
        little instead, what follows the frame marked as a key is damaged for a while.
        """
        key = self._key(stamp)
        if key is not None:
            self._start(key)
            if self._next and self._next[0] == key and self._next[1].pict_type == PictureType.I:
                return
            self._keys = ()
        self._start(None)

    def _start(self, key: int | None) -> None:
        self._decoded, self._last = _frames(self._path, key, self._index.counted), None
        self._next = next(self._decoded, None)

    def _step(self) -> None:
        self._last, self._next = self._next, next(self._decoded, None)


_Stamped: TypeAlias = tuple[int, av.VideoFrame]


def _frames(path: Path, start: int | None, counted: bool) -> Iterator[_Stamped]:
    """A movie's frames with their timestamps, from a key frame's on or all; numbers where `counted`."""
    with _reopened(path) as container:
        stream = _stream(container)
        if start is not None:
            # A damaged index forbids it; then frames before that are decoded, and left out.
            with suppress(av.error.FFmpegError, OSError):
                container.seek(start, stream=stream)
        for number, frame in enumerate(_decoded(container, stream)):
            stamp = number if counted else frame.pts
            # Frames shown before the key frame that they come after refer to what was not decoded.
            if stamp is not None and (start is None or stamp >= start):
                yield stamp, frame


@contextmanager
def _reopened(path: Path) -> Iterator[Any]:
    """The container of a file that was read before."""
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise _changed(path) from error
    with container:
        yield container


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """VideoError where ffmpeg stumbles over a file that it could open."""
    try:
        yield
    except VideoError:
        raise
    except (av.error.FFmpegError, OSError, ValueError, ArithmeticError, IndexError) as error:
        told = text_of(error) or type(error).__name__
        raise VideoError(f'"{path}" is damaged and cannot be read: {told}') from error


def _changed(path: Path) -> VideoError:
    return VideoError(f'"{path}" cannot be read any more; leave it in place until the run is done')


def _decoded(container: Any, stream: Any) -> Iterator[av.VideoFrame]:
    """Frames in the order shown; packets that cannot be decoded are left out, as players do."""
    broken = av.error.FFmpegError  # at the interpreter's end the module is gone
    packets = container.demux(stream)
    while True:
        packet: Any = None
        with suppress(broken):  # the file ends in the middle of a packet
            packet = next(packets, None)
        ends = packet is None or (not packet.size and packet.dts is None)
        if not ends and not packet.size:  # AVI's "nothing new"; a decoder takes it for the end
            continue
        try:
            yield from stream.decode(packet)
        except broken:
            if not ends:
                continue
        if ends:
            return


def _stream(container: Any) -> Any:
    """The movie's picture; a cover image beside it is none."""
    stream = container.streams.best("video") or container.streams.video[0]
    if stream.codec_context is None:
        raise VideoError(
            f'"{container.name}" is in a format that ffmpeg has no decoder for; convert it to mp4'
        )
    stream.thread_type = "AUTO"
    return stream


def _require_video(path: Path) -> None:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f'"{path}" holds no video stream; give a video')
            if not any(packet.size for packet in container.demux(_stream(container))):
                raise VideoError(f'"{path}" has zero frames; give a clip with at least one')
    except av.error.EOFError as error:
        raise VideoError(f'"{path}" has zero frames; give a clip with at least one') from error
    except PermissionError as error:
        raise VideoError(f'"{path}" cannot be read: permission denied') from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, VideoError):
            raise
        if _is_mp4(path):
            raise VideoError(
                f'"{path}" is an mp4 without its index: it broke off while it was recorded or copied; '
                "copy it again"
            ) from error
        raise VideoError(
            f'"{path}" is not a video; give an mp4, webm, mov, gif, webp or a folder of PNGs'
        ) from error


def _is_mp4(path: Path) -> bool:
    """Whether a file begins as mp4 and mov do."""
    try:
        with path.open("rb") as file:
            return file.read(8)[4:] == b"ftyp"
    except OSError:
        return False


class _Gaps:
    """Warns of frames that cannot be decoded: of the first one at once, of all of them in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers: list[int] = []

    def add(self, number: int) -> None:
        """A frame cannot be decoded."""
        if not self._numbers:
            self._tell(f"frame {number}")
        self._numbers.append(number)

    def sum_up(self) -> None:
        """All frames have been asked for."""
        if len(self._numbers) > 1:
            self._tell(
                f"{len(self._numbers)} frames between {self._numbers[0]} and {max(self._numbers)}"
            )

    def _tell(self, what: str) -> None:
        warn(f'"{self._path}" is damaged: {what} cannot be decoded, the one before stands there')


def _tell_of_hdr(path: Path, frame: av.VideoFrame) -> None:
    kind = _HDR.get(int(frame.color_trc))
    if kind is not None:
        warn(
            f'"{path}" is an HDR video ({kind}), read without tone mapping: its colours come out paler; '
            "convert it to SDR first if they matter"
        )
