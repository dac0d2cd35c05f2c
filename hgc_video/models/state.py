"""What a model computes with, beside its inputs: weights, adapters and their scales, processors, switches.

LoRA, IP-Adapter, FreeU and the like are loaded, scaled and taken off by writing to a model's modules.
Nothing of a tensor is read but who it is and how often it was written to.

This is asked before every step, of some 1,700 modules in AnimateDiff with a ControlNet: 7 ms in Python, which
a GPU waits for. So it is asked first whether all objects are the same, which takes 1.3 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import is_, itemgetter
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
        self._seen: _Seen | None = None
        self._in_vain = 0

    def changed(self, *models: Any) -> bool:
        """Whether the models' state is another one than when this was asked last; False the first time."""
        if self._seen is not None and self._seen.is_the_same(models):
            return False
        changed = self._is_another(models)
        if self._seen is not None and not changed:
            self._in_vain += 1
        # Some offloading makes new tensors at every call: to look for the same ones would cost time in vain.
        self._seen = _Seen(models) if self._in_vain < 2 else None
        return changed

    def _is_another(self, models: Sequence[Any]) -> bool:
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


class _Seen:
    """The very objects that make up models: modules, parameters, attributes and what lists among them hold.

    The same ones say that nothing changed. Other ones say nothing: a number that was computed again is
    another object of the same value.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        self._models = models
        modules = [module for model in models if model is not None for module in model.modules()]
        attributes = [module.__dict__ for module in modules]
        self._own = [(_getter(own), own) for own in attributes if own.keys() - _TORCHS]
        parameters = [own["_parameters"] for own in attributes]
        inner = [own["_modules"] for own in attributes]
        inner += [v for get, own in self._own for v in get(own) if type(v) in (dict, list, set)]
        self._sized: list[Any] = [*attributes, *parameters, *inner]
        self._sizes = list(map(len, self._sized))
        self._parameters = list(filter(None, parameters))
        self._dicts = [kept for kept in inner if kept and type(kept) is dict]
        self._lists = [kept for kept in inner if kept and type(kept) is not dict]
        self._objects = self._now()
        tensors = chain.from_iterable(map(dict.values, self._parameters))
        self._written = [t for t in tensors if t is not None and not t.is_inference()]
        self._versions = [tensor._version for tensor in self._written]

    def is_the_same(self, models: Sequence[Any]) -> bool:
        """Whether these are the models that were seen, and nothing of them is another object."""
        if len(models) != len(self._models) or not all(map(is_, models, self._models)):
            return False
        if list(map(len, self._sized)) != self._sizes:
            return False
        try:
            found = self._now()
        except KeyError:  # an attribute is gone
            return False
        if not all(map(is_, found, self._objects)):
            return False
        return [tensor._version for tensor in self._written] == self._versions

    def _now(self) -> list[Any]:
        return [
            *chain.from_iterable([get(own) for get, own in self._own]),
            *chain.from_iterable(map(dict.values, self._parameters)),
            *chain.from_iterable(map(dict.values, self._dicts)),
            *chain.from_iterable(self._dicts),  # their keys
            *chain.from_iterable(self._lists),
        ]


def _getter(own: dict[str, Any]) -> itemgetter[Any]:
    """Gives a tuple of the attributes that this module has beside those of all."""
    names = [name for name in own if name not in _TORCHS]
    return itemgetter(*names, names[0])  # of one name alone it would be the bare value


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
