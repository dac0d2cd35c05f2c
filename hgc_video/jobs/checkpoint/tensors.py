"""A saved state as JSON and safetensors: plain data with tensors in it, and back, to the bit.

Storages are written whole, so that tensors that share one still do, and strides and places stay: the layout
of a tensor decides the last bits of what is computed from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...cache.store import Offloaded

_SHARD_NBYTES = 2**28  # of tensors that are copied to the host at once
_STATE = "state.json"


def write_state(folder: Path, state: Mapping[str, Any]) -> int:
    """Writes plain data with tensors in it to files of a folder; the bytes of the tensors."""
    packed = _Packed()
    told = packed.tell(state)
    shards = packed.write(folder)
    (folder / _STATE).write_text(json.dumps({"state": told, "storages": shards}))
    return packed.nbytes


def read_state(folder: Path, device: torch.device) -> Any:
    """What `write_state` wrote; tensors that were not on the host go to the device, those in the offload
    tier are read when they are asked for."""
    content = json.loads((folder / _STATE).read_text())
    return _Unpacked(folder, content["storages"], device).made(content["state"])


class _Packed:
    """Tells plain data with tensors as JSON, and gathers the tensors' storages."""

    def __init__(self) -> None:
        self._storages: dict[int, tuple[str, torch.UntypedStorage]] = {}  # by where they lie
        self.nbytes = 0

    def tell(self, value: Any) -> Any:
        """A value as JSON."""
        if isinstance(value, Tensor):
            return {"tensor": self._tensor(value)}
        if isinstance(value, Offloaded):
            return {"offloaded": self._tensor(value.load())}
        if isinstance(value, Mapping):
            return {"mapping": {key: self.tell(inner) for key, inner in value.items()}}
        if isinstance(value, tuple):
            return {"tuple": [self.tell(inner) for inner in value]}
        return [self.tell(inner) for inner in value] if isinstance(value, list) else value

    def _tensor(self, tensor: Tensor) -> dict[str, Any]:
        storage = tensor.untyped_storage()
        number = str(len(self._storages))
        # The storage is held on to, so that no other one can come to lie there.
        name, _ = self._storages.setdefault(storage._cdata, (number, storage))
        return {
            "storage": name, "offset": tensor.storage_offset(), "shape": list(tensor.shape),
            "stride": list(tensor.stride()), "dtype": str(tensor.dtype).removeprefix("torch."),
            "host": tensor.device.type == "cpu",
        }  # fmt: skip

    def write(self, folder: Path) -> dict[str, Any]:
        """Writes the storages; by name the file and the bytes of each."""
        listed: dict[str, Any] = {}
        for number, shard in enumerate(self._shards()):
            file = f"tensors-{number}.safetensors"
            _save({name: _bytes_of(storage).cpu() for name, storage in shard}, folder / file)
            listed |= {name: [file, storage.nbytes()] for name, storage in shard}
        self.nbytes = sum(nbytes for _, nbytes in listed.values())
        return listed

    def _shards(self) -> Iterator[list[tuple[str, torch.UntypedStorage]]]:
        shard: list[tuple[str, torch.UntypedStorage]] = []
        held = 0
        for name, storage in self._storages.values():
            if shard and held + storage.nbytes() > _SHARD_NBYTES:
                yield shard
                shard, held = [], 0
            shard.append((name, storage))
            held += storage.nbytes()
        if shard:
            yield shard


class _Unpacked:
    """Makes plain data with tensors of what `_Packed` told."""

    def __init__(self, folder: Path, listed: Mapping[str, Any], device: torch.device) -> None:
        self._folder, self._listed, self._device = folder, listed, device
        self._storages: dict[tuple[str, str], torch.UntypedStorage] = {}

    def made(self, told: Any) -> Any:
        """A value of its JSON."""
        if isinstance(told, list):
            return [self.made(inner) for inner in told]
        if not isinstance(told, dict):
            return told
        ((kind, inner),) = told.items()
        kinds: dict[str, Callable[[Any], Any]] = {
            "tensor": self._tensor,
            "offloaded": lambda one: Offloaded(lambda: _viewed(self._read(one["storage"]), one)),
            "mapping": lambda items: {key: self.made(item) for key, item in items.items()},
            "tuple": lambda items: tuple(self.made(item) for item in items),
        }
        return kinds[kind](inner)

    def _tensor(self, told: Mapping[str, Any]) -> Tensor:
        device = torch.device("cpu") if told["host"] else self._device
        key = (told["storage"], str(device))
        if key not in self._storages:
            self._storages[key] = self._read(told["storage"], device)
        return _viewed(self._storages[key], told)

    def _read(self, name: str, device: torch.device | None = None) -> torch.UntypedStorage:
        """A storage of its own, placed as torch places tensors."""
        file, nbytes = self._listed[name]
        with safe_open(self._folder / file, framework="pt") as stored:
            made = torch.empty(nbytes, dtype=torch.uint8, device=device or "cpu")
            made.copy_(stored.get_tensor(name))
        return made.untyped_storage()


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a file of tensors; where that cannot be done OSError, as of every other file."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error), str(path)) from error


def _bytes_of(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _viewed(storage: torch.UntypedStorage, told: Mapping[str, Any]) -> Tensor:
    empty = torch.empty(0, dtype=getattr(torch, told["dtype"]), device=storage.device)
    return empty.set_(storage, told["offset"], told["shape"], told["stride"])
