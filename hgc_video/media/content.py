"""The content of a clip as a checksum: equal where the bytes are, whatever its name."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from ..files import kept_sha256_of, user_path
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
