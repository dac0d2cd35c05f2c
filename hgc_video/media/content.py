"""The content of a clip as a checksum: equal where the bytes are, whatever its name."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np

from ..files import kept_sha256_of, user_path
from .sources import images_in
from .video import ImageLike, VideoLike, iter_frames


def content_of(video: VideoLike | ImageLike) -> str:
    """The SHA-256 of a clip or image: of a file's bytes, of a folder's files and their names, of frames (or
    one, H W 3) in memory.

    Raises:
        VideoError: frames in memory that are no clip; OSError: a file that cannot be read.
    """
    if isinstance(video, str | os.PathLike):
        return kept_sha256_of(user_path(video))
    found = hashlib.sha256()
    shape = np.shape(video) if hasattr(video, "shape") or hasattr(video, "mode") else ()
    frames = [np.asarray(video)] if len(shape) == 3 else iter_frames(video)
    for frame in frames:
        found.update(f"{frame.shape}".encode())
        found.update(np.ascontiguousarray(frame).data)
    return found.hexdigest()


def state_of_clip(video: VideoLike | ImageLike) -> tuple[Any, ...]:
    """What changes when a clip's file, or the images of its folder, are written to, replaced or removed:
    paths, sizes, times of change and numbers on the disk. Of frames in memory, and where nothing is, nothing.
    """
    if not isinstance(video, str | os.PathLike):
        return ()
    path = user_path(video)
    try:
        stats = [(str(p), p.stat()) for p in (images_in(path) if path.is_dir() else [path])]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)
