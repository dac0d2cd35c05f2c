"""Operators on meta tensors by what they gave before for the same shapes.

An operator on the meta device computes shapes alone, yet in Python and up to a millisecond at a time. A
trial step calls a few hundred different ones tens of thousands of times.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_Made = tuple[torch.Size, tuple[int, ...], torch.dtype]  # sizes, strides, dtype


class MetaResults(TorchDispatchMode):
    """`with MetaResults(): ...` computes the shapes of an operator's results once for the same inputs.

    Remembered are operators that neither write to an input nor return a view, of meta tensors and plain
    values; all others are called. FakeTensorMode of torch keeps results by the same rule. Modes entered
    within it see every call.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: dict[Any, list[_Made] | None] = {}
        self._pure: dict[Any, bool] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._result(func, args, kwargs or {})

    def _result(self, operator: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        key = self._key(operator, args, kwargs)
        if key is None:
            return operator(*args, **kwargs)
        if key not in self._made:
            out = operator(*args, **kwargs)
            self._made[key] = _described(out)
            return out
        made = self._made[key]
        if made is None:
            return operator(*args, **kwargs)
        outputs = tuple(_empty(*one) for one in made)
        return outputs if len(operator._schema.returns) > 1 else outputs[0]

    def _key(self, operator: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Operator, and of tensors what shapes depend on; None where its result may not be kept."""
        if operator not in self._pure:
            self._pure[operator] = _is_pure(operator)
        if not self._pure[operator]:
            return None
        found: list[Any] = [operator]
        return tuple(found) if _describe(args, found) & _describe(kwargs.items(), found) else None


def _is_pure(operator: Any) -> bool:
    """Whether an operator makes tensors of its own from tensors that it only reads."""
    schema = operator._schema
    told = [*schema.arguments, *schema.returns]
    makes = all(str(value.type) == "Tensor" for value in schema.returns)
    reads = any("Tensor" in str(value.type) for value in schema.arguments)
    return makes and reads and not any(value.alias_info for value in told)


def _describe(values: Iterable[Any], found: list[Any]) -> bool:
    """Adds to `found` what tells the values apart; False where that cannot be told."""
    known = True
    for value in values:
        if isinstance(value, torch.Tensor):
            known &= value.is_meta
            found += (value.shape, value.stride(), value.dtype)
        elif isinstance(value, (list, tuple)):
            found += (type(value), len(value))
            known &= _describe(value, found)
        else:
            known &= value.__hash__ is not None and not isinstance(value, torch.Generator)
            found += (type(value), value)
    return known


def _described(out: Any) -> list[_Made] | None:
    """What is needed to make the output again; None where a storage is not of the size of its tensor."""
    tensors = out if isinstance(out, tuple) else (out,)
    if not all(isinstance(t, torch.Tensor) and t.is_meta for t in tensors):
        return None
    made = [(t.shape, t.stride(), t.dtype) for t in tensors]
    sizes = [_empty(*one).untyped_storage().nbytes() for one in made]
    return made if sizes == [t.untyped_storage().nbytes() for t in tensors] else None


def _empty(size: torch.Size, stride: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    empty = torch.ops.aten.empty_strided.default
    made: torch.Tensor = empty(size, stride, dtype=dtype, device="meta")
    return made
