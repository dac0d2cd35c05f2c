"""Whether what a run's models are called with, beside latents and timesteps, is still what it was.

A stock loop hands its models the same prompt, control clip and added embeddings at every step, unless a
callback gives it others. What is kept for a run was made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .model_calls import RESIDUALS

# Other ones at every step; the scale is multiplied in behind all layers.
_OF_A_STEP = ("sample", "timestep", "conditioning_scale", "return_dict", *RESIDUALS)


class Inputs:
    """The inputs of a run's models as they were seen last."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, _Seen]] = {}

    def forget(self) -> None:
        """A run begins."""
        self._seen.clear()

    def changed(self, model: str, call: Mapping[str, Any]) -> bool:
        """Whether a model's call (arguments by name) brings another prompt, control or embedding than its
        calls before; from then on it is the one to compare with.

        The same tensor of the same version is not read: that would wait for the device. One that was put
        in its place is, as it may be an equal one.
        """
        given = {
            n: v
            for name, value in call.items()
            if name not in _OF_A_STEP
            for n, v in _leaves(name, value)
        }
        before = self._seen.get(model)
        same = before is not None and before.keys() == given.keys()
        if same and before is not None and all(before[n].still(v) for n, v in given.items()):
            return False
        self._seen[model] = {name: _Seen(value) for name, value in given.items()}
        return before is not None


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _leaves(f"{name}.{i}", inner)
    else:
        yield name, value


class _Seen:
    """One input."""

    def __init__(self, value: Any) -> None:
        self._take(value)

    def _take(self, value: Any) -> None:
        self.value, self.version = value, _version(value)
        # One that is written to without a trace can only be compared with a copy.
        self.copy = value.clone() if isinstance(value, Tensor) and value.is_inference() else None

    def still(self, value: Any) -> bool:
        """Whether this is what was seen; a tensor is, if it is the same memory and was not written to."""
        if not isinstance(value, Tensor):
            return value is self.value or (
                type(value) is type(self.value) and bool(value == self.value)
            )
        if not isinstance(self.value, Tensor):
            return False
        if self.copy is None and _same_memory(value, self.value):
            return _version(value) == self.version
        before = self.value if self.copy is None else self.copy
        if _version(self.value) != self.version or not _equal(value, before):
            return False
        self._take(value)
        return True


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0


def _same_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same, or the same view of one; no data is read."""
    if a is b:
        return True
    if (a.shape, a.stride(), a.dtype, a.device) != (b.shape, b.stride(), b.dtype, b.device):
        return False
    here, there = a.untyped_storage(), b.untyped_storage()
    return here._cdata == there._cdata and a.storage_offset() == b.storage_offset()


def _equal(a: Tensor, b: Tensor) -> bool:
    if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
        return False
    return a.is_meta or torch.equal(a, b)
