"""What preprocessors found, kept on disk: by the content of the film, the frames taken and the parameters.

An entry is a folder with an archive, an array a frame, so that neither writing nor reading holds a whole
clip. All entries together are bounded; those that were not used for longest go first. Whoever reads an entry
has its archive open: another process that drops it meanwhile takes its name alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ..errors import InputError, VideoError, warn
from ..files import (
    complete_or_gone,
    own_folder,
    remove,
    remove_folder,
    require_writable,
    sweep,
    write_text,
)
from ..plain_data import parse_json

DEFAULT_LIMIT_NBYTES = 2 * 2**30
_FORMAT = 1
_INDEX, _LIMIT = "entry.json", "limit.txt"
# Named by its first frame: older versions wrote an archive for every 64 frames. What they kept of longer
# clips is made again.
_ARCHIVE, _STARTS = "000000.npz", (0,)
# Windows gives no folder another name while a file of it is open.
_OPEN_IS_RENAMED = os.name != "nt"


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
    """Estimates in an archive, which is open until nobody has these any more; in memory where the disk is
    full."""

    folder: Path
    archive: zipfile.ZipFile
    num_frames: int

    def __len__(self) -> int:
        return self.num_frames

    def read(self, start: int = 0) -> Iterator[NDArray[Any]]:
        """The arrays of the frames from `start` on; VideoError where the archive is spoilt."""
        for number in range(start, self.num_frames):
            try:
                with self.archive.open(f"{number}.npy") as file:
                    array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
            except _SPOILT as error:
                raise VideoError(
                    f'what was extracted cannot be read from "{self.folder}" ({error}); run '
                    "hgc-video cache --clear and extract it again"
                ) from error
            yield array


# What zipfile and numpy raise of a damaged archive.
_SPOILT = (
    OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


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
        if told is None or told.starts != _STARTS:
            return None
        archive = zipfile.ZipFile(folder / _ARCHIVE)
    except (InputError, *_SPOILT):
        return None
    with suppress(OSError):  # dropped by another process just now
        (folder / _INDEX).touch()
    return KeptEstimates(folder, archive, told.num_frames)


def keep(
    request: Mapping[str, Any], arrays: Iterable[NDArray[Any]], name: str
) -> KeptEstimates | HeldEstimates:
    """Keeps arrays as they come, under a request; `name` is the clip's, for whoever looks at the list.

    Warns (HGCVideoWarning) where nothing is kept as the disk is full or fails meanwhile.

    Raises:
        VideoError: the system has an error while the arrays are made, of the clip's file as a rule.
    """
    arrays = _made_of(name, arrays)
    try:
        folder = kept_folder() / _key(request)
        folder.parent.mkdir(parents=True, exist_ok=True)
        require_writable(folder)
    except (OSError, InputError):  # nothing can be kept here
        return HeldEstimates(tuple(arrays))
    found: KeptEstimates | None = None
    try:
        with complete_or_gone(folder, _Unkept) as part, _Movable(part / _ARCHIVE) as file:
            count = _write_archive(file, arrays)
            told = {"request": request, "name": name, "starts": _STARTS, "num_frames": count}
            try:
                (part / _INDEX).write_text(json.dumps(told), encoding="utf-8")
            except OSError as error:
                file.move(error)
            # Opened before it has its name, under which others may drop it.
            found = KeptEstimates(folder, file.archive(), count)
            if file.fault is not None:
                raise file.fault
    except _Unkept as error:
        if found is None:
            raise
        _tell_of_unkept(name, error.__cause__)
        return found
    prune(but=folder)
    return found


class _Unkept(InputError):
    """An entry that cannot be written."""


def _made_of(name: str, arrays: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """The arrays of a clip; a system's error that comes from there is not one of writing them."""
    try:
        yield from arrays
    except OSError as error:
        raise VideoError(
            f"{name} cannot be gone through ({error}); see that its files can be read, and run it again"
        ) from error


def _tell_of_unkept(name: str, error: BaseException | None) -> None:
    fault = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(fault).lower() if fault else str(error)
    warn(
        f'nothing is kept of what is extracted from {name}: "{kept_folder()}" cannot be written ({reason}); '
        "free space, lower what is kept by hgc-video cache --limit, or name another folder in HGC_VIDEO_HOME",
        stacklevel=3,
    )


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
    """What is written beside the archive."""

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


class _Movable(io.RawIOBase):
    """A new file in a new folder. Where the disk is full or fails it goes on in memory, with what was written
    before; `fault` says why."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | io.BytesIO = io.BytesIO()
        self.fault: OSError | None = None
        try:
            path.parent.mkdir()
            # It has no buffer: bytes are with the system when they are written, or it says that they are not.
            self._file = io.FileIO(path, "w+")
        except OSError as error:
            self.fault = error

    def write(self, data: Any) -> int:
        """Writes all of the data, here or there."""
        whole, begins = memoryview(data).cast("B"), self._file.tell()
        try:
            _write_all(self._file, whole)
        except OSError as error:
            self._file.seek(begins)
            self.move(error)
            _write_all(self._file, whole)
        return len(whole)

    def move(self, fault: OSError) -> None:
        """Goes on in memory from where it is; the file gives its place on the disk free."""
        if self.fault is not None:
            return
        at, disk, memory = self._file.tell(), self._file, io.BytesIO()
        disk.seek(0)
        shutil.copyfileobj(disk, memory, 2**20)
        disk.close()
        remove(self._path)
        memory.seek(at)
        self._file, self.fault = memory, fault

    def archive(self) -> zipfile.ZipFile:
        """What was written, to be read by itself."""
        if self.fault is not None:
            return zipfile.ZipFile(self._file)
        if _OPEN_IS_RENAMED:
            return zipfile.ZipFile(self._path)
        return zipfile.ZipFile(io.BytesIO(self._path.read_bytes()))

    def seekable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where it is."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Goes to a byte."""
        return self._file.seek(offset, whence)

    def close(self) -> None:
        """Closes what is on disk; memory is read on."""
        if isinstance(self._file, io.FileIO):
            self._file.close()
        super().close()


def _write_all(file: io.FileIO | io.BytesIO, data: memoryview) -> None:
    """Writes data as a whole: a disk that is nearly full takes a part of it first."""
    while data:
        data = data[file.write(data) :]


def _write_archive(file: _Movable, arrays: Iterable[NDArray[Any]]) -> int:
    """Writes arrays by their numbers; how many there were."""
    count = 0
    # numpy's own savez compresses three times slower for a tenth fewer bytes.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for count, array in enumerate(arrays, 1):
            with made.open(f"{count - 1}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    return count


def _key(request: Mapping[str, Any]) -> str:
    text = json.dumps({"format": _FORMAT, **request}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def kept_folder() -> Path:
    return own_folder() / "extracted"
