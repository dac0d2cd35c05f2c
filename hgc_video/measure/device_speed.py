"""How fast this machine's GPU multiplies and copies, measured in a fraction of a second; or as told.

A large matrix product and a pinned copy: what a run reaches at best, so that seconds made from it are a
lower bound.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import inf
from typing import TYPE_CHECKING

from ..errors import InputError
from ..plan.memory.throughput import ASSUMED_CPU, ASSUMED_GPU, Throughput

if TYPE_CHECKING:
    import torch

_SIDE = 4096
_COPIED_NBYTES = 2**28
_REPEATS = 3


def rates_of(device: str, dtype: torch.dtype) -> Throughput:
    """The rates of a device: measured where it is a GPU, otherwise assumed."""
    if device.startswith("cuda"):
        return _measured(device, dtype)
    return ASSUMED_CPU if device == "cpu" else ASSUMED_GPU


def planning_rates(throughput: str | None) -> Throughput:
    """The rates to plan a run in half precision with: "40,20" is 40 T MACs a second and 20 GB a second
    between device and host, "measured" times the GPU that is here, None assumes one and runs nothing.

    Raises:
        InputError: neither of these, or nothing to measure.
    """
    if throughput is None:
        return ASSUMED_GPU
    if throughput == "measured":
        import torch

        if not torch.cuda.is_available():
            raise InputError(
                "throughput=measured needs a CUDA GPU, and there is none; tell it, as 40,20"
            )
        return _measured("cuda", torch.float16)
    try:
        macs, copied = (float(number) for number in throughput.split(","))
    except ValueError:
        macs = copied = 0.0
    if not (0 < macs < inf and 0 < copied < inf):
        raise InputError(
            f'throughput "{throughput}" is not possible; write T MACs a second and GB a second between '
            'device and host, as 40,20, or "measured"'
        )
    return Throughput(macs * 1e12, copied * 1e9, "as told")


@cache
def _measured(device: str, dtype: torch.dtype) -> Throughput:
    import torch

    a = torch.ones(_SIDE, _SIDE, device=device, dtype=dtype)
    host = torch.empty(_COPIED_NBYTES, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(host, device=device)
    product_s = _seconds(lambda: torch.mm(a, a), device)
    copy_s = _seconds(lambda: there.copy_(host, non_blocking=True), device)
    name = torch.cuda.get_device_name(device)
    return Throughput(_SIDE**3 / product_s, _COPIED_NBYTES / copy_s, f"measured on {name}")


def _seconds(work: Callable[[], object], device: str) -> float:
    """Seconds of a piece of device work, the fastest of a few, the first one left out."""
    import torch

    work()
    found: list[float] = []
    for _ in range(_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize(device)
        found.append(start.elapsed_time(end) / 1000)
    return min(found)
