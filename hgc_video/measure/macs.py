"""Counts multiply-accumulates as they are executed, fused attention included.

torch's FlopCounterMode (two flops are one MAC) counts 0 for the fused attention of CPU tensors
(pytorch#195460); the missing formula is added here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _cpu_attention(
    query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    return int(sdpa_flop_count(query, key, value))


_EXTRA = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention}


def _is_product(operator: str) -> bool:
    return "scaled_dot_product" in operator or "bmm" in operator


class MacCounter:
    """`with MacCounter() as counter: ...; counter.macs` — MACs of every operator run inside."""

    def __init__(self) -> None:
        self._mode = FlopCounterMode(display=False, custom_mapping=_EXTRA)

    def __enter__(self) -> MacCounter:
        self._mode.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._mode.__exit__(kind, error, trace)

    @property
    def macs(self) -> int:
        """MACs so far."""
        return int(self._mode.get_total_flops()) // 2

    @property
    def attention_products(self) -> int:
        """The share of them in products of queries with keys and of weights with values.

        Every batched matrix product is one: nothing else in these models multiplies two activations.
        """
        counts = self._mode.flop_counts["Global"]  # get_flop_counts() copies those of every module
        return int(sum(n for op, n in counts.items() if _is_product(str(op)))) // 2


def module_macs(module: Any, *args: Any, method: str = "forward", **kwargs: Any) -> int:
    """MACs of one call, with `module` rebuilt without weights and `args` given as meta tensors.

    Counted once for a configuration and shapes: every run asks, and the meta device computes in Python.
    """
    config = module.config
    told = config.to_json_string() if hasattr(config, "to_json_string") else dict(config)
    shapes = [(tuple(x.shape), str(x.dtype)) for x in args]
    key = json.dumps([str(type(module)), told, shapes, method, kwargs], sort_keys=True, default=str)
    return _counted(_Call(key, partial(_count, type(module), config, args, method, kwargs)))


@dataclass(frozen=True)
class _Call:
    """A call by what tells it from others."""

    key: str
    count: Callable[[], int] = field(compare=False)


@lru_cache(256)
def _counted(call: _Call) -> int:
    return call.count()


def _count(
    kind: Any, config: Any, args: tuple[Any, ...], method: str, kwargs: dict[str, Any]
) -> int:
    with torch.device("meta"):
        copy = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    # Whatever the default is: while models are loaded in another thread it is theirs.
    copy = nn.Module.to(copy, "meta", torch.float32).eval()
    with torch.no_grad(), MacCounter() as counter:
        getattr(copy, method)(*args, **kwargs)
    return counter.macs
