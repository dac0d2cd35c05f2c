"""The content of a clip as a checksum: equal where the bytes are, whatever its name."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from ..files import kept_sha256_of, user_path
from .video import VideoLike, iter_frames


def content_of(video: VideoLike) -> str:
    """The SHA-256 of a clip: of a file's bytes, of a folder's files and their names, of frames in memory.

    Raises:
        VideoError: frames in memory that are no clip; OSError: a file that cannot be read.
    """
    if isinstance(video, str | os.PathLike):
        return kept_sha256_of(user_path(video))
    found = hashlib.sha256()
    for frame in iter_frames(video):
        found.update(f"{frame.shape}".encode())
        found.update(np.ascontiguousarray(frame).data)
    return found.hexdigest()
