"""The content of a clip or of a model's folder as a hash: equal where the bytes are, whatever its name"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from ..files import user_path
from ..media.video import VideoLike, iter_frames


def content_of(video: VideoLike) -> str:
    """The hash of a clip: of a file's bytes, of a folder's files and their names, of frames in memory.

    Raises:
        VideoError: frames in memory that are no clip; OSError: a file that cannot be read.
    """
    if isinstance(video, str | os.PathLike):
        return path_content(user_path(video))
    found = hashlib.blake2b(digest_size=16)
    for frame in iter_frames(video):
        found.update(f"{frame.shape}".encode())
        found.update(np.ascontiguousarray(frame).data)
    return found.hexdigest()


def path_content(path: Path) -> str:
    """The hash of a file, or of the files of a folder and of folders in it."""
    found = hashlib.blake2b(digest_size=16)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            found.update(str(file.relative_to(path)).encode())
        with file.open("rb") as opened:
            found.update(hashlib.file_digest(opened, "sha256").digest())
    return found.hexdigest()
