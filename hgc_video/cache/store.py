"""The one place where cached tensors lie, by key; a key or shape that does not match is an error."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import CacheStateError
from .follow import per_row


class Key(NamedTuple):
    """Whose value it is: run, window of frames, and the plan's name for it."""

    run: int
    window: int
    name: str


class Value(NamedTuple):
    """A kept tensor (branches·frames …), with the guidance branches and frames it was made for."""

    tensor: Tensor
    branches: int
    frames: int

    def for_branches(self, branches: int) -> Tensor:
        """Its rows for both branches, or the prompt's alone, which come last."""
        if branches > self.branches:
            raise CacheStateError(
                f"a value made for {self.branches} branch is read for {branches}; "
                "let that step compute it"
            )
        return self.tensor if branches == self.branches else self.tensor.chunk(2)[1]


class Store:
    """The last values of everything kept, with exact accounting of their bytes."""

    def __init__(self) -> None:
        self._values: dict[Key, tuple[Value, ...]] = {}

    def put(self, key: Key, value: Value, depth: int = 1) -> None:
        """Keeps a value and the `depth - 1` ones before it."""
        before = self._values.get(key, ())[: depth - 1]
        self._values[key] = (value, *before)

    def get(self, key: Key, *, branches: int, frames: int, slope: float | Tensor = 0.0) -> Tensor:
        """The last value F1, or F1 + slope (F1 - F2) of the last two, for these branches; every clip may
        have a slope of its own (b).

        CacheStateError when there is none, or it was made for other frames.
        """
        sloped = isinstance(slope, Tensor) or bool(
            slope
        )  # a tensor is not asked: it may be on a GPU
        values = self._values.get(key, ())
        if len(values) < (2 if sloped else 1):
            raise CacheStateError(
                f"nothing is stored for {key}; a step before this one must compute it"
            )
        for value in values[:2]:
            if value.frames != frames:
                raise CacheStateError(
                    f"{key.name} was stored for {value.frames} rows and is read for {frames}; "
                    "start a new run when frames or batch change"
                )
        newest = values[0].for_branches(branches)
        if not sloped:
            return newest
        if isinstance(slope, Tensor):
            slope = per_row(slope, newest, branches)
        return newest + slope * (newest - values[1].for_branches(branches))

    def values(self, key: Key) -> tuple[Value, ...]:
        """What is kept for a key, the newest first."""
        return self._values.get(key, ())

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def keep_only(self, window: int, names: Mapping[str, int]) -> None:
        """Forgets all values of a window but the last so many of each name."""
        self._values = {
            key: values if key.window != window else values[: names[key.name]]
            for key, values in self._values.items()
            if key.window != window or key.name in names
        }

    def spill(self, windows: Collection[int]) -> None:
        """Sends the values of all other windows to host memory; they come back when they are read, or
        before that by `fetch`. On the CPU they are there already."""
        for key, values in self._values.items():
            if key.window not in windows:
                self._values[key] = tuple(v._replace(tensor=to_host(v.tensor)) for v in values)

    def fetch(self, window: int, device: torch.device) -> None:
        """Begins to bring a window's values back to a device."""
        for key, values in self._values.items():
            if key.window == window:
                self._values[key] = tuple(
                    v._replace(tensor=v.tensor.to(device, non_blocking=True)) for v in values
                )

    def only_windows(self, windows: Collection[int]) -> None:
        """Forgets all values of other windows."""
        self._values = {key: v for key, v in self._values.items() if key.window in windows}

    def clear(self) -> None:
        """Forgets everything."""
        self._values.clear()

    @property
    def nbytes(self) -> int:
        """Bytes kept now, wherever; a storage that two tensors share counts once."""
        return storage_nbytes(v.tensor for values in self._values.values() for v in values)


def storage_nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors' storages, each counted once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def to_host(tensor: Tensor) -> Tensor:
    """The tensor in host memory, pinned where it comes from a GPU so that copies need not wait."""
    if tensor.device.type != "cuda":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    return host
