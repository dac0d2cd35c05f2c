"""A run's state as it is at one moment: plain data as JSON, and the storages of its tensors.

Storages are kept whole, so that tensors that share one still do, and strides and places stay: the layout of a
tensor decides the last bits of what is computed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from ...cache.store import Lasting, Offloaded
from ...errors import StateError

Known = Callable[[Collection[torch.UntypedStorage]], Mapping[int, str]]


@dataclass
class Held:
    """A storage in a snapshot: its bytes on the host, or the checksum under which they are kept already.

    `source` is where it lies, if it is one that nobody writes to; held weakly, so that a device's memory is
    free as soon as the run lets go of it. `watched` are tensors on it, each with the writes to it that torch
    had counted.
    """

    data: Tensor | None
    checksum: str | None = None
    source: StorageWeakRef | None = None
    watched: tuple[tuple[Tensor, int], ...] = ()

    def check(self) -> None:
        """StateError where somebody wrote to what was taken for lasting."""
        if any(tensor._version != before for tensor, before in self.watched):
            raise StateError("a value that was to last was written to while it was kept")


class Snapshot:
    """What a state was when this was made, however the run goes on: `told` as JSON, `storages` by name.

    Tensors that change in place, or lie on a device, are copied; what is `Lasting` on the host is held on to
    as it is, and not even that where `known` says that its bytes are kept.
    """

    def __init__(self, state: Mapping[str, Any], known: Known = lambda storages: {}) -> None:
        self._found: dict[int, _Found] = {}  # by where they lie
        self.told = self._tell(state, False)
        kept = known([one.storage for one in self._found.values() if one.lasts])
        self.storages = {one.name: one.held(kept) for one in self._found.values()}
        self._found.clear()

    def _tell(self, value: Any, lasts: bool) -> Any:
        """A value as JSON."""
        if isinstance(value, Tensor):
            return {"tensor": self._tensor(value, lasts)}
        if isinstance(value, Offloaded):
            return {"offloaded": self._tensor(value.load(), True)}
        if isinstance(value, Lasting):
            return self._tell(value.state, True)
        if isinstance(value, Mapping):
            return {"mapping": {key: self._tell(inner, lasts) for key, inner in value.items()}}
        if isinstance(value, tuple):
            return {"tuple": [self._tell(inner, lasts) for inner in value]}
        if isinstance(value, list):
            return [self._tell(inner, lasts) for inner in value]
        if not isinstance(value, str | int | float | None):
            raise StateError(
                f"a run cannot be kept whose state holds {value!r:.99}: give plain data, or mark a field "
                "that a plan gives its decider as OF_PLAN"
            )
        return value

    def _tensor(self, tensor: Tensor, lasts: bool) -> dict[str, Any]:
        storage = tensor.untyped_storage()
        # The storage is held on to, so that no other one can come to lie there.
        found = self._found.setdefault(storage._cdata, _Found(str(len(self._found)), storage))
        found.add(tensor, lasts)
        return {
            "storage": found.name, "offset": tensor.storage_offset(), "shape": list(tensor.shape),
            "stride": list(tensor.stride()), "dtype": str(tensor.dtype).removeprefix("torch."),
            "host": tensor.device.type == "cpu",
        }  # fmt: skip


class _Found:
    """A storage of a state, and the tensors on it that were seen."""

    def __init__(self, name: str, storage: torch.UntypedStorage) -> None:
        self.name, self.storage, self.lasts = name, storage, True
        self._tensors: list[Tensor] = []

    def add(self, tensor: Tensor, lasts: bool) -> None:
        """A tensor on it; of inference mode torch counts no writes."""
        self.lasts &= lasts and not tensor.is_inference()
        self._tensors.append(tensor)

    def held(self, kept: Mapping[int, str]) -> Held:
        """It as part of a snapshot."""
        if self.storage._cdata in kept:
            return Held(None, kept[self.storage._cdata])
        data, source = bytes_of(self.storage), StorageWeakRef(self.storage) if self.lasts else None
        if data.device.type != "cpu":
            return Held(data.cpu(), source=source)
        if not self.lasts:
            return Held(data.clone())
        watched = tuple((tensor, tensor._version) for tensor in self._tensors)
        return Held(data, source=source, watched=watched)


class Restored:
    """Makes the data and tensors that a snapshot told. Tensors that were not on the host go to the device,
    those in the offload tier are read when they are asked for.

    Args:
        read: the bytes (n) uint8 of a storage by its name.
    """

    def __init__(self, read: Callable[[str], Tensor], device: torch.device) -> None:
        self._bytes, self._device = read, device
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
        stored = self._bytes(name)
        made = torch.empty(len(stored), dtype=torch.uint8, device=device or "cpu")
        made.copy_(stored)
        return made.untyped_storage()


def bytes_of(storage: torch.UntypedStorage) -> Tensor:
    """A storage as (n) uint8, not copied."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _viewed(storage: torch.UntypedStorage, told: Mapping[str, Any]) -> Tensor:
    empty = torch.empty(0, dtype=getattr(torch, told["dtype"]), device=storage.device)
    return empty.set_(storage, told["offset"], told["shape"], told["stride"])
