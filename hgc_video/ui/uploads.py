"""Files that the page was given: of a known type, no larger than allowed, looked at before they are used."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from anyio import to_thread

from ..errors import InputError, nearest
from ..files import unwritable
from ..jobs.clip_facts import facts_of
from ..media.sources import IMAGE_SUFFIXES
from ..media.video import read_image

MOVIE_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi")
_ALLOWED = {
    "video": (*MOVIE_SUFFIXES, ".gif", ".webp"), "image": IMAGE_SUFFIXES, "weights": (".safetensors",),
}  # fmt: skip


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

    def names_in(self, options: Any) -> dict[str, str]:
        """The own names of the uploads that options hold, by their paths; two are never the same."""
        names: dict[str, str] = {}
        paths = {str(upload.path): upload.name for upload in self._held.values()}
        for path in filter(paths.__contains__, _texts_of(options)):
            name, number = PurePath(paths[path]), 1
            while str(name) in {v for k, v in names.items() if k != path}:
                number += 1
                name = name.with_stem(f"{PurePath(paths[path]).stem}-{number}")
            names[path] = str(name)
        return names

    async def receive(
        self, name: str, kind: str, chunks: AsyncIterator[bytes], nbytes: int
    ) -> Upload:
        """Takes a file in. `kind` is video, image or weights; `nbytes` how long it says it is.

        Raises:
            TooLargeError: it is larger than allowed. InputError: another type of file; VideoError: it
            cannot be read. Nothing of it is left then.
        """
        suffix = PurePath(name).suffix.lower()
        if kind not in _ALLOWED:
            raise InputError(f'kind="{kind}" is not possible: {nearest(kind, _ALLOWED)}')
        if suffix not in _ALLOWED[kind]:
            allowed = ", ".join(_ALLOWED[kind])
            raise InputError(f'"{name}" is no {kind} file; choose one of {allowed}')
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
            if isinstance(error, OSError):  # a full disk, a folder that is gone
                raise unwritable(path.parent, error, InputError) from error
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


def _texts_of(value: Any) -> Iterator[str]:
    """Every text in options, the keys of mappings too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts_of(key)
            yield from _texts_of(inner)


def _facts(path: Path, kind: str) -> dict[str, Any]:
    if kind == "weights":
        return _facts_of_weights(path)
    if kind == "image":
        height, width, _ = read_image(path).shape
        return {"height": height, "width": width, "shown": f"{width}x{height}"}
    seen = facts_of(path)
    return {
        "num_frames": seen.info.num_frames, "fps": seen.info.fps, "width": seen.info.width,
        "height": seen.info.height, "sound": seen.sound, "kind": seen.kind, "raw": seen.raw,
        "inverted": seen.inverted, "shown": str(seen).partition(": ")[2],
    }  # fmt: skip


def _facts_of_weights(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            count = len(file.keys())
    except (SafetensorError, OSError, ValueError) as error:  # a file without a byte is an OSError
        raise InputError(f'"{path}" is no readable safetensors file ({error})') from error
    return {"shown": f"{count} tensors, {path.stat().st_size / 2**20:.1f} MiB"}
