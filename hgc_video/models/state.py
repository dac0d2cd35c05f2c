"""What a model computes with, beside its inputs: weights, adapters and their scales, processors, switches.

LoRA, IP-Adapter, FreeU and the like are loaded, scaled and taken off by writing to a model's modules.
Nothing of a tensor is read but who it is and how often it was written to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

_TORCHS = frozenset(nn.Module().__dict__)  # what every module has
_PLAIN = (bool, int, float, str, type(None))


class ModelState:
    """The state of models as it was seen last; it holds on to what it saw, so that an identity stays one."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forgets what was seen."""
        self._found: list[Any] = []
        self._held: list[Any] = []

    def changed(self, *models: Any) -> bool:
        """Whether the models' state is another one than when this was asked last; False the first time."""
        found: list[Any] = []
        held: list[Any] = []
        for model in models:
            if model is not None:
                _read(model, found, held)
        before = self._found
        if not before:
            self._found, self._held = found, held
            return False
        if found == before or (len(found) == len(before) and all(map(_close, found, before))):
            return False
        self._found, self._held = found, held
        return True


def _read(model: Any, found: list[Any], held: list[Any]) -> None:
    waiting = [model]
    while waiting:
        module = waiting.pop()
        found.append(id(module))
        held.append(module)
        for tensor in module._parameters.values():
            # Sequential offloading makes new meta tensors at every call.
            if tensor is not None and not tensor.is_meta:
                found += (id(tensor), 0 if tensor.is_inference() else tensor._version)
                held.append(tensor)
        for name, value in module.__dict__.items():
            if name not in _TORCHS:
                found += _plain(value, held)
        waiting += [child for child in module._modules.values() if child is not None]


def _plain(value: Any, held: list[Any]) -> Iterator[Any]:
    """A value, the values of a list or a dictionary, and who anything else is."""
    kind = type(value)
    if kind in _PLAIN:
        yield value
    elif kind in (list, tuple, set):
        yield len(value)
        yield from (_leaf(inner, held) for inner in value)
    elif kind is dict:
        for key, inner in value.items():
            yield from (_leaf(key, held), _leaf(inner, held))
    else:
        yield _leaf(value, held)


def _leaf(value: Any, held: list[Any]) -> Any:
    if type(value) in _PLAIN:
        return value
    held.append(value)
    return id(value)


def _close(a: Any, b: Any) -> bool:
    """A scale that is multiplied in and divided out at every call (LoRA's, by keyword) comes back but for
    its last bits."""
    if type(a) is float and type(b) is float:
        return math.isclose(a, b, rel_tol=1e-6)
    return bool(a == b)
