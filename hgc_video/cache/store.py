"""The one place where cached tensors lie, by key; a key or shape that does not match is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ..errors import CacheStateError


class Key(NamedTuple):
    """Whose tensor it is: run, window of frames, guidance branches it was made for, layer."""

    run: int
    window: int
    branches: int
    layer: str


class Store:
    """Tensors by key, with exact accounting of their bytes."""

    def __init__(self) -> None:
        self._tensors: dict[Key, Tensor] = {}

    def put(self, key: Key, tensor: Tensor) -> None:
        """Keeps a tensor, in the place of the one before it."""
        self._tensors[key] = tensor

    def get(self, key: Key, rows: int | None = None) -> Tensor:
        """The kept tensor; CacheStateError when there is none or its batch has another size than `rows`."""
        if key not in self._tensors:
            raise CacheStateError(
                f"nothing is stored for {key}; a step before this one must compute it"
            )
        tensor = self._tensors[key]
        if rows is not None and tensor.shape[0] != rows:
            raise CacheStateError(
                f"{key.layer} was stored for {tensor.shape[0]} rows and is read for {rows}; "
                "start a new run when frames or batch change"
            )
        return tensor

    def __contains__(self, key: Key) -> bool:
        return key in self._tensors

    def keep_only(self, wanted: Callable[[Key], bool]) -> None:
        """Forgets every tensor whose key is not wanted."""
        self._tensors = {key: tensor for key, tensor in self._tensors.items() if wanted(key)}

    def clear(self) -> None:
        """Forgets all tensors."""
        self._tensors.clear()

    @property
    def nbytes(self) -> int:
        """Bytes kept now; a storage that two tensors share counts once."""
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for t in self._tensors.values()
        }
        return sum(storages.values())
