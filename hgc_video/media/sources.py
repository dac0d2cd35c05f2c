"""Opens clips: movie files, animated images, folders of images, single images and arrays.

Every source tells its `VideoInfo` and gives any of its frames, one at a time, so that a long clip
never has to be in memory as a whole. Knows nothing about models, sizes they like or writing.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from hgc_video.errors import VideoError, text_of
from hgc_video.files import ffmpeg_name, refuse_stream
from hgc_video.media.deep import DeepRange, is_deep, range_of, tell_of
from hgc_video.media.frames import DEFAULT_FPS, Frame, VideoInfo, VideoSource
from hgc_video.media.limits import check_num_frames, check_pixels

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
# What Pillow's readers raise of damaged files; an EOFError is no OSError.
_DAMAGED = (
    OSError, EOFError, SyntaxError, ValueError, IndexError, KeyError, TypeError, AttributeError,
    ZeroDivisionError, OverflowError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
_BROWSER_DELAY_MS = 100.0  # what browsers show for animation frames that name no duration


def open_path(path: Path, source_fps: float | None = None) -> VideoSource:
    """Opens a movie, an image, an animated image or a folder of images.

    `source_fps` is the rate of a clip that carries none.

    Raises:
        VideoError: the path does not exist, is no video or holds no frames.
    """
    if not path.exists():
        raise VideoError(f'no file "{path}"; check the path')
    refuse_stream(path, VideoError)
    if path.is_file() and not path.stat().st_size:
        raise VideoError(f'"{path}" is empty, 0 bytes; record or copy it again')
    if path.is_dir():
        return FolderSource(path, source_fps)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return AnimationSource(path, source_fps)
    from hgc_video.media.movies import Movie

    return Movie(Path(ffmpeg_name(path)))


class ArraySource:
    """Frames in memory: an array (f H W 3) or a sequence of images or arrays of one size."""

    def __init__(self, frames: Any, fps: float | None = None) -> None:
        if isinstance(frames, np.ndarray) and frames.ndim != 4:
            raise VideoError(f"a clip is an array (f H W 3), got shape {frames.shape}")
        deep = _deep_range([frame for frame in frames if isinstance(frame, Image.Image)])
        if deep is not None:
            tell_of(deep, "the clip")
        self._frames = [_checked(frame, deep) for frame in frames]
        if not self._frames:
            raise VideoError("the clip has zero frames; give at least one")
        sizes = {frame.shape[:2] for frame in self._frames}
        if len(sizes) > 1:
            raise VideoError(f"all frames of a clip must have one size, got {sorted(sizes)}")
        height, width = sizes.pop()
        self.info = VideoInfo(fps or DEFAULT_FPS, len(self._frames), height, width, False)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """The frames at `indices`."""
        for index in indices:
            yield self._frames[index]


def images_in(folder: Path) -> list[Path]:
    """The images that lie in a folder itself, in natural order of their names."""
    names = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    return sorted((p for p in names if not p.name.startswith(".")), key=_natural)


class FolderSource:
    """A folder of images in natural order of their names."""

    def __init__(self, folder: Path, source_fps: float | None = None) -> None:
        self._paths = images_in(folder)
        if not self._paths:
            raise VideoError(f'the folder "{folder}" holds no images; give one with PNG frames')
        with opened_image(self._paths[0]) as image:
            told = image.info.get("fps")  # write_video's own folders say it
            self._deep = range_of(_each(self._paths)) if is_deep(image) else None
            height, width = rgb(image, self._deep).shape[:2]
        if self._deep is not None:
            tell_of(self._deep, f'"{folder}"')
        fps = float(told or source_fps or DEFAULT_FPS)
        self.info = VideoInfo(fps, len(self._paths), height, width, told is not None)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """The frames at `indices`."""
        size = (self.info.height, self.info.width)
        for index in indices:
            with opened_image(self._paths[index]) as image:
                frame = rgb(image, self._deep)
            if frame.shape[:2] != size:
                raise VideoError(
                    f'"{self._paths[index]}" is {frame.shape[:2]}, the first image of its folder '
                    f"{size}; all frames of a clip must have one size"
                )
            yield frame


class AnimationSource:
    """A GIF, an animated WebP or a single image.

    Encoders merge equal neighbours into one longer frame; these are told apart again, so that
    the number of frames and the speed survive a round trip. The size is that of the first frame; what a
    later one draws beyond it is left out, as browsers do.
    """

    def __init__(self, path: Path, source_fps: float | None = None) -> None:
        self._path = path
        delays = []
        with opened_image(path) as image:
            self._deep = _deep_range([image])
            height, width = rgb(image, self._deep).shape[:2]
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                image.load()
                delay = float(image.info.get("duration", 0))
                delays.append(delay if delay > 10 else _BROWSER_DELAY_MS)
        if self._deep is not None:
            tell_of(self._deep, f'"{path}"')
        repeats = _repeats(delays)
        check_num_frames(sum(repeats), f'"{path}"')
        self._stored = [i for i, times in enumerate(repeats) for _ in range(times)]
        moves = len(delays) > 1
        fps = 1000 * len(self._stored) / sum(delays) if moves else source_fps or DEFAULT_FPS
        self.info = VideoInfo(fps, len(self._stored), height, width, moves)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """The frames at `indices`."""
        with opened_image(self._path) as image:
            for index in indices:
                image.seek(self._stored[index])
                yield rgb(image, self._deep)[: self.info.height, : self.info.width]


def rgb(image: Image.Image, deep: DeepRange | None = None) -> Frame:
    """An image as (H W 3) uint8: upright, over black where transparent, 16-bit depth scaled by `deep`, the
    range of its clip (None: its own)."""
    image = ImageOps.exif_transpose(image)
    if is_deep(image):
        image = Image.fromarray((deep or range_of([image])).to_uint8(np.asarray(image)))
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _repeats(delays_ms: Sequence[float]) -> list[int]:
    """How many ticks of one constant rate each stored frame is shown."""
    tick = min(delays_ms)
    for _ in range(2):  # GIF rounds delays to 10 ms: the second pass divides by the mean tick
        repeats = [max(1, round(delay / tick)) for delay in delays_ms]
        tick = sum(delays_ms) / sum(repeats)
    return repeats


def _deep_range(images: Sequence[Image.Image]) -> DeepRange | None:
    """The range of a clip's images; None where all have 8 bits."""
    return range_of(images) if any(map(is_deep, images)) else None


def _checked(frame: Any, deep: DeepRange | None) -> Frame:
    array = rgb(frame, deep) if isinstance(frame, Image.Image) else np.asarray(frame)
    if array.dtype != np.uint8:
        raise VideoError(f"frames must be uint8 in 0..255, got {array.dtype}; scale and convert")
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise VideoError(f"a frame is an array (H W 3), got shape {array.shape}")
    return array


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """An image file while it is read; what goes wrong meanwhile is a VideoError."""
    try:
        with Image.open(path) as image:
            check_pixels(*image.size, f'"{path}"')
            yield image
    except VideoError:
        raise
    except Image.DecompressionBombError as error:
        raise VideoError(
            f'"{path}" is larger than Pillow reads ({text_of(error)}); make it smaller, or '
            "raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except _DAMAGED as error:
        raise VideoError(f'"{path}" cannot be read as an image; it may be damaged') from error


def _each(paths: Sequence[Path]) -> Iterator[Image.Image]:
    for path in paths:
        with opened_image(path) as image:
            yield image


def _natural(path: Path) -> list[tuple[int, str]]:
    pieces = re.split(r"(\d+)", path.name)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]
