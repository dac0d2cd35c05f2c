"""The tensor files of a work folder: the bytes of a storage are written once for all checkpoints.

A storage is known by the SHA-256 of its bytes, which is its name in its file. A checkpoint lists the files
that it needs; a file goes when no checkpoint needs it. When less than half of a file is still needed, that
is written anew.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from itertools import count
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from .durable import save_tensors, sync
from .snapshot import Held

_SHARD_NBYTES = 2**28
_LEAST_NEEDED = 0.5  # of a file
Places = Mapping[str, str]  # the file of each storage, by its checksum
GoingOn = Callable[[], None]  # raises where writing is to stop


class Shards:
    """Reads and writes the tensor files of a folder. One thread at a time may."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[
            str, str
        ] = {}  # of storages that are whole, as far as this process knows
        self._lasting: dict[int, tuple[StorageWeakRef, str]] = {}  # checksums, by where they lie

    def kept(self, storages: Collection[torch.UntypedStorage]) -> dict[int, str]:
        """The checksums of those lasting storages whose bytes are kept already, by `_cdata`."""
        # While a weak reference is held, no other storage can come to lie at the place of one that is gone.
        self._lasting = {at: one for at, one in self._lasting.items() if not one[0].expired()}
        found, needed = dict[int, str](), Counter[str]()
        for storage in storages:
            _, checksum = self._lasting.get(storage._cdata, (None, ""))
            if checksum in self._places:
                found[storage._cdata] = checksum
                needed[self._places[checksum]] += storage.nbytes()
        self._forget([file for file, nbytes in needed.items() if self._is_spare(file, nbytes)])
        return {at: checksum for at, checksum in found.items() if checksum in self._places}

    def write(
        self, number: int, storages: Mapping[str, Held], going_on: GoingOn
    ) -> tuple[dict[str, str], int]:
        """Writes what is not kept yet to files of checkpoint `number`; the checksum of every storage by its
        name, and the bytes that were written."""
        listed, nbytes, waiting = dict[str, str](), 0, 0
        new: dict[str, Tensor] = {}
        for name, held in storages.items():
            going_on()
            data, held.data = held.data, None  # held by `new` alone, until it is written
            listed[name] = checksum = held.checksum or _checksum(data)
            if data is not None and checksum not in self._places and checksum not in new:
                new[checksum], waiting = data, waiting + data.nbytes
            if waiting >= _SHARD_NBYTES:
                nbytes, waiting = nbytes + self._save(number, new), 0
        if new:
            nbytes += self._save(number, new)
        for name, held in storages.items():
            held.check()
            if held.source is not None:
                self._lasting[held.source.cdata] = held.source, listed[name]
        return listed, nbytes

    def places(self, checksums: Collection[str]) -> dict[str, str]:
        """The file of each storage, by its checksum."""
        return {checksum: self._places[checksum] for checksum in checksums}

    def fault_of(self, places: Places) -> str | None:
        """What is wrong with storages that were written here; None where all are whole, which is noted."""
        for file, checksums in _by_file(places).items():
            try:
                with safe_open(self._folder / file, framework="pt") as stored:
                    spoilt = [c for c in checksums if _checksum(stored.get_tensor(c)) != c]
            except (OSError, SafetensorError) as error:
                return f"{file} is not what was written ({error})"
            if spoilt:
                return f"{file} is not what was written"
        self._places.update(places)
        return None

    def read(self, checksum: str, file: str) -> Tensor:
        """The bytes (n) uint8 of a storage."""
        with safe_open(self._folder / file, framework="pt") as stored:
            made: Tensor = stored.get_tensor(checksum)
            return made

    def keep_only(self, files: Collection[str]) -> None:
        """Removes all other files."""
        for path in self._folder.glob("*tensors-*"):
            if path.name not in files:
                self._forget({path.name})
                path.unlink()

    def _is_spare(self, file: str, needed_nbytes: int) -> bool:
        path = self._folder / file
        return not path.is_file() or needed_nbytes < _LEAST_NEEDED * path.stat().st_size

    def _forget(self, files: Collection[str]) -> None:
        """Storages of these files count as not written."""
        self._places = {c: file for c, file in self._places.items() if file not in files}

    def _save(self, number: int, tensors: dict[str, Tensor]) -> int:
        """Writes a file that is there as a whole or not at all; empties `tensors`, and gives their bytes."""
        # One that was written in vain, for a checkpoint that was not completed, may be needed by now.
        names = (f"tensors-{number:06}-{at}.safetensors" for at in count())
        target = next(path for name in names if not (path := self._folder / name).exists())
        part = self._folder / f".{target.name}.part"
        save_tensors(tensors, part)
        sync(part)
        part.replace(target)
        sync(self._folder)
        self._places |= dict.fromkeys(tensors, target.name)
        nbytes = sum(tensor.nbytes for tensor in tensors.values())
        tensors.clear()
        return nbytes


def _by_file(places: Places) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for checksum, file in places.items():
        found.setdefault(file, []).append(checksum)
    return found


def _checksum(data: Tensor | None) -> str:
    assert data is not None
    return hashlib.sha256(data.numpy().data).hexdigest()
