"""What a job is known by: a hash of its options and of the files that it reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..files import user_path
from ..options import GenerateOptions

# What does not change a result, or says where it goes.
_NOT_OF_THE_RESULT = (
    "out", "device", "offline", "calibration_dir", "work", "checkpoint_every_s",
)  # fmt: skip


class Fingerprints:
    """Hashes of configurations; a file that many jobs read is read once."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, int, int], str] = {}

    def of(self, options: GenerateOptions) -> str:
        """The SHA-256 of checked options and of their control clips and image, as they are now."""
        told: dict[str, Any] = options.to_dict()
        for name in _NOT_OF_THE_RESULT:
            told.pop(name, None)
        clips = [*options.control_clips.values(), options.image]
        files = [self._of_path(user_path(clip)) for clip in clips if clip is not None]
        text = json.dumps([told, files], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def _of_path(self, path: Path) -> str:
        if path.is_dir():
            inner = sorted(p for p in path.iterdir() if p.is_file())
            listed = [f"{p.name} {self._of_path(p)}" for p in inner]
            return hashlib.sha256("\n".join(listed).encode()).hexdigest()
        stat = path.stat()
        at = (str(path), stat.st_mtime_ns, stat.st_size)
        if at not in self._files:
            self._files[at] = file_digest(path)
        return self._files[at]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def loading_of(options: GenerateOptions) -> str:
    """What of the options decides which model is loaded: jobs with the same text share one."""
    told = options.to_dict()
    return json.dumps([told["model"], options.control_kinds, told["dtype"], told["offline"]])
