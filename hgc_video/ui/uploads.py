"""Files that the page was given: of a known type, no larger than allowed, looked at before they are used."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from anyio import to_thread

from ..errors import InputError
from ..jobs.clip_facts import facts_of
from ..media.sources import IMAGE_SUFFIXES
from ..media.video import read_image

MOVIE_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi")
_CLIPS = (*MOVIE_SUFFIXES, ".gif", ".webp")


class TooLargeError(InputError):
    """A file that is larger than the page takes."""


@dataclass(frozen=True)
class Upload:
    """A file that was given: its own name, where it lies, and what was seen of it."""

    id: str
    name: str
    path: Path
    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """What the page shows of it."""
        return {"id": self.id, "name": self.name, **self.facts}


class Uploads:
    """The files in a folder of this run of the page."""

    def __init__(self, folder: Path, most_nbytes: int) -> None:
        self.folder, self.most_nbytes = folder, most_nbytes
        self._held: dict[str, Upload] = {}

    def __getitem__(self, upload: str) -> Upload:
        if upload not in self._held:
            raise InputError("the file is not here any more; choose it again")
        return self._held[upload]

    def at(self, path: str) -> Upload | None:
        """The upload that lies at a path."""
        return next((one for one in self._held.values() if str(one.path) == path), None)

    async def receive(
        self, name: str, kind: str, chunks: AsyncIterator[bytes], nbytes: int
    ) -> Upload:
        """Takes a file in. `kind` is video or image; `nbytes` how long it says it is.

        Raises:
            TooLargeError: it is larger than allowed. InputError: another type of file; VideoError: it
            cannot be read. Nothing of it is left then.
        """
        suffix = PurePath(name).suffix.lower()
        allowed = IMAGE_SUFFIXES if kind == "image" else _CLIPS
        if suffix not in allowed:
            raise InputError(f'"{name}" is no {kind} file; choose one of {", ".join(allowed)}')
        self._check_size(name, nbytes)
        made = secrets.token_hex(6)
        path = self.folder / f"{made}{suffix}"
        try:
            taken = 0
            with path.open("wb") as file:
                async for chunk in chunks:
                    taken += len(chunk)
                    self._check_size(name, taken)
                    file.write(chunk)
            facts = await to_thread.run_sync(_facts, path, kind)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, InputError):
                raise type(error)(str(error).replace(str(path), name)) from error
            raise
        self._held[made] = Upload(made, PurePath(name).name, path, facts)
        return self._held[made]

    def _check_size(self, name: str, nbytes: int) -> None:
        if nbytes > self.most_nbytes:
            raise TooLargeError(
                f'"{name}" is larger than {self.most_nbytes / 2**20:.0f} MiB, the most that the page takes; '
                "choose a shorter clip, or start hgc-video ui with a larger --max-upload"
            )


def _facts(path: Path, kind: str) -> dict[str, Any]:
    if kind == "image":
        height, width, _ = read_image(path).shape
        return {"height": height, "width": width, "shown": f"{width}x{height}"}
    seen = facts_of(path)
    return {
        "num_frames": seen.info.num_frames, "fps": seen.info.fps, "width": seen.info.width,
        "height": seen.info.height, "sound": seen.sound, "kind": seen.kind, "raw": seen.raw,
        "inverted": seen.inverted, "shown": str(seen).partition(": ")[2],
    }  # fmt: skip
