"""The bytes of tensors that are alive, followed operator by operator; on any device, meta included.

What it sees is what an allocator is asked for: outputs of operators, counted once per storage and freed
with it. Scratch space inside an operator is not seen, but may be told.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Scratch = Callable[[Any, list[torch.Tensor]], int]


def cpu_scratch(operator: Any, inputs: list[torch.Tensor]) -> int:
    """What CPU kernels take beside their outputs: a convolution reorders its input (measured)."""
    return inputs[0].nbytes if operator is torch.ops.aten.convolution.default else 0


class LiveBytes:
    """`with LiveBytes() as live: ...; live.peak` — the most bytes that new tensors held at once.

    `scratch(operator, inputs)` tells the bytes that an operator takes while it runs, beside its output.
    """

    def __init__(self, scratch: Scratch | None = None) -> None:
        self.now = self.peak = 0
        self._scratch = scratch
        self._seen: dict[int, int] = {}
        self._mode = _Mode(self._follow)

    def __enter__(self) -> LiveBytes:
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._mode.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def _follow(self, operator: Any, tensors: list[torch.Tensor], out: Any) -> None:
        before = {t.untyped_storage()._cdata for t in tensors}
        for tensor in _tensors((out,)):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._seen and key not in before:
                self._seen[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, key)
        if self._scratch is not None:
            self.peak = max(self.peak, self.now + self._scratch(operator, tensors))

    def _free(self, key: int) -> None:
        self.now -= self._seen.pop(key, 0)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among an operator's inputs or outputs, those in lists of them too."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


class _Mode(TorchDispatchMode):
    """Tells of every operator's outputs that are not its inputs."""

    def __init__(self, follow: Callable[[Any, list[torch.Tensor], Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._follow = follow

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [*_tensors(args), *_tensors(kwargs.values())]
        out = func(*args, **kwargs)
        self._follow(func, inputs, out)
        return out


class FusedAttention(TorchFunctionMode):
    """Has attention on the meta device take what fused kernels take: an output, and no scores."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention and args and args[0].is_meta:
            query, _, value = args[:3]
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **(kwargs or {}))
