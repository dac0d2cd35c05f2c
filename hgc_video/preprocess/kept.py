"""What preprocessors found, kept on disk: by the content of the film, the frames taken and the parameters.

An entry is a folder of chunks of some frames each, so that neither writing nor reading holds a whole clip.
All entries together are bounded; those that were not used for longest go first.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ..errors import InputError, VideoError
from ..files import (
    complete_or_gone,
    own_folder,
    remove_folder,
    require_writable,
    sweep,
    write_text,
)
from ..plain_data import parse_json

DEFAULT_LIMIT_NBYTES = 2 * 2**30
_FORMAT = 1
_CHUNK_NBYTES, _CHUNK_FRAMES = 2**25, 64
_INDEX, _LIMIT = "entry.json", "limit.txt"


@dataclass(frozen=True)
class Entry:
    """One kept extraction: what was asked for, its bytes on disk, and when it was used last (seconds since
    1970)."""

    folder: Path
    request: Mapping[str, Any]
    name: str
    num_frames: int
    nbytes: int
    used_s: float


@dataclass(frozen=True)
class KeptEstimates:
    """Estimates in a folder of chunks, by the number of their first frame."""

    folder: Path
    starts: tuple[int, ...]
    num_frames: int

    def __len__(self) -> int:
        return self.num_frames

    def read(self, start: int = 0) -> Iterator[NDArray[Any]]:
        """The arrays of the frames from `start` on; VideoError where the folder was emptied meanwhile."""
        ends = (*self.starts[1:], self.num_frames)
        for first, end in zip(self.starts, ends, strict=True):
            if end <= start:
                continue
            try:
                with np.load(_chunk(self.folder, first), allow_pickle=False) as chunk:
                    arrays = [chunk[str(number)] for number in range(max(first, start), end)]
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise VideoError(
                    f'what was extracted cannot be read from "{self.folder}" ({error}); run '
                    "hgc-video cache --clear and extract it again"
                ) from error
            yield from arrays


@dataclass(frozen=True)
class HeldEstimates:
    """Estimates in memory, where none can be kept on disk."""

    arrays: tuple[NDArray[Any], ...]

    def __len__(self) -> int:
        return len(self.arrays)

    def read(self, start: int = 0) -> Iterator[NDArray[Any]]:
        """The arrays of the frames from `start` on."""
        return iter(self.arrays[start:])


def kept(request: Mapping[str, Any]) -> KeptEstimates | None:
    """What is kept for a request of plain data; None where there is nothing."""
    try:
        folder = kept_folder() / _key(request)
        told = _read_index(folder)
        (folder / _INDEX).touch()
    except (InputError, OSError):
        return None
    return None if told is None else KeptEstimates(folder, told.starts, told.num_frames)


def keep(
    request: Mapping[str, Any], arrays: Iterable[NDArray[Any]], name: str
) -> KeptEstimates | HeldEstimates:
    """Keeps arrays as they come, under a request; `name` is the clip's, for whoever looks at the list."""
    try:
        folder = kept_folder() / _key(request)
        folder.parent.mkdir(parents=True, exist_ok=True)
        require_writable(folder)
    except (OSError, InputError):  # nothing can be kept here
        return HeldEstimates(tuple(arrays))
    with complete_or_gone(folder) as part:
        part.mkdir()
        starts, count = _write_chunks(part, arrays)
        told = {"request": request, "name": name, "starts": starts, "num_frames": count}
        (part / _INDEX).write_text(json.dumps(told), encoding="utf-8")
    prune(but=folder)
    return KeptEstimates(folder, tuple(starts), count)


def entries() -> list[Entry]:
    """Everything that is kept, used last first; what is damaged counts, and is dropped as the rest is."""
    found = []
    for folder in kept_folder().glob("[!.]*/"):
        with suppress(OSError):
            told = _read_index(folder) or _Index({}, "(damaged)", (), 0)
            nbytes = sum(file.stat().st_size for file in folder.iterdir())
            used_s = (folder / _INDEX).stat().st_mtime
            found.append(Entry(folder, told.request, told.name, told.num_frames, nbytes, used_s))
    return sorted(found, key=lambda entry: -entry.used_s)


@dataclass(frozen=True)
class _Index:
    """What is written beside the chunks."""

    request: Mapping[str, Any]
    name: str
    starts: tuple[int, ...]
    num_frames: int


@cache
def _adapter() -> TypeAdapter[_Index]:
    return TypeAdapter(_Index)


def _read_index(folder: Path) -> _Index | None:
    """None where it is damaged; OSError where there is none."""
    data = (folder / _INDEX).read_bytes()
    try:
        return _adapter().validate_python(parse_json(data))
    except ValueError:
        return None


def limit_nbytes() -> int:
    """The bytes that all entries together may take."""
    try:
        return int((kept_folder() / _LIMIT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return DEFAULT_LIMIT_NBYTES


def set_limit(nbytes: int) -> None:
    """Sets the limit for this and later runs, and drops what is beyond; InputError: it cannot be written."""
    with suppress(OSError):
        kept_folder().mkdir(parents=True, exist_ok=True)
    write_text(kept_folder() / _LIMIT, f"{nbytes}\n")
    prune()


def clear() -> int:
    """Drops every entry; the number of those that there were."""
    found = entries()
    for entry in found:
        remove_folder(entry.folder)
    return len(found)


def prune(but: Path | None = None) -> None:
    """Drops entries that were not used for longest, until the rest is within the limit; never `but`, which is
    in use. What killed extractions had begun goes too."""
    sweep(kept_folder())
    left, limit = 0, limit_nbytes()
    for entry in sorted(entries(), key=lambda entry: entry.folder != but):
        left += entry.nbytes
        if left > limit and entry.folder != but:
            left -= entry.nbytes
            remove_folder(entry.folder)


def _write_chunks(part: Path, arrays: Iterable[NDArray[Any]]) -> tuple[list[int], int]:
    """Writes arrays in chunks; the number of each chunk's first, and of all."""
    starts: list[int] = []
    pending: list[NDArray[Any]] = []
    nbytes = count = 0
    for array in arrays:
        pending.append(array)
        nbytes, count = nbytes + array.nbytes, count + 1
        if nbytes >= _CHUNK_NBYTES or len(pending) >= _CHUNK_FRAMES:
            starts.append(_write_chunk(part, pending, count))
            pending, nbytes = [], 0
    if pending:
        starts.append(_write_chunk(part, pending, count))
    return starts, count


def _write_chunk(part: Path, arrays: list[NDArray[Any]], end: int) -> int:
    first = end - len(arrays)
    # numpy's own savez compresses three times slower for a tenth fewer bytes.
    made = zipfile.ZipFile(_chunk(part, first), "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with made as chunk:
        for number, array in enumerate(arrays, first):
            with chunk.open(f"{number}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return first


def _chunk(folder: Path, first: int) -> Path:
    return folder / f"{first:06d}.npz"


def _key(request: Mapping[str, Any]) -> str:
    text = json.dumps({"format": _FORMAT, **request}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def kept_folder() -> Path:
    return own_folder() / "extracted"
